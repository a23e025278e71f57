"""Places unlike the training data: a shifted region is told from one that is not, and cells are means of what is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from covermap.core.errors import DataError, ModelError
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.data.simulate import BANDS, SceneRecipe, SimulatedScene
from covermap.geo.grid import Window
from covermap.metrics.binary import auc
from covermap.ml.applicability import CELL_PX, Applicability, cell_means

SPEC = InputSpec((SensorInput("s", BANDS, (0.15,) * 6, (0.1,) * 6),))


def cells_of(side=512, **recipe):
    """Cell means (N, 6) of a generated scene."""
    scene = SimulatedScene(SceneRecipe(height=side, width=side, **recipe))
    image = scene.optical(Window(0, 0, side, side)).astype(np.float32) / 1e4
    batch = Batch({"s": torch.from_numpy((image[None, None] - 0.15) / 0.1)}, torch.ones(1, 1, side, side, dtype=bool))
    return cell_means(batch, SPEC).reshape(-1, 6)


@pytest.fixture(scope="module")
def fitted():
    home = cells_of(seed=0)
    return Applicability.fit(home[::2], np.arange(len(home[::2])), home[1::2])


def histogram(values):
    """Counts of distances, as `auc` takes them."""
    return np.histogram(np.minimum(values, 9.99), bins=2000, range=(0, 10))[0]


@pytest.mark.parametrize("region", ["b", "c", "d"])
def test_a_shifted_region_is_told_from_another_landscape_of_the_same(fitted, region):
    usual, shifted = (fitted.distances(cells_of(seed=s, **r)) for s, r in
                      ((11, {}), (13, {"region": region, "region_shift": 1.0})))  # fmt: skip
    assert auc(histogram(usual), histogram(shifted)) > 0.9
    assert (usual > 1).mean() < 0.12
    assert (shifted > 1).mean() > 0.7


def test_what_was_seen_is_near(fitted):
    home = cells_of(seed=0)
    assert fitted.distances(home[::2]).max() < 0.05
    assert (fitted.distances(home[1::2]) > 1).mean() == pytest.approx(0.05, abs=0.005)


def test_without_a_part_held_out_places_are_compared_with_each_other():
    random = np.random.default_rng(0)
    places = np.repeat(np.arange(50), 4)
    cells = random.normal(size=(50, 3))[places] + 0.01 * random.normal(size=(200, 3))
    found = Applicability.fit(cells, places, np.empty((0, 3)))
    alone = Applicability.fit(cells, np.arange(200), np.empty((0, 3)))
    assert found.bound > 5 * alone.bound  # cells of one place are alike, which says nothing of others


def test_too_few_cells_are_refused():
    with pytest.raises(DataError, match="30 cells"):
        Applicability.fit(np.zeros((30, 2)), np.arange(30), np.zeros((30, 2)))


def test_constant_bands_do_not_count():
    random = np.random.default_rng(0)
    cells = np.column_stack([random.normal(size=200), np.full(200, 0.3)])
    found = Applicability.fit(cells[:100], np.arange(100), cells[100:])
    alone = Applicability.fit(cells[:100, :1], np.arange(100), cells[100:, :1])
    assert np.allclose(found.distances(cells), alone.distances(cells[:, :1]), atol=0.01)


def test_cells_are_means_of_valid_pixels_and_the_rest_counts_with_the_last():
    random = np.random.default_rng(0)
    values, valid = random.normal(size=(2, 1, 6, 40, 50)).astype(np.float32), random.random((2, 1, 40, 50)) < 0.7
    values *= valid[:, :, None]
    found = cell_means(Batch({"s": torch.from_numpy(values)}, torch.from_numpy(valid)), SPEC)
    assert found.shape == (2, 2, 3, 6)
    for b, (i, rows), (j, cols) in (
        (1, (1, slice(16, 40)), (2, slice(32, 50))),
        (0, (0, slice(0, 16)), (1, slice(16, 32))),
    ):
        mean = values[b, 0, :, rows, cols].sum((1, 2)) / valid[b, 0, rows, cols].sum()
        assert np.allclose(found[b, i, j], mean, atol=1e-6)


def test_a_cell_with_few_pixels_is_that_of_all_around():
    values, valid = np.ones((1, 1, 6, 48, 48), np.float32), np.ones((1, 1, 48, 48), bool)
    valid[..., 16:32, 16:32] = False
    valid[..., 16, 16] = True
    values *= valid[:, :, None]
    values[..., 16, 16] = 1000  # a single odd pixel, at the border of what is not there
    found = cell_means(Batch({"s": torch.from_numpy(values)}, torch.from_numpy(valid)), SPEC)
    assert found[0, 1, 1, 0] == pytest.approx((8 * CELL_PX**2 + 1000) / (8 * CELL_PX**2 + 1))
    assert found[0, 0, 0, 0] == 1


def test_several_sensors_and_dates_and_one_that_is_missing():
    spec = InputSpec((SensorInput("a", ("x", "y"), (0.0,) * 2, (1.0,) * 2, num_dates=3),
                      SensorInput("b", ("z",), (0.0,), (1.0,), optional=True)))  # fmt: skip
    valid = torch.ones(1, 3, 32, 32, dtype=bool)
    image = {"a": torch.arange(6.0).reshape(1, 3, 2, 1, 1).expand(1, 3, 2, 32, 32).contiguous(),
             "b": torch.full((1, 1, 1, 32, 32), 7.0)}  # fmt: skip
    assert cell_means(Batch(image, valid), spec)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 7]
    del image["b"]
    assert cell_means(Batch(image, valid), spec)[0, 1, 1].tolist() == [0, 1, 2, 3, 4, 5, 0]


def test_pixels_get_the_distance_of_their_cell(fitted):
    scene = SimulatedScene(SceneRecipe(height=72, width=40))
    image = (scene.optical(Window(0, 0, 72, 40)).astype(np.float32) / 1e4 - 0.15) / 0.1
    batch = Batch({"s": torch.from_numpy(image[None, None])}, torch.ones(1, 1, 72, 40, dtype=bool))
    found = fitted.of_batch(batch, SPEC)
    each = fitted.distances(cell_means(batch, SPEC).reshape(-1, 6)).reshape(4, 2)
    assert found.shape == (1, 72, 40)
    assert found[0, 71, 39] == each[3, 1]
    assert found[0, 17, 15] == each[1, 0]


def test_saved_and_damaged(fitted, tmp_path):
    path = tmp_path / "applicability.safetensors"
    with pytest.raises(ModelError, match="does not know what it was trained on"):
        Applicability.load(path)
    fitted.save(path)
    cells = cells_of(seed=3, side=64)
    assert np.array_equal(Applicability.load(path).distances(cells), fitted.distances(cells))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        Applicability.load(path)
