"""A raster that is computed where it is read, and written block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.engine import cores, map_unordered
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
    early: dict[int, npt.NDArray[Any]] = {}
    with RasterWriter(
        out, layer.grid, bands=layer.bands, dtype=layer.dtype, nodata=layer.nodata, overwrite=overwrite
    ) as writer:  # fmt: skip
        written = 0
        for number, (values, seen) in map_unordered(
            lambda number: (number, layer.read(blocks[number])), range(len(blocks)), workers=cores()
        ):
            early[number] = values
            counts = counts + seen
            while written in early:
                writer.write(blocks[written], early.pop(written))
                written += 1
                on_progress(written, len(blocks))
    return np.asarray(counts)
