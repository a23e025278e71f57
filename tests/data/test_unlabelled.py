"""Windows without labels: a function of seed and number, outside of held-out parts, holding data."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.config import DataConfig
from covermap.core.errors import DataError
from covermap.data.scene import open_scenes
from covermap.data.split import Split, Tile
from covermap.data.unlabelled import Steps, UnlabelledWindows
from covermap.geo.grid import Window


@pytest.fixture
def scenes(write_tif):
    rows, cols = np.mgrid[:60, :80]
    image = np.stack([rows + 1, cols + 1]).astype("uint16")
    image[:, :, 60:] = 0
    return open_scenes(DataConfig(image=write_tif("a.tif", image, bands=["red", "nir"], nodata=0)))


def corner(drawn):
    first = drawn.sample.image["image"][0, :, 0, 0]
    return int(first[0]) - 1, int(first[1]) - 1


def test_a_window_follows_from_seed_and_number_held_or_not(scenes):
    held = UnlabelledWindows(scenes, size_px=16, seed=3, cache_bytes=1e9)
    read = UnlabelledWindows(scenes, size_px=16, seed=3)
    for number in (0, 7, 7, 1 << 40):
        a, b = held[number], read[number]
        assert a.seed == b.seed
        assert (a.sample.image["image"] == b.sample.image["image"]).all()
    assert held[1].seed != held[2].seed
    assert UnlabelledWindows(scenes, size_px=16, seed=4)[0].seed != read[0].seed


def test_windows_lie_evenly_and_hold_data_in_half_of_their_pixels(scenes):
    windows = UnlabelledWindows(scenes, size_px=16, seed=0, cache_bytes=1e9)
    drawn = [windows[i] for i in range(400)]
    assert min(one.sample.valid.mean() for one in drawn) >= 0.5
    rows = [corner(one)[0] for one in drawn if one.sample.valid.all()]
    assert min(rows) == 0
    assert max(rows) == 44
    assert 19 < np.mean(rows) < 25


def test_no_window_touches_what_is_held_out(scenes):
    parts = (Tile("a", Window(0, 0, 60, 30), "train"), Tile("a", Window(0, 30, 60, 50), "test"))
    windows = UnlabelledWindows(scenes, size_px=16, seed=0, split=Split(parts, 0))
    assert max(corner(windows[i])[1] for i in range(100)) <= 14
    nothing = Split((Tile("a", Window(0, 0, 60, 80), "val"),), 0)
    with pytest.raises(DataError, match="all ground is of the val and test parts"):
        UnlabelledWindows(scenes, size_px=16, seed=0, split=nothing)
    with pytest.raises(DataError, match="all touch the val or test part"):
        UnlabelledWindows(scenes, size_px=40, seed=0, split=Split(parts, 0))[0]


def test_ground_that_another_scene_scores_is_held_out_too(scenes):
    """Its pixels are of no part here: neither learnt from nor scored."""
    parts = (Tile("a", Window(0, 0, 60, 80), "train"), Tile("a", Window(0, 30, 60, 50), "test elsewhere"))
    windows = UnlabelledWindows(scenes, size_px=16, seed=0, split=Split(parts, 4))
    assert max(corner(windows[i])[1] for i in range(100)) <= 14


def test_scored_once_is_held_out_nevertheless(scenes):
    parts = (
        Tile("a", Window(0, 0, 60, 30), "train"),
        Tile("a", Window(0, 30, 60, 50), "test"),
        Tile("a", Window(0, 30, 30, 50), "none"),
    )
    windows = UnlabelledWindows(scenes, size_px=16, seed=0, split=Split(parts, 0))
    assert max(corner(windows[i])[1] for i in range(100)) <= 14


def test_scenes_are_drawn_by_their_free_ground(write_tif):
    """Also few among many that are held out, and one that is no larger than a window."""
    for number in range(40):
        write_tif(f"s/{number}.tif", np.full((1, 32, 32), number + 1, "uint16"), bands=["red"], nodata=0)
    path = write_tif("s/40.tif", np.full((1, 32, 64), 99, "uint16"), bands=["red"], nodata=0)
    scenes = open_scenes(DataConfig(image=path.replace("40.tif", "*.tif")))
    parts = tuple(Tile(s.name, s.grid.window, "train" if s.name in ("0", "40") else "test") for s in scenes)
    windows = UnlabelledWindows(scenes, size_px=32, seed=0, split=Split(parts, 0), cache_bytes=1e9)
    found = [int(windows[i].sample.image["image"].max()) for i in range(300)]
    assert set(found) == {1, 99}
    assert 170 < found.count(99) < 230


def test_a_scene_smaller_than_a_window_is_padded(scenes):
    sample = UnlabelledWindows(scenes, size_px=100, seed=0, cache_bytes=1e9)[0].sample
    assert sample.valid.shape == (1, 100, 100)
    assert sample.valid.sum() == 60 * 60
    with pytest.raises(DataError, match="windows of 120 px are mostly padding: the largest scene has 60 px"):
        UnlabelledWindows(scenes, size_px=120, seed=0)


def test_processes_share_the_windows_of_a_step():
    alone = list(Steps(2, 4, batch_size=4))
    two = [list(Steps(2, 4, batch_size=2, process=p, processes=2)) for p in (0, 1)]
    assert alone == list(range(8, 16))
    for step in (0, 1):
        together = [n for each in two for n in each[2 * step : 2 * step + 2]]
        assert together == alone[4 * step : 4 * step + 4]
