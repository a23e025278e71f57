"""`covermap evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from covermap.cli import show
from covermap.cli.completion import one_of

if TYPE_CHECKING:
    from covermap.core.results import Scored


def evaluate(
    runs: Annotated[list[str], typer.Argument(help="The run folder that train printed, or several.", metavar="RUN...")],
    part: Annotated[
        str, typer.Option(help="Part of the split: test, val or train.", autocompletion=one_of("test", "val", "train"))
    ] = "test",
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Score a run's network and random forest on a part of the split that neither has seen.

    Of several runs also mean and spread over seeds, and what each setting gains over the first one's.

    Examples: covermap evaluate runs/gewata · covermap evaluate runs/gewata --part val --json ·
    covermap evaluate runs/frozen_* runs/lora_*
    """
    from covermap.core.run import Run

    opened = [Run.open(run) for run in runs]
    if len(opened) > 1:
        from covermap.verbs.several import evaluate_several

        several = evaluate_several(opened, part=part, say=show.say)
        show.as_json(several) if as_json else tell_several(several)
        return
    from covermap.verbs.evaluate import evaluate as judge

    with show.progress("scoring") as tick:
        result = judge(opened[0], part=part, say=show.say, on_progress=tick)
    show.as_json(result) if as_json else tell(result)


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
    show.notes(filter(None, [result["note"]]))


def tell(result: Scored) -> None:
    """Print the scores of all models, and of each class or number."""
    for table in result.tables:
        show.draw(table)
    for model, one in result["models"].items():
        if "coverage" in one["scores"]:
            held, size = one["scores"]["coverage"], one["scores"]["set_size"]
            typer.echo(
                f"{model}: its sets hold the right class in {held:.1%} of {result['part']}, {size:.2f} classes each"
            )
    show.notes(filter(None, [result["note"]]))
