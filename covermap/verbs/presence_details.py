"""How sure the scores of chips that hold several classes are: intervals over blocks of ground.

compared chips -> ranks of presence and absence of each class, by block -> intervals of map, macro_f1, micro_f1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.task import Task
from covermap.metrics.confusion import ratio
from covermap.metrics.intervals import Score
from covermap.verbs.ground import OnGround
from covermap.verbs.score import Compared

Ranks = npt.NDArray[Any]
_HALF = 64
"""Ranks below the threshold, and as many from it on."""
_STEP = 0.16
"""Of the logit, from rank to rank: ten in all on each side."""


class PresenceDetails(OnGround):
    """Accumulates ranks (K, 2, R) of each block: absent and present chips at each rank of the probability."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def add(self, one: Compared) -> None:
        """Count a chip."""
        assert one.chip is not None
        known = np.flatnonzero(np.isfinite(one.reference))
        counts = np.zeros((len(one.answers), 2, 2 * _HALF), np.int64)
        counts[known, one.reference[known].astype(int), self._rank(one.answers)[known]] = 1
        self.blocks.add_chip(one.place, one.scene, one.chip, counts)

    def _rank(self, probability: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Steps of the logit from the threshold, which lies on a border of steps."""
        p, at = (np.clip(np.asarray(v, np.float64), 1e-7, 1 - 1e-7) for v in (probability, self.task.threshold))
        steps = np.floor((np.log(p / (1 - p)) - np.log(at / (1 - at))) / _STEP)
        found = np.where(probability >= self.task.threshold, np.maximum(steps, 0), np.minimum(steps, -1)) + _HALF
        return np.asarray(np.clip(found, 0, 2 * _HALF - 1), np.intp)

    @property
    def sure(self) -> Mapping[str, Score]:
        return {"map": _map, "macro_f1": _macro_f1, "micro_f1": _micro_f1}

    def reference(self, counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(counts.sum(-1))


def _map(ranks: Ranks) -> npt.NDArray[np.float64]:
    """(..., K, 2, R) -> mean average precision of classes with present and absent chips.

    The order within a rank is not known: its present chips stand in the middle of it. Of a class that few chips hold
    this is some hundredths beside the exact score, a fraction of the interval.
    """
    falling = ranks[..., ::-1]
    absent, present = np.moveaxis(np.cumsum(falling, -1) - falling / 2, -2, 0)
    precision = np.nan_to_num(ratio(present + 0.5, present + absent + 0.5))
    each = ratio((precision * falling[..., 1, :]).sum(-1), falling[..., 1, :].sum(-1))
    mixed = ranks.sum(-1).all(-1)
    return np.asarray(ratio(np.where(mixed, each, 0).sum(-1), mixed.sum(-1)))


def _macro_f1(ranks: Ranks) -> npt.NDArray[np.float64]:
    hit, says, there = _hits(ranks)
    return np.asarray(ratio(np.where(there > 0, ratio(2 * hit, says + there), 0).sum(-1), (there > 0).sum(-1)))


def _micro_f1(ranks: Ranks) -> npt.NDArray[np.float64]:
    hit, says, there = ((v * (ranks[..., 1, :].sum(-1) > 0)).sum(-1) for v in _hits(ranks))
    return np.asarray(ratio(2 * hit, says + there))


def _hits(ranks: Ranks) -> tuple[Ranks, Ranks, Ranks]:
    """Chips (..., K) that are rightly said to hold a class, all that are said to, all that do."""
    return ranks[..., 1, _HALF:].sum(-1), ranks[..., _HALF:].sum((-1, -2)), ranks[..., 1, :].sum(-1)
