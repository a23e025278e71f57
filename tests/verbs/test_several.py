"""Several runs at once: mean and spread over seeds, differences between settings, and what does not compare."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.core.errors import DataError
from covermap.core.run import Run
from covermap.metrics.intervals import over_seeds
from covermap.verbs.evaluate import evaluate
from covermap.verbs.several import evaluate_several
from covermap.verbs.train import train

FEW = {"epochs": 1, "steps_per_epoch": 4}


def one(tiny, name: str, seed: int, **train_more) -> Run:
    raw = copy.deepcopy(tiny) | {"name": name, "baseline": False}
    raw["train"] |= {**FEW, "seed": seed, **train_more}
    return train(parse_config(raw))


@pytest.fixture
def runs(tiny):
    return [
        one(tiny, f"{name}_{seed}", seed, lr=lr) for name, lr in (("fast", 0.02), ("slow", 1e-5)) for seed in (0, 1, 2)
    ]


def test_mean_and_spread_are_those_of_the_runs(runs):
    found = evaluate_several(runs)
    single = [evaluate(run)["models"]["network"]["scores"]["miou"] for run in runs]
    rows = {row["setting"]: row for row in found["settings"] if row["score"] == "miou"}
    assert list(rows) == ["train.lr=0.02", "train.lr=1e-05"]
    want = over_seeds(single[:3])
    assert rows["train.lr=0.02"] == {
        "setting": "train.lr=0.02", "model": "network", "score": "miou", "mean": want.value, "sd": want.sd,
        "low": want.low, "high": want.high, "seeds": 3,
    }  # fmt: skip
    (row,) = [row for row in found["differences"] if row["score"] == "miou"]
    assert row["mean"] == pytest.approx(np.mean(np.subtract(single[3:], single[:3])))
    assert row["mean"] < 0
    assert (row["setting"], row["against"], row["seeds"]) == ("train.lr=1e-05", "train.lr=0.02", 3)


def test_a_run_alone_has_no_spread_and_the_same_run_twice_is_refused(runs):
    found = evaluate_several(runs[::3])
    assert all(row["seeds"] == 1 and row["sd"] != row["sd"] for row in found["settings"])
    assert len(found["differences"]) == 3 + 1
    with pytest.raises(DataError, match="twice"):
        evaluate_several([runs[0], runs[0]])


def test_equal_settings_and_seeds_in_two_folders_are_two_rows_without_difference(tiny):
    twins = [one(tiny, "one", 0), one(tiny, "two", 0)]
    found = evaluate_several(twins)
    assert {row["setting"] for row in found["settings"]} == {"one", "two"}
    assert all(row["mean"] == 0 for row in found["differences"])


def test_blocks_are_paired_only_on_the_same_ground(tiny, monkeypatch):
    from covermap.verbs import ground

    monkeypatch.setattr(ground, "CELL_PX", 16)
    here = [one(tiny, "fast_0", 0, lr=0.02), one(tiny, "slow_0", 0, lr=1e-5)]
    (row,) = [row for row in evaluate_several(here)["differences"] if row["score"] == "miou"]
    assert row["blocks"] >= 5
    assert row["blocks_low"] <= row["mean"] <= row["blocks_high"]
    assert 0 < row["p"] <= 1
    raw = copy.deepcopy(tiny) | {"name": "elsewhere", "baseline": False, "split": tiny["split"] | {"block_px": 24}}
    raw["train"] |= FEW
    other = evaluate_several([here[0], train(parse_config(raw))])["differences"]
    assert not any("p" in row for row in other)


def test_numbers_are_paired_by_blocks_too(tiny, write_tif, monkeypatch):
    from covermap.verbs import ground, number_details

    for module in (ground, number_details):
        monkeypatch.setattr(module, "CELL_PX", 16)
    known = np.random.default_rng(0).normal(5, 1, (1, 128, 128)).astype("float32")
    raw = copy.deepcopy(tiny) | {"task": "regression"}
    raw["data"] = {"image": tiny["data"]["image"], "target": {"path": str(write_tif("height.tif", known)), "unit": "m"}}
    runs = [one(raw, "fast", 0, lr=0.02), one(raw, "slow", 0, lr=1e-5)]
    rows = {row["score"]: row for row in evaluate_several(runs)["differences"]}
    for key in ("rmse", "mae", "r2"):
        assert rows[key]["blocks"] >= 5
        assert rows[key]["blocks_low"] <= rows[key]["mean"] <= rows[key]["blocks_high"]


def test_other_classes_do_not_compare(tiny, runs):
    raw = copy.deepcopy(tiny) | {"name": "other", "baseline": False}
    raw["data"]["legend"] = {1: "meadow", 2: "water", 3: "town"}
    raw["train"] |= FEW
    with pytest.raises(DataError, match="different tasks or classes"):
        evaluate_several([runs[0], train(parse_config(raw))])


def test_by_the_command_line(covermap, runs):
    code, out, _ = covermap("evaluate", runs[0].folder, runs[1].folder, runs[3].folder)
    assert code == 0
    assert "train.lr=1e-05" in out
    assert "networks minus those of train.lr=0.02" in out
    code, out, _ = covermap("evaluate", runs[0].folder, runs[1].folder, "--part", "val", "--json")
    assert code == 0
    assert '"is_test": false' in out
