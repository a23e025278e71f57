"""`covermap smooth`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import one_of
from covermap.cli.sieve import Out, Source, tell

Mode = Annotated[
    str,
    typer.Option(
        help="majority of classes, or probabilities (predict --probabilities).",
        autocompletion=one_of("majority", "probabilities"),
    ),
]
Radius = Annotated[int, typer.Option(help="Pixels on each side that have a say.")]


def smooth(
    source: Source,
    out: Out,
    mode: Mode = "majority",
    radius: Radius = 1,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Give each pixel the class that prevails around it: by majority, or by smoothed probabilities.

    Ties keep the pixel's class; nodata stays as it is and has no vote.

    Examples: covermap smooth map.tif smooth.tif --radius 2 ·
    covermap smooth map.tif smooth.tif --mode probabilities --radius 2
    """
    from covermap.verbs.smooth import smooth as work

    with show.progress("smoothing") as tick:
        done = work(source, out, mode=mode, radius=radius, overwrite=overwrite, on_progress=tick)
    tell(done, as_json=as_json)
