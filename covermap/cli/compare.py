"""`covermap compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from covermap.cli import show
from covermap.cli.completion import legends

if TYPE_CHECKING:
    from covermap.verbs.comparison import Comparison

Source = Annotated[str, Argument(help="Map of classes.", metavar="MAP.tif")]
Other = Annotated[str, Argument(help="Map to compare with, or the folder of its tiles.", metavar="OTHER.tif")]
Out = Annotated[str | None, Argument(help="Folder for the tables; without it they are only printed.", metavar="OUT")]
As = Annotated[
    str | None, Option("--as", help="Legend to compare in, such as ipcc.", autocompletion=legends, metavar="LEGEND")
]
Stated = Annotated[
    str | None,
    Option("--legend", help="Legend of MAP, a name or file, where it does not say it.", autocompletion=legends),
]
OtherStated = Annotated[
    str | None, Option(help="Legend of OTHER: esa_worldcover, esri_io, dynamic_world, ...", autocompletion=legends)
]
Own = Annotated[list[str] | None, Option("--crosswalk", help="Crosswalk of your own (YAML); may be repeated.")]
WithRaster = Annotated[bool, Option("--raster", help="Also write OUT/agreement.tif.")]


def compare(
    source: Source,
    other: Other,
    out: Out = None,
    target: As = None,
    legend: Stated = None,
    other_legend: OtherStated = None,
    crosswalk: Own = None,
    raster: WithRaster = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Say how far a map agrees with another one, such as WorldCover: by class, in hectares, in quantity and in place.

    Legends are matched by crosswalks (covermap legend crosswalk A B). Neither map is the truth: this is no accuracy.

    Examples: covermap compare map.tif worldcover/ --other-legend esa_worldcover ·
    covermap compare map.tif clc.tif out/ --other-legend corine --as ipcc --raster
    """
    from covermap.verbs.compare import compare as work

    with show.progress("compared") as tick:
        found = work(
            source, other, out, target=target, legend=legend, other_legend=other_legend, crosswalks=crosswalk or (),
            raster=raster, overwrite=overwrite, on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json(found.to_dict())
    else:
        _tell(found)


def _tell(found: Comparison) -> None:
    show.draw(found.table)
    typer.echo(found.sentence)
    for side, classes in found.lost.items():
        if classes:
            listed = ", ".join(f"{each['name']} {each['ha']:,.1f} ha" for each in classes)
            typer.echo(f"no counterpart ({side}): {listed}")
    show.notes(found.notes)
    if found.files:
        show.wrote(found.files)
