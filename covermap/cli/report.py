"""`covermap report`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show


def report(
    runs: Annotated[list[str], typer.Argument(help="The run folder that train printed, or several.", metavar="RUN...")],
    out: Annotated[
        str | None, typer.Option(help="Of several runs: page to write; default: comparison.html beside the first.")
    ] = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Write report.html of a run: one file without links to the outside, with scores, maps, curves and warnings.

    Of several runs one page beside each other: settings that differ, scores with intervals, paired differences.

    Examples: covermap report runs/gewata · covermap report runs/unet_0 runs/lora_0 --out ab.html
    """
    from covermap.core.run import Run

    opened = [Run.open(run) for run in runs]
    if len(opened) > 1:
        from covermap.verbs.side_by_side import report_several

        page = report_several(opened, out, overwrite=overwrite, say=show.say)
        show.as_json({"report": page}) if as_json else typer.echo(str(page))
        return
    if out or overwrite:
        from covermap.core.errors import ConfigError

        raise ConfigError(
            "--out and --overwrite go with several runs", fix="leave them out: a run's report.html lies in its folder"
        )
    from covermap.report import write_report

    page = write_report(opened[0])
    show.as_json({"report": page}) if as_json else typer.echo(str(page))
