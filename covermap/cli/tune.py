"""`covermap tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show


def tune(
    plan: Annotated[str, typer.Argument(help="What is searched, between which values.", metavar="PLAN.yaml")],
    out: Annotated[str, typer.Argument(help="Folder of the search: its runs, trials.csv, best.yaml.", metavar="OUT")],
    trials: Annotated[int, typer.Option(help="How many there are to be in OUT.", min=1)] = 20,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Search for settings by the score of the val part (Optuna: pip install 'covermap\\[hpo]').

    PLAN.yaml: config: covermap.yaml and space: {train.lr: \\[1e-4, 1e-2, log], model.decoder: \\[unet, fpn]}. The same
    command goes on where it was stopped; more --trials add to those that are there.

    Example: covermap tune plan.yaml search/ --trials 20, then covermap run search/best.yaml
    """
    from covermap.verbs.tune import tune as work

    with show.progress("trials") as tick:
        done = work(plan, out, trials=trials, overwrite=overwrite, say=show.say, on_progress=tick)
    if as_json:
        files = [str(file) for file in done.files]
        show.as_json({"best": done.best, "trials": done.rows, "failed": done.failed, "files": files})
        return
    show.table([list(row.values()) for row in done.rows], list(done.rows[0]), title=f"trials, by {done.score}")
    if done.best:
        typer.echo(f"best: trial {done.best['trial']}, {done.score} {done.best[done.score]:.4f}")
    for name, message in done.failed.items():
        typer.echo(f"failed: {name}: {message}")
    show.wrote(done.files)
    if done.best:
        show.say(f"next: covermap run {done.out / 'best.yaml'}")
    else:
        raise typer.Exit(1)
