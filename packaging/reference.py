"""Writes docs/reference/ from the code: every verb with its options, every key of every YAML file.

    python packaging/reference.py       or: make docs

tests/docs/test_reference.py fails where the files that are committed say something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from covermap.cli import app
from covermap.core.config import RunConfig
from covermap.core.label_budget_plan import LabelBudgetPlan
from covermap.core.pretrain_config import PretrainConfig
from covermap.core.pretraining_plan import PretrainingPlan
from covermap.core.study_plan import StudyPlan
from covermap.core.tune_plan import TunePlan

ROOT = Path(__file__).resolve().parent.parent
HEAD = "<!-- written by packaging/reference.py (make docs): change the code, not this page -->\n\n"
FILES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Run", "`covermap init` writes one; `run`, `train`, `check`, `prepare` and `embed` read it.", RunConfig),
    ("Pre-training", "The recipe of `covermap pretrain`.", PretrainConfig),
    ("Study: grids of runs", "A plan of `covermap study run`; its kinds: {kinds}.", StudyPlan),
    ("Study: label_budget", "A plan of `covermap study run` with `kind: label_budget`.", LabelBudgetPlan),
    ("Study: pretraining", "A plan of `covermap study run` with `kind: pretraining`.", PretrainingPlan),
    ("Tune", "A plan of `covermap tune`.", TunePlan),
)
_TYPES = {"<str>": "TEXT", "<int>": "INTEGER", "<float>": "NUMBER", "<list[str]>": "TEXT", "<path>": "PATH"}
_EVERYWHERE = ("--help",)
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "object": "keys"}


def pages() -> dict[Path, str]:
    """{file: what it holds}."""
    folder = ROOT / "docs" / "reference"
    return {folder / "cli.md": _cli(), folder / "config.md": _config()}


def _cli() -> str:
    verbs = list(_verbs(typer.main.get_command(app), "covermap"))
    listed = [f"- [`{name}`](#{_anchor(name)}): {_help(verb)[0].split('. ')[0].rstrip('.')}" for name, verb in verbs]
    lines = [
        f"{HEAD}# The command line", "",
        "Every verb has `--help`. Exit codes: 0 ok, 1 data or settings, 2 usage, 3 interrupted and resumable.",
        "`covermap --debug VERB ...` shows the traceback of an error, `covermap --version` the version.", "", *listed,
    ]  # fmt: skip
    for name, verb in verbs:
        ctx = typer.Context(verb, info_name=name)
        rows = [(one, one.get_help_record(ctx)) for one in verb.get_params(ctx)]
        given = [
            (_upper(_plain(record[0])), record[1])
            for one, record in rows
            if one.param_type_name == "argument" and record
        ]
        options = [record for one, record in rows if one.param_type_name == "option" and record]
        options = [record for record in options if not any(each in record[0] for each in _EVERYWHERE)]
        usage = " ".join([name, *(first.split(" ")[0] for first, _ in given)])
        summary, more = _help(verb)
        lines += ["", f"## {name}", "", f"`{usage}{' [OPTIONS]' if options else ''}`", "", summary]
        lines += ["", *more] if more else []
        for title, records in (("argument", given), ("option", options)):
            if records:
                lines += ["", f"| {title} | |", "|---|---|"]
                lines += [f"| `{_cell(_plain(first))}` | {_cell(_plain(text))} |" for first, text in records]
    return "\n".join(lines) + "\n"


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Name and command of all that can be called, in the order of `--help`."""
    for word, one in command.commands.items():
        if hasattr(one, "commands"):
            yield from _verbs(one, f"{name} {word}")
        else:
            yield f"{name} {word}", one


def _help(verb: Any) -> tuple[str, list[str]]:
    """The first paragraph on one line, and the others, examples as a list."""
    first, *others = [_plain(" ".join(part.split())) for part in re.split(r"\n\s*\n", verb.help or "")]
    return first, "\n\n".join(others).split("\n") if others else []


def _upper(text: str) -> str:
    """An argument's name in capitals, as all are that have one of their own."""
    name, *rest = text.split(" ", 1)
    return " ".join([name.upper(), *rest])


def _plain(text: str) -> str:
    """Without the marks of rich, and with one word for a type whatever typer calls it."""
    text = re.sub(r"\[/?(?:bold|dim|red)[^\]]*\]", "", text.replace("\\[", "["))
    for odd, word in _TYPES.items():
        text = text.replace(odd, word)
    text = re.sub(r"<(\w+) range>", lambda found: _TYPES[f"<{found[1]}>"], text)
    text = re.sub(r"<(\w+(?:\|\w+)+)>", r"\1", text)
    return text.replace("  [required]", "").replace("  [default:", " [default:")


def _config() -> str:
    lines = [
        f"{HEAD}# Keys of the YAML files", "",
        "An unknown key is refused. Paths count from the folder of the file. `--set a.b=c` sets a key for one call.",
        "`covermap schema` prints the same as a JSON Schema for editors.", "",
        *(f"- [{title}](#{_anchor(title)})" for title, _, _ in FILES),
    ]  # fmt: skip
    titles: dict[str, str] = {}
    for title, about, model in FILES:
        schema = model.model_json_schema()
        sections = {name: one for name, one in schema.get("$defs", {}).items() if "properties" in one}
        paths = {name: path for name, path in _paths(schema, sections, "").items() if name not in titles}
        titles |= {name: path if model is RunConfig else f"{title}, {path}" for name, path in paths.items()}
        lines += ["", f"## {title}", "", about.format(kinds=_kinds()), "", *_table(schema, titles)]
        for name in paths:
            meaning = " ".join(sections[name].get("description", "").split())
            lines += ["", f"### {titles[name]}", "", meaning, "", *_table(sections[name], titles)]
    return "\n".join(lines) + "\n"


def _paths(schema: Mapping[str, Any], sections: Mapping[str, Any], path: str) -> dict[str, str]:
    """{section: dotted keys that lead to it}, in the order of the keys; the first way counts."""
    found: dict[str, str] = {}
    for key, one in schema["properties"].items():
        names = [name for name in re.findall(r"\$defs/(\w+)", json.dumps(one)) if name in sections]
        for name in dict.fromkeys(names):
            own = re.sub(r"Config$", "", name).lower()
            found.setdefault(name, f"{path}{key}" + (f" ({own})" if len(set(names)) > 1 else ""))
            for inner, way in _paths(sections[name], sections, f"{path}{key}.").items():
                found.setdefault(inner, way)
    return found


def _kinds() -> str:
    from covermap.verbs.study_kinds import KINDS

    return ", ".join(f"`{name}`" for name in KINDS)


def _table(schema: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    needed = schema.get("required", [])
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    for key, one in schema["properties"].items():
        default = "needed" if key in needed else _value(one.get("default"))
        lines.append(
            f"| `{key}` | {_cell(_type(one, titles))} | {_cell(default)} | {_cell(one.get('description', ''))} |"
        )
    return lines


def _value(value: Any) -> str:
    """A default as YAML writes it; sections have theirs in their own table."""
    if value is None or (isinstance(value, dict) and value):
        return ""
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    return f"`{text or (value if value != '' else repr(''))}`".replace("'", "" if value != "" else "'")


def _type(one: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """A JSON Schema in a few words; None is left out, for it is what a key means that is not named."""
    if "$ref" in one:
        title = titles[one["$ref"].rsplit("/", 1)[-1]]
        return f"[{title}](#{_anchor(title)})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in one:
            return " or ".join(dict.fromkeys(_type(each, titles) for each in one[key] if each.get("type") != "null"))
    if "const" in one:
        return _value(one["const"])
    if "enum" in one:
        return ", ".join(f"`{each}`" for each in one["enum"])
    if one.get("type") == "array":
        if "prefixItems" in one:
            return f"[{', '.join(_type(each, titles) for each in one['prefixItems'])}]"
        return f"list of {_type(one.get('items', {}), titles)}"
    if isinstance(one.get("additionalProperties"), dict):
        return f"keys with {_type(one['additionalProperties'], titles)}"
    return _WORDS.get(one.get("type", ""), "anything") + _range(one)


def _range(one: Mapping[str, Any]) -> str:
    ends = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    said = [f"{word} {one[key]:g}" for key, word in ends if key in one]
    return f" {', '.join(said)}" if said else ""


def _anchor(title: str) -> str:
    """As GitHub makes them of headings."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    """A text within a table."""
    return " ".join(str(text).replace("|", "\\|").split())


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
