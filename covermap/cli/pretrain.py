"""`covermap pretrain`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from covermap.cli import show


def pretrain(
    recipe: Path = typer.Argument(..., help="YAML: data, model, method, train."),
    settings: show.Set = None,
    resume: show.Resume = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Learn a backbone without labels: mae, dino, simclr, glcnet or clip; the result is named in model.backbone.

    Examples: covermap pretrain recipe.yaml · covermap pretrain recipe.yaml --set method=dino --set name=dino ·
    torchrun --nproc-per-node 2 -m covermap pretrain recipe.yaml
    """
    from covermap.core.pretrain_config import load_pretrain_config
    from covermap.verbs.pretrain import pretrain as learn

    config = load_pretrain_config(recipe, settings or ())
    another = os.environ.get("RANK", "0") != "0"  # of several processes the first one speaks
    with show.progress("pre-training", quiet=another) as tick:
        run = learn(config, resume=resume, overwrite=overwrite, say=show.sayer(quiet=another), on_progress=tick)
    if another:
        return
    if as_json:
        show.as_json({"run": str(run.folder), "model": str(run.path("model")), "log": run.read_log()})
    else:
        typer.echo(f"{run.folder}")
        show.say(f"next: name it in a config (model.backbone: {run.folder}), or covermap embed {run.folder} IMAGE OUT")
