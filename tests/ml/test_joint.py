"""Joint decisions of dates beside the enumeration of all pairs and sequences in float64; priors and their files."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.legend import IGNORE, Legend
from covermap.ml.joint import _viterbi, change_probability, decide_pair, decide_series
from covermap.ml.transitions import LEAST, NO_SHARE, STEPS, ZERO, TransitionPrior, forbidden_pairs

LEGEND = Legend.from_dict({1: "water", 2: "forest", 3: "crop"})


def shares(k: int, size: int, seed: int, sharp: float = 3.0) -> np.ndarray:
    """(K, size, 1) float64."""
    values = np.exp(sharp * np.random.default_rng(seed).normal(size=(k, size, 1)))
    return values / values.sum(0)


def layer(p: np.ndarray) -> np.ndarray:
    return np.rint(p * STEPS).astype(np.uint8)


def brute(p1: np.ndarray, p2: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs; of equal ones one that stays comes first, then the lowest a, then b."""
    k = len(p1)
    order = [(a, a) for a in range(k)] + [(a, b) for a in range(k) for b in range(k) if a != b]
    value = np.stack([p1[a] * p2[b] * weights[a, b] for a, b in order])
    best = value.argmax(0)
    pairs = np.array(order)[best]
    return pairs[..., 0], pairs[..., 1], value[k:].sum(0) / value.sum(0)


def some_priors(k: int) -> list[TransitionPrior]:
    random = np.random.default_rng(k)
    any_ = random.random((k, k)) + 3 * np.eye(k)
    any_ /= any_.sum()
    skewed = random.random(k) + 0.05
    forbidden = random.random((k, k)) < 0.4
    np.fill_diagonal(forbidden, False)
    return [
        TransitionPrior.persistence(0.97, np.ones(k)),
        TransitionPrior.persistence((skewed**2).sum() / skewed.sum() ** 2 + 1e-9, skewed),
        TransitionPrior(any_, any_.sum(1), any_.sum(0)),
        TransitionPrior(any_, np.full(k, 1 / k), any_.sum(0)).without(forbidden),
    ]


@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_a_pair_is_the_best_of_all_pairs(k: int) -> None:
    for prior in some_priors(k) if k > 1 else [TransitionPrior(np.ones((1, 1)), np.ones(1), np.ones(1))]:
        for sharp in (0.5, 2.0, 6.0):
            p1, p2 = shares(k, 20_000, 1, sharp), shares(k, 20_000, 2, sharp)
            p2[:, :8000] = 0.7 * p1[:, :8000] + 0.3 * p2[:, :8000]
            for one, other in ((p1, p2), (p1.astype(np.float32), p2.astype(np.float32)), (layer(p1), layer(p2))):
                found = decide_pair(one, other, prior)
                if one.dtype == np.uint8:
                    q1, q2 = (np.where(p == 0, ZERO, p / STEPS) for p in (one, other))
                else:
                    q1, q2 = (np.maximum(p, LEAST).astype(np.float64) for p in (one, other))
                before, after, change = brute(q1, q2, prior.weights)
                same = (found.before == before) & (found.after == after)
                rows = np.nonzero(~same)
                value, best = (
                    q1[(a[rows], *rows)] * q2[(b[rows], *rows)] * prior.weights[a[rows], b[rows]]
                    for a, b in ((found.before, found.after), (before, after))
                )
                # Layers hold ties; which side of a tie rounding falls on is no matter.
                assert (value >= best * (1 - 1e-12)).all()
                assert one.dtype == np.uint8 or same.all()
                np.testing.assert_allclose(found.change, change, atol=2e-6)


def test_independent_dates_and_nodata() -> None:
    p1, p2 = shares(4, 500, 1), shares(4, 500, 2)
    np.testing.assert_allclose(change_probability(p1, p2), 1 - (p1 * p2).sum(0), atol=1e-5)
    one, other = layer(p1), layer(p2)
    np.testing.assert_allclose(change_probability(one, other), 1 - (p1 * p2).sum(0), atol=0.03)
    one[:, :7], other[:, 5:9] = NO_SHARE, NO_SHARE
    prior = TransitionPrior.persistence(0.9, np.ones(4))
    found = decide_pair(one, other, prior)
    unknown = np.zeros((500, 1), bool)
    unknown[:9] = True
    assert np.array_equal(np.isnan(found.change), unknown)
    assert np.array_equal(np.isnan(change_probability(one, other)), unknown)
    assert (found.before == IGNORE).nonzero()[0].tolist() == list(range(7))
    assert (found.after == IGNORE).nonzero()[0].tolist() == [5, 6, 7, 8]
    assert np.array_equal(found.after[:5, 0], other[:, :5, 0].argmax(0))  # what is seen alone is what it looks like
    nan = p1.copy()
    nan[:, :7] = np.nan
    assert np.isnan(decide_pair(nan, p2, prior).change).sum() == 7


@pytest.mark.parametrize(("k", "count"), [(2, 5), (3, 3), (3, 4), (4, 3)])
def test_a_series_is_the_best_of_all_sequences(k: int, count: int) -> None:
    for number, prior in enumerate(some_priors(k)[:3] if k > 2 else some_priors(k)[:1]):
        dates = [shares(k, 300, 10 * number + t, 1.5) for t in range(count)]
        for t in range(count):
            dates[t][:, 20 * t : 20 * t + 30] = np.nan
        found = decide_series(dates, prior)
        table = prior.joint / prior.joint.sum(1, keepdims=True)
        held = [prior.before, *[prior.after] * (count - 1)]
        known = np.stack([~np.isnan(p).any(0) for p in dates])
        seen = [
            np.where(ok, np.maximum(p, LEAST) / of[:, None, None], 1)
            for p, ok, of in zip(dates, known, held, strict=True)
        ]
        sequences = np.array(list(product(range(k), repeat=count)))
        value = np.stack([
            prior.joint.sum(1)[s[0]] * np.prod([table[a, b] for a, b in pairwise(s)])
            * np.prod([seen[t][c] for t, c in enumerate(s)], axis=0) for s in sequences
        ])  # fmt: skip
        best = np.moveaxis(sequences[value.argmax(0)], -1, 0)
        assert np.array_equal(found.classes, np.where(known, best, IGNORE))
        value /= value.sum(0)
        for t in range(count):
            each = np.stack([value[sequences[:, t] == c].sum(0) for c in range(k)])
            np.testing.assert_allclose(found.posterior[t], np.where(known[t], each, np.nan), atol=1e-5)
        for t in range(count - 1):
            moved = value[sequences[:, t] != sequences[:, t + 1]].sum(0)
            np.testing.assert_allclose(found.change[t], np.where(known[t] & known[t + 1], moved, np.nan), atol=1e-5)
        moved = value[sequences[:, 0] != sequences[:, -1]].sum(0)
        np.testing.assert_allclose(found.overall, np.where(known[0] & known[-1], moved, np.nan), atol=1e-3)
        sure = found.overall > 1e-2
        np.testing.assert_allclose(found.overall[sure], moved[sure], rtol=1e-4)


def test_the_search_of_a_series_does_not_depend_on_what_is_left_out() -> None:
    prior = some_priors(5)[2]
    dates = [shares(5, 4000, t, 2.0) for t in range(6)]
    found = decide_series(dates, [prior] * 5).classes[:, :, 0]
    held = [prior.before, *[prior.after] * 5]
    evidence = [np.maximum(p[:, :, 0], LEAST) / of[:, None] for p, of in zip(dates, held, strict=True)]
    assert np.array_equal(found, _viterbi(evidence, [prior.joint, *[prior.table] * 4]))


def test_two_dates_of_a_series_are_a_pair() -> None:
    for prior in some_priors(6):
        one, other = (layer(shares(6, 5000, seed, 1.0)) for seed in (1, 2))
        one[:, 40:60], other[:, 50:80] = NO_SHARE, NO_SHARE
        pair, series = decide_pair(one, other, prior), decide_series([one, other], prior)
        assert np.array_equal(series.classes, np.stack([pair.before, pair.after]))
        np.testing.assert_allclose(series.change[0], pair.change, atol=2e-6)


def generated(k: int, size: int, changed: float, seed: int, sharp: float) -> tuple[np.ndarray, ...]:
    """Classes of two dates by known shares, and the exact probabilities of either date alone."""
    random = np.random.default_rng(seed)
    of = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    before = random.choice(k, size, p=of)
    after = np.where(random.random(size) < changed, random.choice(k, size, p=of[::-1]), before)
    out = []
    for truth in (before, after):
        seen = random.normal(size=(k, size))
        seen[truth, np.arange(size)] += sharp
        p = np.exp(sharp * seen) * (np.bincount(truth, minlength=k) / size)[:, None]
        out.append((p / p.sum(0))[:, :, None])
    return before, after, *out


def test_shares_of_pairs_are_found_from_probabilities() -> None:
    k, size = 4, 150_000
    before, after, p1, p2 = generated(k, size, 0.1, 3, 2.5)
    truth = np.bincount(before * k + after, minlength=k * k).reshape(k, k) / size
    blocks = [(p1[:, i : i + 10_000], p2[:, i : i + 10_000]) for i in range(0, size, 10_000)]
    prior = TransitionPrior.estimate(blocks)
    np.testing.assert_allclose(prior.joint, truth, atol=0.004)
    assert prior.changed == pytest.approx((before != after).mean(), abs=0.006)
    apart = (p1.argmax(0) != p2.argmax(0)).mean()
    assert apart > 2.5 * prior.changed  # what the maps alone would have said
    few = TransitionPrior.estimate(blocks, most=20_000)
    np.testing.assert_allclose(few.joint, truth, atol=0.012)
    stored = TransitionPrior.estimate([(layer(p1), layer(p2))])
    np.testing.assert_allclose(stored.joint, truth, atol=0.008)
    pair = decide_pair(p1, p2, prior)
    right = ((pair.before[:, 0] == before) & (pair.after[:, 0] == after)).mean()
    assert right > ((p1.argmax(0)[:, 0] == before) & (p2.argmax(0)[:, 0] == after)).mean() + 0.1
    assert float(pair.change.mean()) == pytest.approx((before != after).mean(), abs=0.006)


def test_classes_that_never_come_make_no_nan_and_forbidden_pairs_never_come() -> None:
    p1, p2 = (np.concatenate([shares(3, 4000, seed), np.zeros((2, 4000, 1))]) for seed in (1, 2))
    forbidden = np.zeros((5, 5), bool)
    forbidden[0, 1] = forbidden[4] = True
    forbidden[4, 4] = False
    prior = TransitionPrior.estimate([(p1, p2)], forbidden=forbidden)
    assert np.isfinite(prior.weights).all()
    assert (prior.joint[forbidden] == 0).all()
    assert prior.joint.sum() == pytest.approx(1)
    found = decide_pair(p1, p2, prior)
    assert not ((found.before == 0) & (found.after == 1)).any()
    assert np.isfinite(found.change).all()
    sure = np.zeros((5, 1, 1))
    sure[4] = 1
    assert (decide_pair(sure, sure, prior).before == 4).all()
    series = decide_series([p1, p2, p1], prior)
    assert np.isfinite(series.posterior).all()
    steps = series.classes[:-1] * 5 + series.classes[1:]
    assert not (steps == 1).any()


def test_simple_priors() -> None:
    prior = TransitionPrior.persistence(0.9, [1, 1, 2])
    assert prior.changed == pytest.approx(0.1)
    np.testing.assert_allclose(prior.joint.sum(0), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(prior.table.sum(1), 1)
    for share in (0.2, 1.0, 1.5):
        with pytest.raises(ConfigError, match="that stays cannot be"):
            TransitionPrior.persistence(share, [1, 1, 2])
    assert np.isfinite(TransitionPrior.persistence(0.9, [1, 0, 2]).weights).all()
    for shares_ in ([1, -1, 2], [0, 0, 0], [1, np.nan, 1]):
        with pytest.raises(ConfigError, match="are no shares of classes"):
            TransitionPrior.persistence(0.9, shares_)
    table = np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    equal = TransitionPrior.given(table)
    np.testing.assert_allclose(equal.weights / equal.weights[0, 0], table / 0.9)
    np.testing.assert_allclose(TransitionPrior.given(100 * table, [1, 1, 2]).table, table)
    known = TransitionPrior.given(table, [1, 1, 2])
    np.testing.assert_allclose(known.weights, table / (np.array([0.25, 0.25, 0.5]) @ table))
    with pytest.raises(ConfigError, match=r"row 3 of the matrix of transitions \(3, 3\) sums to 0.6"):
        TransitionPrior.given(np.vstack([table[:2], [[0.2, 0.2, 0.2]]]))
    with pytest.raises(ConfigError, match="sums to"):
        TransitionPrior.given(table[:2])
    with pytest.raises(ConfigError, match="negative"):
        TransitionPrior.given([[1.5, -0.5], [0, 1]])
    with pytest.raises(DataError, match="no pixel has probabilities"):
        TransitionPrior.estimate([(np.full((2, 3), NO_SHARE, np.uint8),) * 2])
    with pytest.raises(DataError, match="differ in shape"):
        decide_pair(np.ones((3, 2)), np.ones((3, 4)), equal)
    with pytest.raises(DataError, match="a prior of 3 classes, 2 layers"):
        decide_pair(np.ones((2, 2)), np.ones((2, 2)), equal)
    with pytest.raises(DataError, match="two dates or more"):
        decide_series([np.ones((3, 2))], equal)


def test_a_matrix_is_read_by_class_names(tmp_path: Path) -> None:
    table = np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    prior = TransitionPrior.given(table)
    (tmp_path / "t.csv").write_text(prior.csv(LEGEND))
    np.testing.assert_allclose(TransitionPrior.read(tmp_path / "t.csv", LEGEND).joint, prior.joint, atol=1e-6)
    (tmp_path / "t.yaml").write_text(
        "Crop: {water: 20, forest: 30, crop: 50}\nforest: {forest: 100}\nwater: {water: 90, forest: 10}\n"
    )
    np.testing.assert_allclose(TransitionPrior.read(tmp_path / "t.yaml", LEGEND).joint, prior.joint, atol=1e-6)
    for name, text, error, message in (
        ("a.yaml", "water: {watr: 1}\n", LabelError, "no class 'watr'"),
        ("b.yaml", "water: {water: 1}\n", ConfigError, "not one row for each class of custom: forest, crop"),
        ("c.yaml", "- 1\n", ConfigError, "no matrix of transitions"),
        ("d.csv", "before,water\nwater,x\n", ConfigError, "no matrix of transitions"),
        ("e.csv", "", ConfigError, "no matrix of transitions"),
        ("f.csv", "before,water,forest,crop\nwater,1\n", ConfigError, "no matrix of transitions"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(error, match=message):
            TransitionPrior.read(tmp_path / name, LEGEND)
    with pytest.raises(ConfigError, match="there is no file"):
        TransitionPrior.read(tmp_path / "nothing.csv", LEGEND)


def test_a_prior_that_is_written_is_read_back(tmp_path: Path) -> None:
    """Also one whose classes have unequal shares, which the probabilities hold otherwise, and of impossible pairs."""
    joint = np.array([[0.5, 0.02, 0.01], [0.0, 0.3, 0.001], [0.019, 0.05, 0.1]])
    given = TransitionPrior(joint, np.array([0.6, 0.25, 0.15]), np.array([0.55, 0.3, 0.15]))
    path, k = tmp_path / "p.csv", len(LEGEND)
    for prior in (given, given.without(joint < 0.01), *some_priors(k)):
        path.write_text(prior.csv(LEGEND))
        again = TransitionPrior.read(path, LEGEND)
        for name in ("joint", "before", "after", "weights"):
            np.testing.assert_allclose(getattr(again, name), getattr(prior, name), rtol=1e-6, err_msg=name)
    for old, new, message in (
        ("0.25", "0.35", "sum to 1.1"), ("held after,0.55", "held after,", "no matrix of transitions"),
        (",0.3,0.15,", ",0.45,0,", "a share of a class is 0"), ("0.019", "0.19", "sum to 1.171"),
    ):  # fmt: skip
        text = given.csv(LEGEND)
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=message):
            TransitionPrior.read(path, LEGEND)


def test_forbidden_pairs_by_name() -> None:
    found = forbidden_pairs(["water > forest", "crop>*"], LEGEND)
    assert np.argwhere(found).tolist() == [[0, 1], [2, 0], [2, 1]]
    with pytest.raises(ConfigError, match="is no change"):
        forbidden_pairs(["water"], LEGEND)
    with pytest.raises(LabelError, match="no class 'watr'"):
        forbidden_pairs(["watr > crop"], LEGEND)


def test_how_sure_layers_can_be_of_a_change() -> None:
    for prior in some_priors(4):
        p1, p2 = (np.zeros((4, 16, 1), np.uint8) for _ in range(2))
        for n, (a, b) in enumerate(product(range(4), repeat=2)):
            p1[a, n], p2[b, n] = 200, 200
        change = decide_pair(p1, p2, prior).change[:, 0].reshape(4, 4)
        possible = ~np.eye(4, dtype=bool) & (prior.joint > 0)
        assert prior.surest == pytest.approx(change[possible].max(), rel=1e-6)


def test_areas_of_transitions_are_a_prior_in_which_nothing_is_impossible(tmp_path: Path) -> None:
    areas = np.array([[90.0, 10.0, 0.0], [0.0, 60.0, 0.0], [4.0, 6.0, 30.0]])
    prior = TransitionPrior.of_areas(areas)
    np.testing.assert_allclose(prior.joint, areas / areas.sum(), atol=2e-4)
    np.testing.assert_allclose(prior.before, prior.joint.sum(1))
    np.testing.assert_allclose(prior.after, prior.joint.sum(0))
    assert prior.joint.sum() == pytest.approx(1)
    assert (prior.joint > 0).all()
    rows = [[name, *row, sum(row)] for name, row in zip(LEGEND.names, areas.tolist(), strict=True)]
    rows.append(["total", *areas.sum(0).tolist(), areas.sum()])
    text = "\n".join(",".join(map(str, row)) for row in [["from \\ to", *LEGEND.names, "total"], *rows])
    (tmp_path / "matrix.csv").write_text(text)
    np.testing.assert_allclose(TransitionPrior.read(tmp_path / "matrix.csv", LEGEND).joint, prior.joint)
    for wrong in (np.zeros((3, 3)), -areas, areas[:2]):
        with pytest.raises(ConfigError, match="hold nothing"):
            TransitionPrior.of_areas(wrong)
