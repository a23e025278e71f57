"""Published models from config to map: weights found or asked for, statistics, scales, dates, sensors that are missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from covermap.core.config import ImageConfig, parse_config
from covermap.core.errors import BandError, ConfigError, DataError, ModelError
from covermap.models import load_model, read_card
from covermap.start import prepare_run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.predict import predict
from covermap.verbs.train import train
from tests.conftest import landscape

BANDS = ["green", "red", "nir"]


@pytest.fixture
def fusion(tiny, write_tif):
    """fusion(section__key=value, ...) -> config of a scene with optical and radar images of two noisy kinds."""
    codes, _ = landscape()
    rng = np.random.default_rng(1)
    levels = np.array([[-8.0, -14.0], [-18.0, -25.0], [-3.0, -9.0]])
    radar = levels[codes.astype(int) - 1].transpose(2, 0, 1) + rng.normal(0, 1, (2, *codes.shape))
    image = Path(tiny["data"]["image"])
    raw = json.loads(json.dumps(tiny))
    raw["data"]["image"] = [
        {"path": str(image), "sensor": "sentinel2", "date": "2020-06-01"},
        {"path": write_tif("radar.tif", radar.astype("float32"), bands=["vv", "vh"]), "sensor": "sentinel1"},
    ]
    raw["model"] = {"backbone": "terramind_v1_tiny", "weights": "none", "decoder": "linear"}
    raw["baseline"] = False

    def make(name="fusion", **changes):
        config = json.loads(json.dumps(raw)) | {"name": name}
        for key, value in changes.items():
            section, _, field = key.partition("__")
            config[section][field] = value
        return parse_config(config)

    return make


def test_weights_that_are_not_here_are_asked_for_before_anything_is_read(fusion, monkeypatch, tmp_path):
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError) as caught:
        prepare_run(fusion(model__weights="auto"))
    text = str(caught.value)
    for part in ("models pull terramind_v1_tiny", "TerraMind_v1_tiny.pt", str(tmp_path / "weights"), "weights: none"):
        assert part in text
    assert not Path(fusion().folder).exists()


def test_real_weights_train_and_are_told_of(fusion, shared, monkeypatch):
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(shared / "weights"))
    said = []
    config = fusion(
        model__backbone="galileo_nano", model__weights="auto", model__adapt="frozen", train__size_px=16,
        train__epochs=2, train__lr=0.02,
    )  # fmt: skip
    run = train(config, say=said.append)
    assert any("64 loaded" in text or "loaded" in text for text in said)
    told = run.read_json("weights.json")
    assert told["facts"]["started_from_sha256"].startswith("eab6acac")
    assert {row["fate"] for row in told["tensors"]} == {"loaded", "ignored"}
    card = read_card(run.path("model"))
    assert card.facts["licence_of_weights"] == "MIT"
    assert card.spec.fixed_size
    # auto takes the published numbers: those of red are 0.1343 +- 0.1093 reflectance.
    optical = card.spec.sensors[0]
    assert (optical.mean[1], optical.std[1]) == pytest.approx((0.13431, 0.10927), abs=1e-4)
    # frozen: the weights in the model folder are the published ones
    published = load_model(run.path("model")).arrays()["backbone.encoder.trunk.blocks.0.mlp.fc1.weight"]
    import torch

    file = torch.load(shared / "weights/galileo_nano/encoder.pt", map_location="cpu", weights_only=True)
    assert np.array_equal(published, file["blocks.0.mlp.fc1.weight"].numpy())
    assert evaluate(run)["models"]["network"]["scores"]["oa"] > 0.5


def test_statistics_are_one_word(fusion):
    own = prepare_run(fusion(train__normalise="dataset")).spec.sensors[0]
    published = prepare_run(fusion(train__normalise="pretrained")).spec.sensors[0]
    assert published.mean[0] == pytest.approx(0.1718197)
    assert own.mean[0] != published.mean[0]
    assert own.scale == published.scale == 1e-4
    # without weights there is nothing to be true to
    assert prepare_run(fusion()).spec.sensors[0].mean == own.mean
    with pytest.raises(ConfigError, match="unet has no published statistics"):
        prepare_run(fusion(model__backbone="unet", train__normalise="pretrained"))


@pytest.mark.parametrize(
    ("factor", "dtype", "likely"), [(1e-4, "float32", "scale: 1 "), (100, "float32", "scale: 1e-06")]
)
def test_another_scale_is_refused_with_the_likely_fix(fusion, write_tif, factor, dtype, likely):
    with rasterio.open(fusion().data.images[0].path) as source:
        values = source.read().astype(float) * factor
    path = write_tif("scaled.tif", values.astype(dtype), bands=BANDS, nodata=0)
    config = fusion(train__normalise="pretrained")
    images = [config.data.images[0].model_copy(update={"path": path}), config.data.images[1]]
    config = config.model_copy(update={"data": config.data.model_copy(update={"image": images})})
    with pytest.raises(BandError, match="on another scale than the weights") as caught:
        prepare_run(config)
    assert f"set {likely}" in str(caught.value) + " "
    scaled = images[0].model_copy(update={"scale": 1e-4 / factor})
    config = config.model_copy(update={"data": config.data.model_copy(update={"image": [scaled, images[1]]})})
    assert prepare_run(config).spec.sensors[0].mean[0] == pytest.approx(0.1718197)


def test_unknown_dates_and_places_are_said_and_counted(fusion):
    notes = prepare_run(fusion(model__backbone="prithvi_eo_v2_tiny_tl")).notes
    assert not [note for note in notes if "have no" in note]
    config = fusion(model__backbone="prithvi_eo_v2_tiny_tl")
    undated = config.data.images[0].model_copy(update={"date": None})
    data = config.data.model_copy(update={"image": [undated, config.data.images[1]]})
    notes = prepare_run(config.model_copy(update={"data": data})).notes
    assert "1 of 1 scenes have no date: the backbone's code of it is left at 0 there" in notes


def test_settings_without_effect_are_refused(fusion):
    with pytest.raises(ConfigError, match="drop_sensors has no effect"):
        prepare_run(fusion(model__backbone="prithvi_eo_v2_tiny", train__augment={"drop_sensors": 0.5}))
    with pytest.raises(ConfigError, match=r"model\.dates: max has no effect"):
        prepare_run(fusion(model__dates="max"))
    with pytest.raises(ConfigError, match="knows no published weights"):
        train(fusion("unet", model__backbone="unet", model__weights="w.pt"))
    with pytest.raises(ConfigError, match=r"knows no published weights") as caught:
        train(fusion("vit", model__backbone="vit_tiny", model__weights="w.pt"))
    assert "leave model.weights out" in str(caught.value)


def test_dates_one_after_the_other_are_merged_and_said(fusion, tiny):
    config = fusion(model__backbone="vit_tiny")
    first = config.data.images[0]
    images = [first, first.model_copy(update={"date": "2020-08-01"})]
    config = config.model_copy(update={"data": config.data.model_copy(update={"image": images})})
    assert "vit_tiny takes one date at a time: the features of the dates are averaged" in prepare_run(config).notes


@pytest.fixture
def trained(fusion):
    config = fusion(train__augment={"drop_sensors": 0.5}, train__epochs=8, train__lr=0.002, train__ema=0.9)
    return train(config)


def test_prediction_does_without_a_sensor_or_a_band(trained, fusion, write_tif, tmp_path):
    """requirements C6: with each modality removed accuracy falls, but not to chance."""
    optical, radar = trained.config.data.images
    with rasterio.open(optical.path) as source:
        shorter = write_tif("two_bands.tif", source.read([1, 2]), bands=BANDS[:2], nodata=0)
    with rasterio.open(trained.config.data.labels) as source:
        truth = source.read(1)
    cases = {
        "both": [optical, radar],
        "optical": [optical],
        "radar": [radar],
        "two bands": [optical.model_copy(update={"path": shorter}), radar],
    }
    right, notes = {}, {}
    for name, images in cases.items():
        done = predict(trained.path("model"), images, tmp_path / f"map_{name}.tif", settings=trained.config.predict)
        with rasterio.open(done.path) as source:
            right[name] = float((source.read(1) == truth)[truth > 0].mean())
        notes[name] = done.notes
    assert min(right.values()) > 0.42, right  # chance is 0.33
    assert "there is no sentinel1: the model was trained with it, and does without" in notes["optical"]
    assert "sentinel2 lacks nir: the model was trained with it, and does without" in notes["two bands"]
    assert not [note for note in notes["both"] if "does without" in note]


def test_a_sensor_is_not_optional_to_every_model(fusion, tmp_path):
    run = train(fusion("strict", model__backbone="vit_tiny", model__backbone_options={"patch_px": 8}))
    with pytest.raises(DataError, match="needs 'sentinel1'"):
        predict(run.path("model"), [run.config.data.images[0]], tmp_path / "m.tif", settings=run.config.predict)
    other = [ImageConfig(path=run.config.data.images[0].path, sensor="landsat8")]
    with pytest.raises(DataError, match="the model needs"):
        predict(run.path("model"), other, tmp_path / "m.tif", settings=run.config.predict)


def test_a_resumed_run_does_not_need_the_published_file(fusion, shared, monkeypatch, tmp_path):
    weights = tmp_path / "weights" / "presto"
    weights.mkdir(parents=True)
    shutil.copy(shared / "weights/presto/default_model.pt", weights)
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(weights.parent))
    options = {"model__backbone": "presto", "model__weights": "auto", "train__size_px": 8, "train__steps_per_epoch": 2}
    run = train(fusion("resumed", **options, train__epochs=2))
    assert run.read_json("weights.json")["facts"]["licence_of_weights"] == "MIT"
    (weights / "default_model.pt").unlink()
    again = train(run.config, resume=True)
    assert again.read_json("weights.json")["facts"]["started_from"] == "default_model.pt"
