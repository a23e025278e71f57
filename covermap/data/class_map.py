"""ClassMap: a finished map, or any raster of class codes, read by windows as class indices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE, Legend
from covermap.data.labels import infer_legend, open_codes
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.products import legend_of_map
from covermap.geo.raster import grid_of, open_dataset, read_plain

BLOCK_PX = 512


@dataclass(frozen=True)
class ClassMap:
    """A raster of codes on its grid."""

    path: str
    grid: Grid
    legend: Legend

    @staticmethod
    def open(path: str | Path) -> ClassMap:
        """With its own legend, or one of the codes that are found; raises DataError, LabelError."""
        path = str(path)
        dataset = open_codes(path)
        return ClassMap(path, grid_of(dataset), legend_of_map(path) or infer_legend(path))

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class indices (H, W), IGNORE where nothing is mapped."""
        dataset = open_dataset(self.path)
        values, valid = read_plain(dataset, [1], window, dataset.nodata)
        found = np.full(values.shape[1:], IGNORE, np.uint8)
        found[valid] = self.legend.encode(values[0][valid], where=self.path)
        return found

    def blocks(self) -> Iterator[Window]:
        """Windows that cover it once, always the same ones in the same order."""
        return partition(self.grid.window, BLOCK_PX, 8 * BLOCK_PX)

    def at(self, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """Class indices (N,) of pixels (N,) inside of the grid; each block of the file is read once."""
        found = np.full(len(rows), IGNORE, np.uint8)
        blocks = (rows // BLOCK_PX) * (self.grid.width // BLOCK_PX + 1) + cols // BLOCK_PX
        for block in np.unique(blocks):
            of = np.flatnonzero(blocks == block)
            row, col = int(rows[of[0]]) // BLOCK_PX * BLOCK_PX, int(cols[of[0]]) // BLOCK_PX * BLOCK_PX
            window = Window(row, col, BLOCK_PX, BLOCK_PX).intersect(self.grid.window)
            found[of] = self.read(window)[rows[of] - row, cols[of] - col]
        return found
