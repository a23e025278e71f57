"""How verbs speak: options that many share, tables, notes, JSON and progress. This is the one place that decides.

Results go to stdout: tables and sentences with what has to be known to read them (notes), or with --json one document.
What is going on goes to stderr: progress with the time left, steps, what to do next. --quiet leaves out notes and all
of stderr but errors. Into a file or pipe goes plain text as wide as it needs: no colours, no boxes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.table import Table

_mode = {"quiet": False, "json": False}
"""What the verb at work was asked for; set by its options, which are always read, and forgotten by `reset`."""
_EVERY_S = 30.0
"""Between two lines of progress where there is no terminal for a bar."""
_LEAST_TEXT = 12
"""Letters that a column of texts keeps in a narrow terminal, words staying whole."""
_GAP = 2


def _ask_quiet(value: bool) -> bool:
    _mode["quiet"] = value
    return value


def _ask_json(value: bool) -> bool:
    _mode["json"] = value
    return value


def reset() -> None:
    """Forget what a verb before was asked for."""
    _mode.update(quiet=False, json=False)


AsJson = Annotated[
    bool, typer.Option("--json", callback=_ask_json, help="Print the result as one JSON document, nothing else.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_ask_quiet, help="Only results and paths: no progress, no notes.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set train.lr=1e-4.")
]
Layer = Annotated[str | None, typer.Option(help="Layer of a vector file with several.")]
Epsg = Annotated[int | None, typer.Option(help="CRS of polygons or points whose file states none.")]
Config = Annotated[str, typer.Argument(help="The config, as written by covermap init.", metavar="CONFIG.yaml")]


def listed(text: str | None) -> list[str] | None:
    """The names in `a, b, c`; None where nothing was given."""
    return [name.strip() for name in text.split(",")] if text else None


def say(text: str) -> None:
    """One line about what is going on, to stderr; not with --quiet."""
    if not _mode["quiet"]:
        typer.echo(text, err=True)


def sayer(*, quiet: bool) -> Say:
    """`say`, or silence where another process speaks; --quiet needs no word here."""
    return silent if quiet else say


def warn(text: str) -> None:
    """One line that also --quiet does not silence, to stderr: something failed."""
    typer.echo(text, err=True)


def notes(found: Iterable[str]) -> None:
    """What has to be known to read the result, each once, beside it; not with --quiet. JSON holds them itself."""
    if _mode["quiet"] or _mode["json"]:
        return
    for note in dict.fromkeys(found):
        typer.echo(f"note: {note}")


def wrote(files: Iterable[str | Path]) -> None:
    """The paths of what was written, a line; with --quiet a line for each, for scripts."""
    paths = [str(file) for file in files]
    if paths:
        typer.echo("\n".join(paths) if _mode["quiet"] else "wrote " + ", ".join(paths))


def lines(told: Sequence[str], out: str | Path, *, dry_run: bool = False) -> None:
    """What is said of a file or folder that was written; with --quiet its path, with --json both."""
    if _mode["json"]:
        as_json({"out": str(out), "told": list(told)})
    else:
        typer.echo(str(out) if _mode["quiet"] and not dry_run else "\n".join(told))


def as_json(value: Any) -> None:
    """Print a result as JSON (NaN as null)."""
    from covermap.core.run import plain

    typer.echo(json.dumps(plain(value), indent=2))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], *, title: str = "") -> None:
    """Print rows under a header; numbers right, texts left."""
    draw(Table(header, rows, title))


def draw(found: Table) -> None:
    """Print a table: by rich in a terminal, parted where it is too narrow, else as plain text."""
    if not sys.stdout.isatty():
        typer.echo(str(found))
        return
    width = shutil.get_terminal_size().columns
    for chosen, needed in _fitting(found, width):
        _draw_rich(found.columns(chosen), max(width, needed))


def _least(found: Table) -> list[int]:
    """Letters that each column needs so that no number or word is cut."""
    least = []
    for i, (name, widest) in enumerate(zip(found.head, found.widths, strict=True)):
        texts = [name, *(row[i] for row in found.cells)]
        words = max((len(word) for text in texts for word in str(text).split()), default=0)
        least.append(widest if found.is_number[i] else max(words, min(widest, _LEAST_TEXT)))
    return least


def _fitting(found: Table, width: int) -> Iterator[tuple[list[int], int]]:
    """Columns that go beside each other and the letters that they need; the first one is in front of each part."""
    least = _least(found)
    chosen: list[int] = []
    needed = 0
    for i, letters in enumerate(least):
        if len(chosen) > 1 and needed + _GAP + letters > width:
            yield chosen, needed
            chosen, needed = [0], least[0]
        needed += letters + (_GAP if chosen else 0)
        chosen = [*chosen, i]
    yield chosen, needed


def _draw_rich(found: Table, width: int) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    # As Text: a name such as [red] is no markup.
    drawn = Drawn(title=Text(found.title) if found.title else None, title_justify="left", box=None, pad_edge=False)
    for name, is_number, least in zip(found.head, found.is_number, _least(found), strict=True):
        drawn.add_column(
            Text(str(name)), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number,
            min_width=least,
        )  # fmt: skip
    for row in found.cells:
        drawn.add_row(*map(Text, row))
    Console(width=width, highlight=False).print(drawn)


@contextlib.contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Tick]:
    """A bar with the time left on stderr; gives a function of (done, total). It appears with the first call.

    Where stderr is no terminal: a line now and then. quiet, or --quiet: never.
    """
    if quiet or _mode["quiet"]:
        yield unseen
    elif not sys.stderr.isatty():
        yield _in_lines(title)
    else:
        with _bar(title) as tick:
            yield tick


def _in_lines(title: str) -> Tick:
    start = last = 0.0
    first = before = -1

    def tick(done: int, total: int) -> None:
        nonlocal start, last, first, before
        now = time.monotonic()
        if first < 0 or done < before:  # also where the next of several works begins
            start, last, first = now, now, done
        before = done
        if now - last >= _EVERY_S and done > first:
            last = now
            left = (now - start) / (done - first) * (total - done)
            say(f"{title}: {done:,} of {total:,}, about {duration(left)} left")

    return tick


def duration(seconds: float) -> str:
    """A time as one reads it: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Tick]:
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
        bar.update(task, completed=done, total=total)  # first: it would start with a number that is not known
        bar.start()

    try:
        yield tick
    finally:
        if bar.live.is_started:
            bar.stop()
