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
from covermap.data.split import PARTS, Split
from covermap.geo.grid import Window

_TRIES = 100
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

    split: windows that touch its val or test part are not drawn. Scenes smaller than a window are padded.
    """

    def __init__(
        self, scenes: Sequence[Scene], *, size_px: int, seed: int, split: Split | None = None, cache_bytes: float = 0.0
    ) -> None:
        self._scenes, self._size, self._seed, self._split = scenes, size_px, seed, split
        places = [max(1, s.grid.height - size_px + 1) * max(1, s.grid.width - size_px + 1) for s in scenes]
        self._ends = np.cumsum(np.array(places, np.float64)) / float(sum(places))
        self._held: dict[int, HeldScene] = {}
        if sum(scene_bytes(scene) for scene in scenes) <= cache_bytes:
            self._held = {i: HeldScene(scene) for i, scene in enumerate(scenes)}

    def __getitem__(self, number: int) -> Drawn:
        rng = np.random.default_rng([self._seed, number])
        for _ in range(_TRIES):
            found = int(np.searchsorted(self._ends, rng.random(), side="right"))
            scene = min(found, len(self._scenes) - 1)
            window = self._place(scene, rng)
            if self._split is not None and self._is_held_out(scene, window):
                continue
            sample = self._held[scene].read(window) if self._held else self._scenes[scene].read(window)
            if sample.valid.any(0).mean() >= _LEAST * min(1.0, self._inside(scene, window)):
                return Drawn(sample, int(rng.integers(1 << 62)))
        free = " outside of the val and test parts" if self._split is not None else ""
        raise DataError(
            f"of {_TRIES} windows of {self._size} px{free} none holds data in half of its pixels",
            fix="set a smaller train.size_px, or check nodata: covermap info IMAGE",
        )

    def _place(self, scene: int, rng: np.random.Generator) -> Window:
        grid = self._scenes[scene].grid
        row, col = (int(rng.integers(max(1, side - self._size + 1))) for side in (grid.height, grid.width))
        return Window(row, col, self._size, self._size)

    def _inside(self, scene: int, window: Window) -> float:
        """Share of a window that lies in its scene."""
        inside = window.intersect(self._scenes[scene].grid.window)
        return inside.height * inside.width / self._size**2

    def _is_held_out(self, scene: int, window: Window) -> bool:
        assert self._split is not None
        inside = window.intersect(self._scenes[scene].grid.window)
        parts = self._split.part_mask(self._scenes[scene].name, inside)
        return bool(np.isin(parts, [PARTS.index("val"), PARTS.index("test")]).any())


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
