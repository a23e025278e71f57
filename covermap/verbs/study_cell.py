"""One cell of a study, in a process of its own: train (or go on), score the test part, and what both took.

python -m covermap.verbs.study_cell JOB.json  ->  cell.json in the run's folder, or failed.json beside JOB.json

Its input is held open by who started it: where that is killed the cell ends, and does not go on beside the next call.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import RunConfig
from covermap.core.config_file import parse_config
from covermap.core.engine import end_after
from covermap.core.errors import CovermapError
from covermap.core.legend import IGNORE
from covermap.core.output import at_work, write_text, writing
from covermap.core.parsing import read_json
from covermap.core.pretrain_config import parse_pretrain_config
from covermap.core.run import Run
from covermap.core.task import KINDS as TASKS
from covermap.core.task import Task
from covermap.data.make_split import make_split
from covermap.data.reference import side_of_windows, with_reference
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split, part_counts
from covermap.data.stats import with_own_statistics
from covermap.metrics.tradeoff import tradeoff
from covermap.models import LandModel, device_of, load_model, read_card
from covermap.start import prepare_run
from covermap.verbs.baseline import train_baseline
from covermap.verbs.evaluate import MODELS, evaluate
from covermap.verbs.pretrain import pretrain
from covermap.verbs.score import Compared, compare, score
from covermap.verbs.stages import scaled_split
from covermap.verbs.train import train

TAUS = tuple(np.linspace(0, 1.5, 16).tolist())
TRADED_PX = 200_000
"""Pixels of the test part that decisions are tried on."""


class Watch:
    """Seconds and ground of a model's answers, measured while they are asked for."""

    def __init__(self, config: RunConfig) -> None:
        self.areas = {scene.name: scene.grid.gsd_m**2 / 1e6 for scene in open_scenes(config.data)}
        self.seconds: dict[str, float] = {}
        self.km2: dict[str, float] = {}

    def __call__(self, name: str, compared: Iterator[Compared]) -> Iterator[Compared]:
        self.seconds[name] = self.km2[name] = 0.0
        while True:
            start = time.perf_counter()
            one = next(compared, None)
            self.seconds[name] += time.perf_counter() - start
            if one is None:
                return
            window = one.window or one.chip or one.block
            assert window is not None
            answered = np.nan_to_num(one.answers).any(0).mean()  # windows without labels are not computed
            self.km2[name] += float(answered) * window.height * window.width * self.areas[one.scene]
            yield one


def do_cell(job: Mapping[str, Any]) -> None:
    """Train and score what a job says; resumes what is there. Raises what training raises."""
    if job.get("pretrain"):
        _pretrain(job["config"])
        return
    config = parse_config(dict(job["config"]))
    if fine := job.get("fine"):
        config = _on_same_ground(config, parse_config(dict(fine)))
    if (config.folder / "cell.json").is_file():  # finished, but for regions that came later
        run = Run.open(config.folder)
        run.write_json("cell.json", run.read_json("cell.json") | {"across": _across(run, job.get("across", {}))})
        return
    there = (config.folder / "config.yaml").is_file()
    peak: dict[str, float] = {}
    if job["forest"]:
        run, costs = _train_forest(config)
    else:
        # By the last step: the forest beside the network, which comes then, is none of its cost.
        run = train(config, resume=there, say=_say, on_progress=lambda done, total: peak.update(peak_memory()))
        log = run.read_log()
        costs = {"train_seconds": sum(row["seconds"] for row in log), "steps": log[-1]["step"] if log else 0}
    costs |= peak or peak_memory()
    if not job.get("test", True):
        run.write_json("cell.json", {"costs": {"network": costs}, "log": run.read_log()})
        return
    watch = Watch(run.config)
    result = evaluate(run, say=_say, watch=watch)
    found: dict[str, Any] = {"costs": {}}
    for name in result["models"]:
        mine = dict(costs) if name == ("random forest" if job["forest"] else "network") else {}
        if name == "network":
            facts = read_card(run.path(MODELS[name])).facts
            mine |= {key: facts[key] for key in ("parameters", "trainable_parameters")}
        mine |= {"test_seconds": watch.seconds[name], "test_km2": watch.km2[name]}
        found["costs"][name] = mine
    if TASKS[result["task"]].takes == "classes":
        scenes, _ = with_reference(open_scenes(run.config.data), run.config)
        trained = part_counts(Split.load(run.path("split.csv")), scenes)["train"]
        found["trained_px"] = dict(zip(result["classes"], trained.tolist(), strict=True))
    if others := job.get("across"):
        found["across"] = _across(run, others)
    if job.get("tradeoff") and result["task"] == "segmentation":
        found["tradeoff"] = _tradeoff(run, next(iter(result["models"])))
    run.write_json("cell.json", found)


def _pretrain(raw: Mapping[str, Any]) -> None:
    """A backbone that learns without labels."""
    config = parse_pretrain_config(raw, where="job", base=Path())
    run = pretrain(config, resume=(config.folder / "config.yaml").is_file(), say=_say)
    log = run.read_log()
    costs = {"train_seconds": sum(row.get("seconds", 0) for row in log), "steps": log[-1]["step"], **peak_memory()}
    run.write_json("cell.json", {"costs": {"network": costs}, "log": log})


def peak_memory() -> dict[str, float]:
    """peak_memory_mb of this process so far, and gpu_memory_mb where there is a GPU."""
    import torch

    status = Path("/proc/self/status")
    if status.is_file():  # the system's other number also counts the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        found = {"peak_memory_mb": int(line.split()[1]) / 1024}
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        found = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
    if torch.cuda.is_available():
        found["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def _train_forest(config: RunConfig) -> tuple[Run, dict[str, float]]:
    """A run without a network."""
    ready = prepare_run(config)
    run = Run.create(config, resume=True)
    run.record_inputs(dict.fromkeys(file for scene in ready.scenes for file in scene.files))
    ready.split.save(run.path("split.csv"))
    run.write_json("notes.json", ready.notes)
    assert config.baseline
    start = time.perf_counter()
    train_baseline(run, config.baseline, ready, seed=config.train.seed, facts=ready.trained_on)
    return run, {"train_seconds": time.perf_counter() - start}


def _on_same_ground(config: RunConfig, fine: RunConfig) -> RunConfig:
    """The config with the split of the cell of the finest pixels, scaled to its own: all test on one ground."""
    opened = open_scenes(fine.data)
    split = _split(fine, *with_reference(opened, fine))
    path = config.folder / "ground.csv"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    scaled_split(split, opened, open_scenes(config.data)).save(path)
    section = type(config.split)(method="csv", path=str(path))
    return config.model_copy(update={"split": section})


def _split(config: RunConfig, scenes: Sequence[Scene], task: Task) -> Split:
    """As a run of the config makes it."""
    return make_split(scenes, config.split, size_px=side_of_windows(scenes, config), chips=task.kind.chips)


def _model(run: Run, name: str) -> LandModel:
    settings = run.config.predict
    return load_model(run.path(MODELS[name]), device=device_of(settings.device), precision=settings.precision)


def _across(run: Run, others: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of a run's model on the test parts of other configs, with those that it has already."""
    known = run.read_json("cell.json").get("across", {}) if run.path("cell.json").is_file() else {}
    main = next(iter(run.read_json("metrics.json")["models"]))
    return known | {name: _elsewhere(run, main, raw) for name, raw in others.items() if name not in known}


def _elsewhere(run: Run, name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of a run's model on the test part of another config."""
    config, model = parse_config(dict(raw)), _model(run, name)
    scenes, task = with_reference(open_scenes(config.data), config)
    if task.legend.names != model.task.legend.names:
        raise CovermapError(
            f"the regions have other classes: {', '.join(model.task.legend.names)} and {', '.join(task.legend.names)}",
            fix="give both the same legend",
        )
    split = _split(config, scenes, task)
    scenes = with_own_statistics(scenes, model.spec)
    return score(model, scenes, split, "test", settings=config.predict).scores()


def _tradeoff(run: Run, name: str) -> list[tuple[float, float, float]]:
    """(tau, accuracy, mean recall) of decisions that shift the model's probabilities towards rare classes."""
    model, split = _model(run, name), Split.load(run.path("split.csv"))
    scenes, _ = with_reference(open_scenes(run.config.data), run.config)
    prior = np.maximum(part_counts(split, scenes)["train"].astype(np.float64), 1)
    answers, reference = [], []
    for one in compare(model, with_own_statistics(scenes, model.spec), split, "test", settings=run.config.predict):
        known = one.reference != IGNORE
        answers.append(one.answers[:, known].T)
        reference.append(one.reference[known])
    p, labels = np.concatenate(answers), np.concatenate(reference)
    some = np.random.default_rng(0).permutation(len(labels))[:TRADED_PX]
    logs = np.log(np.maximum(p[some], 1e-7))
    return [
        (row.tau, row.accuracy, row.macro_recall) for row in tradeoff(logs, labels[some], prior / prior.sum(), TAUS)
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(path: str) -> int:
    """Do the job of a file; 0: done, 1: failed.json says why, 3: interrupted."""
    job = read_json(Path(path), fix="make it again: --overwrite")
    folder = Path(job["config"]["output"]) / job["config"]["name"]
    failed = Path(path).with_suffix(".failed.json")
    try:
        with at_work(folder, alone=True):
            do_cell(job)
    except KeyboardInterrupt:
        return 3
    except Exception as error:
        known = isinstance(error, CovermapError)
        if not known:
            traceback.print_exc()
        told = str(error) if known else f"a bug in covermap: {type(error).__name__}: {error}"
        write_text(failed, json.dumps({"message": told}) + "\n")
        return 1
    failed.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    end_after(lambda: os.read(0, 1))  # not sys.stdin, whose lock a thread may not hold when Python ends
    sys.exit(main(sys.argv[1]))
