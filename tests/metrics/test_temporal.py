"""Contradictions and expected errors beside loops over pixels, on random cubes."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import ConfigError, LabelError
from covermap.core.legend import IGNORE
from covermap.metrics.temporal import expected_errors, expected_false_share, violations


def cube(seed: int, dates: int = 3, classes: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = random.integers(0, classes, (dates, 17, 23)).astype(np.uint8)
    found[random.random(found.shape) < 0.1] = IGNORE
    return found


@pytest.mark.parametrize("seed", range(3))
def test_contradictions_pixel_by_pixel(seed: int) -> None:
    random = np.random.default_rng(seed)
    c12, c23, c13, known = random.random((4, 17, 23)) < 0.5
    expected = [0, 0, 0]
    for place in zip(*np.nonzero(known), strict=True):
        says = (bool(c12[place]), bool(c23[place]), bool(c13[place]))
        for rule, broken in enumerate([(False, False, True), (True, False, False), (False, True, False)]):
            expected[rule] += says == broken
    found = violations(c12, c23, c13, known)
    assert found == (*expected, known.sum())
    assert found.rate == sum(expected) / known.sum()
    classes = cube(seed)
    one, two, three = (classes[a] != classes[b] for a, b in ((0, 1), (1, 2), (0, 2)))
    assert violations(one, two, three).rate == 0  # what follows from classes contradicts nothing
    with pytest.raises(LabelError, match="differs in shape"):
        violations(c12, c23[1:], c13)


def test_errors_are_as_many_as_probabilities_say() -> None:
    random = np.random.default_rng(0)
    p = random.random((300, 300))
    truth, mapped = random.random(p.shape) < p, p > 0.4
    found = expected_errors(mapped, p)
    assert found.false_change == pytest.approx((mapped & ~truth).sum(), rel=0.03)
    assert found.missed_change == pytest.approx((~mapped & truth).sum(), rel=0.03)
    p[:10] = np.nan
    assert expected_errors(mapped, p).known == 290 * 300


def test_false_change_of_independent_maps() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 5, 200_000)
    maps = [np.where(random.random(truth.size) < a, truth, (truth + random.integers(1, 5, truth.size)) % 5)
            for a in (0.9, 0.8)]  # fmt: skip
    assert expected_false_share(0.9, 0.8, 5) == pytest.approx((maps[0] != maps[1]).mean(), abs=0.004)
    assert expected_false_share(1, 1, 5) == 0
    assert expected_false_share(1, 1, 1) == 0
    with pytest.raises(ConfigError, match="not in 0 to 1"):
        expected_false_share(90, 80, 5)
