"""Multivariate alteration detection: change of all bands together that no linear change of the bands can make.

Canonical correlations pair combinations of the bands before with those after; the differences of pairs (MAD variates,
Nielsen et al. 1998, Remote Sensing of Environment 64) hold what one date does not say of the other. Sun, haze and gain
of a band drop out. Iterated reweighting (IR-MAD, Nielsen 2007, IEEE Trans. Image Processing 16) finds the pairs from
pixels that have not changed: each weighs by its probability of no change, until correlations stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import gamma
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError

MOST_ROUNDS, STILL = 50, 1e-3
"""Canty and Nielsen's (2008, Remote Sensing of Environment 112): correlations that move less are still."""
FEWEST = 10
"""Pixels for each band that weights leave at least: of fewer, all can be paired, and only they would weigh."""
_RANK = 1e-6
"""Share of a variance of 1 below which a combination of bands holds nothing new."""
_LEAST = 1e-6
"""Variance that a MAD variate has at least: images that are equal in part have none."""
_BLOCK = 1 << 15
Floats = npt.NDArray[np.float64]
Bands = npt.NDArray[np.floating[Any]]
Blocks = Callable[[], Iterable[tuple[Bands, Bands]]]
"""Goes through all pixels once more: bands (C, N) before, (D, N) after, all known."""


@dataclass(frozen=True)
class Mad:
    """mean (C + D,) of the bands; before (C, p), after (D, p): combinations whose differences have a variance of 1.

    correlations (p,) falling; rounds: how often weights were found; still: whether correlations came to rest: not where
    too few pixels are alike on both dates.
    """

    mean: Floats
    before: Floats
    after: Floats
    correlations: Floats
    rounds: int
    still: bool

    @staticmethod
    def fit(blocks: Blocks, *, reweighted: bool = True) -> Mad:
        """MAD, or IR-MAD. Sums are float64; memory is that of a block. Raises DataError where no band varies."""
        total = sum(np.hstack([each.sum(1, dtype=np.float64) for each in pair]) for pair in blocks())
        count = sum(pair[0].shape[1] for pair in blocks())
        if not count:
            raise DataError("no pixel is known on both dates", fix="check nodata, clouds and the place of both")
        centre = np.asarray(total) / count
        found, still = None, not reweighted
        for rounds in range(MOST_ROUNDS if reweighted else 1):
            mean, covariance, bands, seen = _moments(blocks, centre, found)
            if found is not None and seen < FEWEST * len(centre):
                break
            fresh = _canonical(mean, covariance, bands, centre, rounds)
            if found is not None and len(found.correlations) == len(fresh.correlations):
                still = bool(np.abs(fresh.correlations - found.correlations).max() < STILL)
            found = fresh
            if still:
                break
        assert found is not None
        return Mad(found.mean, found.before, found.after, found.correlations, found.rounds, still)

    def statistic(self, before: Bands, after: Bands) -> Floats:
        """Bands (C, ...), (D, ...) -> root of the sum of the p squared variates (...), NaN where any is NaN."""
        shape = before.shape[1:]
        x, y = before.reshape(len(before), -1), after.reshape(len(after), -1)
        out = np.empty(x.shape[1])
        for start in range(0, out.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            shift = self.mean[: len(x)] @ self.before - self.mean[len(x) :] @ self.after
            variates = self.before.T @ x[:, part].astype(np.float64) - self.after.T @ y[:, part].astype(np.float64)
            variates -= shift[:, None]
            out[part] = np.sqrt(np.einsum("pn,pn->n", variates, variates))
        return out.reshape(shape)


def _moments(blocks: Blocks, centre: Floats, weighing: Mad | None) -> tuple[Floats, Floats, int, float]:
    """Weighted mean (C + D,) less `centre`, covariance (C + D, C + D), C, and how many pixels that is worth (Kish)."""
    size, bands, squares = len(centre), 0, 0.0
    total, first, second = 0.0, np.zeros(size), np.zeros((size, size))
    for before, after in blocks():
        bands = len(before)
        for start in range(0, before.shape[1], _BLOCK):
            part = slice(start, start + _BLOCK)
            values = np.vstack([before[:, part], after[:, part]]).astype(np.float64) - centre[:, None]
            if weighing is None:
                weights = np.ones(values.shape[1])
            else:
                distance = weighing.statistic(before[:, part], after[:, part])
                weights = no_change(distance**2, len(weighing.correlations))
            total, squares = total + weights.sum(), squares + (weights**2).sum()
            weighted = values * weights
            first += weighted.sum(1)
            second += weighted @ values.T
    total = max(total, np.finfo(np.float64).tiny)
    mean = first / total
    return mean, second / total - np.outer(mean, mean), bands, total**2 / max(squares, np.finfo(np.float64).tiny)


def _canonical(mean: Floats, covariance: Floats, bands: int, centre: Floats, rounds: int) -> Mad:
    """The pairs of combinations with the highest correlations."""
    one, other = slice(None, bands), slice(bands, None)
    left, right = _whitening(covariance[one, one]), _whitening(covariance[other, other])
    if not left.shape[1] or not right.shape[1]:
        raise DataError("the bands of an image hold one number each: nothing varies", fix="give images with content")
    u, correlations, v = np.linalg.svd(left.T @ covariance[one, other] @ right, full_matrices=False)
    correlations = np.clip(correlations, 0, 1)
    # Both combinations have a variance of 1, so their difference has one of 2 (1 - correlation).
    spread = np.sqrt(np.maximum(2 * (1 - correlations), _LEAST))
    return Mad(centre + mean, left @ u / spread, right @ v.T / spread, correlations, rounds, False)


def _whitening(covariance: Floats) -> Floats:
    """Combinations (C, r) of a variance of 1 that do not correlate; none for bands that follow from others."""
    variance = np.diag(covariance)
    deviation = np.sqrt(np.maximum(variance, 0))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    spread, axes = np.linalg.eigh(covariance * np.outer(scale, scale))
    kept = spread > _RANK
    return np.asarray(scale[:, None] * axes[:, kept] / np.sqrt(spread[kept]))


def no_change(squared: Floats, freedom: int) -> Floats:
    """P(chi-squared > x) with a degree of freedom for each variate: what a pixel weighs."""
    half = squared / 2
    root, power = np.sqrt(half), freedom % 2 / 2
    # The sum of a Poisson distribution's first terms; an odd degree begins with half a step, which erfc holds.
    term = np.exp(-half) / gamma(1 + power) * root ** (2 * power)
    found = _erfc(root) if power else np.zeros_like(half)
    for step in range(freedom // 2):
        found += term
        term *= half / (step + 1 + power)
    return np.asarray(np.minimum(found, 1))


def _erfc(values: Floats) -> Floats:
    """numpy has none."""
    import torch

    return np.asarray(torch.special.erfc(torch.from_numpy(np.ascontiguousarray(values))).numpy())
