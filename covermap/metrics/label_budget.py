"""When labels pay: how many of them a curve needs to reach a level, with an interval over areas and repeats.

Curves are scores of probes by number of labels (areas, repeats, budgets). Between budgets a score is taken to be
straight over the logarithm of their number. Intervals: areas are drawn with replacement, as other areas would be met,
and in each of them repeats; an area alone is drawn by its repeats only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """A number of labels with its interval; inf: not reached with the labels that there are. level: of the interval.

    share_reached: of the draws.
    """

    count: float
    low: float
    high: float
    share_reached: float
    level: float = 0.95


def labels_to_reach(budgets: Sequence[int], curve: Floats, wanted: float) -> float:
    """The least number of labels with which a curve (B,) is at `wanted` and stays there; inf where it never does."""
    known = np.isfinite(curve)
    n, score = np.asarray(budgets, np.float64)[known], curve[known]
    if not len(n) or not np.isfinite(wanted) or score[-1] < wanted:
        return float("inf")
    below = np.flatnonzero(score < wanted)
    if not len(below):
        return float(n[0])
    i = int(below[-1])
    share = (wanted - score[i]) / (score[i + 1] - score[i])
    return float(np.exp(np.log(n[i]) + share * (np.log(n[i + 1]) - np.log(n[i]))))


def break_even(budgets: Sequence[int], local: Floats, elsewhere: Floats, *, draws: int = 1000, seed: int = 0) -> Labels:
    """Labels here from which on they are worth more than all labels elsewhere.

    local (A, R, B): scores here; elsewhere (A, R'): of what was learnt in all other areas.
    """

    def one(a: npt.NDArray[np.intp], r: npt.NDArray[np.intp]) -> float:
        curve = _mean(local[a[:, None], r % local.shape[1]], (0, 1))
        transfer = _mean(elsewhere[a[:, None], r % elsewhere.shape[1]], (0, 1))
        return labels_to_reach(budgets, curve, float(transfer))

    return _over_draws(one, local.shape[0], max(local.shape[1], elsewhere.shape[1]), draws, seed)


def enough(budgets: Sequence[int], local: Floats, *, close: float, draws: int = 1000, seed: int = 0) -> Labels:
    """Labels after which the score of the largest budget is at most `close` away. local (A, R, B)."""

    def one(a: npt.NDArray[np.intp], r: npt.NDArray[np.intp]) -> float:
        curve = _mean(local[a[:, None], r], (0, 1))
        return labels_to_reach(budgets, curve, float(curve[-1]) - close)

    return _over_draws(one, local.shape[0], local.shape[1], draws, seed)


def _mean(values: Floats, axis: tuple[int, ...]) -> Floats:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis) / known.sum(axis))


def _over_draws(
    one: Callable[[npt.NDArray[np.intp], npt.NDArray[np.intp]], float], areas: int, repeats: int, draws: int, seed: int
) -> Labels:  # fmt: skip
    random = np.random.default_rng(seed)
    rows = np.arange(areas)
    found = np.array([
        one(random.integers(0, areas, areas) if areas > 1 else rows, random.integers(0, repeats, (areas, repeats)))
        for _ in range(draws)
    ])  # fmt: skip
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    value = one(rows, np.broadcast_to(np.arange(repeats), (areas, repeats)))
    return Labels(float(value), float(low), float(high), float(np.isfinite(found).mean()))
