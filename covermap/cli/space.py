"""`covermap space`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show
from covermap.cli.probe import Target

if TYPE_CHECKING:
    from covermap.verbs.space import Space

Files = Annotated[
    list[str],
    typer.Argument(help="Embeddings of one encoder, then the folder OUT.", metavar="EMBEDDINGS.parquet OUT"),
]
By = Annotated[
    str,
    typer.Option(help="What a region is: scene, place, part, class, or a column of the files; auto: place or scene."),
]
Least = Annotated[int, typer.Option(help="Chips that a region has at least; smaller ones are left out.")]
Block = Annotated[int, typer.Option(min=1, help="Side of the blocks of ground that are held out, in chips.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn.")]


def space(
    files: Files,
    by: By = "auto",
    target: Target = "auto",
    least: Least = 20,
    block: Block = 4,
    seed: Seed = 0,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Look at an embedding space: how far regions lie apart, whether distance costs, what position in a chip tells.

    Writes distances.csv, transfer.csv, points.csv, space.json, LOG.md and the page space.html.

    Examples: covermap space north.parquet south.parquet space/ · covermap space chips.parquet space/ --by class
    """
    from covermap.core.errors import ConfigError
    from covermap.verbs.space import SpaceSettings
    from covermap.verbs.space import space as work

    if len(files) < 2:
        raise ConfigError("the folder for the results is missing", fix="covermap space EMBEDDINGS.parquet OUT/")
    settings = SpaceSettings(by, target, least, block, seed)
    with show.progress("comparing") as tick:
        found = work(files[:-1], files[-1], settings, overwrite=overwrite, on_progress=tick)
    if as_json:
        from dataclasses import asdict

        show.as_json(asdict(found))
    else:
        _tell(found)


def _tell(found: Space) -> None:
    if len(found.distances) <= 30:
        show.table([list(row.values()) for row in found.distances], list(found.distances[0]))
    for line in found.sentences:
        typer.echo(line)
    show.notes((*found.doubts, *found.notes))
    show.wrote(found.files)
