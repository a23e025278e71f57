"""Curves of scores by number of labels: known ones are found, and what is told of twice the labels comes true."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import DataError
from covermap.ml.learning_curve import HeldOut, curve_of, expect, fit_curve, hold_out
from covermap.ml.probes import fit_probe
from covermap.ml.ridge_bank import one_thread

SIZES = np.array([30.0, 45.0, 65.0, 100.0])


@pytest.mark.parametrize(("a", "b", "c"), [(0.9, 1.2, 0.5), (0.8, 4.0, 0.9), (0.97, 0.8, 0.3), (0.7, 0.5, 1.0)])
def test_a_known_curve_is_found(a, b, c):
    curve = fit_curve(SIZES, a - b * SIZES**-c, 1e-4)
    assert curve.best == pytest.approx((a, b, c), rel=1e-6)
    assert curve.at(200) == pytest.approx(a - b * 200**-c, abs=0.005)
    assert curve.at(70) == pytest.approx(a - b * 70**-c, abs=0.001)


def test_curves_stay_within_bounds_and_rise_whatever_the_points():
    random = np.random.default_rng(0)
    for _ in range(50):
        curve = fit_curve(SIZES, random.uniform(0, 1, 4), 0.03)
        assert curve.at(100) <= curve.at(200) <= curve.at(1e5) <= curve.limit <= 1
        assert ((curve.exponents >= 0.2) & (curve.exponents <= 1)).all()
        assert curve.weights.sum() == pytest.approx(1)
    assert fit_curve(SIZES, np.ones(4), 0.01).at(200) == pytest.approx(1, abs=0.002)


def test_the_least_number_of_labels_for_a_score():
    curve = fit_curve(SIZES, 0.9 - 1.2 * SIZES**-0.5, 1e-4)
    size = curve.size_for(0.8)
    assert curve.at(size) >= 0.8 > curve.at(size - 1)
    assert curve.size_for(0.99) == float("inf")


def generate(count, *, d=16, classes=4, apart=1.0, seed=0):
    random = np.random.default_rng([seed, 3])
    means = random.standard_normal((classes, d))
    means *= 2.2 * apart / np.linalg.norm(means, axis=1, keepdims=True)
    y = random.integers(0, classes, count)
    return (means[y] + random.standard_normal((count, d))).astype(np.float32), y


def splits(n, folds=10, repeats=3):
    fold = [np.random.default_rng(i).permutation(n) % folds for i in range(repeats)]
    return [(np.flatnonzero(f != k), np.flatnonzero(f == k)) for f in fold for k in range(folds)]


def held_out(x, y, *, classes=4, candidates=None):
    return hold_out(x, y, splits(len(x)), np.arange(len(x)), num_classes=classes, candidates=candidates)


def test_scores_are_those_of_probes_on_chips_held_out():
    x, y = generate(60)
    held = held_out(x, y)
    one, two = splits(60)[0]
    right = fit_probe("ridge", x[one], y[one], num_classes=4).answers(x[two]).argmax(1) == y[two]
    alone = hold_out(x, y, [(one, two)], np.arange(60), num_classes=4)
    assert np.array_equal(alone.worth[-1, two], right)
    assert np.isnan(alone.worth[:, one]).all()
    assert held.scores()[-1] == pytest.approx(held.worth[-1].mean())
    assert held.scores()[0] < held.scores()[-1]
    assert held.sizes.tolist() == [24, 32, 43, 54]


def test_a_pilot_that_is_easier_than_the_candidates_is_told():
    x, y = generate(400, apart=1.4)
    hard, _ = generate(300, apart=0.4)
    alike, unlike = (held_out(x[:100], y[:100], candidates=c) for c in (x[100:], hard))
    plain = held_out(x[:100], y[:100]).scores()[-1]
    assert alike.scores()[-1] == pytest.approx(plain, abs=0.04)
    assert unlike.scores()[-1] < plain - 0.05


def test_numbers_are_scored_by_r2_of_all_targets():
    random = np.random.default_rng(2)
    x = random.standard_normal((200, 8))
    y = x @ random.standard_normal((8, 2)) + 2.0 * random.standard_normal((200, 2))
    held = held_out(x[:80], y[:80], classes=None)
    told = fit_probe("ridge", x[:80], y[:80]).answers(x[80:])
    true = 1 - ((told - y[80:]) ** 2).sum() / ((y[80:] - y[80:].mean(0)) ** 2).sum()
    now = expect(held, 80)
    assert now.low <= true <= now.high
    assert held.scores()[-1] == pytest.approx(true, abs=0.15)


def test_intervals_hold_the_score_and_narrow_with_the_pilot():
    wide, narrow = (expect(held_out(*generate(n)), 2 * n) for n in (40, 300))
    assert wide.low <= wide.score <= wide.high <= 1
    assert narrow.high - narrow.low < wide.high - wide.low
    assert expect(held_out(*generate(40)), 80) == wide
    sure = HeldOut(SIZES, np.ones((4, 30)), np.arange(30))
    assert expect(sure, 60).low < 0.999  # no error among 30 is no proof that there is none
    assert curve_of(sure).limit == pytest.approx(1, abs=0.01)


def test_what_says_nothing_is_refused():
    x, y = generate(30)
    with pytest.raises(DataError, match=r"9 chips are labelled(.|\n)*label 1 more"):
        held_out(x[:9], y[:9])
    with pytest.raises(DataError, match="all 30 labelled chips are of one class"):
        held_out(x, np.zeros(30, int))
    with pytest.raises(DataError, match="none can be held out"):
        hold_out(x, y, [(np.arange(2), np.arange(2, 30))], np.arange(30), num_classes=4)


@pytest.mark.slow
def test_what_is_told_of_twice_the_labels_comes_true():
    """A small version of benchmarks/planner.py: 30 campaigns without ground."""
    near = 0
    with one_thread():
        for seed in range(30):
            random = np.random.default_rng(seed)
            n, classes = int(random.integers(60, 250)), int(random.integers(3, 7))
            d = int(random.choice([16, 32, 64]))
            x, y = generate(2 * n + 3000, d=d, classes=classes, apart=random.uniform(0.7, 1.6), seed=seed)
            told = expect(held_out(x[:n], y[:n], classes=classes, candidates=x[2 * n : 2 * n + 500]), 2 * n).score
            answers = fit_probe("ridge", x[: 2 * n], y[: 2 * n], num_classes=classes).answers(x[2 * n :])
            near += abs(told - (answers.argmax(1) == y[2 * n :]).mean()) <= 0.05
    assert near >= 24
