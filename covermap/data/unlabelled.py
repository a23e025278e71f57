"""Windows of scenes without labels: where they lie is a function of (seed, number) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from covermap.core.errors import DataError
from covermap.core.types import Batch, InputSpec, Sample
from covermap.data.chips import HeldScene, image_batch, scene_bytes
from covermap.data.scene import Scene
from covermap.data.split import Split
from covermap.geo.grid import Window, partition

_READS, _TRIES = 100, 1000
_LEAST = 0.5
"""Share of a window's pixels that must hold data."""


class Drawn(NamedTuple):
    """A window as it was read, and the seed of everything random that is done to it."""

    sample: Sample
    seed: int


class Unlabelled(NamedTuple):
    """Windows as a network takes them, and a seed for each."""

    batch: Batch
    seeds: list[int]


class UnlabelledWindows(Dataset[Drawn]):
    """Random windows of `size_px` of which half holds data, evenly over the ground of all scenes.

    split: windows that show ground of its val or test part are not drawn. Scenes smaller than a window are padded.
    Raises DataError where no ground is left, or where windows would be mostly padding.
    """

    def __init__(
        self, scenes: Sequence[Scene], *, size_px: int, seed: int, split: Split | None = None, cache_bytes: float = 0.0
    ) -> None:
        self._scenes, self._size, self._seed, self._split = scenes, size_px, seed, split
        largest = max((min(scene.grid.height, scene.grid.width) for scene in scenes), default=0)
        if size_px >= 2 * largest:
            raise DataError(
                f"windows of {size_px} px are mostly padding: the largest scene has {largest} px on its shorter side",
                fix=f"set train.size_px to {largest} or less",
            )
        free = np.array([_free_px(scene, split) for scene in scenes], np.float64)
        if not free.any():
            raise DataError("all ground is of the val and test parts", fix="leave some of it: split.val, split.test")
        self._ends = np.cumsum(free) / free.sum()
        self._held: dict[int, HeldScene] = {}
        if sum(scene_bytes(scene) for scene in scenes) <= cache_bytes:
            self._held = {i: HeldScene(scene) for i, scene in enumerate(scenes)}

    def __getitem__(self, number: int) -> Drawn:
        rng = np.random.default_rng([self._seed, number])
        for _ in range(_READS):
            scene, window = self._place(rng)
            sample = self._held[scene].read(window) if self._held else self._scenes[scene].read(window)
            if sample.valid.any(0).mean() >= _LEAST * min(1.0, self._inside(scene, window)):
                return Drawn(sample, int(rng.integers(1 << 62)))
        raise DataError(
            f"of {_READS} windows of {self._size} px none holds data in half of its pixels",
            fix="set a smaller train.size_px, or check nodata: covermap info IMAGE",
        )

    def _place(self, rng: np.random.Generator) -> tuple[int, Window]:
        """A scene and a window of it that shows nothing of val and test."""
        for _ in range(_TRIES):
            found = int(np.searchsorted(self._ends, rng.random(), side="right"))
            scene = min(found, len(self._scenes) - 1)
            grid = self._scenes[scene].grid
            row, col = (int(rng.integers(max(1, side - self._size + 1))) for side in (grid.height, grid.width))
            window = Window(row, col, self._size, self._size)
            if self._split is None:
                return scene, window
            inside = window.intersect(grid.window)
            if not self._split.held_out(self._scenes[scene].name, inside).any():
                return scene, window
        raise DataError(
            f"{_TRIES} windows of {self._size} px all touch the val or test part",
            fix="set a smaller train.size_px, or larger blocks: split.block_px",
        )

    def _inside(self, scene: int, window: Window) -> float:
        """Share of a window that lies in its scene."""
        inside = window.intersect(self._scenes[scene].grid.window)
        return inside.height * inside.width / self._size**2


def _free_px(scene: Scene, split: Split | None) -> int:
    """Pixels of a scene outside of the val and test parts."""
    if split is None:
        return scene.grid.height * scene.grid.width
    blocks = partition(scene.grid.window, 2048, 2048)
    return sum(int((~split.held_out(scene.name, block)).sum()) for block in blocks)


class Steps(Sampler[int]):
    """Numbers of the windows of one process, step after step: those of all processes follow each other in a step."""

    def __init__(self, first: int, last: int, *, batch_size: int, process: int = 0, processes: int = 1) -> None:
        self._steps, self._size, self._process, self._processes = range(first, last), batch_size, process, processes

    def __len__(self) -> int:
        return len(self._steps) * self._size

    def __iter__(self) -> Iterator[int]:
        for step in self._steps:
            start = (step * self._processes + self._process) * self._size
            yield from range(start, start + self._size)


class Collate:
    """Windows -> Unlabelled, normalised; a class, so that reading processes can be given it."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec

    def __call__(self, items: Sequence[Drawn]) -> Unlabelled:
        return Unlabelled(image_batch([item.sample for item in items], self._spec), [item.seed for item in items])
