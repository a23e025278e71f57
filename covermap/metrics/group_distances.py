"""All distances between groups of embeddings, each pair of groups in one unit, so that pairs compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.metrics.distances import (
    Floats,
    Scale,
    Values,
    frechet,
    median_distance,
    mmd,
    own_neighbours,
    principal,
    shrunk_covariance,
    squared_distances,
)

DISTANCES = ("centroid", "frechet", "mmd", "knn")
KEPT = 50
"""Principal components that are kept of each chip, at most."""
_FRECHET = 32
"""Principal components of Gaussians, at most; also half of the chips of the smallest group."""
_EACH, _ALL, _WIDTH = 500, 8000, 2000
"""Chips that kernels and neighbours take: of a group, of all together, and for the median distance."""


@dataclass(frozen=True)
class GroupDistances:
    """Matrices (R, R) of DISTANCES by name, NaN on the diagonal, and what they were made of.

    scores (N, p): on principal components with `variance` (p,), their shares of all. components: of them that Frechet's
    Gaussians have. shrunk (R,): share by which covariances were. sample (M,): rows that kernels and neighbours took,
    `each` of a group at most. bandwidth: of the kernel. constant: features that vary in no group and are left out.
    """

    matrices: dict[str, Floats]
    scores: Floats
    variance: Floats
    components: int
    shrunk: Floats
    sample: npt.NDArray[np.intp]
    each: int
    bandwidth: float
    constant: int


def group_distances(
    values: Values, group: npt.NDArray[np.intp], *, seed: int = 0, on_row: Callable[[], None] = lambda: None
) -> GroupDistances:
    """Distances of rows (N, d) in groups 0..R-1 of at least three (N,); raises DataError where nothing varies."""
    scale = Scale.of(values, group)
    if not scale.varies.any():
        raise DataError("the embeddings of each region are constant", fix="check the encoder, and nodata of its images")
    sizes = np.bincount(group)
    count = len(sizes)
    scores, shares = principal(values, scale, KEPT)
    components = min(_FRECHET, scores.shape[1], max(1, int(sizes.min()) // 2))
    means = np.stack([values[group == g].mean(0, dtype=np.float64) for g in range(count)])
    means = (means - scale.mean)[:, scale.varies] / scale.std[scale.varies]
    gaussians = [scores[group == g, :components] for g in range(count)]
    centres, fitted = [x.mean(0) for x in gaussians], [shrunk_covariance(x) for x in gaussians]
    each = min(_EACH, max(3, _ALL // count))
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(group == g))[:each] for g in range(count)]
    sample = np.concatenate(drawn)
    some = sample if len(sample) <= _WIDTH else np.sort(rng.choice(sample, _WIDTH, replace=False))
    bandwidth = median_distance(scale.apply(values[some]))
    if not bandwidth > 0:
        raise DataError("most chips have the same embedding", fix="check the encoder, and nodata of its images")
    scaled = [scale.apply(values[rows]) for rows in drawn]
    within = [squared_distances(x, x) for x in scaled]
    found = {name: np.full((count, count), np.nan) for name in DISTANCES}
    for a in range(count):
        for b in range(a + 1, count):
            between = squared_distances(scaled[a], scaled[b])
            told = (
                float(np.linalg.norm(means[a] - means[b])),
                frechet(centres[a], fitted[a][0], centres[b], fitted[b][0]),
                mmd(within[a], within[b], between, bandwidth),
                own_neighbours(within[a], within[b], between),
            )
            for name, value in zip(DISTANCES, told, strict=True):
                found[name][a, b] = found[name][b, a] = value
        on_row()
    return GroupDistances(
        found, scores, shares[: scores.shape[1]], components, np.array([share for _, share in fitted]),
        np.sort(sample), each, bandwidth, int((~scale.varies).sum()),
    )  # fmt: skip
