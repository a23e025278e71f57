"""Change and semantic change as tasks: trained, resumed, scored, mapped and reported; ways of telling it compared."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError, ModelError
from covermap.core.registry import find
from covermap.core.run import Run
from covermap.core.train_config import PredictConfig
from covermap.core.types import InputSpec
from covermap.data.chips import image_batch
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.data.split import Split
from covermap.models import load_model, num_features
from covermap.report.page import write_report
from covermap.two_dates import TwoDates
from covermap.verbs.change import change
from covermap.verbs.change_study import PLAIN, WAYS, _prior, _transitions, change_study
from covermap.verbs.check import check
from covermap.verbs.evaluate import evaluate
from covermap.verbs.export_onnx import export_onnx
from covermap.verbs.predict import predict
from covermap.verbs.score import compare
from covermap.verbs.train import train
from tests.report.test_report import Page, svg

SIDE, DATES = 320, ("2019-06-01", "2021-06-01")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    write_scene(SceneRecipe(height=SIDE, width=SIDE, num_dates=2, change_share=0.15, noise=0.6, seed=3), folder)
    return folder


def config_of(pair, folder, task="semantic_change", **more):
    images = [
        {"path": str(pair / f"image_date{i}.tif"), "sensor": "landsat7", "date": date}
        for i, date in enumerate(DATES, 1)
    ]
    label = {"semantic_change": "dates", "change": "change", "segmentation": "single"}[task]
    raw = {
        "name": task, "output": str(folder), "task": task,
        "data": {"image": images, "labels": [str(pair / f"labels_date{i}.tif") for i in (1, 2)], "label": label,
                 "legend": str(pair / "legend.yaml")},
        "split": {"val": 0.2, "test": {"cols": [192, SIDE]}, "block_px": 64, "buffer_px": 0, "seed": 2},
        "model": {"backbone": "unet", "backbone_options": {"widths": [8, 16, 24]}, "pixel_width": 16},
        "train": {"epochs": 4, "steps_per_epoch": 10, "batch_size": 4, "size_px": 64, "lr": 0.01,
                  "class_weights": "none"},
        "baseline": {"trees": 20, "samples": 5000}, "decision": {"applicability": True},
    }  # fmt: skip
    for key, value in more.items():
        raw[key] = raw[key] | value if isinstance(value, dict) else value
    return parse_config(raw)


@pytest.fixture(scope="module")
def semantic(pair, tmp_path_factory):
    """A trained run of semantic change."""
    return train(config_of(pair, tmp_path_factory.mktemp("runs")))


def test_what_became_what_is_learnt_scored_and_reported(semantic, pair):
    check(semantic.config)
    metrics = evaluate(semantic)
    (name, found), *others = metrics["models"].items()
    assert (name, others) == ("network", [])
    scores = found["scores"]
    assert scores["f1"] > 0.5
    assert scores["sek_from_to"] > 0.03
    assert scores["sek_from_to"] != scores["sek_dates_stacked"]
    split = Split.load(semantic.path("split.csv"))
    (scene,) = open_scenes(semantic.config.data)
    mask = split.part_mask(scene.name, scene.grid.window) == 3
    assert scores["num_pixels"] == int((mask & (scene.read_labels(scene.grid.window) != 255)).sum())
    low, high = (found["intervals"]["sek_from_to"][key] for key in ("low", "high"))
    assert low <= scores["sek_from_to"] <= high
    assert found["intervals"]["f1"]["value"] == pytest.approx(scores["f1"])
    assert len(found["per_class"]) == 16
    assert found["per_class"][0]["class"] == "water, before"
    page = write_report(semantic).read_text()
    assert "SeK (from_to)" in page
    assert "SeK (dates_stacked)" in page
    assert any("no baseline" in note for note in semantic.read_json("notes.json"))


def test_the_map_is_of_the_later_date_with_the_earlier_one_and_the_change_beside_it(semantic, tmp_path):
    images = semantic.config.data.images
    done = predict(semantic.path("model"), images, tmp_path / "map.tif")
    exchanged = [image.model_copy(update={"date": None}) for image in images[::-1]]  # dates that fall are refused
    again = predict(semantic.path("model"), exchanged, tmp_path / "back.tif")
    assert again.path.exists()
    read = {}
    for name in ("map", "before", "change", "back", "back_before", "back_change", "confidence"):
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            read[name] = dataset.read(1)
            if name in ("map", "before"):
                assert dataset.tags()["COVERMAP_DATE"] == DATES[name == "map"]
    np.testing.assert_array_equal(read["map"], read["back_before"])
    np.testing.assert_array_equal(read["before"], read["back"])
    np.testing.assert_array_equal(read["change"], read["back_change"])
    known = read["change"] != 255
    certain = known & (read["change"] != 50)  # rounded
    np.testing.assert_array_equal((read["map"] != read["before"])[certain], (read["change"] > 50)[certain])
    assert {"before.tif", "change.tif", "before.areas.csv", "confidence.tif"} <= {path.name for path in done.files}


def test_the_page_shows_both_dates_their_maps_and_what_became_what(semantic):
    evaluate(semantic)
    predict(semantic.path("model"), semantic.config.data.images, semantic.path("map.tif"), overwrite=True)
    page = Page(write_report(semantic).read_text())
    alts = [alt for alt, _ in page.images["map"]]
    assert ["of the image of" in alt for alt in alts] == [True, True, False, False]
    assert [date in alt for date, alt in zip(DATES, alts, strict=False)] == [True, True]
    text = " ".join(page.sections["map"].split())
    assert "before.tif, the earlier date" in text
    assert "map.tif, the later date" in text
    examples = [alt.split(" of scene")[0] for alt, _ in page.images["examples"]]
    assert examples[:6] == ["Image before, 2019-06-01", "Label", "Prediction", "Image after, 2021-06-01", "Label",
                            "Prediction"]  # fmt: skip
    ways = [alt.split(" of ")[1].split(":")[0] + alt[-7:] for alt, _ in page.images["confusion"]]
    assert len(ways) == len(set(ways)) == 4  # two dates, by row and by column
    assert "Probability of change" in page.sections["confidence"]
    rows = page.table("Scores of each class")
    assert rows[2][0] == "water, before"
    water = next(c.colour for c in load_model(semantic.path("model")).legend.classes if c.name == "water")
    assert water in svg(page.images["classes"][0][1])
    assert f"covermap change {semantic.path('before.tif')}" in page.sections["change"]
    change([semantic.path("before.tif"), semantic.path("map.tif")], semantic.path("from_to.tif"))
    page = Page(write_report(semantic).read_text())
    assert "2019-06-01 to 2021-06-01: from_to.tif counts" in " ".join(page.sections["change"].split())
    assert [alt.split()[0] for alt, _ in page.images["change"]] == ["Overview", "Transition", "Sankey", "Hectares"]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(pair, tmp_path):
    whole = train(config_of(pair, tmp_path / "whole", baseline=False, train={"epochs": 2}))
    half = config_of(pair, tmp_path / "half", baseline=False, train={"epochs": 2})

    def stop(told):
        if told.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half, say=stop)
    run = train(half, resume=True)
    losses = [[row["loss"] for row in one.read_log()] for one in (whole, run)]
    assert losses[0] == losses[1]


def test_change_alone_with_the_forest_on_both_dates_and_their_differences(pair, tmp_path):
    run = train(config_of(pair, tmp_path, "change"))
    metrics = evaluate(run)
    assert metrics["models"]["network"]["scores"]["f1"] > 0.4
    forest = load_model(run.path("baseline"))
    assert num_features(forest.spec, forest.task) == 18
    done = predict(run.path("model"), run.config.data.images, tmp_path / "map.tif")
    assert done.summary.legend.names == ("unchanged", "changed")
    with rasterio.open(done.path) as dataset:
        assert dataset.tags()["COVERMAP_DATE"] == "/".join(DATES)
    page = Page(write_report(run).read_text())
    assert "AUPRC" in page.sections["scores"]
    assert "answers to compare with" not in page.sections["doubts"]
    with pytest.raises(DataError, match="the model takes 2"):
        predict(run.path("model"), run.config.data.images[:1], tmp_path / "one.tif")


def test_a_backbone_of_published_kind_and_cross_attention_learn_it_too(pair, tmp_path):
    model = {"backbone": "prithvi_eo_v2_tiny", "backbone_options": {"sizes": {"width": 32, "depth": 2, "heads": 2}},
             "weights": "none", "dates": "cross_attention", "decoder": "fpn", "pixel_width": 0}  # fmt: skip
    run = train(config_of(pair, tmp_path, baseline=False, model=model, train={"epochs": 1, "steps_per_epoch": 3}))
    assert evaluate(run)["models"]["network"]["scores"]["num_pixels"] > 0


def test_ways_of_telling_change_are_compared_on_equal_terms(pair, tmp_path):
    config = config_of(pair, tmp_path / "none", train={"epochs": 2})
    study = change_study(config, tmp_path / "study", seeds=[0, 1])
    found = json.loads((tmp_path / "study/study.json").read_text())
    assert {row["way"] for row in study.rows} == set(WAYS)
    assert {row["score"] for row in study.rows if row["way"] == "change"} == {"f1", "iou", "kappa"}
    assert all(len(row["values"]) == 2 for row in study.rows)
    assert {row["way"] for row in study.differences} == set(WAYS) - {PLAIN}
    assert found["budget"]["steps"] == 20
    runs = {name: Run.open(tmp_path / f"study/{name}_0") for name in ("segmentation", "change", "semantic_change")}
    assert [run.config.train.batch_size for run in runs.values()] == [8, 4, 4]
    assert len({run.config.train.steps_per_epoch for run in runs.values()}) == 1
    # Plain comparison is what comparing the maps of both dates gives.
    pairs = open_scenes(runs["semantic_change"].config.data)
    model = TwoDates(load_model(runs["segmentation"].path("model")), pairs)
    split = Split.load(runs["semantic_change"].path("split.csv"))
    hit = said = there = 0
    for one in compare(model, pairs, split, "test", settings=config.predict):
        k = len(model.legend)
        differs = one.answers[:k].argmax(0) != one.answers[k : 2 * k].argmax(0)
        known = np.isfinite(one.reference[2])
        truth = one.reference[2] == 1
        hit += (differs & truth & known).sum()
        said += (differs & known).sum()
        there += (truth & known).sum()
    (row,) = [row for row in study.rows if row["way"] == PLAIN and row["score"] == "f1"]
    assert row["values"][0] == pytest.approx(2 * hit / (said + there))
    # What is there stays: the same call with resume changes nothing.
    before = runs["change"].path("model/model.safetensors").stat().st_mtime_ns
    again = change_study(config, tmp_path / "study", seeds=[0, 1], resume=True)
    assert [row["values"] for row in again.rows] == [row["values"] for row in study.rows]
    assert runs["change"].path("model/model.safetensors").stat().st_mtime_ns == before


def test_both_dates_of_a_place_stand_on_one_side_of_the_split(pair, tmp_path):
    config = config_of(pair, tmp_path / "none", train={"epochs": 1, "steps_per_epoch": 2}, baseline={"trees": 2})
    change_study(config, tmp_path / "study", seeds=[0])
    runs = [Run.open(tmp_path / f"study/{name}_0") for name in ("segmentation", "semantic_change")]
    single, both = (Split.load(run.path("split.csv")) for run in runs)
    singles, (pair_scene,) = (open_scenes(run.config.data) for run in runs)
    for scene in singles:
        np.testing.assert_array_equal(
            single.part_mask(scene.name, scene.grid.window), both.part_mask(pair_scene.name, pair_scene.grid.window)
        )


def test_what_makes_no_study_is_refused(pair, tmp_path):
    config = config_of(pair, tmp_path)
    with pytest.raises(ConfigError, match="is change"):
        change_study(config_of(pair, tmp_path, "change"), tmp_path / "a")
    with pytest.raises(ConfigError, match="one twice"):
        change_study(config, tmp_path / "a", seeds=[1, 1])


def test_a_model_of_one_date_answers_for_two(pair, semantic, tmp_path):
    run = train(config_of(pair, tmp_path, "segmentation", baseline=False, train={"epochs": 1, "steps_per_epoch": 2}))
    (scene,) = open_scenes(semantic.config.data)
    model = load_model(run.path("model"))
    both = TwoDates(model, [scene])
    assert isinstance(both.spec, InputSpec)
    assert both.spec.num_dates == 2
    batch = image_batch([scene.read(scene.grid.window)], both.spec)
    answers = both.answers(batch)
    k = len(model.legend)
    singles = open_scenes(run.config.data)
    for i, one in enumerate(singles):
        own = model.answers(image_batch([one.read(one.grid.window)], model.spec))
        np.testing.assert_allclose(answers[:, i * k : (i + 1) * k], own, atol=1e-5)
    np.testing.assert_allclose(answers[:, -2:].sum(1), 1, atol=1e-6)
    with pytest.raises(ModelError, match="does not map one date"):
        TwoDates(load_model(semantic.path("model")), [scene])


def test_a_model_of_two_dates_says_so_and_can_be_handed_on(semantic, pair, tmp_path):
    text = semantic.path("model/README.md").read_text()
    assert "dates: 2, in the order of time" in text
    assert "--add landsat7=IMAGE_2.tif" in text
    item = json.loads(semantic.path("model/item.stac.json").read_text())["properties"]
    assert item["mlm:tasks"] == ["semantic-segmentation"]
    assert item["mlm:output"][0]["result"]["shape"][1] == 18
    lines = export_onnx(semantic.path("model"), tmp_path / "model.onnx", size_px=64)
    assert "agree" in lines[0]
    images = semantic.config.data.images
    for key in ("entropy", "probabilities"):
        with pytest.raises(ModelError, match=f"no one layer of {key}"):
            predict(semantic.path("model"), images, tmp_path / "a.tif", settings=PredictConfig(**{key: True}))
    with pytest.raises(DataError, match="the model takes 2"):
        predict(semantic.path("model"), images[:1], tmp_path / "one.tif")
    turned = predict(semantic.path("model"), images, tmp_path / "d4.tif", settings=PredictConfig(tta="d4"))
    assert turned.summary.num_nodata == 0


def test_what_is_known_of_unlabelled_ground_counts_for_the_transitions_of_a_study(tmp_path):
    find("source", "second").write_miniature(tmp_path / "second")
    config = parse_config({
        "task": "semantic_change", "split": {"method": "source", "val": 0.0},
        "data": {"source": "second", "root": str(tmp_path / "second"), "label": "dates"},
    })  # fmt: skip
    scenes = open_scenes(config.data)
    split = make_split(scenes, config.split, size_px=64)
    prior = _prior(_transitions(scenes, split, 6), balanced=False)
    parts = [scene.target.indices(scene.grid.window)[2] for scene in scenes if scene.part == "train"]
    assert prior.changed == pytest.approx(np.mean([(part == 1).mean() for part in parts]), abs=1e-3)


def test_a_run_goes_on_only_with_the_labels_that_it_began_with(pair, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pair, folder)
    config = config_of(folder, tmp_path / "runs", baseline=False, train={"epochs": 2, "steps_per_epoch": 2})

    def stop(told):
        if told.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, say=stop)
    with rasterio.open(folder / "labels_date2.tif", "r+") as dataset:
        codes = dataset.read(1)
        dataset.write(np.where(codes == 2, 3, codes).astype(codes.dtype), 1)
    with pytest.raises(DataError, match=r"labels_date2.tif changed since"):
        train(config, resume=True)


def test_a_model_starts_from_one_of_the_same_task_only(semantic, pair, tmp_path):
    model = {"start": str(semantic.folder)}
    short = {"epochs": 1, "steps_per_epoch": 1}
    run = train(config_of(pair, tmp_path, baseline=False, model=model, train=short))
    assert any("started from" in note for note in run.read_json("notes.json"))
    with pytest.raises(ModelError, match="of task semantic_change, not change"):
        train(config_of(pair, tmp_path, "change", baseline=False, model=model, train=short))


def test_a_study_does_not_stop_ways_at_different_times(pair, tmp_path):
    with pytest.raises(ConfigError, match="patience"):
        change_study(config_of(pair, tmp_path, train={"patience": 1}), tmp_path / "a")
