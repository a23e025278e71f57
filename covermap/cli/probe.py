"""`covermap probe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from covermap.cli import show
from covermap.cli.completion import one_of

if TYPE_CHECKING:
    from covermap.verbs.probe import Penalty, Probed

Files = Annotated[list[str], typer.Argument(help="Embeddings of one encoder (GeoParquet), then the folder OUT.")]
Probes = Annotated[
    str, typer.Option("--models", help="Of constant, raw, knn, ridge, ols, logistic, forest, prequential, with commas.")
]
Target = Annotated[
    Literal["auto", "shares", "majority", "label", "values"],
    typer.Option(
        help="Shares of classes, the class of most pixels, the chip's label, or numbers; auto: what is there."
    ),
]
AreasOption = Annotated[
    Literal["none", "place", "scene"],
    typer.Option(help="Learn from each place or scene, and from all others, and score in all."),
]
Budgets = Annotated[str | None, typer.Option(help="Numbers of labelled chips; default 25,50,100,... and all.")]
Repeats = Annotated[int, typer.Option(min=1, help="Orders that chips are labelled in.")]
Share = Annotated[float, typer.Option(help="Share of the blocks of ground that is held out.")]
Block = Annotated[int, typer.Option(min=1, help="Side of a block in chips.")]
Folds = Annotated[int | None, typer.Option(min=2, help="Hold out each of so many folds in turn, repeat by repeat.")]
PenaltyOption = Annotated[
    str,
    typer.Option(
        help="Of ridge: loo, once (for each area), or a number: the fastest.", autocompletion=one_of("loo", "once")
    ),
]
Seed = Annotated[int, typer.Option(help="Of blocks and orders.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")]


def probe(
    files: Files,
    models: Probes = "constant,raw,knn,ridge",
    target: Target = "auto",
    areas: AreasOption = "none",
    budgets: Budgets = None,
    repeats: Repeats = 5,
    share: Share = 0.3,
    block: Block = 4,
    folds: Folds = None,
    penalty: PenaltyOption = "loo",
    seed: Seed = 0,
    workers: Workers = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Tell what embeddings are worth: simple models on them beside raw statistics of the bands, by number of labels.

    Make embeddings with covermap embed CONFIG OUT.parquet. Budgets are nested, test chips are blocks of ground with
    their neighbours left out; the same command goes on where it was stopped.

    Example: covermap probe galileo.parquet probed/ --repeats 20
    Example: covermap probe galileo.parquet probed/ --areas place --penalty once
    """
    from covermap.core.errors import ConfigError
    from covermap.verbs.probe import ProbeSettings
    from covermap.verbs.probe import probe as work

    if len(files) < 2:
        raise ConfigError("the folder for the results is missing", fix="covermap probe EMBEDDINGS.parquet OUT/")
    *given, out = files
    settings = ProbeSettings(
        tuple(name.strip() for name in models.split(",")), target, areas, _numbers(budgets), repeats, share, block,
        folds, _penalty(penalty), seed,
    )  # fmt: skip
    with show.progress("probing") as tick:
        found = work(given, out, settings, workers=workers, overwrite=overwrite, on_progress=tick)
    if as_json:
        show.as_json({"out": str(found.out), "rows": found.rows, "notes": found.notes})
    else:
        _tell(found)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from covermap.core.errors import ConfigError

    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--budgets {text} are no whole numbers", fix="write --budgets 25,50,100") from error


def _penalty(text: str) -> Penalty:
    from covermap.core.errors import ConfigError

    if text in ("loo", "once"):
        return text  # type: ignore[return-value]
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise ConfigError(f"--penalty {text} is neither loo, once nor a number above 0", fix="leave it out: loo")
    return value


def _tell(found: Probed) -> None:
    from covermap.verbs.probe import ALL_TARGETS, ELSEWHERE

    rows = [row for row in found.rows if row["target"] == ALL_TARGETS]
    scores = [key[:-5] for key in rows[0] if key.endswith("_mean")]
    several = len(found.areas) > 1

    def cell(row: dict[str, Any], score: str) -> str:
        mean, spread = row[f"{score}_mean"], row[f"{score}_stddev"]
        if mean is None:
            return "-"
        return f"{mean:.3f}" + ("" if spread is None else f" ±{spread:.3f}")

    shown = rows if not several else [r for r in rows if r["area"] in (r["test"], f"{ELSEWHERE} of {r['test']}")]
    head = [*(["learnt from", "scored in"] if several else []), "model", "labels", *scores]
    cells = [
        [*([row["area"], row["test"]] if several else []), row["probe"], row["n"], *(cell(row, s) for s in scores)]
        for row in shown
    ]
    show.table(cells, head, title=f"{found.num_chips:,} chips, {found.dimensions} features, all targets together")
    if found.num_undefined:
        typer.echo(f"{found.num_undefined:,} of {found.num_fits:,} correlations are undefined: something is constant")
    show.notes(found.notes)
    show.wrote([found.out / "scores.parquet", found.out / "scores.csv"])
