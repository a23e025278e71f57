"""The plan of a study of label budgets: encoders whose embeddings are probed, area by area, with few to many labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from covermap.core.config import RunConfig
from covermap.core.config_file import override, parse_config
from covermap.core.plan_file import Plan, read_plan


class LabelBudgetPlan(Plan):
    """What is embedded, how it is probed, and when more labels are no longer worth it."""

    schema_name: ClassVar[str] = "label_budget"

    kind: Literal["label_budget"] = "label_budget"
    hypothesis: str = Field("", description="What is expected, for the experiment log.")
    encoders: dict[str, dict[str, Any]] = Field(min_length=1, description="{name: settings by dotted keys}.")
    size_px: int | None = Field(None, ge=1, description="Side of a chip; default: that of embed.")
    areas: Literal["place", "scene"] = Field("scene", description="What is an area: learnt from, or elsewhere.")
    target: Literal["auto", "shares", "values"] = "auto"
    budgets: list[int] = Field(min_length=2, description="Numbers of labelled chips, rising.")
    repeats: int = Field(50, ge=2)
    share: float = Field(0.3, gt=0, lt=1, description="Of each area's blocks of ground that is held out.")
    block: int = Field(4, ge=1, description="Side of a block in chips.")
    penalty: Literal["loo", "once"] | float = Field("loo", description="Of ridge, as in covermap probe.")
    score: Literal["r", "r2"] = Field("r2", description="Of all targets together.")
    close: float = Field(0.02, gt=0, description="Score that the largest budget may still add to a recommended one.")
    seed: int = Field(0, ge=0)
    labels: str = Field(
        "", description="What has to be known of the labels, such as: made by a model, no ground truth."
    )

    @model_validator(mode="after")
    def _budgets_rise(self) -> LabelBudgetPlan:
        if self.budgets[0] < 2 or sorted(set(self.budgets)) != self.budgets:
            raise ValueError(f"budgets {self.budgets} do not rise from 2 labels on")
        return self


class LabelBudget(NamedTuple):
    """A plan with the config of each encoder."""

    plan: LabelBudgetPlan
    configs: dict[str, RunConfig]
    source: str


def load_label_budget(path: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> LabelBudget:
    """Read a plan (a file, or its values) and the config of each encoder; raises ConfigError for anything unknown."""
    read = read_plan(path, LabelBudgetPlan, fix="write title, config, encoders and budgets", overrides=overrides)
    plan, start, base, where, _ = read
    read.require_effect(plan.encoders.values())
    configs = {}
    for name, settings in plan.encoders.items():
        here, own = f"{where}: encoder {name}", copy.deepcopy(start)
        for key, value in settings.items():
            override(own, key, value, where=here)
        configs[name] = parse_config(own, where=here, base=base)
    return LabelBudget(plan, configs, where)
