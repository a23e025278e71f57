"""Table: rows under a head, the same in a terminal, a notebook, a CSV file and a DataFrame."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from covermap.core.output import write_text

if TYPE_CHECKING:
    import pandas as pd

_GAP = "  "
_HTML_ROWS = 200
"""Rows that a notebook shows: more belong into a DataFrame."""


class Within(NamedTuple):
    """A number with half the width of its interval; half is None where that cannot be estimated.

    low, high: its ends where they are known; they are told where they do not lie alike far away.
    """

    value: float | None
    half: float | None
    low: float | None = None
    high: float | None = None

    @property
    def is_even(self) -> bool:
        """Whether ± half tells the interval: nothing was cut off at 0 or 1."""
        value, half, low, high = self
        if value is None or half is None or low is None or high is None:
            return True
        return abs((high - value) - (value - low)) < 0.01 * half

    def text(self, form: str = "") -> str:
        """The number and its interval in words, numbers in a format."""
        if self.value is None:
            return "-"
        if self.half is None:
            return f"{_text(self.value, form)} not estimable"
        if self.is_even:
            return f"{_text(self.value, form)} ± {_text(self.half, form)}"
        return f"{_text(self.value, form)} ({_text(self.low, form)} to {_text(self.high, form)})"


class Between(NamedTuple):
    """A number with the ends of its interval, which need not be alike far away."""

    value: float | None
    low: float | None
    high: float | None


_PARTS: Mapping[type, Sequence[str]] = {Within: ("", " ±", " low", " high"), Between: ("", " low", " high")}
"""What is added to a column's name where each number of a cell takes a column of its own."""


@dataclass(frozen=True)
class Table:
    """head: names of columns. rows: values, None where nothing is known. formats: of columns, such as {"area": ",.1f"}.

    Numbers without a format have four digits below 10, else one, and commas between thousands.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    formats: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(rows: Sequence[Mapping[str, Any]], *, title: str = "", formats: Mapping[str, str] | None = None) -> Table:
        """Of rows as mappings; columns in the order in which they first appear."""
        head = list(dict.fromkeys(key for row in rows for key in row))
        return Table(head, [[row.get(key) for key in head] for row in rows], title, formats or {})

    @cached_property
    def cells(self) -> list[list[str]]:
        """The rows as texts."""
        return [
            [_text(value, self.formats.get(name, "")) for name, value in zip(self.head, row, strict=True)]
            for row in self.rows
        ]

    @cached_property
    def is_number(self) -> list[bool]:
        """Of each column, whether it holds numbers only: they stand to the right.

        Beside intervals with two ends decimal points are under each other on the left.
        """
        return [
            bool(self.rows)
            and all(isinstance(row[i], Number | Within) or row[i] in (None, "", "-") for row in self.rows)
            for i in range(len(self.head))
        ]

    @cached_property
    def widths(self) -> list[int]:
        """Characters that each column needs."""
        return [max(map(len, (name, *(row[i] for row in self.cells)))) for i, name in enumerate(self.head)]

    def columns(self, chosen: Sequence[int]) -> Table:
        """The same with some of the columns, by their places."""
        return Table(
            [self.head[i] for i in chosen], [[row[i] for i in chosen] for row in self.rows], self.title, self.formats
        )

    def __str__(self) -> str:
        """Plain text, as wide as it needs."""
        lines = [self.title] if self.title else []
        for row in ([str(name) for name in self.head], *self.cells):
            cells = zip(row, self.widths, self.is_number, strict=True)
            lines.append(_GAP.join(f"{c:>{w}}" if right else f"{c:<{w}}" for c, w, right in cells).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        sides = ["right" if right else "left" for right in self.is_number]

        def line(tag: str, cells: Sequence[str]) -> str:
            style = "padding:2px 10px;text-align:"
            each = zip(sides, cells, strict=True)
            made = [f'<{tag} style="{style}{side}">{escape(str(cell))}</{tag}>' for side, cell in each]
            return f"<tr>{''.join(made)}</tr>"

        title = f'<caption style="text-align:left;color:inherit">{escape(self.title)}</caption>' if self.title else ""
        body = "".join(line("td", row) for row in self.cells[:_HTML_ROWS])
        more = len(self.cells) - _HTML_ROWS
        rest = f"<p>and {more:,} more rows: .to_pandas() or .to_csv() has all</p>" if more > 0 else ""
        return f"<table>{title}<thead>{line('th', list(self.head))}</thead><tbody>{body}</tbody></table>{rest}"

    def _plain(self) -> tuple[list[str], list[list[Any]]]:
        """Head and rows where numbers with intervals take several columns."""
        of_row = [[type(value) if type(value) in _PARTS else None for value in row] for row in self.rows]
        kinds = [next(filter(None, column), None) for column in zip(*of_row, strict=True)] or [None] * len(self.head)
        head: list[str] = []
        rows: list[list[Any]] = [[] for _ in self.rows]
        for i, (name, kind) in enumerate(zip(self.head, kinds, strict=True)):
            parts = _PARTS[kind] if kind else ("",)
            head += [f"{name}{part}" for part in parts]
            for row, values in zip(self.rows, rows, strict=True):
                values += row[i] if kind and isinstance(row[i], kind) else (row[i], *[None] * (len(parts) - 1))
        return head, rows

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame of the values, not of their texts; an interval takes columns of its own."""
        import pandas as pd

        head, rows = self._plain()
        return pd.DataFrame(rows, columns=head)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The values as CSV, written to a file where one is named (whole or not at all)."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self._plain()[0], *self._plain()[1]])
        if path is not None:
            write_text(path, text.getvalue())
        return text.getvalue()


class Tables(tuple[Table, ...]):
    """Several tables that a notebook shows one below the other."""

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self)


def _is_number(value: Any) -> bool:
    return isinstance(value, Number | Within) or value in (None, "", "-")


def _text(value: Any, form: str) -> str:
    if isinstance(value, Within):
        return value.text(form)
    if isinstance(value, Between):
        ends = "" if value.low is None else f" ({_text(value.low, form)} to {_text(value.high, form)})"
        return _text(value.value, form) + ends
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    if form and isinstance(value, Number):
        return format(value, form)
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
