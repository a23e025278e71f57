"""`covermap check-plugin`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import one_of


def check_plugin(
    kind: Annotated[
        str,
        typer.Argument(
            help="What it is: backbone, decoder, loss or source.",
            autocompletion=one_of("backbone", "decoder", "loss", "source"),
            metavar="KIND",
        ),
    ],
    name: Annotated[str, typer.Argument(help="A name from covermap models list, or my_file.py:Name.", metavar="NAME")],
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of it: --option patch_px=8.")
    ] = None,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Check that a backbone, decoder, loss or data set's layout keeps what all parts rely on.

    A backbone (weights are random): sizes, places, dates, missing data, freezing. A decoder: sizes, gradients, small
    batches, learning. A loss: what is not known, extremes, sums over batches, class weights. A layout: its miniature
    is read back, missing files are named.
    Example: covermap check-plugin backbone my_file.py:MyBackbone
    """
    from covermap.core.config_file import parse_option
    from covermap.verbs.check_plugin import check_plugin as examine

    os.environ["COVERMAP_WIDE_PRODUCTS"] = "0"  # what a plug-in does to a process is seen where nobody else does it
    found = examine(kind, name, options=dict(parse_option(text) for text in options or ()))
    failed = [outcome for outcome in found if outcome.failure]
    if as_json:
        show.as_json([{"check": outcome.name, "failure": outcome.failure} for outcome in found])
    else:
        for outcome in found:
            typer.echo(f"{'FAILS' if outcome.failure else 'ok':5}  {outcome.name}")
            if outcome.failure:
                typer.echo(f"       {outcome.failure}")
        typer.echo(f"{name}: {len(found) - len(failed)} of {len(found)} checks hold")
    raise typer.Exit(1 if failed else 0)
