"""`covermap train`."""

from __future__ import annotations

import typer

from covermap.cli import show
from covermap.cli.check import load


def train(
    config: show.Config,
    settings: show.Set = None,
    resume: show.Resume = False,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Train the network of a config, and the random forest beside it, into a run folder.

    Examples: covermap train covermap.yaml · covermap train covermap.yaml --set train.epochs=5 --set name=short ·
    covermap train covermap.yaml --resume
    """
    loaded = load(config, settings, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    from covermap.verbs.train import train as fit

    with show.progress("training") as tick:
        run = fit(loaded, resume=resume, overwrite=overwrite, say=show.say, on_progress=tick)
    if as_json:
        show.as_json({"run": str(run.folder), "model": str(run.path("model")), "log": run.read_log()})
    else:
        typer.echo(f"{run.folder}")
        show.say(f"next: covermap evaluate {run.folder}")
