"""The plan of a search for settings: what is searched, and between which values."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from covermap.core.config import RunConfig
from covermap.core.config_file import override, parse_config, parse_section
from covermap.core.errors import ConfigError
from covermap.core.plan_file import Plan, read_plan
from covermap.core.section import Section


class Between(Section):
    """Numbers from low to high; whole ones, where both are whole."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="Drawn alike by their logarithm.")

    @model_validator(mode="after")
    def _rising(self) -> Between:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low lies below high, and above 0 with log")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class TunePlan(Plan):
    """What is searched for the best score of the val part; the test part is never looked at."""

    schema_name: ClassVar[str] = "tune"

    title: str = "Search for settings"
    space: dict[str, Between | list[Any]] = Field(
        min_length=1,
        description="{setting: [choices]}, [low, high, log], or {low: 1e-4, high: 1e-2, log: true}, by dotted keys.",
    )
    sampler: Literal["tpe", "random"] = Field("tpe", description="tpe learns from trials; random does not.")
    seed: int = Field(0, ge=0, description="Of what is drawn; training has train.seed.")


class Search(NamedTuple):
    """A plan with its space spelled out, and the plain values that a trial's config is made of."""

    plan: TunePlan
    space: dict[str, Between | list[Any]]
    raw: dict[str, Any]
    base: Path
    source: str

    def config(self, name: str, out: Path, chosen: Mapping[str, Any]) -> RunConfig:
        """The config of a trial; raises ConfigError."""
        raw = copy.deepcopy(self.raw)
        for key, value in chosen.items():
            override(raw, key, value, where=f"{self.source}: space")
        raw |= {"name": name, "output": str(out.resolve())}
        return parse_config(raw, where=f"{self.source}: {name}", base=self.base)


def load_search(path: str | Path | Mapping[str, Any]) -> Search:
    """Read a plan and try both ends, and all choices, of each setting; raises ConfigError for anything unknown."""
    fix = "write title, config and space: {train.lr: [1e-4, 1e-2, log]}"
    plan, start, base, where, _ = read_plan(path, TunePlan, fix=fix)
    search = Search(plan, {key: _spelled(key, value, where) for key, value in plan.space.items()}, start, base, where)
    for key, values in search.space.items():
        for value in (values.low, values.high) if isinstance(values, Between) else values:
            search.config("trial", base, {key: value})
    return search


def _spelled(key: str, value: Between | list[Any], where: str) -> Between | list[Any]:
    """[low, high, log] as numbers between; raises ConfigError for no choice."""
    if isinstance(value, Between):
        return value
    if len(value) == 3 and value[2] == "log":
        low, high = (_number(one, f"{where}: space.{key}") for one in value[:2])
        return parse_section(Between, {"low": low, "high": high, "log": True}, where=f"{where}: space.{key}")
    if len(value) < 2:
        raise ConfigError(f"{where}: space.{key} has no choice", fix="name two or more, or put it under settings")
    return value


def _number(value: Any, where: str) -> Any:
    """YAML 1.1 reads 1e-4 as a text; raises ConfigError for what is no number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ConfigError(f"{where}: {value[:99]!r} is no number", fix="[0.0001, 0.1, log]") from error
