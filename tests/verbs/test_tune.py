"""A search for settings: it goes on where it was stopped with the same trials, and never looks at the test part."""

from __future__ import annotations

import builtins
import copy

import pytest
import yaml

from covermap.core.errors import ConfigError, MissingExtra, OutputError
from covermap.core.tune_plan import Between, load_search
from covermap.verbs import study as module
from covermap.verbs import study_cell
from covermap.verbs.tune import tune


@pytest.fixture
def plan(tiny):
    base = copy.deepcopy(tiny)
    base["train"] |= {"epochs": 1, "steps_per_epoch": 2}
    space = {"train.lr": ["1e-4", 1e-1, "log"], "train.batch_size": {"low": 2, "high": 4},
             "model.backbone_options": [{"widths": [4, 8]}, {"widths": [8, 16]}]}  # fmt: skip
    return {"config": base, "space": space, "sampler": "random"}


@pytest.fixture
def here(monkeypatch):
    """Trials are made in this process."""
    done = []
    monkeypatch.setattr(module, "in_own_process", lambda path: done.append(path) or study_cell.main(path))
    return done


def test_ten_trials_resume_after_interruption_with_the_same_settings(plan, tmp_path, here, monkeypatch):
    pytest.importorskip("optuna", reason="needs the extra hpo")
    whole = tune(plan, tmp_path / "whole", trials=10)
    assert len(whole.rows) == len(here) == 10
    train = study_cell.train

    def stop(config, **options):
        if config.name == "trial-4":
            raise KeyboardInterrupt
        return train(config, **options)

    monkeypatch.setattr(study_cell, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        tune(plan, tmp_path / "out", trials=10)
    monkeypatch.setattr(study_cell, "train", train)
    done = tune(plan, tmp_path / "out", trials=10)
    assert done.rows == whole.rows
    assert len(here) == 10 + 5 + 6
    assert done.best == max(done.rows, key=lambda row: row["val_miou"])
    assert all(1e-4 <= row["train.lr"] <= 0.1 and row["train.batch_size"] in (2, 3, 4) for row in done.rows)
    best = yaml.safe_load((tmp_path / "out/best.yaml").read_text())
    assert best["train"]["lr"] == done.best["train.lr"]
    assert best["model"]["backbone_options"] == done.best["model.backbone_options"]
    assert not list((tmp_path / "out").glob("runs/*/metrics.json"))
    assert "too good" in (tmp_path / "out/report.html").read_text()
    assert len(tune(plan, tmp_path / "out", trials=10).rows) == 10
    assert len(here) == 21
    with pytest.raises(OutputError, match="another plan"):
        tune(plan | {"seed": 1}, tmp_path / "out", trials=10)


def test_a_trial_that_fails_is_told(plan, tmp_path, here, monkeypatch, covermap):
    pytest.importorskip("optuna", reason="needs the extra hpo")

    def broken(config, **options):
        raise ConfigError("no longer a number")

    monkeypatch.setattr(study_cell, "train", broken)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    code, out, _ = covermap("tune", path, tmp_path / "out", "--trials", 2)
    assert code == 1
    assert "no longer a number" in out


def test_the_space_is_checked_before_anything_is_tried(plan):
    assert load_search(plan).space["train.lr"] == Between(low=1e-4, high=1e-1, log=True)
    for space, words in (
        ({"train.lrr": [0.1, 0.2]}, "lr"),
        ({"train.lr": [0.1, -0.2]}, "greater than 0"),
        ({"train.lr": [0.1]}, "no choice"),
        ({"train.lr": ["low", 0.1, "log"]}, "'low' is no number"),
        ({"train.lr": [0.1, 0.01, "log"]}, "low lies below high"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_search(plan | {"space": space})


def test_without_optuna_the_extra_is_named(plan, tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name.startswith("optuna"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match="optuna"):
        tune(plan, tmp_path / "out")
