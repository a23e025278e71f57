"""Rank correlation and permutations of regions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from covermap.metrics.mantel import mantel, ranks, spearman


def matrices(size, slope, seed=0):
    """Distances of places on a line, and errors that follow from them and from the test region's own difficulty."""
    rng = np.random.default_rng(seed)
    at = rng.random(size)
    distance = np.abs(at[:, None] - at)
    return distance, slope * distance + 0.1 * rng.standard_normal((size, size))


def test_rank_correlation_has_ties_and_limits():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert spearman(np.array([1.0, 2, 3, 9]), np.array([2.0, 3, 8, 9])) == 1
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert math.isnan(spearman(np.ones(2), np.arange(2.0)))
    stats = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 8, (2, 50)).astype(float)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, rel=1e-12)


def test_few_regions_try_every_relabelling():
    distance, error = matrices(5, 1.0)
    found = mantel(distance, error)
    apart = ~np.eye(5, dtype=bool)
    all_ = [
        spearman(distance[np.ix_(o, o)][apart], error[apart]) for o in map(list, itertools.permutations(range(5)))
    ]  # fmt: skip
    assert found.exact
    assert found.p == np.mean(np.array(all_) >= found.correlation - 1e-12)
    assert 1 / 120 <= found.p < 0.05
    assert (found.pairs, found.undefined) == (20, 0)


def test_p_is_small_where_errors_rise_and_even_where_they_do_not():
    assert mantel(*matrices(12, 1.0), draws=199).p == 1 / 200
    told = [mantel(*matrices(8, 0.0, seed), draws=99, seed=seed).p for seed in range(120)]
    assert 0.01 <= np.mean(np.array(told) <= 0.1) <= 0.2
    assert mantel(*matrices(8, 1.0), draws=99, seed=4) == mantel(*matrices(8, 1.0), draws=99, seed=4)


def test_fewer_than_four_regions_have_numbers_only():
    found = mantel(*matrices(3, 1.0))
    assert math.isfinite(found.correlation)
    assert math.isnan(found.p)


def test_undefined_pairs_are_left_out_and_counted():
    distance, error = matrices(6, 1.0)
    error[1] = error[2, 4] = np.nan
    found = mantel(distance, error, draws=99)
    assert (found.pairs, found.undefined) == (24, 6)
    assert 0 < found.p <= 1
    assert math.isnan(mantel(distance, np.full((6, 6), np.nan)).correlation)
