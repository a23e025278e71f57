"""Gains, losses, net change and swap by hand; false change against a simulation of independent errors."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.metrics.transition_matrix import class_changes, expected_false_change


def test_by_hand() -> None:
    found = class_changes(np.array([[50, 10, 0], [4, 30, 1], [0, 0, 5]]))
    assert found["gain"].tolist() == [4, 10, 1]
    assert found["loss"].tolist() == [10, 5, 0]
    assert found["net"].tolist() == [-6, 5, 1]
    assert found["swap"].tolist() == [8, 10, 0]
    assert found["total"].tolist() == [14, 15, 1]
    assert found["persistence"].tolist() == [50, 30, 5]
    assert (found["before"] + found["gain"] - found["loss"] == found["after"]).all()
    assert (np.abs(found["net"]) + found["swap"] == found["total"]).all()


@pytest.mark.parametrize(("first", "other", "k"), [(0.9, 0.85, 11), (0.7, 0.95, 2), (1, 1, 5)])
def test_false_change_of_independent_errors(first: float, other: float, k: int) -> None:
    random, size = np.random.default_rng(0), 400_000
    truth = random.integers(0, k, size)
    maps = [np.where(random.random(size) < a, truth, (truth + random.integers(1, k, size)) % k) for a in (first, other)]
    assert expected_false_change(first, other, k) == pytest.approx((maps[0] != maps[1]).mean(), abs=0.003)
