import json
import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from shapely import box

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, CovermapError, DataError, LabelError, ModelError, OutputError
from covermap.core.run import Run
from covermap.core.train_config import PredictConfig
from covermap.data.chips import image_batch
from covermap.geo.grid import Window
from covermap.models import load_model
from covermap.start import build_network, prepare_run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.predict import predict
from covermap.verbs.run import run as run_all
from covermap.verbs.train import Loop, train
from tests.conftest import landscape

RNG = np.random.default_rng(0)


def with_(raw, name="tiny", **changes):
    raw = json.loads(json.dumps(raw)) | {"name": name}
    for key, value in changes.items():
        section, _, field = key.partition("__")
        raw.setdefault(section, {})[field] = value
    return parse_config(raw)


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_network_learns_and_the_run_folder_is_complete(tiny):
    run = train(with_(tiny, train__epochs=6, train__validate_every=3))
    result = evaluate(run)
    assert result["models"]["network"]["scores"]["oa"] > 0.8
    assert result["is_test"] is True
    assert set(result["models"]) == {"network", "random forest"}
    for name in ("config.yaml", "versions.json", "inputs.json", "split.csv", "log.csv", "log.jsonl", "metrics.json"):
        assert run.path(name).is_file()
    assert Run.open(run.folder).config == run.config
    assert len(run.read_json("inputs.json")) == 2
    log = run.read_log()
    assert [row["epoch"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert ["val_miou" in row for row in log] == [False, False, True] * 2


def test_scores_of_parts_used_in_fitting_are_never_called_test(tiny):
    run = train(with_(tiny, train__epochs=1))
    for part in ("train", "val"):
        result = evaluate(run, part=part)
        assert result["is_test"] is False
        assert "no test scores" in result["note"]
    assert not run.path("metrics.json").exists()


def test_two_runs_with_one_seed_are_identical_and_another_seed_is_not(tiny):
    runs = [train(with_(tiny, name, train__seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    logs = [without_time(run.read_log()) for run in runs]
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]
    weights = [load_model(run.path("model")).arrays() for run in runs]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, schedule, monkeypatch):
    options = {"train__epochs": 4, "train__ema": 0.9, "train__schedule": schedule, "train__plateau_patience": 0}
    options["model__decoder_options"] = {"dropout": 0.3}
    whole = train(with_(tiny, "whole", **options))
    original = Loop._train_epoch

    def stop(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Loop, "_train_epoch", stop)
    config = with_(tiny, "parts", **options)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    resumed = train(config, resume=True)
    assert without_time(resumed.read_log()) == without_time(whole.read_log())
    one, two = load_model(whole.path("model")).arrays(), load_model(resumed.path("model")).arrays()
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_an_epoch_that_was_logged_but_not_saved_is_logged_once(tiny, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "save", stop)
    config = with_(tiny, "once", train__epochs=1)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    assert [row["epoch"] for row in train(config, resume=True).read_log()] == [1]


def test_an_existing_run_is_kept_and_other_settings_do_not_resume_it(tiny):
    train(with_(tiny, train__epochs=1))
    with pytest.raises(OutputError, match="holds a run already"):
        train(with_(tiny, train__epochs=1))
    with pytest.raises(OutputError, match="other settings in train"):
        train(with_(tiny, train__epochs=2), resume=True)
    assert len(train(with_(tiny, train__epochs=2), overwrite=True).read_log()) == 2


def test_a_damaged_checkpoint_is_said(tiny):
    config = with_(tiny, train__epochs=1)
    run = train(config)
    run.path("checkpoints/last.pt").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="damaged"):
        train(config, resume=True)


def test_accumulation_equals_one_large_batch(tiny):
    """4 batches of 2 give the gradient of 1 batch of 8, though their labelled pixels differ (no batch norm)."""
    gradients = []
    for batch_size, accumulate in ((8, 1), (2, 4)):
        config = with_(
            tiny, f"g{batch_size}", train__batch_size=batch_size, train__accumulate=accumulate, train__clip=0.0
        )
        ready = prepare_run(config)
        loop = Loop(Run.create(config, overwrite=True), ready, build_network(config, ready), print)
        for module in loop.plain.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        loop.optimiser.zero_grad = lambda *a, **k: None
        loop.data.start(0)
        loop._step(list(loop._loader())[:accumulate])
        gradients.append([p.grad.clone() for p in loop.plain.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_learning_rate_halves_after_the_stated_patience(tiny, monkeypatch):
    monkeypatch.setattr("covermap.verbs.train.score", lambda *a, **k: _Flat())
    config = with_(
        tiny, train__epochs=6, train__schedule="plateau", train__plateau_patience=2, train__plateau_factor=0.5
    )
    rates = [row["lr"] for row in train(config).read_log()]
    assert rates[0] == rates[3] == 0.01
    assert rates[-1] == pytest.approx(0.005)


class _Flat:
    def scores(self):
        return {"miou": 0.5, "oa": 0.5, "macro_f1": 0.5, "macro_recall": 0.5, "loss": 1.0}


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(tiny, monkeypatch):
    values = iter([0.3, 0.6, 0.5, 0.4, 0.2, 0.1])

    class Falling(_Flat):
        def scores(self):
            return {"miou": next(values), "oa": 0.5, "macro_f1": 0.5, "macro_recall": 0.5, "loss": 1.0}

    monkeypatch.setattr("covermap.verbs.train.score", lambda *a, **k: Falling())
    run = train(with_(tiny, train__epochs=6, train__patience=2))
    assert len(run.read_log()) == 4
    assert load_model(run.path("model")).facts["epoch"] == 2


def test_a_loss_that_is_no_number_stops_and_names_the_windows(tiny, monkeypatch):
    monkeypatch.setattr(
        "covermap.nn.losses.cross_entropy.CrossEntropy.forward",
        lambda self, logits, label: logits.sum() * math.nan,
    )
    with pytest.raises(CovermapError, match=r"no longer a number in epoch 1, windows image:\d+"):
        train(with_(tiny))


def test_precision_that_the_machine_lacks_is_refused(tiny):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without GPU")
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        train(with_(tiny, train__precision="fp16"))


def test_bf16_runs(tiny):
    assert train(with_(tiny, train__precision="bf16", train__epochs=1)).read_log()[0]["loss"] > 0


def test_windows_may_be_read_by_other_processes(tiny):
    one = train(with_(tiny, "w0", train__epochs=1))
    two = train(with_(tiny, "w2", train__epochs=1, train__workers=2))
    assert without_time(one.read_log()) == without_time(two.read_log())


def test_progress_counts_every_step_and_tensorboard_gets_the_log(tiny):
    pytest.importorskip("tensorboard")
    seen = []
    run = train(with_(tiny, train__epochs=2, train__tensorboard=True), on_progress=lambda *a: seen.append(a))
    assert seen == [(i, 12) for i in range(1, 13)]
    assert any(run.path("tensorboard").iterdir())


def test_overwrite_keeps_the_old_run_when_the_new_one_cannot_start(tiny):
    run = train(with_(tiny, train__epochs=1))
    with pytest.raises(CovermapError, match="no file"):
        train(with_(tiny, data__labels="missing.tif"), overwrite=True)
    assert run.path("model/config.json").is_file()
    assert run.read_log()


def test_a_failed_start_leaves_no_run_in_the_way(tiny):
    with pytest.raises(CovermapError, match="no file"):
        train(with_(tiny, data__labels="missing.tif"))
    for change in (
        {"train__rates": {"bakbone": 0.1}}, {"train__loss": "cross"}, {"train__cache_features": True},
        {"train__class_weights": [1.0]},
    ):  # fmt: skip
        with pytest.raises(CovermapError):
            train(with_(tiny, **change))
    assert train(with_(tiny, train__epochs=1)).read_log()


def test_the_demo_does_not_take_a_project_for_a_demo(tmp_path):
    from covermap.verbs.demo import demo

    (tmp_path / "p").mkdir()
    for name in ("covermap.yaml", "full.tif"):
        (tmp_path / "p" / name).write_text("mine")
    with pytest.raises(OutputError, match="other things than a demo"):
        demo(tmp_path / "p", overwrite=True)
    assert (tmp_path / "p" / "full.tif").read_text() == "mine"


def test_a_changed_input_or_legend_is_not_scored_or_resumed(tiny, write_tif):
    run = train(with_(tiny, train__epochs=1))
    label_path = Path(tiny["data"]["labels"])
    before = label_path.read_bytes()
    with rasterio.open(label_path) as dataset:
        codes = dataset.read(1)
    write_tif("labels.tif", codes[::-1].copy(), nodata=0)
    with pytest.raises(DataError, match=r"labels\.tif changed since"):
        evaluate(run)
    with pytest.raises(DataError, match=r"labels\.tif changed since"):
        train(with_(tiny, train__epochs=1), resume=True)
    label_path.write_bytes(before)
    evaluate(run)
    raw = run.config.model_dump(mode="json")
    raw["data"]["legend"] = {1: "field", 3: "water", 2: "town"}
    with pytest.raises(LabelError, match="the network maps field, water, town"):
        evaluate(Run(run.folder, parse_config(raw)))


def test_without_a_val_part_the_last_epoch_is_kept(tiny):
    raw = dict(tiny, split={"block_px": 16, "buffer_px": 2, "val": 0})
    run = train(with_(raw, train__epochs=2))
    assert load_model(run.path("model")).facts["epoch"] == 2
    assert "network" in evaluate(run)["models"]
    assert any("no val part" in note for note in run.read_json("notes.json"))
    with pytest.raises(ConfigError, match="need a val part"):
        prepare_run(with_(raw, train__schedule="plateau"))
    done = run_all(with_(dict(tiny, split={"block_px": 16, "test": 0.0}), "untested", train__epochs=1))
    assert done.path("map.tif").is_file()
    assert not done.path("metrics.json").exists()
    assert "--part val" in done.path("report.html").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"loss_options": {"label_smothing": 0.1}}}, {"train": {"loss_options": {"label_smoothing": 2}}},
        {"model": {"decoder_options": {"width": 3}}}, {"model": {"decoder_options": {"widths": [8, 8, 8, 8, 8]}}},
        {"model": {"backbone_options": {"widths": "abc"}}}, {"model": {"decoder_options": {"dropout": 5}}},
        {"train": {"device": "cuda:99"}},
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_errors_of_the_config(tiny, change):
    raw = json.loads(json.dumps(tiny))
    for section, values in change.items():
        raw[section] |= values
    with pytest.raises(ConfigError):
        train(parse_config(raw))


def test_two_dates_and_elevation_are_learned_and_mapped(tiny, write_tif, tmp_path):
    codes, one = landscape()
    _, two = landscape(seed=5)
    bands = ["green", "red", "nir"]
    paths = [write_tif(f"d{i}.tif", image, bands=bands, nodata=0) for i, image in enumerate((one, two))]
    dem = write_tif("dem.tif", RNG.normal(100, 9, codes.shape).astype("float32"), bands=["elevation"])
    images = [{"path": p, "sensor": "landsat7", "date": f"2020-0{i + 1}-01"} for i, p in enumerate(paths)]
    raw = json.loads(json.dumps(tiny))
    raw["data"]["image"] = [*images, {"path": dem, "sensor": "dem"}]
    run = train(with_(raw, train__epochs=4))
    assert evaluate(run)["models"]["network"]["scores"]["oa"] > 0.7
    entries = [ImageConfig(**image) for image in raw["data"]["image"]]
    predict(run.path("model"), entries, tmp_path / "m.tif", settings=PredictConfig(size_px=32))
    with pytest.raises(DataError, match="1 dates of landsat7; the model takes 2"):
        predict(run.path("model"), [entries[0], entries[2]], tmp_path / "n.tif")


def test_polygons_beside_an_image_that_is_smaller_than_a_window(tiny, write_tif, tmp_path):
    image = write_tif("small.tif", RNG.integers(1, 99, (3, 20, 24)).astype("uint16"), bands=["green", "red", "nir"])
    boxes = [box(500_000 + 40 * i, 4_999_700 + 40 * j, 500_040 + 40 * i, 4_999_740 + 40 * j) for i in range(9) for j in range(9)]  # fmt: skip
    table = gpd.GeoDataFrame({"kind": ["wood", "lake", "town"] * 27}, geometry=boxes, crs="EPSG:32631")
    table.to_file(tmp_path / "p.gpkg")
    raw = json.loads(json.dumps(tiny))
    raw["data"] = {"image": image, "labels": str(tmp_path / "p.gpkg"), "field": "kind"}
    raw["split"] = {"block_px": 4, "buffer_px": 0}
    runs = [train(with_(raw, f"cache{gb}", train__epochs=1, train__cache_gb=gb)) for gb in (2.0, 0.0)]
    assert without_time(runs[0].read_log()) == without_time(runs[1].read_log())
    assert set(evaluate(runs[1])["models"]) == {"network", "random forest"}


def test_a_run_of_several_scenes_maps_each(tiny, write_tif):
    for i, name in enumerate(("a", "b")):
        codes, image = landscape(seed=i)
        origin = (500_000 + 9000 * i, 5_000_000)
        image_path = write_tif(f"i/{name}.tif", image, bands=["green", "red", "nir"], nodata=0, origin=origin)
        label_path = write_tif(f"l/{name}.tif", codes, nodata=0, origin=origin)
    raw = json.loads(json.dumps(tiny))
    raw["data"] |= {"image": image_path.replace("b.tif", "*.tif"), "labels": label_path.replace("b.tif", "*.tif")}
    run = run_all(with_(raw, "two", train__epochs=1))
    assert {path.name for path in run.map_files} == {"a.tif", "b.tif", "a_confidence.tif", "b_confidence.tif"}
    report = run.path("report.html").read_text()
    assert "maps/a.tif" in report
    assert "maps/b.tif" in report


def test_a_model_computes_its_indices_by_itself(tiny, tmp_path, write_tif):
    config = with_(
        tiny, data__indices=["ndvi", "ndwi"], data__sensor="landsat8", data__use=["green", "red"], train__epochs=1
    )
    run = train(config)
    scores = evaluate(run, part="val")["models"]
    assert set(scores) == {"network", "random forest"}
    for name in ("model", "baseline"):
        entry = load_model(run.path(name)).spec.sensors[0]
        assert entry.bands == ("green", "red", "ndvi", "ndwi")
        assert entry.indices == ("ndvi", "ndwi")
        done = predict(run.path(name), config.data.image, tmp_path / f"{name}.tif")
        assert sum(row["pixels"] for row in done.areas) == 96 * 128
    # The map is made of what training saw: the model on the training scene's own windows agrees with it.
    model = load_model(run.path("baseline"))
    sample = prepare_run(config).scenes[0].read(Window(0, 0, 96, 128))
    shares = model.answers(image_batch([sample], model.spec))[0]
    with rasterio.open(tmp_path / "baseline.tif") as file:
        assert np.array_equal(file.read(1), model.legend.decode(shares.argmax(0)))
    blind = write_tif("blind.tif", landscape()[1][:2], bands=["green", "red"], nodata=0)
    with pytest.raises(BandError, match=r"lacks the bands ndvi, ndwi .* \(ndvi is made of nir, red\)"):
        predict(run.path("model"), blind, tmp_path / "blind_map.tif")
    # A band of that name in another image is not taken for the model's own index.
    named = write_tif("named.tif", landscape()[1], bands=["green", "red", "ndvi"], nodata=0)
    with pytest.raises(BandError, match="lacks the bands ndvi, ndwi"):
        predict(run.path("model"), named, tmp_path / "named_map.tif")


def test_balance_and_augmentation_train_alike_whoever_reads_the_windows(tiny):
    raw = {
        "size_px": [16, 24, 32], "sampling": "sqrt", "rare": {"classes": ["town"], "copies": 2}, "class_weights": "effective",
        "augment": {"scale": [0.7, 1.5], "rotation": 15, "brightness": 0.1, "noise": 0.05, "drop_bands": 0.1, "permute_bands": 0.1},
    }  # fmt: skip
    tiny["train"] |= raw | {"epochs": 2, "steps_per_epoch": 3}
    tiny["split"]["balanced"] = 0.6
    tiny["baseline"] = False
    here = train(with_(tiny, "here"))
    elsewhere = train(with_(tiny, "elsewhere", train__workers=1))  # another process reads the windows
    assert without_time(here.read_log()) == without_time(elsewhere.read_log())
    assert all(math.isfinite(row["loss"]) for row in here.read_log())
    notes = here.read_json("notes.json")
    assert any("they count 3 times" in note for note in notes)
    assert any("train blocks are kept for even classes" in note for note in notes)
