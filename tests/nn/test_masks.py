"""States of tokens: exact counts, disjoint, nothing missing asked for, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covermap.core.errors import ConfigError
from covermap.nn.ssl.masks import (
    MISSING,
    STRATEGIES,
    TARGET,
    TEACHER_ONLY,
    VISIBLE,
    Masker,
    Where,
    count_hidden,
)
from covermap.nn.tokens import STATIC


def layout(groups=2, dates=3, rows=4, cols=5, static=0):
    """Tokens of `groups` with all dates, and of `static` more that belong to all dates."""
    parts = [(g, t) for g in range(groups) for t in range(dates)] + [(groups + s, STATIC) for s in range(static)]
    cells = np.arange(rows * cols)
    columns = [
        np.stack([np.full_like(cells, g), np.full_like(cells, t), cells // cols, cells % cols]) for g, t in parts
    ]
    return Where(*np.concatenate(columns, 1), (rows, cols))


def draw(masker, there, where, seed=0):
    return masker.states(there, where, [np.random.default_rng([seed, i]) for i in range(len(there))])


@given(
    st.sampled_from(STRATEGIES), st.floats(0.01, 0.99), st.integers(0, 1000), st.floats(0, 1), st.integers(1, 3),
    st.integers(1, 3), st.integers(0, 1),
)  # fmt: skip
def test_states_keep_their_promises(strategy, share, seed, holes, groups, dates, static):
    where = layout(groups, dates, static=static)
    there = np.random.default_rng(seed).random((3, len(where.group))) >= holes
    there[0] = False
    states = draw(Masker(strategy, share), there, where, seed)
    assert states.shape == there.shape
    np.testing.assert_array_equal(states == MISSING, ~there)
    for mine, known in zip(states, there, strict=True):
        enough = known.sum() >= 2
        assert (mine == TARGET).any() == enough
        assert (mine == VISIBLE).any() == bool(known.any())
    np.testing.assert_array_equal(states, draw(Masker(strategy, share), there, where, seed))


@pytest.mark.parametrize("share", [0.01, 0.25, 0.6, 0.75, 0.99])
def test_the_number_hidden_is_exact(share):
    where = layout(2, 3, 4, 5, static=1)
    there = np.ones((8, len(where.group)), bool)
    there[1, ::3] = False
    for mine, known in zip(draw(Masker("random", share), there, where), there, strict=True):
        assert (mine == TARGET).sum() == count_hidden(int(known.sum()), share) == max(1, int(share * known.sum()))
    place = where.row * 5 + where.col
    for strategy in ("tube", "block", "inverse_block"):
        for mine in draw(Masker(strategy, share), there[:1], where):
            hidden = np.unique(place[mine == TARGET])
            assert len(hidden) == count_hidden(20, share)
            np.testing.assert_array_equal(np.isin(place, hidden), mine == TARGET)  # all dates and sensors alike
    for strategy, units, count in (("dates", where.date, 3), ("sensors", where.group, 3)):
        for mine in draw(Masker(strategy, share), there[:1], where):
            hidden = np.unique(units[mine == TARGET])
            assert STATIC not in hidden or strategy == "sensors"
            assert len(hidden) == count_hidden(count, share)
            np.testing.assert_array_equal(np.isin(units, hidden), mine == TARGET)


@given(st.sampled_from(STRATEGIES), st.floats(0.01, 0.99), st.floats(0.01, 1), st.integers(0, 1000), st.floats(0, 1))
def test_what_is_only_predicted_is_never_seen(strategy, share, predicted, seed, holes):
    where = layout(3, 2, static=1)
    there = np.random.default_rng(seed).random((2, len(where.group))) >= holes
    only = where.group >= 2
    for mine, known in zip(
        draw(Masker(strategy, share, decode_only=(2, 3), predicted=predicted), there, where, seed), there, strict=True
    ):
        np.testing.assert_array_equal(mine == MISSING, ~known)
        free = known & ~only
        assert (mine[only & known] == TARGET).all() == (free.any() or not (only & known).any())
        assert (mine == VISIBLE).any() == bool(free.any()) or not free.any()
        hidden = np.isin(mine, (TARGET, TEACHER_ONLY)) & free
        assert (mine[free] == TARGET).sum() == (max(1, int(predicted * hidden.sum())) if hidden.any() else 0)


def test_a_block_hangs_together_and_its_inverse_leaves_one():
    where = layout(1, 1, 12, 12)
    there = np.ones((40, 144), bool)
    for strategy, state in (("block", TARGET), ("inverse_block", VISIBLE)):
        spans = []
        for mine in draw(Masker(strategy, 0.25 if strategy == "block" else 0.75), there, where):
            rows, cols = np.nonzero((mine == state).reshape(12, 12))
            assert len(rows) == 36
            spans.append((np.ptp(rows) + 1) * (np.ptp(cols) + 1))
        assert max(spans) <= 36 * 1.5  # its bounding box holds little else


def test_some_sensors_are_only_predicted_and_some_tokens_only_the_teachers():
    where = layout(3, 1)
    there = np.ones((4, 60), bool)
    there[1, :40] = False  # only what is not seen: nothing can be predicted
    states = draw(Masker("random", 0.5, decode_only=(2,), predicted=0.5), there, where)
    for mine in states[[0, 2, 3]]:
        assert (mine[where.group == 2] == TARGET).all()
        rest = mine[where.group != 2]
        assert [(rest == s).sum() for s in (VISIBLE, TARGET, TEACHER_ONLY, MISSING)] == [20, 10, 10, 0]
    assert not (states[1] == TARGET).any()


def test_the_same_seed_hides_the_same_places_whatever_is_missing():
    where = layout(1, 2, 8, 8)
    there = np.ones((2, 128), bool)
    there[1, :3] = False
    one, two = (Masker("tube", 0.5).states(each[None], where, [np.random.default_rng(7)])[0] for each in there)
    assert (one[3:] == two[3:]).mean() > 0.9


@pytest.mark.parametrize("bad", [{"strategy": "stripes"}, {"share": 0.0}, {"share": 1.0}, {"predicted": 0.0}])
def test_what_leaves_nothing_is_refused(bad):
    with pytest.raises(ConfigError):
        Masker(**bad)
