"""Scores of change: both published conventions in float64 as the field's code computes them, and every trap."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE
from covermap.metrics.change import (
    CONVENTIONS,
    Convention,
    JointCounter,
    Margins,
    Pair,
    binary_scores,
    semantic_scores,
)  # fmt: skip


def table(convention: Convention, truth: Pair, said: Pair, k: int) -> np.ndarray:
    """(M, M), rows prediction, columns reference, pixel by pixel."""

    def ids(pair: Pair) -> list[list[int]]:
        found = []
        for a, b, c in zip(*(np.ravel(v).tolist() for v in pair), strict=True):
            if convention == "dates_stacked":
                found.append([(a + 1) * c, (b + 1) * c])
            else:
                found.append([(a * k + b + 1) * c])
        return found

    size = k + 1 if convention == "dates_stacked" else k * k + 1
    q = np.zeros((size, size), np.float64)
    for one, other in zip(ids(said), ids(truth), strict=True):
        for i, j in zip(one, other, strict=True):
            q[i, j] += 1
    return q


def published(q: np.ndarray) -> dict[str, float]:
    """The scores of a table as they are written in the papers, one by one."""
    m, total = range(len(q)), q.sum()
    hat = q.copy()
    hat[0, 0] = 0
    rho = sum(hat[i, i] for i in m) / hat.sum()
    eta = sum(hat[i].sum() * hat[:, i].sum() for i in m) / hat.sum() ** 2
    unchanged = q[0, 0] / (q[0].sum() + q[:, 0].sum() - q[0, 0])
    changed = q[1:, 1:].sum() / (total - q[0, 0])
    miou, sek = (unchanged + changed) / 2, math.exp(changed - 1) * (rho - eta) / (1 - eta)
    right = sum(q[i, i] for i in m[1:])
    precision, recall = right / q[1:].sum(), right / q[:, 1:].sum()
    return {
        "oa": sum(q[i, i] for i in m) / total, "iou_unchanged": unchanged, "iou_changed": changed, "miou": miou,
        "sek": sek, "score": 0.3 * miou + 0.7 * sek, "precision": precision, "recall": recall,
        "fscd": 2 * precision * recall / (precision + recall) if right else 0,
    }  # fmt: skip


def made(
    rng: np.random.Generator, k: int, *, shape: tuple[int, ...] = (12, 15), noise: float = 0.3
) -> tuple[Pair, Pair]:
    """A reference and a prediction that agrees with it but for noise; the prediction's mask contradicts its classes."""
    before, after = rng.integers(0, k, (2, *shape)).astype(np.uint8)
    still = rng.random(shape) < 0.6
    after = np.where(still, before, after)
    truth = Pair(before, after, (before != after).astype(np.uint8))

    def blurred(values: np.ndarray, high: int) -> np.ndarray:
        return np.where(rng.random(shape) < noise, rng.integers(0, high, shape), values).astype(np.uint8)

    return truth, Pair(blurred(before, k), blurred(after, k), blurred(truth[2], 2))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("k", [2, 6, 11, 13])
def test_scores_equal_the_published_formulas_in_both_conventions(convention: Convention, k: int) -> None:
    rng = np.random.default_rng(k)
    for noise in (0.05, 0.2, 0.5, 0.9):
        for _ in range(7):
            truth, said = made(rng, k, noise=noise)
            joint = JointCounter(k)
            joint.add(truth, said)
            found, wanted = joint.semantic(convention), published(table(convention, truth, said, k))
            for key, value in wanted.items():
                assert found[key] == pytest.approx(value, abs=1e-12), key


def test_the_two_conventions_give_different_numbers_but_one_miou() -> None:
    joint = JointCounter(6)
    joint.add(*made(np.random.default_rng(0), 6, shape=(80, 80)))
    stacked, pairs = (joint.semantic(convention) for convention in CONVENTIONS)
    assert stacked["miou"] == pytest.approx(pairs["miou"], abs=1e-12)
    assert stacked["fscd"] - pairs["fscd"] > 0.02
    assert abs(stacked["sek"] - pairs["sek"]) > 0.005


def test_scores_are_added_up_over_tiles_and_not_averaged() -> None:
    rng, whole, parts = np.random.default_rng(3), JointCounter(4), JointCounter(4)
    truth, said = made(rng, 4, shape=(30, 40))
    whole.add(truth, said)
    margins = np.zeros_like(whole.margins("from_to"))
    for rows in (slice(0, 7), slice(7, 30)):
        one = JointCounter(4)
        one.add(Pair(*(v[rows] for v in truth)), Pair(*(v[rows] for v in said)))
        parts.merge(one)
        margins += one.margins("from_to")
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(margins, whole.margins("from_to"))


def test_a_perfect_map_has_every_score_of_one() -> None:
    truth, _ = made(np.random.default_rng(1), 5)
    joint = JointCounter(5)
    joint.add(truth, truth)
    for convention in CONVENTIONS:
        assert all(value == pytest.approx(1, abs=1e-12) for value in joint.semantic(convention).values())
    assert all(value == pytest.approx(1) for value in joint.binary().values())
    assert joint.change_segmentation() == pytest.approx({"bc": 1, "sc": 1, "scs": 1})
    assert set(joint.errors().values()) == {0.0}
    assert set(joint.contradictions().values()) == {0}


def test_a_chip_without_change_gives_no_score_instead_of_a_crash() -> None:
    still = np.zeros((4, 4), np.uint8)
    joint = JointCounter(3)
    joint.add(Pair(still, still), Pair(still, still))
    found = joint.semantic("from_to")
    assert found["oa"] == found["iou_unchanged"] == 1
    assert all(math.isnan(found[key]) for key in ("sek", "iou_changed", "miou", "fscd", "score"))
    binary = joint.binary()
    assert math.isnan(binary["f1"])
    assert math.isnan(binary["kappa"])  # one class alone: no agreement beyond chance can be told


def test_change_everywhere_is_scored_too() -> None:
    before, after = np.zeros(10, np.uint8), np.array([1, 2] * 5, np.uint8)
    joint = JointCounter(3)
    joint.add(Pair(before, after), Pair(before, after))
    assert joint.semantic("from_to")["sek"] == pytest.approx(1)
    assert math.isnan(joint.semantic("from_to")["iou_unchanged"])


def test_a_change_to_the_same_class_counts_as_change_and_is_told() -> None:
    """Maps that call a pixel changed and give one class for both dates; dropping them raises SeK."""
    truth = Pair(np.array([0, 0, 1, 1], np.uint8), np.array([1, 0, 2, 1], np.uint8))
    said = Pair(truth.before, np.array([1, 0, 2, 1], np.uint8), np.array([1, 1, 1, 0]))
    joint = JointCounter(3)
    joint.add(truth, said)
    for convention in CONVENTIONS:
        wanted = published(table(convention, Pair(*truth[:2], truth[0] != truth[1]), said, 3))
        assert joint.semantic(convention) == pytest.approx(wanted, abs=1e-12)
    assert joint.contradictions()["prediction_changed_of_one_class"] == 1
    assert joint.binary_counts().tolist() == [[1, 1], [0, 2]]


def test_a_mask_that_contradicts_the_classes_is_counted() -> None:
    before, after = np.array([0, 0, 1, 1, 2], np.uint8), np.array([0, 1, 1, 2, IGNORE], np.uint8)
    joint = JointCounter(3)
    truth = Pair(before, after, np.array([1, 0, 0, 1, 1]))
    joint.add(truth, Pair(before, np.zeros(5, np.uint8)))
    found = joint.contradictions()
    assert found["reference_changed_of_one_class"] == 1
    assert found["reference_unchanged_of_two_classes"] == 1


def test_classes_that_are_known_where_it_changed_alone_are_enough() -> None:
    """SECOND labels only what changed: unchanged pixels count as unchanged whatever class is predicted."""
    changed = np.array([0, 0, 0, 1, 1], np.uint8)
    before = np.where(changed, np.array([9, 9, 9, 0, 1]), IGNORE).astype(np.uint8)
    after = np.where(changed, np.array([9, 9, 9, 2, 2]), IGNORE).astype(np.uint8)
    said = Pair(np.array([0, 1, 2, 0, 2], np.uint8), np.array([0, 1, 0, 2, 0], np.uint8))
    joint = JointCounter(3)
    joint.add(Pair(before, after, changed), said)
    assert joint.total == 5
    assert joint.binary_counts().tolist() == [[2, 1], [0, 2]]
    assert joint.classes(0).sum() == 2
    assert joint.errors() == pytest.approx(
        {"missed": 0, "false": 0.2, "wrong_before": 0, "wrong_after": 0, "wrong_both": 0.2}
    )


def test_pixels_that_the_reference_does_not_tell_are_not_counted() -> None:
    before = np.array([0, 1, IGNORE, 1], np.uint8)
    after = np.array([0, IGNORE, 1, 0], np.uint8)
    said = Pair(np.zeros(4, np.uint8), np.array([0, IGNORE, 0, 1], np.uint8))
    joint = JointCounter(2)
    joint.add(Pair(before, after), said)
    assert joint.total == 2
    masked = JointCounter(2)
    masked.add(Pair(before, after, np.array([0, 1, IGNORE, 1])), Pair(*said[:2], np.array([0, 1, 1, 0])))
    assert masked.total == 3


@pytest.mark.parametrize("k", [3, 12])
def test_a_prediction_that_is_not_known_where_it_counts_is_refused_and_nothing_is_counted(k: int) -> None:
    truth = Pair(np.zeros(4, np.uint8), np.ones(4, np.uint8))
    joint = JointCounter(k)
    with pytest.raises(LabelError, match="not known at 1 counted"):
        joint.add(truth, Pair(np.array([0, 0, IGNORE, 0], np.uint8), np.ones(4, np.uint8)))
    assert joint.total == 0
    with pytest.raises(LabelError, match="class index"):
        joint.add(truth, Pair(np.full(4, k, np.uint8), np.ones(4, np.uint8)))
    with pytest.raises(LabelError, match="differs in shape"):
        joint.add(truth, Pair(np.zeros(3, np.uint8), np.ones(4, np.uint8)))
    with pytest.raises(LabelError, match="mask of change holds 7"):
        joint.add(truth._replace(changed=np.full(4, 7)), truth)
    with pytest.raises(LabelError, match="merge classes"):
        JointCounter(51)


def test_a_binary_prediction_has_scores_of_change_and_no_credit_for_classes() -> None:
    truth = Pair(np.array([0, 0, 1], np.uint8), np.array([0, 1, 0], np.uint8))
    nothing = np.full(3, IGNORE, np.uint8)
    joint = JointCounter(2)
    joint.add(truth, Pair(nothing, nothing, np.array([0, 1, 1])))
    assert joint.binary()["f1"] == 1
    for convention in CONVENTIONS:
        found = joint.semantic(convention)
        assert found["fscd"] == 0
        assert found["miou"] == 1
        assert found["sek"] <= 0


@pytest.mark.parametrize("k", [4, 12])
def test_all_tables_equal_brute_force(k: int) -> None:
    truth, said = made(np.random.default_rng(7), k, shape=(40, 40))
    joint = JointCounter(k)
    joint.add(truth, said)
    for date in (0, 1):
        wanted = np.zeros((k, k), np.int64)
        np.add.at(wanted, (truth[date], said[date]), 1)
        np.testing.assert_array_equal(joint.classes(date), wanted)
    for side, pair in (("reference", truth), ("prediction", said)):
        wanted = np.zeros((k, k), np.int64)
        np.add.at(wanted, (pair.before, pair.after), 1)
        np.testing.assert_array_equal(joint.transitions(side), wanted)  # type: ignore[arg-type]
    wanted = np.zeros((2, 2), np.int64)
    np.add.at(wanted, (truth[2], said[2]), 1)
    np.testing.assert_array_equal(joint.binary_counts(), wanted)
    change = truth[2] == 1
    ious = []
    for c in range(k):
        a, b = truth.after[change] == c, said.after[change] == c
        if a.any():
            ious.append((a & b).sum() / (a | b).sum())
    both, either = (change & (said[2] == 1)).sum(), (change | (said[2] == 1)).sum()
    assert joint.change_segmentation() == pytest.approx(
        {"bc": both / either, "sc": np.mean(ious), "scs": (both / either + np.mean(ious)) / 2}
    )


def test_f1_follows_from_iou_and_kappa_from_its_definition() -> None:
    for a, b, c, d in product((0, 3, 50), (1, 9), (0, 7), (2, 400)):
        found = {key: float(v) for key, v in binary_scores(np.array([[d, c], [b, a]])).items()}
        assert found["f1"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))
        n = a + b + c + d
        po, pe = (a + d) / n, ((a + b) * (a + c) + (c + d) * (b + d)) / n**2
        assert found["kappa"] == pytest.approx((po - pe) / (1 - pe))


def test_scores_take_many_tables_at_once() -> None:
    rng = np.random.default_rng(5)
    joints = [JointCounter(3) for _ in range(4)]
    for joint in joints:
        joint.add(*made(rng, 3))
    stacked = semantic_scores(np.stack([joint.margins("from_to") for joint in joints]))
    for i, joint in enumerate(joints):
        for key, value in joint.semantic("from_to").items():
            assert stacked[key][i] == pytest.approx(value)


@pytest.mark.parametrize("k", [3, 12])
def test_margins_of_parts_are_those_of_their_joint_histogram(k: int) -> None:
    rng, margins = np.random.default_rng(k), Margins(k)
    truth, said = made(rng, k, shape=(30, 40))
    before = np.where(rng.random((30, 40)) < 0.2, IGNORE, truth.before).astype(np.uint8)
    mask = np.where(rng.random((30, 40)) < 0.1, IGNORE, truth[2]).astype(np.uint8)
    truth = Pair(before, truth.after, mask)
    joint = JointCounter(k)
    joint.add(truth, said)
    found = margins.of(*(margins.states.of(pair.flat()) for pair in (truth, said)))
    wanted = [joint.margins(convention).ravel() for convention in CONVENTIONS]
    np.testing.assert_array_equal(found, np.concatenate([*wanted, joint.binary_counts().ravel()]))
