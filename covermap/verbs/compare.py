"""`compare`: how far a map agrees with another one of the same ground, such as a global product.

    OUT/comparison.json   everything
    OUT/classes.csv       a row for each class: hectares in both maps, and how they agree
    OUT/matrix.csv        hectares: a row for each class of the map, a column for each of the other
    OUT/pairs.csv         pixels and hectares of each pair of classes as the maps have them, before the crosswalk
    OUT/agreement.tif     on request: where they agree, differ, or have no class in common

Both legends are brought to one by crosswalks (core/crosswalk.py). The other map is laid on the map's grid by nearest
neighbour. Where it is finer, each pixel of the map is first cut into at least as many parts a side as pixels of the
other fit across it (on the mean of both directions): then the hectares of small classes are right, which the most
frequent class of each pixel would swallow. Of grids that do not lie in the map's the parts are points of a fine
lattice. Neither map is the truth, so the words are agreement and disagreement, not accuracy and error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.crosswalk import Crosswalk, meet, read_crosswalk
from covermap.core.engine import cores, map_ordered
from covermap.core.errors import ConfigError, GridError, LabelError
from covermap.core.legend import IGNORE, Legend
from covermap.core.output import claim_with, only_with, require_no_input, scratch
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import find_target, open_class_map, require_same_place
from covermap.geo.classes import pixel_ratio
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.pairs import PairKeys
from covermap.geo.products import finish_map, names_beside, small_cache
from covermap.geo.writer import RasterWriter
from covermap.verbs.comparison import Comparison, write_tables

WINDOW_PX = 1024
_WHOLE = 0.05
"""So far from a whole number of pixels two lattices count as one: a reprojection stretches them a little."""
AGREEMENT = Legend.from_dict({
    "name": "agreement", "nodata": 0, "classes": [
        {"code": 1, "name": "Agreement", "colour": "#2c7fb8"},
        {"code": 2, "name": "Disagreement", "colour": "#d95f0e"},
        {"code": 3, "name": "No counterpart", "colour": "#bdbdbd"},
    ]})  # fmt: skip
_AGREE, _DIFFER, _NONE = AGREEMENT.codes
_TABLES = {"comparison": "comparison.json", "classes": "classes.csv", "matrix": "matrix.csv", "pairs": "pairs.csv"}
_Looked = tuple[Window, npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.uint8]]


@small_cache()
def compare(
    source: str | Path, other: str | Path, out: str | Path | None = None, *, target: str | None = None,
    legend: str | None = None, other_legend: str | None = None, crosswalks: Sequence[str | Path] = (),
    raster: bool = False, overwrite: bool = False, on_progress: Tick = unseen,
) -> Comparison:  # fmt: skip
    """Compare a map with another one; `out` is a folder for the tables, and with `raster` for a map of agreement.

    source, other: maps, or folders of the tiles of one. target: the legend to compare in; default: see
    core.crosswalk.meet. legend, other_legend: of maps that do not say it. crosswalks: files, before the shipped ones.
    Memory: some windows of 1024 px on a side for each core. Raises GridError (no overlap, no CRS on one side),
    LabelError (no legend, no crosswalk, unknown codes), OutputError.
    """
    first = open_class_map(source, legend=legend)
    second = open_class_map(other, legend=other_legend, option="--other-legend")
    require_same_place(first, second)
    own = [read_crosswalk(path) for path in crosswalks]
    if target is not None:
        find_target(target, tuple(one.target for one in own))  # says so where there is no such legend
    one, two = meet(first.legend, second.legend, own=own, target=target)
    ratio = pixel_ratio(first.grid, second.grid, second.name)
    parts = max(1, round(ratio) if abs(ratio - round(ratio)) < _WHOLE else math.ceil(ratio))
    files = _outputs(out, raster)
    require_no_input(files.values(), [*first.files, *second.files, *crosswalks])
    if files:
        claim_with(files["comparison"], files.values(), overwrite=overwrite)
    shape = len(first.legend) + 1, len(second.legend) + 1
    found = Comparison(
        first, second, one, two, first.grid.coarsen(1 / parts), parts, np.zeros(shape, np.int64), np.zeros(shape)
    )
    if not files:
        _count(found, None, on_progress)
        return found
    new = [path for path in files.values() if not path.exists()]
    with scratch(files["comparison"]) as folder, only_with(*new):
        codes = folder / "codes.tif" if raster else None
        _count(found, codes, on_progress)
        made: tuple[Path, ...] = ()
        if codes:
            tags = {"COVERMAP_COMPARED": f"{Path(first.name).name}, {Path(second.name).name}, as {one.target.name}"}
            made = finish_map(codes, files["agreement"], AGREEMENT, tags=tags, overwrite=True).files
        found = replace(found, files=(*(files[key] for key in _TABLES), *made))
        write_tables(found, files)
    return found


def _outputs(out: str | Path | None, raster: bool) -> dict[str, Path]:
    """Every file that a call writes."""
    if out is None:
        if raster:
            raise ConfigError(
                "the map of agreement has no place", fix="give the folder to write: compare MAP OTHER OUT"
            )
        return {}
    folder = Path(out)
    if folder.suffix or folder.is_file():
        raise ConfigError(f"{out} is no folder", fix="give a folder for the tables, or leave it out")
    files = {key: folder / name for key, name in _TABLES.items()}
    if raster:
        files["agreement"] = folder / "agreement.tif"
        files |= {f"agreement {key}": path for key, path in names_beside(files["agreement"]).items()}
    return files


def _count(found: Comparison, codes: Path | None, on_progress: Tick) -> None:
    """Add all windows to the tables in their order, so that the sums are the same each time; codes: where to write."""
    side = max(1, WINDOW_PX // found.parts)  # in whole pixels of the map
    windows = list(partition(found.first.grid.window, side, side))
    with _writer(codes, found.grid) as writer:
        looked = map_ordered(lambda window: _look(found, window, codes is not None), windows, workers=cores())
        for number, (window, pixels, hectares, values) in enumerate(looked, 1):
            found.pixels[:] += pixels
            found.hectares[:] += hectares
            if writer is not None:
                writer.write(window, values)
            on_progress(number, len(windows))
    _require_something(found)


def _look(found: Comparison, place: Window, coded: bool) -> _Looked:
    """A window of the map's grid: the window of `grid`, pixels, hectares, and codes of the map of agreement."""
    window = Window(*(n * found.parts for n in place))
    first = np.repeat(np.repeat(found.first.read(place), found.parts, axis=0), found.parts, axis=1)
    other = found.other.read(window, found.grid)
    pairs = PairKeys((len(found.first.legend), len(found.other.legend)))
    area_ha = found.grid.row_areas_ha(window.row, window.height)
    pixels, hectares = pairs.count(pairs.of(first, other), area_ha)
    codes = _agreement(first, other, found.one, found.two) if coded else np.zeros((0, 0), np.uint8)
    return window, pixels, hectares, codes


def _agreement(
    first: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], one: Crosswalk, two: Crosswalk
) -> npt.NDArray[np.uint8]:
    """Codes of AGREEMENT (H, W) of two windows of class indices; 0 where one of the maps has no class."""
    left, right = one.table[first], two.table[other]
    codes = np.where(left == right, _AGREE, _DIFFER)
    codes = np.where((left == IGNORE) | (right == IGNORE), _NONE, codes)
    return np.where((first == IGNORE) | (other == IGNORE), AGREEMENT.map_nodata, codes).astype(np.uint8)


def _writer(path: Path | None, grid: Grid) -> RasterWriter | nullcontext[None]:
    if path is None:
        return nullcontext()
    return RasterWriter(path, grid, bands=["agreement"], dtype="uint8", nodata=AGREEMENT.map_nodata, compress="none")


def _require_something(found: Comparison) -> None:
    """Raise where there is nothing to compare, and say why."""
    if not found.pixels[:-1, :-1].any():
        raise GridError(
            f"{found.first.name} and {found.other.name} have no place where both hold a class",
            fix="check their extent and nodata: covermap info FILE",
        )
    if not found.matrix.any():
        raise LabelError(
            f"none of the classes that {found.first.name} and {found.other.name} hold in the same place has a "
            f"counterpart in {found.legend.name}",
            fix="compare in a coarser legend (--as ipcc), or give a crosswalk of your own: --crosswalk FILE.yaml",
        )
