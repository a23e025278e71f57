"""`change-study`: how is change best told? Three ways to learn it, on the same data, with equal budgets and intervals.

    segmentation      one network maps each date by itself; where the maps differ it changed (compared), or both are
                      decided together with a prior of transitions (joint): those of the train part's labels, or an
                      estimate without labels; the random forest beside it likewise
    change            a network of two dates says whether it changed; what became what is then the segmentation's
    semantic change   a network of two dates says all of it

    OUT/WAY_SEED/     the runs       OUT/study.json   everything      OUT/study.csv   a row for each way and score

All learn from the same ground of the same dates, with as many steps, each of as many images, and answer for the same
test pixels, which are scored once each. Intervals: over seeds, and over blocks of ground against plain comparison.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.output import write_text, writing
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import Run, plain
from covermap.core.task import Task
from covermap.data.reference import with_reference
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split, Tile
from covermap.data.stats import with_own_statistics
from covermap.geo.grid import partition
from covermap.geo.legend_files import csv_text
from covermap.metrics.change import Pair
from covermap.metrics.intervals import Score, compare, over_seeds
from covermap.ml.gated import gated
from covermap.ml.joint import decide_pair
from covermap.ml.transitions import TransitionPrior
from covermap.models import LandModel, device_of, load_model
from covermap.start import prepare_run
from covermap.two_dates import TwoDates
from covermap.verbs.score import Compared, pairs_of
from covermap.verbs.score import compare as answers_of
from covermap.verbs.train import train, windows_per_epoch
from covermap.verbs.transition_details import TransitionDetails

PLAIN = "segmentation, compared"
WAYS = {
    PLAIN: "maps of both dates by one network; where they differ it changed",
    "segmentation, joint": "the same probabilities, both dates decided together, by the train part's transitions",
    "segmentation, joint by estimate": "likewise, by transitions that probabilities of the val part tell themselves",
    "change": "a network of two dates says whether it changed, not what became what",
    "change, segmentation's classes": "where that network says so, the likeliest two classes of the segmentation",
    "semantic change": "a network of two dates says what became what",
    "forest, compared": "maps of both dates by a random forest on single pixels",
    "forest, joint": "the forest's probabilities, both dates decided together, by the train part's transitions",
}
BINARY = ("f1", "iou", "kappa")
"""Scores that a way without classes has, too."""
RUNS = {"segmentation": "single", "change": "change", "semantic_change": "dates"}
"""Tasks and the labels that they learn from."""


@dataclass
class Study:
    """What was found: `rows` of way, score, mean, sd, interval and values over seeds; `differences` to PLAIN."""

    out: Path
    seeds: list[int]
    task: Task
    rows: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in study.json."""
        return {
            "seeds": self.seeds, "classes": list(self.task.legend.names), "ways": WAYS, "budget": self.budget,
            "scores": self.rows, "differences": self.differences, "against": PLAIN, "notes": self.notes,
        }  # fmt: skip


def change_study(
    config: RunConfig, out: str | Path, *, seeds: Sequence[int] = (0,), resume: bool = False, overwrite: bool = False,
    say: Say = silent, on_progress: Tick = unseen,
) -> Study:  # fmt: skip
    """Train and compare three ways of telling change; config: of task semantic_change, with the settings of all.

    resume: runs that are there go on or stay. Raises ConfigError, and what training raises.
    """
    out = Path(out)
    if config.task_section.name != "semantic_change":
        raise ConfigError(
            f"a study of change compares ways to learn what became what, the config's task is "
            f"{config.task_section.name}", fix="set task: semantic_change and data.label: dates",
        )  # fmt: skip
    if config.train.patience:
        raise ConfigError("train.patience would give each way another number of steps", fix="leave it out of a study")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds {list(seeds)} are none, or one twice", fix="give for example --seeds 0,1,2")
    kept: dict[int, dict[str, TransitionDetails]] = {}
    study: Study | None = None
    for seed in seeds:
        runs, budget = _train(config, out, seed, resume, overwrite, say, on_progress)
        scenes, task = with_reference(open_scenes(runs["semantic_change"].config.data), config)
        study = study or Study(out, list(seeds), task, budget=budget)
        say(f"scoring seed {seed}")
        kept[seed] = _judge(runs, scenes, task)
    assert study is not None
    study.rows, study.differences = _rows(kept), _differences(kept)
    study.notes += _notes(study)
    write_text(out / "study.json", json.dumps(plain(study.to_dict()), indent=2) + "\n")
    head = ["way", "score", "mean", "sd", "low", "high"]
    write_text(out / "study.csv", csv_text(head, [[row[key] for key in head] for row in study.rows]))
    return study


def _train(
    config: RunConfig, out: Path, seed: int, resume: bool, overwrite: bool, say: Say, on_progress: Tick
) -> tuple[dict[str, Run], dict[str, Any]]:
    """A run for each way, of one seed, on the split of the first; and what each may use."""
    base = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed}), "output": str(out)})
    ready = prepare_run(base)
    group = base.train.batch_size * base.train.accumulate
    steps = windows_per_epoch(base.train, ready) // group
    folder = out / "splits"
    paths = {"dates": folder / f"dates_{seed}.csv", "single": folder / f"single_{seed}.csv"}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ready.split.save(paths["dates"])
    _of_single_dates(ready.split, ready.scenes, open_scenes(_labelled(base, "single").data)).save(paths["single"])
    runs = {}
    for task, label in RUNS.items():
        own = _labelled(base, label, task=task, name=f"{task}_{seed}")
        split = own.split.model_copy(update={"method": "csv", "path": str(paths.get(label, paths["dates"]))})
        many = 2 if label == "single" else 1  # a window of two dates shows two images
        # Semantic change knows no class weights, so no way has any.
        fair = {"steps_per_epoch": steps, "batch_size": many * base.train.batch_size, "class_weights": "none"}
        settings = own.train.model_copy(update=fair)
        if task != "semantic_change":
            settings = settings.model_copy(update={"loss": "auto", "loss_options": {}, "monitor": "auto"})
        model = own.model.model_copy(update={"dates": None}) if label == "single" else own.model
        forest = own.baseline if label == "single" else False
        own = own.model_copy(update={"split": split, "train": settings, "model": model, "baseline": forest})
        if label == "single" and ready.has_val:  # a joint decision needs probabilities that can be believed
            own = own.model_copy(update={"decision": own.decision.model_copy(update={"temperature": True})})
        there = resume and own.folder.exists()
        say(f"{own.name}: {settings.epochs} epochs of {steps} steps")
        runs[task] = train(own, resume=there, overwrite=overwrite, say=say, on_progress=on_progress)
    every = base.train.epochs * steps
    return runs, {"steps": every, "images": 2 * every * group, "windows_px": base.train.size_px}


def _labelled(config: RunConfig, label: str, *, task: str | None = None, name: str | None = None) -> RunConfig:
    data = config.data.model_copy(update={"label": label})
    return config.model_copy(update={"data": data, "task": task or config.task, "name": name or config.name})


def _of_single_dates(split: Split, pairs: Sequence[Scene], singles: Sequence[Scene]) -> Split:
    """The split of scenes of two dates for those of one: the same ground is the same part on each date."""
    tiles: list[Tile] = []
    for single in singles:
        pair = next(pair for pair in pairs if single.images in _images_of(pair))
        tiles += [replace(tile, scene=single.name) for tile in split.tiles if tile.scene == pair.name]
    return Split(tuple(tiles), split.buffer_px, split.method)


def _images_of(pair: Scene) -> list[tuple[Any, ...]]:
    """The images of each date of a scene of two."""
    series: dict[Any, list[Any]] = {}
    for image in pair.images:
        series.setdefault(image.sensor, []).append(image)
    return [tuple(own[i] if len(own) > 1 else own[0] for own in series.values()) for i in (0, 1)]


def _judge(runs: Mapping[str, Run], scenes: Sequence[Scene], task: Task) -> dict[str, TransitionDetails]:
    """What each way says of the test part, counted by block of ground."""
    found = {way: TransitionDetails(task) for way in WAYS}
    split = Split.load(runs["semantic_change"].path("split.csv"))
    models = {key: _load(run, "model") for key, run in runs.items()}
    single = runs["segmentation"]
    models["segmentation"] = TwoDates(models["segmentation"], scenes)
    if single.path("baseline/config.json").is_file():
        models["forest"] = TwoDates(_load(single, "baseline"), scenes)
    changed = open_scenes(runs["change"].config.data)
    known = _transitions(scenes, split, len(task.legend))
    priors = {"segmentation, joint": _prior(known, balanced=False)}
    priors["segmentation, joint by estimate"] = _estimated(models["segmentation"], scenes, split, single)
    forest = single.config.baseline
    if forest and "forest" in models:
        priors["forest, joint"] = _prior(known, balanced=forest.balanced)
    settings = single.config.predict

    def asked(key: str, part: str = "test") -> Iterator[Compared]:
        on = changed if key == "change" else scenes
        return answers_of(models[key], with_own_statistics(on, models[key].spec), split, part, settings=settings)

    # The windows of networks of one build are the same; a forest's, which sees no neighbours, are others.
    for together in (("segmentation", "change"), ("semantic_change",), ("forest",)):
        for strips in zip(*(asked(key) for key in together if key in models), strict=True):
            assert len({(one.scene, one.window) for one in strips}) == 1
            first, here = strips[0], dict(zip(together, strips, strict=True))
            truth = pairs_of(first.answers, first.reference)[0]
            for way, pair in _said(here, priors, len(task.legend)).items():
                found[way].count(first, truth, pair)
    return {way: one for way, one in found.items() if one.blocks.by_name()}


def _load(run: Run, folder: str) -> LandModel:
    settings = run.config.predict
    return load_model(run.path(folder), device=device_of(settings.device), precision=settings.precision)


def _transitions(scenes: Sequence[Scene], split: Split, k: int) -> npt.NDArray[np.float64]:
    """Pixels of each pair of classes (K, K) in the train part."""
    found, still = np.zeros((k, k)), 0
    for scene in scenes:
        for block in partition(scene.grid.window, 2048, 2048):
            before, after, changed = split.target(scene, block, "train")
            known = np.isfinite(before) & np.isfinite(after)
            keys = before[known].astype(np.intp) * k + after[known].astype(np.intp)
            found += np.bincount(keys, minlength=k * k).reshape(k, k)
            still += int((~known & (changed == 0)).sum())
    # Where classes are labelled only where they changed, the others are taken to be as frequent among what stayed.
    shares = (found.sum(0) + found.sum(1)) / max(2 * found.sum(), 1)
    return np.asarray(found + still * np.diag(shares if shares.any() else np.full(k, 1 / k)))


def _prior(transitions: npt.NDArray[np.float64], *, balanced: bool) -> TransitionPrior:
    """The prior of known transitions. balanced: whether the model was taught that all classes are as frequent."""
    found = TransitionPrior.of_areas(transitions)
    even = np.full(len(found.joint), 1 / len(found.joint))
    return TransitionPrior(found.joint, even, even) if balanced else found


def _estimated(model: LandModel, scenes: Sequence[Scene], split: Split, run: Run) -> TransitionPrior:
    """What becomes what, by the model's own probabilities of the val part (of the test part, where there is none).

    One network's errors on both dates are alike, which looks like classes that stay: too little change is estimated.
    """
    k = len(model.task.legend)
    part = "val" if any(tile.part == "val" for tile in split.tiles) else "test"
    compared = answers_of(model, with_own_statistics(scenes, model.spec), split, part, settings=run.config.predict)

    def blocks() -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        for one in compared:
            known = np.isfinite(one.reference[2])
            yield one.answers[:k, known], one.answers[k : 2 * k, known]

    return TransitionPrior.estimate(blocks())


def _said(here: Mapping[str, Compared], priors: Mapping[str, TransitionPrior], k: int) -> dict[str, Pair]:
    """The answer of each way for a strip."""
    found = {}
    for key in [key for key in ("segmentation", "forest") if key in here]:
        before, after = (here[key].answers[part] for part in (slice(k), slice(k, 2 * k)))
        found[f"{key}, compared"] = Pair(before.argmax(0).astype(np.uint8), after.argmax(0).astype(np.uint8))
        for way in [way for way in priors if way.startswith(key)]:
            joint = decide_pair(before, after, priors[way])
            found[way] = Pair(joint.before, joint.after)
    if "change" in here:
        change = here["change"].answers
        nothing = np.full(change.shape[1:], IGNORE, np.uint8)
        found["change"] = Pair(nothing, nothing, (change[1] >= 0.5).astype(np.uint8))
        both = gated(np.concatenate([here["segmentation"].answers[: 2 * k], change]))
        found["change, segmentation's classes"] = Pair(both.before, both.after)
    if "semantic_change" in here:
        direct = gated(here["semantic_change"].answers)
        found["semantic change"] = Pair(direct.before, direct.after)
    return found


def _rows(kept: Mapping[int, Mapping[str, TransitionDetails]]) -> list[dict[str, Any]]:
    rows = []
    for way in WAYS:
        mine = [ways[way] for ways in kept.values() if way in ways]
        counts = [one.blocks.stacked() for one in mine]
        for key, score in _scores_of(way, mine):
            values = [_value(score, one) for one in counts]
            told = over_seeds(values)
            rows.append({"way": way, "score": key, "mean": told.value, "sd": told.sd, "low": told.low,
                         "high": told.high, "values": values})  # fmt: skip
    return rows


def _differences(kept: Mapping[int, Mapping[str, TransitionDetails]]) -> list[dict[str, Any]]:
    """Each way minus plain comparison: over seeds, and over blocks of ground (counts of all seeds together)."""
    rows = []
    for way in [way for way in WAYS if way != PLAIN]:
        both = [ways for ways in kept.values() if way in ways]
        pairs = [[ways[key].blocks.stacked() for key in (way, PLAIN)] for ways in both]
        together = np.sum(pairs, 0)
        for key, score in _scores_of(way, [ways[way] for ways in both]):
            told = over_seeds([_value(score, mine) - _value(score, other) for mine, other in pairs])
            ground = compare(together[0], together[1], score)
            seeds = {"mean": told.value, "low": told.low, "high": told.high}
            blocks = {"blocks": ground.count, "blocks_value": ground.value, "blocks_low": ground.low}
            blocks |= {"blocks_high": ground.high, "p": ground.p}
            rows.append({"way": way, "score": key, **seeds, **blocks})
    return rows


def _scores_of(way: str, found: Sequence[TransitionDetails]) -> list[tuple[str, Score]]:
    """The scores that a way has, where it was judged."""
    scores = found[0].sure.items() if found else ()
    return [(key, score) for key, score in scores if way != "change" or key in BINARY]


def _value(score: Score, counts: npt.NDArray[Any]) -> float:
    """A score of all blocks (N, ...) together."""
    return float(score(counts.sum(0)[None])[0])


def _notes(study: Study) -> list[str]:
    """What has to be known to read the numbers."""
    found = [f"each network: {study.budget['steps']:,} steps, {study.budget['images']:,} images of one date"]
    if len(study.seeds) < 3:
        found.append("fewer than three seeds do not tell how much training varies")
    return found
