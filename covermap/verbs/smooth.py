"""`smooth`: each pixel takes the class that prevails around it, by classes (majority) or by their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError
from covermap.core.legend import IGNORE
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import ClassMap, open_class_map
from covermap.data.class_probabilities import UNKNOWN, ClassProbabilities, open_probabilities
from covermap.geo.grid import Window
from covermap.geo.patches import STRIP_PX, Index, strips
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
    layer = open_probabilities(before) if mode == "probabilities" else None

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


def _shares(
    source: ClassMap, layer: ClassProbabilities, window: Window, index: Index, radius: int
) -> npt.NDArray[np.uint8]:
    """Shares (K, H, W) in the legend's order, 0 where unknown; raises DataError where they do not make this map."""
    shares = layer.read(window)
    known = shares[0] != UNKNOWN
    shares[:, ~known] = 0
    inner = (slice(radius, -radius),) * 2
    mapped = index != IGNORE
    own = np.take_along_axis(shares[:, *inner], np.where(mapped, index, 0)[None].astype(np.intp), axis=0)[0]
    wrong = (mapped != known[inner]) | (mapped & (own < shares[:, *inner].max(0)))
    if wrong.any():
        row, col = np.argwhere(wrong)[0]
        raise DataError(
            f"{layer.path} does not belong to {source.path}: at row {window.row + radius + row}, column "
            f"{window.col + radius + col} the map has not the most probable class",
            fix="smooth the map that predict wrote with it, before any other step",
        )
    return shares
