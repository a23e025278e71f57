from __future__ import annotations

import json

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.data.split import Split, Tile
from covermap.geo.grid import Window
from covermap.metrics.confusion import Confusion
from covermap.report.doubts import find_doubts

GOOD = [[900, 50, 50], [50, 900, 50], [50, 50, 900]]
FAIR = [[800, 150, 50], [50, 900, 50], [50, 50, 900]]


def metrics_of(**models):
    results = {}
    for name, counts in models.items():
        confusion = Confusion(3)
        confusion.counts += np.array(counts)
        results[name.replace("_", " ")] = {"scores": confusion.scores(), "per_class": confusion.table("abc")}
    results = json.loads(json.dumps(results).replace("NaN", "null"))  # as metrics.json holds it
    return {"part": "test", "is_test": True, "note": "", "classes": list("abc"), "models": results}


def log_of(scores, losses=0.5, val_losses=0.5):
    columns = np.broadcast_arrays(scores, losses, val_losses)
    return [
        {"epoch": i, "loss": loss, "val_loss": val, "val_miou": score}
        for i, (score, loss, val) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
    ]


@pytest.fixture
def doubts_of(run):
    return lambda **pieces: " ".join(find_doubts(run.config, **pieces))


def test_a_sound_run_raises_no_doubt(run, doubts_of):
    log = log_of([0.5, 0.6, 0.7, *[0.75] * 27])
    split = Split.load(run.path("split.csv"))
    metrics = metrics_of(network=GOOD, random_forest=FAIR)
    assert doubts_of(split=split, metrics=metrics, log=log, chosen_epoch=4) == ""


def test_doubts_on_classes_name_them_once(doubts_of):
    notes = ["test has no pixel of b", "train has no pixel of c"]
    text = doubts_of(metrics=metrics_of(network=[[900, 0, 0], [0, 0, 0], [130, 0, 20]]), notes=notes)
    assert "No test pixel shows b:" in text
    assert "Very few test pixels show c (150 px):" in text
    assert "network mostly misses or confuses c (IoU 0.13)" in text
    assert "est has no pixel of b" not in text
    assert "Train has no pixel of c." in text


def test_doubts_on_a_network_no_better_than_the_forest(doubts_of):
    assert "not better than the random forest" in doubts_of(metrics=metrics_of(network=FAIR, random_forest=GOOD))
    assert "not better than the random forest" in doubts_of(metrics=metrics_of(network=GOOD, random_forest=GOOD))


def test_doubts_on_a_class_that_the_network_never_maps_and_the_forest_does(doubts_of):
    blind = [[0, 1000, 0], [0, 1000, 0], [0, 0, 1000]]
    text = doubts_of(metrics=metrics_of(network=blind, random_forest=FAIR))
    assert "The network never maps a (1,000 test px)." in text
    assert "The random forest is much better than the network at a (IoU 0.73 against 0.00) and b (IoU 0.75 " in text
    assert "misses or confuses" not in text


def test_doubts_on_scores_that_are_no_test(doubts_of):
    metrics = metrics_of(network=GOOD) | {"part": "val", "is_test": False, "note": "val chose the checkpoint"}
    assert doubts_of(metrics=metrics) == "Val chose the checkpoint."


@pytest.mark.parametrize(
    ("method", "buffer_px", "doubt"),
    [("random", 0, "too good"), ("stratified", 4, "too good"), ("blocks", 0, "touch"), ("blocks", 4, "")],
)
def test_doubts_on_splits_that_leak(doubts_of, method, buffer_px, doubt):
    split = Split((Tile("image", Window(0, 0, 9, 9), "train"),), buffer_px, method)
    notes = [f"split {method}: neighbouring windows stand on both sides"]
    text = doubts_of(split=split, notes=notes)
    assert doubt in text if doubt else text == ""
    assert "Split random" not in text


@pytest.mark.parametrize(
    ("log", "doubt"),
    [
        (log_of([0.1, 0.2, 0.3]), "stopped after epoch 3 of 30"),
        (log_of(np.linspace(0.2, 0.7, 30)), "still improving"),
        (log_of([*np.linspace(0.2, 0.7, 27), 0.7, 0.69, 0.695]), ""),
        (log_of([*np.linspace(0.2, 0.7, 27), 0.7, 0.7, 0.701]), ""),
        (log_of([0.5] * 30, np.linspace(1, 0.1, 30), np.linspace(0.6, 1.2, 30)), "while the train loss fell"),
        (log_of([0.5] * 30, 0.2, 0.9), "far above the train loss"),
        (log_of([0.5] * 30, 0.2, 0.39), ""),
    ],
)
def test_doubts_on_training(doubts_of, log, doubt):
    text = doubts_of(log=log)
    assert doubt in text if doubt else text == ""


def test_a_choice_that_was_lucky_on_val_is_said(doubts_of):
    metrics = metrics_of(network=GOOD)
    assert "expect the lower one" in doubts_of(log=log_of([0.95] * 30), chosen_epoch=9, metrics=metrics)
    assert doubts_of(log=log_of([0.85] * 30), chosen_epoch=9, metrics=metrics) == ""


def area_of(name, mapped_ha, area_ha, low_ha, high_ha):
    half = None if low_ha is None else max(area_ha - low_ha, high_ha - area_ha)
    return {
        "name": name,
        "mapped_ha": mapped_ha,
        "area_ha": area_ha,
        "ci95_ha": half,
        "low_ha": low_ha,
        "high_ha": high_ha,
    }


def test_counted_areas_that_a_sample_contradicts(doubts_of):
    right = area_of("water", 105.0, 100.0, 90.0, 110.0)
    wrong = area_of("forest", 2349.24, 2100.0, 1905.0, 2295.0)
    below, odd = area_of("road", 2.75, 1.5, 0.0, 2.5), area_of("town", 30.0, 10.0, None, None)
    nothing = area_of("ice", 30.0, None, None, None)
    assert doubts_of(areas={"map.tif": [right, odd, nothing]}) == ""
    text = doubts_of(areas={"map.tif": [right, wrong, odd]}).replace("\N{NO-BREAK SPACE}", " ")
    assert text == "The map counts 2,349 ha of forest, the sample says 2,100 ± 195: use the sample's."
    text = doubts_of(areas={"maps/a.tif": [wrong, below]}).replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith(
        "The map maps/a.tif counts 2,349 ha of forest, the sample says 2,100 ± 195; 2.8 ha of road, "
    )
    assert text.endswith("the sample says 1.5 (0.0 to 2.5): use the sample's.")
    many = [area_of(f"c{i}", 100.0 + i, 10.0, 5.0, 15.0) for i in range(6)]
    text = doubts_of(areas={"map.tif": many})
    assert [f"c{i}" in text for i in range(6)] == [False, False, True, True, True, True]
    assert text.endswith("; so it is with 2 more classes: use the sample's.")


def test_answers_that_are_no_classes():
    scores = {"rmse": 2.0, "r2": -0.1, "num_pairs": 12}
    models = {"network": {"scores": scores}, "random forest": {"scores": scores | {"rmse": 1.5}}}
    metrics = {"part": "test", "is_test": True, "note": "", "task": "chip_regression", "models": models}
    found = find_doubts(parse_config({"data": {"image": "a.tif"}}), metrics=metrics)
    assert "rmse 2) is not better than the random forest (1.5)" in found[0]
    assert "R2 is -0.100" in found[1]
    assert "has 12 answers" in found[2]
