"""Majority and smoothed probabilities against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.legend import IGNORE
from covermap.geo.smoothing import gaussian, majority, most_probable


def padded(index: np.ndarray, radius: int) -> np.ndarray:
    return np.pad(index, radius, constant_values=IGNORE)


@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_majority_is_that_of_the_square_around_and_ties_keep_the_centre(radius, seed) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 4, (13, 17)).astype(np.uint8) * 60
    index[rng.random(index.shape) < 0.2] = IGNORE
    got = majority(padded(index, radius), radius)
    ties = 0
    for (row, col), own in np.ndenumerate(index):
        if own == IGNORE:
            assert got[row, col] == IGNORE
            continue
        around = index[max(0, row - radius) : row + radius + 1, max(0, col - radius) : col + radius + 1]
        codes, votes = np.unique(around[around != IGNORE], return_counts=True)
        best = codes[votes == votes.max()]
        ties += len(best) > 1
        assert got[row, col] == (own if own in best else best[0])
    assert ties


@pytest.mark.parametrize("radius", [1, 3, 12])
def test_the_most_probable_class_is_that_of_the_smoothed_shares(radius) -> None:
    rng = np.random.default_rng(radius)
    shares = rng.integers(0, 201, (3, 15, 20)).astype(np.uint8)
    known = rng.random((15, 20)) > 0.15
    shares[:, ~known] = 0
    centre = np.where(known, shares.argmax(0), IGNORE).astype(np.uint8)
    around = np.pad(shares, ((0, 0), (radius, radius), (radius, radius)))
    got = most_probable(around, centre, radius)
    weights = gaussian(radius)
    square = np.outer(weights, weights)
    side = 2 * radius + 1
    changed = 0
    for row, col in np.ndindex(centre.shape):
        sums = (around[:, row : row + side, col : col + side] * square).sum((1, 2))
        best = np.flatnonzero(sums == sums.max())
        want = centre[row, col] if centre[row, col] in (*best, IGNORE) else best[0]
        assert got[row, col] == want
        changed += want != centre[row, col]
    assert changed


def test_the_gaussian_is_one() -> None:
    for radius in (1, 2, 6):
        weights = gaussian(radius)
        away = np.arange(-radius, radius + 1)
        np.testing.assert_allclose(weights / 256, np.exp(-0.5 * (away / (radius / 2)) ** 2), atol=0.002)


def test_equal_shares_keep_the_class_of_the_centre() -> None:
    shares = np.full((3, 7, 7), 60, np.uint8)
    centre = np.full((5, 5), 2, np.uint8)
    np.testing.assert_array_equal(most_probable(shares, centre, 1), centre)
