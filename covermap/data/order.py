"""Which windows follow each other where files are compressed: near ones, so that a block is unpacked for many.

A window of 224 px touches two blocks of 512 px on average, and each has to be unpacked whole. So an epoch visits
regions of two by two blocks, several at a time, and takes some windows inside of each before it goes on. A region is
drawn in proportion to the weights of its cells, and every cell lies in as many regions as any other: over an epoch a
cell is drawn as often as without, and a batch still mixes many places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.data.scene import Scene
from covermap.geo.grid import Window
from covermap.geo.raster import grid_of, open_dataset

AT_ONCE = 12
"""Regions that are open at a time: with four blocks each, more blocks than the windows of a usual batch."""
PER_VISIT = 16
"""Windows that are taken from a region before it is left, at most."""
MEMORY = 1 << 28
"""Bytes that the open regions may take unpacked, in GDAL's block cache; large strips allow fewer at a time."""


class Region(NamedTuple):
    """Blocks of a scene with the cells that lie in them: their numbers, and running sums of their weights."""

    scene: int
    window: Window
    cells: npt.NDArray[np.int64]
    ends: npt.NDArray[np.float64]
    visit: int
    """Windows of one visit: no more than fit side by side, so that small scenes are left after one."""

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a cell."""
        at = np.searchsorted(self.ends, rng.random() * self.ends[-1], side="right")
        return int(self.cells[min(int(at), len(self.cells) - 1)])


@dataclass(frozen=True)
class Order:
    """Regions of all scenes, and how many are open at a time."""

    regions: tuple[Region, ...]
    at_once: int

    def epoch(self, length: int, seed: Sequence[int]) -> npt.NDArray[np.int32]:
        """(length,) the region of each window of an epoch; the same for the same seed."""
        rng = np.random.default_rng([*seed, AT_ONCE])
        visits = np.array([region.visit for region in self.regions])
        share = np.array([region.ends[-1] for region in self.regions]) / visits
        mean = float((share / share.sum()) @ visits)
        found = np.empty(length, np.int32)
        queue = rng.choice(len(self.regions), size=math.ceil(length / mean * 1.5) + 64, p=share / share.sum()).tolist()
        open_: list[list[int]] = []
        for number in range(length):
            while len(open_) < self.at_once:
                region = queue.pop() if queue else int(rng.choice(len(self.regions), p=share / share.sum()))
                open_.append([region, self.regions[region].visit])
            chosen = open_[int(rng.integers(len(open_)))]
            found[number] = chosen[0]
            chosen[1] -= 1
            if chosen[1] == 0:
                open_.remove(chosen)
        return found


def plan_order(
    scenes: Sequence[Scene], cells: Sequence[tuple[int, Window]], weights: npt.NDArray[np.float64], *, size_px: int
) -> Order | None:
    """Regions for cells (scene, window) and the weights that they are drawn with; None where no file is compressed."""
    blocks = [_block_of(scene) for scene in scenes]
    if not any(blocks):
        return None
    members: dict[tuple[int, int, int], list[int]] = {}
    sides = [_side(block, scene, size_px) for block, scene in zip(blocks, scenes, strict=True)]
    for number, (scene, cell) in enumerate(cells):
        height, width = sides[scene]
        row, col = (cell.row + cell.height // 2) // height, (cell.col + cell.width // 2) // width
        # Regions are two steps wide and begin at every step, also one before the first: each cell lies in four.
        for first_row in (row - 1, row):
            for first_col in (col - 1, col):
                members.setdefault((scene, first_row, first_col), []).append(number)
    regions = []
    for (scene, row, col), numbers in sorted(members.items()):
        height, width = sides[scene]
        window = Window(row * height, col * width, 2 * height, 2 * width).intersect(scenes[scene].grid.window)
        fit = window.height * window.width // size_px**2
        ends = np.cumsum(weights[numbers])
        if ends[-1] > 0:
            regions.append(Region(scene, window, np.array(numbers), ends, min(PER_VISIT, max(1, fit))))
    largest = max(_bytes_of(scenes[region.scene], region.window) for region in regions)
    return Order(tuple(regions), max(1, min(AT_ONCE, MEMORY // max(1, largest))))


def _block_of(scene: Scene) -> tuple[int, int] | None:
    """Height and width of the largest compressed block of a scene's files in its own pixels; None: all are plain."""
    found = []
    for dataset in (open_dataset(path) for raster in scene.rasters.values() for path in raster.paths):
        if dataset.compression is not None or dataset.driver != "GTiff":
            times = grid_of(dataset).gsd_m / scene.grid.gsd_m
            found.append([math.ceil(side * times) for side in dataset.block_shapes[0]])
    return (max(height for height, _ in found), max(width for _, width in found)) if found else None


def _side(block: tuple[int, int] | None, scene: Scene, size_px: int) -> tuple[int, int]:
    """Height and width of a step: whole blocks, and no less than a window."""
    height, width = block or (size_px, size_px)
    return height * math.ceil(size_px / height), min(width * math.ceil(size_px / width), max(scene.grid.width, size_px))


def _bytes_of(scene: Scene, window: Window) -> int:
    each = sum(len(r.sources) * len(r.bands) * np.dtype(r.dtype).itemsize for r in scene.rasters.values())
    return window.height * window.width * each
