"""The leak meter: a gap where neighbours look alike, none where they do not."""

import numpy as np
import pytest

from covermap.core.config import DataConfig, SplitConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import LabelError
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.stats import input_spec
from covermap.verbs import leaks
from covermap.verbs.check import check

pytest.importorskip("sklearn")
SIDE = 128


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(leaks, "TREES", 15)
    monkeypatch.setattr(leaks, "MAX_PX", 2500)


def fields(cell_px, seed):
    """codes (H, W) of three classes in square fields, and an image (2, H, W) in which every field has its own shade."""
    rng = np.random.default_rng(seed)
    cells = SIDE // cell_px
    codes = rng.integers(1, 4, (cells, cells))
    shade = np.array([80, 100, 120])[codes - 1] + rng.normal(0, 40, (2, cells, cells))
    grow = np.ones((cell_px, cell_px))
    image = np.stack([np.kron(band, grow) for band in shade]) + rng.normal(0, 5, (2, SIDE, SIDE))
    return np.kron(codes, grow).astype("uint8"), np.clip(image, 1, 255).astype("uint8")


def measured(write_tif, codes, image, **split):
    raw = {
        "data": {
            "image": write_tif("image.tif", image, bands=["red", "nir"]), "labels": write_tif("labels.tif", codes),
            "legend": {1: "wood", 2: "lake", 3: "town"},
        },
        "split": {"block_px": 16, "buffer_px": 2, **split},
    }  # fmt: skip
    config = parse_config(raw)
    scenes = open_scenes(config.data)
    spec = input_spec(scenes, make_split(scenes, config.split, size_px=32), normalise="dataset", size_px=32)
    return leaks.measure_leaks(config.split, scenes, spec, size_px=32), raw


@pytest.mark.parametrize("seed", [0, 1])
def test_fields_with_a_shade_of_their_own_leak(write_tif, seed):
    found, _ = measured(write_tif, *fields(8, seed))
    assert found["leaks"]
    assert found["gap_oa"] > 0.15
    assert 0 < found["gap_low"] < found["gap_oa"] < found["gap_high"]
    assert found["gap_oa"] == pytest.approx(found["random_oa"] - found["blocked_oa"])
    assert "too good" in found["told"]
    assert found["repeats"] == 8


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_pixels_that_know_nothing_of_each_other_do_not_leak(write_tif, seed):
    found, _ = measured(write_tif, *fields(1, seed))
    assert not found["leaks"]
    assert found["gap_low"] < 0 < found["gap_high"]
    assert abs(found["gap_oa"]) < 0.03
    assert "no leak" in found["told"]


def test_the_method_of_the_config_changes_little_and_check_measures_when_asked(write_tif):
    codes, image = fields(8, 0)
    found, raw = measured(write_tif, codes, image)
    again, _ = measured(write_tif, codes, image, method="kfold", folds=3)
    assert again["gap_oa"] == pytest.approx(found["gap_oa"], abs=0.03)
    ticks = []
    checked = check(parse_config(raw | {"baseline": False}), leaks=True, on_progress=lambda *at: ticks.append(at))
    assert ticks[-1] == (8, 8)
    assert checked["leaks"]["leaks"]
    assert "leaks" not in check(parse_config(raw | {"baseline": False}))


def test_the_interval_is_students_t_with_the_variance_of_shared_pixels():
    gaps = np.array([0.1, 0.2, 0.3, 0.2])
    random, blocked = np.stack([0.5 + gaps, gaps], 1), np.stack([0.5 + 0 * gaps, gaps], 1)
    found = leaks._summary(random, blocked, 1 / 3)
    half = 3.182446 * gaps.std(ddof=1) * np.sqrt(1 / 4 + 1 / 3)
    assert (found["gap_low"], found["gap_high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)
    assert found["gap_oa"] == pytest.approx(0.2)


def test_a_draw_by_lot_keeps_the_sizes_and_moves_chips_whole(write_tif, tmp_path):
    rows = []
    for i in range(60):
        place = np.random.default_rng(i).normal(0.5, 0.2, (6, 1, 1))
        noise = np.random.default_rng(100 + i).normal(0, 0.01, (6, 16, 16))
        write_tif(f"{1 + i % 2}/{i}.tif", (place + noise).astype("float32"), origin=(500_000 + 2000 * i, 5_000_000))
        rows.append(f"{i},{1 + i % 2}")
    (tmp_path / "chips_LC_class.csv").write_text("Point_ID,STR18\n" + "\n".join(rows) + "\n")
    scenes = open_scenes(DataConfig(source="lucas", root=str(tmp_path)))
    split = make_split(scenes, SplitConfig(), size_px=16)
    spec = input_spec(scenes, split, normalise="dataset", size_px=16)
    pixels = leaks.sample_pixels(scenes, spec, max_px=leaks.MAX_PX)
    parts = leaks._by_blocks(SplitConfig(), scenes, pixels, 16, 0)
    drawn = leaks._by_lot(pixels, parts, 0)
    for chip in np.unique(pixels.window):
        assert len(np.unique(drawn[pixels.window == chip])) == 1
    assert ((drawn > 0) == (parts > 0)).all()
    assert abs((drawn == leaks.TEST).sum() - (parts == leaks.TEST).sum()) <= 256
    # Chips far from each other do not know each other: drawn by lot or by blocks, both are whole chips.
    assert not leaks.measure_leaks(SplitConfig(), scenes, spec, size_px=16)["leaks"]


def test_labels_that_blocks_cannot_divide_are_refused(write_tif):
    codes, image = fields(8, 0)
    with pytest.raises(LabelError, match="too few to measure leaks"):
        measured(write_tif, codes, image, val=0.0, test={"cols": [0, 40]}, block_px=SIDE)
