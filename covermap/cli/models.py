"""`covermap models`: what can be trained, and what is in a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covermap.cli import show

app = typer.Typer(help="What can be trained, published weights, and what a model folder holds.", no_args_is_help=True)


@app.command("list")
def list_(as_json: show.AsJson = False) -> None:
    """Backbones, decoders, losses and baselines. Example: covermap models list --json"""
    from covermap.verbs.models import list_models

    rows = list_models()
    if as_json:
        show.as_json(rows)
    else:
        show.table([list(row.values()) for row in rows], list(rows[0]))


@app.command("show")
def show_(
    model: Annotated[str, typer.Argument(help="A name from models list, a model folder or a run folder.")],
    as_json: show.AsJson = False,
) -> None:
    """What a model takes and gives. Examples: covermap models show unet · covermap models show runs/gewata"""
    from covermap.verbs.models import show_model

    folder = Path(model) / "model"
    found = show_model(str(folder) if (folder / "config.json").is_file() else model)
    if as_json:
        show.as_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key:>22}  {_plain(value)}")


@app.command()
def pull(
    model: Annotated[str, typer.Argument(help="A backbone from models list.")], as_json: show.AsJson = False
) -> None:
    """Download a backbone's published weights; offline, say which file to put where.

    Example: covermap models pull presto
    """
    from covermap.verbs.models import pull_model

    found = pull_model(model)
    if as_json:
        show.as_json(found)
    else:
        typer.echo(f"{found['path']}  ({found['bytes'] / 1e6:.1f} MB, SHA-256 {found['sha256']}, {found['licence']})")


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(each)}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
