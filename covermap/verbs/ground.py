"""Additive counts by block of ground, which intervals and comparisons draw: pixels and chips depend on neighbours.

Pixels: squares of CELL_PX. Chips: their places, where there are enough of them to be drawn, else squares of neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.output import replacing
from covermap.geo.grid import Window, partition
from covermap.metrics.intervals import FEWEST_BLOCKS, Interval, Score, bootstrap, compare
from covermap.verbs.score import Compared

CELL_PX = 128
"""Side of the blocks of pixels."""
NEIGHBOURS = 2
"""Chips of a scene along the side of a block."""


class GroundBlocks:
    """Counts of any shape, summed by block."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, int, int], npt.NDArray[Any]] = {}  # place, scene, row, column

    def add_pixels(self, scene: str, cell: Window, counts: npt.NDArray[Any]) -> None:
        """Of a window inside one of the squares of a scene."""
        self._add(("", scene, cell.row // CELL_PX, cell.col // CELL_PX), counts)

    def add_chip(self, place: str, scene: str, chip: Window, counts: npt.NDArray[Any]) -> None:
        """Of a chip, by where it lies in its scene."""
        self._add((place, scene, chip.row // (NEIGHBOURS * chip.height), chip.col // (NEIGHBOURS * chip.width)), counts)

    def _add(self, key: tuple[str, str, int, int], counts: npt.NDArray[Any]) -> None:
        self._found[key] = self._found[key] + counts if key in self._found else counts

    def by_name(self) -> dict[str, npt.NDArray[Any]]:
        """Counts of each block, in an order that depends on their place alone."""
        places = {place for place, *_ in self._found}
        found: dict[str, npt.NDArray[Any]] = {}
        for key in sorted(self._found):
            name = key[0] if len(places) >= FEWEST_BLOCKS else " ".join(map(str, key[1:]))
            found[name] = found[name] + self._found[key] if name in found else self._found[key]
        return found

    def stacked(self) -> npt.NDArray[Any]:
        """(N, ...)."""
        return np.stack(list(self.by_name().values()))

    def write(self, path: Path) -> None:
        """Counts and names of the blocks, for comparisons with other runs."""
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, counts=self.stacked(), places=np.array(list(self.by_name())))


class OnGround(ABC):
    """What a model's answers counted by block, and the scores of sums of such counts."""

    def __init__(self) -> None:
        self.blocks = GroundBlocks()

    @abstractmethod
    def add(self, one: Compared) -> None:
        """Count a strip, a block or a chip."""

    def scores(self) -> dict[str, Any]:
        """Further scores of what has been counted."""
        return {}

    def tables(self) -> dict[str, Any]:
        """What metrics.json holds beside the scores, intervals among it."""
        return {"intervals": self.intervals()}

    @property
    @abstractmethod
    def sure(self) -> Mapping[str, Score]:
        """Scores that get an interval, by name."""

    @abstractmethod
    def reference(self, counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of counts (N, ...) that does not depend on the model."""

    def same_reference(self, mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
        """Whether counts (N, ...) of two models are of the same labels."""
        return np.array_equal(self.reference(mine), self.reference(theirs))

    def intervals(self) -> dict[str, Mapping[str, Any]]:
        """value, low, high, sd of each score."""
        counts = self.blocks.stacked()
        return {key: _plain(bootstrap(counts, score)) for key, score in self.sure.items()}

    def against(self, other: OnGround) -> dict[str, Mapping[str, Any]]:
        """Scores of this model minus another one's on the same blocks: value, low, high, p."""
        mine, theirs = self.blocks.stacked(), other.blocks.stacked()
        if not self.same_reference(mine, theirs):
            return {}  # not the same pixels: a sensor that only one of them needs was missing somewhere
        return {key: _plain(compare(mine, theirs, score)) for key, score in self.sure.items()}


def _plain(interval: Interval) -> Mapping[str, Any]:
    """An interval without what it does not have."""
    return {key: value for key, value in asdict(interval).items() if value != "" and value == value}


def cells(window: Window) -> Iterator[Window]:
    """A window of a scene cut where blocks end."""
    whole = Window(window.row // CELL_PX * CELL_PX, window.col // CELL_PX * CELL_PX, 0, 0)
    height, width = window.row + window.height - whole.row, window.col + window.width - whole.col
    for cell in partition(Window(whole.row, whole.col, height, width), CELL_PX, CELL_PX):
        yield cell.intersect(window)
