"""`covermap run`."""

from __future__ import annotations

import typer

from covermap.cli import show
from covermap.cli.check import load


def run(
    config: show.Config,
    settings: show.Set = None,
    resume: show.Resume = False,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Do it all: train the network and the forest, score both, map every scene, write the report.

    Examples: covermap run covermap.yaml · covermap run recipes/gewata.yaml --set train.seed=1 --set name=gewata-1
    """
    loaded = load(config, settings, dry_run=dry_run, as_json=as_json)
    if dry_run:
        return
    from covermap.cli.evaluate import tell as tell_scores
    from covermap.verbs.run import run as work

    with show.progress("working") as tick:
        done = work(loaded, resume=resume, overwrite=overwrite, say=show.say, on_progress=tick)
    result = done.scores() if done.path("metrics.json").is_file() else None
    files = [str(path) for path in [*done.map_files, done.path("report.html")]]
    if as_json:
        show.as_json({"run": str(done.folder), "metrics": result, "files": files})
        return
    if result:
        tell_scores(result)
    else:
        typer.echo("no scores: the split has no test part")
    show.wrote(files)
