"""`covermap predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from covermap.cli import show

if TYPE_CHECKING:
    from covermap.core.config import ImageConfig
    from covermap.verbs.prediction import Prediction

Model = Annotated[str, Argument(help="Model or run folder, or hf://OWNER/NAME[@REVISION].", metavar="MODEL")]
Image = Annotated[
    str, Argument(help="Raster, folder of bands, URL, or a SAFE or Landsat product, also zip or tar.", metavar="IMAGE")
]
Out = Annotated[str, Argument(help="Map to write, .tif.", metavar="OUT.tif")]
Add = Annotated[
    list[str] | None, Option("--add", metavar="SENSOR=PATH[@DATE]", help="Further sensors or dates the model takes.")
]
Bands = Annotated[str | None, Option(help="Band names in file order, if the file has none.")]
Sensor = Annotated[str | None, Option(help="Sensor of IMAGE; default: the model's first.")]
Date = Annotated[str | None, Option(help="Acquisition date of IMAGE, YYYY-MM-DD; kept in the map.")]
Clouds = Annotated[str, Option(help="Cloudy pixels are nodata: auto (SCL, QA_PIXEL of a product), none, or a file.")]
Aoi = Annotated[str | None, Option(help="Polygons: only they are mapped.")]
Size = Annotated[int | None, Option(help="Window side in px.")]
Overlap = Annotated[int | None, Option(help="Overlap of windows in px.")]
Block = Annotated[int, Option(help="Rows of a block; it has twice as many columns.")]
Batch = Annotated[int, Option("--batch-size", help="Windows that go through the network at once.")]
Workers = Annotated[int | None, Option(help="Worker threads; default: one for each core.")]
Device = Annotated[str, Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, Option(help="float32, bf16, or auto: bf16 where the device computes in it.")]
Probabilities = Annotated[bool, Option("--probabilities", help="Also write all class probabilities.")]
NoConfidence = Annotated[bool, Option("--no-confidence", help="Do not write the confidence layer.")]
AnyGsd = Annotated[bool, Option("--any-gsd", help="Accept another pixel size than the model's.")]


def predict(
    model: Model,
    image: Image,
    out: Out,
    add: Add = None,
    bands: Bands = None,
    sensor: Sensor = None,
    date: Date = None,
    clouds: Clouds = "auto",
    aoi: Aoi = None,
    size: Size = None,
    overlap: Overlap = None,
    block: Block = 2048,
    batch_size: Batch = 4,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "float32",
    probabilities: Probabilities = False,
    no_confidence: NoConfidence = False,
    any_gsd: AnyGsd = False,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Map a scene. The map opens in QGIS with colours and names; an interrupted call is continued by the same call.

    Examples: covermap predict runs/gewata image.tif map.tif ·
    covermap predict model/ image.tif map.tif --aoi district.gpkg --probabilities --workers 2
    """
    from covermap.core.config_file import parse_section
    from covermap.core.train_config import PredictConfig
    from covermap.verbs.predict import predict as work

    chosen = {
        "size_px": size, "overlap_px": overlap, "block_px": block, "batch_size": batch_size, "workers": workers,
        "device": device, "precision": precision, "probabilities": probabilities, "confidence": not no_confidence,
    }  # fmt: skip
    settings = parse_section(PredictConfig, chosen, where="covermap predict")
    with show.progress("mapping", quiet=quiet or dry_run) as tick:
        done = work(
            model, _images(image, sensor, date, add or (), clouds), out, settings=settings,
            bands=show.listed(bands), aoi=aoi,
            any_gsd=any_gsd, overwrite=overwrite, dry_run=dry_run, on_progress=tick,
        )  # fmt: skip
    _tell(done, as_json=as_json, dry_run=dry_run)


def _images(
    image: str, sensor: str | None, date: str | None, add: Sequence[str], clouds: str = "auto"
) -> list[ImageConfig]:  # fmt: skip
    """One entry for each image; a cloud file is IMAGE's alone, none is for all."""
    from covermap.core.config import ImageConfig, split_date
    from covermap.core.config_file import parse_section
    from covermap.core.errors import ConfigError

    first = {"path": image, "sensor": sensor, "date": date, "clouds": clouds}
    images = [parse_section(ImageConfig, first, where="covermap predict")]
    for text in add:
        name, equals, path = text.partition("=")
        if not equals:
            raise ConfigError(
                f"--add {text!r} is not of the form SENSOR=PATH[@DATE]", fix="write for example --add dem=dem.tif"
            )
        stem, day = split_date(path)
        images.append(
            parse_section(
                ImageConfig,
                {"path": stem, "date": day, "sensor": name, "clouds": "none" if clouds == "none" else "auto"},
                where="covermap predict",
            )
        )
    return images


def _tell(done: Prediction, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        show.as_json(
            {"map": done.path, "files": list(done.files), "areas": done.areas, "blocks": done.num_blocks,
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
