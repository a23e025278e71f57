"""`covermap evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show


def evaluate(
    run: Annotated[str, typer.Argument(help="The run folder that train printed.", metavar="RUN")],
    part: Annotated[str, typer.Option(help="Part of the split: test, val or train.")] = "test",
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Score a run's network and random forest on a part of the split that neither has seen.

    Examples: covermap evaluate runs/gewata · covermap evaluate runs/gewata --part val --json
    """
    from covermap.core.run import Run
    from covermap.verbs.evaluate import evaluate as judge

    result = judge(Run.open(run), part=part, say=show.sayer(quiet=quiet))
    if as_json:
        show.as_json(result)
    else:
        tell(result)


def tell(result: dict[str, Any]) -> None:
    """Print the scores of all models, and of each class or number."""
    from covermap.report.scored import shown_of

    shown = shown_of(result)
    names = [row.key for row in shown.scores]
    rows = [[model, *(one["scores"][name] for name in names)] for model, one in result["models"].items()]
    show.table(rows, ["model", *names], title=f"scores on {result['part']}")
    columns = [shown.name, *(column.key for column in shown.columns), shown.counted.key]
    for model, one in result["models"].items():
        rows = [[row[key] for key in columns[:-1]] + [int(row[columns[-1]])] for row in one[shown.table]]
        show.table(rows, columns, title=model)
    if result["note"]:
        typer.echo(f"note: {result['note']}")
