"""Ridge fits beside scikit-learn in float64, and identities that hold exactly."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV

from covermap.core.errors import DataError
from covermap.ml.ridge import (
    Linear,
    RidgePath,
    fit_least_squares,
    near_as_many_samples,
    prequential_errors,
    prequential_kernel,
)
from covermap.ml.ridge_bank import SCORES, Moments, Pool, one_thread


def sample(count: int, d: int, num_targets: int = 5, seed: int = 0, decay: float = 0.5):
    """Embeddings (count, d) far from 0 and targets (count, T) that they tell in part."""
    random = np.random.default_rng(seed)
    spread = (1.0 + np.arange(d)) ** -decay
    values = random.standard_normal((count, d)) * spread
    targets = values @ (random.standard_normal((d, num_targets)) * spread[:, None])
    targets = targets / targets.std(0) + 0.5 * random.standard_normal((count, num_targets))
    return (values + 3).astype(np.float32).astype(np.float64), targets + 2


def scores_of(fit: Linear, values, targets):
    """r, R2 and RMSE of one target at a time, by their definitions."""
    predicted = fit.predict(values)
    found = {key: [] for key in SCORES}
    for mine, true in zip(predicted.T, targets.T, strict=True):
        errors = ((mine - true) ** 2).sum()
        found["r"].append(np.corrcoef(mine, true)[0, 1])
        found["r2"].append(1 - errors / ((true - true.mean()) ** 2).sum())
        found["rmse"].append(np.sqrt(errors / len(true)))
    return {key: np.array(values) for key, values in found.items()}


@pytest.mark.parametrize("n", [5, 40, 64, 65, 300])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_one_fit_is_scikit_learns(n, penalty):
    values, targets = sample(n, 64)
    expected = Ridge(alpha=penalty).fit(values, targets)
    found = RidgePath.of(values, targets).fit(penalty)
    assert np.allclose(found.weights, expected.coef_, atol=1e-9)
    assert np.allclose(found.predict(values), expected.predict(values), atol=1e-9)


@pytest.mark.parametrize("n", [10, 32, 33, 200])
def test_penalties_are_those_of_ridge_cv_and_errors_those_of_refits(n):
    values, targets = sample(n, 32)
    path = RidgePath.of(values, targets)
    expected = RidgeCV(alphas=path.penalties, alpha_per_target=True).fit(values, targets)
    assert path.choose().tolist() == expected.alpha_.tolist()
    assert np.allclose(path.fit(path.choose()).weights, expected.coef_, atol=1e-9)
    penalty = float(path.penalties[4])
    for i in (0, n // 2, n - 1):
        others = np.arange(n) != i
        alone = Ridge(alpha=penalty).fit(values[others], targets[others])
        error = targets[i] - alone.predict(values[i : i + 1])[0]
        assert np.allclose(path.left_out(penalty)[i], error, atol=1e-9)


def test_least_squares_and_where_it_fails():
    values, targets = sample(200, 20)
    expected = LinearRegression().fit(values, targets)
    assert np.allclose(fit_least_squares(values, targets).weights, expected.coef_)
    assert [n for n in (10, 11, 20, 39, 40) if near_as_many_samples(n, 20)] == [11, 20, 39]


def test_prequential_errors_are_those_of_refits_to_what_came_before():
    values, targets = sample(60, 100)
    found = prequential_errors(values, targets, 2.0)
    kernel = prequential_kernel(values - values.mean(0), 2.0)
    for i in (1, 30, 59):
        before = kernel[i, :i] @ np.linalg.solve(kernel[:i, :i], targets[:i])
        assert np.allclose(found[i], targets[i] - before, atol=1e-10)


@pytest.mark.parametrize("d", [8, 64, 96])
@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 1.0, 30.0])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_nested_budgets_equal_single_fits(d, penalty, decay):
    values, targets = sample(900, d, decay=decay)
    test = slice(600, None)
    order = np.random.default_rng(1).permutation(600)
    budgets = sorted({20, d - 1, d, d + 1, 2 * d, 500})
    found = Pool.of(values[:600].astype(np.float32), targets[:600]).fit(order, budgets, penalty)
    told = Moments.of(values[test], targets[test]).scores(found.weights, found.intercepts)
    for number, n in enumerate(budgets):
        model = Ridge(alpha=penalty).fit(values[order[:n]], targets[order[:n]])
        expected = scores_of(Linear(model.coef_, model.intercept_), values[test], targets[test])
        for key in SCORES:
            close = 1e-4 * np.maximum(1, np.abs(expected[key]))
            assert (np.abs(told[key][number] - expected[key]) < close).all(), (key, n, found.doubled)


def test_constant_targets_have_no_correlation():
    values, targets = sample(300, 16)
    targets[:, 1] = 0.1  # in training
    order = np.arange(200)
    fits = Pool.of(values[:200].astype(np.float32), targets[:200]).fit(order, [10, 100], 1.0)
    test = targets[200:].copy()
    test[:, 2] = 0.7  # in the test
    told = Moments.of(values[200:], test).scores(fits.weights, fits.intercepts)
    assert np.isnan(told["r"][:, [1, 2]]).all()
    assert np.isnan(told["r2"][:, 2]).all()
    assert np.isfinite(told["rmse"]).all()
    assert np.isfinite(told["r"][:, [0, 3, 4]]).all()
    assert np.allclose(fits.intercepts[:, 1], 0.1)


def test_moments_add_up_and_take_away():
    values, targets = sample(500, 12)
    parts = [slice(0, 100), slice(100, 350), slice(350, 500)]
    one, two, three = (Moments.of(values[part], targets[part]) for part in parts)
    fit = RidgePath.of(values[:100], targets[:100]).fit(1.0)
    for moments, rows in ((one + two, slice(0, 350)), (one + two + three - two, np.r_[0:100, 350:500])):
        expected = scores_of(fit, values[rows], targets[rows])
        for key, found in moments.scores(*fit).items():
            assert np.allclose(found, expected[key], atol=1e-9)
    with pytest.raises(DataError, match="no sample is left"):
        one - one


def test_what_is_no_sample_is_refused():
    values, targets = sample(10, 4)
    with pytest.raises(DataError, match="1 labelled samples"):
        RidgePath.of(values[:1], targets[:1])
    values[3, 2] = np.nan
    with pytest.raises(DataError, match="1 of 10 samples have embeddings"):
        Pool.of(values, targets)
    with pytest.raises(DataError, match="do not belong together"):
        RidgePath.of(values[:5], targets)
    pool = Pool.of(*sample(10, 4))
    for budgets in ([], [1, 5], [5, 5], [5, 11]):
        with pytest.raises(DataError, match="do not rise"):
            pool.fit(np.arange(10), budgets, 1.0)
    with pytest.raises(DataError, match="shrinks nothing"):
        pool.fit(np.arange(10), [5], 0.0)


def test_one_thread_is_one_thread():
    from threadpoolctl import threadpool_info

    with one_thread():
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


@pytest.mark.parametrize("kind", ["two samples", "one direction", "tiny", "many"])
def test_the_constant_direction_is_told_from_all_others(kind):
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(3)
    values = {
        "two samples": random.standard_normal((2, 50)),
        "one direction": np.outer(np.arange(6.0), random.standard_normal(20)),
        "tiny": 1e-7 * random.standard_normal((30, 64)),
        "many": 1e5 * random.standard_normal((30, 64)),
    }[kind]
    targets = random.standard_normal((len(values), 3))
    path = RidgePath.of(values, targets)
    for penalty in path.penalties[::4]:
        known = Ridge(alpha=penalty, solver="svd").fit(values, targets)
        np.testing.assert_allclose(path.fit(penalty).predict(values), known.predict(values), atol=1e-9)
        left_out = [
            targets[i] - Ridge(alpha=penalty, solver="svd").fit(np.delete(values, i, 0), np.delete(targets, i, 0))
            .predict(values[[i]])[0] for i in range(len(values))
        ]  # fmt: skip
        np.testing.assert_allclose(path.left_out(penalty), left_out, rtol=1e-6, atol=1e-7)
