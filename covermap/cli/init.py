"""`covermap init`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import legends, sensors


def init(
    image: Annotated[str, typer.Argument(help="Raster, or folder of single-band files.")],
    labels: Annotated[str, typer.Argument(help="Raster of class codes, polygons or points.")],
    out: Annotated[str, typer.Option("--output", "-o", help="The config to write.")] = "covermap.yaml",
    field: Annotated[str | None, typer.Option(help="Class field of polygons or points.")] = None,
    layer: show.Layer = None,
    epsg: show.Epsg = None,
    sensor: Annotated[
        str | None, typer.Option(help="Sensor of the image, e.g. sentinel2.", autocompletion=sensors)
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Band names in file order, e.g. blue,green,red,nir.")] = None,
    legend: Annotated[
        str | None, typer.Option(help="Shipped legend or YAML file; default: from the labels.", autocompletion=legends)
    ] = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Look at an image and its labels and write a commented config for them.

    Examples: covermap init image.tif labels.tif --sensor sentinel2 · covermap init image.tif points.gpkg --field class
    """
    from covermap.verbs.init import init as write

    summary = write(
        image, labels, out, field=field, layer=layer, epsg=epsg, sensor=sensor, bands=show.listed(bands),
        legend=legend, overwrite=overwrite,
    )  # fmt: skip
    show.lines([*summary, f"wrote {out}; next: covermap check {out}"], out)
