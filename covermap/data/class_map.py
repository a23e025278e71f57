"""A map of classes by whomever: its file or tiles, its grid, and the legend that its codes are of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.errors import DataError, GridError, LabelError, suggest
from covermap.core.legend import IGNORE, Legend, load_legend, shipped
from covermap.core.parsing import as_written, parse_json
from covermap.data.labels import infer_legend, open_codes
from covermap.geo.align import require_crs_on_both
from covermap.geo.change_product import FROM_TO
from covermap.geo.classes import read_classes
from covermap.geo.damage import naming_file
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.legend_files import read_legend
from covermap.geo.mosaic import mosaic
from covermap.geo.products import legend_of_map, without_layers
from covermap.geo.raster import grid_of

HISTORY = "COVERMAP_HISTORY"
"""Tag with all steps that made a map of another, oldest first, as JSON."""
_TIFFS = (".tif", ".tiff")
_BLOCK_PX = 512
_SHOWN = 4
_LOOK_AT = 8
"""One block of so many is looked at where a legend is only to be suggested."""


@dataclass(frozen=True)
class ClassMap:
    """path: what opens it (of tiles the text of a VRT). name: what messages call it. tags: those of all files alike.

    inferred: whether nobody says what its codes mean, so that the legend is that of the numbers it holds.
    """

    path: str
    name: str
    legend: Legend
    grid: Grid
    files: tuple[str, ...]
    tags: Mapping[str, str]
    option: str = "--legend"
    inferred: bool = False

    @property
    def notes(self) -> list[str]:
        """Where the legend that was stated contradicts the map's own."""
        own = legend_of_map(self.files[0])
        here = dict(zip(self.legend.codes, self.legend.names, strict=True))
        odd = [c for c in own.classes if here.get(c.code, c.name).lower() != c.name.lower()] if own else []
        if not odd:
            return []
        listed = ", ".join(f"{c.code} {c.name}" for c in odd[:_SHOWN]) + (", ..." if len(odd) > _SHOWN else "")
        read = ", ".join(f"{c.code} {here[c.code]}" for c in odd[:_SHOWN]) + (", ..." if len(odd) > _SHOWN else "")
        return [
            f"{self.name} says itself that its codes mean {listed}; as {self.option} asks for, they are read as {read} "
            f"(legend {self.legend.name!r}): leave {self.option} out where the map is right"
        ]

    @property
    def date(self) -> str | None:
        """When its image was taken, as covermap writes it."""
        return self.tags.get("COVERMAP_DATE")

    def read(self, window: Window, grid: Grid | None = None) -> npt.NDArray[np.uint8]:
        """Class indices (H, W) of a window of its own grid, or of another by nearest neighbour; IGNORE for none.

        Raises LabelError for codes that its legend does not know.
        """
        try:
            return read_classes(self.path, grid or self.grid, self.legend, window=window, method="nearest")
        except LabelError as error:
            other = f"state the legend that they are of ({self.option}), or a copy of it that lists them under ignore"
            raise LabelError(
                error.message.replace(self.path, self.name),
                fix=f"leave {self.option} out: the map says itself what its codes mean" if self.notes else other,
            ) from error

    def blocks(self) -> Iterator[Window]:
        """Windows that cover it once, always the same ones in the same order."""
        return partition(self.grid.window, _BLOCK_PX, 8 * _BLOCK_PX)

    def at(self, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """Class indices (N,) of pixels (N,) inside of the grid; each block of the file is read once."""
        found = np.full(len(rows), IGNORE, np.uint8)
        blocks = (rows // _BLOCK_PX) * (self.grid.width // _BLOCK_PX + 1) + cols // _BLOCK_PX
        for block in np.unique(blocks):
            of = np.flatnonzero(blocks == block)
            row, col = (int(v[of[0]]) // _BLOCK_PX * _BLOCK_PX for v in (rows, cols))
            window = Window(row, col, _BLOCK_PX, _BLOCK_PX).intersect(self.grid.window)
            found[of] = self.read(window)[rows[of] - row, cols[of] - col]
        return found


def open_class_map(
    path: str | Path, *, legend: str | None = None, option: str = "--legend", infer: bool = False
) -> ClassMap:
    """A raster of class codes, or a folder of tiles of one (of those that overlap the first that holds a class counts).

    Layers beside maps are left out. legend: a shipped name or file, else the map's own.

    option: how the legend is stated, for messages. infer: where nobody says what the codes mean, they are classes by
    their numbers. Raises LabelError where this is not known, differs between tiles or the raster holds none, DataError
    (also for tiles of several models or histories), and what joining tiles raises.
    """
    files = _files(Path(path))
    opened = files[0] if len(files) == 1 else mosaic(files, gaps=True, overlap=True)
    dataset = open_codes(opened)
    tags = _shared_tags(files, legend_matters=legend is None)
    if "COVERMAP_MODEL" in tags and "COVERMAP_LEGEND" not in tags:
        raise DataError(f"{path} holds numbers that a model gave, not classes", fix="give the map beside it")
    known = read_legend(legend) if legend else legend_of_map(files[0])
    if known is None and FROM_TO in tags:
        with as_written(f"{path} (tag {FROM_TO})", fix="make the map of changes again"):
            k = len(parse_json(tags[FROM_TO])["classes"])
        raise LabelError(
            f"{path} holds changes between {k} classes, more of them than a legend has classes",
            fix="make a map of fewer: covermap change A B OUT.tif --binary, or --to CLASS, or --as a coarser legend",
        )
    inferred = known is None
    known = known or (infer_legend(opened) if infer else None)
    if known is None:
        raise LabelError(f"{path} does not say what its codes mean", fix=_candidates(opened, option))
    if dataset.nodata is not None and dataset.nodata in known.codes:
        name = known.names[known.codes.index(int(dataset.nodata))]
        raise LabelError(
            f"{path} says that {dataset.nodata:g} is nodata, legend {known.name!r} that it is {name!r}",
            fix="if it is the class, take the tag away: gdal_edit.py -unsetnodata FILE; else state another legend",
        )
    return ClassMap(opened, str(path), known, grid_of(dataset), tuple(files), tags, option, inferred)


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        return [str(path)]
    found = without_layers(sorted(file for file in path.iterdir() if file.suffix.lower() in _TIFFS))
    if not found:
        raise DataError(f"{path} holds no GeoTIFF", fix="give a map, or the folder of its tiles")
    return [str(file) for file in found]


def _shared_tags(files: Sequence[str], *, legend_matters: bool) -> dict[str, str]:
    """The tags that all tiles share; raises where they are no parts of one map.

    Of COVERMAP_HISTORY the settings of each step count and stay, not what a step changed in one tile.
    """
    first = shared = _tags(files[0])
    steps, written = _steps(first), first.get("COVERMAP_LEGEND")
    for file in files[1:]:
        tags = _tags(file)
        if legend_matters and tags.get("COVERMAP_LEGEND") != written and _meaning(file) != _meaning(files[0]):
            raise LabelError(
                f"{files[0]} and {file} are not of one legend: their codes mean other classes",
                fix="put maps of other legends into other folders, or bring all to one: covermap legend apply",
            )
        if tags.get("COVERMAP_MODEL") != first.get("COVERMAP_MODEL"):
            raise DataError(
                f"{files[0]} and {file} are not by one model (tag COVERMAP_MODEL)",
                fix="put the maps of each model into a folder of their own",
            )
        if _steps(tags) != steps:
            raise DataError(
                f"{files[0]} and {file} were not changed by the same steps (tag {HISTORY})",
                fix="put maps that went through other steps into another folder",
            )
        shared = {key: value for key, value in shared.items() if tags.get(key) == value}
    if steps and len(files) > 1:
        shared[HISTORY] = json.dumps(steps)
    return shared


def _tags(file: str) -> dict[str, str]:
    with naming_file(file), rasterio.open(file) as dataset:
        return dict(dataset.tags())


def _steps(tags: Mapping[str, str]) -> list[dict[str, object]]:
    """The steps that made a map, without what they did to its own pixels."""
    with as_written(f"a map (tag {HISTORY})", fix="remove the tag: gdal_edit.py -unsetmd MAP"):
        steps = parse_json(tags.get(HISTORY, "[]"))
        return [{key: value for key, value in step.items() if key not in ("from", "changed_ha")} for step in steps]


def _meaning(file: str) -> tuple[object, ...] | None:
    """What a map's own legend says of each code; None where it has none."""
    if (legend := legend_of_map(file)) is None:
        return None
    names = frozenset(zip(legend.codes, legend.names, strict=True))
    return names, legend.nodata, frozenset(legend.ignore), frozenset(legend.merged.items())


def _candidates(path: str, option: str) -> str:
    """What to do about a missing legend, with the shipped ones that know the codes."""
    codes = infer_legend(path, every=_LOOK_AT).codes
    known = [load_legend(name) for name in shipped()]
    fit = [one.name for one in known if {*codes} <= {*one.codes, *one.ignore, *one.merged, one.nodata}]
    shown = ", ".join(map(str, codes[:12])) + (", ..." if len(codes) > 12 else "")
    if not fit:
        return f"write a legend of its codes ({shown}) and state it: {option} FILE.yaml"
    return f"state the legend: {option} {fit[0]}" + (
        f" (its codes {shown} are in {', '.join(fit)})" if len(fit) > 1 else f" has its codes {shown}"
    )


def find_target(name: str, known: tuple[Legend, ...]) -> Legend:
    """The legend that a map is to be brought to: one of `known` by name, a shipped one or a file; raises LabelError."""
    for legend in known:
        if legend.name == name:
            return legend
    if not Path(name).suffix and name not in shipped():
        raise LabelError(
            f"there is no legend called {name!r}", fix=suggest(name, [*shipped(), *(k.name for k in known)])
        )
    return read_legend(name)


def require_same_place(first: ClassMap, second: ClassMap) -> None:
    """Raise GridError where two maps do not lie on the same ground."""
    require_same_ground(first.grid, first.name, second.grid, second.name)


def require_same_ground(first: Grid, name: str, second: Grid, other: str) -> None:
    """Raise GridError where two rasters, with their names, do not lie on the same ground."""
    require_crs_on_both(second.crs, first.crs, other)
    together = second.overlap(first) > 0
    if first.crs is None:
        together = second.has_extent_of(first)
    if not together:
        why = "" if first.crs else " (without a CRS their corners must be the same)"
        raise GridError(
            f"{other} ({second.describe()}) does not overlap {name} ({first.describe()}){why}",
            fix="check the place and the CRS of both: covermap info FILE",
        )
