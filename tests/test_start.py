"""Published models from config to map: weights found or asked for, statistics, scales, dates, sensors that are missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, CovermapError, DataError, ModelError
from covermap.models import load_model, read_card
from covermap.start import prepare_run
from covermap.verbs.check import check
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
    assert "1 of 1 scenes have no date: the model's code of it is left at 0 there" in notes


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


def test_a_neck_before_a_decoder_that_reads_one_map_is_refused(fusion):
    words = r"terramind_v1_tiny with fcn: the decoder reads one map alone, which model.neck: pyramid would only make coarser"
    with pytest.raises(ConfigError, match=words):
        prepare_run(fusion(model__decoder="fcn", model__neck="pyramid"))
    prepare_run(fusion(model__decoder="fcn"))


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


FAMILIES = ["prithvi_eo_v2_tiny_tl", "galileo_nano", "presto", "vit_tiny"]
LARGER = ["terramind_v1_tiny", "resnet18", "segformer_b0", "swin_tiny", "convnext_tiny", "dinov2_small"]


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGER)])
def test_every_family_trains_and_maps(fusion, tmp_path, name):
    size = {"presto": 8, "dinov2_small": 28}.get(name, 32)
    more = {"train__size_px": size, "train__epochs": 1, "train__steps_per_epoch": 2, "model__decoder": "unet"}
    config = fusion(name, model__backbone=name, **more)
    optical = config.data.images[:1]
    config = config.model_copy(update={"data": config.data.model_copy(update={"image": optical})})
    run = train(config)
    settings = config.predict.model_copy(update={"size_px": None})
    done = predict(run.path("model"), optical, tmp_path / "map.tif", settings=settings)
    with rasterio.open(done.path) as source:
        assert set(np.unique(source.read(1))) <= {0, 1, 2, 3}


def series(config, dates, *, dem=None):
    """The same optical image on several dates."""
    first = config.data.images[0]
    images = [first.model_copy(update={"date": date}) for date in dates]
    images = ([ImageConfig(path=dem, sensor="dem")] if dem else []) + images
    return config.model_copy(update={"data": config.data.model_copy(update={"image": images})})


@pytest.fixture
def flat_dem(write_tif):
    rng = np.random.default_rng(2)
    return write_tif("dem.tif", (100 + rng.normal(0, 3, (96, 128))).astype("float32"), bands=["elevation"])


def test_flat_terrain_is_no_other_scale_and_its_place_in_the_list_costs_no_date(fusion, flat_dem):
    config = series(fusion(model__backbone="galileo_nano", train__normalise="pretrained"), ["2020-06-01"], dem=flat_dem)
    ready = prepare_run(config)
    assert ready.scenes[0].dates == ("2020-06-01",)
    assert not [note for note in ready.notes if "no date" in note]
    assert [note for note in ready.notes if note.startswith("dem varies little")]


def test_radar_that_is_not_in_decibel_is_refused(fusion, write_tif):
    config = fusion(train__normalise="pretrained")
    with rasterio.open(config.data.images[1].path) as source:
        power = 10 ** (source.read() / 10)
    path = write_tif("power.tif", power.astype("float32"), bands=["vv", "vh"])
    images = [config.data.images[0], config.data.images[1].model_copy(update={"path": path})]
    config = config.model_copy(update={"data": config.data.model_copy(update={"image": images})})
    with pytest.raises(BandError, match="sentinel1 is on another scale"):
        prepare_run(config)


def test_numbers_of_another_unit_are_not_taken(fusion):
    """Statistics of 8-bit pictures say nothing about reflectance."""
    config = series(fusion(model__backbone="resnet18"), ["2020-06-01"])
    ready = prepare_run(config)
    assert "sentinel2 is reflectance, RGB was 8-bit brightness: the data's own mean and std are used" in ready.notes
    with pytest.raises(ConfigError, match="resnet18 has no published statistics of such data"):
        prepare_run(config.model_copy(update={"train": config.train.model_copy(update={"normalise": "pretrained"})}))


def test_dates_are_given_said_and_part_of_what_is_mapped(fusion, tmp_path, flat_dem):
    from covermap.cli.predict import images_of

    dates = ["2020-04-01", "2020-06-01", "2020-08-01"]
    more = {"train__epochs": 1, "train__steps_per_epoch": 2, "train__size_px": 16, "model__backbone": "galileo_nano"}
    run = train(series(fusion("dates", **more), dates, dem=flat_dem))
    path = run.config.data.images[1].path
    given = images_of(path, "sentinel2", dates[0], [f"sentinel2={path}@{d}" for d in dates[1:]] + [f"dem={flat_dem}"])
    assert [image.date for image in given] == [*dates, None]
    settings = run.config.predict
    dated = predict(run.path("model"), given, tmp_path / "dated.tif", settings=settings, dry_run=True)
    assert not [note for note in dated.notes if "no date" in note]
    undated = [image.model_copy(update={"date": None}) for image in given]
    done = predict(run.path("model"), undated, tmp_path / "undated.tif", settings=settings)
    assert "1 of 1 scenes have no date: the model's code of it is left at 0 there" in done.notes
    with pytest.raises(DataError, match="has one date of dem; the model takes 3 dates"):
        predict(run.path("model"), given[-1:], tmp_path / "dem_alone.tif", settings=settings)


def test_an_interrupted_map_does_not_go_on_with_another_date(fusion, tmp_path, monkeypatch):
    from covermap.verbs import predict as verb

    more = {"train__epochs": 1, "train__steps_per_epoch": 2, "train__size_px": 16, "model__backbone": "galileo_nano"}
    run = train(series(fusion("blocks", **more), ["2020-06-01"]))
    settings = run.config.predict.model_copy(update={"block_px": 32})
    monkeypatch.setattr(verb.MapJob, "assemble", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    images = list(run.config.data.images)
    with pytest.raises(KeyboardInterrupt):
        predict(run.path("model"), images, tmp_path / "map.tif", settings=settings)
    monkeypatch.undo()
    other = [images[0].model_copy(update={"date": "2020-12-01"})]
    with pytest.raises(CovermapError, match="other"):
        predict(run.path("model"), other, tmp_path / "map.tif", settings=settings)
    done = predict(run.path("model"), images, tmp_path / "map.tif", settings=settings)
    assert done.num_resumed == done.num_blocks


def test_what_training_would_refuse_check_refuses_too(fusion, shared):
    with pytest.raises(ModelError, match="there is no checkpoint"):
        check(fusion(model__weights="/nowhere/w.pt"))
    with pytest.raises(ModelError, match=r"default_model.pt does not fit this model|default_model.pt holds no key"):
        check(fusion(model__backbone="galileo_nano", model__weights=str(shared / "weights/presto/default_model.pt")))
    with pytest.raises(ConfigError, match="keeps unet at random weights"):
        check(fusion(model__backbone="unet", model__adapt="frozen"))
    with pytest.raises(ConfigError, match="drop_sensors has no effect"):
        check(fusion(model__pixel_width=8, train__augment={"drop_sensors": 0.5}))


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("vit_tiny", {"layers": [1.5]}),
        ("vit_tiny", {"layers": 3}),
        ("vit_tiny", {"patch_px": 0}),
        ("terramind_v1_tiny", {"modalities": "S1RTC"}),
        ("terramind_v1_tiny", {"modalities": {"sentinel1": ["S1RTC"]}}),
        ("galileo_nano", {"patch_px": 4.5}),
        ("prithvi_eo_v2_tiny", {"extra_bands": "tile"}),
        ("resnet18", {"layers": [1]}),
        ("terramind_v1_tiny", {"size": 3}),
    ],
)
def test_options_that_mean_nothing_are_one_message(fusion, backbone, options):
    with pytest.raises(ConfigError):
        prepare_run(fusion(model__backbone=backbone, model__backbone_options=options))


def test_a_batch_of_one_cell_is_refused_with_the_way_out(fusion):
    config = fusion("cell", model__backbone="vit_tiny", model__decoder="unet", train__size_px=8, train__batch_size=1)
    with pytest.raises(ConfigError, match="coarsest features of the network are one cell"):
        train(config)


def test_sensors_that_share_a_modality_are_both_needed_and_unknown_ones_are_left_out(fusion, write_tif):
    config = fusion()
    with rasterio.open(config.data.images[0].path) as source:
        near = write_tif("near.tif", source.read([3]), bands=["nir"], nodata=0)
        seen = write_tif("seen.tif", source.read([1, 2]), bands=BANDS[:2], nodata=0)
        heat = write_tif("heat.tif", source.read([1]), bands=["lst"], nodata=0)
    images = [
        ImageConfig(path=seen, sensor="sentinel2"), ImageConfig(path=near, sensor="hls"),
        config.data.images[1], ImageConfig(path=heat, sensor="landsat8"),
    ]  # fmt: skip
    ready = prepare_run(config.model_copy(update={"data": config.data.model_copy(update={"image": images})}))
    assert {entry.sensor: entry.optional for entry in ready.spec.sensors} == {
        "sentinel2": False, "hls": False, "sentinel1": True,
    }  # fmt: skip
    assert "the model does not know lst: not used" in ready.notes
