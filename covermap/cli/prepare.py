"""`covermap prepare`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show


def prepare(
    source: Annotated[
        list[str],
        typer.Argument(help="Image, folder of bands, SAFE or Landsat product, labels; several with --composite."),
    ],
    out: Annotated[str, typer.Argument(help="GeoTIFF to write.")],
    like: Annotated[str | None, typer.Option(help="Raster whose grid is taken.")] = None,
    gsd: Annotated[float | None, typer.Option(help="Pixel size in metres, on the source's own grid.")] = None,
    resampling: Annotated[
        str, typer.Option(help="Images: bilinear, nearest, cubic, average. Labels: mode, nearest, weighted_mode.")
    ] = "bilinear",
    field: Annotated[str | None, typer.Option(help="Class field of polygons or points.")] = None,
    layer: show.Layer = None,
    epsg: show.Epsg = None,
    legend: Annotated[str | None, typer.Option(help="Legend of labels; default: from the file.")] = None,
    sensor: Annotated[str | None, typer.Option(help="Sensor that names the bands.")] = None,
    bands: Annotated[str | None, typer.Option(help="Band names in file order.")] = None,
    clouds: Annotated[
        str, typer.Option(help="Cloudy pixels are nodata: auto (of a product), none, or a file.")
    ] = "auto",
    composite: Annotated[
        str | None, typer.Option(help="Several dates (PATH or PATH@DATE) as one: median, mean, max-ndvi.")
    ] = None,
    dates: Annotated[str | None, typer.Option(help="With --composite: only this period, first/last.")] = None,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    quiet: show.Quiet = False,
) -> None:
    """Bring an image, several dates of it or labels onto one grid as a single GeoTIFF.

    Examples: covermap prepare labels.tif out.tif --like image.tif --resampling mode ·
    covermap prepare bands/ image.tif --sensor sentinel2 ·
    covermap prepare fields.gpkg labels.tif --like image.tif --field crop ·
    covermap prepare s2/*.SAFE summer.tif --composite median --dates 2023-06-01/2023-08-31
    """
    from covermap.verbs.prepare import prepare as align

    with show.progress("aligning", quiet=quiet or dry_run) as tick:
        told = align(
            source, out, like=like, gsd_m=gsd, resampling=resampling, field=field, layer=layer, epsg=epsg,
            legend=legend, sensor=sensor, bands=show.listed(bands), clouds=clouds, composite=composite, dates=dates,
            overwrite=overwrite, dry_run=dry_run,
            on_progress=tick,
        )  # fmt: skip
    for line in told:
        typer.echo(line)
