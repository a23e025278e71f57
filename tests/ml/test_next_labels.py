"""Which chips to label next: budgets are kept, nothing twice, ground is spread, doubt is where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.errors import ConfigError, DataError
from covermap.ml.next_labels import (
    STRATEGIES,
    choose,
    clusters,
    doubts_of_classes,
    doubts_of_numbers,
    unit_vectors,
)
from covermap.ml.ridge import RidgePath

SIDE, D = 20, 6


@pytest.fixture
def field():
    """Four blobs on a lattice of chips; 30 chips are labelled, none of them of the last blob."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 4, SIDE * SIDE)
    values = (4 * np.eye(4, D)[classes] + random.standard_normal((SIDE * SIDE, D))).astype(np.float32)
    row, col = np.divmod(np.arange(SIDE * SIDE), SIDE)
    ground = np.stack([np.zeros_like(row), row, col], 1)
    labelled = np.zeros(SIDE * SIDE, bool)
    labelled[random.permutation(np.flatnonzero(classes < 3))[:30]] = True
    return values, classes, ground, labelled


def chosen(field, strategy, budget=30, seed=0):
    values, classes, ground, labelled = field
    doubts, _ = doubts_of_classes(values[labelled], classes[labelled], 4, values)
    return choose(strategy, values, ground, labelled, budget, doubts=doubts, seed=seed)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_as_many_as_asked_none_twice_none_labelled_and_the_same_by_seed(field, strategy):
    found = chosen(field, strategy, 60)
    assert len(set(found.order.tolist())) == len(found.order) == len(found.reasons) == 60
    assert not field[3][found.order].any()
    assert np.array_equal(found.order, chosen(field, strategy, 60).order)
    everything = chosen(field, strategy, int((~field[3]).sum()))
    assert set(everything.order.tolist()) == set(np.flatnonzero(~field[3]).tolist())


def test_strategies_and_seeds_differ(field):
    told = [tuple(sorted(chosen(field, strategy).order.tolist())) for strategy in STRATEGIES]
    assert len(set(told)) == len(STRATEGIES)
    assert tuple(sorted(chosen(field, "stratified", seed=1).order.tolist())) != told[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_chosen_chips_do_not_touch_while_there_is_room(field, strategy):
    ground = field[2]
    order = chosen(field, strategy, 20).order
    places = ground[np.concatenate([order, np.flatnonzero(field[3])]), 1:]
    apart = np.abs(places[:20, None] - places[None]).max(2)
    assert (apart[np.arange(20)[:, None] != np.arange(len(places))] > 1).all()


def test_scenes_have_at_most_twice_their_share(field):
    values, _, ground, labelled = field
    ground = ground.copy()
    ground[:, 0] = np.arange(len(ground)) % 4
    ground[:, 1:] = -1
    doubts = np.where(ground[:, 0] == 2, 1.0, 0.5)  # one scene is the most doubtful
    found = choose("uncertainty", values, ground, labelled, 40, doubts=doubts)
    assert 15 < (ground[found.order, 0] == 2).sum() <= 23


def test_diversity_and_doubt_go_to_what_was_never_labelled(field):
    classes = field[1]
    share = (classes == 3).mean()
    for strategy in ("diversity", "uncertainty", "mixed"):
        assert (classes[chosen(field, strategy).order] == 3).mean() > share
    assert classes[chosen(field, "stratified", 8).order].tolist().count(3) >= 2


def test_clusters_are_the_blobs(field):
    values, classes = field[:2]
    found = clusters(unit_vectors(values), 4, seed=3)
    table = np.array([[np.sum((found == i) & (classes == j)) for j in range(4)] for i in range(4)])
    assert table.max(1).sum() > 0.9 * len(classes)
    assert np.array_equal(clusters(unit_vectors(np.ones((5, 3))), 4), np.zeros(5))  # alike: one cluster


def test_doubt_of_classes_is_larger_where_the_model_errs(field):
    values, classes, _, labelled = field
    doubts, shares = doubts_of_classes(values[labelled], classes[labelled], 4, values)
    wrong = shares.argmax(1) != classes
    np.testing.assert_allclose(shares.sum(1), 1)
    assert doubts[wrong].mean() > doubts[~wrong].mean()


@pytest.mark.parametrize("n", [12, 200])
def test_doubt_of_numbers_is_the_leverage_by_its_formula(n):
    random = np.random.default_rng(1)
    x, new = random.standard_normal((n, 30)), random.standard_normal((7, 30))
    y = x[:, :1] + 0.3 * random.standard_normal((n, 1))
    doubts, told = doubts_of_numbers(x, y, new)
    path = RidgePath.of(x, y)
    penalty = float(path.choose()[0])
    about, others = x - x.mean(0), new - x.mean(0)
    inverse = np.linalg.inv(about.T @ about + penalty * np.eye(30))
    leverage = np.einsum("md,de,me->m", others, inverse, others)
    expected = leverage * (path.left_out(penalty) ** 2).mean() / y.var()
    np.testing.assert_allclose(doubts, np.sqrt(expected), rtol=1e-6)
    np.testing.assert_allclose(told, path.fit(path.choose()).predict(new))


def test_what_cannot_be_chosen_is_refused(field):
    values, _, ground, labelled = field
    with pytest.raises(ConfigError, match="no strategy 'divers'"):
        choose("divers", values, ground, labelled, 5)
    with pytest.raises(DataError, match="371 chips are to be chosen, 370 are not labelled"):
        choose("diversity", values, ground, labelled, 371)
    with pytest.raises(DataError, match="nothing is labelled"):
        choose("mixed", values, ground, labelled, 5)
    nothing = np.zeros(len(values), bool)
    assert len(choose("diversity", values, ground, nothing, 5).order) == 5
