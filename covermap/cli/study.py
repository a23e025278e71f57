"""`covermap study`: experiments of many runs, from a plan to tables, a page and a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from covermap.cli import show
from covermap.cli.completion import one_of

if TYPE_CHECKING:
    from covermap.verbs.label_plan import LabelPlan
    from covermap.verbs.study import Study

app = typer.Typer(help="Studies: many runs of one plan, compared with intervals.", no_args_is_help=True)
_ENGINES = ("serial", "processes", "ray")
Engine = Annotated[
    str,
    typer.Option(help="Who works runs off: serial, processes or ray (a cluster).", autocompletion=one_of(*_ENGINES)),
]
Workers = Annotated[int | None, typer.Option(help="Runs at work at once; more than one have one thread each.", min=1)]


@app.command("run")
def run_(
    plan: Annotated[
        str, typer.Argument(help="What varies, over which seeds: see recipes/studies/.", metavar="PLAN.yaml")
    ],
    out: Annotated[str, typer.Argument(help="Folder of the study: its runs, tables, page and log.", metavar="OUT")],
    engine: Engine = "serial",
    workers: Workers = None,
    settings: show.Set = None,
    dry_run: show.DryRun = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Run all cells of a plan, and compare them: cells.csv, study.json, report.html, LOG.md.

    The same command goes on where it was stopped: finished cells are skipped, failed ones are tried again. Exit code 1
    where a cell failed; the others are done all the same. --set overrides a key of the plan (seeds=5) or of the config
    that all cells start from (data.root=/data/WUSU).

    Examples: covermap study run recipes/studies/gewata_losses.yaml losses/ --dry-run ·
    covermap study run plan.yaml out/ --engine processes --workers 2
    """
    from covermap.core.errors import ConfigError, suggest

    if engine not in _ENGINES:
        raise ConfigError(f"there is no engine {engine!r} of studies", fix=suggest(engine, _ENGINES))
    if engine == "serial" and workers not in (None, 1):
        raise ConfigError("--workers has no effect with --engine serial", fix="add --engine processes")
    from covermap.verbs.study import study

    with show.progress("cells", quiet=dry_run) as tick:
        found = study(
            plan, out, engine=engine, workers=workers, overrides=settings or (), dry_run=dry_run,  # type: ignore[arg-type]
            overwrite=overwrite, say=show.say, on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json(_as_dict(found))
    elif dry_run:
        typer.echo("\n".join(found.cells))
        typer.echo(f"{len(found.cells)} cells, {len(found.skipped)} of them finished; nothing was run")
    else:
        _tell(found)
    if found.failed:
        show.warn(f"{len(found.failed)} of {len(found.cells)} cells failed; the same command tries them again")
        raise typer.Exit(1)


def _as_dict(found: Study) -> dict[str, Any]:
    keys = ("cells", "finished", "skipped", "failed", "summary")
    return {**{key: getattr(found, key) for key in keys}, "files": [str(file) for file in found.files]}


def _tell(found: Study) -> None:
    """Print the means of the main scores, what they tell, and where it stands."""
    summary = found.summary
    if "table" in summary:
        show.table(summary["table"]["rows"], summary["table"]["head"])
    elif "means" in summary:
        own = ("learner", "class", "score", "mean", "sd", "low", "high", "seeds", "values")
        axes = [key for key in summary["means"][0] if key not in own]
        rows = [row for row in summary["means"] if not row["class"] and row["score"] == summary["scores"][0]]
        head = [*axes, "learner", "mean", "sd", "low", "high", "seeds"]
        show.table([[row[key] for key in head] for row in rows], head, title=f"{summary['scores'][0]} (95 % interval)")
    if "conclusion" in summary:
        typer.echo(summary["conclusion"])
    for name, message in found.failed.items():
        typer.echo(f"failed: {name}: {message}")
    if found.files:
        show.wrote(found.files)


@app.command("plan")
def plan_(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Embeddings of one encoder, then the chips to label.", metavar="EMBEDDINGS.parquet OUT.gpkg"
        ),
    ],
    budget: Annotated[int, typer.Option(help="Chips to label next.")] = 300,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="stratified, uncertainty, diversity or mixed; default mixed, without a pilot stratified.",
            autocompletion=one_of("stratified", "uncertainty", "diversity", "mixed"),
        ),
    ] = None,
    target: Annotated[
        Literal["auto", "shares", "majority", "label", "values"], typer.Option(help="What is told of a chip.")
    ] = "auto",
    labels: Annotated[
        list[str] | None, typer.Option(help="A former plan with its column reference filled in. Repeat it.")
    ] = None,
    block: Annotated[int, typer.Option(help="Side of the blocks that are held out, in chips.")] = 4,
    seed: Annotated[int, typer.Option(help="Of clusters, draws and folds.")] = 0,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Plan labels: which chips to label next, and what accuracy to expect of them, from the labels that there are.

    Chips with a target are the pilot, those without are candidates. Fill the column reference in QGIS, and give the
    file back with --labels.

    Examples: covermap study plan chips.parquet next.gpkg --budget 300 --target majority ·
    covermap study plan chips.parquet then.gpkg --labels next.gpkg
    """
    from covermap.core.errors import ConfigError
    from covermap.verbs.label_plan import LabelPlanSettings, plan_labels

    if len(files) < 2:
        raise ConfigError("the file for the chips is missing", fix="covermap study plan EMBEDDINGS.parquet OUT.gpkg")
    settings = LabelPlanSettings(budget, strategy, target, block, seed)
    found = plan_labels(files[:-1], files[-1], settings, labels=labels or (), overwrite=overwrite)
    if as_json:
        from dataclasses import asdict

        show.as_json({**asdict(found), "files": [str(file) for file in found.files]})
    else:
        _tell_plan(found, budget)


def _tell_plan(found: LabelPlan, budget: int) -> None:
    """Print what to expect, how many labels are enough, and where the chips stand."""
    name = "accuracy" if found.score == "accuracy" else "R2"
    if found.expected and found.now and found.limit is not None:
        told, now = found.expected, found.now
        typer.echo(
            f"with {budget:,} more labels ({found.num_pilot + budget:,} in all) expect {name} {told.score:.2f} "
            f"({told.low:.2f} to {told.high:.2f}); now {now.score:.2f} ({now.low:.2f} to {now.high:.2f})"
        )
        enough = "more than a million labels" if found.enough is None else f"{found.enough:,} more labels"
        if found.enough is not None and found.enough > found.num_candidates:
            enough += f", more than the {found.num_candidates:,} candidates"
        typer.echo(f"labels without end promise {name} {found.limit:.2f}: 95 % of that take {enough}")
        if found.strategy in ("mixed", "uncertainty"):
            typer.echo(
                "that holds for labels drawn as the pilot was; chips chosen by doubt usually bring somewhat more"
            )
    show.notes(found.notes)
    typer.echo(f"{budget:,} of {found.num_candidates:,} candidates, strategy {found.strategy}")
    show.wrote(found.files)
