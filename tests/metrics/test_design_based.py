"""Estimates from samples: the published example, textbook formulas, exact enumeration, and cases without an interval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from covermap.core.errors import DataError
from covermap.metrics.design_based import (
    Z95,
    Units,
    accuracy,
    allocate,
    poststrata,
    sample_size,
    share_of,
    weights_of,
)

# The example of Olofsson et al. (2014), tables 8 and 9: deforestation, gain, stable forest, stable non-forest.
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HA = 0.09


def units_of(counts, areas_ha, *, pure=True):
    """A unit for each count, strata the classes of the map."""
    mapped, reference = (np.repeat(v.ravel(), counts.ravel()) for v in np.indices(counts.shape))
    weight = weights_of(mapped, list(areas_ha), np.full(len(mapped), HA))
    return Units(mapped, reference, mapped, np.arange(len(mapped)), weight, pure)


def test_the_published_example_to_the_printed_digits():
    found = accuracy(units_of(COUNTS, PIXELS * HA), 4)
    total = PIXELS.sum() * HA
    areas = [(round(one.value * total), round(one.ci95 * total)) for one in found.areas]
    assert areas == [(21158, 6158), (11686, 3756), (285770, 15510), (581386, 16282)]
    assert (round(found.overall.value, 4), round(found.overall.ci95, 4)) == (0.9465, 0.0185)
    shown = [(round(one.value, 3), round(one.ci95, 3)) for one in found.users]
    assert shown == [(0.880, 0.074), (0.733, 0.101), (0.927, 0.040), (0.963, 0.021)]
    shown = [(round(one.value, 3), round(one.ci95, 3)) for one in found.producers]
    assert shown == [(0.749, 0.213), (0.847, 0.254), (0.935, 0.034), (0.962, 0.018)]
    assert sample_size(PIXELS / PIXELS.sum(), [0.7, 0.6, 0.9, 0.95], 0.01) == 641
    assert np.array_equal(found.counts, COUNTS)
    assert found.shares.sum() == pytest.approx(1)


def test_the_formulas_of_the_paper_on_random_tables():
    """Equations 5 to 7 and 10 written out, against the one estimator."""
    random = np.random.default_rng(0)
    for _ in range(20):
        k = int(random.integers(2, 6))
        n, size = random.integers(2, 60, (k, k)), random.integers(10_000, 1_000_000, k)
        rows, w = n.sum(1), size / size.sum()
        found = accuracy(units_of(n, size * HA), k)
        p = w[:, None] * n / rows[:, None]
        se = np.sqrt(((w[:, None] * p - p**2) / (rows[:, None] - 1)).sum(0))
        assert [one.value for one in found.areas] == pytest.approx(p.sum(0))
        assert [one.se for one in found.areas] == pytest.approx(se)
        u = np.diag(n) / rows
        assert found.overall.se == pytest.approx(np.sqrt((w**2 * u * (1 - u) / (rows - 1)).sum()))
        assert [one.se for one in found.users] == pytest.approx(np.sqrt(u * (1 - u) / (rows - 1)))
        column = (size[:, None] * n / rows[:, None]).sum(0)
        for j in range(k):
            prod = size[j] * u[j] / column[j]
            q = n[:, j] / rows
            others = [size[i] ** 2 * q[i] * (1 - q[i]) / (rows[i] - 1) for i in range(k) if i != j]
            own = size[j] ** 2 * (1 - prod) ** 2 * u[j] * (1 - u[j]) / (rows[j] - 1)
            assert found.producers[j].value == pytest.approx(prod)
            assert found.producers[j].se == pytest.approx(np.sqrt(own + prod**2 * sum(others)) / column[j])


def test_units_of_a_cluster_count_together():
    """Every cluster twice in full is the variance of a mean of clusters; taking them as single units is too narrow."""
    random = np.random.default_rng(0)
    means = random.random(30)
    reference = (random.random((30, 20)) < means[:, None]).astype(np.intp).ravel()
    cluster = np.repeat(np.arange(30), 20)
    zero = np.zeros(600, np.intp)
    one = share_of(Units(zero, reference, zero, cluster, np.ones(600)), reference == 1, np.ones(600, bool))
    each = reference.reshape(30, 20).mean(1)
    assert one.value == pytest.approx(each.mean())
    assert one.se == pytest.approx(each.std(ddof=1) / np.sqrt(30))
    alone = share_of(Units(zero, reference, zero, np.arange(600), np.ones(600)), reference == 1, np.ones(600, bool))
    assert alone.se < 0.6 * one.se


def test_standard_errors_are_those_of_all_samples_that_could_have_been_drawn():
    """A map of 8 + 6 pixels, two and three drawn: every possible sample, against the mean of the estimated variances."""
    truth = [np.array([1, 0, 0, 1, 0, 0, 0, 1]), np.array([1, 1, 0, 1, 1, 0])]
    values, variances = [], []
    for first in itertools.combinations(range(8), 2):
        for second in itertools.combinations(range(6), 3):
            mapped = np.array([0, 0, 1, 1, 1])
            reference = np.concatenate([truth[0][list(first)], truth[1][list(second)]])
            units = Units(mapped, reference, mapped, np.arange(5), weights_of(mapped, [8, 6], np.ones(5)))
            one = share_of(units, reference == 1, np.ones(5, bool))
            values.append(one.value)
            variances.append(0.0 if one.note else one.se**2)
    assert np.mean(values) == pytest.approx(7 / 14)
    # The same without the correction for finite maps: larger by N / (N - n) in each stratum.
    parts = [(8 / 14) ** 2 * truth[0].var(ddof=1) / 2, (6 / 14) ** 2 * truth[1].var(ddof=1) / 3]
    exact = parts[0] * (1 - 2 / 8) + parts[1] * (1 - 3 / 6)
    assert np.var(values) == pytest.approx(exact)
    assert np.mean(variances) == pytest.approx(sum(parts))


def test_larger_pixels_of_some_rows_stand_for_more_hectares():
    stratum, pixel_ha = np.zeros(4, np.intp), np.array([1.0, 1.0, 3.0, 3.0])
    weight = weights_of(stratum, [80.0], pixel_ha)
    assert weight.tolist() == [10, 10, 30, 30]
    units = Units(stratum, np.array([1, 1, 0, 0]), stratum, np.arange(4), weight)
    assert share_of(units, units.reference == 1, np.ones(4, bool)).value == pytest.approx(0.25)


def test_no_interval_has_width_zero():
    perfect = accuracy(units_of(np.diag([50, 60, 70]), [10.0, 20.0, 30.0]), 3)
    for one in (*perfect.areas, perfect.overall, *perfect.users, *perfect.producers):
        assert one.ci95 > 0
        assert "Wilson" in one.note
    assert perfect.users[0].low == pytest.approx(50 / (50 + Z95**2))
    unseen = accuracy(units_of(np.array([[50, 0, 0], [3, 60, 0], [0, 1, 70]]), [10.0, 20.0, 30.0]), 4)
    assert unseen.areas[3].value == 0
    assert 0 < unseen.areas[3].high < 0.1
    assert np.isnan(unseen.producers[3].value)
    assert "no unit" in unseen.users[3].note


def test_a_stratum_of_one_unit_tells_no_interval_but_of_other_classes():
    found = accuracy(units_of(np.array([[1, 0], [5, 50]]), [10.0, 90.0]), 2)
    assert np.isnan(found.areas[0].ci95)
    assert "one unit" in found.areas[0].note
    assert found.areas[0].value == pytest.approx(0.1 + 0.9 * 5 / 55)
    assert np.isnan(found.users[0].ci95)
    assert found.users[1].ci95 > 0


def test_an_empty_stratum_and_an_empty_sample_are_refused():
    with pytest.raises(DataError, match="1 strata hold no unit"):
        weights_of(np.array([0, 0]), [5.0, 5.0], np.ones(2))
    nothing = np.zeros(0, np.intp)
    with pytest.raises(DataError, match="no unit"):
        accuracy(Units(nothing, nothing, nothing, nothing, np.zeros(0)), 2)
    with pytest.raises(DataError, match="no hectares"):
        Units(*[np.zeros(2, np.intp)] * 4, np.array([1.0, 0.0]))


def test_small_groups_are_put_together():
    assert poststrata([40, 30, 20]).tolist() == [0, 1, 2]
    assert poststrata([40, 1, 0, 20]).tolist() == [0, 2, 2, 2]  # 0 + 1 are too few: the next larger joins
    assert poststrata([40, 1, 1, 20]).tolist() == [0, 1, 1, 3]
    assert len(set(poststrata([1, 0, 0]).tolist())) == 1


def test_allocation():
    size = PIXELS.tolist()
    users = [0.7, 0.6, 0.9, 0.95]
    assert allocate(641, size, method="mixed", users=users, floor=75) == [
        75,
        75,
        163,
        328,
    ]  # the paper's choice is near
    assert sum(allocate(641, size, method="equal", users=users, floor=1)) == 641
    assert allocate(641, size, method="proportional", users=users, floor=1) == [13, 10, 205, 413]
    neyman = np.array(allocate(5000, size, method="neyman", users=users, floor=1))
    ideal = PIXELS * np.sqrt(np.multiply(users, np.subtract(1, users)))
    assert np.abs(neyman - 5000 * ideal / ideal.sum()).max() <= 1
    assert (
        allocate(120, size, method="mixed", users=users, floor=50) == [30] * 4
    )  # 50 each would be more than asked for
    few = allocate(100, [3, 1, 0, 5000], method="mixed", users=[0.9] * 4, floor=50)
    assert few[:3] == [3, 1, 0]
    assert few[3] >= 90


def test_few_clusters_have_wider_intervals():
    """Student's t by the clusters that hold what is asked for; of one cluster there is no interval."""
    random = np.random.default_rng(0)
    zero, cluster = np.zeros(200, np.intp), np.repeat(np.arange(20), 10)
    units = Units(zero, random.integers(0, 2, 200), zero, cluster, np.ones(200))
    for clusters, quantile in ((3, 4.303), (11, 2.228), (20, 2.093)):
        one = share_of(units, units.reference == 1, cluster < clusters)
        assert one.ci95 == pytest.approx(quantile * one.se, rel=1e-3)
    one = share_of(units, units.reference == 1, cluster < 1)
    assert 0 < one.value < 1
    assert np.isnan(one.ci95)
    assert "one cluster" in one.note


@pytest.mark.parametrize("clusters", [2, 5])
def test_intervals_of_few_clusters_hold(clusters):
    """Clusters that are alike inside, met by a zone: at least 90 of 100 intervals hold what they should."""
    random, hold = np.random.default_rng(0), 0
    zero, cluster = np.zeros(600, np.intp), np.repeat(np.arange(30), 20)
    for _ in range(300):
        share = random.uniform(0.2, 0.8, 30)[cluster]
        units = Units(zero, (random.random(600) < share).astype(np.intp), zero, cluster, np.ones(600))
        one = share_of(units, units.reference == 1, cluster < clusters)
        hold += one.low <= 0.5 <= one.high
    assert hold >= 270


def test_no_omission_seen_is_not_none():
    """A rare class: one omission in 500 points of the large stratum would be as large as a third of the class."""
    counts, area = np.array([[500, 0], [3, 97]]), [9900.0, 100.0]
    one = accuracy(units_of(counts, area), 2).producers[1]
    assert one.value == 1
    omitted = 9900 * Z95**2 / (500 + Z95**2) / 97
    assert one.low == pytest.approx(97 / (97 + Z95**2) / (1 + omitted))
    assert one.high == 1
    random, hold = np.random.default_rng(0), 0
    omission, users = 0.003, 0.97
    true = users * 100 / (users * 100 + omission * 9900)
    for _ in range(500):
        missed, right = random.binomial(500, omission), random.binomial(100, users)
        one = accuracy(units_of(np.array([[500 - missed, missed], [100 - right, right]]), area), 2).producers[1]
        hold += one.low <= true <= one.high
    assert hold > 0.93 * 500


def test_what_a_stratum_cannot_take_the_others_get():
    users = [0.9] * 10
    equal = allocate(300, [9000, 0, 0, 500, 0, 0, 700, 0, 0, 0], method="equal", users=users, floor=1)
    assert [n for n in equal if n] == [100] * 3
    assert allocate(300, [9000, 20, 500], method="equal", users=users[:3], floor=1) == [140, 20, 140]
    assert allocate(300, [9000, 20, 100], method="equal", users=users[:3], floor=1) == [180, 20, 100]
    assert allocate(300, [20, 30], method="equal", users=users[:2], floor=1) == [20, 30]
    # Neyman wants much of a small stratum whose class is likely to be wrong.
    assert allocate(300, [100, 10_000], method="neyman", users=[0.5, 0.999999], floor=1) == [100, 200]
    random = np.random.default_rng(0)
    for method in ("mixed", "proportional", "equal", "neyman"):
        for _ in range(100):
            size = (10 ** random.uniform(0, 5, 6)).astype(int) * (random.random(6) < 0.8)
            num = allocate(200, size.tolist(), method=method, users=random.uniform(0.5, 0.99, 6).tolist(), floor=30)
            assert (np.array(num) <= size).all()
            assert (np.array(num) >= np.minimum(size, 2)).all()
            assert sum(num) == min(200, size.sum()), (method, size)
