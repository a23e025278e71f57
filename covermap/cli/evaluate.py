"""`covermap evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show


def evaluate(
    runs: Annotated[list[str], typer.Argument(help="The run folder that train printed, or several.", metavar="RUN...")],
    part: Annotated[str, typer.Option(help="Part of the split: test, val or train.")] = "test",
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Score a run's network and random forest on a part of the split that neither has seen.

    Of several runs also mean and spread over seeds, and what each setting gains over the first one's.

    Examples: covermap evaluate runs/gewata · covermap evaluate runs/gewata --part val --json ·
    covermap evaluate runs/frozen_* runs/lora_*
    """
    from covermap.core.run import Run

    opened, say = [Run.open(run) for run in runs], show.sayer(quiet=quiet)
    if len(opened) > 1:
        from covermap.verbs.several import evaluate_several

        result, teller = evaluate_several(opened, part=part, say=say), tell_several
    else:
        from covermap.verbs.evaluate import evaluate as judge

        result, teller = judge(opened[0], part=part, say=say), tell
    if as_json:
        show.as_json(result)
    else:
        teller(result)


def tell_several(result: dict[str, Any]) -> None:
    """Print means over seeds, and differences to the first setting."""
    head = ["mean", "sd", "low", "high", "seeds"]
    rows = [[row["setting"], row["model"], row["score"], *(row[key] for key in head)] for row in result["settings"]]
    show.table(rows, ["setting", "model", "score", *head], title=f"over seeds, on {result['part']} (95 % interval)")
    if result["differences"]:
        more = ["mean", "low", "high", "seeds", "blocks_low", "blocks_high", "p"]
        rows = [[row["setting"], row["score"], *(row.get(key) for key in more)] for row in result["differences"]]
        title = f"networks minus those of {result['differences'][0]['against']}, equal seeds; and over blocks of ground"
        show.table(rows, ["setting", "score", *more], title=title)
    if result["note"]:
        typer.echo(f"note: {result['note']}")


def tell(result: dict[str, Any]) -> None:
    """Print the scores of all models, and of each class or number."""
    from covermap.core.scored import shown_of

    shown = shown_of(result)
    names = [row.key for row in shown.scores]
    rows = [[model, *(one["scores"][name] for name in names)] for model, one in result["models"].items()]
    show.table(rows, ["model", *names], title=f"scores on {result['part']}")
    columns = [shown.name, *(column.key for column in shown.columns), shown.counted.key]
    for model, one in result["models"].items():
        rows = [[row[key] for key in columns[:-1]] + [int(row[columns[-1]])] for row in one[shown.table]]
        show.table(rows, columns, title=model)
    for model, one in result["models"].items():
        if "coverage" in one["scores"]:
            held, size = one["scores"]["coverage"], one["scores"]["set_size"]
            typer.echo(
                f"{model}: its sets hold the right class in {held:.1%} of {result['part']}, {size:.2f} classes each"
            )
    if result["note"]:
        typer.echo(f"note: {result['note']}")
