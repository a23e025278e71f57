import itertools

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.train_config import RareConfig
from covermap.data.balance import balanced_subset, class_weights, plan_sampling
from covermap.data.chips import TrainWindows, survey
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.split import part_counts
from covermap.data.stats import input_spec


def weights(counts, method, **more):
    return class_weights(np.asarray(counts), method, names=[f"c{i}" for i in range(len(counts))], **more)


def test_class_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    counts = np.array([600, 300, 0, 100])
    y = np.repeat([0, 1, 3], [600, 300, 100])
    expected = sklearn.compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=y)
    got = weights(counts, "balanced")
    assert np.allclose(got[[0, 1, 3]], expected)
    assert got[2] == 0
    assert np.allclose(weights(counts, "sqrt")[[0, 1, 3]], np.sqrt(expected))
    assert weights(counts, "none").tolist() == [1, 1, 0, 1]
    with pytest.raises(ValueError, match="3 numbers for 4 classes"):
        weights(counts, [1.0, 2.0, 3.0])


def test_balanced_weights_of_lucas_italy_are_the_published_ones():
    # Training chips of each class follow from the published weights N / (K n) with N = 1595 chips in K = 10 classes.
    published = [
        0.38997555,
        1.12323944,
        0.97256098,
        0.28330373,
        1.57920792,
        3.4673913,
        1.595,
        4.69117647,
        9.96875,
        7.975,
    ]
    chips = np.rint(159.5 / np.array(published)).astype(int)
    assert chips.sum() == 1595
    assert np.allclose(weights(chips, "balanced"), published, rtol=1e-6)
    assert np.allclose(weights(chips, "sqrt"), np.sqrt(published), rtol=1e-6)


def test_inverse_weights_differ_from_balanced_ones_by_a_factor():
    got = weights([600, 300, 0, 100], "inverse")
    assert got[[0, 1, 3]] * [600, 300, 100] == pytest.approx([got[0] * 600] * 3)
    assert got[[0, 1, 3]].mean() == pytest.approx(1)
    assert got[2] == 0


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
def test_effective_numbers_are_sums_of_powers(beta):
    # E_n = (1 - b^n) / (1 - b) = 1 + b + ... + b^(n - 1): each further sample of a class counts a little less.
    counts = [5000, 20, 0, 500]
    numbers = np.array([sum(beta**i for i in range(n)) for n in (5000, 20, 500)])
    got = weights(counts, "effective", beta=beta)
    assert np.allclose(got[[0, 1, 3]], 1 / numbers / (1 / numbers).mean(), rtol=1e-5)
    assert got[2] == 0


def test_effective_weights_have_two_known_limits():
    counts = [40_000_000, 900, 30]
    assert np.allclose(weights(counts, "effective", beta=0.0), 1)
    assert np.allclose(weights(counts, "effective", beta=1 - 1e-13), weights(counts, "inverse"), rtol=1e-3)
    own = weights(counts, "effective")
    assert np.isfinite(own).all()
    assert own[0] < own[1] < own[2]


def test_a_beta_that_nothing_uses_is_refused():
    with pytest.raises(ConfigError, match="no effect without class_weights: effective"):
        parse_config({"data": {"image": "i.tif"}, "train": {"effective_beta": 0.9}})
    assert parse_config({"data": {"image": "i.tif"}, "train": {"class_weights": "effective"}})


PATCHY = {"classes": ["town"], "share": 0.05, "copies": 5}


@pytest.fixture
def uneven(tiny, write_tif):
    """Field everywhere, a lake of a tenth, and three small towns of one percent together."""
    codes = np.full((96, 128), 1, "uint8")
    codes[:40, :32] = 2
    for row, col in ((20, 60), (60, 30), (70, 100)):
        codes[row : row + 6, col : col + 7] = 3
    rows, cols = np.mgrid[:96, :128]
    image = np.stack([rows + 1, cols + 1, codes * 50]).astype("uint16")
    tiny["data"] |= {
        "labels": write_tif("labels.tif", codes, nodata=0),
        "image": write_tif("image.tif", image, bands=["green", "red", "nir"]),
    }
    tiny["split"] = {"val": {"cols": [0, 8]}, "test": 0.0, "buffer_px": 4, "block_px": 16}
    return tiny


def drawn(raw, **train):
    """Labelled pixels of each class in an epoch of 300 windows of 16 px, and the windows."""
    config = parse_config(raw | {"train": {"size_px": 16, "seed": 2, **train}})
    scenes = open_scenes(config.data)
    split = make_split(scenes, config.split, size_px=16)
    spec = input_spec(scenes, split, normalise="none", size_px=16)
    found = survey(scenes, split, cell_px=8)
    names = scenes[0].legend.names
    sampling = plan_sampling(found.cell_px, method=config.train.sampling, rare=config.train.rare, names=names)
    data = TrainWindows(scenes, split, found.cells, spec, config.train, length=300, sampling=sampling, cache_bytes=1e9)
    items = [data[i] for i in range(300)]
    labels = np.concatenate([item["label"].ravel() for item in items])
    return np.bincount(labels[labels != IGNORE], minlength=3), items, (scenes, split, found, sampling)


def evenness(counts):
    """Entropy of the classes as a share of the largest."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(counts)))


def test_sampling_by_class_makes_the_classes_of_an_epoch_more_even(uneven):
    uniform, sqrt, balanced, rare = (
        drawn(uneven, **train)[0]
        for train in ({}, {"sampling": "sqrt"}, {"sampling": "balanced"}, {"rare": {"classes": ["water", "town"]}})
    )
    assert uniform[2] / uniform.sum() < 0.02
    assert evenness(uniform) + 0.1 < evenness(sqrt)
    assert evenness(sqrt) + 0.05 < evenness(balanced)
    assert evenness(uniform) + 0.1 < evenness(rare)
    assert balanced[2] / balanced.sum() > 5 * uniform[2] / uniform.sum()
    town, _, _ = drawn(uneven, rare=PATCHY)
    assert town[2] / town.sum() > 4 * uniform[2] / uniform.sum()


def test_cells_of_one_class_are_drawn_so_that_classes_are_exactly_even():
    cells = np.array([[64, 0, 0]] * 9 + [[0, 32, 0]] * 2 + [[0, 64, 0]])
    weights = plan_sampling(cells, method="balanced", names=list("abc")).weights
    assert np.allclose(weights, [1 / 18] * 9 + [1 / 8] * 2 + [1 / 4])
    root = np.sqrt([576, 128]) / np.sqrt([576, 128]).sum()
    weights = plan_sampling(cells, method="sqrt", names=list("abc")).weights
    assert np.allclose([weights[:9].sum(), weights[9:].sum()], root)
    rng = np.random.default_rng(0)
    sampling = plan_sampling(cells, method="balanced", names=list("abc"))
    picks = np.bincount([sampling.draw(rng) for _ in range(20_000)], minlength=12) / 20_000
    assert np.allclose(picks, sampling.weights, atol=0.01)


def test_copies_go_to_cells_above_the_share_alone():
    cells = np.array([[96, 4, 0], [95, 5, 0], [94, 6, 0], [0, 0, 1], [90, 5, 5]])
    sampling = plan_sampling(cells, rare=RareConfig(classes=["b", "c"], copies=3), names=list("abc"))
    assert sampling.copies.tolist() == [1, 1, 4, 4, 1]
    assert sampling.weights.tolist() == [1, 1, 4, 4, 1]
    assert sampling.notes == ("2 of 5 cells hold more than 5% of b, c: they count 4 times",)
    with pytest.raises(ConfigError, match="there is no class 'bb'"):
        plan_sampling(cells, rare=RareConfig(classes=["bb"]), names=list("abc"))
    with pytest.raises(ConfigError, match="no cell of the train part holds more than 50% of b"):
        plan_sampling(cells, rare=RareConfig(classes=["b"], share=0.5), names=list("abc"))


def test_copies_of_validation_never_enter_training(uneven):
    # A town on both sides of the border of train and val, and the images say where a pixel lies.
    uneven["split"]["val"] = {"cols": [0, 63]}
    counts, items, (scenes, split, found, sampling) = drawn(
        uneven, rare=PATCHY, sampling="balanced", augment={"scale": [0.8, 1.2], "rotation": 30}
    )
    allowed = split.labels(scenes[0], scenes[0].grid.window, "train")
    assert (allowed[:, : 63 + 4] == IGNORE).all()
    assert all(cell.window.col + cell.window.width > 63 + 4 for cell in found.cells)
    assert sampling.copies.max() == 6
    for item in items:
        _, col = item["sample"].image["image"][0, :2] - 1
        assert (col[item["label"] != IGNORE] > 63 + 3).all()
    assert counts[2] > 0


def test_an_epoch_is_longer_by_the_copies(uneven):
    from covermap.start import prepare_run
    from covermap.verbs.train import windows_per_epoch

    uneven["baseline"] = False
    lengths = {}
    for copies in (0, 5):
        train = {"size_px": 16, "batch_size": 1} | ({"rare": {**PATCHY, "copies": copies}} if copies else {})
        config = parse_config(uneven | {"train": train})
        ready = prepare_run(config)
        area = sum(
            cell.window.height * cell.window.width * (1 + copies * (px[2] / px.sum() > 0.05))
            for cell, px in zip(ready.survey.cells, ready.survey.cell_px, strict=True)
        )
        lengths[copies] = windows_per_epoch(config.train, ready)
        assert lengths[copies] == np.ceil(area / 256)
        assert any("they count 6 times" in note for note in ready.notes) == bool(copies)
    assert lengths[5] > lengths[0]


def gain(counts):
    return np.log1p(counts).sum()


def test_the_subset_is_the_greedy_one_and_near_the_best():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 50, (12, 4)) * (rng.random((12, 4)) < 0.5)
    chosen, left = [], list(range(12))
    for _ in range(5):  # plain greed, every gain computed anew
        best = max(left, key=lambda i: gain(counts[[*chosen, i]].sum(0)))
        chosen.append(best)
        left.remove(best)
    found = balanced_subset(counts, 5)
    assert found.tolist() == sorted(chosen)
    best = max(gain(counts[list(rows)].sum(0)) for rows in itertools.combinations(range(12), 5))
    assert gain(counts[found].sum(0)) >= (1 - 1 / np.e) * best


def test_chips_of_one_class_are_taken_evenly_as_long_as_there_are_some():
    # Chips of LUCAS Italy by class; the rarest have 20 and 25.
    chips = np.repeat(np.arange(10), [511, 178, 205, 704, 126, 57, 125, 43, 20, 25])
    counts = np.eye(10, dtype=int)[chips]
    taken = np.bincount(chips[balanced_subset(counts, 300)], minlength=10)
    assert taken[8] == 20
    assert taken[9] == 25
    assert np.ptp(np.delete(taken, [8, 9])) <= 1
    first, second = (balanced_subset(counts, 100, seed=seed) for seed in (0, 1))
    assert np.array_equal(first, balanced_subset(counts, 100, seed=0))
    assert not np.array_equal(first, second)
    assert set(balanced_subset(counts, 50)) <= set(first)
    assert balanced_subset(counts, 1994).tolist() == list(range(1994))
    with pytest.raises(ConfigError, match="3 of 2 is not possible"):
        balanced_subset(counts[:2], 3)


def test_a_split_keeps_the_train_blocks_whose_classes_are_most_even(uneven):
    def split_of(**split):
        config = parse_config(uneven | {"split": uneven["split"] | split})
        scenes = open_scenes(config.data)
        return make_split(scenes, config.split, size_px=16), scenes

    whole, scenes = split_of()
    thin, _ = split_of(balanced=0.4)
    before, after = part_counts(whole, scenes), part_counts(thin, scenes)
    assert np.array_equal(before["val"], after["val"])
    assert evenness(before["train"]) + 0.15 < evenness(after["train"])
    assert after["train"][2] == before["train"][2]  # all towns stay
    here = {tile.window for tile in thin.tiles if tile.part == "train"}
    assert here < {tile.window for tile in whole.tiles if tile.part == "train"}
    assert any("kept for even classes: town has" in note for note in thin.notes)
    with pytest.raises(ConfigError, match="a split file says itself who trains"):
        split_of(balanced=0.4, method="csv", path="split.csv")
