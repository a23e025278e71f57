"""`evaluate`: scores of a run's models on one part of its split, the network and the forest side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from covermap.core.errors import ConfigError, DataError, LabelError, suggest
from covermap.core.output import write_text
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.results import Scored
from covermap.core.run import Run
from covermap.core.task import Task
from covermap.data.reference import with_reference
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import PARTS, Split
from covermap.data.stats import with_own_statistics
from covermap.geo.legend_files import csv_text
from covermap.metrics.confusion import Confusion
from covermap.models import device_of, load_model
from covermap.verbs.details import Details
from covermap.verbs.ground import OnGround
from covermap.verbs.number_details import NumberDetails
from covermap.verbs.predict_chips import ChipTable
from covermap.verbs.presence_details import PresenceDetails
from covermap.verbs.score import ClassScorer, Compared, compare, count
from covermap.verbs.transition_details import TransitionDetails

MODELS = {"network": "model", "random forest": "baseline"}
"""Models of a run by name: their folders."""
Watch = Callable[[str, Iterator[Compared]], Iterator[Compared]]
"""Passes the answers of a model, which is named, on."""
PARTS_USED = {"train": "fitted the model", "val": "chose the checkpoint"}


def evaluate(
    run: Run, *, part: str = "test", say: Say = silent, watch: Watch | None = None,
    on_progress: Tick = unseen,
) -> Scored:  # fmt: skip
    """Score all models of a run on a part and write metrics.json, confusion CSVs and per_class.csv.

    watch: sees the answers of each model as they are made. Scores of a part that was used for fitting or choosing are
    marked as such and never called test scores.
    """
    if part not in PARTS[1:]:
        raise ConfigError(f"a split has no part {part!r}", fix=suggest(part, PARTS[1:]))
    scenes, task = with_reference(open_scenes(run.config.data), run.config)
    run.require_inputs(file for scene in scenes for file in scene.files)
    split = Split.load(run.path("split.csv"))
    models: dict[str, Any] = {}
    details: dict[str, OnGround] = {}
    for name, folder in MODELS.items():
        if run.path(f"{folder}/config.json").is_file():
            say(f"scoring the {name} on {part}")
            models[name], details[name] = _judge(run, name, scenes, split, task, part, watch, on_progress)
    if not models:
        raise DataError(f"{run.folder} has no trained model", fix="train it first: covermap train CONFIG")
    result: dict[str, Any] = {
        "part": part,
        "is_test": part not in PARTS_USED,
        "note": f"{part} {PARTS_USED[part]}: these are no test scores" if part in PARTS_USED else "",
        "task": task.name,
        "classes": list(task.legend.names),
        "positive": task.positive,
        "models": models,
        "comparison": _comparison(details),
    }
    run.write_json("metrics.json" if part == "test" else f"metrics_{part}.json", result)
    for table in ("per_class", "per_number", "per_place"):
        _write_table(run.path(f"{table}_{part}.csv"), models, table)
    return Scored(result)


def _judge(
    run: Run, name: str, scenes: Sequence[Scene], split: Split, task: Task, part: str, watch: Watch | None,
    on_progress: Tick,
) -> tuple[dict[str, Any], OnGround]:  # fmt: skip
    """Scores and tables of one model; writes its files."""
    folder, settings = MODELS[name], run.config.predict
    model = load_model(run.path(folder), device=device_of(settings.device), precision=settings.precision)
    mine, theirs = model.task.legend, task.legend
    if model.task.name != task.name or mine.codes != theirs.codes or mine.names != theirs.names:
        raise LabelError(
            f"the {name} maps {', '.join(mine.names)}; the labels hold {', '.join(theirs.names)}",
            fix="task or legend was changed after training: train again with --overwrite",
        )
    ready = with_own_statistics(scenes, model.spec)
    compared = compare(model, ready, split, part, settings=settings, on_progress=on_progress)
    if watch is not None:
        compared = watch(name, compared)
    details = details_of(model.task)
    chips = ChipTable(model.task) if task.kind.chips else None
    # The model's own task: its threshold, and the std that its numbers were learnt in.
    scorer = count(compared, model.task, part, details, chips)
    found = {"scores": scorer.scores(), **scorer.tables()}
    found["scores"] |= details.scores()
    found |= details.tables()
    details.blocks.write(run.path(f"blocks_{part}_{folder}.npz"))
    if chips:
        chips.write(run.path(f"chips_{part}_{folder}.csv"))
    if isinstance(scorer, ClassScorer):
        write_confusion(run.path(f"confusion_{part}_{folder}.csv"), scorer.confusion, mine.names)
    return found, details


def details_of(task: Task) -> OnGround:
    """What is measured beside the scores of a task."""
    others: dict[str, Callable[[Task], OnGround]] = {
        "presence": PresenceDetails,
        "numbers": NumberDetails,
        "transitions": TransitionDetails,
    }
    return others.get(task.kind.takes, Details)(task)


def _comparison(details: Mapping[str, OnGround]) -> dict[str, Any]:
    """The first model's scores minus the second's, where both were scored on the same pixels."""
    first, *others = details.values()
    return first.against(others[0]) if others else {}


def write_confusion(path: Path, confusion: Confusion, names: Sequence[str]) -> None:
    """A CSV with reference classes in rows and predicted ones in columns."""
    rows = [[name, *row] for name, row in zip(names, confusion.counts.tolist(), strict=True)]
    write_text(path, csv_text(["reference \\ prediction", *names], rows))


def _write_table(path: Path, models: Mapping[str, Any], table: str) -> None:
    """A table of all models as CSV, if they have it."""
    rows = [{"model": name, **row} for name, result in models.items() for row in result.get(table, ())]
    if rows:
        write_text(path, csv_text(list(rows[0]), [[row[key] for key in rows[0]] for row in rows]))
