import numpy as np
import pytest

from covermap.core.errors import CovermapError
from covermap.core.legend import IGNORE
from covermap.metrics.binary import MultiLabelScores

skm = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
RNG = np.random.default_rng(0)


def test_scores_equal_scikit_learns_and_leave_absent_classes_out():
    reference = (RNG.random((300, 6)) < 0.2).astype(np.uint8)
    reference[:, 4] = 0
    probability = np.round(np.clip(RNG.random((300, 6)) * 0.6 + reference * 0.3, 0, 1), 2)  # with ties
    scores, rest = MultiLabelScores(6), MultiLabelScores(6)
    scores.add(probability[:100], reference[:100])
    rest.add(probability[100:], reference[100:])
    scores.merge(rest)
    p, r = probability[:, [0, 1, 2, 3, 5]].astype(np.float32), reference[:, [0, 1, 2, 3, 5]]
    got = scores.scores()
    assert got["map"] == pytest.approx(skm.average_precision_score(r, p, average="macro"))
    assert got["macro_f1"] == pytest.approx(skm.f1_score(r, p >= 0.5, average="macro"))
    assert got["micro_f1"] == pytest.approx(skm.f1_score(r, p >= 0.5, average="micro"))
    assert (got["num_present"], got["num_absent"], got["num_chips"]) == (5, 1, 300)
    each = scores.per_class()
    assert np.isnan([each[name][4] for name in ("average_precision", "f1", "precision", "recall")]).all()


def test_unknown_labels_do_not_count():
    reference = np.array([[1, IGNORE], [0, 1], [1, 0]], np.uint8)
    probability = np.array([[0.9, np.nan], [0.2, 0.4], [0.7, 0.6]])
    scores = MultiLabelScores(2)
    scores.add(probability, reference)
    assert scores.per_class()["average_precision"].tolist() == [1, 0.5]
    assert scores.per_class()["recall"].tolist() == [1, 0]


def test_positives_alone_have_no_order():
    scores = MultiLabelScores(2)
    scores.add(np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([[1, 0], [1, 1]], np.uint8))
    assert np.isnan(scores.per_class()["average_precision"][0])
    assert scores.scores()["map"] == 0.5


def test_nothing_gives_nan_and_what_does_not_fit_is_refused():
    scores = MultiLabelScores(3)
    assert np.isnan(scores.scores()["map"])
    for shape, p, r in (((2, 4), 0.5, 0), ((2, 3), 2.0, 0), ((2, 3), 0.5, 3), ((2, 3), np.nan, 1)):
        with pytest.raises(CovermapError):
            scores.add(np.full(shape, p), np.full(shape, r, np.uint8))
    assert scores.scores()["num_chips"] == 0
