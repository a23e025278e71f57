"""What plans of studies and searches have in common: a config that all start from, settings of all, and the folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import Field

from covermap.core.config_file import override, parse_section, read_settings
from covermap.core.errors import OutputError
from covermap.core.section import Section

KEPT = "plan.json"
"""What a folder was begun with."""
_WRITTEN = ("runs", "jobs", "embeddings", "probes", "study.json", "cells.csv", "report.html", "LOG.md")


class Plan(Section):
    """Base of all plans."""

    schema_name: ClassVar[str] = ""
    """What `covermap schema` calls its keys."""

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


def kept_plan(out: Path, key: str) -> dict[str, Any] | None:
    """What an earlier call kept in `out`, which has `key`; None in a new folder.

    Raises OutputError where `out` holds the work of another verb or of nobody, which --overwrite could take away.
    """
    path, fix = out / KEPT, "give a new folder"
    if not path.is_file():
        if taken := [name for name in _WRITTEN if (out / name).exists()]:
            raise OutputError(f"{out} holds {', '.join(taken)} of something else, and no {KEPT} of this", fix=fix)
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise OutputError(f"{path} is damaged: what {out} was begun with is not known", fix=fix) from error
    if not isinstance(raw, dict) or not isinstance(raw.get(key), dict):
        raise OutputError(f"{out} holds a study or search of another kind", fix=fix)
    return raw
