"""`covermap attention`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import embed as embed_
from covermap.cli import show
from covermap.cli.completion import one_of

Rest = Annotated[
    list[str], typer.Argument(help="With a model its image first; then OUT.tif.", metavar="[IMAGE\\[@DATE]] OUT.tif")
]
Layers = Annotated[str | None, typer.Option(help="Blocks from 0, such as 0,5,11; -1: the last, which is the default.")]
Heads = Annotated[str | None, typer.Option(help="Heads from 0, such as 0,2; default: all.")]
Query = Annotated[
    str | None,
    typer.Option(
        help="Whose attention: class (default where there is such a token), or mean of all.",
        autocompletion=one_of("class", "mean"),
    ),
]
Size = Annotated[int | None, typer.Option(help="Side of a window, px; attention reaches no further.")]


def attention(
    source: embed_.Source,
    rest: Rest,
    layers: Layers = None,
    heads: Heads = None,
    query: Query = None,
    size: Size = None,
    settings: show.Set = None,
    sensor: embed_.Sensor = None,
    bands: embed_.Bands = None,
    add: embed_.Add = None,
    clouds: embed_.Clouds = "auto",
    any_gsd: embed_.AnyGsd = False,
    workers: embed_.Workers = None,
    device: embed_.Device = "auto",
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """What a transformer's heads look at, as a raster on the image's grid: a band for each block and head.

    Values are shares of attention relative to uniform within a window: 1 where all places get the same. The file may be
    an image of train: bands are called block11_head0.

    Examples: covermap attention runs/vit image.tif@2019-07-27 attention.tif ·
    covermap attention covermap.yaml attention.tif --layers 5,11 --heads 0,1 --query mean
    """
    from covermap.verbs.attention import AttentionSettings
    from covermap.verbs.attention import attention as work

    told = embed_.of_image(sensor, bands, add, clouds, any_gsd)
    shown, images = embed_.source_and_images(source, rest, settings, told)
    chosen = AttentionSettings(_numbers(layers, "layers"), _numbers(heads, "heads"), query, size, workers, device)
    with show.progress("attention") as tick:
        done = work(
            shown, rest[-1], images=images, settings=chosen, any_gsd=any_gsd, overwrite=overwrite, on_progress=tick
        )
    if as_json:
        show.as_json({
            "file": str(done.file), "bands": list(done.bands), "query": done.query, "cells": done.cells,
            "seconds": done.seconds, "notes": list(done.notes),
        })  # fmt: skip
        return
    show.notes(done.notes)
    typer.echo(
        f"{len(done.bands)} bands, {done.cells:,} cells: {', '.join(done.bands[:4])}{', ...' * (len(done.bands) > 4)}"
    )
    show.wrote([done.file])
    show.say(f"{done.seconds:.1f} s")


def _numbers(text: str | None, what: str) -> list[int] | None:
    from covermap.core.errors import ConfigError

    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--{what} {text}: these are no numbers", fix=f"--{what} 0,1,2") from error
