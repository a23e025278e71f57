import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.train_config import AugmentConfig, TrainConfig
from covermap.core.types import InputSpec, Sample, SensorInput
from covermap.data.augment import Warp, flip, require_effect, vary
from covermap.data.chips import TrainWindows, collate, survey
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.stats import input_spec

ONE = InputSpec((SensorInput("s", ("a", "b"), (0.0, 0.0), (1.0, 1.0)),))
RADAR = InputSpec((SensorInput("sentinel1", ("vv", "angle", "vh"), (-11.0, 38.0, -18.0), (4.0, 3.0, 5.0)),))


@pytest.mark.parametrize("symmetry", range(8))
def test_image_mask_and_label_stay_together(symmetry):
    rows, cols = np.mgrid[:6, :6]
    sample = Sample(
        {"s": np.stack([rows, cols])[None]}, (rows + cols)[None] % 3 == 0, (rows * 6 + cols).astype(np.uint8)
    )
    turned = flip(sample, symmetry)
    image = turned.image["s"][0]
    assert np.array_equal(image[0] * 6 + image[1], turned.label)
    assert np.array_equal(turned.valid[0], (image[0] + image[1]) % 3 == 0)
    assert set(np.unique(turned.label)) == set(np.unique(sample.label))


def test_the_eight_symmetries_differ():
    sample = Sample({"s": np.arange(9).reshape(1, 1, 3, 3)}, np.ones((1, 3, 3), bool))
    assert len({flip(sample, i).image["s"].tobytes() for i in range(8)}) == 8


def test_variation_leaves_nodata_alone():
    image = {"s": np.ones((1, 2, 4, 4), np.float32)}
    valid = np.ones((1, 4, 4), bool)
    valid[0, 0, 0] = False
    out = vary(image, valid, AugmentConfig(brightness=0.3, noise=0.1), np.random.default_rng(0), ONE)["s"]
    assert (out[:, :, 0, 0] == 0).all()
    assert out.std() > 0.05
    assert vary(image, valid, AugmentConfig(), np.random.default_rng(0), ONE)["s"] is image["s"]


def code_of(row, col):
    """The class that a position must have."""
    return 10 * (np.asarray(row) // 5 % 5) + np.asarray(col) // 5 % 5


def encoded(side):
    """Two dates of one sensor and one of another that hold their own positions, labels by position, a hole in date 2."""
    rows, cols = np.mgrid[:side, :side]
    two = np.stack([[rows, cols], [rows + 100, cols + 100]]).astype(np.float32)
    valid = np.ones((2, side, side), bool)
    valid[1, side // 3 : side // 2, : side // 4] = False
    two[1, :, ~valid[1]] = np.nan
    return Sample({"s": two, "other": cols[None, None].astype(np.int16)}, valid, code_of(rows, cols).astype(np.uint8))


@given(
    st.floats(0.25, 2), st.floats(-np.pi, np.pi), st.integers(8, 40), st.integers(0, 7),
)  # fmt: skip
def test_position_and_label_stay_together_at_any_scale_and_angle(scale, angle, size, symmetry):
    warp = Warp(size, scale, angle)
    before = encoded(warp.read_px)
    after = flip(warp(before), symmetry)
    row, col = after.image["s"][0].astype(float)
    assert after.label.shape == after.valid.shape[1:] == row.shape == (size, size)
    # Everything lies inside of what is read, so nothing is filled in.
    assert after.valid[0].all()
    # A label belongs to the nearest pixel: at a border of two the last digit decides.
    clear = (np.abs(row % 1 - 0.5) > 1e-3) & (np.abs(col % 1 - 0.5) > 1e-3)
    assert np.array_equal(after.label[clear], code_of(np.rint(row), np.rint(col))[clear])
    assert set(np.unique(after.label)) <= set(np.unique(before.label))
    assert np.allclose(after.image["other"][0, 0], col, atol=1e-3)
    # The second date shows the same place, wherever it holds something; elsewhere it is 0.
    seen = after.valid[1]
    assert np.allclose(after.image["s"][1][:, seen], after.image["s"][0][:, seen] + 100, atol=0.03)
    if scale != 1 or angle:  # else the sample stays as it was read
        assert (after.image["s"][1][:, ~seen] == 0).all()
    near = before.valid[1][np.rint(row).astype(int), np.rint(col).astype(int)]
    assert not (seen & ~near)[clear].any()


@given(st.floats(0.3, 3), st.floats(-np.pi, np.pi), st.integers(9, 32))
def test_neighbours_are_as_far_apart_as_the_scale_says_and_turned_by_the_angle(scale, angle, size):
    warp = Warp(size, scale, angle)
    row, col = warp(encoded(warp.read_px)).image["s"][0].astype(float)
    right = np.array([row[0, 1] - row[0, 0], col[0, 1] - col[0, 0]])
    assert np.allclose(right, [scale * np.sin(angle), scale * np.cos(angle)], atol=1e-3)
    down = np.array([row[1, 0] - row[0, 0], col[1, 0] - col[0, 0]])
    assert np.allclose(down, [scale * np.cos(angle), -scale * np.sin(angle)], atol=1e-3)
    # The middle of what is read is the middle of what comes out.
    assert np.allclose([row.mean(), col.mean()], (warp.read_px - 1) / 2, atol=1e-3)
    i, j = size // 3, size - 2
    assert np.allclose(warp.place(i, j), [row[i, j], col[i, j]], atol=0.5 + 1e-3)


def test_a_quarter_turn_is_that_of_the_symmetries_and_half_the_scale_twice_the_pixels():
    before = encoded(12)
    turned = Warp(12, 1.0, np.pi / 2)(before)
    assert np.array_equal(turned.label, np.rot90(before.label, -1)) or np.array_equal(
        turned.label, np.rot90(before.label)
    )
    halved = Warp(6, 2.0)(encoded(12))
    assert np.allclose(halved.image["s"][0, 1, 0], [0.5, 2.5, 4.5, 6.5, 8.5, 10.5], atol=1e-5)  # means of 2 x 2 pixels
    assert Warp(12)(before) is before


def test_beyond_the_scene_nothing_is_valid():
    warp = Warp(16, 1.5, 0.4)
    sample = encoded(warp.read_px)
    sample.valid[:, :, : warp.read_px // 2] = False
    sample.label[:, : warp.read_px // 2] = IGNORE
    after = warp(sample)
    assert 0.3 < after.valid[0].mean() < 0.7
    assert (after.image["s"][0][:, ~after.valid[0]] == 0).all()
    assert (after.label[after.valid[0]] != IGNORE).all()


def windows(tiny, sizes=32, batch=4, **augment):
    config = parse_config(tiny)
    scenes = open_scenes(config.data)
    split = make_split(scenes, config.split, size_px=32)
    spec = input_spec(scenes, split, normalise="none", size_px=32)
    train = TrainConfig(seed=1, size_px=sizes, batch_size=batch, augment=augment)
    cells = survey(scenes, split, cell_px=8).cells
    return split.labels(scenes[0], scenes[0].grid.window, "train"), TrainWindows(
        scenes, split, cells, spec, train, length=40, cache_bytes=1e9
    )


def test_warped_training_windows_show_labels_of_the_train_part_only(tiny, write_tif):
    rows, cols = np.mgrid[:96, :128]
    position = np.stack([rows + 1, cols + 1, rows * 0 + cols % 7]).astype("uint16")
    tiny["data"]["image"] = write_tif("where.tif", position, bands=["green", "red", "nir"])
    allowed, data = windows(tiny, scale=[0.5, 2], rotation=180)
    total, sizes = 0, set()
    for i in range(len(data)):
        item = data[i]
        row, col = item["image"]["image"][0, :2].astype(float) * 0 + item["sample"].image["image"][0, :2] - 1
        known = item["label"] != IGNORE
        clear = known & (np.abs(row % 1 - 0.5) > 1e-2) & (np.abs(col % 1 - 0.5) > 1e-2)
        assert np.array_equal(
            item["label"][clear], allowed[np.rint(row[clear]).astype(int), np.rint(col[clear]).astype(int)]
        )
        total += clear.sum()
        sizes.add(round(float(np.hypot(row[16, 17] - row[16, 16], col[16, 17] - col[16, 16])), 2))
    assert total > 1000
    assert min(s for s in sizes if s) < 0.7
    assert max(sizes) > 1.5


def test_the_windows_of_a_batch_have_one_size_and_batches_have_several(tiny):
    _, data = windows(tiny, sizes=[16, 24, 32], batch=4, rotation=10)
    batches = [[data[i] for i in range(first, first + 4)] for first in range(0, 40, 4)]
    assert {collate(batch).label.shape[-1] for batch in batches} == {16, 24, 32}
    data.start(1)
    other = [data[i]["label"].shape[0] for i in range(40)]
    assert other != [item["label"].shape[0] for batch in batches for item in batch]
    data.start(0)
    again = data[13]  # whatever was read before
    assert np.array_equal(again["image"]["image"], batches[3][1]["image"]["image"])


def test_speckle_multiplies_the_power_by_a_gamma_variate_of_mean_one():
    image = {"sentinel1": np.zeros((2, 3, 64, 64), np.float32)}
    valid = np.ones((2, 64, 64), bool)
    valid[0, :5] = False
    out = vary(image, valid, AugmentConfig(speckle=4), np.random.default_rng(0), RADAR)["sentinel1"]
    assert (out[:, 1] == 0).all()
    assert (out[0, :, :5] == 0).all()
    for band, std in ((0, 4.0), (2, 5.0)):
        ratio = 10 ** (out[:, band][valid] * std / 10)  # from dB to power
        assert ratio.mean() == pytest.approx(1, abs=0.03)
        assert ratio.var() == pytest.approx(1 / 4, rel=0.1)


def test_what_would_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="no image is named as radar backscatter"):
        require_effect(AugmentConfig(speckle=4), ONE)
    power = InputSpec((SensorInput("sentinel1", ("vv",), (0.1,), (0.1,)),))
    with pytest.raises(ConfigError, match=r"mean of 0\.1, which is no backscatter in dB"):
        require_effect(AugmentConfig(speckle=4), power)
    with pytest.raises(ConfigError, match="drop_bands has no effect on images of one band"):
        require_effect(AugmentConfig(drop_bands=0.1), power)
    require_effect(AugmentConfig(speckle=4, drop_bands=0.1, permute_bands=0.5), RADAR)
    with pytest.raises(ConfigError, match="smaller scale comes first"):
        parse_config({"data": {"image": "i.tif"}, "train": {"augment": {"scale": [2, 0.5]}}})


def test_bands_are_dropped_at_all_dates_and_one_always_stays():
    image = {"s": np.ones((3, 4, 2, 2), np.float32)}
    valid = np.ones((3, 2, 2), bool)
    rng = np.random.default_rng(0)
    kept = np.array([vary(image, valid, AugmentConfig(drop_bands=0.7), rng, ONE)["s"] for _ in range(2000)])
    assert set(np.unique(kept)) == {0, 1}
    per_band = kept[:, :, :, 0, 0]
    assert (per_band == per_band[:, :1]).all()
    count = per_band[:, 0].sum(1)
    assert count.min() == 1
    # 4 x 0.3 stay on average, and 1 of the 0.7^4 windows that would lose all.
    assert count.mean() == pytest.approx(1.2 + 0.7**4, abs=0.06)
    assert (image["s"] == 1).all()


def test_bands_are_exchanged_alike_at_all_dates():
    image = {"s": np.arange(4, dtype=np.float32)[None, :, None, None] * np.ones((3, 1, 2, 2), np.float32)}
    valid = np.ones((3, 2, 2), bool)
    rng = np.random.default_rng(0)
    orders = [vary(image, valid, AugmentConfig(permute_bands=0.5), rng, ONE)["s"][:, :, 0, 0] for _ in range(400)]
    assert all(sorted(order[0]) == [0, 1, 2, 3] and (order == order[0]).all() for order in orders)
    assert np.mean([list(order[0]) == [0, 1, 2, 3] for order in orders]) == pytest.approx(0.5 + 0.5 / 24, abs=0.08)
