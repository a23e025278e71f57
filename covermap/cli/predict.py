"""`covermap predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covermap.cli import show


def predict(
    model: Annotated[str, typer.Argument(help="Model folder, or a run folder.", metavar="MODEL")],
    image: Annotated[str, typer.Argument(help="Raster, folder of single-band files, or URL.", metavar="IMAGE")],
    out: Annotated[str, typer.Argument(help="Map to write, .tif.", metavar="OUT.tif")],
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="SENSOR=PATH", help="Further sensors that the model takes.")
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Band names in file order, if the file has none.")] = None,
    sensor: Annotated[str | None, typer.Option(help="Sensor of IMAGE; default: the model's first.")] = None,
    date: Annotated[str | None, typer.Option(help="Acquisition date, YYYY-MM-DD, kept in the map.")] = None,
    aoi: Annotated[str | None, typer.Option(help="Polygons: only they are mapped.")] = None,
    size: Annotated[int | None, typer.Option(help="Window side in px.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Overlap of windows in px.")] = None,
    block: Annotated[int, typer.Option(help="Rows of a block; it has twice as many columns.")] = 2048,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: one for each core.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write all class probabilities.")] = False,
    no_confidence: Annotated[bool, typer.Option("--no-confidence", help="Do not write the confidence layer.")] = False,
    any_gsd: Annotated[bool, typer.Option("--any-gsd", help="Accept another pixel size than the model's.")] = False,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Map a scene. The map opens in QGIS with colours and names; an interrupted call is continued by the same call.

    Examples: covermap predict runs/gewata image.tif map.tif ·
    covermap predict model/ image.tif map.tif --aoi district.gpkg --probabilities --workers 2
    """
    from covermap.core.config import ImageConfig, PredictConfig
    from covermap.core.errors import ConfigError
    from covermap.verbs.predict import predict as work

    folder = Path(model) / "model" if (Path(model) / "model" / "config.json").is_file() else Path(model)
    images = [ImageConfig(path=image, sensor=sensor, date=date)]
    for text in add or ():
        name, equals, path = text.partition("=")
        if not equals:
            raise ConfigError(
                f"--add {text!r} is not of the form SENSOR=PATH", fix="write for example --add dem=dem.tif"
            )
        images.append(ImageConfig(path=path, sensor=name))
    settings = PredictConfig(
        size_px=size, overlap_px=overlap, block_px=block, workers=workers, device=device,
        probabilities=probabilities, confidence=not no_confidence,
    )  # fmt: skip
    names = [name.strip() for name in bands.split(",")] if bands else None
    with show.progress("mapping", quiet=quiet or dry_run) as tick:
        done = work(
            folder, images, out, settings=settings, bands=names, aoi=aoi, any_gsd=any_gsd,
            overwrite=overwrite, dry_run=dry_run, on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json(
            {"map": done.path, "files": list(done.files), "areas": list(done.areas), "blocks": done.num_blocks,
             "resumed_blocks": done.num_resumed, "seconds": done.seconds, "km2_per_s": done.km2_per_s,
             "notes": list(done.notes)}
        )  # fmt: skip
        return
    for note in done.notes:
        typer.echo(f"note: {note}")
    if dry_run:
        typer.echo(f"{done.num_blocks} blocks to do; the image and the model fit")
        return
    if done.areas:
        show.table([list(row.values()) for row in done.areas], list(done.areas[0]), title="mapped area (pixel counts)")
    typer.echo("wrote " + ", ".join(str(file) for file in done.files))
    show.say(
        f"{done.seconds:.1f} s, {done.km2_per_s:.2f} km2/s, {done.num_resumed} of {done.num_blocks} blocks were there"
    )
