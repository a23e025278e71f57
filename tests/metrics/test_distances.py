"""Distances of groups: closed forms in float64, loops written out, other libraries' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import DataError
from covermap.metrics import group_distances as all_pairs
from covermap.metrics.distances import (
    Scale,
    frechet,
    median_distance,
    mmd,
    own_neighbours,
    principal,
    shrunk_covariance,
    squared_distances,
)


def groups(*sizes, d=4, apart=0.0, seed=0):
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal((n, d)) + i * apart for i, n in enumerate(sizes)]
    return np.concatenate(values), np.repeat(np.arange(len(sizes)), sizes)


def test_features_are_in_pooled_standard_deviations_and_constant_ones_left_out():
    values, group = groups(50, 30, apart=2.0)
    values = np.column_stack([values * [1, 10, 0.1, 3] + 7, np.full(80, 1e3), group * 5.0])
    scale = Scale.of(values.astype(np.float32), group)
    assert scale.varies.tolist() == [True] * 4 + [False] * 2
    within = sum(values[group == g, 1].var() * (group == g).sum() for g in (0, 1))
    assert scale.std[1] == pytest.approx(np.sqrt(within / 78), rel=1e-6)
    scaled = scale.apply(values)
    assert scaled.shape == (80, 4)
    far = np.linalg.norm(scaled[group == 1].mean(0) - scaled[group == 0].mean(0))
    other, _ = groups(50, 30, apart=2.0)
    plain = Scale.of(other, group).apply(other)
    assert far == pytest.approx(np.linalg.norm(plain[group == 1].mean(0) - plain[group == 0].mean(0)), rel=1e-6)


def test_principal_components_keep_all_variance_and_order_it():
    values, group = groups(40, 40, apart=3.0)
    scale = Scale.of(values, group)
    scores, shares = principal(values, scale, 4)
    scaled = scale.apply(values)
    np.testing.assert_allclose(squared_distances(scores, scores), squared_distances(scaled, scaled), atol=1e-9)
    np.testing.assert_allclose(shares, (scores**2).sum(0) / (scores**2).sum(), rtol=1e-9)
    assert (np.diff(shares) < 0).all()
    assert principal(values, scale, 2)[0].shape == (80, 2)


def test_frechet_of_known_gaussians():
    one = np.zeros(3), np.diag([1.0, 4.0, 9.0])
    assert frechet(*one, np.array([3.0, 4.0, 0.0]), one[1]) == pytest.approx(5, rel=1e-12)
    # Of covariances that commute: the distance of the standard deviations.
    other = np.diag([4.0, 4.0, 1.0])
    assert frechet(*one, np.zeros(3), other) ** 2 == pytest.approx(1 + 0 + 4, rel=1e-12)
    assert frechet(*one, *one) == pytest.approx(0, abs=1e-7)
    assert frechet(one[0], np.zeros((3, 3)), one[0], one[1]) ** 2 == pytest.approx(14)


def test_frechet_equals_the_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    a, b = (m @ m.T for m in rng.standard_normal((2, 6, 6)))
    mean = rng.standard_normal(6)
    expected = mean @ mean + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet(mean, a, np.zeros(6), b) ** 2 == pytest.approx(expected, rel=1e-9)
    assert frechet(np.zeros(6), b, mean, a) ** 2 == pytest.approx(expected, rel=1e-9)


def test_covariances_are_shrunk_as_by_ledoit_and_wolf():
    covariance = pytest.importorskip("sklearn.covariance")
    for n in (8, 60, 5000):
        values = np.random.default_rng(n).standard_normal((n, 10)) * np.arange(1, 11)
        found, share = shrunk_covariance(values)
        expected, expected_share = covariance.ledoit_wolf(values)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert share == pytest.approx(expected_share, rel=1e-9)
    assert shrunk_covariance(np.zeros((5, 2)))[1] == 0


def kernel_loops(x, y, s):
    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * s * s))

    xx = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    yy = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean([k(a, b) for a in x for b in y])


def blocks(values, group):
    x, y = values[group == 0], values[group == 1]
    return squared_distances(x, x), squared_distances(y, y), squared_distances(x, y)


def test_mmd_equals_its_loops_and_is_unbiased():
    values, group = groups(9, 6, apart=0.5)
    width = median_distance(values)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(values) for b in values[i + 1 :]]
    assert width == pytest.approx(np.median(pairs), rel=1e-12)
    expected = kernel_loops(values[group == 0], values[group == 1], width)
    assert mmd(*blocks(values, group), width) == pytest.approx(expected, rel=1e-10)
    alike = [mmd(*blocks(*groups(12, 9, seed=seed)), 2.0) for seed in range(400)]
    assert np.mean(alike) == pytest.approx(0, abs=4 * np.std(alike) / 20)
    assert min(alike) < 0


def test_neighbours_are_mixed_or_own():
    values, group = groups(30, 50)
    far, _ = groups(30, 50, apart=1e3)
    assert own_neighbours(*blocks(far, group)) == pytest.approx(59 / 29)
    mixed = [own_neighbours(*blocks(*groups(40, 60, seed=seed))) for seed in range(60)]
    assert np.mean(mixed) == pytest.approx(1, abs=4 * np.std(mixed) / np.sqrt(60))
    x = np.concatenate([values[group == 0], values[group == 1][:30]])
    hits = 0
    for i, row in enumerate(x):
        order = np.argsort(((x - row) ** 2).sum(1))
        hits += sum((j < 30) == (i < 30) for j in order[1:11])
    assert own_neighbours(*blocks(values, group)) == pytest.approx(hits / 600 / (29 / 59))
    assert np.isfinite(own_neighbours(*blocks(*groups(5, 9))))


def test_all_pairs_are_in_one_unit_and_what_is_drawn_follows_from_the_seed(monkeypatch):
    values, group = groups(60, 40, 30, apart=1.0, d=5)
    found = all_pairs.group_distances(values, group)
    scaled = Scale.of(values, group).apply(values)
    means = [scaled[group == g].mean(0) for g in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert found.matrices["centroid"][a, b] == pytest.approx(np.linalg.norm(means[a] - means[b]), rel=1e-9)
        width, (x, y) = found.bandwidth, (scaled[group == g] for g in (a, b))
        assert found.matrices["mmd"][a, b] == pytest.approx(kernel_loops(x, y, width), rel=1e-8)
        assert found.matrices["frechet"][a, b] >= found.matrices["centroid"][a, b] - 1e-9
        assert found.matrices["knn"][b, a] == found.matrices["knn"][a, b]
    assert np.isnan(np.diag(found.matrices["knn"])).all()
    assert (found.components, found.each, len(found.sample)) == (5, 500, 130)
    monkeypatch.setattr(all_pairs, "_ALL", 60)
    monkeypatch.setattr(all_pairs, "_WIDTH", 30)
    few, again, other = (all_pairs.group_distances(values, group, seed=seed) for seed in (1, 1, 2))
    assert np.bincount(group[few.sample]).tolist() == [20, 20, 20]
    np.testing.assert_array_equal(few.matrices["mmd"], again.matrices["mmd"])
    assert few.matrices["mmd"][0, 1] != other.matrices["mmd"][0, 1]
    np.testing.assert_array_equal(few.matrices["frechet"], found.matrices["frechet"])  # of all chips


def test_what_does_not_vary_has_no_distance():
    group = np.repeat([0, 1], 10)
    with pytest.raises(DataError, match="constant"):
        all_pairs.group_distances(np.ones((20, 3)) + group[:, None], group)
    mostly = np.zeros((20, 2))
    mostly[0] = mostly[19] = 1
    with pytest.raises(DataError, match="most chips have the same embedding"):
        all_pairs.group_distances(mostly, group)
