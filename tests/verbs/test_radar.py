"""Radar power from the file to the map: taken in dB, normalised by the data set or by each event (B7)."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError
from covermap.data import miniature
from covermap.data.scene import open_scenes
from covermap.data.stats import normalise_sample, with_own_statistics
from covermap.data.store import write_store
from covermap.geo.band_source import LOWEST_DB
from covermap.geo.raster import open_raster
from covermap.infer import open_for
from covermap.models import read_card
from covermap.start import prepare_run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.predict import predict
from covermap.verbs.run import run
from covermap.verbs.train import train


def power_of(codes, *, brightness, seed):
    """VV and VH of three classes, 6 dB apart, with speckle of four looks."""
    rng = np.random.default_rng(seed)
    level = 10 ** ((codes * 6.0 - 30 + brightness) / 10)
    return (np.stack([level, level / 4]) * rng.gamma(4, 0.25, (2, *codes.shape))).astype(np.float32)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Two events of two chips each; the second is 8 dB brighter, as another angle of incidence makes it."""
    root = tmp_path_factory.mktemp("events")
    for number in range(4):
        codes = miniature.patches([1, 2, 3], 64, 64, seed=number)
        power = power_of(codes, brightness=8.0 * (number > 1), seed=number)
        power[:, :2, :2] = 0
        origin = (400_000 + 640 * number, 4_600_000)
        miniature.write(root / f"s1/chip{number}.tif", power, origin=origin, bands=["vv", "vh"])
        miniature.write(root / f"labels/chip{number}.tif", codes, origin=origin)
    return root


def config_of(root, name="run", **image):
    return parse_config(
        {
            "name": name, "output": str(root / "runs"), "split": {"block_px": 64, "val": 0.25, "test": 0.25},
            "data": {
                "image": [{"path": str(root / "s1/*.tif"), "sensor": "sentinel1", **image}],
                "labels": str(root / "labels/*.tif"), "legend": {1: "low", 2: "middle", 3: "high"},
            },
            "model": {"backbone_options": {"widths": [8, 16]}}, "baseline": False,
            "train": {
                "epochs": 2, "steps_per_epoch": 10, "batch_size": 4, "size_px": 32, "lr": 0.01, "normalise": "scene"
            },
        }
    )  # fmt: skip


@pytest.mark.parametrize(("quantity", "factor"), [("power", 10), ("amplitude", 20)])
def test_decibels_equal_numpy_and_zero_is_finite(events, quantity, factor):
    path = events / "s1/chip0.tif"
    values, valid = open_raster(path).in_decibel(quantity).read()
    with rasterio.open(path) as file:
        raw = file.read().astype(np.float64)
    assert valid.all()
    assert np.allclose(values[0, :, :2, :2], LOWEST_DB)
    assert np.allclose(values[0, :, 2:, 2:], np.maximum(factor * np.log10(raw[:, 2:, 2:]), LOWEST_DB), atol=1e-4)


def test_numbers_that_have_no_logarithm_are_told(events):
    image = ImageConfig(path=str(events / "s1/chip0.tif"), sensor="sentinel1", quantity="amplitude")
    (scene,) = open_scenes(DataConfig(image=[image]), labels=False)
    assert any("0 or below and count as -50 dB" in note for note in scene.notes)


def test_a_difference_of_bands_is_their_ratio(events):
    raster = open_raster(events / "s1/chip0.tif").in_decibel("power").select(["vv-vh"])
    values, _ = raster.read()
    with rasterio.open(events / "s1/chip0.tif") as file:
        vv, vh = file.read().astype(np.float64)[:, 2:, 2:]
    assert np.allclose(values[0, 0, 2:, 2:], 10 * np.log10(vv / vh), atol=1e-4)


def test_what_is_in_decibels_already_is_refused(events, tmp_path):
    values, _ = open_raster(events / "s1/chip0.tif").in_decibel("power").read()
    miniature.write(tmp_path / "db.tif", values[0], bands=["vv", "vh"])
    image = ImageConfig(path=str(tmp_path / "db.tif"), sensor="sentinel1", quantity="power")
    config = DataConfig(image=[image])
    with pytest.raises(BandError, match="below 0"):
        open_scenes(config, labels=False)


def test_each_event_is_standardised_by_itself(events):
    ready = prepare_run(config_of(events, quantity="power"))
    entry = ready.spec.sensors[0]
    assert (entry.quantity, entry.per_scene) == ("power", True)
    for scene in ready.scenes:
        values = normalise_sample(scene.read(scene.grid.window), ready.spec)["sentinel1"]
        inside = values[0, :, 2:, 2:]
        assert np.abs(inside.mean((1, 2))).max() < 0.05
        assert np.abs(inside.std((1, 2)) - 1).max() < 0.1
    brightness = [scene.statistics["sentinel1"]["vv"][0] for scene in ready.scenes]
    assert np.mean(brightness[2:]) - np.mean(brightness[:2]) == pytest.approx(8, abs=0.7)


def test_chips_of_one_place_share_their_numbers(events):
    ready = prepare_run(config_of(events, quantity="power"))
    placed = [
        replace(scene, place="first" if i < 2 else "second", statistics={}) for i, scene in enumerate(ready.scenes)
    ]
    found = [scene.statistics["sentinel1"]["vv"] for scene in with_own_statistics(placed, ready.spec)]
    assert found[0] == found[1] != found[2] == found[3]
    both = np.concatenate([scene.read(scene.grid.window).image["sentinel1"][0, 0].ravel() for scene in placed[:2]])
    assert found[0] == pytest.approx((both.mean(dtype=np.float64), both.std(dtype=np.float64)), rel=1e-4)


def test_run_maps_chips_by_the_numbers_of_their_place(events, tmp_path, monkeypatch):
    """As in training: of the event, not of each chip."""
    config = by_place(config_of(events, name="placed", quantity="power"))
    for module in ("covermap.start", "covermap.verbs.run", "covermap.verbs.evaluate"):
        monkeypatch.setattr(f"{module}.open_scenes", lambda data: placed(open_scenes(data)))
    done = run(config)
    folder = done.path("model")
    assert read_card(folder).facts["statistics_of"] == "places"
    scene = with_own_statistics(placed(open_scenes(config.data)), read_card(folder).spec)[0]
    with rasterio.open(done.map_path(scene.name, 4)) as file:
        mapped = file.read(1)
    predict(folder, scene.images, tmp_path / "map.tif", statistics=scene.statistics)
    predict(folder, scene.images, tmp_path / "alone.tif", statistics={"sentinel1": {"vv": (90, 1), "vh": (90, 1)}})
    with rasterio.open(tmp_path / "map.tif") as same, rasterio.open(tmp_path / "alone.tif") as other:
        assert np.array_equal(same.read(1), mapped)
        assert not np.array_equal(other.read(1), mapped)


def test_chips_given_together_are_one_place_where_training_had_places(events, tmp_path, monkeypatch):
    config = by_place(
        config_of(events, name="chips", quantity="power"), task={"name": "multilabel", "classes": ["high"]}
    )
    monkeypatch.setattr("covermap.start.open_scenes", lambda data: placed(open_scenes(data)))
    done = train(config)
    for number in (0, 1):
        shutil.copy(events / f"s1/chip{number}.tif", tmp_path)
    pattern = [ImageConfig(path=str(tmp_path / "chip*.tif"), sensor="sentinel1")]
    found = predict(done.path("model"), pattern, tmp_path / "two.csv")
    assert any("as of one place" in note for note in found.notes)
    scene = with_own_statistics(placed(open_scenes(done.config.data)), read_card(done.path("model")).spec)[0]
    predict(done.path("model"), scene.images, tmp_path / "one.csv", statistics=scene.statistics)
    predict(done.path("model"), scene.images, tmp_path / "alone.csv")
    (one,), (alone,) = (rows_of(tmp_path / name) for name in ("one.csv", "alone.csv"))
    assert one in rows_of(tmp_path / "two.csv")
    assert alone != one


def by_place(config, **more):
    raw = config.model_dump(mode="json", exclude_unset=True) | {"split": {"val": 0, "test": ["second"]}} | more
    return parse_config(raw | {"train": raw["train"] | {"size_px": 64 if more else 32}})


def placed(scenes):
    """Two chips of each place."""
    return [replace(scene, place="first" if i < 2 else "second") for i, scene in enumerate(scenes)]


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_model_takes_decibels_and_its_own_numbers_of_a_new_scene(events, tmp_path):
    run = train(config_of(events, quantity="power"), overwrite=True)
    spec = read_card(run.folder / "model").spec
    codes = miniature.patches([1, 2, 3], 64, 64, seed=9)
    miniature.write(tmp_path / "new.tif", power_of(codes, brightness=20, seed=9), bands=["vv", "vh"])
    scene = open_for(spec, [ImageConfig(path=str(tmp_path / "new.tif"), sensor="sentinel1")], any_gsd=False)
    values = normalise_sample(scene.read(scene.grid.window), spec)["sentinel1"]
    assert np.abs(values.mean((0, 2, 3))).max() < 1e-3
    predict(run.folder / "model", str(tmp_path / "new.tif"), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.read(1) == codes).mean() > 0.6
    assert evaluate(run)["models"]["network"]["scores"]["oa"] > 0.6


def test_prepared_data_keep_power_and_say_so(events, tmp_path):
    plain = config_of(events, quantity="power").data
    write_store(plain, tmp_path / "store")
    there = open_scenes(DataConfig(source="prepared", root=str(tmp_path / "store")))
    for one, other in zip(open_scenes(plain), there, strict=True):
        assert other.images[0].quantity == "power"
        assert np.array_equal(
            one.read(one.grid.window).image["sentinel1"], other.read(other.grid.window).image["sentinel1"]
        )
    both = plain.model_copy(update={"image": [plain.images[0].model_copy(update={"use": ["vv", "vv-vh"]})]})
    with pytest.raises(ConfigError, match="differences of dB"):
        write_store(both, tmp_path / "other")
