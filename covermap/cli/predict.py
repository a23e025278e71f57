"""`covermap predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from covermap.cli import show
from covermap.cli.completion import one_of, sensors

if TYPE_CHECKING:
    from covermap.core.config import ImageConfig
    from covermap.verbs.prediction import Prediction

Model = Annotated[str, Argument(help="Model or run folder, or hf://OWNER/NAME\\[@REVISION].", metavar="MODEL")]
Image = Annotated[
    str,
    Argument(
        help="A scene: raster, VRT, URL, SAFE or Landsat product (also zip, tar), folder of bands. Many: a pattern in "
        "quotes; a folder of rasters of the same bands, of products or of folders of bands; or STAC items: "
        "catalog.json, a saved search, an item, a folder or pattern of them.",
        metavar="IMAGE",
    ),
]
Out = Annotated[str, Argument(help="Map to write, .tif; or a folder, for a map of each scene.", metavar="OUT")]
Add = Annotated[
    list[str] | None, Option("--add", metavar="SENSOR=PATH[@DATE]", help="Further sensors or dates the model takes.")
]
Bands = Annotated[str | None, Option(help="Band names in file order, if the file has none.")]
Sensor = Annotated[str | None, Option(help="Sensor of IMAGE; default: the model's first.", autocompletion=sensors)]
Date = Annotated[str | None, Option(help="Acquisition date of IMAGE, YYYY-MM-DD; kept in the map.")]
Clouds = Annotated[str, Option(help="Cloudy pixels are nodata: auto (SCL, QA_PIXEL of a product), none, or a file.")]
Aoi = Annotated[str | None, Option(help="Polygons: only they are mapped.")]
Size = Annotated[int | None, Option(help="Window side in px.")]
Overlap = Annotated[int | None, Option(help="Overlap of windows in px.")]
Block = Annotated[int, Option(help="Rows of a block; it has twice as many columns.")]
Batch = Annotated[int, Option("--batch-size", help="Windows that go through the network at once.")]
Engine = Annotated[
    str,
    Option(
        help="Who computes blocks: threads, serial, processes, or ray (RAY_ADDRESS).",
        autocompletion=one_of("threads", "serial", "processes", "ray"),
    ),
]
Workers = Annotated[int | None, Option(help="Workers; default: one for each core.")]
Shard = Annotated[
    str | None,
    Option("--shard", metavar="I/N", help="Only every N-th block; when all parts are done, call it without."),
]
Device = Annotated[str, Option(help="auto, cpu or cuda.", autocompletion=one_of("auto", "cpu", "cuda"))]
Precision = Annotated[
    str,
    Option(
        help="float32, bf16, or auto: bf16 where the device computes in it.",
        autocompletion=one_of("float32", "bf16", "auto"),
    ),
]
Tta = Annotated[
    str,
    Option(
        help="Test-time augmentation: none, flips (4 x the time) or d4 (8 x).",
        autocompletion=one_of("none", "flips", "d4"),
    ),
]
Entropy = Annotated[bool, Option("--entropy", help="Also write how undecided the probabilities are.")]
Sets = Annotated[bool, Option("--sets", help="Also which classes cannot be left out, and how many (conformal sets).")]
Applicability = Annotated[
    bool, Option("--applicability", help="Also how unlike the training data the image is: above 100 is unusual.")
]
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
    engine: Engine = "threads",
    workers: Workers = None,
    shard: Shard = None,
    device: Device = "auto",
    precision: Precision = "float32",
    tta: Tta = "none",
    probabilities: Probabilities = False,
    entropy: Entropy = False,
    sets: Sets = False,
    applicability: Applicability = False,
    no_confidence: NoConfidence = False,
    any_gsd: AnyGsd = False,
    overwrite: show.Overwrite = False,
    dry_run: show.DryRun = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Map a scene, or many. Maps open in QGIS with colours and names; an interrupted call is continued by the same one.

    Examples: covermap predict runs/gewata image.tif map.tif ·
    covermap predict model/ image.tif map.tif --aoi district.gpkg --probabilities --workers 2 ·
    covermap predict model/ 'scenes/*.tif' maps/ --engine processes --shard 1/4 ·
    covermap predict model/ search.json maps/
    """
    from covermap.core.config_file import parse_section
    from covermap.core.train_config import PredictConfig
    from covermap.verbs.predict import predict as one
    from covermap.verbs.predict import predict_scenes as many

    chosen = {
        "size_px": size, "overlap_px": overlap, "block_px": block, "batch_size": batch_size, "workers": workers,
        "device": device, "precision": precision, "probabilities": probabilities, "confidence": not no_confidence,
        "engine": engine, "entropy": entropy, "sets": sets, "tta": tta, "applicability": applicability,
    }  # fmt: skip
    settings = parse_section(PredictConfig, chosen, where="covermap predict")
    images = images_of(image, sensor, date, add or (), clouds)
    more: dict[str, Any] = {
        "settings": settings, "bands": show.listed(bands), "aoi": aoi, "any_gsd": any_gsd, "part": shard,
        "overwrite": overwrite, "dry_run": dry_run, "say": show.say,
    }  # fmt: skip
    of_one = bool(Path(out).suffix) and not out.endswith("/") and not Path(out).is_dir()
    with show.progress("mapping", quiet=dry_run) as tick:
        more["on_progress"] = tick
        found = [one(model, images, out, **more)] if of_one else many(model, images, out, **more)
    if of_one:
        _tell(found[0], as_json=as_json, dry_run=dry_run)
    else:
        _tell_all(found, as_json=as_json, dry_run=dry_run)


def images_of(
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


def _as_dict(done: Prediction) -> dict[str, Any]:
    return {
        "map": done.path, "files": list(done.files), "areas": done.areas, "blocks": done.num_blocks,
        "resumed_blocks": done.num_resumed, "seconds": done.seconds, "km2_per_s": done.km2_per_s,
        "notes": list(done.notes),
    }  # fmt: skip


def _tell_all(found: Sequence[Prediction], *, as_json: bool, dry_run: bool) -> None:
    """Many scenes: a line for each, and the areas of all maps together."""
    if as_json:
        show.as_json({"maps": [_as_dict(done) for done in found]})
        return
    show.notes(note for done in found for note in done.notes)
    if dry_run:
        typer.echo(f"{len(found)} scenes, {sum(done.num_blocks for done in found):,} blocks to do; all of them fit")
        return
    rows = [[done.path.name, done.num_blocks, sum(row["mapped_ha"] for row in done.areas)] for done in found]
    show.table(rows, ["map", "blocks", "mapped_ha"], title="maps")
    sums: dict[tuple[int, str], float] = {}
    for row in (row for done in found for row in done.areas):
        sums[row["code"], row["class"]] = sums.get((row["code"], row["class"]), 0.0) + row["mapped_ha"]
    if sums:
        show.table([[*key, round(ha, 4)] for key, ha in sums.items()], ["code", "class", "mapped_ha"],
                   title="mapped area of all (pixel counts)")  # fmt: skip
    seconds, km2 = max(done.seconds for done in found), sum(sums.values()) / 100
    show.say(f"{seconds:.1f} s, {km2 / seconds:.2f} km2/s")


def _tell(done: Prediction, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        show.as_json(_as_dict(done))
        return
    show.notes(done.notes)
    if dry_run:
        typer.echo(f"{done.num_blocks} blocks to do; the image and the model fit")
        return
    if done.areas:
        show.draw(done.table)
    show.wrote(done.files)
    show.say(
        f"{done.seconds:.1f} s, {done.km2_per_s:.2f} km2/s, {done.num_resumed} of {done.num_blocks} blocks were there"
    )
