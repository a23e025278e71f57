"""`covermap info`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import sensors


def info(
    files: Annotated[list[str], typer.Argument(help="Rasters, folders of single-band files, or vector files.")],
    sensor: Annotated[
        str | None, typer.Option(help="Sensor that names the bands, e.g. sentinel2.", autocompletion=sensors)
    ] = None,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Show bands, CRS, pixel size, nodata, value ranges, classes and the likely Sentinel-2 offset of files.

    Examples: covermap info image.tif labels.tif · covermap info points.gpkg --json
    """
    from covermap.verbs.info import info as describe

    found = [describe(file, sensor=sensor) for file in files]
    if as_json:
        show.as_json(found if len(found) > 1 else found[0])
        return
    for one in found:
        tables = {key: value for key, value in one.items() if isinstance(value, list)}
        for key, value in one.items():
            if key not in tables and value is not None:
                typer.echo(f"{key:>12}  {value}")
        for key, rows in tables.items():
            if rows:
                show.table([list(row.values()) for row in rows], list(rows[0]), title=key)
        typer.echo("")
