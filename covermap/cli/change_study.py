"""`covermap change-study`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show
from covermap.cli.check import load

if TYPE_CHECKING:
    from covermap.verbs.change_study import Study

Out = Annotated[str, typer.Argument(help="Folder of the study: its runs and tables.", metavar="OUT")]
Seeds = Annotated[str, typer.Option(help="Seeds with commas; three or more tell how much training varies.")]
SHOWN = ("sek_from_to", "sek_dates_stacked", "fscd_from_to", "fscd_dates_stacked", "miou", "f1", "kappa")


def change_study(
    config: show.Config,
    out: Out,
    settings: show.Set = None,
    seeds: Seeds = "0",
    resume: show.Resume = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Compare ways of telling change on the same data: segmentation then comparison, change, semantic change.

    CONFIG is of task semantic_change. Each way has as many steps and images; scores come with intervals over seeds and
    over blocks of ground, in both published conventions (from_to and dates_stacked).

    Example: covermap change-study second.yaml study/ --seeds 0,1,2
    """
    loaded = load(config, settings, dry_run=False)
    from covermap.core.errors import ConfigError
    from covermap.verbs.change_study import change_study as work

    try:
        chosen = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {seeds} are no whole numbers", fix="write --seeds 0,1,2") from error
    with show.progress("training") as tick:
        found = work(loaded, out, seeds=chosen, resume=resume, overwrite=overwrite, say=show.say, on_progress=tick)
    if as_json:
        show.as_json(found.to_dict())
    else:
        _tell(found)


def _tell(found: Study) -> None:
    from covermap.verbs.change_study import PLAIN, WAYS

    means = {(row["way"], row["score"]): row for row in found.rows}
    ways = [way for way in WAYS if (way, "f1") in means]

    def cell(way: str, score: str) -> str:
        row = means.get((way, score))
        if row is None:
            return "-"
        return f"{row['mean']:.3f}" + (f" ±{row['sd']:.3f}" if row["sd"] == row["sd"] else "")

    rows = [[way, *(cell(way, score) for score in SHOWN)] for way in ways]
    show.table(rows, ["way", *SHOWN], title=f"test part, mean over {len(found.seeds)} seeds")
    rows = [
        [row["way"], row["score"], row["blocks_value"], row["blocks_low"], row["blocks_high"], row["p"]]
        for row in found.differences
        if row["score"] in ("sek_from_to", "sek_dates_stacked", "f1")
    ]
    show.table(
        rows,
        ["way", "score", "difference", "low", "high", "p"],
        title=f"minus {PLAIN}: all seeds together, blocks of ground",
    )
    show.notes(found.notes)
    show.wrote([found.out / "study.json", found.out / "study.csv"])
