"""`covermap check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from covermap.cli import show
from covermap.core.errors import ConfigError

if TYPE_CHECKING:
    from covermap.core.config import RunConfig


SHOWN = 12
Leaks = Annotated[
    bool, typer.Option("--leaks", help="Measure how much too good a random split would look on this data (a minute).")
]


Audit = Annotated[
    bool, typer.Option("--audit", help="Read all data for faults, doubtful and shifted labels; exit code 1 for faults.")
]
Out = Annotated[str | None, typer.Option(help="With --audit: folder for audit.html, tables, leave_out.txt, suspects.")]


def check(
    config: show.Config,
    settings: show.Set = None,
    leaks: Leaks = False,
    audit: Audit = False,
    out: Out = None,
    overwrite: show.Overwrite = False,
    quiet: show.Quiet = False,
    as_json: show.AsJson = False,
) -> None:
    """Check a config and its data before training: classes in each part, distances, warnings, memory, windows.

    Examples: covermap check covermap.yaml --set split.val=0.1 --leaks ·
    covermap check covermap.yaml --audit --out audit/, then train with --set data.leave_out=audit/leave_out.txt
    """
    from covermap.core.config_file import load_config

    loaded = load_config(config, settings or ())
    if audit:
        from covermap.verbs.audit import audit as look

        found = look(loaded, progress=show.progress, out=out, leaks=leaks, overwrite=overwrite)
    elif out or overwrite:
        raise ConfigError("--out and --overwrite go with --audit", fix="add --audit")
    else:
        from covermap.verbs.check import check as examine

        with show.progress("measuring leaks", quiet=not leaks) as tick:
            found = examine(loaded, leaks=leaks, on_progress=tick)
    if as_json:
        show.as_json(found)
    elif audit:
        _tell_audit(found)
    else:
        _tell(found)
    if audit and found["faults"]:
        raise typer.Exit(1)


def _tell_audit(found: dict[str, Any]) -> None:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for fault in found["faults"]:
        kinds.setdefault(fault["kind"], []).append(fault)
    for kind, faults in kinds.items():
        typer.echo(f"{kind}: {len(faults)}")
        for fault in faults[:SHOWN]:
            typer.echo(f"  {fault['told']}")
        if len(faults) > SHOWN:
            typer.echo(f"  ... and {len(faults) - SHOWN} more (--json or --out FOLDER has all)")
    for title, rows in (("labelled pixels", found["classes"]), *_suspects(found["noise"])):
        if rows:
            show.table([list(row.values()) for row in rows[:SHOWN]], list(rows[0]), title=title)
    for told in (found["noise"], found["shift"], found["leaks"]):
        if told and found["classes"]:
            typer.echo(told["told"])
    show.notes(found["notes"])
    typer.echo(f"{len(found['faults'])} faults" if found["faults"] else "ok: no fault was found")


def _suspects(noise: dict[str, Any] | None) -> list[tuple[str, Any]]:
    return [("suspect labels", noise["pairs"]), ("worst tiles", noise["tiles"])] if noise else []


def load(config: str, settings: Sequence[str] | None, *, dry_run: bool, as_json: bool = False) -> RunConfig:
    """The config of a verb that works on one; with --dry-run it is checked and what was found is printed."""
    from covermap.core.config_file import load_config

    loaded = load_config(config, settings or ())
    if dry_run:
        from covermap.verbs.check import check as examine

        found = examine(loaded)
        show.as_json(found) if as_json else _tell(found)
    return loaded


def _tell(found: dict[str, object]) -> None:
    for key, title in (("classes", f"labelled {found['counted']}"), ("targets", "targets in the train part")):
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
    show.notes(notes)
    typer.echo("ok")
