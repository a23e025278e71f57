"""`covermap check`."""

from __future__ import annotations

import typer

from covermap.cli import show


def check(config: show.Config, settings: show.Set = None, as_json: show.AsJson = False) -> None:
    """Check a config and its data before training: classes in each part, distances, warnings, memory, windows.

    Example: covermap check covermap.yaml --set split.val=0.1
    """
    from covermap.core.config import load_config
    from covermap.verbs.check import check as examine

    found = examine(load_config(config, settings or ()))
    if as_json:
        show.as_json(found)
    else:
        tell(found)


def tell(found: dict[str, object]) -> None:
    """Print what check found."""
    rows = found["classes"]
    assert isinstance(rows, list)
    show.table([list(row.values()) for row in rows], list(rows[0]), title="labelled pixels")
    for key in ("scenes", "inputs", "distance_px", "windows_per_epoch", "memory"):
        typer.echo(f"{key.replace('_', ' ')}: {found[key]}")
    notes = found["notes"]
    assert isinstance(notes, list)
    for note in notes:
        typer.echo(f"note: {note}")
    typer.echo("ok")
