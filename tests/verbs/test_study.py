"""Studies on a tiny scene: cells resume, failures are told, shares change and val and test do not, pairs are by seed."""

from __future__ import annotations

import copy
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from covermap.core.errors import ConfigError, OutputError
from covermap.core.output import at_work
from covermap.core.run import Run
from covermap.core.study_plan import load_plan
from covermap.core.tune_plan import load_search
from covermap.data.split import Split
from covermap.metrics.intervals import over_seeds
from covermap.verbs import study as module
from covermap.verbs import study_cell
from covermap.verbs.study import study
from covermap.verbs.tune import _begin


@pytest.fixture
def plan(tiny):
    """A plan of a network and a forest with all and half of the labels, two seeds."""
    base = copy.deepcopy(tiny)
    base["train"] |= {"epochs": 1, "steps_per_epoch": 2}
    return {
        "title": "Few labels", "kind": "data_reduction", "config": base, "seeds": 2, "resample": True,
        "axes": {
            "model": {"unet": {"model.backbone": "unet"}, "forest": "forest"},
            "budget": {"setting": "split.budget", "values": [1.0, 0.5]},
        },
        "against": {"model": "forest"},
    }  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    """Cells are made in this process: a process of its own for each takes seconds to start."""
    done = []

    def work(path):
        done.append(Path(path).stem)
        return study_cell.main(path)

    monkeypatch.setattr(module, "in_own_process", work)
    return done


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_study_runs_skips_what_is_finished_and_takes_more_cells(plan, tmp_path, here):
    found = study(plan, tmp_path / "out")
    assert len(found.cells) == len(found.finished) == len(here) == 8
    assert not found.failed
    for name in ("cells.csv", "steps.csv", "study.json", "report.html", "LOG.md", "plan.json"):
        assert (tmp_path / "out" / name).is_file()
    again = study(plan, tmp_path / "out")
    assert (len(again.skipped), again.finished, len(here)) == (8, [], 8)
    with pytest.raises(OutputError, match="unet-1-s1"):
        study(plan | {"seeds": [0]}, tmp_path / "out")
    with pytest.raises(OutputError, match="other settings"):
        study(plan | {"settings": {"train.lr": 0.5}}, tmp_path / "out")
    more = study(plan | {"seeds": [0, 1, 2]}, tmp_path / "out")
    assert (len(more.skipped), len(more.finished)) == (8, 4)

    rows = read(tmp_path / "out/cells.csv")
    assert {row["learner"] for row in rows} == {"network", "random forest"}
    costs = {row["score"] for row in rows if row["cell"] == "unet-0.5-s1"}
    assert costs >= {"miou", "oa", "minority_recall", "train_seconds", "test_seconds", "peak_memory_mb",
                     "parameters", "trainable_parameters", "steps"}  # fmt: skip
    assert {row["value"] for row in rows if row["score"] == "steps"} == {"2"}
    steps = read(tmp_path / "out/steps.csv")
    assert {row["step"] for row in steps} == {"2"}
    assert "val_miou" in {row["score"] for row in steps}
    assert "unet-0.5-s1" in json.dumps(json.loads((tmp_path / "out/plan.json").read_text())["cells"])

    # The share of each seed is another one; who selects and who tests are always the same.
    splits = {name: Split.load(tmp_path / "out/runs" / name / "split.csv") for name in more.cells}
    parts = {
        name: {part: {(t.scene, t.window) for t in split.tiles if t.part == part} for part in ("train", "val", "test")}
        for name, split in splits.items()
    }
    assert parts["unet-0.5-s0"]["train"] != parts["unet-0.5-s1"]["train"]
    assert parts["unet-0.5-s1"]["train"] == parts["forest-0.5-s1"]["train"]
    assert parts["unet-0.5-s0"]["train"] < parts["unet-1-s0"]["train"] == parts["unet-1-s1"]["train"]
    assert all(own[part] == parts["unet-1-s0"][part] for own in parts.values() for part in ("val", "test"))

    # Differences are of equal seeds and equal other levels.
    values = {(row["cell"], row["score"]): float(row["value"]) for row in rows_of(tmp_path) if not row["class"]}
    told = json.loads((tmp_path / "out/study.json").read_text())
    (row,) = [r for r in told["differences"] if r["score"] == "miou" and r["levels"] == ["unet", "0.5"]]
    want = over_seeds([values[f"unet-0.5-s{s}", "miou"] - values[f"forest-0.5-s{s}", "miou"] for s in range(3)])
    assert row["mean"] == pytest.approx(want.value)
    assert row["low"] == pytest.approx(want.low)
    assert "model" in row
    assert row["against"] == "forest, budget 0.5"


def rows_of(tmp_path):
    return read(tmp_path / "out/cells.csv")


def test_a_cell_that_fails_is_told_and_the_others_go_on(plan, tmp_path, here, covermap, monkeypatch):
    plan["axes"] = {"size": {"fits": {"train.size_px": 32}, "odd": {"train.steps_per_epoch": 1, "train.lr": 1.5}}}
    plan |= {"resample": False, "seeds": 1, "against": {}, "kind": "grid"}
    plan["config"]["baseline"] = False
    train = study_cell.train

    def broken(config, **options):
        if config.train.lr > 1:
            raise ConfigError("the loss is no longer a number", fix="lower it")
        return train(config, **options)

    monkeypatch.setattr(study_cell, "train", broken)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    code, out, err = covermap("study", "run", path, tmp_path / "out")
    assert code == 1
    assert "1 of 2 cells failed" in err
    assert "no longer a number" in out
    assert "no longer a number" in (tmp_path / "out/report.html").read_text()
    assert "1 of 2 runs are finished; 1 failed" in (tmp_path / "out/LOG.md").read_text()
    monkeypatch.setattr(study_cell, "train", train)
    assert list(study(path, tmp_path / "out").finished) == ["odd-s0"]


def test_an_interrupted_cell_goes_on(plan, tmp_path, here, monkeypatch):
    plan |= {"axes": {"lr": {"setting": "train.lr", "values": [0.01]}}, "resample": False, "seeds": 1, "kind": "grid"}
    plan["config"]["train"]["epochs"] = 2
    plan["against"] = {}
    evaluate = study_cell.evaluate

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(study_cell, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        study(plan, tmp_path / "out")
    monkeypatch.setattr(study_cell, "evaluate", evaluate)
    assert study(plan, tmp_path / "out").finished == ["0.01-s0"]
    assert [row["epoch"] for row in Run.open(tmp_path / "out/runs/0.01-s0").read_log()] == [1, 2]


def test_everything_unknown_is_refused_before_the_first_run(plan, tmp_path, here):
    cases = [
        ({"titel": "x"}, "title"),
        ({"axes": {"m": {"a": {"model.bakbone": "unet"}}}}, "backbone"),
        ({"axes": {"m": {"a": {"model.backbone": "unett"}}}}, "unet"),
        ({"axes": {"m": {"a": {"model.backbone_options": {"wdths": [8]}}}}}, "did you mean 'widths'"),
        ({"axes": {"m": {"a": {"model.decoder_options": {"depth": 2}}}}}, "has no option 'depth'"),
        ({"axes": {"m": {"a": {"train.loss": "fokal"}}}}, "focal"),
        ({"axes": {"m": {"a": "forrest"}}}, "forest"),
        ({"axes": {"m": {"a": {"train.lr": 1}}, "n": {"b": {"train.lr": 2}}}}, "train.lr"),
        ({"axes": {"m": {"a": {"train.seed": 1}}}}, "cannot set train.seed"),
        ({"axes": {"score": {"a": {"train.lr": 1}}}}, "cannot be called"),
        ({"axes": {"m": {"f": "forest", "u": {}}, "loss": {"a": {"train.loss": "dice"}}}}, "does not see"),
        ({"scores": ["mio"]}, "miou"),
        ({"against": {"modell": "unet"}}, "model"),
        ({"against": {"model": "unett"}}, "unet"),
        ({"kind": "data_reductoin"}, "data_reduction"),
        ({"judged": "unet"}, "merges"),
        ({"axes": {"m": {"a": {"train.lr": 0.1}}}, "against": {}}, "resample"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": [-1]}, "not all 0 or more"),
        ({"kind": ["grid"]}, "no kind of study"),
        ({"kind": "cross_region"}, "one axis"),
        ({"kind": "gsd"}, "data.gsd_m"),
        ({"kind": "fusion"}, "sets of sensors"),
    ]  # fmt: skip
    for change, words in cases:
        with pytest.raises(ConfigError, match=words):
            study(plan | {"resample": "resample" in words, "against": {}} | change, tmp_path / "out")
    assert not here
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_work_is_refused_and_nothing_is_taken_away(plan, tmp_path, here):
    kept = tmp_path / "project/runs/mine/model.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    search = {"config": plan["config"], "space": {"train.lr": [1e-3, 1e-2]}}
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="runs of something else"):
            study(plan, tmp_path / "project", overwrite=overwrite)
        with pytest.raises(OutputError, match="runs of something else"):
            _begin(load_search(search), tmp_path / "project", overwrite=overwrite)
    assert kept.read_text() == "precious"
    (tmp_path / "search").mkdir()
    for text, message in (('{"plan": {}, "base": {}}', "of another kind"), ('{"cells"', "is damaged")):
        (tmp_path / "search/plan.json").write_text(text)
        with pytest.raises(OutputError, match=message):
            study(plan, tmp_path / "search")
    assert not here


def test_a_dry_run_names_the_cells_and_writes_nothing(plan, tmp_path, covermap):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    code, out, _ = covermap("study", "run", path, tmp_path / "out", "--dry-run")
    assert code == 0
    assert "8 cells, 0 of them finished" in out
    assert "forest-0.5-s1" in out
    assert not (tmp_path / "out").exists()
    code, _, err = covermap("study", "run", path, tmp_path / "out", "--engine", "proceses")
    assert code == 1
    assert "processes" in err


def test_a_person_s_words_in_the_log_stay(plan, tmp_path, here):
    plan |= {"axes": {"lr": {"setting": "train.lr", "values": [0.01, 0.02]}}, "resample": False, "seeds": 1,
             "kind": "grid", "against": {}}  # fmt: skip
    study(plan, tmp_path / "out")
    path = tmp_path / "out/LOG.md"
    text = path.read_text()
    start = text.index("-->", text.index("generated conclusion")) + 4
    end = text.index("<!-- end -->", start)
    path.write_text(text[:start] + "The data are too few.\n" + text[end:] + "\nSeen by a person.\n")
    study(plan | {"seeds": 2, "hypothesis": "Faster is better."}, tmp_path / "out")
    now = path.read_text()
    assert "The data are too few." in now
    assert "Seen by a person." in now
    assert "4 of 4 runs are finished" in now  # what nobody touched is renewed
    assert "Faster is better." in now


def test_each_cell_has_a_process_of_its_own(plan, tmp_path):
    plan |= {"axes": {"model": {"forest": "forest"}}, "resample": False, "seeds": [0], "kind": "grid", "against": {}}
    found = study(plan, tmp_path / "out", engine="processes", workers=2)
    assert found.finished == ["forest-s0"]
    (peak,) = [float(row["value"]) for row in rows_of(tmp_path) if row["score"] == "peak_memory_mb"]
    assert peak > 50


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="nothing is locked there")
def test_a_cell_ends_with_a_study_that_is_killed(plan, tmp_path):
    plan |= {"axes": {"model": {"unet": {"model.backbone": "unet"}}}, "resample": False, "seeds": [0], "kind": "grid"}
    plan |= {"against": {}}
    plan["config"]["train"] |= {"epochs": 100_000}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    words = ["study", "run", str(tmp_path / "plan.yaml"), str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "-m", "covermap", *words], stdout=subprocess.DEVNULL) as main:
        cell = tmp_path / "out/runs/unet-s0"
        while not (cell / "log.csv").exists():
            assert main.poll() is None
            time.sleep(0.1)
        assert is_held(cell)
        main.kill()
    end = time.monotonic() + 60
    while is_held(cell) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_held(cell)


def is_held(folder):
    try:
        with at_work(folder, alone=True):
            return False
    except OutputError:
        return True


def test_a_process_that_is_killed_is_a_failed_cell(plan, tmp_path, monkeypatch):
    plan |= {"axes": {"model": {"forest": "forest"}}, "resample": False, "seeds": [0], "kind": "grid", "against": {}}
    monkeypatch.setattr(module, "in_own_process", lambda path: -9)
    found = study(plan, tmp_path / "out")
    assert "ran out of memory" in found.failed["forest-s0"]


def test_levels_are_numbers_or_names_and_forests_read_no_network(plan, tmp_path):
    loaded = load_plan(plan, tmp_path)
    assert loaded.numbers("budget") == [1.0, 0.5]
    assert loaded.numbers("model") is None
    forest = next(cell for cell in loaded.cells if cell.forest)
    assert forest.config.baseline
    assert forest.config.train.epochs != 1  # the default: nothing of the network's training is said
    assert not next(cell for cell in loaded.cells if not cell.forest).config.baseline
    assert [cell.config.split.budget_seed for cell in loaded.cells[:4]] == [None, None, 0, 1]
    assert np.array_equal([cell.config.train.seed for cell in loaded.cells[:4]], [0, 1, 0, 1])


def test_all_pixel_sizes_test_on_the_same_ground(plan, tmp_path, here):
    plan |= {"kind": "gsd", "resample": False, "seeds": [0], "against": {}}
    plan["axes"] = {"gsd_m": {"setting": "data.gsd_m", "values": [10, 20]}}
    plan["settings"] = {"data.align": "mode", "train.size_px": 16, "predict.size_px": 16, "split.buffer_px": 0}
    plan["config"]["baseline"] = False
    found = study(plan, tmp_path / "out")
    assert not found.failed
    fine, coarse = (Split.load(tmp_path / f"out/runs/{size}-s0/split.csv") for size in (10, 20))
    ground = [
        {tuple(s * x for x in tile.window) for tile in split.tiles if tile.part == "test"}
        for split, s in ((fine, 10), (coarse, 20))
    ]
    assert ground[0] == ground[1]
    km2 = [float(row["value"]) for row in rows_of(tmp_path) if row["score"] == "test_km2"]
    assert km2[0] <= 96 * 128 * 1e-4
    page = (tmp_path / "out/report.html").read_text()
    assert "Lowest usable pixel size" in page
    assert "seconds per km2" in page or "What a pixel size costs" in page


def test_windows_that_go_with_the_pixel_size_change_no_ground(plan, tmp_path, here):
    plan |= {"kind": "gsd", "resample": False, "seeds": [0], "against": {}}
    plan["axes"] = {"gsd_m": {str(size): {"data.gsd_m": size, "train.size_px": 320 // size} for size in (10, 20)}}
    plan["settings"] = {"data.align": "mode", "predict.size_px": 16, "split.method": "random"}
    plan["config"]["baseline"] = False
    assert not study(plan, tmp_path / "out").failed
    fine, coarse = (Split.load(tmp_path / f"out/runs/{size}-s0/split.csv") for size in (10, 20))
    ground = [
        {tuple(s * x for x in tile.window) for tile in split.tiles if tile.part == "test"}
        for split, s in ((fine, 10), (coarse, 20))
    ]
    assert ground[0] == ground[1]
    plan["axes"]["gsd_m"]["5"] = {"data.gsd_m": 5, "train.size_px": 64}
    with pytest.raises(OutputError, match=r"other ground \(that of pixels of 10 m\) than this plan's"):
        study(plan, tmp_path / "out")


def test_a_model_is_scored_on_the_test_blocks_of_every_region(plan, tmp_path, here):
    image = plan["config"]["data"].pop("image")
    regions = {
        name: {"data.image": [{"path": image, "bounds": [left, 4_999_040, left + 640, 5_000_000]}]}
        for name, left in (("west", 500_000), ("east", 500_640))
    }
    plan["axes"] = {"region": {"west": regions["west"]}}
    plan |= {"kind": "cross_region", "resample": False, "seeds": [0], "against": {}}
    plan["settings"] = {"data.align": "nearest"}
    study(plan, tmp_path / "out")
    before = Run.open(tmp_path / "out/runs/west-s0").read_json("cell.json")
    plan["axes"] = {"region": regions}  # one that came later
    found = study(plan, tmp_path / "out")
    assert Run.open(tmp_path / "out/runs/west-s0").read_json("cell.json")["costs"] == before["costs"]
    assert not study(plan, tmp_path / "out").finished
    assert not found.failed
    scores = Run.open(tmp_path / "out/runs/west-s0").read_json("cell.json")["across"]["east"]
    home = Run.open(tmp_path / "out/runs/east-s0").read_json("metrics.json")["models"]["network"]["scores"]
    assert scores["num_pixels"] == home["num_pixels"]  # the same ground
    assert "scored on (columns)" in (tmp_path / "out/report.html").read_text()


def test_settings_of_a_call_reach_plan_and_config_and_never_get_lost(plan, tmp_path):
    loaded = load_plan(plan, tmp_path, ["seeds=1", "train.lr=0.5", "axes.budget.values=[0.5]"])
    assert [cell.name for cell in loaded.cells] == ["unet-0.5-s0", "forest-0.5-s0"]
    assert loaded.cells[0].config.train.lr == 0.5
    assert loaded.plan.settings == {"train.lr": 0.5}
    with pytest.raises(ConfigError, match=r"--set model\.backbone has no effect: plan sets model\.backbone itself"):
        load_plan(plan, tmp_path, ["model.backbone=resnet18"])
    with pytest.raises(ConfigError, match=r"has no effect: plan sets split\.budget itself"):
        load_plan(plan, tmp_path, ["split={budget: 0.5}"])
    with pytest.raises(ConfigError, match="sedes"):
        load_plan(plan, tmp_path, ["sedes=1"])
    assert plan["seeds"] == 2
