"""What the codes of a raster mean and how much there is of each, for rasters of any origin and any number of classes.

legend in the file -> .qml, attribute table or .clr beside it -> that of its run or folder -> colour table -> numbers
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import DatasetReader

from covermap.core.errors import DataError, LabelError, UnreadableError
from covermap.core.from_to import FromTo
from covermap.core.legend import PALETTE, LandClass, Legend
from covermap.core.parsing import as_written, parse_csv, parse_json
from covermap.geo.change_product import FROM_TO
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import partition
from covermap.geo.legend_files import class_names, read_legend
from covermap.geo.products import count_rows, legend_of_map, names_beside, small_cache
from covermap.geo.raster import grid_of

_COUNT_PX = 1 << 22
_MOST = 65_534
_LOOK_PX = 1 << 14
_GROWN, _GROWN_BY = 4.0, 0.05
NOTHING = 65_535
"""Index of pixels without a class in `table_of`."""


@dataclass(frozen=True)
class Shown:
    """A class, or a change of one to another; hectares: None without a CRS."""

    code: int
    name: str
    colour: str
    pixels: int
    hectares: float | None
    before: str | None = None
    after: str | None = None
    changed: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the page needs it."""
        one: dict[str, Any] = {"code": self.code, "name": self.name, "colour": self.colour, "pixels": self.pixels}
        one["hectares"] = None if self.hectares is None else round(self.hectares, 4)
        if self.changed is not None:
            one |= {"from": self.before, "to": self.after, "changed": self.changed}
        return one


def table_of(classes: Sequence[Shown]) -> npt.NDArray[np.uint16]:
    """(65536,): code -> index of its class, NOTHING for others."""
    table = np.full(65536, NOTHING, np.uint16)
    table[[one.code for one in classes]] = np.arange(len(classes))
    return table


def codes_of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers of any type as codes of 8 or 16 bit; 65535 for what is none: fractions, NaN, below 0, too large."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    good = (values >= 0) & (values <= _MOST)
    if values.dtype.kind == "f":
        good &= values == np.rint(values)
    return np.where(good, values, _MOST + 1).astype(np.uint16)


def count_codes(path: Path) -> dict[int, tuple[int, float | None]]:
    """Pixels and hectares of each code of a raster, read once in strips; raises LabelError where it holds fractions.

    Numbers that can be no codes, such as -1, are counted as NOTHING.
    Hectares are added up as in areas.csv: each row by the ground size of its own pixels.
    """
    pixels, areas = np.zeros(65536, np.int64), np.zeros(65536)
    with small_cache(), rasterio.open(path) as dataset:
        grid, nodata = grid_of(dataset), dataset.nodata
        rows = max(1, min(512, _COUNT_PX // max(1, grid.width)))
        for strip in partition(grid.window, rows, grid.width):
            try:
                values, mask = dataset.read(1, window=strip.rasterio), _mask(dataset, strip.rasterio)
            except GDAL_ERRORS as error:
                raise UnreadableError(
                    f"{path} is damaged near row {strip.row}: {error}", fix="copy it again from its source"
                ) from error
            codes = codes_of(values)
            known = np.broadcast_to(mask, codes.shape) & np.isfinite(values)
            if nodata is not None:
                known &= values != nodata
            if values.dtype.kind == "f" and ((codes == NOTHING) & np.isfinite(values) & (values != nodata)).any():
                raise LabelError(f"{path} holds fractions, no codes")
            present = np.flatnonzero(np.bincount(codes[known].ravel(), minlength=1))
            place = np.full(65536, len(present), np.uint16)
            place[present] = np.arange(len(present))
            index = np.where(known, place[codes], len(present))
            found = count_rows(index, len(present) + 1)[:, :-1]
            pixels[present] += found.sum(0)
            areas[present] += np.asarray(grid.row_areas_ha(strip.row, strip.height)) @ found
    return {
        code: (int(pixels[code]), float(areas[code]) if grid.crs else None) for code in np.flatnonzero(pixels).tolist()
    }


def _mask(dataset: DatasetReader, window: Any) -> Any:
    per_dataset = rasterio.enums.MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    return dataset.dataset_mask(window=window) > 0 if per_dataset else np.bool_(True)


def counts_beside(path: Path, legend: Legend) -> dict[int, tuple[int, float | None]] | None:
    """Pixels and hectares by the map's table of areas; None where that is gone or older than the map.

    The colours are written right after the map: where they are older, the map was changed since.
    """
    beside = names_beside(path)
    try:
        if beside["colours"].stat().st_mtime_ns < path.stat().st_mtime_ns:
            return None
        told = parse_csv(beside["areas"].read_text(encoding="utf-8"))
        rows = {int(row["code"]): (int(row["pixels"]), float(row["area_ha"])) for row in told}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {code: found for code, found in rows.items() if found[0]} if set(rows) == set(legend.codes) else None


def classes_of_map(path: Path, stated: Sequence[Legend] = ()) -> tuple[tuple[Shown, ...], int]:
    """The classes of a raster of codes, those without a pixel too where a legend lists them; and pixels of no class.

    stated: legends of a run or folder, for a raster that says nothing of its codes. Raises LabelError, DataError.
    """
    legend = _own_legend(path)
    counts = (counts_beside(path, legend) if legend else None) or count_codes(path)
    nodata = _nodata(path)
    if legend is None:
        codes = {*counts} - {NOTHING}
        fit = (one for one in stated if codes <= {*one.codes, *one.ignore, *one.merged, one.nodata})
        legend = next(fit, None)
    present = sorted(code for code in counts if code != NOTHING)
    names = {one.code: one for one in (legend.classes if legend else _named(path, present))}
    shown = tuple(_shown(one, counts) for one in names.values() if one.code != nodata or legend)
    if not shown:
        raise LabelError(f"{path} holds no class: all of it is nodata")
    known = {one.code for one in shown} | ({legend.nodata, *legend.ignore} if legend else set())
    return shown, sum(found[0] for code, found in counts.items() if code not in known)


def changes_of_map(path: Path) -> tuple[tuple[Shown, ...], int]:
    """The transitions that a change map holds, or unchanged and changed of one without classes; pixels of no code."""
    with rasterio.open(path) as dataset:
        tags, nodata = dataset.tags(), dataset.nodata
    with as_written(f"{path} (its tags)", fix="make the map again: covermap change"):
        from_to = FromTo(Legend.from_dict(parse_json(tags[FROM_TO]), where=str(path)))
        binary = bool(parse_json(tags.get("COVERMAP_CHANGE", "{}")).get("binary"))
    own = legend_of_map(path)
    counts = {code: found for code, found in count_codes(path).items() if code != nodata}
    if own is not None and len(own) == 2 and binary:
        two = [_shown(one, counts, changed=number == 1) for number, one in enumerate(own.classes)]
        return tuple(two), sum(found[0] for code, found in counts.items() if code not in own.codes)
    rest = own.classes[0] if own and own.codes[0] == 0 else LandClass(0, "unchanged", "#f2f2ee")
    shown = [_shown(rest, counts, changed=False)]
    for each in from_to.transitions():
        if each.code in counts:
            one = LandClass(each.code, f"{each.before.name} → {each.after.name}", each.colour)
            shown.append(_shown(one, counts, before=each.before.name, after=each.after.name, changed=True))
    return tuple(shown), sum(found[0] for code, found in counts.items() if code >= from_to.num_codes)


def are_made_up(dataset: DatasetReader, classes: Sequence[Shown], unknown_px: int) -> bool:
    """Whether overviews hold classes that the raster has not, or has far fewer of: means of codes are no codes.

    Modes and picked pixels favour the common class, but make no rare one common.
    """
    levels = dataset.overviews(1)
    if not levels:
        return False
    height, width = (max(1, size) for size in dataset.shape)
    level = next((i for i in reversed(range(len(levels))) if height * width / levels[i] ** 2 >= _LOOK_PX), 0)
    shape = max(1, math.ceil(height / levels[level])), max(1, math.ceil(width / levels[level]))
    step = max(1.0, math.sqrt(shape[0] * shape[1] / _COUNT_PX))
    shape = max(1, int(shape[0] / step)), max(1, int(shape[1] / step))
    with rasterio.open(dataset.name, overview_level=level) as small:
        values, mask = small.read(1, out_shape=shape), small.read_masks(1, out_shape=shape) > 0
    index = table_of(classes)[codes_of(values)][mask]
    pixels = np.array([one.pixels for one in classes], np.float64)
    total = max(1.0, pixels.sum() + unknown_px)
    known = np.bincount(index[index != NOTHING], minlength=len(classes)) / max(1, len(index))
    if (known[pixels == 0] > 0).any() or ((index == NOTHING).any() and not unknown_px):
        return True
    return bool(((known > _GROWN * pixels / total) & (known > _GROWN_BY + pixels / total)).any())


def _shown(one: LandClass, counts: Mapping[int, tuple[int, float | None]], **more: Any) -> Shown:
    none = 0.0 if all(area is not None for _, area in counts.values()) else None
    pixels, area = counts.get(one.code, (0, none))
    return Shown(one.code, one.name, one.colour, pixels, area, **more)


def _own_legend(path: Path) -> Legend | None:
    """What the file or one beside it says; a style that says nothing of classes is passed over."""
    try:
        if own := legend_of_map(path):
            return own
    except (LabelError, ValueError, *GDAL_ERRORS):
        pass
    for beside in (path.with_suffix(".qml"), path.with_name(path.name + ".aux.xml"), path.with_suffix(".clr")):
        try:
            if beside.is_file():
                return read_legend(beside)
        except LabelError:
            continue
    return None


def _named(path: Path, codes: Sequence[int]) -> list[LandClass]:
    """Classes by what GDAL knows of them, else by their numbers."""
    names = class_names(path)
    with rasterio.open(path) as dataset:
        try:
            table = dataset.colormap(1)
        except ValueError:
            table = {}
    colours = {code: "#{:02x}{:02x}{:02x}".format(*rgba[:3]) for code, rgba in table.items()}
    if len(codes) > _MOST:
        raise DataError(f"{path} holds {len(codes):,} different codes")
    return [
        LandClass(code, names.get(code, f"class {code}"), colours.get(code, PALETTE[number % len(PALETTE)]))
        for number, code in enumerate(codes)
    ]


def _nodata(path: Path) -> float | None:
    with rasterio.open(path) as dataset:
        return None if dataset.nodata is None else float(dataset.nodata)
