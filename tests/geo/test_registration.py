"""Change by misregistration: shifted boundaries go, real changes stay with their rims, in windows as in one piece."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.data.simulate import LEGEND, SceneRecipe, SimulatedScene
from covermap.geo.grid import Window
from covermap.geo.registration import halo, misregistered


def explained(before: np.ndarray, after: np.ndarray, px: int = 1) -> np.ndarray:
    around = halo(px)
    return misregistered(*(np.pad(m.astype(np.uint8), around, constant_values=IGNORE) for m in (before, after)), px)


def brute(before: np.ndarray, after: np.ndarray, px: int) -> np.ndarray:
    """The rule pixel by pixel."""
    height, width = before.shape

    def at(values: np.ndarray, r: int, c: int) -> int:
        return int(values[r, c]) if 0 <= r < height and 0 <= c < width else -1

    steps = [(dr, dc) for dr in range(-px, px + 1) for dc in range(-px, px + 1)]
    changed = {
        (r, c) for r in range(height) for c in range(width)
        if before[r, c] != after[r, c] and IGNORE not in (before[r, c], after[r, c])
    }  # fmt: skip
    candidates = {
        (r, c) for r, c in changed
        if any(at(before, r + i, c + j) == after[r, c] and at(after, r - i, c - j) == before[r, c] for i, j in steps)
    }  # fmt: skip
    real = changed - candidates
    for _ in range(px):
        real |= {
            (r, c) for r, c in candidates
            if any((r + i, c + j) in real and (before[r + i, c + j], after[r + i, c + j]) == (before[r, c], after[r, c])
                   for i in (-1, 0, 1) for j in (-1, 0, 1))
        }  # fmt: skip
    found = np.zeros(before.shape, bool)
    for place in candidates - real:
        found[place] = True
    return found


@pytest.mark.parametrize("px", [1, 2])
def test_the_rule_pixel_by_pixel(px: int) -> None:
    random = np.random.default_rng(px)
    for classes in (2, 4):
        before, after = (random.integers(0, classes, (8, 10)).repeat(3, 0).repeat(3, 1) for _ in range(2))
        keep = random.random(before.shape) < 0.6
        after = np.where(keep, np.roll(before, (1, px), (0, 1)), after)
        before[random.random(before.shape) < 0.05] = IGNORE
        after[random.random(before.shape) < 0.05] = IGNORE
        assert np.array_equal(explained(before, after, px), brute(before, after, px))


def test_a_shifted_map_has_no_change_left() -> None:
    before = np.random.default_rng(0).integers(0, 5, (9, 9)).repeat(6, 0).repeat(7, 1)
    for rows, cols in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        after = np.roll(before, (rows, cols), (0, 1))
        found = explained(before, after)
        inner = np.s_[2:-2, 2:-2]
        assert np.array_equal(found[inner], (before != after)[inner])


def test_a_field_that_grows_keeps_its_rim() -> None:
    before = np.zeros((40, 40), np.uint8)
    before[:, :10] = 1
    after = before.copy()
    after[10:30, 10:16] = 1  # town beside town
    assert not explained(before, after)[11:29].any()
    after = before.copy()
    after[:, 10] = 1  # a strip of one pixel cannot be told from a shift
    assert explained(before, after)[1:-1, 10].all()


def test_windows_give_what_the_whole_gives() -> None:
    random = np.random.default_rng(4)
    before = random.integers(0, 4, (20, 20)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    after = np.where(random.random(before.shape) < 0.05, 3, np.roll(before, 2, 1)).astype(np.uint8)
    for px in (1, 2, 3):
        around, whole = halo(px), explained(before, after, px)
        wide = [np.pad(m, around, constant_values=IGNORE) for m in (before, after)]
        for row in range(0, 80, 23):
            for col in range(0, 80, 31):
                parts = (m[row : row + 23 + 2 * around, col : col + 31 + 2 * around] for m in wide)
                assert np.array_equal(misregistered(*parts, px), whole[row : row + 23, col : col + 31])


@pytest.mark.parametrize(("gsd_m", "shift"), [(10.0, (1, 1)), (10.0, (0, 1)), (20.0, (1, -1))])
def test_false_change_falls_by_four_fifths_at_equal_recall(gsd_m: float, shift: tuple[int, int]) -> None:
    size = 400
    scene = SimulatedScene(SceneRecipe(size + 2, size + 2, seed=5, num_dates=2, change_share=0.02, gsd_m=gsd_m))
    dates = [LEGEND.encode(scene.truth(Window(0, 0, size + 2, size + 2), date=date)) for date in (0, 1)]
    before, true = (m[1:-1, 1:-1] for m in dates)
    after = dates[1][1 + shift[0] : 1 + shift[0] + size, 1 + shift[1] : 1 + shift[1] + size]
    truth, plain = before != true, before != after
    left = plain & ~explained(before, after)
    assert (left & ~truth).sum() < 0.1 * (plain & ~truth).sum()
    assert left[truth].mean() > plain[truth].mean() - 0.01


def test_tolerances_that_are_none() -> None:
    for px in (0, 6):
        with pytest.raises(ConfigError, match=f"tolerance of {px} px"):
            halo(px)
