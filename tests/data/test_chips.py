import numpy as np
import pytest
import torch

from covermap.core.config import DataConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import DataError
from covermap.core.legend import IGNORE
from covermap.core.train_config import TrainConfig
from covermap.core.types import InputSpec, Sample, SensorInput
from covermap.data.chips import TrainWindows, collate, survey
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.split import Split, Tile
from covermap.data.stats import input_spec, normalise_sample
from covermap.geo.grid import Window


def made(raw):
    config = parse_config(raw)
    scenes = open_scenes(config.data)
    return config, scenes, make_split(scenes, config.split, size_px=32)


def test_statistics_are_numpys_on_valid_train_pixels(tiny):
    _config, scenes, split = made(tiny)
    spec = input_spec(scenes, split, normalise="dataset", size_px=32)
    values, valid = scenes[0].rasters["image"].read()
    mask = (split.part_mask("image", scenes[0].grid.window) == 1) & valid[0]
    assert np.allclose(spec.sensors[0].mean, values[0][:, mask].mean(1))
    assert np.allclose(spec.sensors[0].std, values[0][:, mask].astype(float).std(1))
    percentile = input_spec(scenes, split, normalise="percentile", size_px=32).sensors[0]
    low, high = np.percentile(values[0][:, mask], (2, 98), axis=1)
    assert np.allclose(percentile.mean, (low + high) / 2, rtol=0.03)
    assert np.allclose(percentile.std, (high - low) / 2, rtol=0.03)


def test_statistics_stay_exact_for_large_numbers_with_little_spread(tiny, write_tif):
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 96, 128))
    values = (1e4 + noise).astype("float64")
    tiny["data"]["image"] = write_tif("big.tif", values, bands=["green", "red", "nir"])
    _config, scenes, split = made(tiny)
    std = input_spec(scenes, split, normalise="dataset", size_px=32).sensors[0].std
    assert np.allclose(std, 0.01, rtol=0.05)


def test_a_constant_band_is_refused_by_name(tiny, write_tif):
    values = np.random.default_rng(0).integers(1, 99, (3, 96, 128)).astype("uint16")
    values[1] = 7
    tiny["data"]["image"] = write_tif("flat.tif", values, bands=["green", "red", "nir"])
    _config, scenes, split = made(tiny)
    with pytest.raises(DataError, match="band red is constant"):
        input_spec(scenes, split, normalise="dataset", size_px=32)


@pytest.mark.parametrize(
    ("second", "said"),
    [(slice(None), r"^radar\.tif: the train part holds no valid pixel"),
     (slice(32, None), r"^image\.tif, radar\.tif: no pixel is valid in all of them")],
)  # fmt: skip
def test_what_holds_no_valid_pixel_is_named(tmp_path, write_tif, second, said):
    optical, radar = np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype("float32")
    radar[:, :, second] = np.nan
    if second != slice(None):
        optical[:, :, :32] = np.nan
    paths = [
        write_tif(name, x, bands=[band]) for name, x, band in (("image.tif", optical, "a"), ("radar.tif", radar, "b"))
    ]
    data = {"image": [{"path": str(path), "sensor": s} for path, s in zip(paths, ("attention", "era5"), strict=True)]}
    scenes = open_scenes(DataConfig(**data))
    split = Split((Tile(scenes[0].name, scenes[0].grid.window, "train"),), 0)
    with pytest.raises(DataError, match=said):
        input_spec(scenes, split, normalise="dataset", size_px=32)


def test_normalised_pixels_follow_the_written_formula_and_nodata_is_zero():
    spec = InputSpec((SensorInput("s", ("a", "b"), (0.2, 0.4), (0.1, 0.2), 1e-4, -0.1, 3.0),))
    values = np.array([[[[3000.0, np.nan]], [[5000, 90000]]]], "float32")
    sample = Sample({"s": values}, np.array([[[True, False]]]))
    got = normalise_sample(sample, spec)["s"][0, :, 0]
    assert got[:, 0].tolist() == pytest.approx([(0.3 - 0.1 - 0.2) / 0.1, (0.5 - 0.1 - 0.4) / 0.2], abs=1e-5)
    assert got[:, 1].tolist() == [0, 0]
    clipped = normalise_sample(Sample({"s": values[..., 1:]}, np.ones((1, 1, 1), bool)), spec)["s"]
    assert clipped[0, 1, 0, 0] == 3


def windows_of(raw, cache, **train):
    _config, scenes, split = made(raw)
    spec = input_spec(scenes, split, normalise="dataset", size_px=32)
    found = survey(scenes, split, cell_px=8)
    return (
        scenes,
        split,
        TrainWindows(
            scenes, split, found.cells, spec, TrainConfig(seed=3, size_px=32, **train), length=20, cache_bytes=cache
        ),
    )


def test_windows_depend_on_seed_epoch_and_number_alone(tiny):
    _, _, held = windows_of(tiny, 1e9)
    _, _, read = windows_of(tiny, 0)
    for epoch in (0, 4):
        held.start(epoch)
        read.start(epoch)
        for i in (0, 7, 19):
            a, b = held[i], read[i]
            assert np.array_equal(a["image"]["image"], b["image"]["image"])
            assert np.array_equal(a["label"], b["label"])
    first = held[0]["image"]["image"]
    held.start(5)
    assert not np.array_equal(first, held[0]["image"]["image"])


def test_training_windows_never_show_a_label_of_another_part(tiny):
    scenes, split, data = windows_of(tiny, 1e9, augment={"flips": False})
    allowed = split.labels(scenes[0], scenes[0].grid.window, "train")
    total = 0
    for i in range(20):
        item = data[i]
        row, col = (int(v) for v in item["sample"].key.split(":")[1].split(","))
        assert np.array_equal(item["label"], allowed[row : row + 32, col : col + 32])
        total += (item["label"] != IGNORE).sum()
    assert total > 0


def test_a_scene_smaller_than_a_window_is_padded_with_ignore(tiny, write_tif):
    codes = np.kron([[1, 2, 3], [2, 3, 1], [3, 1, 2]], np.ones((7, 7))).astype("uint8")
    image = np.random.default_rng(0).integers(1, 99, (3, 21, 21)).astype("uint16")
    tiny["data"] |= {
        "labels": write_tif("s.tif", codes, nodata=0), "image": write_tif("si.tif", image, bands=["green", "red", "nir"]),
    }  # fmt: skip
    tiny["split"] = {"block_px": 3, "buffer_px": 0}
    _, _, data = windows_of(tiny, 1e9)
    item = data[0]
    assert item["image"]["image"].shape == (1, 3, 32, 32)
    assert item["valid"].sum() == 21 * 21
    assert (item["label"][~item["valid"][0]] == IGNORE).all()


def test_labels_under_nodata_are_not_learned(tiny, write_tif):
    from tests.conftest import landscape

    _, image = landscape()
    image[:, :, :64] = 0
    tiny["data"]["image"] = write_tif("half.tif", image, bands=["green", "red", "nir"], nodata=0)
    _, _, data = windows_of(tiny, 1e9)
    for i in range(10):
        item = data[i]
        assert (item["label"][~item["valid"][0]] == IGNORE).all()


def test_a_batch_has_the_shapes_of_the_legend(tiny):
    _, _, data = windows_of(tiny, 1e9)
    batch = collate([data[0], data[1]])
    assert batch.image["image"].shape == (2, 1, 3, 32, 32)
    assert (batch.valid.shape, batch.label.shape, batch.label.dtype) == ((2, 1, 32, 32), (2, 32, 32), torch.int64)
    assert batch.location.shape == (2, 2)
    assert len(batch) == 2
    assert torch.equal(batch.to("cpu").label, batch.label)


def test_the_survey_counts_train_pixels_of_each_class(tiny):
    _, scenes, split = made(tiny)
    found = survey(scenes, split, cell_px=8)
    labels = split.labels(scenes[0], Window(0, 0, 96, 128), "train")
    assert found.class_px.tolist() == [(labels == i).sum() for i in range(3)]
    assert sum(c.labelled_px for c in found.cells) == (labels != IGNORE).sum()


def test_no_normalisation_gives_physical_units(tiny):
    tiny["data"] |= {"sensor": "sentinel2"}
    _config, scenes, split = made(tiny)
    scenes[0].added = {}
    spec = input_spec(scenes, split, normalise="none", size_px=32)
    sample = scenes[0].read(Window(0, 0, 32, 32))
    got = normalise_sample(sample, spec)["sentinel2"]
    assert np.allclose(got, sample.image["sentinel2"] * 1e-4, atol=1e-6)


def test_a_window_without_a_place_does_not_take_the_others_away():
    from covermap.core.types import Sample
    from covermap.data.chips import _locations

    here = Sample({}, np.ones((1, 1, 1), bool), location=(46.0, 7.0))
    nowhere = Sample({}, np.ones((1, 1, 1), bool))
    found = _locations([here, nowhere])
    assert found[0].tolist() == [46, 7]
    assert found[1].isnan().all()
    assert _locations([nowhere, nowhere]) is None


def test_cached_features_keep_the_windows_and_turn_them(tiny):
    _, _, data = windows_of(tiny, 1e9, cache_features=True)
    number, seen = min(6, len(data)), {}
    places, turns = set(), set()
    for epoch in range(12):
        data.start(epoch)
        items = [data[i] for i in range(number)]
        keys = [item["sample"].key.split("/") for item in items]
        places.add(tuple(place for place, _ in keys))
        turns.add(tuple(turn for _, turn in keys))
        for item in items:
            values = next(iter(item["image"].values()))
            assert (seen.setdefault(item["sample"].key, values) == values).all()
    assert len(places) == 1
    assert len(turns) > 1
