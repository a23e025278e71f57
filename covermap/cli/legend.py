"""`covermap legend`: list, show, convert and match legends."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import legends

app = typer.Typer(
    help="Legends (classes with codes, names, colours): list, show, convert, match.", no_args_is_help=True
)


@app.command("list")
def list_(as_json: show.AsJson = False, quiet: show.Quiet = False) -> None:
    """The legends that come with covermap. Example: covermap legend list"""
    from covermap.core.legend import load_legend, shipped

    rows = [{"name": n, "classes": len(load_legend(n)), "title": load_legend(n).title} for n in shipped()]
    if as_json:
        show.as_json(rows)
    else:
        show.table([list(row.values()) for row in rows], list(rows[0]))


@app.command("show")
def show_(
    legend: Annotated[
        str, typer.Argument(help="Shipped name, or file: .yaml .qml .clr .csv .aux.xml .sld.", autocompletion=legends)
    ],
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
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
    source: Annotated[
        str, typer.Argument(help="Shipped name, or file: .yaml .qml .clr .csv .aux.xml .sld.", autocompletion=legends)
    ],
    out: Annotated[str, typer.Argument(help="File to write; its ending says the format.")],
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Convert a legend between YAML, QGIS style, colour table, CSV, raster attribute table and SLD.

    What the form cannot hold is said. Example: covermap legend convert esa_worldcover worldcover.qml
    """
    from covermap.core.output import claim
    from covermap.geo.legend_files import not_held, read_legend, write_legend

    found = read_legend(source)
    lost = not_held(found, out)
    claim(out, overwrite=overwrite)
    written = write_legend(found, out)
    if as_json:
        show.as_json({"file": str(written), "not_held": lost})
        return
    typer.echo(str(written))
    if lost:
        show.say(f"note: {out} does not hold {'; '.join(lost)}")


@app.command()
def colours(
    legend: Annotated[
        str, typer.Argument(help="Shipped name, or file: .yaml .qml .clr .csv .aux.xml .sld.", autocompletion=legends)
    ],
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Which colours of a legend are easily confused, also with a deficiency of colour vision.

    Example: covermap legend colours corine
    """
    from covermap.core.colour_vision import alike
    from covermap.geo.legend_files import read_legend

    found = read_legend(legend)
    rows = alike(found)
    if as_json:
        show.as_json(rows)
    elif rows:
        show.table([list(row.values()) for row in rows], list(rows[0]), title=f"{found.name}: easily confused")
    else:
        typer.echo(f"{found.name}: all {len(found)} colours can be told apart, whatever the colour vision")


Own = Annotated[list[str] | None, typer.Option("--crosswalk", help="Crosswalk of your own (YAML); may be repeated.")]


@app.command()
def crosswalk(
    source: Annotated[
        str, typer.Argument(help="Legend to come from: a shipped name or file.", autocompletion=legends, metavar="FROM")
    ],
    target: Annotated[str, typer.Argument(help="Legend to go to.", autocompletion=legends, metavar="TO")],
    own: Own = None,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Which class of one legend is which class of another, and what has no counterpart.

    Where only the way back is known, or one over a third legend, it is read so, and the route is printed.
    Examples: covermap legend crosswalk corine ipcc · covermap legend crosswalk esri_io esa_worldcover
    """
    from covermap.core.crosswalk import find_crosswalk, read_crosswalk
    from covermap.geo.legend_files import read_legend

    found = find_crosswalk(read_legend(source), read_legend(target), [read_crosswalk(path) for path in own or ()])
    if as_json:
        about = {"from": found.source.name, "to": found.target.name, "route": found.route, "source": found.basis}
        show.as_json(about | {"classes": found.rows})
        return
    rows = [[r["code"], r["name"], r["to_code"], r["to_name"] or "none", r["note"]] for r in found.rows]
    show.table(rows, ["code", found.source.name, "to", found.target.name, "note"], title=" > ".join(found.route))
    typer.echo(f"source: {found.basis or 'the same legend'}")


@app.command()
def apply(
    source: Annotated[str, typer.Argument(help="Map of classes, or the folder of its tiles.", metavar="MAP.tif")],
    out: Annotated[str, typer.Argument(help="Map to write.", metavar="OUT.tif")],
    to: Annotated[
        str | None, typer.Option(help="Legend to bring it to; default: that of --crosswalk.", autocompletion=legends)
    ] = None,
    legend: Annotated[
        str | None, typer.Option(help="Legend of MAP, where it does not say it.", autocompletion=legends)
    ] = None,
    own: Own = None,
    date: Annotated[str | None, typer.Option(help="Acquisition date, where MAP does not say it.")] = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Write a map in another legend by a crosswalk; classes without a counterpart become nodata, and are listed.

    Examples: covermap legend apply map.tif ipcc.tif --to ipcc ·
    covermap legend apply wc.tif esri.tif --legend esa_worldcover --to esri_io
    """
    from covermap.verbs.reclassify import reclassify

    with show.progress("read") as tick:
        done = reclassify(
            source,
            out,
            target=to,
            legend=legend,
            crosswalks=own or (),
            date=date,
            overwrite=overwrite,
            on_progress=tick,
        )
    summary = done.summary
    if as_json:
        rows = zip(summary.legend.classes, summary.num_pixels, summary.areas_ha, strict=True)
        areas = [{"code": c.code, "class": c.name, "pixels": n, "mapped_ha": ha} for c, n, ha in rows]
        show.as_json(
            {
                "files": summary.files,
                "route": done.crosswalk.route,
                "areas": areas,
                "no_counterpart": done.lost,
                "notes": [*done.notes, *summary.notes],
            }
        )
        return
    typer.echo(f"{out}: {' > '.join(done.crosswalk.route)}")
    for each in done.lost:
        typer.echo(f"no counterpart: {each['code']} {each['name']}, {each['pixels']:,} px are nodata")
    show.notes((*done.notes, *summary.notes))
