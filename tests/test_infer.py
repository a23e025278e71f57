from dataclasses import replace

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covermap.core.legend import Legend
from covermap.core.train_config import PredictConfig
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.data.scene import Scene
from covermap.geo.grid import Grid, Window
from covermap.geo.raster import open_raster
from covermap.infer import Lattice, answers_of, blend_weights, infer_block
from covermap.models import LandModel, NetworkModel
from covermap.nn.build import build_model

LEGEND = Legend.from_dict({1: "a", 2: "b", 3: "c"})
SPEC = InputSpec((SensorInput("image", ("red",), (0.0,), (1.0,), clip=1e9),))


class EdgeModel(LandModel):
    """Probabilities that depend on the pixel and on how far it lies from its window's edge, so that blending shows."""

    kind = "test"
    windows_seen = 0

    def __init__(self):
        super().__init__(SPEC, LEGEND, {})

    def arrays(self):
        return {}

    def answers(self, batch):
        x = batch.image["image"][:, 0, 0].numpy()
        self.windows_seen += len(x)
        _, h, w = x.shape
        edge = np.minimum(np.arange(h)[:, None], np.arange(w)[None]) / max(h, w)
        first = (x % 7) / 14 + edge[None] / 4
        return np.stack([first, (1 - first) / 2, (1 - first) / 2], 1).astype(np.float32)


@pytest.fixture
def scene(write_tif):
    def make(height, width, nodata_block=None, dtype="float32"):
        values = np.random.default_rng(1).integers(1, 100, (height, width)).astype(dtype)
        if nodata_block is not None:
            values[nodata_block.slices] = -1
        raster = open_raster(write_tif(f"{height}_{width}.tif", values, bands=["red"], nodata=-1))
        return Scene("s", raster.grid, {"image": raster})

    return make


def whole(scene, lattice, block_px, model=None):
    model = model or EdgeModel()
    area = lattice.area
    out = np.full((3, area.height, area.width), np.nan, np.float32)
    valid = np.zeros((area.height, area.width), bool)
    count = np.zeros((area.height, area.width), int)
    for block in lattice.blocks(block_px):
        for strip in infer_block(model, scene, lattice, block, batch_size=3):
            rows, cols = strip.window.within(area).slices
            out[:, rows, cols], valid[rows, cols] = strip.answers, strip.valid
            count[rows, cols] += 1
    assert (count == 1).all()
    return out, valid


@given(st.integers(1, 400), st.integers(1, 64), st.data())
@settings(max_examples=60)
def test_weights_sum_to_one_in_every_pixel(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    lattice = Lattice(Window(0, 0, length, 5), size, overlap)
    total = np.zeros(length)
    for start, weight in zip(lattice.rows, lattice.row_weights, strict=True):
        total[start : start + lattice.height] += weight
    assert np.allclose(total, 1, atol=1e-6)
    assert lattice.row_weights.min() >= 0


def test_a_window_counts_less_towards_its_neighbour():
    weights = blend_weights([0, 6], 10)
    assert np.allclose(weights[0], [1] * 6 + [0.875, 0.625, 0.375, 0.125])
    assert np.allclose(weights[1], [0.125, 0.375, 0.625, 0.875] + [1] * 6)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 64), st.integers(16, 128))
@settings(max_examples=40)
def test_blocks_partition_the_area(height, width, size, block):
    area = Window(3, 5, height, width)
    seen = np.zeros((height, width), int)
    for core in Lattice(area, size, size // 4).blocks(block):
        seen[core.within(area).slices] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("shape", [(100, 130), (64, 64), (33, 200), (7, 90), (1, 50), (65, 31)])
def test_probabilities_do_not_depend_on_the_blocks(scene, shape):
    place = scene(*shape)
    lattice = Lattice(place.grid.window, 32, 6)
    expected, _ = whole(place, lattice, 10_000)
    for block_px in (30, 55, 80):
        got, _ = whole(place, lattice, block_px)
        assert np.array_equal(got, expected)


def test_a_scene_of_one_window_equals_the_model_itself(scene):
    place = scene(20, 27)
    got, valid = whole(place, Lattice(place.grid.window, 32, 6), 64)
    model = EdgeModel()
    from covermap.data.chips import image_batch

    assert np.array_equal(got, model.answers(image_batch([place.read(place.grid.window)], SPEC))[0])
    assert valid.all()


def test_the_blend_is_the_weighted_mean_of_the_windows(scene):
    place = scene(40, 50)
    lattice = Lattice(place.grid.window, 20, 8)
    got, _ = whole(place, lattice, 1000)
    from covermap.data.chips import image_batch

    total, weight = np.zeros((3, 40, 50)), np.zeros((40, 50))
    for i, row in enumerate(lattice.rows):
        for j, col in enumerate(lattice.cols):
            one = EdgeModel().answers(image_batch([place.read(Window(row, col, 20, 20))], SPEC))[0]
            w = np.outer(lattice.row_weights[i], lattice.col_weights[j])
            total[:, row : row + 20, col : col + 20] += one * w
            weight[row : row + 20, col : col + 20] += w
    assert np.allclose(got, total / weight, atol=1e-5)


def test_nodata_comes_back_as_not_valid_and_empty_windows_are_not_computed(scene):
    hole = Window(0, 0, 64, 128)
    place = scene(128, 128, hole)
    model = EdgeModel()
    _, valid = whole(place, Lattice(place.grid.window, 32, 0), 64, model)
    assert not valid[hole.slices].any()
    assert valid[64:].all()
    assert model.windows_seen == 8


def test_nan_and_inf_pixels_are_not_valid_and_do_not_spread(write_tif):
    values = np.ones((40, 40), "float32")
    values[5, 5], values[30, 30] = np.nan, np.inf
    raster = open_raster(write_tif("n.tif", values, bands=["red"]))
    place = Scene("s", raster.grid, {"image": raster})
    got, valid = whole(place, Lattice(place.grid.window, 16, 4), 100)
    assert (~valid).sum() == 2
    assert np.isfinite(got).all()


def test_only_wanted_pixels_cost_windows(scene):
    place = scene(128, 128)
    model = EdgeModel()
    lattice = Lattice(place.grid.window, 32, 0)
    wanted = np.zeros((128, 128), bool)
    wanted[40, 100] = True
    strips = list(infer_block(model, place, lattice, place.grid.window, wanted=lambda w: wanted[w.slices]))
    assert model.windows_seen == 1
    assert sum(int(s.valid.sum()) for s in strips) == 1


def test_the_default_overlap_costs_at_most_two_fifths_more_windows(scene):
    large = replace(scene(8, 8), grid=Grid(None, Affine.identity(), 4096, 4096))
    lattice = Lattice.of(large, EdgeModel(), PredictConfig())
    num = 0
    for block in lattice.blocks(2048):
        rows = sum(r < block.row + block.height and r + 256 > block.row for r in lattice.rows)
        cols = sum(c < block.col + block.width and c + 256 > block.col for c in lattice.cols)
        num += rows * cols
    assert lattice.overlap_px >= 16
    assert num <= 1.4 * 16 * 16


class PlaceModel(EdgeModel):
    """Keeps where its windows lie."""

    def __init__(self):
        super().__init__()
        self.places = {}

    def answers(self, batch):
        shares = super().answers(batch)
        for x, place in zip(batch.image["image"][:, 0, 0], batch.location, strict=True):
            self.places[float(x[0, 0]), float(x[-1, -1])] = tuple(place.tolist())
        return shares


@pytest.mark.parametrize("block_px", [16, 32, 400])
def test_every_window_has_its_own_place_whatever_the_block(scene, block_px):
    """The peer passes one location for all tiles (checkpoints.md, defect 4)."""
    made = scene(90, 70)
    model = PlaceModel()
    windows = Lattice(made.grid.window, 32, 8)
    whole(made, windows, block_px, model)
    values = made.read(made.grid.window).image["image"][0, 0]
    expected = {
        (values[r, c], values[r + 31, c + 31]): made.grid.lat_lon(Window(r, c, 32, 32))
        for r in windows.rows
        for c in windows.cols
    }
    assert len(model.places) == len(expected)
    for key, place in expected.items():
        assert model.places[key] == pytest.approx(place, abs=1e-5)


@pytest.mark.parametrize(("tta", "shape", "same"), [
    ("d4", (24, 24), [lambda x: np.rot90(x, 1, (-2, -1)), lambda x: x[..., ::-1], lambda x: np.swapaxes(x, -1, -2)]),
    ("d4", (24, 16), [lambda x: x[..., ::-1], lambda x: x[..., ::-1, :]]),
    ("flips", (24, 24), [lambda x: x[..., ::-1], lambda x: x[..., ::-1, :]]),
])  # fmt: skip
def test_answers_averaged_over_symmetries_turn_with_the_image(tta, shape, same):
    """An untrained network says something else of a mirrored image; the mean over all symmetries does not."""
    torch.manual_seed(0)
    spec = InputSpec((SensorInput("image", ("a", "b"), (0.0, 0.0), (1.0, 1.0)),), 10.0, 24)
    network = build_model(spec, 3, backbone_options={"widths": [4, 8]})
    model = NetworkModel(spec, LEGEND, network, {})
    random = np.random.default_rng(0)
    image, valid = random.normal(0, 1, (1, 1, 2, *shape)).astype("float32"), random.random((1, 1, *shape)) < 0.9

    def answers(turn, tta):
        made = {"image": torch.from_numpy(np.ascontiguousarray(turn(image)))}
        return answers_of(model, Batch(made, torch.from_numpy(np.ascontiguousarray(turn(valid)))), tta)

    for turn in same:
        assert np.allclose(answers(turn, tta), turn(answers(lambda x: x, tta)), atol=1e-5)
        assert not np.allclose(answers(turn, "none"), turn(answers(lambda x: x, "none")), atol=1e-3)
    assert np.allclose(answers(lambda x: x, tta).sum(1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def constant():
    """A model that gives the same answer everywhere."""
    model = EdgeModel()
    model.answers = lambda batch: np.broadcast_to(
        np.array([0.2, 0.5, 0.3], np.float32)[:, None, None], (len(batch.valid), 3, *batch.valid.shape[-2:])
    )
    return model


@given(st.integers(1, 120), st.integers(1, 120), st.integers(8, 40), st.integers(8, 90), st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_constant_stays_one_and_every_pixel_is_told(scene, constant, height, width, size, block_px, data):
    place = scene(height, width)
    lattice = Lattice(place.grid.window, size, data.draw(st.integers(0, size - 1)))
    found, valid = whole(place, lattice, block_px, constant)
    assert valid.all()
    assert np.allclose(found, np.array([0.2, 0.5, 0.3])[:, None, None], atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.data())
@settings(max_examples=40)
def test_weights_of_windows_sum_to_one_in_both_directions(height, width, size, data):
    lattice = Lattice(Window(7, 3, height, width), size, data.draw(st.integers(0, size // 2)))
    rows, cols = np.zeros(height), np.zeros(width)
    for total, starts, first, weights in (
        (rows, lattice.rows, 7, lattice.row_weights),
        (cols, lattice.cols, 3, lattice.col_weights),
    ):
        for start, weight in zip(starts, weights, strict=True):
            total[start - first : start - first + len(weight)] += weight
    assert np.allclose(np.outer(rows, cols), 1, atol=1e-5)
