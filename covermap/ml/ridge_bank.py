"""Very many ridge fits at once: nested budgets share their factor, all targets share each solve.

Of one order of the samples the budgets n1 < n2 < ... are prefixes. Budgets with fewer samples than features take one
Cholesky factor of the largest one's kernel, whose leading blocks are the factors of all smaller ones; the intercept,
which is not penalised, comes from the bordered system. Larger budgets add up one Gram matrix. Factors are float32,
which lets a core do twice as much; means, and the scores, which come from moments of the scored samples, are float64.
Where float32 does not hold, a budget is solved again in float64.

One thread of BLAS is used: with two, these small problems take many times as long. More cores take more orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.ml.ridge import Floats, Values, require_samples

Singles = npt.NDArray[np.float32]
SCORES = ("r", "r2", "rmse")
_CONSTANT = 1e-24
"""Square of what a target, or a prediction, may vary by, as a share of its mean, and still be constant."""


class Fits(NamedTuple):
    """weights (B, T, d), intercepts (B, T) of B budgets; doubled: budgets that were solved in float64."""

    weights: Floats
    intercepts: Floats
    doubled: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Samples that budgets are drawn from: values (N, d) float32 about their mean, targets (N, T) about theirs."""

    values: Singles
    targets: Floats
    mean_values: Floats
    mean_targets: Floats

    @staticmethod
    def of(values: Values, targets: Values) -> Pool:
        """Centre values (N, d) and targets (N, T); raises DataError."""
        y = np.asarray(targets, np.float64)
        require_samples(values, y)
        mean_x, mean_y = values.mean(0, dtype=np.float64), y.mean(0)
        return Pool(np.asarray(values - mean_x, np.float32), y - mean_y, mean_x, mean_y)

    def fit(self, order: npt.NDArray[np.intp], budgets: Sequence[int], penalty: float) -> Fits:
        """A ridge fit to the first n samples of an order, for each n of rising budgets; penalty: scikit-learn's alpha.

        Raises DataError for budgets that do not rise, and that the pool does not hold.
        """
        _require_budgets(budgets, len(order))
        if penalty <= 0:
            raise DataError(f"a penalty of {penalty:g} shrinks nothing", fix="give one above 0")
        x, y = self.values[order[: budgets[-1]]], self.targets[order[: budgets[-1]]]
        few = [n for n in budgets if n < x.shape[1]]
        drawn = _Drawn(x, y, penalty, _sums(x, budgets), _sums(y, budgets))
        solved = [*_dual(drawn, few), *_primal(drawn, budgets[len(few) :])]
        doubled = tuple(n for n, found in zip(budgets, solved, strict=True) if found is None)
        weights = np.stack([
            _in_float64(x[:n], y[:n], penalty) if found is None else found
            for n, found in zip(budgets, solved, strict=True)
        ])  # fmt: skip
        for one, n in zip(weights, budgets, strict=True):
            one[(y[:n] == y[0]).all(0)] = 0  # not what is left of a constant by rounding
        means, mean_targets = (np.stack([sums[n] / n for n in budgets]) for sums in (drawn.sums, drawn.target_sums))
        intercepts = self.mean_targets + mean_targets - np.einsum("btd,bd->bt", weights, self.mean_values + means)
        return Fits(weights, intercepts, doubled)


class _Drawn(NamedTuple):
    """The samples of the largest budget (n, d), (n, T), and sums over the first n of them for each budget n."""

    values: Singles
    targets: Floats
    penalty: float
    sums: dict[int, Floats]
    target_sums: dict[int, Floats]


def _sums(values: npt.NDArray[Any], budgets: Sequence[int]) -> dict[int, Floats]:
    """Sums of the first n rows for each budget n; each part in the values' own precision, all parts in float64."""
    found, total, start = dict[int, Floats](), np.zeros(values.shape[1]), 0
    for size in budgets:
        total = total + np.ones(size - start, values.dtype) @ values[start:size]
        found[size], start = total, size
    return found


def _dual(drawn: _Drawn, budgets: Sequence[int]) -> list[Floats | None]:
    """Weights (T, d) for each budget below d; None where float32 does not hold."""
    from scipy.linalg import blas, lapack

    if not budgets:
        return []
    n, count = budgets[-1], drawn.targets.shape[1] + 1
    x = drawn.values[:n]
    # Fortran's columns are C's rows: no copy is made.
    kernel = blas.ssyrk(1.0, x.T, trans=1, lower=1)
    kernel[np.diag_indices(n)] += np.float32(drawn.penalty)
    largest = _largest(kernel, drawn.penalty)
    factor, failed = lapack.spotrf(kernel, lower=1, overwrite_a=1, clean=0)
    if failed:
        return [None] * len(budgets)
    sides = np.ones((n, count), np.float32, order="F")
    sides[:, :-1] = drawn.targets[:n]
    forward = blas.strsm(1.0, factor, sides, lower=1, overwrite_b=1)
    # Below a budget's last sample all is 0, and stays so: the whole factor does what its leading block would.
    back = np.zeros((n, len(budgets), count), np.float32, order="F")
    for number, size in enumerate(budgets):
        back[:size, number] = forward[:size]
    back = blas.strsm(1.0, factor, back.reshape(n, -1, order="F"), lower=1, trans_a=1, overwrite_b=1)
    back = back.reshape(n, len(budgets), count, order="F")
    ones, alphas = back[:, :, -1].astype(np.float64), back[:, :, :-1].astype(np.float64)
    alphas -= ones[:, :, None] * (alphas.sum(0) / ones.sum(0)[:, None])
    weights = alphas.reshape(n, -1).T.astype(np.float32) @ x
    weights = weights.reshape(len(budgets), count - 1, -1).astype(np.float64)
    pivots = np.diagonal(factor)
    return [
        found if _holds(pivots[:size], drawn.penalty, largest) else None
        for size, found in zip(budgets, weights, strict=True)
    ]


def _primal(drawn: _Drawn, budgets: Sequence[int]) -> list[Floats | None]:
    """Weights (T, d) for each budget of at least d."""
    from scipy.linalg import blas, lapack

    if not budgets:
        return []
    x, y = drawn.values, drawn.targets.astype(np.float32)
    d, start, found = x.shape[1], 0, list[Floats | None]()
    gram, factor = (np.zeros((d, d), np.float32, order="F") for _ in range(2))
    cross = np.zeros((d, y.shape[1]))
    for size in budgets:
        part = x[start:size]
        gram = blas.ssyrk(1.0, part.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
        cross += part.T @ y[start:size]
        start, total = size, drawn.sums[size]
        if size == budgets[-1]:
            factor = gram  # needed no more
        else:
            np.copyto(factor, gram)
        factor[np.diag_indices(d)] += np.float32(drawn.penalty)
        largest = _largest(factor, drawn.penalty)
        factor, failed = lapack.spotrf(factor, lower=1, overwrite_a=1, clean=0)
        if failed or not _holds(np.diagonal(factor), drawn.penalty, largest):
            found.append(None)
            continue
        # The intercept by the bordered system, as in the dual.
        sides = np.column_stack([cross, total]).astype(np.float32, order="F")
        solved = lapack.spotrs(factor, sides, lower=1, overwrite_b=1)[0].astype(np.float64)
        free, ones = solved[:, :-1], solved[:, -1]
        offsets = (drawn.target_sums[size] - total @ free) / (size - total @ ones)
        found.append((free - np.outer(ones, offsets)).T)
    return found


_LEAST = 3e-4
"""Share of the largest eigenvalue that a penalty has for float32 to hold, whatever the others are."""


def _largest(gram: Singles, penalty: float) -> float:
    """About the largest eigenvalue of a symmetric matrix of which the lower triangle is given, by three steps.

    Where the penalty is large enough beside the sum of all eigenvalues, that is told instead: it costs nothing.
    """
    from scipy.linalg import blas

    diagonal = np.diagonal(gram)
    if penalty >= _LEAST * (total := float(diagonal.sum(dtype=np.float64))):
        return total
    at = int(diagonal.argmax())
    vector, size = np.concatenate([gram[at, :at], gram[at:, at]]), 0.0
    for _ in range(3):
        if not (length := float(np.linalg.norm(vector))):
            break
        vector = blas.ssymv(1.0, gram, vector / np.float32(length), lower=1)
        size = float(np.linalg.norm(vector))
    return size


def _holds(pivots: Singles, penalty: float, largest: float) -> bool:
    """Whether scores of a fit by a Cholesky factor of these pivots in float32 are right to 1e-4.

    Measured on spectra from flat to i^-4 with 20 to 1,000 samples of 64 to 384 features: errors of r, R2 and RMSE stay
    below 1e-4 where the penalty is 3e-4 of the largest eigenvalue, or the factor's least pivot 3e-2.
    """
    return penalty >= _LEAST * largest or float(pivots.min()) ** 2 >= 3e-2 * largest


def _in_float64(x: Singles, y: Floats, penalty: float) -> Floats:
    """Weights (T, d)."""
    from scipy.linalg import solve

    values, targets = (given - given.mean(0, dtype=np.float64) for given in (x, y))
    few = len(values) < values.shape[1]
    gram = values @ values.T if few else values.T @ values
    gram[np.diag_indices(len(gram))] += penalty
    found = solve(gram, targets if few else values.T @ targets, assume_a="pos")
    return np.asarray(found.T @ values if few else found.T)


@dataclass(frozen=True)
class Moments:
    """All that scores of linear fits need of M samples: (G, C, y'y) about the means; in float64, they add up.

    values_square (d, d), cross (d, T), targets_square (T,), mean_values (d,), mean_targets (T,).
    """

    count: int
    mean_values: Floats
    mean_targets: Floats
    values_square: Floats
    cross: Floats
    targets_square: Floats

    @staticmethod
    def of(values: Values, targets: Values) -> Moments:
        """Of values (M, d) and targets (M, T)."""
        x, y = np.asarray(values, np.float64), np.asarray(targets, np.float64)
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        return Moments(len(x), mean_x, mean_y, x.T @ x, x.T @ y, (y**2).sum(0))

    def __add__(self, other: Moments) -> Moments:
        return self._joined(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        """Without a part of the samples."""
        return self._joined(other, -1)

    def _joined(self, other: Moments, sign: int) -> Moments:
        count = self.count + sign * other.count
        if count <= 0:
            raise DataError("no sample is left to score", fix="leave at least one area to score")
        far_x, far_y = other.mean_values - self.mean_values, other.mean_targets - self.mean_targets
        share = sign * other.count / count
        weight = sign * self.count * other.count / count
        return Moments(
            count, self.mean_values + share * far_x, self.mean_targets + share * far_y,
            self.values_square + sign * other.values_square + weight * np.outer(far_x, far_x),
            self.cross + sign * other.cross + weight * np.outer(far_x, far_y),
            self.targets_square + sign * other.targets_square + weight * far_y**2,
        )  # fmt: skip

    def scores(self, weights: Floats, intercepts: Floats) -> dict[str, Floats]:
        """SCORES of fits (..., T, d), (..., T) on these samples, (..., T) each; NaN where one is undefined.

        r and R2 are, where a target is constant; r also where a prediction is.
        """
        flat = weights.reshape(-1, weights.shape[-1])
        spread = np.einsum("kd,kd->k", flat @ self.values_square, flat).reshape(intercepts.shape)
        shared = np.einsum("...td,dt->...t", weights, self.cross)
        bias = weights @ self.mean_values + intercepts - self.mean_targets
        errors = np.maximum(spread - 2 * shared + self.targets_square, 0) + self.count * bias**2
        varies = self.targets_square > _CONSTANT * self.count * self.mean_targets**2
        answers = varies & (spread > _CONSTANT * self.count * (bias + self.mean_targets) ** 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.where(answers, shared / np.sqrt(spread * self.targets_square), np.nan)
            r2 = np.where(varies, 1 - errors / self.targets_square, np.nan)
        return {"r": r, "r2": r2, "rmse": np.sqrt(errors / self.count)}


def one_thread() -> Any:
    """A context with one thread of BLAS."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def _require_budgets(budgets: Sequence[int], there: int) -> None:
    rising = all(a < b for a, b in pairwise(budgets))
    if not budgets or budgets[0] < 2 or not rising or budgets[-1] > there:
        raise DataError(
            f"budgets {', '.join(map(str, budgets))} do not rise from 2 samples to the {there:,} that are there",
            fix="give fewer or smaller ones",
        )
