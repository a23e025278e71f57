"""`covermap demo`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show


def demo(
    out: Annotated[str, typer.Argument(help="Folder to write into.", metavar="OUT")],
    seed: Annotated[int, typer.Option(help="Another seed gives another landscape.")] = 0,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Instead: a few generated scenes in a data set's layout (covermap models list), to try a recipe."
        ),
    ] = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Generate a scene, train on part of it, map two dates of it, score, assess, report; offline, about a minute.

    Examples: covermap demo demo · covermap demo mini/wusu --layout wusu
    """
    if layout is not None:
        return _miniature(layout, out, seed=seed, overwrite=overwrite, as_json=as_json)
    from covermap.verbs.demo import demo as work

    with show.progress("training") as tick:
        run = work(out, seed=seed, overwrite=overwrite, say=show.say, on_progress=tick)
    result = run.read_json("metrics.json")
    assessment, of_change = (run.read_json(name) for name in ("assessment.json", "changed.assessment.json"))
    if as_json:
        show.as_json({"run": str(run.folder), "metrics": result, "assessment": assessment, "change": of_change})
        return
    names = ["oa", "miou", "macro_f1"]
    rows = [[model, *(one["scores"][name] for name in names)] for model, one in result["models"].items()]
    show.table(rows, ["model", *names], title="scores on held-out blocks")
    _tell_areas(assessment, "areas")
    _tell_areas(of_change, "change")
    typer.echo("wrote")
    for path, what in (
        ("image_date1.tif", "the generated image; image_date2.tif: four years later"),
        ("labels_date1.tif", "its labels; labels_date2.tif: nothing learns from them"),
        ("covermap.yaml", "the config: change it and call covermap run"),
        ("demo/model", "the trained model"),
        ("demo/map.tif", "the map: opens in QGIS with colours and names; map_date2.tif: that of the later date"),
        ("demo/change.tif", "what became what, with transitions.csv, matrix.csv, classes.csv; changed.tif: only where"),
        (
            "truth_date1.tif",
            "what is really there, known of a generated scene only; also truth_date2.tif, truth_change",
        ),
        (f"demo/{assessment['points']}", "points drawn at random, their reference read from truth_date1.tif"),
        (f"demo/{of_change['points']}", "the same of changed.tif, to estimate the area of change"),
        ("demo/assessment.json", "areas and accuracies with intervals, as covermap assess tells them"),
        ("demo/changed.assessment.json", "the same of the area of change"),
        ("demo/report.html", "the report: open it in a browser"),
    ):
        typer.echo(f"  {out}/{path}  {what}")
    show.say(f"next: look at it with covermap view {out} (extra web)")


def _miniature(layout: str, out: str, *, seed: int, overwrite: bool, as_json: bool) -> None:
    """Write a data set's miniature, and tell where."""
    from covermap.core.errors import ConfigError
    from covermap.verbs.demo import write_miniature

    if overwrite:
        raise ConfigError("--overwrite does not go with --layout", fix="choose another folder")
    root = write_miniature(layout, out, seed=seed)
    if as_json:
        show.as_json({"root": str(root.resolve())})
    else:
        typer.echo(f"{root}")
        show.say(f"next: a recipe with --set data.root={root.resolve()}, and what its line `small` says")


def _tell_areas(assessment: dict[str, Any], what: str) -> None:
    """Print what the map counts, what a sample says and what is true, side by side."""
    rows = assessment["areas"]
    each = [[row[key] for key in ("name", "mapped_ha", "area_ha", "ci95_ha", "true_ha")] for row in rows]
    title = f"{what} by {assessment['num_points']} points of the map"
    show.table(each, ["class", "mapped ha", "area ha", "± ci95", "true ha"], title=title)
    known = [row for row in rows if row["low_ha"] is not None]
    hold = sum(row["low_ha"] <= row["true_ha"] <= row["high_ha"] for row in known)
    apart = sum(not row["low_ha"] <= row["mapped_ha"] <= row["high_ha"] for row in known)
    typer.echo(f"{hold} of {len(rows)} intervals hold the true area; {apart} counted areas lie outside of theirs")
