"""The plan of a study of pre-training: methods that learn without labels, then few to many labels on top of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from covermap.core.config import RunConfig
from covermap.core.config_file import override, parse_config
from covermap.core.errors import ConfigError
from covermap.core.plan_file import Plan, read_plan
from covermap.core.pretrain_config import PretrainConfig, parse_pretrain_config, set_in_recipe

RANDOM, SCRATCH = "random", "scratch"


class PretrainingPlan(Plan):
    """Which methods, with how many labels their backbones are then probed and fine-tuned."""

    schema_name: ClassVar[str] = "pretraining"

    kind: Literal["pretraining"] = "pretraining"
    hypothesis: str = Field("", description="What is expected, for the experiment log.")
    config: str | dict[str, Any] = Field(description="The recipe that all methods start from: a file, or inline.")
    methods: dict[str, dict[str, Any]] = Field(min_length=1, description="{name: settings of the recipe}.")
    seeds: Annotated[int, Field(ge=1)] | list[int] = Field(3, description="How many, from 0 on; or a list of them.")
    labels: list[int] = Field([20, 80, 320], min_length=1, description="Numbers of labelled chips, rising.")
    repeats: int = Field(10, ge=1, description="Orders in which chips are labelled, for the probes.")
    target: Literal["auto", "shares", "values"] = "auto"
    finetune: dict[str, Any] | None = Field(
        None, description="Settings of runs that fine-tune each backbone (and one from scratch); default: none."
    )
    note: str = Field("", description="What has to be known of the labels, such as: made by a model, no ground truth.")

    @field_validator("labels")
    @classmethod
    def _labels_rise(cls, value: list[int]) -> list[int]:
        if value[0] < 2 or sorted(set(value)) != value:
            raise ValueError(f"labels {value} do not rise from 2 on")
        return value

    @property
    def all_seeds(self) -> list[int]:
        """The seeds, also where their number was given."""
        return self.seeds if isinstance(self.seeds, list) else list(range(self.seeds))


class Pretraining(NamedTuple):
    """A plan with its recipes by method and seed, and the config of a run on the same data without pre-training.

    Runs see the sensors that backbones see: what a method only predicts is no input of any.
    """

    plan: PretrainingPlan
    recipes: dict[tuple[str, int], PretrainConfig]
    base: RunConfig
    source: str


def load_pretraining(path: str | Path | Mapping[str, Any], out: Path, overrides: Sequence[str] = ()) -> Pretraining:
    """Read a plan (a file, or its values) and the recipe of each method and seed; raises ConfigError."""
    read = read_plan(path, PretrainingPlan, fix="write title, config, methods and labels", overrides=overrides)
    plan, start, base, where, _ = read
    read.require_effect(plan.methods.values())
    recipes = {}
    for name, settings in plan.methods.items():
        if name in (RANDOM, SCRATCH, "raw"):
            raise ConfigError(f"{where}: a method cannot be called {name}", fix="it is there always: name it otherwise")
        for seed in plan.all_seeds:
            raw, here = copy.deepcopy(start), f"{where}: method {name}"
            for key, value in settings.items():
                set_in_recipe(raw, key, copy.deepcopy(value), where=here)
            override(raw, "train.seed", seed, where=here)
            raw |= {"name": f"{name}-s{seed}", "output": str((out / "pretrained").resolve())}
            recipes[name, seed] = parse_pretrain_config(raw, where=here, base=base)
    plain = parse_pretrain_config(start, where=where, base=base)
    for name, recipe in [("config", plain), *((f"method {name}", recipe) for (name, _), recipe in recipes.items())]:
        if recipe.data.source and (recipe.inputs or getattr(recipe.method, "elevation", None)):
            raise ConfigError(
                f"{where}: {name} leaves out sensors of the layout {recipe.data.source}, which the baselines would see",
                fix="name the files in data.image instead of data.source, or leave sensors out by data.options",
            )
    predicted = {sensor for recipe in recipes.values() if (sensor := getattr(recipe.method, "elevation", None))}
    for name, recipe in [("config", plain), *((f"method {name}", recipe) for (name, _), recipe in recipes.items())]:
        if odd := sorted(predicted & {image.sensor for image in recipe.run.data.images}):
            raise ConfigError(
                f"{where}: {name} sees {odd[0]}, which a method predicts: their scores would not compare",
                fix="name what all of them see: config: {inputs: [...]}",
            )
    return Pretraining(plan, recipes, plain.run, where)


def finetuned(
    loaded: Pretraining, recipe: PretrainConfig | None, split: Path, *, seed: int, name: str, out: Path
) -> RunConfig:  # fmt: skip
    """The run that learns from the train chips of a split's file; recipe: of its backbone, or None for from scratch."""
    run = recipe.run if recipe else loaded.base
    backbone = str(recipe.folder) if recipe else None
    raw = run.model_dump(mode="json", exclude_defaults=True)
    raw |= {"name": name, "output": str((out / "runs").resolve()), "split": {"method": "csv", "path": str(split)}}
    size = run.train.size_px
    start = {
        "task": "chip_regression", "data.target": {"shares": True}, "model.weights": "auto" if backbone else "none",
        "train.size_px": size, "train.seed": seed,
        **({"model.backbone": backbone, "model.backbone_options": {}} if backbone else {}),
    }  # fmt: skip
    for key, value in {**start, **(loaded.plan.finetune or {})}.items():
        override(raw, key, copy.deepcopy(value), where=f"{loaded.source}: finetune")
    return parse_config(raw, where=f"{loaded.source}: finetune")
