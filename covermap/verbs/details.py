"""What `evaluate` measures of a map's classes beside the confusion matrix: how sure the scores are, whether
probabilities can be believed, whether edges are sharp and small objects found.

    compared strips and chips -> Details.add -> intervals over blocks, reliability, boundary IoU, recall of objects
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import MissingExtra
from covermap.core.legend import IGNORE
from covermap.core.output import replacing
from covermap.core.task import Task
from covermap.geo.grid import Window, partition
from covermap.infer import highest
from covermap.metrics.calibration import Calibration
from covermap.metrics.confusion import Confusion, ratio, scores_of
from covermap.metrics.intervals import FEWEST_BLOCKS, Interval, Score, bootstrap, compare
from covermap.metrics.objects import BoundaryIoU, ObjectRecall
from covermap.verbs.score import Compared

CELL_PX = 128
"""Side of the blocks of pixels that are drawn for an interval."""
NEIGHBOURS = 2
"""Chips of a scene along the side of such a block, where there are too few places to draw places."""
CALIBRATED_PX = 50_000
"""Pixels of a strip that reliability is measured on, evenly spread."""
SURE = ("oa", "miou", "macro_f1", "macro_recall")
"""Scores that get an interval."""


class Details:
    """Accumulates what has been compared, strip by strip."""

    def __init__(self, task: Task) -> None:
        self.task, count = task, len(task.legend)
        self.calibration = Calibration()
        self.edges, self.objects = BoundaryIoU(count), ObjectRecall(count)
        self.notes: list[str] = []
        self._cells: dict[tuple[str, str, int, int], Confusion] = {}  # place, scene, row, column
        self._open: tuple[str, Window, npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None

    def add(self, one: Compared) -> None:
        """Count a strip or a chip."""
        reference, predicted = one.reference, highest(one.answers)[0]
        known = np.flatnonzero(reference.ravel() != IGNORE)
        some = known[:: max(1, len(known) // CALIBRATED_PX)]
        self.calibration.add(one.answers.reshape(len(one.answers), -1)[:, some], reference.ravel()[some])
        if one.window is None:
            assert one.chip is not None
            side = NEIGHBOURS * one.chip.height, NEIGHBOURS * one.chip.width
            key = one.place, one.scene, one.chip.row // side[0], one.chip.col // side[1]
            self._cell(*key).add(reference, predicted)
            return
        for cell in _cells(one.window):
            at = cell.within(one.window).slices
            if (reference[at] != IGNORE).any():
                key = "", one.scene, cell.row // CELL_PX, cell.col // CELL_PX
                self._cell(*key).add(reference[at], predicted[at])
        self._into_block(one, reference, predicted)

    def _cell(self, *key: Any) -> Confusion:
        return self._cells.setdefault(key, Confusion(len(self.task.legend)))

    def _into_block(self, one: Compared, reference: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8]) -> None:
        """Edges and objects are looked at in whole blocks: a strip's sides would cut them."""
        assert one.block is not None
        assert one.window is not None
        if self._open is None or self._open[:2] != (one.scene, one.block):
            self._close()
            shape = one.block.height, one.block.width
            self._open = one.scene, one.block, np.full(shape, IGNORE, np.uint8), np.full(shape, IGNORE, np.uint8)
        at = one.window.within(one.block).slices
        self._open[2][at], self._open[3][at] = reference, np.where(reference == IGNORE, IGNORE, predicted)

    def _close(self) -> None:
        if self._open is None:
            return
        _, _, reference, predicted = self._open
        self._open = None
        self.edges.add(reference, predicted)
        try:
            self.objects.add(reference, predicted)
        except MissingExtra as error:
            self.notes[:] = [f"no recall of objects: {error}"]

    def scores(self) -> dict[str, Any]:
        """ece, brier, boundary_iou, object_recall by size."""
        self._close()
        found = {key: self.calibration.scores()[key] for key in ("ece", "brier")}
        if not self.task.kind.chips:
            found["boundary_iou"] = self.edges.scores()["boundary_iou"]
            found |= {key: v for key, v in self.objects.scores().items() if key.startswith("object_recall")}
        return found

    def tables(self) -> dict[str, Any]:
        """reliability, objects (by class and size), and intervals of scores."""
        self._close()
        intervals = {key: _plain(bootstrap(self.blocks(), by)) for key, by in sure_scores(self.task.positive).items()}
        found: dict[str, Any] = {"intervals": intervals, "reliability": self.calibration.table()}
        if not self.task.kind.chips:
            found["objects"] = self.objects.table(self.task.legend.names)
        return found

    def blocks(self) -> npt.NDArray[np.int64]:
        """Counts (N, K, K) of blocks, in an order that depends on their place alone."""
        return np.stack(list(self._blocks().values()))

    def _blocks(self) -> dict[str, npt.NDArray[np.int64]]:
        """By name. Chips of a place depend on each other: places are drawn where there are enough of them."""
        places = {place for place, *_ in self._cells}
        found: dict[str, npt.NDArray[np.int64]] = {}
        for key in sorted(self._cells):
            name = key[0] if len(places) >= FEWEST_BLOCKS else " ".join(map(str, key[1:]))
            found[name] = found.get(name, 0) + self._cells[key].counts
        return found

    def write_blocks(self, path: Path) -> None:
        """Counts (N, K, K) and the places of the blocks, for comparisons with other runs."""
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, counts=self.blocks(), places=np.array(list(self._blocks())))

    def against(self, other: Details) -> dict[str, Any]:
        """Scores of this model minus another one's on the same blocks: value, low, high, p."""
        mine, theirs = self.blocks(), other.blocks()
        if mine.shape != theirs.shape or not np.array_equal(mine.sum(2), theirs.sum(2)):
            return {}  # not the same pixels: a sensor that only one of them needs was missing somewhere
        return {key: _plain(compare(mine, theirs, by)) for key, by in sure_scores(self.task.positive).items()}


def _cells(window: Window) -> list[Window]:
    """The window cut where blocks of CELL_PX of the scene end."""
    whole = Window(window.row // CELL_PX * CELL_PX, window.col // CELL_PX * CELL_PX, 0, 0)
    height, width = window.row + window.height - whole.row, window.col + window.width - whole.col
    area = Window(whole.row, whole.col, height, width)
    return [cell.intersect(window) for cell in partition(area, CELL_PX, CELL_PX)]


def sure_scores(positive: int | None) -> dict[str, Score]:
    """Scores of tables (..., K, K) that get an interval, by name; of a hazard, whose index is given, its own too."""

    def named(key: str) -> Score:
        return lambda tables: scores_of(tables)[key]

    def hit(tables: npt.NDArray[Any], both: int) -> npt.NDArray[np.float64]:
        right = tables[..., positive, positive]
        either = tables[..., positive, :].sum(-1) + tables[..., :, positive].sum(-1)
        return np.asarray(ratio(both * right, either - (2 - both) * right))

    found = {key: named(key) for key in SURE}
    if positive is not None:
        found |= {"f1": lambda tables: hit(tables, 2), "iou": lambda tables: hit(tables, 1)}
    return found


def _plain(interval: Interval) -> Mapping[str, Any]:
    return {key: value for key, value in asdict(interval).items() if value != "" and value == value}
