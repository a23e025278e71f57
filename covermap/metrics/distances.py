"""How far groups of embeddings lie from each other: means, Gaussians, kernels and neighbours, in float64.

centroid  Euclidean distance of means, each feature in its pooled standard deviation within groups
Frechet   of Gaussians: sqrt(|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)) (Dowson & Landau 1982, J.
          Multivariate Analysis 12); its square on features of a network is the FID (Heusel et al. 2017, NeurIPS)
MMD^2     unbiased, with the kernel exp(-|x - y|^2 / (2 s^2)) and s the median distance (Gretton et al. 2012, JMLR
          13): 0 in the mean for groups alike, and so sometimes below 0
k-NN      share of the k nearest chips that are of the own group, over what chance gives: 1 where groups are mixed
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating[Any]]
NEIGHBOURS = 10
_CONSTANT = 1e-7
"""Standard deviation, as a share of the root mean square, below which a feature is constant: float32 holds no less."""
_AT_ONCE = 1 << 14


class Scale(NamedTuple):
    """Means of all rows (d,) and pooled standard deviations within groups (d,); varies (d,): features that do so."""

    mean: Floats
    std: Floats
    varies: npt.NDArray[np.bool_]

    @staticmethod
    def of(values: Values, group: npt.NDArray[np.intp]) -> Scale:
        """Of rows (N, d) in groups 0..R-1 (N,): sqrt(sum of squares about the groups' means / (N - R))."""
        means, square, power = [], np.zeros(values.shape[1]), np.zeros(values.shape[1])
        for rows in _rows_of(group):
            means.append(values[rows].mean(0, dtype=np.float64))
            for start in range(0, len(rows), _AT_ONCE):
                part = np.asarray(values[rows[start : start + _AT_ONCE]], np.float64)
                square += ((part - means[-1]) ** 2).sum(0)
                power += (part**2).sum(0)
        sizes = np.bincount(group)
        std = np.sqrt(square / max(1, len(group) - len(means)))
        varies = std > _CONSTANT * np.sqrt(power / max(1, len(group)))
        return Scale(np.average(means, axis=0, weights=sizes), np.where(varies, std, 1.0), varies)

    def apply(self, values: Values) -> Floats:
        """Rows (N, d) -> (N, d'), features in pooled standard deviations about the mean, constant ones left out."""
        return np.asarray((np.asarray(values, np.float64) - self.mean)[:, self.varies] / self.std[self.varies])


def principal(values: Values, scale: Scale, count: int) -> tuple[Floats, Floats]:
    """Scores (N, p) on the first p <= count principal components of scaled rows, and all shares of variance (d',).

    The sign of each component is that its largest loading is positive.
    """
    size = int(scale.varies.sum())
    scatter = np.zeros((size, size))
    for start in range(0, len(values), _AT_ONCE):
        part = scale.apply(values[start : start + _AT_ONCE])
        scatter += part.T @ part
    eigenvalues, vectors = np.linalg.eigh(scatter)
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0), vectors[:, ::-1][:, :count]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    scores = [scale.apply(values[i : i + _AT_ONCE]) @ vectors for i in range(0, len(values), _AT_ONCE)]
    return np.concatenate(scores), eigenvalues / max(float(eigenvalues.sum()), 1e-300)


def shrunk_covariance(values: Values) -> tuple[Floats, float]:
    """Covariance (p, p) of rows (n, p), moved towards its mean variance times the identity, and by which share.

    The share is Ledoit and Wolf's (2004, J. Multivariate Analysis 88), which has the least expected squared error.
    """
    x = np.asarray(values, np.float64) - np.mean(values, 0, dtype=np.float64)
    n, p = x.shape
    raw = x.T @ x / n
    mean = float(np.trace(raw)) / p
    spread = float((raw**2).sum()) - p * mean**2
    noise = (float(((x**2).sum(1) ** 2).sum()) / n - float((raw**2).sum())) / n
    share = 0.0 if spread <= 0 else float(np.clip(noise / spread, 0, 1))
    return (1 - share) * raw + share * mean * np.eye(p), share


def frechet(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> float:
    """Frechet distance of two Gaussians of means (p,) and covariances (p, p)."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other_covariance @ root), 0)).sum()
    apart = float(((mean - other_mean) ** 2).sum())
    squared = apart + float(np.trace(covariance) + np.trace(other_covariance)) - 2 * float(shared)
    return float(np.sqrt(max(squared, 0.0)))


def squared_distances(values: Floats, others: Floats) -> Floats:
    """(n, d), (m, d) -> (n, m)."""
    found = (values**2).sum(1)[:, None] + (others**2).sum(1) - 2 * values @ others.T
    return np.asarray(np.maximum(found, 0))


def median_distance(values: Floats) -> float:
    """Median of the distances of all pairs of rows (n, d)."""
    upper = np.triu_indices(len(values), 1)
    return float(np.sqrt(np.median(squared_distances(values, values)[upper])))


def mmd(within: Floats, other: Floats, between: Floats, bandwidth: float) -> float:
    """MMD^2, unbiased, from squared distances within two groups (n, n), (m, m) and between them (n, m)."""

    def mean_of_pairs(squared: Floats) -> float:
        n = len(squared)
        return float((_kernel(squared, bandwidth).sum() - n) / (n * (n - 1)))  # k(x, x) = 1

    return mean_of_pairs(within) + mean_of_pairs(other) - 2 * float(_kernel(between, bandwidth).mean())


def own_neighbours(within: Floats, other: Floats, between: Floats, k: int = NEIGHBOURS) -> float:
    """Share of the k nearest chips that are of the own group, over that by chance, from squared distances as `mmd`.

    Of both groups the first n rows count, n the size of the smaller one: chance is then (n - 1) / (2 n - 1), and groups
    wholly apart have its reciprocal, about 2.
    """
    n = min(len(within), len(other))
    k = min(k, n - 1)
    squared = np.block([[within[:n, :n], between[:n, :n]], [between[:n, :n].T, other[:n, :n]]])
    np.fill_diagonal(squared, np.inf)  # a chip is not its own neighbour
    near = np.argpartition(squared, k - 1, axis=1)[:, :k]
    own = (near < n) == (np.arange(2 * n) < n)[:, None]
    return float(own.mean() / ((n - 1) / (2 * n - 1)))


def _kernel(squared: Floats, bandwidth: float) -> Floats:
    return np.asarray(np.exp(-squared / (2 * bandwidth**2)))


def _rows_of(group: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    return [np.flatnonzero(group == number) for number in range(int(group.max()) + 1)]
