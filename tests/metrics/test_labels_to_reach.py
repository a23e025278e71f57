"""Numbers of labels from curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.metrics.label_budget import break_even, enough, labels_to_reach

BUDGETS = (10, 100, 1000)


@pytest.mark.parametrize(
    ("curve", "wanted", "count"),
    [
        ([0.2, 0.6, 0.8], 0.6, 100),
        ([0.2, 0.6, 0.8], 0.4, np.sqrt(10 * 100)),
        ([0.2, 0.6, 0.8], 0.1, 10),
        ([0.2, 0.6, 0.8], 0.9, np.inf),
        ([0.7, 0.5, 0.8], 0.6, 100 * 10 ** (1 / 3)),  # it fell below once more
        ([0.2, np.nan, 0.6], 0.4, 100),
        ([np.nan, np.nan, np.nan], 0.4, np.inf),
        ([0.2, 0.6, 0.8], np.nan, np.inf),
    ],
)
def test_labels_to_reach(curve, wanted, count):
    assert labels_to_reach(BUDGETS, np.array(curve), wanted) == pytest.approx(count)


def curves(areas, repeats, seed=0, noise=0.05):
    """Scores that rise by 0.2 with ten times the labels."""
    random = np.random.default_rng(seed)
    base = np.array([0.3, 0.5, 0.7])
    return base + noise * random.standard_normal((areas, repeats, 3))


def test_break_even_has_an_interval_around_the_truth():
    hits = 0
    for seed in range(60):
        random = np.random.default_rng(1000 + seed)
        found = break_even(BUDGETS, curves(6, 10, seed), 0.5 + 0.05 * random.standard_normal((6, 10)), draws=200)
        assert found.low <= found.count <= found.high
        hits += found.low <= 100 <= found.high
    assert hits >= 50


def test_break_even_where_labels_here_never_pay():
    found = break_even(BUDGETS, curves(3, 5), np.full((3, 1), 0.95))
    assert found.count == np.inf
    assert found.share_reached == 0
    at_once = break_even(BUDGETS, curves(3, 5), np.full((3, 1), 0.0))
    assert (at_once.count, at_once.low, at_once.high) == (10, 10, 10)


def test_enough_is_close_to_the_largest_budget():
    found = enough(BUDGETS, curves(5, 20, noise=0.001), close=0.1)
    assert found.count == pytest.approx(10**2.5, rel=0.05)
    assert found.low <= found.count <= found.high
    assert enough(BUDGETS, curves(5, 20), close=1.0).count == 10
