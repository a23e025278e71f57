import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covermap.core.errors import LabelError
from covermap.metrics.regression import RegressionScores

skm = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
RNG = np.random.default_rng(0)


def _check(got, r, p, rel=1e-9):
    assert got["rmse"] == pytest.approx(skm.root_mean_squared_error(r, p), rel=rel)
    assert got["mae"] == pytest.approx(skm.mean_absolute_error(r, p), rel=rel)
    assert got["r2"] == pytest.approx(skm.r2_score(r, p), rel=rel)
    assert got["r"] == pytest.approx(np.corrcoef(r, p)[0, 1], rel=rel)
    assert got["bias"] == pytest.approx((p - r).mean(), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("offset", [0, 1e8])
@pytest.mark.parametrize("pieces", [1, 13, 900])
def test_scores_equal_numpys_whatever_the_batches_also_far_from_zero(offset, pieces):
    r = offset + RNG.normal(0, 1, 1000)
    p = r + RNG.normal(0.1, 0.5, 1000)
    scores = RegressionScores()
    for a, b in zip(np.array_split(r, pieces), np.array_split(p, pieces), strict=True):
        scores.add(a, b)
    _check(scores.scores(), r, p, 1e-6 if offset else 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), max_size=20), st.integers(0, 20))
def test_undefined_scores_have_a_reason_and_cuts_do_not_matter(pairs, cut):
    r, p = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    whole, first, second = RegressionScores(), RegressionScores(), RegressionScores()
    whole.add(r, p)
    first.add(r[:cut], p[:cut])
    second.add(r[cut:], p[cut:])
    first.merge(second)
    got = whole.scores()
    assert {name for name, value in got.items() if np.isnan(value)} == set(whole.reasons())
    assert got["mae"] == pytest.approx(first.scores()["mae"], nan_ok=True)
    assert got["rmse"] == pytest.approx(first.scores()["rmse"], nan_ok=True)


def test_unknown_pairs_are_counted_and_constants_have_no_correlation():
    scores = RegressionScores()
    scores.add(np.array([0.1, 0.1, np.nan, 0.1]), np.array([0.3, 0.2, 1, np.inf]))
    got = scores.scores()
    assert (got["num_pairs"], got["num_unknown"]) == (2, 2)
    assert got["mae"] == pytest.approx(0.15)
    assert np.isnan([got["r"], got["r2"]]).all()
    assert scores.reasons() == dict.fromkeys(("r", "r2"), "the reference is constant (0.1)")
    constant = RegressionScores()
    constant.add(np.array([1.0, 2, 3]), np.full(3, 0.1))
    assert constant.reasons() == {"r": "the prediction is constant (0.1)"}
    assert constant.scores()["r2"] == pytest.approx(skm.r2_score([1, 2, 3], [0.1] * 3))
    with pytest.raises(LabelError, match="differs in shape"):
        scores.add(np.zeros(3), np.zeros(1))
