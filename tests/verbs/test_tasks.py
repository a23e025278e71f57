"""Every task: trained, scored, mapped and reported through the same verbs; each head beats its trivial baseline (C8)."""

import csv
import json

import numpy as np
import pytest
import rasterio
import torch

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError, GridError, LabelError, OutputError
from covermap.core.legend import load_legend
from covermap.core.registry import find
from covermap.core.task import Task
from covermap.core.types import Batch
from covermap.data.chips import TrainWindows
from covermap.data.reference import chip_answer
from covermap.models import load_model, read_card
from covermap.nn.heads import answers, reference
from covermap.report.page import write_report
from covermap.start import prepare_run
from covermap.verbs.check import check
from covermap.verbs.evaluate import evaluate
from covermap.verbs.export_onnx import export_onnx
from covermap.verbs.predict import predict
from covermap.verbs.train import train

SIDE = 24


@pytest.fixture
def chips(tmp_path, write_tif):
    """60 chips of two bands: class 1 is dark, 2 bright, 3 bright in a corner; a number in each that the bands tell."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "chips"
    rows = []
    for i in range(60):
        code = i % 3 + 1
        image = rng.normal(100, 10, (2, SIDE, SIDE))
        if code == 2:
            image += 40
        if code == 3:
            image[:, :8, :8] += 60
        write_tif(f"chips/c{i}.tif", image.astype("float32"), bands=["red", "nir"], origin=(5e5 + 240 * i, 5e6))
        rows.append((f"c{i}", code))
    return folder, rows


def base(tmp_path, data, **more):
    raw = {
        "name": "one", "output": str(tmp_path / "runs"), "data": data, "baseline": {"trees": 20},
        "split": {"val": 0.2, "test": 0.2, "seed": 1},
        "model": {"backbone": "unet", "backbone_options": {"widths": [8, 16]}, "decoder": "linear"},
        "train": {"epochs": 12, "batch_size": 6, "lr": 0.02, "size_px": SIDE},
    }  # fmt: skip
    for key, value in more.items():
        raw[key] = raw.get(key, {}) | value if isinstance(value, dict) and isinstance(raw.get(key), dict) else value
    return raw


def finish(raw):
    """check, train, evaluate and report; the test scores of the network, and the run."""
    config = parse_config(raw)
    check(config)
    run = train(config)
    metrics = evaluate(run)
    assert metrics["task"] == config.task_section.name
    page = write_report(run).read_text()
    assert "On held-out test" in page
    assert set(metrics["models"]) == {"network", "random forest"}
    return metrics["models"]["network"], run


@pytest.mark.parametrize("task", ["classification", "chip_regression", "regression", "shares"])
def test_run_by_the_command_line(tmp_path, chips, write_tif, covermap, task):
    if task == "classification":
        data = chip_labels(tmp_path, chips, write_tif)
    elif task == "shares":
        data = pixel_labels(tmp_path, chips, write_tif) | {"target": {"shares": True}}
        task = "chip_regression"
    else:
        data = numbers(tmp_path, chips, write_tif)
    raw = base(tmp_path, data, task=task, train={"epochs": 1})
    (tmp_path / "c.yaml").write_text(json.dumps(raw))
    code, out, err = covermap("run", str(tmp_path / "c.yaml"), "--quiet")
    assert code == 0, err
    assert ("macro_recall" if task == "classification" else "rmse") in out
    assert (tmp_path / "runs/one/chips.csv").is_file() == (task != "regression")
    code, out, _ = covermap("evaluate", str(tmp_path / "runs/one"), "--part", "val")
    assert code == 0
    assert "these are no test scores" in out.replace("\n", " ")
    assert covermap("report", str(tmp_path / "runs/one"))[0] == 0
    assert covermap("check", str(tmp_path / "c.yaml"))[0] == 0


def chip_labels(tmp_path, chips, write_tif):
    """The chips in the layout of LUCAS, with classes 1 to 3."""
    folder, rows = chips
    root = tmp_path / "lucas"
    for name, code in rows:
        (root / str(code)).mkdir(parents=True, exist_ok=True)
        with rasterio.open(folder / f"{name}.tif") as source:
            values = source.read()
            transform = source.transform
        six = np.concatenate([values] * 3)
        write_tif(f"lucas/{code}/{name[1:]}.tif", six, origin=(transform.c, transform.f))
    with open(root / "chips_LC_class.csv", "w", newline="") as file:
        csv.writer(file).writerows([("Point_ID", "STR18"), *((name[1:], code) for name, code in rows)])
    return {"source": "lucas", "root": str(root)}


def test_classification_of_chips(tmp_path, chips, write_tif):
    data = chip_labels(tmp_path, chips, write_tif)
    found, run = finish(base(tmp_path, data, task="classification"))
    assert found["scores"]["oa"] > 0.8  # the most frequent class: 0.33
    assert found["scores"]["num_pixels"] == sum(sum(row) for row in found["confusion"])
    card = read_card(run.path("model"))
    assert (card.task.name, card.build["pool"], card.spec.size_px) == ("classification", "mean", SIDE)
    out = tmp_path / "out.csv"
    done = predict(run.path("model"), str(tmp_path / "lucas/2/*.tif"), out)
    with open(out) as file:
        rows = list(csv.DictReader(file))
    assert done.num_blocks == len(rows) == 20
    assert sum(row["code"] == "2" for row in rows) >= 16
    shares = [[float(row[key]) for key in row if key.startswith("p(")] for row in rows]
    assert np.allclose(np.sum(shares, 1), 1, atol=1e-3)


def test_a_model_of_chips_maps_a_scene_with_a_pixel_for_each(tmp_path, chips, write_tif):
    data = chip_labels(tmp_path, chips, write_tif)
    run = train(parse_config(base(tmp_path, data, task="classification", baseline=False)))
    dark = np.full((6, 30, 60), 100, "float32") + np.random.default_rng(1).normal(0, 10, (6, 30, 60))
    dark[:, :, 24:48] += 40
    scene = write_tif(
        "scene.tif", dark.astype("float32"), bands=["blue", "green", "red", "nir_narrow", "swir1", "swir2"]
    )
    done = predict(run.path("model"), scene, tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        codes = dataset.read(1)
        assert dataset.res == (240, 240)
    assert codes.shape == (2, 3)
    assert codes[0].tolist() == [1, 2, 1]
    assert {path.name for path in done.files} >= {"map.tif", "map.csv", "probs.tif"}
    with pytest.raises(DataError, match="names 20 scenes"):
        predict(run.path("model"), str(tmp_path / "lucas/2/*.tif"), tmp_path / "all.tif")


def pixel_labels(tmp_path, chips, write_tif):
    """The chips with a raster of classes each: 1, and 2 where it is bright."""
    folder, rows = chips
    for name, code in rows:
        codes = np.full((SIDE, SIDE), 2 if code == 2 else 1, "uint8")
        if code == 3:
            codes[:8, :8] = 2
        with rasterio.open(folder / f"{name}.tif") as source:
            transform = source.transform
        write_tif(f"labels/{name}.tif", codes, origin=(transform.c, transform.f))
    legend = {1: "dark", 2: "bright"}
    return {"image": str(folder / "*.tif"), "labels": str(tmp_path / "labels" / "*.tif"), "legend": legend}


def test_which_classes_are_in_a_chip(tmp_path, chips, write_tif):
    data = pixel_labels(tmp_path, chips, write_tif)
    raw = base(tmp_path, data, task={"name": "multilabel", "classes": ["bright"]}, model={"pool": "max"})
    found, run = finish(raw | {"decision": {"threshold": 0.4}})
    assert [row["class"] for row in found["per_class"]] == ["bright"]
    assert found["scores"]["threshold"] == 0.4
    assert found["scores"]["map"] > 0.9  # by chance: 0.67
    done = predict(run.path("model"), str(tmp_path / "chips" / "c1*.tif"), tmp_path / "out.csv")
    with open(tmp_path / "out.csv") as file:
        shares = [float(row["p(bright)"]) for row in csv.DictReader(file)]
    assert done.num_blocks == 11
    assert shares == sorted(shares, reverse=True)


def test_shares_of_classes_in_a_chip(tmp_path, chips, write_tif):
    data = pixel_labels(tmp_path, chips, write_tif) | {"target": {"shares": True}}
    found, run = finish(base(tmp_path, data, task="chip_regression"))
    assert [row["target"] for row in found["per_number"]] == ["dark", "bright"]
    assert found["scores"]["r2"] > 0.7  # of the mean: 0
    stds = read_card(run.path("model")).task.std
    errors = [row["rmse"] / std for row, std in zip(found["per_number"], stds, strict=True)]
    assert found["scores"]["rmse"] == pytest.approx(np.mean(errors))


def test_a_class_that_the_train_part_lacks_has_a_share_of_nothing(tmp_path, chips, write_tif):
    data = pixel_labels(tmp_path, chips, write_tif) | {"target": {"shares": True}}
    data["legend"] = {1: "dark", 2: "bright", 3: "purple"}
    raw = base(tmp_path, data, task="chip_regression")
    told = check(parse_config(raw))
    assert told["counted"] == "chips"
    assert any("share purple is 0 everywhere in the train part" in note for note in told["notes"])
    found, run = finish(raw)
    stds = read_card(run.path("model")).task.std
    assert stds[2] == min(stds[:2])  # at 1 its noise would outweigh the others
    assert found["per_number"][2]["rmse"] < 0.2
    assert found["scores"]["r2"] > 0.7  # of the two that vary


def test_shares_are_kept_between_0_and_1():
    legend = load_legend({1: "water", 2: "height"})
    task = Task("regression", legend, units=("share", "m")).scaled([0.4, 10.0], [0.5, 2.0])
    found = answers(task, torch.tensor([[-3.0, -9.0], [3.0, 9.0], [0.2, 0.5]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -8.0], [1.0, 28.0], [0.5, 11.0]]))


def test_a_hazard_of_pixels(tmp_path, chips, write_tif):
    data = pixel_labels(tmp_path, chips, write_tif)
    raw = base(tmp_path, data, task={"name": "hazard", "positive": "bright"}, model={"decoder": "unet"})
    found, run = finish(raw)
    assert found["scores"]["auprc"] > 0.8
    assert found["scores"]["f1"] > 0.7
    assert found["scores"]["num_chips"] > found["scores"]["num_positive_chips"] > 0
    assert "false_positive_px_negative_chips" in found["scores"]
    assert run.read_log()[0]["val_auprc"] > 0
    assert read_card(run.path("model")).task.positive == 1


def test_a_val_part_without_the_hazard_is_refused_before_training(tmp_path, write_tif, tiny):
    codes = np.ones((1, 96, 128), "uint8")
    codes[0, 20:60, 80:120] = 2
    data = tiny["data"] | {"labels": write_tif("h.tif", codes, nodata=0), "legend": {1: "dry", 2: "wet"}}
    split = {"val": {"cols": [0, 40]}, "test": {"cols": [41, 60]}, "buffer_px": 0}
    raw = tiny | {"data": data, "split": split, "task": "hazard"}
    with pytest.raises(DataError, match="the val part has no pixel of wet, so val_auprc cannot be told"):
        prepare_run(parse_config(raw))
    prepare_run(parse_config(raw | {"train": tiny["train"] | {"monitor": "val_loss"}}))


def numbers(tmp_path, chips, write_tif, factor=1):
    """The chips with a raster of numbers: the mean of the image, and noise."""
    folder, rows = chips
    for name, _ in rows:
        with rasterio.open(folder / f"{name}.tif") as source:
            values, transform = source.read().mean(0), source.transform
        side = SIDE // factor
        values = values.reshape(side, factor, side, factor).mean((1, 3)) / 1000 + 0.7
        write_tif(f"t/{name}.tif", values.astype("float32"), gsd=10.0 * factor, origin=(transform.c, transform.f))
    return {"image": str(folder / "*.tif"), "target": {"path": str(tmp_path / "t" / "*.tif"), "unit": "m"}}


@pytest.mark.parametrize("factor", [1, 4])
def test_numbers_of_pixels(tmp_path, chips, write_tif, factor):
    data = numbers(tmp_path, chips, write_tif, factor)
    if factor > 1:
        data["target"]["factor"] = factor
    raw = base(tmp_path, data, task="regression", model={"decoder": "unet"})
    found, run = finish(raw)
    assert found["scores"]["r2"] > 0.6
    assert found["per_number"][0]["unit"] == "m"
    assert {row["place"] for row in found["per_place"]} <= {f"c{i}" for i in range(60)}
    done = predict(run.path("model"), str(tmp_path / "chips/c1.tif"), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        values = dataset.read(1)
    assert values.dtype == np.float32
    assert abs(values.mean() - 0.84) < 0.02  # not cut to whole numbers
    assert done.areas == []


def test_density_in_classes(tmp_path, chips, write_tif):
    data = numbers(tmp_path, chips, write_tif)
    raw = base(tmp_path, data, task={"name": "density", "breaks": [0.803, 0.82]}, train={"epochs": 20})
    found, run = finish(raw)
    assert [row["class"] for row in found["per_class"]] == ["below 0.803 m", "0.803 to 0.82 m", "0.82 m and more"]
    assert found["scores"]["oa"] > 0.7
    assert found["scores"]["mae"] < 0.5
    with open(run.path("chips_test_model.csv")) as file:
        kept = list(csv.DictReader(file))
    names = [row["class"] for row in found["per_class"]]
    aucs = []
    for i, border in enumerate(found["per_border"], 1):
        above = np.array([names.index(row["reference"]) >= i for row in kept])
        rank = np.array([sum(float(row[f"p({name})"]) for name in names[i:]) for row in kept])
        pairs = [(a > b) + (a == b) / 2 for a in rank[above] for b in rank[~above]]
        aucs.append(np.mean(pairs))
        assert border["auc"] == pytest.approx(aucs[-1], abs=2e-3)
        assert border["num_positive"] == above.sum()
    assert found["scores"]["auc"] == pytest.approx(np.mean(aucs), abs=2e-3)
    assert np.mean(aucs) > 0.8
    model = load_model(run.path("model"))
    assert model.task.num_channels == 2
    predict(run.path("model"), str(tmp_path / "chips" / "c*.tif"), tmp_path / "out.csv")
    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["code"] == "3"
    assert rows[-1]["code"] != "3"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "classification"}, "needs one class for each chip"),
        ({"task": "regression"}, "needs numbers"),
        ({"task": {"name": "hazard", "positive": "blue"}}, "no class 'blue'"),
        ({"task": {"name": "multilabel", "classes": ["blue"]}}, "no class 'blue'"),
        ({"task": "hazard", "data": {"legend": {1: "dark", 2: "bright", 3: "none"}}}, "has 3"),
        ({"task": {"name": "density", "breaks": [3, 1]}}, "rising"),
        ({"task": {"name": "segmentation", "breaks": [1]}}, "goes with task density"),
        ({"task": "multilabel", "train": {"class_weights": "balanced"}}, "no effect"),
        ({"task": "multilabel", "train": {"augment": {"scale": [0.5, 2]}}}, "no effect"),
        ({"task": "multilabel", "model": {"pixel_width": 8}}, "no effect"),
        ({"model": {"pool": "max"}}, "no effect"),
        ({"task": "multilabel", "train": {"loss": "dice"}}, "takes classes"),
        ({"train": {"loss": "mse"}}, "takes numbers"),
        ({"task": "multilabel", "train": {"monitor": "val_miou"}}, "not measured"),
        ({"task": "multilabel", "model": {"decoder": "mask2former"}}, "decoder"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, chips, write_tif, change, words):
    data = pixel_labels(tmp_path, chips, write_tif)
    with pytest.raises((ConfigError, LabelError), match=words):
        train(parse_config(base(tmp_path, data | change.pop("data", {}), **change)))


def test_a_constant_target_is_refused(tmp_path, chips, write_tif):
    data = numbers(tmp_path, chips, write_tif)
    for path in (tmp_path / "t").iterdir():
        with rasterio.open(path, "r+") as dataset:
            dataset.write(np.full((1, SIDE, SIDE), 0.3, "float32"))
    with pytest.raises(DataError, match=r"is 0\.3 everywhere"):
        train(parse_config(base(tmp_path, data, task="regression")))


@pytest.mark.parametrize(("source", "task"), [("bigearthnet", "multilabel"), ("lucas", "classification")])
def test_layouts_of_chips(tmp_path, source, task):
    find("source", source).write_miniature(tmp_path)
    raw = base(tmp_path, {"source": source, "root": str(tmp_path)}, task=task, train={"epochs": 1, "batch_size": 2})
    raw["split"] = {"val": 0.0, "test": 0.0}  # all chips of the miniature lie on one place
    run = train(parse_config(raw))
    assert len(json.loads(run.path("model/config.json").read_text())["legend"]["classes"]) == (
        44 if task == "multilabel" else 10
    )


# ------------------------------------------------------------------ what a review found


def test_a_table_of_chips_never_lies_on_its_input(tmp_path, chips, write_tif):
    data = chip_labels(tmp_path, chips, write_tif)
    run = train(parse_config(base(tmp_path, data, task="classification", baseline=False, train={"epochs": 1})))
    scene = tmp_path / "lucas/2/1.tif"
    before = scene.read_bytes()
    with pytest.raises(OutputError, match="is an input of this call"):
        predict(run.path("model"), str(scene), scene, overwrite=True)
    assert scene.read_bytes() == before
    (tmp_path / "m_probs.tif").write_text("mine")
    with pytest.raises(OutputError, match="m_probs"):
        predict(run.path("model"), str(scene), tmp_path / "m.tif")
    assert not (tmp_path / "m.csv").exists()


def test_chips_without_any_class_are_drawn_too(tmp_path, chips, write_tif):
    data = pixel_labels(tmp_path, chips, write_tif)
    raw = base(tmp_path, data, task={"name": "multilabel", "classes": ["bright"]}, train={"sampling": "balanced"})
    ready = prepare_run(parse_config(raw))
    positive = ready.survey.cell_px[:, 0] > 0
    weights = ready.sampling.weights
    assert 0 < positive.mean() < 1
    assert weights[positive].sum() == pytest.approx(weights[~positive].sum())


def test_a_small_chip_is_taught_what_it_is_scored_by(tmp_path, write_tif):
    """One raster of numbers lies under chips of two sizes: beyond a chip it tells of other ground."""
    rng = np.random.default_rng(0)
    numbers = np.zeros((48, 24 * 12), "float32")
    for i in range(12):
        height = 12 if i % 2 else 24
        origin = (5e5 + 240 * i, 5e6)
        write_tif(f"chips/c{i}.tif", rng.normal(0, 1, (1, height, 24)).astype("float32"), bands=["red"], origin=origin)
        numbers[:height, 24 * i : 24 * i + 24] = 1 + i / 10
        numbers[height:, 24 * i : 24 * i + 24] = 1000
    data = {"image": str(tmp_path / "chips/*.tif"), "target": {"path": write_tif("t.tif", numbers)}}
    config = parse_config(base(tmp_path, data, task="chip_regression"))
    ready = prepare_run(config)
    windows = TrainWindows(
        ready.scenes, ready.split, ready.survey.cells, ready.spec, config.train, length=8, targets=True,
        chip_px=ready.spec.size_px,
    )  # fmt: skip
    taught = [float(windows[i]["sample"].target[0]) for i in range(8)]
    assert max(taught) < 3


@pytest.mark.parametrize("factor", [None, 4])
def test_nothing_is_taught_where_the_image_holds_nothing(tmp_path, write_tif, factor):
    image = np.random.default_rng(0).normal(10, 1, (2, 96, 96)).astype("float32")
    image[:, :, :48] = -1
    data = {
        "image": [{"path": write_tif("i.tif", image, bands=["red", "nir"], nodata=-1)}],
        "target": {"path": write_tif("t.tif", np.random.default_rng(1).random((96, 96), "float32"))},
    }  # fmt: skip
    if factor:
        data["target"]["factor"] = factor
    raw = base(tmp_path, data, task="regression", train={"size_px": 32})
    raw["split"] = {"val": {"rows": [80, 96]}, "test": 0.0, "buffer_px": 0}
    config = parse_config(raw)
    ready = prepare_run(config)
    windows = TrainWindows(
        ready.scenes, ready.split, ready.survey.cells, ready.spec, config.train, length=12, targets=True
    )  # fmt: skip
    for i in range(12):
        item = windows[i]
        target, seen = item["sample"].target[0], item["valid"].any(0)
        side = 32 // len(target)
        seen = seen.reshape(len(target), side, len(target), side).any((1, 3))
        assert np.isnan(target[~seen]).all()


def test_density_at_a_break_is_one_class_for_loss_and_score(tmp_path, chips, write_tif):
    data = numbers(tmp_path, chips, write_tif)
    for i, path in enumerate(sorted((tmp_path / "t").iterdir())):
        with rasterio.open(path, "r+") as dataset:
            dataset.write(np.full((1, SIDE, SIDE), (0.7, 0.9, 0.5)[i % 3], "float32"))
    config = parse_config(base(tmp_path, data, task={"name": "density", "breaks": [0.7, 0.9]}))
    ready = prepare_run(config)
    for cell in ready.survey.cells:
        scene = ready.scenes[cell.scene]
        target = torch.from_numpy(scene.target.read(cell.window))[None]
        batch = Batch({}, torch.ones(1, 1, 1, 1, dtype=torch.bool), target=target)
        assert int(reference(ready.task, batch)) == chip_answer(scene, cell.window, ready.task)[0, 0]


def test_polygons_are_refused_where_chips_would_cut_them(tmp_path, chips, write_tif):
    folder, _ = chips
    box = {"type": "Polygon", "coordinates": [[[2.99, 45.1], [3.1, 45.1], [3.1, 45.2], [2.99, 45.2], [2.99, 45.1]]]}
    features = [{"type": "Feature", "properties": {"class": name}, "geometry": box} for name in ("a", "b")]
    (tmp_path / "l.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    data = {"image": str(folder / "c1.tif"), "labels": str(tmp_path / "l.geojson"), "field": "class"}
    with pytest.raises((LabelError, GridError), match=r"polygons|overlap"):
        train(parse_config(base(tmp_path, data, task="multilabel")))


def test_chips_wider_than_high_are_chips(tmp_path, write_tif):
    rng = np.random.default_rng(0)
    for i in range(8):
        image, t = rng.normal(0, 1, (1, 20, 60)).astype("float32"), np.full((20, 60), i / 8, "float32")
        write_tif(f"chips/c{i}.tif", image, bands=["red"], origin=(5e5 + 900 * i, 5e6))
        write_tif(f"t/c{i}.tif", t, origin=(5e5 + 900 * i, 5e6))
    data = {"image": str(tmp_path / "chips/*.tif"), "target": {"path": str(tmp_path / "t/*.tif")}}
    raw = base(tmp_path, data, task="chip_regression")
    raw["split"] = {"val": 0.0, "test": 0.0}
    ready = prepare_run(parse_config(raw))
    assert len(ready.survey.cells) == 8 * 2
    assert {(cell.window.height, cell.window.width) for cell in ready.survey.cells} == {(20, 24)}


def test_onnx_of_numbers_is_in_their_unit(tmp_path, chips, write_tif):
    onnxruntime = pytest.importorskip("onnxruntime")
    data = numbers(tmp_path, chips, write_tif)
    run = train(parse_config(base(tmp_path, data, task="regression", baseline=False, train={"epochs": 2})))
    export_onnx(run.path("model"), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    with rasterio.open(chips[0] / "c1.tif") as source:
        image = source.read()[None, None].astype("float32")
    found = session.run(None, {session.get_inputs()[0].name: image})[0]
    predict(run.path("model"), str(chips[0] / "c1.tif"), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert np.allclose(found[0, 0], dataset.read(1), atol=1e-4)


def test_a_val_part_that_cannot_tell_the_score_is_said(tmp_path, write_tif):
    rng = np.random.default_rng(0)
    codes = np.ones((48, 96), "uint8")
    codes[:, :30] = 2
    data = {
        "image": write_tif("i.tif", rng.normal(0, 1, (1, 48, 96)).astype("float32"), bands=["red"]),
        "labels": write_tif("l.tif", codes), "legend": {1: "dry", 2: "flood"},
    }  # fmt: skip
    raw = base(tmp_path, data, task="hazard", baseline=False)
    raw["split"] = {"val": {"cols": [60, 96]}, "test": 0.0, "buffer_px": 0}
    with pytest.raises(DataError, match="the val part has no pixel of flood"):
        train(parse_config(raw))


def test_another_task_cannot_be_resumed(tmp_path, chips, write_tif):
    data = pixel_labels(tmp_path, chips, write_tif)
    raw = base(tmp_path, data, task="segmentation", baseline=False, train={"epochs": 1})
    train(parse_config(raw))
    with pytest.raises(OutputError, match="other settings in task"):
        train(parse_config(raw | {"task": "hazard"}), resume=True)
