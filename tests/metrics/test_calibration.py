import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covermap.core.errors import CovermapError, DataError
from covermap.core.legend import IGNORE
from covermap.metrics.calibration import TEMPERATURES, Calibration, fit_temperature

skm = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")


def _over_confident(seed, n=3000, k=4, factor=3.0):
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (n, k))
    label = np.argmax(honest + rng.gumbel(size=honest.shape), 1).astype(np.uint8)  # drawn from softmax(honest)
    return honest * factor, label


def _softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).T


@pytest.mark.parametrize("pieces", [1, 9])
def test_scores_equal_scikit_learns_whatever_the_batches(pieces):
    logits, label = _over_confident(0)
    p, reference = _softmax(logits), label.copy()
    reference[::5] = IGNORE
    scores = Calibration(10)
    for some in np.array_split(np.arange(len(label)), pieces):
        part = Calibration(10)
        part.add(p[:, some], reference[some])
        scores.merge(part)
    got, known = scores.scores(), reference != IGNORE
    q, label = p[:, known], label[known]
    assert got["nll"] == pytest.approx(skm.log_loss(label, q.T, labels=range(4)), rel=1e-5)
    assert got["brier"] == pytest.approx(((q.T - np.eye(4)[label]) ** 2).sum(1).mean())
    assert got["accuracy"] == pytest.approx(skm.accuracy_score(label, q.argmax(0)))
    confidence, hit = q.max(0), q.argmax(0) == label
    gaps = [
        (abs(hit[at].mean() - confidence[at].mean()), at.mean())
        for b in range(10)
        if (at := (np.floor(confidence * 10) == b)).any()
    ]
    assert got["ece"] == pytest.approx(sum(gap * share for gap, share in gaps))
    assert got["mce"] == pytest.approx(max(gap for gap, _ in gaps))
    rows = scores.table()
    assert sum(row["num_pixels"] for row in rows) == got["num_pixels"] == known.sum()
    assert np.isnan(rows[0]["accuracy"])  # the highest of four is never below 0.1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(1.6, 5))
def test_the_temperature_of_over_confident_logits_is_found_and_lowers_the_error(seed, factor):
    logits, label = _over_confident(seed, factor=factor)
    t = fit_temperature(logits, label)
    assert t == pytest.approx(factor, rel=0.15)
    before, after = Calibration(), Calibration()
    before.add(_softmax(logits), label)
    after.add(_softmax(logits / t), label)
    assert after.scores()["ece"] < before.scores()["ece"]
    assert after.scores()["nll"] < before.scores()["nll"]
    assert fit_temperature(np.log(_softmax(logits).T), label) == pytest.approx(t, rel=1e-6)


def test_the_temperature_has_the_highest_likelihood_and_stays_in_its_range():
    logits, label = _over_confident(1)
    t = fit_temperature(logits, label)
    nll = {f: skm.log_loss(label, _softmax(logits / (t * f)).T) for f in (0.98, 1, 1.02)}
    assert nll[1] == min(nll.values())
    assert fit_temperature(np.eye(3)[np.arange(60) % 3], np.arange(60) % 3) == pytest.approx(TEMPERATURES[0], rel=1e-6)
    assert fit_temperature(np.eye(3)[np.arange(60) % 3], np.arange(1, 61) % 3) == pytest.approx(TEMPERATURES[1])
    with np.errstate(divide="ignore"):
        sure = np.log(np.eye(3)[np.arange(60) % 3])  # minus infinity
    label = np.arange(60) % 3
    label[0] = 1
    assert TEMPERATURES[0] < fit_temperature(sure, label) <= TEMPERATURES[1]


def test_what_cannot_be_judged_is_refused_or_nan():
    assert np.isnan(Calibration().scores()["ece"])
    with pytest.raises(DataError, match="49 labels are too few"):
        fit_temperature(np.zeros((60, 3)), np.where(np.arange(60) < 11, IGNORE, 0))
    with pytest.raises(DataError, match="no class"):
        fit_temperature(np.zeros((60, 3)), np.full(60, 3))
    scores = Calibration()
    for p, r in ((np.full((2, 4), 3.0), 0), (np.full((2, 4), np.nan), 0), (np.full((2, 4), 0.5), 2)):
        with pytest.raises(DataError):
            scores.add(p, np.full(4, r))
    with pytest.raises(CovermapError, match="differs in shape"):
        scores.add(np.full((2, 4), 0.5), np.zeros(5, int))
    scores.add(np.full((2, 4), np.nan), np.full(4, IGNORE))
    assert scores.scores()["num_pixels"] == 0
