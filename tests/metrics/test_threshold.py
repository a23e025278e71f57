"""Where two groups part: against scikit-image's definition written out, and what happens where there is one group."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import DataError
from covermap.metrics.threshold import FAR, of_all, otsu, two_groups

EDGES = np.linspace(-5, 15, 401)


def counts_of(*places: np.ndarray) -> np.ndarray:
    return np.stack([np.histogram(np.clip(place, -5, 14.99), EDGES)[0] for place in places])


def test_otsu_is_the_cut_of_least_variance_within() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 4000), random.normal(5, 1.5, 1500)])
    counts = counts_of(values)
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    cut, share, upper = otsu(counts.astype(float), centres)
    binned = np.repeat(centres, counts[0])
    within = [
        np.var(binned[binned <= c]) * (binned <= c).mean() + np.var(binned[binned > c]) * (binned > c).mean()
        for c in centres[60:250]
    ]
    assert centres[cut[0]] == pytest.approx(centres[60:250][int(np.argmin(within))])
    assert share[0] == pytest.approx(1 - min(within) / np.var(binned))
    assert upper[0] == pytest.approx((binned > centres[cut[0]]).mean())


def test_a_flood_of_two_percent_is_found_by_the_places_that_hold_half_of_it() -> None:
    random = np.random.default_rng(1)
    dry = [random.normal(0, 1, 4000) for _ in range(49)]
    wet = np.concatenate([random.normal(0, 1, 2000), random.normal(7, 1, 2000)])
    found = two_groups(counts_of(*dry, wet), EDGES)
    assert found.num_places == 1
    assert 2.5 < found.value < 4.5
    # All pixels together have one peak: their own cut lies elsewhere.
    every = counts_of(np.concatenate([*dry, wet]))
    assert two_groups(every, EDGES).num_places == 0


def test_without_an_event_the_threshold_is_far_from_the_usual() -> None:
    random = np.random.default_rng(2)
    found = two_groups(counts_of(*(random.normal(1, 0.5, 5000) for _ in range(20))), EDGES)
    assert found.num_places == 0
    assert found.value == pytest.approx(1 + 4 * 0.5, abs=0.1)


def test_a_gap_between_the_groups_is_cut_in_its_middle() -> None:
    place = np.concatenate([np.zeros(500), np.full(500, 8.0)])
    assert two_groups(counts_of(place, np.zeros(1500)), EDGES).value == pytest.approx(4, abs=0.1)


def test_a_flood_of_most_of_the_scene_is_found() -> None:
    random = np.random.default_rng(3)
    wet = [random.normal(7, 1, 4000) for _ in range(6)]
    border = [np.concatenate([random.normal(0, 1, 2000), random.normal(7, 1, 2000)]) for _ in range(3)]
    found = two_groups(counts_of(*wet, *border), EDGES)
    assert found.num_places == 3
    assert 2.5 < found.value < 4.5


def test_a_rise_beside_no_change_is_no_drop() -> None:
    random = np.random.default_rng(4)
    place = np.concatenate([random.normal(-4.5, 0.3, 2000), random.normal(0, 0.5, 2000)])
    assert two_groups(counts_of(place, random.normal(0, 0.5, 4000)), EDGES).num_places == 0


def test_a_handful_of_pixels_does_not_decide() -> None:
    random = np.random.default_rng(5)
    found = two_groups(counts_of(*(random.normal(0, 1, 4000) for _ in range(9)), np.array([0.1, 0.2, 1.4, 1.5])), EDGES)
    assert found.num_places == 0
    assert found.value == pytest.approx(4, abs=0.3)


def test_nothing_known_is_refused() -> None:
    with pytest.raises(DataError, match="no pixel is known"):
        two_groups(np.zeros((3, 400), int), EDGES)
    with pytest.raises(DataError, match="edges"):
        two_groups(np.zeros((3, 7), int), EDGES)


def test_all_pixels_are_cut_beyond_their_body_or_far_from_it() -> None:
    random = np.random.default_rng(2)
    body, other = random.normal(0, 1, 20_000), random.normal(8, 1, 3_000)
    both = counts_of(body, other)
    assert 3 < of_all(both, EDGES).value < 6
    assert of_all(both, EDGES) == of_all(both, EDGES, beyond_body=False)
    alone = of_all(counts_of(body), EDGES)
    assert alone.value == pytest.approx(FAR, abs=0.2)
    assert alone.num_places == 0
    assert of_all(counts_of(body), EDGES, beyond_body=False).value == pytest.approx(0, abs=0.1)
    with pytest.raises(DataError, match="no pixel is known"):
        of_all(np.zeros((2, 400), int), EDGES)
