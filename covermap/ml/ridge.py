"""Ridge regression with an unpenalised intercept, its penalty chosen by leaving each sample out: exact, in float64.

One eigendecomposition of the smaller of the two Gram matrices, (n, n) or (d, d), serves all penalties and targets. The
error of a sample that is left out is a_i / G_ii, of a = G y and G = (K + l I)^-1 without the constant direction
(Golub, Heath and Wahba 1979, Technometrics 21): that stays exact where residual / (1 - h) cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating[Any]]
PENALTIES = tuple(10.0**k for k in range(-5, 4))
"""Penalties that are tried, as shares of the mean eigenvalue of the Gram matrix."""
_NULL = 1e-12
"""Share of the largest eigenvalue below which one is none."""


class Linear(NamedTuple):
    """weights (T, d), intercepts (T,) of T targets: prediction = values @ weights.T + intercepts."""

    weights: Floats
    intercepts: Floats

    def predict(self, values: Values) -> Floats:
        """Values (N, d) -> targets (N, T)."""
        return np.asarray(values @ self.weights.T + self.intercepts)


@dataclass(frozen=True)
class RidgePath:
    """All ridge fits of values (n, d) to targets (n, T), by the eigendecomposition of one Gram matrix.

    mean_values (d,), mean_targets (T,). left (n, p): sample space; eigenvalues (p,); right (d, p): feature space, each
    column by its singular value, so that weights are right @ diag(1 / (e + l)) @ left' y. dual: left spans all of the
    sample space but the constant direction.
    """

    mean_values: Floats
    mean_targets: Floats
    left: Floats
    eigenvalues: Floats
    right: Floats
    projected: Floats
    targets: Floats
    dual: bool

    @staticmethod
    def of(values: Values, targets: Values) -> RidgePath:
        """Decompose; raises DataError for fewer than two samples and for values that are not finite."""
        x, y = np.asarray(values, np.float64), np.asarray(targets, np.float64)
        require_samples(x, y)
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        n, d = x.shape
        if n <= d:
            gram = x @ x.T
            # Twice the sum of all eigenvalues on the constant direction sets it apart from each, so that it can be
            # taken out; no more than that, which would drown them.
            gram += (2 * float(np.trace(gram)) or 1.0) / n
            eigenvalues, left = np.linalg.eigh(gram)
            others = np.arange(n) != np.argmax(np.abs(left.sum(0)))
            eigenvalues, left = np.maximum(eigenvalues[others], 0), left[:, others]
            right = x.T @ left
        else:
            eigenvalues, vectors = np.linalg.eigh(x.T @ x)
            full = eigenvalues > _NULL * max(eigenvalues[-1], 1e-300)
            eigenvalues, vectors = eigenvalues[full], vectors[:, full]
            root = np.sqrt(eigenvalues)
            left, right = x @ vectors / root, vectors * root
        return RidgePath(mean_x, mean_y, left, eigenvalues, right, left.T @ y, y, n <= d)

    @property
    def penalties(self) -> Floats:
        """PENALTIES in the unit of the values."""
        n, d = len(self.left), len(self.right)
        mean = float(self.eigenvalues.sum()) / min(n, d)
        return np.array(PENALTIES) * (mean if mean > 0 else 1.0)

    def left_out(self, penalty: float) -> Floats:
        """Errors (n, T) of each sample, predicted by a fit to all others; penalty > 0."""
        shrunk = 1 / (self.eigenvalues + penalty)
        if self.dual:
            return np.asarray((self.left * shrunk) @ self.projected / ((self.left**2) @ shrunk)[:, None])
        share = self.eigenvalues * shrunk
        rest = self.targets - (self.left * share) @ self.projected
        return np.asarray(rest / (1 - 1 / len(self.left) - (self.left**2) @ share)[:, None])

    def choose(self, penalties: Sequence[float] | Floats | None = None) -> Floats:
        """The penalty (T,) with the least mean squared error of samples left out, the first of equals."""
        tried = np.asarray(self.penalties if penalties is None else penalties, np.float64)
        errors = np.stack([(self.left_out(float(penalty)) ** 2).mean(0) for penalty in tried])
        return np.asarray(tried[errors.argmin(0)])

    def fit(self, penalties: float | Floats) -> Linear:
        """The fit with a penalty for all targets, or one for each (T,)."""
        each = np.broadcast_to(np.asarray(penalties, np.float64), self.mean_targets.shape)
        weights = (self.right @ (self.projected / (self.eigenvalues[:, None] + each))).T
        return Linear(weights, self.mean_targets - weights @ self.mean_values)


def fit_least_squares(values: Values, targets: Values) -> Linear:
    """Least squares without a penalty, of the smallest weights where many fit alike; raises DataError."""
    x, y = np.asarray(values, np.float64), np.asarray(targets, np.float64)
    require_samples(x, y)
    mean_x, mean_y = x.mean(0), y.mean(0)
    weights = np.linalg.lstsq(x - mean_x, y - mean_y, rcond=None)[0].T
    return Linear(weights, mean_y - weights @ mean_x)


def near_as_many_samples(num_samples: int, num_features: int) -> bool:
    """Whether least squares without a penalty is at its worst: between half and twice as many samples as features."""
    return num_features < 2 * num_samples and num_samples < 2 * num_features


def prequential_errors(values: Values, targets: Values, penalty: float) -> Floats:
    """Errors (n, T) of each sample predicted from those before it, the first from nothing: a learning curve for free.

    From one Cholesky factor: e_i = L_ii (L^-1 y)_i of the kernel K + penalty I (Dawid 1984, J. R. Stat. Soc. A 147).
    The intercept is a feature of large variance, and so as good as unpenalised from the second sample on.
    """
    from scipy.linalg import solve_triangular

    x, y = np.asarray(values, np.float64), np.asarray(targets, np.float64)
    require_samples(x, y)
    factor = np.linalg.cholesky(prequential_kernel(x - x.mean(0), penalty))
    found = solve_triangular(factor, y, lower=True)
    return np.asarray(found * np.diag(factor)[:, None])


def prequential_kernel(values: Floats, penalty: float) -> Floats:
    """(n, n): K + penalty I + a constant for the intercept, 100 times the mean of K's diagonal."""
    gram = values @ values.T
    constant = 1e2 * max(float(np.trace(gram)) / len(gram), penalty)
    return np.asarray(gram + constant + penalty * np.eye(len(gram)))


def require_samples(values: Values, targets: Values) -> None:
    """Raise DataError where a linear fit has no sense."""
    if values.ndim != 2 or targets.ndim != 2 or len(values) != len(targets):
        raise DataError(
            f"values {values.shape} and targets {targets.shape} do not belong together", fix="give (n, d) and (n, T)"
        )
    if len(values) < 2:
        raise DataError(f"{len(values)} labelled samples tell no line", fix="label at least two, better 50")
    for name, given in (("embeddings", values), ("targets", targets)):
        if not np.isfinite(given).all():
            bad = int((~np.isfinite(given)).any(1).sum())
            raise DataError(
                f"{bad:,} of {len(given):,} samples have {name} that are no numbers", fix="leave them out beforehand"
            )
