"""`covermap rank`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show

Side = Annotated[int, typer.Option(help="Side of a place in px.")]
Top = Annotated[int, typer.Option(help="Places to print.")]


def rank(
    source: Annotated[str, typer.Argument(help="Map of classes.", metavar="MAP.tif")],
    out: Annotated[str, typer.Argument(help="Table to write.", metavar="OUT.csv")],
    name: Annotated[str, typer.Option("--class", help="Class, or several with commas, that is looked for.")],
    side: Side = 128,
    top: Top = 10,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Rank the places of a map by what they hold of a class: a table, and squares for a GIS.

    Examples: covermap rank map.tif places.csv --class excavation · covermap rank map.tif p.csv --class flood --side 64
    """
    from covermap.verbs.rank import rank as work

    with show.progress("reading") as tick:
        done = work(source, out, classes=show.listed(name) or [], side_px=side, overwrite=overwrite, on_progress=tick)
    if as_json:
        show.as_json({"files": list(done.files), "places": done.rows, "num_places": done.num_places})
        return
    tell(done.rows, done.num_places, name, top)
    show.wrote(done.files)


def tell(rows: list[dict[str, Any]], num_places: int, name: str, top: int) -> None:
    """Print the first places, and how many hold anything."""
    if rows and top > 0:
        shown = [[f"{v:.5f}" if key in ("lat", "lon") and v else v for key, v in row.items()] for row in rows[:top]]
        show.table(shown, list(rows[0]), title=f"where most {name} is")
    typer.echo(f"{len(rows)} of {num_places} places hold {name}")
