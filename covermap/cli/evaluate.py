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
    """Print the scores of all models, and of each class."""
    names = ["oa", "miou", "macro_f1", "kappa", "num_present", "num_pixels"]
    rows = [[model, *(one["scores"][name] for name in names)] for model, one in result["models"].items()]
    show.table(rows, ["model", *names], title=f"scores on {result['part']}")
    for model, one in result["models"].items():
        rows = [[*row.values()] for row in one["per_class"]]
        rows = [[*row[:-1], int(row[-1])] for row in rows]
        show.table(rows, list(one["per_class"][0]), title=model)
    if result["note"]:
        typer.echo(f"note: {result['note']}")
