"""Tasks: what a network's outputs are, by one word of the config.

takes     classes   one class, softmax            presence      each class there or not, sigmoid
          numbers   in their unit                 order         one of several classes in order
          transitions   a class before, one after, and whether it changed: a softmax each
chips     one answer for a window as a whole, not for each pixel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from covermap.core.errors import ConfigError, suggest
from covermap.core.legend import PALETTE, LandClass, Legend
from covermap.core.section import Section

TaskName = Literal[
    "segmentation", "hazard", "classification", "multilabel", "regression", "chip_regression", "density", "change",
    "semantic_change",
]  # fmt: skip
LOW_IS_GOOD = ("loss", "rmse", "mae", "nll")
"""Scores of which the lowest is the best."""


class Kind(NamedTuple):
    """What all tasks of one name share; the first of the scores that a checkpoint can be chosen by is the default."""

    takes: Literal["classes", "presence", "numbers", "order", "transitions"]
    chips: bool
    loss: str
    scores: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "segmentation": Kind("classes", False, "cross_entropy", ("miou", "oa", "macro_f1", "macro_recall")),
    "hazard": Kind("classes", False, "cross_entropy + dice", ("auprc", "auc", "f1", "iou", "miou")),
    "classification": Kind("classes", True, "cross_entropy", ("macro_f1", "macro_recall", "oa", "kappa")),
    "multilabel": Kind("presence", True, "binary_cross_entropy", ("map", "macro_f1", "micro_f1")),
    "regression": Kind("numbers", False, "huber", ("rmse", "mae", "r2", "r")),
    "chip_regression": Kind("numbers", True, "huber", ("rmse", "mae", "r2", "r")),
    "change": Kind("classes", False, "cross_entropy + dice", ("f1", "auprc", "auc", "iou", "miou")),
    "semantic_change": Kind(
        "transitions",
        False,
        "semantic + change + change_dice + 0.5 * consistency",
        (
            *(f"{key}_{by}" for by in ("from_to", "dates_stacked") for key in ("score", "sek", "fscd")),
            "miou",
            "f1",
            "iou",
        ),
    ),
    "density": Kind("order", True, "ordinal", ("macro_f1", "kappa", "oa", "auc", "mae")),
}


SIAMESE = ("change", "semantic_change")
"""Tasks of which two dates go through one backbone: exchanging them transposes the answer."""


def monitored(task: str, wanted: str) -> tuple[str, float]:
    """A score of the val part by which the best checkpoint of a task is chosen, and 1, or -1 where less is better.

    wanted: auto, or its name with val_ before it. Raises ValueError for one that the task has not.
    """
    known = [f"val_{name}" for name in (*KINDS[task].scores, "loss")]
    key = known[0] if wanted == "auto" else wanted
    if key not in known:
        raise ValueError(f"{key!r} is not measured in {task}; {suggest(key, known)}")
    return key, -1.0 if key.removeprefix("val_") in LOW_IS_GOOD else 1.0


class TaskConfig(Section):
    """What is to be learnt."""

    name: TaskName = "segmentation"
    positive: str | None = Field(None, description="With hazard: the class that is looked for; default: the last.")
    breaks: list[float] | None = Field(
        None, description="With density: numbers at which one class ends and the next begins, rising."
    )
    classes: list[str] | None = Field(None, description="With multilabel: only these classes; default: all.")

    @model_validator(mode="after")
    def _settings_go_with_the_task(self) -> TaskConfig:
        for key, name in (("positive", "hazard"), ("breaks", "density"), ("classes", "multilabel")):
            if getattr(self, key) is not None and self.name != name:
                raise ValueError(f"task.{key} goes with task {name}, not with {self.name}")
        if self.name == "density":
            if not self.breaks or any(b <= a for a, b in pairwise(self.breaks)):
                raise ValueError("task density needs rising breaks, for example breaks: [1, 5, 20]")
        return self


SHARE = "share"
"""Unit of numbers between 0 and 1."""


@dataclass(frozen=True)
class Task:
    """A task with the names of its outputs.

    legend: the classes, or the names of the numbers. units, mean, std: of numbers, whose loss is taken in std from the
    mean. positive: index of a hazard's class. breaks: between classes in order. threshold: probability from which on a
    presence counts. temperature, offsets (K,): class logits are divided by it and added to, before the softmax.
    set_from, coverage: probability from which on a class is in the conformal set, and the share that sets are to hold.
    """

    name: str
    legend: Legend
    units: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    positive: int | None = None
    breaks: tuple[float, ...] = ()
    threshold: float = 0.5
    temperature: float = 1.0
    offsets: tuple[float, ...] = ()
    set_from: float = 0.0
    coverage: float = 0.0
    kind: Kind = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", KINDS[self.name])

    @property
    def num_channels(self) -> int:
        """Of the network: one for each output, or for each border between classes in order."""
        return self.num_answers - (self.kind.takes == "order")

    @property
    def num_answers(self) -> int:
        """One for each name; of transitions for each class before, each after, unchanged and changed."""
        return 2 * len(self.legend) + 2 if self.kind.takes == "transitions" else len(self.legend)

    def scaled(self, mean: npt.ArrayLike, std: npt.ArrayLike) -> Task:
        """The same with what numbers are measured in while they are learnt."""
        mean, std = (tuple(np.asarray(v, np.float64).tolist()) for v in (mean, std))
        return replace(self, mean=mean, std=std)

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds beside the legend."""
        keys = ("name", "units", "mean", "std", "positive", "breaks", "threshold", "temperature", "offsets", "set_from",
                "coverage")  # fmt: skip
        return {key: list(v) if isinstance(v := getattr(self, key), tuple) else v for key in keys}

    @staticmethod
    def from_dict(raw: Mapping[str, Any] | None, legend: Legend) -> Task:
        """The task of a model folder; those without one map classes of pixels."""
        values: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in (raw or {"name": "segmentation"}).items()
        }
        return Task(legend=legend, **values)


def make_task(config: TaskConfig, legend: Legend | None, numbers: Mapping[str, str]) -> Task:
    """The task of a config for data with these classes or numbers ({name: unit}); raises ConfigError.

    Mean and std of numbers are those of the train part, which are not known yet.
    """
    kind = KINDS[config.name]
    if kind.takes in ("numbers", "order") and not numbers:
        raise ConfigError(f"task {config.name} needs numbers to learn", fix="set data.target: {path: ...}, or shares")
    if kind.takes == "numbers":
        task = Task(config.name, _named(config.name, list(numbers)), units=tuple(numbers.values()))
        return task.scaled([0.0] * len(numbers), [1.0] * len(numbers))
    if kind.takes == "order":
        return _density(config, numbers)
    if legend is None:
        raise ConfigError(f"task {config.name} needs classes", fix="set data.labels, or a layout that has them")
    if config.name in ("hazard", "change"):
        return Task(config.name, legend, positive=_positive(config, legend))
    if config.classes is None:
        return Task(config.name, legend)
    for name in config.classes:
        if name not in legend.names:
            raise ConfigError(f"task.classes: there is no class {name!r}", fix=suggest(name, legend.names))
    chosen = tuple(one for one in legend.classes if one.name in config.classes)
    return Task(config.name, replace(legend, classes=chosen, merged={}, old_names={}))


def _positive(config: TaskConfig, legend: Legend) -> int:
    if len(legend) != 2:
        other = "set data.label: change, or use task: semantic_change" if config.name == "change" else (
            "merge them: data.merge: {hazard: [...], none: [...]}, or use task: segmentation"
        )  # fmt: skip
        raise ConfigError(
            f"task {config.name} has two classes, the legend has {len(legend)}: {', '.join(legend.names)}", fix=other
        )
    wanted = config.positive or legend.names[1]
    if wanted not in legend.names:
        raise ConfigError(f"task.positive: there is no class {wanted!r}", fix=suggest(wanted, legend.names))
    return legend.names.index(wanted)


def _density(config: TaskConfig, numbers: Mapping[str, str]) -> Task:
    if len(numbers) != 1:
        raise ConfigError(
            f"task density has one number for a chip, the target has {len(numbers)}: {', '.join(numbers)}",
            fix="name one: data.target: {use: [...]}",
        )
    assert config.breaks is not None
    (name, unit), breaks = next(iter(numbers.items())), config.breaks
    of = f" {unit}" if unit else ""
    between = [f"{a:g} to {b:g}{of}" for a, b in pairwise(breaks)]
    classes = [f"below {breaks[0]:g}{of}", *between, f"{breaks[-1]:g}{of} and more"]
    return Task("density", _named(name, classes), breaks=tuple(map(float, breaks)))


def _named(name: str, names: list[str]) -> Legend:
    classes = (LandClass(i + 1, text, PALETTE[i % len(PALETTE)]) for i, text in enumerate(names))
    return Legend(name, tuple(classes))
