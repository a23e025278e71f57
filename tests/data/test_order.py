"""Order of windows: every cell as often as without, near windows near in time, batches mixed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from covermap.core.config import DataConfig
from covermap.core.train_config import TrainConfig
from covermap.core.types import InputSpec, SensorInput
from covermap.data.chips import TrainWindows, survey
from covermap.data.order import AT_ONCE, plan_order
from covermap.data.scene import open_scenes
from covermap.data.split import Split, Tile
from covermap.geo.grid import Window, partition

SPEC = InputSpec((SensorInput("rgb", ("red", "green", "blue"), (0.0,) * 3, (1.0,) * 3),))


@pytest.fixture
def make_scenes(write_tif):
    def make(height=640, width=768, block=64, **extra):
        rng = np.random.default_rng(0)
        extra = {"compress": "deflate", "tiled": True, "blockxsize": block, "blockysize": block} | extra
        image = write_tif(
            "i.tif", rng.integers(1, 255, (3, height, width)).astype("uint8"), bands=SPEC.sensors[0].bands, **extra
        )
        labels = write_tif("l.tif", rng.integers(1, 3, (height, width)).astype("uint8"), nodata=0)
        return open_scenes(DataConfig(image=image, labels=labels, sensor="rgb"))

    return make


def cells_of(scene):
    return [(0, cell) for cell in partition(scene.grid.window, 32, 32)]


def test_over_an_epoch_cells_are_drawn_by_their_weights(make_scenes):
    (scene,) = make_scenes()
    cells = cells_of(scene)
    weights = np.random.default_rng(3).uniform(0.2, 3, len(cells))
    order = plan_order([scene], cells, weights, size_px=32)
    counts, rng = np.zeros(len(cells)), np.random.default_rng(5)
    for region in order.epoch(120_000, [1, 2]):
        counts[order.regions[region].draw(rng)] += 1
    share, wanted = counts / counts.sum(), weights / weights.sum()
    assert np.corrcoef(share, wanted)[0, 1] > 0.97
    # The outermost cells too, which a careless choice of regions would draw less.
    edge = np.array([0 in (cell.row, cell.col) for _, cell in cells])
    assert share[edge].sum() == pytest.approx(wanted[edge].sum(), rel=0.05)


def test_a_batch_draws_from_many_blocks_and_few_are_open(make_scenes):
    (scene,) = make_scenes()
    order = plan_order([scene], cells_of(scene), np.ones(20 * 24), size_px=48)
    regions = order.epoch(1600, [0, 0])
    for batch in regions.reshape(-1, 16):
        blocks = {
            (row, col)
            for region in batch
            for row in range(order.regions[region].window.row, sum(order.regions[region].window[0::2]), 64)
            for col in range(order.regions[region].window.col, sum(order.regions[region].window[1::2]), 64)
        }
        assert len(set(batch.tolist())) >= AT_ONCE // 2
        assert len(blocks) >= 8
    batches = [set(batch) for batch in regions.reshape(-1, 16).tolist()]
    changes = sum(len(new - old) for old, new in itertools.pairwise(batches))
    assert changes < 0.5 * len(regions)


def test_windows_lie_in_their_region_and_the_epoch_decides(make_scenes):
    scenes = make_scenes()
    split = Split((Tile(scenes[0].name, scenes[0].grid.window, "train"),), 0)
    found = survey(scenes, split, cell_px=16)
    data = TrainWindows(scenes, split, found.cells, SPEC, TrainConfig(size_px=48, seed=4), length=60)
    data.start(3)
    first = [data[i]["sample"].key for i in range(60)]
    assert first == [data[i]["sample"].key for i in reversed(range(60))][::-1]
    for number, key in enumerate(first):
        row, col = map(int, key.rpartition(":")[2].split(","))
        region = data._order.regions[data._regions[number]].window
        assert Window(row, col, 48, 48).intersect(region) == (row, col, 48, 48)
    data.start(4)
    assert first != [data[i]["sample"].key for i in range(60)]


def test_plain_files_and_held_scenes_need_no_order(make_scenes):
    scenes = make_scenes(compress=None)
    assert plan_order(scenes, cells_of(scenes[0]), np.ones(20 * 24), size_px=48) is None
    scenes = make_scenes()
    split = Split((Tile(scenes[0].name, scenes[0].grid.window, "train"),), 0)
    found = survey(scenes, split)
    held = TrainWindows(scenes, split, found.cells, SPEC, TrainConfig(size_px=48), length=4, cache_bytes=1e9)
    assert held._order is None


@pytest.mark.parametrize("size", [(48, 48), (30, 400), (64, 70)])
def test_small_and_narrow_scenes_are_left_after_as_many_windows_as_fit(make_scenes, size):
    (scene,) = make_scenes(*size, tiled=False, blockxsize=None, blockysize=None)
    cells = cells_of(scene)
    order = plan_order([scene], cells, np.ones(len(cells)), size_px=48)
    assert {region.visit for region in order.regions} <= set(range(1, 1 + max(1, size[0] * size[1] // 48**2)))
    split = Split((Tile(scene.name, scene.grid.window, "train"),), 0)
    data = TrainWindows([scene], split, survey([scene], split).cells, SPEC, TrainConfig(size_px=48), length=9)
    assert all(data[i]["label"].shape == (48, 48) for i in range(9))
