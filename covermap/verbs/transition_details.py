"""How sure scores of semantic change are: intervals over blocks of ground, in both conventions.

compared strips -> joint histograms of squares of ground -> margins and counts, which add up -> intervals
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.task import Task
from covermap.metrics.change import CONVENTIONS, Convention, Margins, Pair, binary_scores, semantic_scores
from covermap.metrics.intervals import Score
from covermap.verbs.ground import OnGround, cells
from covermap.verbs.score import Compared, pairs_of

SURE = ("sek", "score", "fscd")
"""Scores of each convention that get an interval."""


class TransitionDetails(OnGround):
    """Accumulates, for each block, margins of both conventions and counts of change, one after the other."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        k = len(task.legend)
        self.margins = Margins(k)
        self.sizes = {"dates_stacked": k + 2, "from_to": k * k + 2}

    def add(self, one: Compared) -> None:
        """Count a strip."""
        self.count(one, *pairs_of(one.answers, one.reference))

    def count(self, one: Compared, truth: Pair, said: Pair) -> None:
        """Count what is said of a strip."""
        assert one.window is not None
        shape, states = truth.before.shape, self.margins.states
        there, mine = (states.of(pair.flat()).reshape(shape) for pair in (truth, said))
        for cell in cells(one.window):
            at = cell.within(one.window).slices
            if (there[at] != states.unknown).any():
                self.blocks.add_pixels(one.scene, cell, self.margins.of(there[at], mine[at]))

    @property
    def sure(self) -> Mapping[str, Score]:
        found: dict[str, Score] = {f"{key}_{c}": self._semantic(c, key) for c in CONVENTIONS for key in SURE}
        found["miou"] = self._semantic("from_to", "miou")  # the same in both
        return found | {key: self._binary(key) for key in ("f1", "iou", "kappa")}

    def _semantic(self, convention: Convention, key: str) -> Score:
        start = 0 if convention == CONVENTIONS[0] else 3 * self.sizes[CONVENTIONS[0]]
        size = self.sizes[convention]

        def score(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            part = counts[..., start : start + 3 * size]
            return semantic_scores(part.reshape(*part.shape[:-1], 3, size))[key]

        return score

    def _binary(self, key: str) -> Score:
        return lambda counts: binary_scores(counts[..., -4:].reshape(*counts.shape[:-1], 2, 2))[key]

    def reference(self, counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(counts[..., -4:].reshape(*counts.shape[:-1], 2, 2).sum(-1))
