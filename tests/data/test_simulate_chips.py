"""LUCAS-like chips: the posterior is that of the pixels, no classifier beats it, the difficulty stays as committed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from covermap.core.config import DataConfig, SplitConfig
from covermap.core.errors import ConfigError, OutputError
from covermap.data import simulate_chips as chips
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.split import Split
from covermap.geo.grid import Window
from covermap.metrics.tradeoff import best_within, tradeoff

TAUS = np.arange(0, 1.51, 0.02)


def posterior_of_statistics(statistics: np.ndarray, prior: np.ndarray) -> np.ndarray:
    joint = chips.log_likelihood(statistics) + np.log(prior)
    return joint - np.logaddexp.reduce(joint, 1, keepdims=True)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Classes and log posterior of 20,000 chips beyond the training set, from their drawn statistics."""
    numbers = range(1994, 21_994)
    found = posterior_of_statistics(chips.draw_statistics(0, numbers), chips.PRIOR)
    return chips.chip_classes(0, numbers), found


def test_the_set_has_the_counts_of_the_source():
    classes = chips.chip_classes(3, range(2 * 1994))
    assert len(chips.PRIOR) == 10
    assert sum(chips.TRAIN_COUNTS) == 1595
    assert tuple(np.bincount(classes[:1595])) == chips.TRAIN_COUNTS
    assert tuple(np.bincount(classes[1994:])) == chips.CLASS_COUNTS
    assert (classes[:1994] != classes[1994:]).any()


def test_a_chip_is_a_function_of_seed_and_number():
    one = chips.draw_chips(5, [7, 9_000, 8])
    assert one.dtype == np.float32
    assert np.array_equal(one[1], chips.draw_chips(5, [9_000])[0])
    digests = {hashlib.md5(chip.tobytes()).hexdigest() for chip in [*one, *chips.draw_chips(6, [7, 9_000, 8])]}
    assert len(digests) == 6


@pytest.mark.parametrize("size_px", [8, 32, 45])
def test_pixels_tell_exactly_what_the_statistics_tell(size_px):
    numbers = range(60)
    drawn, pixels = chips.draw_statistics(1, numbers), chips.draw_chips(1, numbers, size_px=size_px)
    assert chips.measure_statistics(pixels) == pytest.approx(drawn, abs=1e-5)
    prior = np.roll(chips.PRIOR, 3)
    expected = posterior_of_statistics(drawn, prior)
    assert chips.bayes_log_posterior(pixels, prior) == pytest.approx(expected, abs=1e-4)
    assert np.logaddexp.reduce(expected, 1) == pytest.approx(0, abs=1e-12)


def test_what_the_statistics_leave_out_does_not_know_the_class():
    """Texture of unit energy has the same covariance over bands, and over neighbours, in the roughest and smoothest."""
    classes = chips.chip_classes(0, range(4000))
    found = []
    for code in (2, 6):  # grass is smooth, artificial is rough
        numbers = np.flatnonzero(classes == code)[:160].tolist()
        log = np.log(chips.draw_chips(0, numbers).astype(np.float64))
        transform, parts, _ = chips._basis(32)
        waves = transform @ log @ transform.T
        fine = transform.T @ (waves * parts[1]) @ transform
        fine /= np.sqrt((fine**2).mean((1, 2, 3), keepdims=True))
        beside = (fine[..., 1:] * fine[..., :-1]).mean()
        found.append([*np.einsum("naij,nbij->ab", fine, fine).ravel() / fine[:, 0].size, beside])
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_the_posterior_is_calibrated(drawn):
    classes, log_posterior = drawn
    each = np.exp(log_posterior)
    for code, share in enumerate(each.mean(0)):
        assert share == pytest.approx((classes == code).mean(), abs=0.005)
    sure, right = each.max(1), each.argmax(1) == classes
    bins = np.minimum((sure * 15).astype(int), 14)
    error = sum(abs(sure[bins == b].sum() - right[bins == b].sum()) for b in range(15)) / len(classes)
    assert error < 0.012  # 20,000 draws of a calibrated posterior leave about 0.009


def test_the_difficulty_is_as_committed(drawn):
    """Bayes rule: accuracy 0.655, macro recall 0.49; 3 points of accuracy buy 7 points of macro recall."""
    classes, log_posterior = drawn
    rows = tradeoff(log_posterior, classes, chips.PRIOR, TAUS)
    assert rows[0].accuracy == pytest.approx(0.655, abs=0.012)
    assert rows[0].macro_recall == pytest.approx(0.49, abs=0.02)
    assert 0.055 < best_within(rows, 0.03).macro_recall - rows[0].macro_recall < 0.085


def test_the_written_set_is_read_with_its_split(tmp_path):
    path = chips.write_chips(tmp_path / "set", seed=2, size_px=8, num_train=60, num_val=30, num_test=40)
    scenes = open_scenes(DataConfig.model_validate({"source": "lucas", "root": str(path.parent)}))
    split = Split.load(path)
    assert len(scenes) == 60 + 70
    assert len(split.windows("44000059", "train")) == len(split.windows("44000060", "val")) == 1
    assert len(split.windows("44000090", "test")) == 1
    scene = scenes[100]
    image = scene.read(Window(0, 0, 8, 8)).image["hls"]
    assert np.array_equal(np.asarray(image)[0], chips.draw_chips(2, [100], size_px=8)[0])
    assert (scene.read_labels(scene.grid.window) == chips.chip_classes(2, [100])[0]).all()
    made = make_split(scenes, SplitConfig(method="csv", path=str(path)), size_px=8)
    assert {tile.part for tile in made.tiles} == {"train", "val", "test"}
    with pytest.raises(OutputError, match="exists already"):
        chips.write_chips(path.parent)


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="hold no texture"):
        chips.draw_chips(0, [0], size_px=4)
    with pytest.raises(ConfigError, match="hold no texture"):
        chips.write_chips(tmp_path / "set", size_px=4)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="-1 to select"):
        chips.write_chips(tmp_path / "set", num_val=-1)
    for wrong in (
        np.zeros((2, 6, 32, 32)),
        np.ones((6, 32, 32)),
        np.ones((1, 6, 32, 16)),
        np.full((1, 6, 8, 8), np.nan),
    ):
        with pytest.raises(ConfigError, match="reflectance"):
            chips.bayes_log_posterior(wrong.astype(np.float32))
    for prior in (0.5, [1.0], [0.0] + [0.1] * 9):
        with pytest.raises(ConfigError, match="prior"):
            chips.bayes_log_posterior(chips.draw_chips(0, [0]), prior)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "logistic", "forest"])
def test_no_classifier_beats_the_bayes_rule(drawn, kind):
    """Trained on 100,000 further chips' statistics; the best comes within 1.5 points and none lies above the noise."""
    classes, log_posterior = drawn
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = {
        "network": MLPClassifier((64, 64), early_stopping=True, n_iter_no_change=3, random_state=0),
        "logistic": LogisticRegression(max_iter=500),
        "forest": RandomForestClassifier(100, min_samples_leaf=5, random_state=0),
    }[kind]
    train, test = range(100_000, 200_000), range(1994, 21_994)
    fitted = make_pipeline(StandardScaler(), model)
    fitted.fit(chips.draw_statistics(0, train), chips.chip_classes(0, train))
    right = fitted.predict(chips.draw_statistics(0, test)) == classes
    best = log_posterior.argmax(1) == classes
    noise = (right.astype(float) - best).std() / len(classes) ** 0.5
    assert right.mean() < best.mean() + 2 * noise
    if kind == "network":
        assert right.mean() > best.mean() - 0.015
