"""MAD and IR-MAD beside whole arrays and a generalised eigenproblem in float64, and what they must not see."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import DataError
from covermap.ml.mad import MOST_ROUNDS, STILL, Mad, no_change

SIZE = 20_000
linalg, stats = pytest.importorskip("scipy.linalg"), pytest.importorskip("scipy.stats")


def pair(bands: int = 4, seed: int = 0, changed: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images (C, N) of one ground in other light, and where it changed."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(bands, bands)) + 2 * np.eye(bands)
    before = mix @ random.normal(size=(bands, SIZE)) * 50 + 400
    gain = random.uniform(0.5, 2, (bands, 1))
    after = gain * before + random.uniform(-90, 90, (bands, 1)) + 8 * random.normal(size=before.shape)
    hit = random.random(SIZE) < changed
    after[:, hit] = (mix @ random.normal(size=(bands, hit.sum()))) * 60 + 500
    return before, after, hit


def reference(x: np.ndarray, y: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """The statistic and correlations on whole arrays, by the eigenvectors of S12 S22^-1 S21 v = rho^2 S11 v."""
    weights, p = np.ones(x.shape[1]), len(x)
    for _ in range(rounds + 1):
        mean = [np.average(v, axis=1, weights=weights)[:, None] for v in (x, y)]
        cov = np.cov(np.vstack([x, y]), aweights=weights, ddof=0)
        s11, s22, s12 = cov[:p, :p], cov[p:, p:], cov[:p, p:]
        square, a = linalg.eigh(s12 @ linalg.solve(s22, s12.T), s11)
        rho = np.sqrt(square)
        b = linalg.solve(s22, s12.T) @ a / rho
        variates = a.T @ (x - mean[0]) - b.T @ (y - mean[1])
        squared = (variates**2 / (2 * (1 - rho))[:, None]).sum(0)
        weights = stats.chi2.sf(squared, p)
    return np.sqrt(squared), rho[::-1]


def in_blocks(x: np.ndarray, y: np.ndarray, size: int = 3_333):
    return lambda: ((x[:, i : i + size], y[:, i : i + size]) for i in range(0, x.shape[1], size))


def test_sums_of_blocks_give_what_whole_arrays_give() -> None:
    x, y, hit = pair()
    for reweighted in (False, True):
        found = Mad.fit(in_blocks(x, y), reweighted=reweighted)
        expected, correlations = reference(x, y, found.rounds)
        np.testing.assert_allclose(found.correlations, correlations, atol=1e-10)
        np.testing.assert_allclose(found.statistic(x, y), expected, rtol=1e-6)
        assert found.still
        if reweighted:
            assert 1 < found.rounds < MOST_ROUNDS - 1
            before = reference(x, y, found.rounds - 1)[1]
            assert np.abs(correlations - before).max() < STILL
            assert np.median(found.statistic(x, y)[hit]) > 4 * np.median(found.statistic(x, y)[~hit])


def test_linear_changes_of_the_bands_do_not_matter() -> None:
    x, y, _ = pair(seed=1)
    random = np.random.default_rng(2)
    mixed = random.normal(size=(4, 4)) @ x + 7, 0.01 * random.normal(size=(4, 4)) @ y - 3
    plain, other = Mad.fit(in_blocks(x, y)), Mad.fit(in_blocks(*mixed))
    np.testing.assert_allclose(other.statistic(*mixed), plain.statistic(x, y), rtol=1e-6)
    assert Mad.fit(in_blocks(x, y)).statistic(x, y).tobytes() == plain.statistic(x, y).tobytes()


def test_bands_that_add_nothing_change_nothing() -> None:
    x, y, _ = pair(seed=3)
    plain = Mad.fit(in_blocks(x, y)).statistic(x, y)
    wide = [np.vstack([v, np.full(SIZE, 9.0), v[0] + 2 * v[1], v[2]]) for v in (x, y)]
    found = Mad.fit(in_blocks(*wide))
    assert len(found.correlations) == 4
    np.testing.assert_allclose(found.statistic(*wide), plain, rtol=1e-5)
    large = x + 1e7, y + 1e7  # far from zero sums of squares would lose their digits
    np.testing.assert_allclose(Mad.fit(in_blocks(*large)).statistic(*large), plain, rtol=1e-5)


def test_one_band_nodata_and_equal_images() -> None:
    x, y, hit = pair(bands=1, seed=4)
    found = Mad.fit(in_blocks(x, y))
    value = found.statistic(x.reshape(1, 100, -1), y.reshape(1, 100, -1))
    assert value.shape == (100, SIZE // 100)
    assert np.median(value.ravel()[hit]) > 4 * np.median(value.ravel()[~hit])
    holes = x.copy()
    holes[0, 5] = np.nan
    assert np.flatnonzero(np.isnan(found.statistic(holes, y))).tolist() == [5]
    same = Mad.fit(in_blocks(x, x))
    assert np.abs(same.statistic(x, x)).max() < 1e-3
    assert same.still
    with pytest.raises(DataError, match="nothing varies"):
        Mad.fit(in_blocks(np.ones((2, 50)), np.ones((2, 50))))
    with pytest.raises(DataError, match="no pixel is known"):
        Mad.fit(in_blocks(np.ones((2, 0)), np.ones((2, 0))))


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 13])
def test_weights_are_the_tail_of_chi_squared(freedom: int) -> None:
    x = np.concatenate([np.linspace(0, 120, 500), [1e4]])
    np.testing.assert_allclose(no_change(x, freedom), stats.chi2.sf(x, freedom), atol=1e-13)


def test_weights_do_not_gather_on_a_handful_of_pixels() -> None:
    x, y = np.random.default_rng(5).normal(size=(2, 6, 400))  # nothing on one date says anything of the other
    found = Mad.fit(in_blocks(x, y, 100))
    assert not found.still
    assert found.correlations.max() < 0.99
    few = Mad.fit(in_blocks(x[:, :15], y[:, :15]))
    assert not few.still
    assert np.isfinite(few.statistic(x, y)).all()
