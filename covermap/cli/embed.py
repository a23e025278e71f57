"""`covermap embed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from covermap.cli import show
from covermap.cli.completion import one_of, sensors

if TYPE_CHECKING:
    from covermap.core.config import ImageConfig, RunConfig

Source = Annotated[str, typer.Argument(help="A config, or a model or run folder.", metavar="CONFIG.yaml|MODEL")]
Rest = Annotated[
    list[str],
    typer.Argument(
        help="With a model its image first. OUT.parquet: chips; OUT.tif: pixels of one scene; a folder: of many.",
        metavar="[IMAGE\\[@DATE]] OUT",
    ),
]
Size = Annotated[
    int | None, typer.Option(help="Side of a chip, px (16; chips of chip tasks: their own); of pixels of a window.")
]
Pool = Annotated[
    str | None,
    typer.Option(
        help="How cells of a chip become one: mean, by valid share (default), or max.",
        autocompletion=one_of("mean", "max"),
    ),
]
Valid = Annotated[float, typer.Option(help="Least share of valid pixels of a chip or cell.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Of pixels: int8 (AlphaEarth's codes), float16 or float32.",
        autocompletion=one_of("int8", "float16", "float32"),
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Of pixels: cog, or tessera (folders by year and cell).",
        autocompletion=one_of("cog", "tessera"),
    ),
]
Sensor = Annotated[
    str | None, typer.Option(help="Sensor of IMAGE; default: the model's first.", autocompletion=sensors)
]
Bands = Annotated[str | None, typer.Option(help="Band names of IMAGE in file order, if the file has none.")]
Add = Annotated[
    list[str] | None,
    typer.Option("--add", metavar="SENSOR=PATH[@DATE]", help="Further sensors or dates the model takes."),
]
Clouds = Annotated[str, typer.Option(help="Of IMAGE: auto (SCL, QA_PIXEL of a product), none, or a file.")]
AnyGsd = Annotated[bool, typer.Option("--any-gsd", help="Accept another pixel size than the model's.")]
Workers = Annotated[int | None, typer.Option(help="Threads; default: one for each core.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", autocompletion=one_of("auto", "cpu", "cuda"))]


def embed(
    source: Source,
    rest: Rest,
    size: Size = None,
    pool: Pool = None,
    valid: Valid = 0.5,
    dtype: Dtype = None,
    form: Format = None,
    settings: show.Set = None,
    sensor: Sensor = None,
    bands: Bands = None,
    add: Add = None,
    clouds: Clouds = "auto",
    any_gsd: AnyGsd = False,
    workers: Workers = None,
    device: Device = "auto",
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Embeddings of chips or pixels by an encoder; an interrupted call is continued by the same one.

    A config's encoder is its model section without training: published weights, or random ones as a baseline.

    Examples: covermap embed covermap.yaml chips.parquet --size 16 ·
    covermap embed covermap.yaml random.parquet --set model.weights=none ·
    covermap embed runs/gewata image.tif@2019-07-27 pixels.tif · covermap embed covermap.yaml OUT/ --format tessera
    """
    from covermap.core.errors import ConfigError
    from covermap.verbs.embed import EmbedSettings
    from covermap.verbs.embed import embed as work

    if form not in (None, "cog", "tessera"):
        raise ConfigError(f"--format {form} is not known", fix="cog or tessera")
    if pool not in (None, "mean", "max"):
        raise ConfigError(f"--pool {pool} is not known", fix="mean or max")
    shown, images = source_and_images(source, rest, settings, of_image(sensor, bands, add, clouds, any_gsd))
    chosen: Any = {"size_px": size, "pool": pool, "valid": valid, "dtype": dtype, "tessera": form == "tessera"}
    with show.progress("embedding") as tick:
        done = work(
            shown, rest[-1], images=images, settings=EmbedSettings(**chosen, workers=workers, device=device),
            any_gsd=any_gsd, overwrite=overwrite, on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json({
            "files": [str(file) for file in done.files], "count": done.count, "skipped": done.skipped,
            "dimensions": done.dimensions, "parts": done.parts, "seconds": done.seconds, "notes": list(done.notes),
        })  # fmt: skip
        return
    show.notes(done.notes)
    parts = ", ".join(f"{name} {num:,}" for name, num in sorted(done.parts.items()) if set(done.parts) != {"none"})
    typer.echo(f"{done.count:,} embeddings of {done.dimensions} numbers" + (f" ({parts})" if parts else ""))
    show.wrote(done.files)
    show.say(f"{done.seconds:.1f} s, {done.count / max(done.seconds, 1e-9):,.0f} a second")


def of_image(
    sensor: str | None, bands: str | None, add: list[str] | None, clouds: str, any_gsd: bool
) -> dict[str, Any]:  # fmt: skip
    """What was said of the image of a model."""
    return {"sensor": sensor, "bands": show.listed(bands), "add": add or [], "clouds": clouds, "any_gsd": any_gsd}


def source_and_images(
    source: str, rest: list[str], settings: list[str] | None, options: dict[str, Any]
) -> tuple[RunConfig | str, list[ImageConfig]]:
    """A config, or a model and its images; raises ConfigError for options and arguments of the other."""
    from covermap.cli.predict import images_of
    from covermap.core.config import split_date
    from covermap.core.config_file import load_config
    from covermap.core.errors import ConfigError

    if source.endswith((".yaml", ".yml")):
        defaults: dict[str, Any] = {"sensor": None, "bands": None, "add": [], "clouds": "auto", "any_gsd": False}
        odd = [key for key, value in options.items() if value != defaults[key]]
        if len(rest) != 1 or odd:
            told = f"--{odd[0].replace('_', '-')}" if odd else rest[0]
            raise ConfigError(f"{told} goes with a model; a config names its images itself", fix="give CONFIG.yaml OUT")
        return load_config(source, settings or ()), []
    if len(rest) != 2:
        raise ConfigError("a model needs an image", fix="give MODEL IMAGE OUT, or CONFIG.yaml OUT")
    if settings:
        raise ConfigError("--set goes with a config", fix="leave it out: a model has its settings")
    path, date = split_date(rest[0])
    images = images_of(path, options["sensor"], date, options["add"], options["clouds"])
    if options["bands"]:
        images[0] = images[0].model_copy(update={"bands": options["bands"]})
    return source, images
