"""`covermap assess`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show


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
) -> None:
    """Tell a map's accuracy and the areas of its classes, with 95 % intervals, from points of a probability sample.

    Of a map in a run's folder the result is kept beside it: covermap report RUN shows it.

    Examples: covermap assess map.tif sample.gpkg · covermap assess map.tif s.csv --zones districts.gpkg --json
    """
    from covermap.verbs.assess import assess as work

    found = work(
        source, points, design=design, zones=zones, zone_field=zone_field, skip_empty=skip_empty, out=out,
        overwrite=overwrite,
    )  # fmt: skip
    if not kappa:
        del found["kappa"]
    if as_json:
        show.as_json(found)
    else:
        tell(found)


def tell(found: dict[str, Any]) -> None:
    """Print areas, accuracies and the error matrix."""
    matrix = found["matrix"]
    rows = [[name, *counts] for name, counts in zip(matrix["names"], matrix["counts"], strict=True)]
    show.table(rows, ["map \\ reference", *matrix["names"]], title=f"{found['num_points']:,} points, {found['method']}")
    users = {row["code"]: row for row in found["users"]}
    producers = {row["code"]: row for row in found["producers"]}
    rows = [
        [row["name"], _with(users[row["code"]], "value", "ci95", 3), _with(producers[row["code"]], "value", "ci95", 3),
         f"{row['mapped_ha']:,.1f}", _with(row, "area_ha", "ci95_ha", 1)]
        for row in found["areas"]
    ]  # fmt: skip
    show.table(rows, ["class", "user's accuracy", "producer's accuracy", "mapped ha", "area ha (95 %)"])
    typer.echo(f"overall accuracy {_with(found['overall'], 'value', 'ci95', 3)}, "
               f"of the points as they are {found['overall']['unweighted']:.3f}; {found['estimator']}")  # fmt: skip
    if found.get("kappa") is not None:
        typer.echo(f"kappa {found['kappa']:.3f} (without an interval; it says nothing that the matrix does not)")
    if "zones" in found:
        rows = [[row["zone"], row["name"], f"{row['mapped_ha']:,.1f}", _with(row, "area_ha", "ci95_ha", 1),
                 row["num_points"]] for row in found["zones"]]  # fmt: skip
        show.table(rows, ["zone", "class", "mapped ha", "area ha (95 %)", "points"])
    said = [
        row["note"] for key in ("areas", "users", "producers", "zones") for row in found.get(key, ()) if "note" in row
    ]
    for note in dict.fromkeys([*found["notes"], *said]):
        typer.echo(f"note: {note}")
    for path in found.get("files", ()):
        typer.echo(f"wrote {path}")


def _with(row: dict[str, Any], value: str, half: str, digits: int) -> str:
    """Value ± half the width of its interval."""
    if row[value] is None:
        return "-"
    ends = "not estimable" if row[half] is None else f"± {row[half]:,.{digits}f}"
    return f"{row[value]:,.{digits}f} {ends}"
