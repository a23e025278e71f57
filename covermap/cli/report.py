"""`covermap report`."""

from __future__ import annotations

from typing import Annotated

import typer


def report(run: Annotated[str, typer.Argument(help="The run folder that train printed.", metavar="RUN")]) -> None:
    """Write report.html of a run: one file without links to the outside, with scores, maps, curves and warnings.

    Example: covermap report runs/gewata
    """
    from covermap.core.run import Run
    from covermap.report import write_report

    typer.echo(str(write_report(Run.open(run))))
