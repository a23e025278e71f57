"""`covermap legend`: list, show and convert legends."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show

app = typer.Typer(help="List, show and convert legends (classes with codes, names and colours).", no_args_is_help=True)


@app.command("list")
def list_(as_json: show.AsJson = False) -> None:
    """The legends that come with covermap. Example: covermap legend list"""
    from covermap.core.legend import load_legend, shipped

    rows = [{"name": n, "classes": len(load_legend(n)), "title": load_legend(n).title} for n in shipped()]
    if as_json:
        show.as_json(rows)
    else:
        show.table([list(row.values()) for row in rows], list(rows[0]))


@app.command("show")
def show_(
    legend: Annotated[str, typer.Argument(help="Shipped name, or file: .yaml .qml .clr .csv .aux.xml.")],
    as_json: show.AsJson = False,
) -> None:
    """Codes, names and colours of one legend. Example: covermap legend show esa_worldcover"""
    from covermap.geo.legend_files import read_legend

    found = read_legend(legend)
    if as_json:
        show.as_json(found.to_dict())
        return
    show.table([[c.code, c.name, c.colour] for c in found.classes], ["code", "name", "colour"], title=found.title)
    typer.echo(f"nodata: {found.nodata}   ignored: {list(found.ignore)}")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Shipped name, or file: .yaml .qml .clr .csv .aux.xml.")],
    out: Annotated[str, typer.Argument(help="File to write; its ending says the format.")],
    overwrite: show.Overwrite = False,
) -> None:
    """Convert a legend between YAML, QGIS style, colour table, CSV and raster attribute table.

    Example: covermap legend convert esa_worldcover worldcover.qml
    """
    from covermap.core.output import claim
    from covermap.geo.legend_files import read_legend, write_legend

    claim(out, overwrite=overwrite)
    typer.echo(str(write_legend(read_legend(source), out)))
