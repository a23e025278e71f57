"""How sure the scores of numbers are: intervals over blocks of ground, as verbs/details.py has them for classes.

compared blocks and chips -> sums of each block -> intervals of rmse, mae, bias, r, r2
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from covermap.core.task import Task
from covermap.geo.grid import Window, partition
from covermap.metrics.confusion import ratio
from covermap.metrics.intervals import Score
from covermap.verbs.ground import CELL_PX, OnGround
from covermap.verbs.score import Compared

Sums = npt.NDArray[np.float64]


class NumberDetails(OnGround):
    """Accumulates sums (targets, 8) of each block: pairs, y, y2, p, p2, yp, absolute and squared errors.

    y: reference, p: prediction, both from the mean of the train part in its std, so that squares do not cancel.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def add(self, one: Compared) -> None:
        """Count a block of pixels or a chip."""
        shape = one.reference.shape if one.reference.ndim == 3 else (*one.reference.shape, 1, 1)
        mean, std = (np.asarray(v)[:, None, None] for v in (self.task.mean, self.task.std))
        y, p = ((x.reshape(shape).astype(np.float64) - mean) / std for x in (one.reference, one.answers))
        if one.chip is not None:
            self.blocks.add_chip(one.place, one.scene, one.chip, _sums(y, p))
            return
        assert one.block is not None
        factor = one.block.height / shape[1]  # of the target's pixels
        px = max(1, round(CELL_PX / factor))
        for part in partition(Window(0, 0, *shape[1:]), px, px):
            row, col = one.block.row + round(part.row * factor), one.block.col + round(part.col * factor)
            at = (slice(None), *part.slices)
            if (sums := _sums(y[at], p[at])).any():
                self.blocks.add_pixels(one.scene, Window(row, col, 1, 1), sums)

    @property
    def sure(self) -> Mapping[str, Score]:
        return number_scores(self.task)

    def reference(self, counts: Sums) -> Sums:
        return counts[..., :3]


def _sums(y: Sums, p: Sums) -> Sums:
    """(targets, h, w) each -> (targets, 8); pairs that are not known count nothing."""
    known = np.isfinite(y) & np.isfinite(p)
    y, p = np.where(known, y, 0), np.where(known, p, 0)
    return np.stack([x.sum((1, 2)) for x in (known, y, y * y, p, p * p, y * p, abs(p - y), (p - y) ** 2)], 1)


def number_scores(task: Task) -> dict[str, Score]:
    """Scores of sums (..., targets, 8) by name: of one number in its unit, of several the mean in std of training."""
    unit = np.asarray(task.std) if len(task.std) == 1 else np.ones(len(task.std))

    def mean(values: Sums) -> Sums:
        known = np.isfinite(values)
        return np.asarray(ratio(np.where(known, values, 0).sum(-1), known.sum(-1)))

    def r(t: Sums) -> Sums:
        n, y, yy, p, pp, yp = (t[..., i] for i in range(6))
        left, right = n * yy - y * y, n * pp - p * p
        known = (left > 1e-9 * n * yy) & (right > 1e-9 * n * pp)
        return mean(ratio(n * yp - y * p, np.sqrt(np.where(known, left * right, 0))))

    def r2(t: Sums) -> Sums:
        left = t[..., 2] - ratio(t[..., 1] ** 2, t[..., 0])
        # Blocks whose reference is all the same leave rounding errors.
        return mean(1 - ratio(t[..., 7], np.where(left > 1e-9 * t[..., 2], left, 0)))

    return {
        "rmse": lambda t: mean(np.sqrt(ratio(t[..., 7], t[..., 0])) * unit),
        "mae": lambda t: mean(ratio(t[..., 6], t[..., 0]) * unit),
        "bias": lambda t: mean(ratio(t[..., 3] - t[..., 1], t[..., 0]) * unit),
        "r2": r2,
        "r": r,
    }
