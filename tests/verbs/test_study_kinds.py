"""Tables of each kind of study, from rows made by hand: nothing is trained."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from covermap.core.errors import DataError
from covermap.core.study_plan import load_plan
from covermap.metrics.confusion import merged
from covermap.verbs import study_kinds as kinds
from covermap.verbs.study_merges import in_same_classes, old_names, way_to
from covermap.verbs.study_table import Finished, Table, conclusion, minority_recall, verdict


def table(tmp_path, axes, values, *, kind="grid", scores=("miou",), differences=(), **more):
    """A table of rows {(*levels): {score: [value of each seed]}}; a class is named as `score:class`."""
    config = {"data": {"image": "a.tif", "labels": "b.tif", "sensor": "sentinel2"}}
    seeds = max(len(each) for found in values.values() for each in found.values())
    plan = {"title": "t", "kind": kind, "config": config, "seeds": seeds, "axes": axes, **more}
    loaded = load_plan(plan, tmp_path)
    rows = []
    for levels, found in values.items():
        about = dict(zip(loaded.axes, levels, strict=True))
        forest = any(cell.forest for cell in loaded.cells if tuple(cell.levels.values()) == levels)
        for key, each in found.items():
            score, _, name = key.partition(":")
            beside, learner = key.startswith("forest "), "random forest" if forest else "network"
            rows += [
                {"cell": "", **about, "seed": seed, "learner": "random forest" if beside else learner, "class": name,
                 "score": score.removeprefix("forest "), "value": value}
                for seed, value in enumerate(each)
            ]  # fmt: skip
    made = Table(loaded, [], list(scores), rows, [])
    made.__dict__["differences"] = list(differences)
    return made


def test_means_are_over_seeds_and_one_row_tells_the_forest_that_is_the_same_everywhere(tmp_path):
    axes = {"rank": {"setting": "model.adapt.rank", "values": [4, 16]}}
    config = {"settings": {"model.adapt.method": "lora", "model.backbone": "galileo_nano"}}
    found = table(
        tmp_path, axes,
        {("4",): {"miou": [0.4, 0.6], "forest miou": [0.3, 0.3], "trainable_parameters": [1200, 1200],
                  "train_seconds": [3.0, 5.0]},
         ("16",): {"miou": [0.7, 0.7], "forest miou": [0.3, 0.3], "trainable_parameters": [4800, 4800]}},
        kind="adaptation", **config,
    )  # fmt: skip
    (section,) = kinds.grid(found)
    assert section.head == ["rank", "miou", "Trained parameters", "Training s"]
    assert section.rows[0] == ["4", "0.500 ±0.141", "1,200", "4"]
    assert section.rows[1] == ["16", "0.700 ±0.000", "4,800", "–"]
    assert section.rows[2:] == [["random forest", "0.300 ±0.000", "–", "–"]]
    assert section.figure.startswith("data:image/svg")
    (row, *_) = [row for row in found.means() if row["rank"] == "4" and row["score"] == "miou"]
    assert row["mean"] == pytest.approx(0.5)
    assert row["seeds"] == 2


def test_the_figure_fits_the_axes(tmp_path, monkeypatch):
    drawn = []
    for name in ("band_lines", "whisker_bars", "level_heat"):
        monkeypatch.setattr(kinds.study_figures, name, lambda *a, name=name, **k: drawn.append((name, a, k)) or "")
    number = {"setting": "split.budget", "values": [1.0, 0.25]}
    two = {"setting": "model.backbone", "values": ["unet", "resnet18"]}
    other = {"setting": "model.decoder", "values": ["unet", "fpn"]}
    of_model = {"unet": {"model.backbone": "unet"}, "forest": "forest"}
    each = {"miou": [0.5]}
    kinds.grid(table(tmp_path, {"b": number}, {("1",): each, ("0.25",): each}))
    kinds.grid(table(tmp_path, {"m": two}, {("unet",): each, ("resnet18",): each}))
    kinds.grid(table(tmp_path, {"m": two, "d": other}, {("unet", "fpn"): each, ("resnet18", "unet"): each}))
    kinds.grid(table(tmp_path, {"m": of_model, "b": number}, {("unet", "1"): each, ("forest", "1"): each}))
    assert [name for name, *_ in drawn] == ["band_lines", "whisker_bars", "level_heat", "band_lines"]
    _, (series,), options = drawn[3]
    assert list(series) == ["unet", "forest"]
    assert options["baseline"] == "forest"
    assert options["log"]


def test_learning_is_shown_by_step_of_the_largest_budget(tmp_path, monkeypatch):
    axes = {"budget": {"setting": "split.budget", "values": [1.0, 0.25]}}
    made = table(tmp_path, axes, {("1",): {"miou": [0.5]}, ("0.25",): {"miou": [0.4]}}, kind="data_reduction")
    made.steps = [
        {"cell": "", "budget": b, "seed": s, "step": step, "epoch": 1, "score": "val_miou", "value": v}
        for b, s, step, v in (("1", 0, 5, 0.2), ("1", 1, 5, 0.4), ("1", 0, 10, 0.5), ("0.25", 0, 5, 0.9))
    ]
    made.steps += [
        {**made.steps[0], "score": "val_loss", "value": 7.0},
        {**made.steps[0], "score": "loss", "value": 8.0},
    ]
    drawn = []
    monkeypatch.setattr(kinds.study_figures, "band_lines", lambda series, **k: drawn.append(series) or "")
    assert len(kinds.data_reduction(made)) == 2
    ((points,),) = [list(series.values()) for series in drawn[1:]]
    assert points[0][:2] == (5, pytest.approx(0.3))
    assert points[1][:2] == (10, 0.5)


def test_the_lowest_usable_pixel_is_the_coarsest_that_keeps_the_share(tmp_path):
    axes = {"gsd": {"setting": "data.gsd_m", "values": [1, 4, 16]}}
    f1 = {"f1:road": ([0.8], [0.73], [0.3]), "f1:lake": ([0.9], [0.95], [0.9]), "f1:well": ([0.0], [0.0], [0.0])}
    values = {
        (size,): {"miou": [0.5], "test_seconds": [8.0 / (i + 1)], "test_km2": [2.0]} | {k: v[i] for k, v in f1.items()}
        for i, size in enumerate(("1", "4", "16"))
    }
    made = table(tmp_path, axes, values, kind="gsd", usable={"score": "f1", "share_of_best": 0.9})
    _, usable, cost = kinds.gsd(made)
    assert [row[1:] for row in usable.rows] == [
        ["road", "0.800", "1", "4", "0.730"], ["lake", "0.950", "4", "16", "0.900"], ["well", "0.000", "1", "none", "–"],
    ]  # fmt: skip
    assert "at least 90%" in usable.text
    assert "km2" in cost.caption


def test_the_axis_of_pixel_sizes_is_told_from_other_numbers(tmp_path):
    axes = {"gsd": {"setting": "data.gsd_m", "values": [1, 4]}, "rate": {"setting": "train.lr", "values": [0.1, 0.2]}}
    values = {
        (size, rate): {"miou": [0.5], "test_seconds": [1.0], "test_km2": [1.0], "f1:road": [0.9 if size == "1" else 0.2]}
        for size in ("1", "4") for rate in ("0.1", "0.2")
    }  # fmt: skip
    made = table(tmp_path, axes, values, kind="gsd", usable={"score": "f1", "share_of_best": 0.9})
    _, usable, _ = kinds.gsd(made)
    assert usable.rows == [[f"rate {rate}", "road", "0.900", "1", "1", "0.900"] for rate in (0.1, 0.2)]


def test_a_sensor_s_gain_is_paired_by_seed_with_the_set_without_it(tmp_path):
    axes = {"set": {name: {"train.lr": 0.1 + i} for i, name in enumerate(("s2", "s1", "s1+s2", "s1+s2+dem"))}}
    values = {("s2",): [0.5, 0.7], ("s1",): [0.2, 0.2], ("s1+s2",): [0.6, 0.8], ("s1+s2+dem",): [0.6, 0.7]}
    made = table(tmp_path, axes, {k: {"miou": v} for k, v in values.items()}, kind="fusion")
    rows = kinds.fusion(made)[1].rows
    assert [row[:3] for row in rows] == [
        ["dem", "s1+s2", "-0.050"], ["s1", "s2", "+0.100"], ["s2", "s1", "+0.500"],
    ]  # fmt: skip
    assert rows[1][4] == "better"  # +0.1 with both seeds
    assert rows[0][4] == "not told apart"


def finished(levels, metrics, *, seed=0, merge=None, more=None):
    cell = SimpleNamespace(
        levels=levels, seed=seed, forest=False, name="-".join(levels.values()),
        config=SimpleNamespace(data=SimpleNamespace(merge=merge)),
    )  # fmt: skip
    return Finished(cell, None, metrics, more or {"costs": {}})


def test_across_regions_the_column_says_what_is_lost(tmp_path):
    axes = {"region": {"north": {"data.labels": "n.tif"}, "south": {"data.labels": "s.tif"}}}
    made = table(
        tmp_path, axes, {("north",): {"miou": [0.8, 0.9]}, ("south",): {"miou": [0.6, 0.6]}}, kind="cross_region"
    )
    at_home = {"north": [0.8, 0.9], "south": [0.6, 0.6]}
    made.done = [
        finished({"region": home}, {"models": {"network": {"scores": {"miou": values[seed]}}}}, seed=seed,
                 more={"across": {away: {"miou": values[seed] - 0.3}}})
        for home, away in (("north", "south"), ("south", "north"))
        for values in [at_home[home]] for seed in (0, 1)
    ]  # fmt: skip
    section = kinds.cross_region(made)[0]
    assert section.rows == [["north", "0.850 ±0.071", "0.550 ±0.071"], ["south", "0.300 ±0.000", "0.600 ±0.000"]]
    told = kinds.travelled(made)
    assert "-0.300 on average" in told  # (0.55 - 0.6 + 0.3 - 0.85) / 2
    assert "from south to north (-0.550" in told
    del made.done[0]  # north with seed 0 failed: seed 1 is paired with seed 1
    made.done[1].more["across"]["north"]["miou"] = 0.1
    assert "from south to north (-0.600)" in kinds.travelled(made)


def test_finer_classes_are_judged_as_the_merged_ones(tmp_path):
    fine = np.array([[8, 2, 0], [3, 7, 0], [0, 1, 9]])
    coarse = np.array([[18, 2], [2, 8]])

    def metrics(classes, counts, miou):
        return {"classes": classes, "models": {"network": {"scores": {"miou": miou}, "confusion": counts.tolist()}}}

    done = [
        finished({"c": "all"}, metrics(["low", "high", "lake"], fine, 0.7)),
        finished({"c": "built"}, metrics(["building", "lake"], coarse, 0.8), merge={"building": ["low", "high"]}),
    ]
    loaded = SimpleNamespace(plan=SimpleNamespace(judged=None), axes={"c": {"all": {}, "built": {}}}, source="plan")
    one, other = in_same_classes(loaded, done)
    assert one.metrics["classes"] == ["building", "lake"]
    assert one.metrics["models"]["network"]["confusion"] == [[20, 0], [1, 9]]
    scores = one.metrics["models"]["network"]["scores"]
    assert scores["oa"] == pytest.approx(29 / 30)
    assert (scores["own_miou"], scores["minority_recall"]) == (0.7, pytest.approx(0.9))
    assert other.metrics["models"]["network"]["scores"]["oa"] == pytest.approx(26 / 30)
    blocks = np.stack([fine, 2 * fine])
    assert merged(blocks, one.way).tolist() == [[[20, 0], [1, 9]], [[40, 0], [2, 18]]]
    with pytest.raises(DataError, match="building does not lie in one class"):
        way_to(old_names(done[1]), old_names(done[0]), "built")


def test_rare_classes_against_accuracy(tmp_path, monkeypatch):
    axes = {"loss": {"setting": "train.loss", "values": ["cross_entropy", "dice"]}}
    values = {("cross_entropy",): {"miou": [0.5], "oa": [0.9], "macro_recall": [0.5]},
              ("dice",): {"miou": [0.5], "oa": [0.8], "macro_recall": [0.7]}}  # fmt: skip
    made = table(tmp_path, axes, values, kind="losses")
    made.done = [
        finished(
            {"loss": "cross_entropy"}, {"models": {"network": {}}}, more={"tradeoff": [[0, 0.9, 0.5], [1, 0.7, 0.8]]}
        )
    ]
    drawn = []
    monkeypatch.setattr(kinds, "tradeoff_curves", lambda curves, points: drawn.append((curves, points)) or "")
    kinds.losses(made)
    assert drawn == [({"cross_entropy, shifted": [(0.9, 0.5), (0.7, 0.8)]},
                      {"cross_entropy": (0.9, 0.5), "dice": (0.8, 0.7)})]  # fmt: skip


def test_the_conclusion_says_better_worse_or_that_seeds_do_not_tell(tmp_path):
    def row(setting, score, mean, low, high, **more):
        return {"setting": setting, "levels": [setting], "score": score, "mean": mean, "low": low, "high": high, **more}

    assert verdict(row("a", "miou", 0.1, 0.05, 0.15))[0] == "better"
    assert verdict(row("a", "rmse", 0.1, 0.05, 0.15))[0] == "worse"
    assert verdict(row("a", "miou", 0.1, -0.05, 0.25))[0] == "open"
    nan = float("nan")
    ground = {"blocks_value": -0.1, "blocks_low": -0.2, "blocks_high": -0.05}
    assert verdict(row("a", "miou", -0.1, nan, nan, **ground))[::4] == ("worse", "blocks of ground")
    assert verdict(row("a", "miou", -0.1, nan, nan))[:2] == ("open", -0.1)
    axes = {"m": {"a": {}, "b": {"train.lr": 1.0}, "c": {"train.lr": 2.0}}}
    made = table(
        tmp_path, axes, {(name,): {"miou": [0.1] * 3} for name in "abc"},
        differences=[row("b", "miou", 0.1, 0.05, 0.15), row("c", "miou", 0.01, -0.1, 0.12)],
    )  # fmt: skip
    told = conclusion(made)
    assert told.startswith("Against m a, miou is better with b (+0.100, +0.050 to +0.150 by seeds)")
    assert "not told apart with c" in told


def test_minority_recall_is_that_of_the_class_with_fewest_labels():
    rows = [
        {"reference_px": 100, "producers": 0.9}, {"reference_px": 3, "producers": 0.4},
        {"reference_px": 0, "producers": None},
    ]  # fmt: skip
    assert minority_recall({"per_class": rows}) == 0.4
    assert minority_recall({}) is None
    named = [{"class": "a", **rows[0]}, {"class": "b", **rows[1]}]
    assert minority_recall({"per_class": named}, {"a": 50, "b": 0}) == 0.9  # nobody could have learnt b
