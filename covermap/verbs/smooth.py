"""`smooth`: each pixel takes the class that prevails around it, by classes (majority) or by their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError

from covermap.core.errors import ConfigError, DataError, UnreadableError
from covermap.core.legend import IGNORE
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import ClassMap, open_class_map
from covermap.geo.grid import Window
from covermap.geo.patches import STRIP_PX, Index, strips
from covermap.geo.products import layer_beside
from covermap.geo.raster import grid_of, open_dataset, read_plain
from covermap.geo.smoothing import majority, most_probable
from covermap.verbs.changed_map import ChangedMap, claim_map, write_map

MODES = ("majority", "probabilities")
_SHARES = 1 << 28
"""Bytes of the layer's part for a strip, at most."""


def smooth(
    source: str | Path, out: str | Path, *, mode: str = "majority", radius: int = 1, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> ChangedMap:  # fmt: skip
    """Write the map with each pixel in the class that prevails within `radius` px, with all that belongs to a map.

    majority: the most frequent class of the square of 2 radius + 1 px. probabilities: the highest of the class
    probabilities that `predict --probabilities` wrote beside the map, smoothed by a Gaussian (standard deviation
    radius / 2). Ties keep the pixel's own class. Nodata stays so and has no vote. on_progress gets (strips, all
    strips). Memory: strips of 4 million pixels with `radius` rows on each side, and 256 MB of probabilities. Raises
    ConfigError, DataError, LabelError, OutputError.
    """
    if mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}", fix="give majority or probabilities")
    if radius < 1:
        raise ConfigError(f"a radius of {radius} px smoothes nothing", fix="give 1 or more")
    before = open_class_map(source, infer=True)
    out = claim_map(out, before, overwrite=overwrite)
    layer = require_probabilities(before) if mode == "probabilities" else None

    def read_majority(window: Window) -> tuple[Index, Index]:
        index = before.read(window.pad(radius))
        return index[radius:-radius, radius:-radius], majority(index, radius)

    def read_probable(window: Window) -> tuple[Index, Index]:
        assert layer is not None
        index = before.read(window)
        return index, most_probable(_shares(before, layer, window.pad(radius), index, radius), index, radius)

    strip_px = min(STRIP_PX, _SHARES // len(before.legend)) if layer else STRIP_PX
    step = {"step": "smooth", "mode": mode, "radius_px": radius}
    return write_map(
        out, before, step, _strips(before, strip_px, read_probable if layer else read_majority, on_progress)
    )


def _strips(
    source: ClassMap, strip_px: int, read: Callable[[Window], tuple[Index, Index]], on_progress: Tick
) -> Iterator[tuple[Window, Index, Index]]:
    """Strips before and after."""
    windows = strips(source.grid, strip_px)
    for number, window in enumerate(windows, 1):
        yield window, *read(window)
        on_progress(number, len(windows))


def require_probabilities(source: ClassMap) -> Path:
    """The layer of class probabilities beside a map; raises DataError where there is none, or that of another map."""
    if len(source.files) > 1:
        raise DataError(
            f"{source.name} is a folder of maps: they are smoothed by their probabilities one by one",
            fix="give one map, or smooth the folder by its classes: --mode majority",
        )
    path = layer_beside(Path(source.path), "probs")
    again = "write both again: covermap predict MODEL IMAGE MAP.tif --probabilities"
    if not path.is_file():
        raise DataError(f"there are no probabilities beside {source.path}: {path} is missing", fix=again)
    try:
        with rasterio.open(path) as dataset:
            grid, bands, model = grid_of(dataset), dataset.descriptions, dataset.tags().get("COVERMAP_MODEL")
    except RasterioError as error:
        raise UnreadableError(f"{path} is not a raster that can be read: {error}", fix=again) from error
    if not grid.is_same(source.grid):
        raise DataError(
            f"{path} ({grid.describe()}) belongs to another map than {source.path} ({source.grid.describe()})",
            fix=again,
        )
    if sorted(map(str, bands)) != sorted(source.legend.names):
        raise DataError(
            f"{path} has probabilities of {', '.join(map(str, bands))}, {source.path} has the classes "
            + ", ".join(source.legend.names),
            fix=again,
        )
    if model != source.tags.get("COVERMAP_MODEL"):
        raise DataError(f"{path} is by another model than {source.path}", fix=again)
    return path


def _shares(source: ClassMap, layer: Path, window: Window, index: Index, radius: int) -> npt.NDArray[np.uint8]:
    """Shares (K, H, W) in the legend's order, 0 where unknown; raises DataError where they do not make this map."""
    dataset = open_dataset(str(layer))
    bands = [dataset.descriptions.index(name) + 1 for name in source.legend.names]
    # Of four 8-bit bands GDAL calls the last one alpha.
    shares, known = read_plain(dataset, bands, window, dataset.nodata, masked=False)
    shares[:, ~known] = 0
    inner = (slice(radius, -radius),) * 2
    mapped = index != IGNORE
    own = np.take_along_axis(shares[:, *inner], np.where(mapped, index, 0)[None].astype(np.intp), axis=0)[0]
    wrong = (mapped != known[inner]) | (mapped & (own < shares[:, *inner].max(0)))
    if wrong.any():
        row, col = np.argwhere(wrong)[0]
        raise DataError(
            f"{layer} does not belong to {source.path}: at row {window.row + radius + row}, column "
            f"{window.col + radius + col} the map has not the most probable class",
            fix="smooth the map that predict wrote with it, before any other step",
        )
    return shares
