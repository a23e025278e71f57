"""YAML, JSON and CSV of whomever as plain values: whatever is wrong with a text is one ValueError that says what.

`parse_*` take a text, for callers with a message of their own; `read_*` a file, and raise DataError (or another of our
errors) with its name.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from covermap.core.errors import CovermapError, DataError

MOST_VALUES = 1_000_000
"""Values of a YAML text after aliases: ten lines of aliases of aliases can mean billions."""
_MERGE = "tag:yaml.org,2002:merge"
MOST_DEEP = 64
"""Values within values: more than any file of ours, less than the stack of whoever walks through them."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_BROKEN_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""What PyYAML lets through of its constructors: `2001-99-99`, `!!int ''`, `!!bool x`."""


class Malformed(ValueError):
    """A text is not of its form, or means far more than it is long."""


class _Loader(yaml.SafeLoader):
    """Stops at values too deep when it meets them: open brackets cost PyYAML the square of their number."""

    deep = -1

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.deep += 1
        if self.deep > MOST_DEEP:
            raise Malformed(f"values lie in values deeper than {MOST_DEEP}")
        node = super().compose_node(parent, index)
        self.deep -= 1
        return node


def parse_yaml(text: str) -> Any:
    """Plain values, None of nothing; no object of Python is ever made. Raises Malformed."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _require_small(node)
            _require_each_once(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise Malformed(f"values lie in values deeper than {MOST_DEEP}") from error
    except Malformed:
        raise
    except _BROKEN_YAML as error:
        raise Malformed(str(error) or type(error).__name__) from error


def _require_small(node: yaml.Node) -> None:
    """Raise Malformed where aliases make a text mean too much, or too deep, or hold itself."""
    known: dict[int, tuple[int, int]] = {}

    def measure(one: yaml.Node) -> tuple[int, int]:
        """How many values it means, and how deep they lie."""
        if isinstance(one, yaml.ScalarNode):
            return 1, 0
        if id(one) not in known:
            known[id(one)] = MOST_VALUES + 1, 0  # met again before it is done: it holds itself
            parts = [part for pair in one.value for part in pair] if isinstance(one, yaml.MappingNode) else one.value
            sizes = [measure(part) for part in parts]
            known[id(one)] = 1 + sum(size for size, _ in sizes), 1 + max((deep for _, deep in sizes), default=0)
        return known[id(one)]

    size, deep = measure(node)
    if size > MOST_VALUES:
        raise Malformed(f"its aliases mean more than {MOST_VALUES:,} values, or themselves")
    if deep > MOST_DEEP:
        raise Malformed(f"values lie in values deeper than {MOST_DEEP}")


def _require_each_once(top: yaml.Node) -> None:
    """Raise Malformed for a key that is given twice: PyYAML takes the last one, without a word."""
    todo, seen = [top], set[int]()
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.ScalarNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            todo += node.value
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            todo += [key, value]
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    raise Malformed(f"{key.value} is given twice, in lines {lines[name]} and {line}")
                lines[name] = line


def parse_json(text: str | bytes) -> Any:
    """Plain values; raises Malformed."""
    try:
        found = json.loads(text)
        _require_flat(found)
    except RecursionError as error:
        raise Malformed(f"values lie in values deeper than {MOST_DEEP}") from error
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(str(error)) from error
    return found


def _require_flat(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEEP + 1):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise Malformed(f"values lie in values deeper than {MOST_DEEP}")


def parse_rows(text: str, separator: str = ",") -> list[list[str]]:
    """Cells of all rows that have any; raises Malformed."""
    try:
        # Not by io.StringIO, which takes four bytes a letter.
        lines = (match[0] for match in _LINE.finditer(text))
        return [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error as error:
        raise Malformed(str(error)) from error


def parse_csv(text: str, columns: Collection[str] = ()) -> list[dict[str, str]]:
    """The rows below a header line; raises Malformed for lacking or double columns, and rows of another length."""
    rows = parse_rows(text)
    head = [name.strip() for name in rows[0]] if rows else []
    if lacking := [name for name in columns if name not in head]:
        raise Malformed(f"it has no column {' and no column '.join(lacking)}, but {', '.join(head) or 'none'}")
    if double := sorted({name for name in head if name and head.count(name) > 1}):
        raise Malformed(f"it has the column {double[0]} twice")
    for number, row in enumerate(rows[1:], 1):
        if len(row) < len(head) or any(row[len(head) :]):
            raise Malformed(f"row {number} has {len(row)} cells, the header names {len(head)}")
    return [dict(zip(head, row, strict=False)) for row in rows[1:]]


@contextmanager
def as_written(path: str | Path, *, fix: str, error: type[CovermapError] = DataError) -> Iterator[None]:
    """Around what takes values out of a file of ours: where one is missing or of another kind, `error` names it."""
    try:
        yield
    except CovermapError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as wrong:
        raise error(f"{path} is not as it was written ({type(wrong).__name__}: {wrong})", fix=fix) from wrong


def read_text(path: str | Path, *, fix: str, error: type[CovermapError] = DataError) -> str:
    """A text in UTF-8, without the mark that Windows puts before it; raises `error`."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as wrong:
        raise error(f"{path} cannot be read as text: {wrong}", fix=fix) from wrong


def read_yaml(path: str | Path, *, fix: str, error: type[CovermapError] = DataError) -> Any:
    """What `parse_yaml` gives of a file; raises `error`."""
    try:
        return parse_yaml(read_text(path, fix=fix, error=error))
    except Malformed as wrong:
        raise error(f"{path} is not valid YAML: {wrong}", fix=fix) from wrong


def read_json(path: str | Path, *, fix: str, error: type[CovermapError] = DataError) -> Any:
    """What `parse_json` gives of a file; raises `error`."""
    try:
        return parse_json(read_text(path, fix=fix, error=error))
    except Malformed as wrong:
        raise error(f"{path} is no JSON that can be read: {wrong}", fix=fix) from wrong


def read_csv(
    path: str | Path, columns: Collection[str] = (), *, fix: str, error: type[CovermapError] = DataError
) -> list[dict[str, str]]:
    """What `parse_csv` gives of a file; raises `error`."""
    try:
        return parse_csv(read_text(path, fix=fix, error=error), columns)
    except Malformed as wrong:
        raise error(f"{path} is no table that can be read: {wrong}", fix=fix) from wrong
