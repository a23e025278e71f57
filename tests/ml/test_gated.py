"""What a model of semantic change says: the best pair of classes that goes with its word on change."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from covermap.ml.gated import gated


def random_answers(k: int, seed: int, *, side: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [rng.dirichlet(np.full(n, 0.5), (side, side)).transpose(2, 0, 1) for n in (k, k, 2)]
    found = np.concatenate(parts).astype(np.float32)
    if seed % 3 == 0:  # favourites of both dates alike
        found[k : 2 * k] = found[:k]
    return found


@settings(max_examples=60, deadline=None)
@given(k=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_it_is_the_best_pair_of_all(k: int, seed: int) -> None:
    answers = random_answers(k, seed)
    said = gated(answers)
    changed = answers[-1] >= 0.5
    np.testing.assert_array_equal(said.before != said.after, changed)
    scores = answers[:k, None] * answers[None, k : 2 * k]
    for at in np.ndindex(changed.shape):
        mine = scores[said.before[at], said.after[at], *at]
        pairs = [scores[a, b, *at] for a in range(k) for b in range(k) if (a != b) == changed[at]]
        assert mine >= max(pairs) * (1 - 1e-6)


@settings(max_examples=30, deadline=None)
@given(k=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_exchanging_the_dates_exchanges_the_classes(k: int, seed: int) -> None:
    answers = random_answers(k, 3 * seed + 1)
    said, back = gated(answers), gated(np.concatenate([answers[k : 2 * k], answers[:k], answers[2 * k :]]))
    np.testing.assert_array_equal(said.before, back.after)
    np.testing.assert_array_equal(said.after, back.before)


def test_of_dates_alike_the_pair_is_one_of_the_best() -> None:
    """An exact tie: two pairs are as good, and no order of the dates tells one from the other."""
    shares = np.array([0.5, 0.3, 0.2], np.float32)
    answers = np.concatenate([shares, shares, [0.0, 1.0]]).astype(np.float32)[:, None, None]
    said = gated(answers)
    assert {int(said.before[0, 0]), int(said.after[0, 0])} == {0, 1}


def test_one_class_cannot_change() -> None:
    answers = np.ones((4, 2, 2), np.float32)
    said = gated(answers)
    assert not said.before.any()
    assert not said.after.any()
