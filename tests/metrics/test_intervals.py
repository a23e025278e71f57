import numpy as np
import pytest
from scipy import stats

from covermap.core.errors import DataError
from covermap.metrics.confusion import scores_of
from covermap.metrics.intervals import bootstrap, compare, over_seeds, student_quantile

RNG = np.random.default_rng(0)


def _oa(tables):
    return scores_of(tables)["oa"]


def _blocks(rng, truth, n, spread=0.1, pixels=400):
    """Tables (n, 2, 2): pixels of a block share its own accuracy, so that they are correlated."""
    accuracy = np.clip(rng.normal(truth, spread, n), 0, 1)
    hits = rng.binomial(pixels // 2, accuracy[:, None], (n, 2))
    tables = np.empty((n, 2, 2))
    tables[:, [0, 1], [0, 1]], tables[:, [0, 1], [1, 0]] = hits, pixels // 2 - hits
    return tables


@pytest.mark.parametrize("blocks", [10, 40])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(blocks):
    rng = np.random.default_rng(blocks)
    covered, naive = [], []
    for case in range(300):
        tables = _blocks(rng, 0.75, blocks)
        found = bootstrap(tables, _oa, draws=400, seed=case)
        covered.append(found.low <= 0.75 <= found.high)
        error = 1.96 * np.sqrt(found.value * (1 - found.value) / tables.sum())  # as if pixels were independent
        naive.append(abs(found.value - 0.75) <= error)
    assert 0.9 <= np.mean(covered) <= 0.98
    assert np.mean(naive) < 0.6


def test_the_difference_of_two_models_is_judged_on_the_same_blocks():
    rng = np.random.default_rng(0)
    better = _blocks(rng, 0.75, 30, spread=0.15)
    worse = better.copy()
    worse[:, [0, 1], [0, 1]] -= rng.integers(0, 12, (30, 2))  # 1.4 % fewer hits in every block
    worse[:, [0, 1], [1, 0]] = 200 - worse[:, [0, 1], [0, 1]]
    found = compare(better, worse, _oa)
    assert found.value == pytest.approx(_oa(better.sum(0)) - _oa(worse.sum(0)))
    assert 0 < found.low < found.value < found.high
    assert found.p < 0.01
    alone = bootstrap(better, _oa)
    assert alone.high - alone.low > 5 * (found.high - found.low)  # the blocks' own spread cancels
    back = compare(worse, better, _oa)
    assert (back.value, back.p) == (pytest.approx(-found.value), found.p)
    assert compare(better, better, _oa).p == 1


def test_models_that_differ_by_chance_are_rarely_called_different():
    rng = np.random.default_rng(1)
    p = [compare(_blocks(rng, 0.75, 12), _blocks(rng, 0.75, 12), _oa, draws=200).p for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) < 0.09
    assert 0.4 < np.mean(p) < 0.6


def test_too_little_for_an_interval_is_said():
    few = bootstrap(_blocks(RNG, 0.8, 4), _oa)
    assert np.isfinite(few.value)
    assert np.isnan([few.low, few.high]).all()
    assert few.note == "4 blocks with counts are too few for an interval: at least 5 are needed"
    padded = np.concatenate([_blocks(RNG, 0.8, 4), np.zeros((10, 2, 2))])
    assert bootstrap(padded, _oa).count == 4  # blocks without counts tell nothing
    assert np.isnan(compare(padded, padded, _oa).p)
    assert "2,000 of 2,000 draws" in bootstrap(_blocks(RNG, 0.8, 9), lambda t: np.full(len(t), np.nan)).note
    assert bootstrap(np.zeros((9, 2, 2)), _oa).note
    with pytest.raises(DataError, match="shapes"):
        compare(np.ones((9, 2, 2)), np.ones((8, 2, 2)), _oa)


def test_seeds_give_mean_sd_and_students_interval():
    values = [0.71, 0.74, 0.69]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert over_seeds([*values, float("nan")]).note == "1 of 4 seeds have no score"
    assert over_seeds([*values, float("nan")]).value == found.value
    assert "at least 2" in over_seeds([0.5]).note
    assert over_seeds([]).count == 0
    for freedom in (1, 2, 9, 1000):
        assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)
