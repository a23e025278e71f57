"""How verbs speak: options that many share, tables, JSON and progress. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from covermap.core.progress import Say, Tick, silent, unseen

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set train.lr=1e-4.")
]
Layer = Annotated[str | None, typer.Option(help="Layer of a vector file with several.")]
Epsg = Annotated[int | None, typer.Option(help="CRS of polygons or points whose file states none.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
Config = Annotated[str, typer.Argument(help="The config, as written by covermap init.", metavar="CONFIG.yaml")]


def listed(text: str | None) -> list[str] | None:
    """The names in `a, b, c`; None where nothing was given."""
    return [name.strip() for name in text.split(",")] if text else None


def say(text: str) -> None:
    """One line about what is going on, to stderr."""
    typer.echo(text, err=True)


def sayer(*, quiet: bool) -> Say:
    """`say`, or what --quiet makes of it."""
    return silent if quiet else say


def as_json(value: Any) -> None:
    """Print a result as JSON (NaN as null)."""
    from covermap.core.run import plain

    typer.echo(json.dumps(plain(value), indent=2))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], *, title: str = "") -> None:
    """Print rows under a header; numbers right, texts left."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for i, name in enumerate(header):
        numeric = bool(rows) and all(
            row[i] is None or isinstance(row[i], int | float) or row[i] in ("", "-") for row in rows
        )
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_text(value) for value in row))
    width = None if sys.stdout.isatty() else 140
    Console(width=width, highlight=False).print(drawn)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@contextlib.contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Tick]:
    """A bar with the time left; gives a function of (done, total). It appears with the first call, quiet: never."""
    if quiet:
        yield unseen
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(title, total=None)

    def tick(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield tick
    finally:
        if bar.live.is_started:
            bar.stop()
