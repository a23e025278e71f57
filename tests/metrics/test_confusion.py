import numpy as np
import pytest

from covermap.core.legend import IGNORE
from covermap.metrics.confusion import Confusion

skm = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
RNG = np.random.default_rng(0)


def _pair(n=5000, k=5, absent=3):
    reference = RNG.integers(0, k, n).astype(np.uint8)
    reference[reference == absent] = 0
    prediction = np.where(RNG.random(n) < 0.6, reference, RNG.integers(0, k, n)).astype(np.uint8)
    reference[:500] = IGNORE
    return reference, prediction


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_scores_equal_scikit_learns_whatever_the_batches(pieces):
    reference, prediction = _pair()
    confusion = Confusion(5)
    for r, p in zip(np.array_split(reference, pieces), np.array_split(prediction, pieces), strict=True):
        confusion.add(r, p)
    r, p = reference[500:], prediction[500:]
    present = [0, 1, 2, 4]
    got, each = confusion.scores(), confusion.per_class()
    assert np.array_equal(confusion.counts, skm.confusion_matrix(r, p, labels=range(5)))
    assert got["oa"] == pytest.approx(skm.accuracy_score(r, p))
    assert got["kappa"] == pytest.approx(skm.cohen_kappa_score(r, p))
    assert got["miou"] == pytest.approx(skm.jaccard_score(r, p, labels=present, average="macro"))
    assert got["macro_f1"] == pytest.approx(skm.f1_score(r, p, labels=present, average="macro"))
    assert got["macro_recall"] == pytest.approx(skm.recall_score(r, p, labels=present, average="macro"))
    assert each["users"][0] == pytest.approx(skm.precision_score(r, p, labels=[0], average="macro"))
    assert (got["num_present"], got["num_pixels"]) == (4, 4500)


def test_an_absent_class_is_nan_and_left_out_of_the_mean():
    confusion = Confusion(3)
    confusion.add(np.array([0, 0, 1, 1], np.uint8), np.array([0, 2, 1, 1], np.uint8))
    assert np.isnan(confusion.per_class()["iou"][2])
    assert confusion.scores()["miou"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_present_class_that_is_never_predicted_counts_as_zero():
    confusion = Confusion(2)
    confusion.add(np.array([0, 1], np.uint8), np.array([0, 0], np.uint8))
    assert confusion.per_class()["iou"].tolist() == [0.5, 0]
    assert np.isnan(confusion.per_class()["users"][1])
    assert confusion.scores()["miou"] == 0.25


def test_nothing_counted_gives_nan_not_an_error():
    confusion = Confusion(2)
    confusion.add(np.full(4, IGNORE, np.uint8), np.zeros(4, np.uint8))
    assert np.isnan(confusion.scores()["miou"])
    assert confusion.scores()["num_pixels"] == 0
