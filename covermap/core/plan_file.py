"""What plans of studies and searches have in common: a config that all start from, and settings of all."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import Field

from covermap.core.config_file import override, parse_section, read_settings
from covermap.core.section import Section


class Plan(Section):
    """Base of all plans."""

    title: str
    config: str | dict[str, Any] = Field(description="The config that all starts from: a file, or inline.")
    settings: dict[str, Any] = Field(default={}, description="Settings of all, by dotted keys.")


P = TypeVar("P", bound=Plan)


class ReadPlan(NamedTuple, Generic[P]):
    """A plan, plain values of its config with its settings, the folder that their paths count from, and its name."""

    plan: P
    start: dict[str, Any]
    base: Path
    where: str


def read_plan(path: str | Path | Mapping[str, Any], kind: type[P], *, fix: str) -> ReadPlan[P]:
    """Read a plan (a file, or its values); fix: what to do where there is none. Raises ConfigError.

    The config's path counts from the plan's folder, paths in it from its own.
    """
    if isinstance(path, Mapping):
        raw, base, where = dict(path), Path.cwd(), "plan"
    else:
        raw, base, where = read_settings(Path(path), what="plan", fix=fix), Path(path).parent, str(path)
    plan = parse_section(kind, raw, where=where)
    if isinstance(plan.config, str):
        start, base = read_settings(base / plan.config), (base / plan.config).parent
    else:
        start = copy.deepcopy(plan.config)
    for key, value in plan.settings.items():
        override(start, key, value, where=f"{where}: settings")
    return ReadPlan(plan, start, base, where)
