"""The plan of a study: one YAML file whose axes, levels and seeds become cells, each the config of an ordinary run.

A level is what it sets of the config, by dotted keys; `forest` instead trains no network, but the random forest alone.
All cells are built and checked before anything is trained.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from covermap.core.config import RunConfig
from covermap.core.config_file import override, parse_config
from covermap.core.errors import ConfigError, suggest
from covermap.core.plan_file import Plan, read_plan
from covermap.core.section import Section
from covermap.core.train_config import DecisionConfig, ForestConfig, ModelConfig, TrainConfig

FOREST = "forest"
WRITE = "write title, config, seeds and axes: see recipes/studies/"
_COLUMNS = (
    "cell",
    "seed",
    "learner",
    "class",
    "score",
    "value",
    "step",
    "epoch",
    "levels",
    "mean",
    "sd",
    "low",
    "high",
)
"""Names that tables have already."""
_OF_NETWORKS = ("model", "train", "decision")
"""Sections that a forest does not read."""


class UsableConfig(Section):
    """When a class can still be told at a pixel size: its score is at least this share of its best one."""

    score: Literal["f1", "iou", "producers", "users"] = Field("f1", description="A score of classes.")
    share_of_best: float = Field(0.9, gt=0, le=1)


class StudyPlan(Plan):
    """What is varied, over which seeds, and what it is compared with."""

    schema_name: ClassVar[str] = "study"

    kind: str = Field("grid", description="Which tables and figures are made of the runs.")
    hypothesis: str = Field("", description="What is expected, for the experiment log.")
    seeds: Annotated[int, Field(ge=1, le=1000)] | list[int] = Field(
        3, description="How many, from 0 on; or a list of them."
    )
    resample: bool = Field(
        False, description="Also draw the share that split.budget leaves anew for each seed; val and test stay."
    )
    axes: dict[str, dict[Any, Any]] = Field(
        min_length=1,
        description="{axis: {level: settings by dotted keys, or forest}}, or {axis: {setting: a.b, values: [...]}}.",
    )
    scores: list[str] = Field(default=[], description="As in metrics.json, the most important first.")
    against: dict[str, Any] = Field(
        default={}, description="{axis: level} that differences are told to; default: the first level of all."
    )
    usable: UsableConfig = Field(UsableConfig(), description="With kind gsd: when a class can still be told.")
    judged: str | None = Field(
        None, description="With kind merges: the level whose classes all are judged in; default: that of fewest."
    )

    @model_validator(mode="after")
    def _settings_go_with_the_kind(self) -> StudyPlan:
        for key, kind in (("usable", "gsd"), ("judged", "merges")):
            if key in self.changed and self.kind != kind:
                raise ValueError(f"{key} goes with kind {kind}, not with {self.kind}")
        if isinstance(self.seeds, list) and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError(f"seeds {self.seeds} are none, or one twice")
        if isinstance(self.seeds, list) and min(self.seeds) < 0:
            raise ValueError(f"seeds {self.seeds} are not all 0 or more")
        return self

    @property
    def all_seeds(self) -> list[int]:
        """The seeds, also where their number was given."""
        return self.seeds if isinstance(self.seeds, list) else list(range(self.seeds))


class Cell(NamedTuple):
    """One run of a study. levels: {axis: level}. forest: no network is trained."""

    name: str
    levels: Mapping[str, str]
    seed: int
    config: RunConfig
    forest: bool


class Loaded(NamedTuple):
    """A plan with its axes spelled out, {axis: {level: settings or forest}}, and all its cells."""

    plan: StudyPlan
    axes: dict[str, dict[str, Any]]
    against: dict[str, str]
    cells: list[Cell]
    source: str

    def numbers(self, axis: str) -> list[float] | None:
        """Levels of an axis as numbers; None where one is none."""
        return numbers_of(list(self.axes[axis]))


def numbers_of(levels: Sequence[str]) -> list[float] | None:
    """Texts as numbers; None where one is none."""
    try:
        return [float(level) for level in levels]
    except ValueError:
        return None


def load_plan(path: str | Path | Mapping[str, Any], out: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a plan (a file, or its values) and build the config of each cell; runs lie in `out`/runs.

    Relative paths count from the plan's folder. Raises ConfigError for anything unknown, also inside of a level.
    """
    read = read_plan(path, StudyPlan, fix=WRITE, overrides=overrides)
    plan, start, base, where, _ = read
    axes = {name: _levels(name, levels, where) for name, levels in plan.axes.items()}
    read.require_effect(one for levels in axes.values() for one in levels.values() if one != FOREST)
    _require_apart(axes, where)
    cells = [
        _cell(plan, start, base, Path(out), dict(zip(axes, chosen, strict=True)), axes, seed, where)
        for chosen in itertools.product(*axes.values())
        for seed in plan.all_seeds
    ]
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: two levels have names that make the same folder", fix="give them other names")
    if plan.resample and not any(cell.config.split.budget < 1 for cell in cells):
        raise ConfigError(f"{where}: resample has no effect without split.budget below 1", fix="leave it out")
    return Loaded(plan, axes, _against(plan, axes, where), cells, where)


def _levels(axis: str, levels: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """{level: settings by dotted keys, or forest}; the short form written out. Raises ConfigError."""
    if set(levels) == {"setting", "values"}:
        if not isinstance(levels["values"], list):
            raise ConfigError(f"{where}: axes.{axis}.values is no list", fix="write values: [1.0, 0.5]")
        found = {_text(value): {str(levels["setting"]): value} for value in levels["values"]}
        if len(found) < len(levels["values"]):
            raise ConfigError(f"{where}: axes.{axis}.values names one twice", fix="leave it out")
        levels = found
    for name, settings in levels.items():
        if settings != FOREST and not isinstance(settings, Mapping):
            raise ConfigError(
                f"{where}: axes.{axis}.{name} = {settings!r} is no level",
                fix="write what it sets by dotted keys, {model.backbone: unet}, or forest; of one setting "
                "{setting: split.budget, values: [1.0, 0.5]}",
            )
    if axis in _COLUMNS:
        raise ConfigError(
            f"{where}: an axis cannot be called {axis}", fix="tables have such a column: name it otherwise"
        )
    if not levels:
        raise ConfigError(f"{where}: axes.{axis} has no level", fix="name one, or leave the axis out")
    return {_text(name): settings for name, settings in levels.items()}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _require_apart(axes: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Two axes may not set the same, and a forest needs axes that it can see; raises ConfigError."""
    for one in (one for levels in axes.values() for one in levels.values() if one != FOREST):
        if odd := [key for key in one if not isinstance(key, str)]:
            raise ConfigError(f"{where}: an axis sets {odd[0]!r}, which is no key", fix="train.lr: 0.01")
    for key in ("name", "output", "train.seed", "split.budget_seed"):
        if any(key in one for levels in axes.values() for one in levels.values() if one != FOREST):
            raise ConfigError(
                f"{where}: an axis cannot set {key}, which each cell has of its own", fix="use seeds: [...]"
            )
    sets = {axis: {key for one in levels.values() if one != FOREST for key in one} for axis, levels in axes.items()}
    for (a, mine), (b, theirs) in itertools.combinations(sets.items(), 2):
        for key in sorted(mine):
            if any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in theirs):
                raise ConfigError(f"{where}: axes {a} and {b} both set {key}", fix="let one axis set it")
    with_forest = [axis for axis, levels in axes.items() if FOREST in levels.values()]
    for axis, keys in sets.items():
        unseen = keys and all(key.split(".")[0] in _OF_NETWORKS for key in keys)
        if with_forest and axis not in with_forest and unseen:
            raise ConfigError(
                f"{where}: a forest does not see what axis {axis} sets ({', '.join(sorted(keys))})",
                fix=f"leave its level out of {with_forest[0]}: the forest beside each network (baseline) is shown",
            )


def _against(plan: StudyPlan, axes: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, str]:
    found = {str(axis): _text(level) for axis, level in plan.against.items()}
    for axis, level in found.items():
        if axis not in axes:
            raise ConfigError(f"{where}: against names no axis: {axis!r}", fix=suggest(axis, axes))
        if level not in axes[axis]:
            raise ConfigError(f"{where}: against: {axis} has no level {level!r}", fix=suggest(level, axes[axis]))
    first = next(iter(axes))
    return found or {first: next(iter(axes[first]))}


def _cell(
    plan: StudyPlan, start: dict[str, Any], base: Path, out: Path, levels: dict[str, str],
    axes: Mapping[str, Mapping[str, Any]], seed: int, where: str,
) -> Cell:  # fmt: skip
    """The run of some levels and a seed."""
    name = "-".join([*(re.sub(r"[^\w.+]+", "_", level) for level in levels.values()), f"s{seed}"])
    raw, here = copy.deepcopy(start), f"{where}: cell {name}"
    chosen = [axes[axis][level] for axis, level in levels.items()]
    for settings in chosen:
        for key, value in settings.items() if settings != FOREST else ():
            override(raw, key, copy.deepcopy(value), where=here)
    override(raw, "train.seed", seed, where=here)
    share = raw.get("split", {}).get("budget", 1) if isinstance(raw.get("split"), dict) else 1
    if plan.resample and share != 1:
        override(raw, "split.budget_seed", seed, where=here)
    raw |= {"name": name, "output": str((out / "runs").resolve())}
    config = parse_config(raw, where=here, base=base)
    forest = FOREST in chosen
    if forest:
        config = _of_forest(config)
    elif any(FOREST in levels.values() for levels in axes.values()):
        config = config.model_copy(update={"baseline": False})  # it has cells of its own
    return Cell(name, levels, seed, config, forest)


def _of_forest(config: RunConfig) -> RunConfig:
    """The same without what only a network reads."""
    train = TrainConfig(seed=config.train.seed, size_px=config.train.size_px, device=config.train.device)
    return config.model_copy(
        update={"model": ModelConfig(), "train": train, "decision": DecisionConfig(applicability=False), "stages": [],
                "baseline": config.baseline or ForestConfig()}
    )  # fmt: skip
