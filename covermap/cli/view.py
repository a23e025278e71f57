"""`covermap view`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show


def view(
    paths: Annotated[
        list[str], typer.Argument(help="GeoTIFFs, samples, a run's folder, or any folder.", metavar="PATH...")
    ],
    port: Annotated[int, typer.Option(help="Port; 0: any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Where to listen; other than this machine only by the token of the address.")
    ] = "127.0.0.1",
    token: Annotated[
        bool,
        typer.Option("--token", help="This machine needs the token of the address too: for shared ones and proxies."),
    ] = False,
    static: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write a folder that needs no server instead.")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Look at maps, changes and imagery in the browser, without a network, and label the points of a sample there.

    Layers lie over each other with legend, areas, swipe and the values under a click. Ctrl-C ends it.

    Examples: covermap view demo · covermap view map.tif image.tif sample.gpkg · covermap view demo --static site
    """
    from covermap.verbs.view import view as work

    def ready(url: str) -> None:
        if as_json:
            show.as_json({"url": url})
        else:
            typer.echo(url if quiet else f"view at {url} (Ctrl-C ends it)")

    with show.progress("writing") as tick:
        written = work(
            paths, host=host, port=port, static=static, overwrite=overwrite, open_browser=not no_open, token=token,
            say=show.say, on_progress=tick, on_ready=ready,
        )  # fmt: skip
    if written is None:
        show.say("ended")
        return
    told = f"wrote {written.folder}: {written.num_files:,} files, {written.num_bytes / 1e6:,.1f} MB"
    if as_json:
        show.as_json({"folder": written.folder, "files": written.num_files, "bytes": written.num_bytes})
    else:
        typer.echo(str(written.folder) if quiet else told)
