"""A raster that is computed where it is read, and written block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.engine import cores, map_ordered
from covermap.core.progress import Tick
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.writer import RasterWriter

BLOCK_PX = 1024


@dataclass(frozen=True)
class Layer:
    """What is to be written: `read(window)` gives values and counts, `describe(all counts)` the sentences on them."""

    grid: Grid
    bands: Sequence[str]
    dtype: str
    nodata: float
    read: Callable[[Window], tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]
    describe: Callable[[npt.NDArray[np.int64]], list[str]]
    notes: Sequence[str] = ()
    block_px: int = BLOCK_PX
    again: Callable[[], Layer] | None = None
    """What to write where codes turn up that this layer does not know."""
    losses: Callable[[npt.NDArray[np.int64]], list[dict[str, Any]]] = lambda counts: []
    """What each class loses, where that was asked."""


def write_layer(layer: Layer, out: Path, *, overwrite: bool, on_progress: Tick) -> npt.NDArray[np.int64]:
    """Blocks are read by all cores, and written in their order: the same call gives the same bytes; returns counts."""
    blocks = list(partition(layer.grid.window, layer.block_px, layer.block_px))
    counts: Any = 0
    with RasterWriter(
        out, layer.grid, bands=layer.bands, dtype=layer.dtype, nodata=layer.nodata, overwrite=overwrite
    ) as writer:  # fmt: skip
        for number, (values, seen) in enumerate(map_ordered(layer.read, blocks, workers=cores())):
            counts = counts + seen
            writer.write(blocks[number], values)
            on_progress(number + 1, len(blocks))
    return np.asarray(counts)
