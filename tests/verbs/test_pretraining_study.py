"""Studies of pre-training: methods beside raw statistics and random weights, with few to many labels."""

from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest

from covermap.core.errors import ConfigError, OutputError
from covermap.core.pretraining_plan import load_pretraining
from covermap.data.split import Split
from covermap.verbs.pretraining_results import FINETUNED, PROBE, RAW, conclusion, differences, together
from covermap.verbs.study import study

pytest.importorskip("pyarrow", reason="extra [parquet]")


@pytest.fixture
def plan(tiny):
    """Two methods, one seed, on the scene of `tiny`."""
    return {
        "title": "What does it bring?", "kind": "pretraining", "seeds": 1, "labels": [6, 12], "repeats": 2,
        "methods": {
            "mae": {"method": {"name": "mae", "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}},
            "simclr": {"method": "simclr", "method.temperature": 0.5},
        },
        "config": {
            "data": tiny["data"], "split": {"block_px": 16, "buffer_px": 0, "val": 0.1, "test": 0.3},
            "model": {"backbone": "sensor_vit_nano", "backbone_options": {"patch_px": 8}},
            "train": {"steps": 2, "batch_size": 4, "size_px": 16, "device": "cpu", "watch_every": 2},
        },
    }  # fmt: skip


def rows_of(out):
    with open(out / "rows.csv", encoding="utf-8") as file:
        return [(row["learner"], row["way"], int(row["labels"])) for row in csv.DictReader(file)]


def test_methods_stand_beside_raw_statistics_and_random_weights(plan, tmp_path):
    found = study(plan, tmp_path / "out")
    assert found.failed == {}
    assert set(rows_of(found.out)) == {
        (who, PROBE, n) for who in (RAW, "random", "mae", "simclr") for n in (6, 12)
    }  # fmt: skip
    told = json.loads((found.out / "study.json").read_text())
    assert "Probed with 6 labels nothing can be told from random weights" in told["conclusion"]  # of one seed
    assert [row[:3] for row in told["differences"]["rows"]] == [
        [who, PROBE, other] for other in ("random weights", RAW) for who in ("mae", "simclr")
    ]
    page = (found.out / "report.html").read_text()
    assert "Fewer than three seeds" in page
    again = study(plan, tmp_path / "out")
    assert sorted(again.skipped) == ["mae-s0", "simclr-s0"]
    more = copy.deepcopy(plan)
    more["methods"]["clip"] = {"method": "clip"}
    third = study(more, tmp_path / "out")
    assert list(third.failed) == ["clip-s0"]  # one sensor alone: recorded, and the others go on
    assert ("mae", PROBE, 6) in rows_of(found.out)
    plan["labels"] = [6, 10]
    with pytest.raises(OutputError, match="begun with another plan"):
        study(plan, tmp_path / "out")


@pytest.mark.slow
def test_backbones_are_fine_tuned_beside_one_from_scratch(plan, tmp_path):
    plan["methods"].pop("simclr")
    plan["finetune"] = {"train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 4, "baseline": False}
    found = study(plan, tmp_path / "out")
    assert found.failed == {}
    assert {row for row in rows_of(found.out) if row[1] == FINETUNED} == {
        (who, FINETUNED, n) for who in ("scratch", "mae") for n in (6, 12)
    }
    known = []
    for labels in (6, 12):
        split = Split.load(found.out / "runs" / f"scratch-{labels}-s0" / "split.csv")
        known.append({tile for tile in split.tiles if tile.part == "train"})
        assert len(known[-1]) == labels
    assert known[0] < known[1]


@pytest.mark.slow
def test_what_is_predicted_is_no_input_of_any(plan, tmp_path, tiny, write_tif):
    high = np.mgrid[:96, :128][0].astype("float32") + np.random.default_rng(0).normal(0, 3, (96, 128))
    dem = write_tif("dem.tif", high.astype("float32"), bands=["elevation"])
    plan["config"]["data"] = tiny["data"] | {
        "image": [{"path": tiny["data"]["image"], "sensor": "sentinel2"}, {"path": dem, "sensor": "dem"}]
    }
    plan["config"]["inputs"] = ["sentinel2"]
    plan["methods"] = {"dem": {"method": {"name": "simclr", "elevation": "dem"}}}
    plan["finetune"] = {"train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 4, "baseline": False}
    plan["config"]["split"] |= {"block_px": None, "buffer_px": None, "test": {"cols": [64, 128]}, "val": 0.0}
    plan["config"]["train"]["size_px"] = 8
    found = study(plan, tmp_path / "out")
    assert found.failed == {}
    assert {row for row in rows_of(found.out) if row[0] != RAW} == {
        ("random", PROBE, 6), ("random", PROBE, 12), ("dem", PROBE, 6), ("dem", PROBE, 12),
        ("scratch", FINETUNED, 6), ("scratch", FINETUNED, 12), ("dem", FINETUNED, 6), ("dem", FINETUNED, 12),
    }  # fmt: skip
    learnt, tuned = (
        Split.load(found.out / folder / "split.csv") for folder in ("pretrained/dem-s0", "runs/dem-12-s0")
    )  # fmt: skip
    held = [{tile for tile in split.tiles if tile.part == "test"} for split in (learnt, tuned)]
    assert held[0] == held[1]
    plan["config"].pop("inputs")
    with pytest.raises(ConfigError, match="config sees dem, which a method predicts"):
        load_pretraining(plan, tmp_path / "other")


def test_plans_are_checked_before_anything_is_learnt(plan, tmp_path):
    for changes, says in (
        ({"labels": [12, 6]}, "do not rise"),
        ({"methods": {"random": {}}}, "cannot be called random"),
        ({"methods": {"mae": {"method.masc": 0.5}}}, "masc"),
        ({"metods": {}}, "unknown key metods"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_pretraining({**plan, **changes}, tmp_path)


def test_sensors_of_a_layout_that_only_baselines_would_see_are_refused(plan, tmp_path):
    plan["config"]["data"] = {"source": "m3leo", "root": str(tmp_path)}
    for changes, who in (({"inputs": ["s1grd-2020"]}, "config"), ({}, "method dem")):
        plan["methods"] = (
            {"dem": {"method": {"name": "simclr", "elevation": "srtm"}}} if who != "config" else {"mae": {}}
        )
        with pytest.raises(ConfigError, match=f"{who} leaves out sensors of the layout m3leo"):
            load_pretraining(plan | {"config": plan["config"] | changes}, tmp_path / "out")


def test_r2_of_all_targets_counts_errors_of_constant_ones():
    rows = [
        {"num_pairs": 10, "rmse": 1.0, "r2": 0.5},
        {"num_pairs": 10, "rmse": 2.0, "r2": 0.0},
        {"num_pairs": 10, "rmse": 0.5, "r2": None},
    ]
    assert together(rows) == pytest.approx(1 - (10 + 40 + 2.5) / (20 + 40))


def test_conclusions_are_paired_by_seed():
    values = {
        (RAW, PROBE): {20: {0: 0.5}}, ("random", PROBE): {20: {0: 0.1, 1: 0.3, 2: 0.2}},
        ("mae", PROBE): {20: {2: 0.3, 0: 0.2, 1: 0.4}},
    }  # fmt: skip
    said = conclusion(values, [20])
    assert said == (
        "Probed with 20 labels mae (+0.100) is above random weights. "
        "Probed with 20 labels nothing can be told from raw statistics."
    )
    (_, (first,)), (_, (second,)) = differences(values, [20])
    assert first.value == pytest.approx(0.1)
    assert second.value == pytest.approx(-0.3)
    assert np.isnan(second.low)
