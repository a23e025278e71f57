"""From YAML and `--set a.b=c` to a checked config; messages name the key and suggest a spelling."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from covermap.core.config import SCENE_REGIONS, SHORT, RunConfig
from covermap.core.errors import ConfigError, shortened, suggest
from covermap.core.parsing import Malformed, parse_yaml, read_yaml

S = TypeVar("S", bound=BaseModel)
_INIT = "write one from your data: covermap init IMAGE LABELS"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config, apply `a.b=c` overrides and resolve its paths; raises ConfigError."""
    path = Path(path)
    raw = read_settings(path)
    for text in overrides:
        override(raw, *parse_option(text), where="--set")
    return parse_config(raw, where=str(path), base=path.parent)


def read_settings(path: Path, *, what: str = "config", fix: str = _INIT) -> dict[str, Any]:
    """The plain values of a YAML file; raises ConfigError where there are none."""
    if not os.path.isfile(path):  # Path.is_file() raises for names that are too long
        raise ConfigError(f"there is no {what} {path}", fix=fix)
    raw = read_yaml(path, fix="check indentation and quotes there", error=ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no settings", fix=fix)
    return raw


def parse_config(raw: dict[str, Any], *, where: str = "config", base: Path | None = None) -> RunConfig:
    """Check plain values against the schema; with `base`, relative paths count from there. Raises ConfigError."""
    config = parse_section(RunConfig, raw, where=where)
    return resolved(config, base) if base is not None else config


def parse_section(kind: type[S], raw: Mapping[str, Any], *, where: str) -> S:
    """Check plain values against one section's schema; raises ConfigError."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, where, kind) from error


def parse_option(text: str) -> tuple[str, Any]:
    """`key=value`, the value read as YAML; raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not of the form key=value", fix="write for example train.lr=1e-4")
    try:
        parsed = parse_yaml(value)
    except Malformed as error:
        raise ConfigError(f"{text}: {value!r} is not a value", fix="quote it as in YAML") from error
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-4 as a text
            parsed = float(parsed)
    return key.strip(), parsed


def override(raw: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set `a.b` in plain values, in place; raises ConfigError where `a` is a value."""
    *parents, last = key.split(".")
    place = raw
    for parent in parents:
        if not isinstance(place.setdefault(parent, {}), dict):
            raise ConfigError(
                f"{where} {key}={value}: {parent} is a value, not a section",
                fix="write it as a section in the YAML file",
            )
        place = place[parent]
    place[last] = value


def dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{a: {b: 1}} -> {a.b: 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def _explain(error: ValidationError, where: str, kind: type[BaseModel]) -> ConfigError:
    lines, fixes = [], []
    keys = f"covermap schema {getattr(kind, 'schema_name', '')}".rstrip() + " lists every key and value"
    for problem in error.errors(include_url=False):
        path = [str(p) for p in problem["loc"]]
        dotted_key = ".".join(
            p
            for p in path
            if not p[:1].isupper() and not p.startswith(("list[", "literal[", "function-", "constrained-"))
        )
        if problem["type"] == "literal_error" and isinstance(problem["input"], dict):
            continue  # a section in place of a word: what is wrong inside of it is said by the others
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key {dotted_key}")
            fixes.append(f"{path[-1]}: {suggest(path[-1], _keys_at(path[:-1], kind))}")
        elif problem["type"] == "union_tag_invalid":
            word, known = problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "").split(", ")
            lines.append(f"{dotted_key} = {word!r} is not known")
            fixes.append(suggest(word, known))
        elif problem["type"] == "missing":
            lines.append(f"{dotted_key} is missing")
        elif isinstance(reason := problem.get("ctx", {}).get("error"), ConfigError):
            lines.append(f"{dotted_key}: {reason.message}")
            fixes.append(reason.fix)
        elif problem["type"] == "value_error" and isinstance(problem.get("input"), dict):
            # What is wrong between the keys of a section: it says which, and what to do.
            said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{dotted_key}: {said}" if dotted_key else said)
            fixes.append(f"change one of them; {keys}")
        else:
            given = shortened(repr(problem.get("input")), 200)
            lines.append(f"{dotted_key} = {given}: {problem['msg'].removeprefix('Value error, ')}")
    fix = "; ".join(dict.fromkeys(fixes)) or keys
    return ConfigError(f"{where}: " + "; ".join(dict.fromkeys(lines)), fix=fix)


def _keys_at(path: Sequence[str], model: type[BaseModel]) -> list[str]:
    """The keys that the section at `path` below `model` knows; of several sections that of the name which follows."""
    found: list[type[BaseModel]] = []
    for part in path:
        info = model.model_fields.get(part)
        named = [kind for kind in found if "name" in kind.model_fields and kind.model_fields["name"].default == part]
        found = named or _sections_of(info.annotation if info else None)
        model = found[-1] if found else model
    return list(model.model_fields)


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections_of(part)]


def resolved(config: RunConfig, base: Path) -> RunConfig:
    """The same with relative paths counted from a folder."""

    def at(path: str) -> str:
        if "\0" in path:
            raise ConfigError(f"{path[:99]!r} is no path: it holds a zero", fix="write its name anew")
        return (
            path if path.startswith(("http://", "https://", "/vsi", "s3://", "hf://")) else str((base / path).resolve())
        )

    def plug_in(names: str) -> str:
        """Files in `my_file.py:Name`, also in sums of several."""
        return re.sub(r"[^\s+*][^+*]*\.py(?=:)", lambda found: at(found[0]), names)

    images = [
        image.model_copy(
            update={"path": at(image.path) if isinstance(image.path, str) else [at(p) for p in image.path]}
        ).with_clouds(image.cloud_path if image.cloud_path in ("auto", "none") else at(image.cloud_path))
        for image in config.data.images
    ]
    changes: dict[str, Any] = dict.fromkeys(SHORT)
    if images:
        changes["image"] = images
    if config.data.root:
        changes["root"] = at(config.data.root)
    if isinstance(config.data.leave_out, str):  # the names themselves: a run does not depend on the file
        changes["leave_out"] = config.data.model_copy(update={"leave_out": at(config.data.leave_out)}).left_out
    if config.data.labels:
        own = config.data.labels
        changes["labels"] = at(own) if isinstance(own, str) else [at(path) for path in own]
    if config.data.change:
        changes["change"] = at(config.data.change)
    if config.data.target and config.data.target.path:
        changes["target"] = config.data.target.model_copy(update={"path": at(config.data.target.path)})
    if isinstance(config.data.legend, str) and config.data.legend.endswith((".yaml", ".yml")):
        changes["legend"] = at(config.data.legend)
    files = {"path": config.split.path, "regions": config.split.regions}
    found = {key: at(path) for key, path in files.items() if path and path not in SCENE_REGIONS}
    split = config.split.model_copy(update=found) if found else config.split
    model = config.model
    given = {"weights": model.weights, "start": model.start, "extra": model.extra}
    there: dict[str, Any] = {key: at(path) for key, path in given.items() if path and path not in ("auto", "none")}
    if model.adaptation.adapter:
        there["adapt"] = model.adaptation.model_copy(update={"adapter": at(model.adaptation.adapter)})
    # Only what changes: a setting that was left out stays one.
    named = {"backbone": model.backbone, "decoder": model.decoder}
    there |= {key: plug_in(text) for key, text in named.items() if ".py:" in text}
    if "/" in model.backbone and ".py:" not in model.backbone:  # the folder of one that was pre-trained
        there["backbone"] = at(model.backbone)
    if config.data.source:
        changes["source"] = plug_in(config.data.source)
    model, train = model.model_copy(update=there), config.train
    if ".py:" in train.loss:
        train = train.model_copy(update={"loss": plug_in(train.loss)})
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=changes), "split": split, "model": model, "train": train,
            "output": at(config.output),
        }
    )  # fmt: skip
