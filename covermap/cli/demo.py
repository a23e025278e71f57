"""`covermap demo`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show


def demo(
    out: Annotated[str, typer.Argument(help="Folder to write into.", metavar="OUT")],
    seed: Annotated[int, typer.Option(help="Another seed gives another landscape.")] = 0,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Generate a scene, train on part of it, map it, score and assess it, write the report; offline, about a minute.

    Example: covermap demo demo
    """
    from covermap.verbs.demo import demo as work

    with show.progress("training", quiet=quiet) as tick:
        run = work(out, seed=seed, overwrite=overwrite, say=show.sayer(quiet=quiet), on_progress=tick)
    result = run.read_json("metrics.json")
    assessment = run.read_json("assessment.json")
    if as_json:
        show.as_json({"run": str(run.folder), "metrics": result, "assessment": assessment})
        return
    names = ["oa", "miou", "macro_f1"]
    rows = [[model, *(one["scores"][name] for name in names)] for model, one in result["models"].items()]
    show.table(rows, ["model", *names], title="scores on held-out blocks")
    _tell_areas(assessment)
    typer.echo("wrote")
    for path, what in (
        ("image.tif", "the generated image"),
        ("labels.tif", "its labels"),
        ("covermap.yaml", "the config: change it and call covermap run"),
        ("demo/model", "the trained model"),
        ("demo/map.tif", "the map: opens in QGIS with colours and names"),
        ("truth.tif", "what is really there, known of a generated scene only"),
        (f"demo/{assessment['points']}", "points drawn at random, their reference read from truth.tif"),
        ("demo/assessment.json", "areas and accuracies with intervals, as covermap assess tells them"),
        ("demo/report.html", "the report: open it in a browser"),
    ):
        typer.echo(f"  {out}/{path}  {what}")


def _tell_areas(assessment: dict[str, Any]) -> None:
    """Print what the map counts, what a sample says and what is true, side by side."""
    rows = assessment["areas"]
    each = [[row[key] for key in ("name", "mapped_ha", "area_ha", "ci95_ha", "true_ha")] for row in rows]
    title = f"areas by {assessment['num_points']} points of the map"
    show.table(each, ["class", "mapped ha", "area ha", "± ci95", "true ha"], title=title)
    known = [row for row in rows if row["low_ha"] is not None]
    hold = sum(row["low_ha"] <= row["true_ha"] <= row["high_ha"] for row in known)
    apart = sum(not row["low_ha"] <= row["mapped_ha"] <= row["high_ha"] for row in known)
    typer.echo(f"{hold} of {len(rows)} intervals hold the true area; {apart} counted areas lie outside of theirs")
