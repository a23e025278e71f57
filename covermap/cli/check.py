"""`covermap check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show

if TYPE_CHECKING:
    from covermap.core.config import RunConfig


Leaks = Annotated[
    bool, typer.Option("--leaks", help="Measure how much too good a random split would look on this data (a minute).")
]


def check(config: show.Config, settings: show.Set = None, leaks: Leaks = False, as_json: show.AsJson = False) -> None:
    """Check a config and its data before training: classes in each part, distances, warnings, memory, windows.

    Example: covermap check covermap.yaml --set split.val=0.1 --leaks
    """
    from covermap.core.config_file import load_config
    from covermap.verbs.check import check as examine

    with show.progress("measuring leaks", quiet=as_json) as tick:
        found = examine(load_config(config, settings or ()), leaks=leaks, on_progress=tick)
    if as_json:
        show.as_json(found)
    else:
        _tell(found)


def load(config: str, settings: Sequence[str] | None, *, dry_run: bool) -> RunConfig:
    """The config of a verb that works on one; with --dry-run it is checked and what was found is printed."""
    from covermap.core.config_file import load_config

    loaded = load_config(config, settings or ())
    if dry_run:
        from covermap.verbs.check import check as examine

        _tell(examine(loaded))
    return loaded


def _tell(found: dict[str, object]) -> None:
    for key, title in (("classes", "labelled pixels"), ("targets", "targets in the train part")):
        rows = found[key]
        assert isinstance(rows, list)
        if rows:
            show.table([list(row.values()) for row in rows], list(rows[0]), title=title)
    for key in ("scenes", "inputs", "distance_px", "windows_per_epoch", "memory"):
        typer.echo(f"{key.replace('_', ' ')}: {found[key]}")
    measured = found.get("leaks")
    if isinstance(measured, dict):
        typer.echo(measured["told"])
    notes = found["notes"]
    assert isinstance(notes, list)
    for note in notes:
        typer.echo(f"note: {note}")
    typer.echo("ok")
