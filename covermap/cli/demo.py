"""`covermap demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show


def demo(
    out: Annotated[str, typer.Argument(help="Folder to write into.", metavar="OUT")],
    seed: Annotated[int, typer.Option(help="Another seed gives another landscape.")] = 0,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Generate a scene, train on part of it, map it, score it, write the report; offline, about a minute.

    Example: covermap demo demo
    """
    from covermap.verbs.demo import demo as work

    with show.progress("training", quiet=quiet) as tick:
        run = work(out, seed=seed, overwrite=overwrite, say=show.sayer(quiet=quiet), on_progress=tick)
    result = run.read_json("metrics.json")
    if as_json:
        show.as_json({"run": str(run.folder), "metrics": result})
        return
    names = ["oa", "miou", "macro_f1"]
    rows = [[model, *(one["scores"][name] for name in names)] for model, one in result["models"].items()]
    show.table(rows, ["model", *names], title="scores on held-out blocks")
    typer.echo("wrote")
    for path, what in (
        ("image.tif", "the generated image"),
        ("labels.tif", "its labels"),
        ("covermap.yaml", "the config: change it and call covermap run"),
        ("demo/model", "the trained model"),
        ("demo/map.tif", "the map: opens in QGIS with colours and names"),
        ("demo/report.html", "the report: open it in a browser"),
    ):
        typer.echo(f"  {out}/{path}  {what}")
