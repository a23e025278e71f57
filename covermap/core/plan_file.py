"""What plans of studies and searches have in common: a config that all start from, settings of all, and the folder."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import Field

from covermap.core.config_file import override, parse_option, parse_section, read_settings
from covermap.core.errors import ConfigError, OutputError
from covermap.core.parsing import parse_json
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
    overridden: tuple[str, ...] = ()
    """Keys of the config that a call set."""

    def require_effect(self, levels: Iterable[Mapping[str, Any]]) -> None:
        """Raise ConfigError where a level sets what the call set for all: the call's would be lost."""
        for key in self.overridden:
            for other in (other for level in levels for other in level):
                if other == key or other.startswith(f"{key}.") or key.startswith(f"{other}."):
                    raise ConfigError(
                        f"--set {key} has no effect: {self.where} sets {other} itself where it varies",
                        fix="set that part of the plan: --set axes.NAME='{level: {key: value}}', or encoders, methods",
                    )


def read_plan(
    path: str | Path | Mapping[str, Any], kind: type[P], *, fix: str, overrides: Sequence[str] = ()
) -> ReadPlan[P]:
    """Read a plan (a file, or its values); fix: what to do where there is none. Raises ConfigError.

    The config's path counts from the plan's folder, paths in it from its own. overrides: `a.b=c`, of a key of the plan
    (seeds, axes.NAME, ...), or of the config that all starts from.
    """
    if isinstance(path, Mapping):
        raw, base, where = copy.deepcopy(dict(path)), Path.cwd(), "plan"
    else:
        raw, base, where = read_settings(Path(path), what="plan", fix=fix), Path(path).parent, str(path)
    given = dict(parse_option(text) for text in overrides)
    settings = {key: value for key, value in given.items() if key.partition(".")[0] not in kind.model_fields}
    for key in given.keys() - settings.keys():
        override(raw, key, given[key], where="--set")
    plan = parse_section(kind, raw, where=where)
    if isinstance(plan.config, str):
        start, base = read_settings(base / plan.config), (base / plan.config).parent
    else:
        start = copy.deepcopy(plan.config)
    for key, value in plan.settings.items():
        override(start, key, value, where=f"{where}: settings")
    for key, value in settings.items():
        override(start, key, value, where="--set")
    plan = plan.model_copy(update={"settings": {**plan.settings, **settings}})
    return ReadPlan(plan, start, base, where, tuple(settings))


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
        raw = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise OutputError(f"{path} is damaged: what {out} was begun with is not known", fix=fix) from error
    if not isinstance(raw, dict) or not isinstance(raw.get(key), dict):
        raise OutputError(f"{out} holds a study or search of another kind", fix=fix)
    return raw
