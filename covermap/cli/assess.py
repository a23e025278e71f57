"""`covermap assess`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show

if TYPE_CHECKING:
    from covermap.core.results import Assessed


def assess(
    source: Annotated[str, typer.Argument(help="Map of classes.", metavar="MAP.tif")],
    points: Annotated[str, typer.Argument(help="Points with their reference: .gpkg or .csv.", metavar="SAMPLE")],
    design: Annotated[str | None, typer.Option(help="How they were drawn; default: SAMPLE.design.json.")] = None,
    zones: Annotated[str | None, typer.Option(help="Polygons whose areas are told too.")] = None,
    zone_field: Annotated[str | None, typer.Option(help="Field of the zones' names.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the tables as CSV.")] = None,
    skip_empty: Annotated[bool, typer.Option("--skip-empty", help="Leave out points without a reference.")] = False,
    kappa: Annotated[bool, typer.Option("--kappa", help="Also Cohen's kappa.")] = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Tell a map's accuracy and the areas of its classes, with 95 % intervals, from points of a probability sample.

    Of a map in a run's folder the result is kept beside it: covermap report RUN shows it.

    Examples: covermap assess map.tif sample.gpkg · covermap assess map.tif s.csv --zones districts.gpkg --json
    """
    from covermap.verbs.assess import assess as work

    with show.progress("counting") as tick:
        found = work(
            source, points, design=design, zones=zones, zone_field=zone_field, skip_empty=skip_empty, out=out,
            overwrite=overwrite, on_progress=tick,
        )  # fmt: skip
    if not kappa:
        del found["kappa"]
    if as_json:
        show.as_json(found)
    else:
        tell(found)


def tell(found: Assessed) -> None:
    """Print the error matrix, areas and accuracies, and those of zones."""
    matrix, areas, *zones = found.tables
    show.draw(matrix)
    show.draw(areas)
    typer.echo(found.sentence)
    if found.get("kappa") is not None:
        typer.echo(f"kappa {found['kappa']:.3f} (without an interval; it says nothing that the matrix does not)")
    for table in zones:
        show.draw(table)
    show.notes(found.all_notes)
    show.wrote(found.get("files", ()))
