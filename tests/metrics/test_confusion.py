import numpy as np
import pytest

from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE, Legend
from covermap.metrics.confusion import Confusion, scores_of

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


@pytest.mark.parametrize("k", [2, 12, 14, 15, 40, 254])
@pytest.mark.parametrize("n", [0, 1, 7, 16_385, (1 << 19) + 3])
def test_counts_equal_a_plain_count_for_any_number_of_classes_and_pixels(k, n):
    reference, prediction = (RNG.integers(0, k, n).astype(np.uint8) for _ in "rp")
    reference[RNG.random(n) < 0.2] = IGNORE
    prediction[(reference == IGNORE) & (RNG.random(n) < 0.5)] = 255  # not counted: may hold anything
    confusion = Confusion(k)
    confusion.add(reference, prediction)
    known = reference != IGNORE
    wanted = np.bincount(reference[known].astype(int) * k + prediction[known], minlength=k * k).reshape(k, k)
    assert np.array_equal(confusion.counts, wanted)


@pytest.mark.parametrize("k", [3, 14, 15, 200])
@pytest.mark.parametrize("n", [4, 20_000])
@pytest.mark.parametrize("value", [0, 1, 12, 54])
def test_values_that_are_no_class_are_errors_and_nothing_is_counted(k, n, value):
    good = np.zeros(n, np.uint8)
    bad = good.copy()
    bad[n // 2] = k + value
    confusion = Confusion(k)
    with pytest.raises(LabelError, match=rf"the reference holds .*\{{{k + value}: 1\}}"):
        confusion.add(bad, good)
    with pytest.raises(LabelError, match=r"the prediction is no class .* at 1 counted"):
        confusion.add(good, bad)
    with pytest.raises(LabelError, match="no class indices"):
        confusion.add(good, good.astype(np.int64) - 1)
    with pytest.raises(LabelError, match="differs in shape"):
        confusion.add(good[:, None], good[:1])
    assert confusion.total == 0


@pytest.mark.parametrize("codes", [(10, 20, 95), (1, 2, 3), (111, 512, 523), tuple(range(1, 100, 3))])
@pytest.mark.parametrize("n", [50, 20_001])
def test_raw_codes_count_as_their_encoded_classes(codes, n):
    legend = Legend.from_dict(
        {"nodata": 0, "ignore": [200], "merged": {7: codes[0]}, "classes": [{"code": c, "name": str(c)} for c in codes]}
    )
    # without 200 and 0: nothing else is ignored
    known = RNG.choice([*codes, 7], n).astype(legend.map_dtype)
    reference = np.where(RNG.random(n) < 0.2, RNG.choice([0, 200], n), known).astype(known.dtype)
    prediction = RNG.choice(codes, n).astype(known.dtype)
    raw, encoded = Confusion(len(codes)), Confusion(len(codes))
    raw.add_codes(reference.reshape(1, -1), prediction.reshape(1, -1), legend)
    encoded.add(legend.encode(reference), legend.encode(prediction))
    assert np.array_equal(raw.counts, encoded.counts)
    assert raw.total == np.isin(reference, [*codes, 7]).sum()
    unknown = prediction.copy()
    unknown[np.flatnonzero(np.isin(reference, codes))[0]] = 250
    with pytest.raises(LabelError, match="the prediction is no class"):
        raw.add_codes(reference, unknown, legend)
    with pytest.raises(LabelError, match=r"the reference hold codes .*: 250 \(1 px\)"):
        raw.add_codes(unknown, prediction, legend)
    unlabelled = np.where(reference == 0, 250, prediction).astype(known.dtype)
    raw.add_codes(reference, unlabelled, legend)  # an unknown code where nothing is counted


def test_more_scores_equal_scikit_learns():
    reference, prediction = _pair()
    confusion, half = Confusion(5), Confusion(5)
    confusion.add(reference[:2000], prediction[:2000])
    half.add(reference[2000:], prediction[2000:])
    confusion.merge(half)
    r, p = reference[500:], prediction[500:]
    got = confusion.scores()
    assert got["mcc"] == pytest.approx(skm.matthews_corrcoef(r, p))
    assert got["balanced_accuracy"] == pytest.approx(skm.recall_score(r, p, labels=[0, 1, 2, 4], average="macro"))
    assert got["macro_precision"] == pytest.approx(skm.precision_score(r, p, labels=[0, 1, 2, 4], average="macro"))
    assert got["micro_iou"] == pytest.approx(skm.jaccard_score(r, p, average="micro"))
    assert got["oa"] == pytest.approx(skm.f1_score(r, p, average="micro"))
    assert got["num_absent"] == 1
    with pytest.raises(LabelError, match="differs"):
        confusion.merge(Confusion(4))


def test_scores_of_many_tables_at_once_are_those_of_each():
    tables = RNG.integers(0, 30, (6, 4, 4))
    tables[0, 2] = 0
    tables[1] = 0
    many = scores_of(tables)
    for i, table in enumerate(tables):
        one = Confusion(4)
        one.counts += table
        for name, values in many.items():
            assert values[i] == pytest.approx(one.scores()[name], nan_ok=True)


def test_agreement_by_chance_is_undefined_where_there_is_one_class():
    confusion = Confusion(3)
    confusion.add(np.zeros(9, np.uint8), np.zeros(9, np.uint8))
    got = confusion.scores()
    assert got["oa"] == got["miou"] == 1
    assert np.isnan(got["kappa"])
    assert np.isnan(got["mcc"])
