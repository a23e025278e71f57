"""Whether two matrices over the same regions rise together: Spearman's rank correlation and Mantel's permutations.

Pairs of regions are not independent, for each region stands in many of them. Mantel (1967, Cancer Research 27)
therefore relabels whole regions: rows and columns of one matrix are permuted together.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEAST = 4
"""Regions below which relabelling tells nothing: of three there are six orders."""
_DRAWS = 4999


class Rising(NamedTuple):
    """Rank correlation over `pairs` ordered pairs; p: share of relabellings with one at least as large, NaN not told.

    exact: whether all relabellings were tried. undefined: pairs of two regions that are left out.
    """

    correlation: float
    p: float
    pairs: int
    undefined: int
    exact: bool


def ranks(values: Floats) -> Floats:
    """Ranks (n,) from 1, of equal values their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[inverse.reshape(-1)], np.float64)


def spearman(first: Floats, second: Floats) -> float:
    """Pearson's correlation of the ranks (n,); NaN where one is constant, or with fewer than three pairs."""
    if len(first) < 3:
        return float("nan")
    a, b = (ranks(values) - (len(first) + 1) / 2 for values in (first, second))
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else float("nan")


def mantel(distance: Floats, error: Floats, *, draws: int = _DRAWS, seed: int = 0) -> Rising:
    """Whether errors (R, R) rise with distances (R, R), symmetric; diagonals do not count, NaN pairs neither.

    One-sided: p is the share of relabellings, the one that is there among them, whose rank correlation is at least as
    large. All are tried where they are few, else `draws` at random.
    """
    size = len(distance)
    apart = ~np.eye(size, dtype=bool)
    here = apart & np.isfinite(distance) & np.isfinite(error)
    found = spearman(distance[here], error[here])
    pairs, undefined = int(here.sum()), int(apart.sum() - here.sum())
    if size < LEAST or not math.isfinite(found):
        return Rising(found, float("nan"), pairs, undefined, False)
    exact = math.factorial(size) <= draws + 1
    rng = np.random.default_rng(seed)
    orders = (
        map(list, itertools.permutations(range(size)))
        if exact
        else (rng.permutation(size).tolist() for _ in range(draws))
    )
    known, hits, total = np.isfinite(error) & apart, 0, 0
    for order in orders:
        moved = distance[np.ix_(order, order)]
        both = known & np.isfinite(moved)
        hits += spearman(moved[both], error[both]) >= found - 1e-12
        total += 1
    p = hits / total if exact else (hits + 1) / (total + 1)
    return Rising(found, p, pairs, undefined, exact)
