"""`covermap fetch`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show

SHOWN = 50


def fetch(
    what: Annotated[
        str, typer.Argument(help="A layout, zenodo:RECORD, hf:ORG/NAME\\[@REVISION], drive:FILE_ID or https://...")
    ],
    folder: Annotated[str, typer.Argument(help="Where the files go, or already are.")],
    download: Annotated[bool, typer.Option("--download", help="Fetch them; without it they are only listed.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files of such names; several times.")
    ] = None,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="With --download: also unpack zip and tar archives.")
    ] = False,
    overwrite: show.Overwrite = False,
    quiet: show.Quiet = False,
    as_json: show.AsJson = False,
) -> None:
    """Show what a data set's host offers, and with --download fetch it; stopped, the same command goes on.

    Nothing else downloads data. Examples: covermap fetch landslide cubes/ ·
    covermap fetch zenodo:7248056 cubes/ --only '*japan*' --download --unpack
    """
    from covermap.verbs.fetch import fetch as work

    with show.progress("fetching, MB") as tick:
        found = work(
            what, folder, wanted=download, only=only or (), unpacked=unpack, overwrite=overwrite, on_progress=tick
        )
    if as_json:
        show.as_json(found)
        return
    files = found["files"]
    rows = [["?" if value is None else value for value in row.values()] for row in files[:SHOWN]]
    show.table(rows, list(files[0]))
    if len(files) > SHOWN:
        typer.echo(f"... and {len(files) - SHOWN:,} more (--json shows all)")
    typer.echo(
        f"{len(files):,} files, {found['bytes'] / 1e6:,.1f} MB, {found['missing'] / 1e6:,.1f} MB of it not here, "
        f"{found['free'] / 1e9:.1f} GB free; licence: {found['licence']}; {found['page']}"
    )
    if not download:
        typer.echo("nothing was fetched: add --download")
    elif unpack:
        typer.echo(f"{found['unpacked']:,} files unpacked")
