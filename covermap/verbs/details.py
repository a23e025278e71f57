"""What `evaluate` measures of a map's classes beside the confusion matrix: how sure the scores are, whether
probabilities can be believed, whether edges are sharp and small objects found.

    compared strips and chips -> Details.add -> intervals over blocks, reliability, boundary IoU, recall of objects
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import MissingExtra
from covermap.core.legend import IGNORE
from covermap.core.task import Task
from covermap.geo.grid import Window
from covermap.metrics.calibration import Calibration
from covermap.metrics.confusion import Confusion, ratio, scores_of
from covermap.metrics.intervals import Score
from covermap.metrics.objects import BoundaryIoU, ObjectRecall
from covermap.ml.likeliest import highest
from covermap.verbs.ground import OnGround, cells
from covermap.verbs.score import Compared

CALIBRATED_PX = 50_000
"""Pixels of a strip that reliability is measured on, evenly spread."""
SURE = ("oa", "miou", "macro_f1", "macro_recall")
"""Scores that get an interval."""


class Details(OnGround):
    """Accumulates what has been compared, strip by strip."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, count = task, len(task.legend)
        self.calibration = Calibration()
        self.edges, self.objects = BoundaryIoU(count), ObjectRecall(count)
        self.notes: list[str] = []
        self._open: tuple[str, Window, npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None

    def add(self, one: Compared) -> None:
        """Count a strip or a chip."""
        reference, predicted = one.reference, highest(one.answers)[0]
        known = np.flatnonzero(reference.ravel() != IGNORE)
        some = known[:: max(1, len(known) // CALIBRATED_PX)]
        self.calibration.add(one.answers.reshape(len(one.answers), -1)[:, some], reference.ravel()[some])
        if one.window is None:
            assert one.chip is not None
            self.blocks.add_chip(one.place, one.scene, one.chip, self._counts(reference, predicted))
            return
        for cell in cells(one.window):
            at = cell.within(one.window).slices
            if (reference[at] != IGNORE).any():
                self.blocks.add_pixels(one.scene, cell, self._counts(reference[at], predicted[at]))
        self._into_block(one, reference, predicted)

    def _counts(self, reference: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        found = Confusion(len(self.task.legend))
        found.add(reference, predicted)
        return found.counts

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
        found: dict[str, Any] = {"intervals": self.intervals(), "reliability": self.calibration.table()}
        if not self.task.kind.chips:
            found["objects"] = self.objects.table(self.task.legend.names)
        return found

    @property
    def sure(self) -> Mapping[str, Score]:
        return sure_scores(self.task.positive)

    def reference(self, counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(counts.sum(2))


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
