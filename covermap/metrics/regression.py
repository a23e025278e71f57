"""Errors of a continuous target from one pass over the data.

Means and squares are accumulated in float64 around the running mean and merged as in Chan, Golub and LeVeque (1983), so
that they neither depend on batches nor cancel. R2 = 1 - SSE / SST about the mean of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.metrics.confusion import same_shape


class RegressionScores:
    """Pairs of reference and prediction of one target, in one area of interest or, merged, in all.

    A pair with NaN or infinity is unknown, and counted as such.
    """

    def __init__(self) -> None:
        self.count = self.unknown = 0
        self._mean = np.zeros(2)  # reference, prediction
        self._square = np.zeros((2, 2))  # sums of products of deviations from the means
        self._error = np.zeros(2)  # sums of squared and of absolute errors
        self._range = np.array([[np.inf, np.inf], [-np.inf, -np.inf]])

    def add(self, reference: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> None:
        """Add pairs from two arrays of one shape, in the target's unit."""
        same_shape(reference, prediction)
        pairs = np.stack([np.ravel(reference), np.ravel(prediction)]).astype(np.float64)
        known = pairs[:, np.isfinite(pairs).all(0)]
        part = RegressionScores()
        part.count, part.unknown = known.shape[1], pairs.shape[1] - known.shape[1]
        if part.count:
            part._mean = known.mean(1)
            deviation = known - part._mean[:, None]
            error = known[1] - known[0]
            part._square = deviation @ deviation.T
            part._error = np.array([error @ error, np.abs(error).sum()])
            part._range = np.stack([known.min(1), known.max(1)])
        self.merge(part)

    def merge(self, other: RegressionScores) -> None:
        """Add the pairs of another one."""
        total = self.count + other.count
        if other.count:
            apart = other._mean - self._mean
            self._square = self._square + other._square + np.outer(apart, apart) * (self.count * other.count / total)
            self._mean = self._mean + apart * (other.count / total)
            self._error = self._error + other._error
            self._range = np.stack(
                [np.minimum(self._range[0], other._range[0]), np.maximum(self._range[1], other._range[1])]
            )
        self.count, self.unknown = total, self.unknown + other.unknown

    def scores(self) -> dict[str, float | int]:
        """rmse, mae, bias (prediction - reference), r (Pearson), r2, num_pairs, num_unknown; NaN where undefined."""
        n, nan, varies = self.count, float("nan"), self._varies()
        return {
            "rmse": float(np.sqrt(self._error[0] / n)) if n else nan,
            "mae": float(self._error[1] / n) if n else nan,
            "bias": float(self._mean[1] - self._mean[0]) if n else nan,
            "r": float(self._square[0, 1] / np.sqrt(self._square[0, 0] * self._square[1, 1])) if varies.all() else nan,
            "r2": float(1 - self._error[0] / self._square[0, 0]) if varies[0] else nan,
            "num_pairs": n,
            "num_unknown": self.unknown,
        }

    def reasons(self) -> dict[str, str]:
        """Why a score of `scores` is NaN, by its name."""
        if not self.count:
            return dict.fromkeys(("rmse", "mae", "bias", "r", "r2"), "no pair of known values in the scored split")
        varies = self._varies()
        if not varies[0]:
            return dict.fromkeys(("r", "r2"), f"the reference is constant ({self._range[0, 0]:g})")
        return {} if varies[1] else {"r": f"the prediction is constant ({self._range[0, 1]:g})"}

    def _varies(self) -> npt.NDArray[np.bool_]:
        # Rounding gives equal values a sum of squares; values too near each other have none.
        return np.asarray((self._range[1] > self._range[0]) & (np.diag(self._square) > 0))


def with_all_targets(
    scores: Mapping[str, npt.NDArray[np.float64]], square: npt.NDArray[np.float64], count: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Scores r, r2 and rmse of targets (T,) with those of all together before them: (T + 1,).

    r: mean of those that are defined. r2: of the errors of all targets together, so that rare ones cannot drown it.
    rmse: root of the mean square. square: sums of squares of the targets about their means, of `count` samples.
    """
    squares = scores["rmse"] ** 2
    total, defined = float(square.sum()), scores["r"][np.isfinite(scores["r"])]
    together = {
        "r": float(defined.mean()) if len(defined) else float("nan"),
        "r2": 1 - count * float(squares.sum()) / total if total else float("nan"),
        "rmse": float(np.sqrt(squares.mean())),
    }
    return {key: np.concatenate([[value], scores[key]]) for key, value in together.items()}
