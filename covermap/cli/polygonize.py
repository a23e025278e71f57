"""`covermap polygonize`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.sieve import Source, tell_changed

Out = Annotated[str, typer.Argument(help="Polygons to write, .gpkg or .parquet.", metavar="OUT.gpkg")]
MinArea = Annotated[str | None, typer.Option(help="Smaller patches go to their neighbours first: 1ha, 500m2 or 9px.")]
Simplify = Annotated[
    float | None, typer.Option(metavar="METRES", help="Simplify outlines, with borders that neighbours share.")
]
Classes = Annotated[str | None, typer.Option(help="Only these classes, with commas.")]


def polygonize(
    source: Source,
    out: Out,
    min_area: MinArea = None,
    simplify: Simplify = None,
    classes: Classes = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Turn the patches of a map into polygons with code, name and area_ha; QGIS shows them in the map's colours.

    Examples: covermap polygonize map.tif polygons.gpkg --min-area 0.5ha --simplify 15 ·
    covermap polygonize map.tif water.gpkg --classes water
    """
    from covermap.verbs.polygonize import polygonize as work

    with show.progress("reading") as tick:
        done = work(
            source, out, min_area=min_area, simplify_m=simplify, classes=show.listed(classes), overwrite=overwrite,
            on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json(
            {"polygons": done.path, "files": list(done.files), "classes": done.rows,
             "changed": [change.to_dict() for change in done.changes], "notes": list(done.notes)}
        )  # fmt: skip
        return
    for change in done.changes:
        tell_changed(change)
    show.table([list(row.values()) for row in done.rows], list(done.rows[0]), title="polygons")
    show.notes(done.notes)
    show.wrote(done.files)
