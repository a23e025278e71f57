import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covermap.core.errors import DataError, LabelError
from covermap.core.legend import IGNORE
from covermap.metrics.binary import BinaryScores

skm = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
RNG = np.random.default_rng(0)


def rounded_down(p):
    """To 14 significant bits; what is below 2 ** -40 to 0."""
    cut = (p.view(np.uint32) >> 10 << 10).view(np.float32)
    return np.where(cut <= 2**-40, np.float32(0), cut)


def _hazard(n=20_000, share=0.01):
    reference = (RNG.random(n) < share).astype(np.uint8)
    probability = 1 / (1 + np.exp(-(RNG.normal(-6, 2, n) + 4 * reference)))  # rare: nearly all lie close to 0
    return probability.astype(np.float32), reference


@pytest.mark.parametrize("pieces", [1, 30])
def test_pooled_scores_equal_scikit_learns_whatever_the_batches(pieces):
    p, r = _hazard()
    with_unknown = np.where(np.arange(p.size) % 7 == 0, IGNORE, r).astype(np.uint8)
    scores = BinaryScores(0.2)
    cuts = zip(np.array_split(p, pieces), np.array_split(with_unknown, pieces), strict=True)
    for i, (some, reference) in enumerate(cuts):
        part = BinaryScores(0.2)
        part.add(some[:, None], reference[:, None], chip=str(i))
        scores.merge(part)
    got, q = scores.scores(), rounded_down(p)
    known = with_unknown != IGNORE
    r, p, q = r[known], p[known], q[known]
    assert got["auc"] == pytest.approx(skm.roc_auc_score(r, q), abs=1e-12)
    assert got["auprc"] == pytest.approx(skm.average_precision_score(r, q), abs=1e-12)
    assert got["auc"] == pytest.approx(skm.roc_auc_score(r, p), abs=1e-4)
    assert got["auprc"] == pytest.approx(skm.average_precision_score(r, p), abs=1e-4)
    says = p >= 0.2
    assert got["precision"] == pytest.approx(skm.precision_score(r, says))
    assert got["recall"] == pytest.approx(skm.recall_score(r, says))
    assert got["f1"] == pytest.approx(skm.f1_score(r, says))
    assert got["iou"] == pytest.approx(skm.jaccard_score(r, says))
    assert (got["num_pixels"], got["num_positive"], got["num_predicted"]) == (r.size, r.sum(), says.sum())
    threshold, f1 = scores.best_threshold()
    assert f1 == pytest.approx(skm.f1_score(r, p >= threshold))
    assert f1 >= max(skm.f1_score(r, p >= t) for t in np.quantile(p, np.linspace(0.9, 0.999, 50))) - 1e-3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=40))
def test_rankings_equal_scikit_learns_on_any_probabilities(pairs):
    p, r = np.array([a for a, _ in pairs], np.float32), np.array([b for _, b in pairs], np.uint8)
    scores = BinaryScores()
    scores.add(p, r)
    got, q = scores.scores(), rounded_down(p)
    assert (q <= p).all()
    assert np.allclose(q, p, rtol=2**-13, atol=2**-40)
    if r.any():
        assert got["auprc"] == pytest.approx(skm.average_precision_score(r, q))
        assert got["best_f1"] == pytest.approx(skm.f1_score(r, p >= got["best_threshold"]))
        if not r.all():
            assert got["auc"] == pytest.approx(skm.roc_auc_score(r, q))


def test_counts_by_chip_are_apart_for_chips_with_and_without_the_hazard():
    scores = BinaryScores()

    def chip(name, predicted, reference):
        scores.add(np.array(predicted, np.float32), np.array(reference, np.uint8), chip=name)

    chip("a", [0.9, 0.9, 0.9, 0.1], [1, 0, 0, 0])  # +2
    chip("b", [0.1, 0.1], [1, 0])  # in two parts: -1 and then -2
    chip("b", [0.1, 0.1], [1, 1])
    chip("c", [0.8, 0.7, 0.6, 0.1], [0, 0, 0, IGNORE])  # 3 false alarms
    chip("d", [0.2, 0.2], [0, 0])
    chip("nothing known", [0.9], [IGNORE])
    got = scores.scores()
    assert (got["num_chips"], got["num_positive_chips"]) == (4, 2)
    assert (got["count_error_mean_positive_chips"], got["count_abs_error_mean_positive_chips"]) == (-0.5, 2.5)
    assert (got["count_error_mean_negative_chips"], got["count_error_median_negative_chips"]) == (1.5, 1.5)
    assert got["false_positive_px_negative_chips"] == 3
    assert got["false_alarm_share_negative_chips"] == 0.5
    assert got["chip_auc"] == skm.roc_auc_score([1, 1, 0, 0], [0.9, 0.1, 0.8, 0.2])
    assert scores.chips()[1] == {"chip": "b", "num_pixels": 4, "reference_px": 3, "predicted_px": 0,
                                 "count_error": -3, "false_positive_px": 0, "highest": pytest.approx(0.1)}  # fmt: skip


def test_what_is_undefined_is_nan_with_a_reason_never_zero():
    scores = BinaryScores()
    scores.add(np.array([0.9, 0.1], np.float32), np.array([0, 0], np.uint8), chip="a")
    got, why = scores.scores(), scores.reasons()
    for name in ("auc", "auprc", "precision", "recall", "f1", "iou", "best_threshold", "best_f1"):
        assert np.isnan(got[name])
        assert why[name] == "no positive in the scored split"
    assert why["count_error_mean_positive_chips"] == "no positive chip in the scored split"
    assert "chips with and chips without" in why["chip_auc"]
    assert "count_error_mean_negative_chips" not in why
    timid = BinaryScores()
    timid.add(np.array([0.4, 0.1], np.float32), np.array([1, 0], np.uint8))
    assert timid.scores()["f1"] == timid.scores()["recall"] == 0  # these are defined
    assert timid.reasons()["precision"] == "nothing is predicted positive"
    full = BinaryScores()
    full.add(np.array([0.4, 0.6], np.float32), np.array([1, 1], np.uint8))
    assert full.reasons()["auc"] == "no negative in the scored split"
    assert set(BinaryScores().reasons()) >= {"auc", "f1"}


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1, np.inf])
def test_logits_and_nan_are_refused_where_they_count(bad):
    scores = BinaryScores()
    p = np.array([0.5, bad], np.float32)
    with pytest.raises(DataError, match="NaN or values outside"):
        scores.add(p, np.array([1, 0], np.uint8))
    with pytest.raises(LabelError, match="other values than"):
        scores.add(p, np.array([2, IGNORE], np.uint8))
    with pytest.raises(LabelError, match="differs in shape"):
        scores.add(p, np.zeros((2, 1), np.uint8))
    scores.add(p, np.array([1, IGNORE], np.uint8))
    assert scores.scores()["num_pixels"] == 1
    with pytest.raises(DataError, match="thresholds"):
        scores.merge(BinaryScores(0.3))
