"""`covermap report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show

if TYPE_CHECKING:
    from pathlib import Path


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

    Of a pre-training: loss terms, probe, whether vectors collapse. Of several runs one page beside each other: settings
    that differ, scores with intervals, paired differences, classes, curves, where maps disagree.

    Examples: covermap report runs/gewata · covermap report runs/unet_0 runs/lora_0 --out ab.html
    """
    from covermap.report.pretrain_page import Pretrained

    kinds = [Pretrained.lies_in(run) for run in runs]
    if len(runs) > 1:
        _say(_several(runs, kinds, out, overwrite=overwrite), as_json=as_json)
        return
    if out or overwrite:
        from covermap.core.errors import ConfigError

        raise ConfigError(
            "--out and --overwrite go with several runs", fix="leave them out: a run's report.html lies in its folder"
        )
    if kinds[0]:
        from covermap.report.pretrain_page import write_pretrain_report

        _say(write_pretrain_report(Pretrained.open(runs[0])), as_json=as_json)
        return
    from covermap.core.run import Run
    from covermap.report import write_report

    _say(write_report(Run.open(runs[0])), as_json=as_json)


def _say(page: Path, *, as_json: bool) -> None:
    show.as_json({"report": page}) if as_json else typer.echo(str(page))


def _several(runs: list[str], kinds: list[bool], out: str | None, *, overwrite: bool) -> Path:
    """The page of runs of one kind."""
    if any(kinds) and not all(kinds):
        from covermap.core.errors import DataError

        raise DataError(
            "some of these are pre-trainings, some are runs: their numbers do not compare",
            fix="report each kind for itself",
        )
    if kinds[0]:
        from covermap.report.pretrain_page import Pretrained
        from covermap.report.pretrain_several import report_pretrainings

        return report_pretrainings([Pretrained.open(run) for run in runs], out, overwrite=overwrite)
    from covermap.core.run import Run
    from covermap.verbs.side_by_side import report_several

    return report_several([Run.open(run) for run in runs], out, overwrite=overwrite, say=show.say)
