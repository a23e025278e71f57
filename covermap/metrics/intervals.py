"""How sure a score is: bootstrap over blocks, paired comparison of two models, mean and spread over seeds.

Pixels of a block depend on each other, so blocks are drawn, never pixels. All works on additive counts of N blocks, as
confusion tables (N, K, K), and on a score of summed counts that takes any leading axes, such as
`lambda tables: scores_of(tables)["miou"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError

Counts: TypeAlias = npt.NDArray[Any]
Score: TypeAlias = Callable[[Counts], npt.NDArray[np.float64]]
FEWEST_BLOCKS = 5
_NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A value with its interval; `note` says why there is none. `sd` and `p` are NaN where they have no meaning."""

    value: float
    low: float
    high: float
    count: int  # blocks or seeds
    level: float = 0.95
    sd: float = _NAN
    p: float = _NAN
    note: str = ""


def bootstrap(blocks: Counts, score: Score, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """The score of all blocks together, (N, ...), with its percentile interval; sd is the bootstrap's standard error.

    Blocks without counts are left out. Percentiles are moved outwards as by Hesterberg (2015), for plain intervals of
    few blocks are too narrow. Fewer than `FEWEST_BLOCKS` give no interval, and a note.
    """
    return _interval(_counted(blocks)[0], score, level, draws, seed)


def compare(
    first: Counts, second: Counts, score: Score, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Score of the first model minus that of the second on the same blocks, with interval and two-sided p.

    p is the share of draws that differ at least as much when each block's counts change sides at random (paired
    permutation test); the observed sides count as one draw.
    """
    a, b = _counted(first, second)
    found = _interval(np.stack([a, b], 1), lambda both: score(both[:, 0]) - score(both[:, 1]), level, draws, seed)
    if np.isnan(found.low):
        return found
    swap = np.random.default_rng(seed + 1).integers(0, 2, (draws, len(a))).astype(np.float64)
    moved = _sums(swap, b - a)
    differences = score(a.sum(0) + moved) - score(b.sum(0) - moved)
    extreme = int(np.count_nonzero(~(np.abs(differences) < abs(found.value) - 1e-12)))  # also those without a score
    return replace(found, p=(1 + extreme) / (1 + draws))


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean, standard deviation and Student's interval of a score over seeds; one seed gives a note."""
    known = np.array([v for v in values if np.isfinite(v)], np.float64)
    n, lost = len(known), len(values) - len(known)
    note = f"{lost} of {len(values)} seeds have no score" if lost else ""
    if n < 2:
        note = f"{n} seeds with a score tell no spread: at least 2 are needed"
        return Interval(float(known.mean()) if n else _NAN, _NAN, _NAN, n, level, note=note)
    mean, sd = float(known.mean()), float(known.std(ddof=1))
    half = student_quantile(0.5 + level / 2, n - 1) * sd / np.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, level, sd=sd, note=note)


def student_quantile(share: float, freedom: int) -> float:
    """Quantile of Student's t (share > 0.5): t = sqrt(freedom) tan(a), where a has density cos(a)^(freedom - 1)."""
    angle = np.linspace(0, np.pi / 2, 1 << 17)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp((2 * share - 1) * below[-1], below, angle)))


def _counted(*models: Counts) -> list[Counts]:
    """Counts (N, ...) of blocks that hold any, the same blocks of all models."""
    given = [np.asarray(blocks, np.float64) for blocks in models]
    if len({blocks.shape for blocks in given}) > 1 or given[0].ndim < 2:
        raise DataError(f"counts of shapes {[b.shape for b in given]}", fix="give (blocks, ...), the same for both")
    full = np.any([blocks.reshape(len(blocks), -1).any(1) for blocks in given], axis=0)
    return [blocks[full] for blocks in given]


def _interval(blocks: Counts, score: Score, level: float, draws: int, seed: int) -> Interval:
    n = len(blocks)
    value = float(score(blocks.sum(0)[None])[0])
    if n < FEWEST_BLOCKS:
        note = f"{n} blocks with counts are too few for an interval: at least {FEWEST_BLOCKS} are needed"
        return Interval(value, _NAN, _NAN, n, level, note=note)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)
    found = score(_sums(weights, blocks))
    found = found[np.isfinite(found)]
    note = f"{draws - len(found):,} of {draws:,} draws have no score" if len(found) < draws else ""
    if not np.isfinite(value) or len(found) < draws / 2:
        return Interval(value, _NAN, _NAN, n, level, note=note or "the score is undefined")
    wide = NormalDist().cdf(np.sqrt(n / (n - 1)) * student_quantile(0.5 + level / 2, n - 1))
    low, high = np.quantile(found, [1 - wide, wide])
    return Interval(value, float(low), float(high), n, level, sd=float(found.std(ddof=1)), note=note)


def _sums(weights: npt.NDArray[np.float64], blocks: Counts) -> Counts:
    """Weighted sums of blocks: (D, N) and (N, ...) -> (D, ...)."""
    return np.asarray((weights @ blocks.reshape(len(blocks), -1)).reshape(len(weights), *blocks.shape[1:]))
