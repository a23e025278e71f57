"""`covermap sample`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import one_of

Expected = Annotated[
    str, typer.Option(help="Expected user's accuracy, one for all or by class: 0.9, or 'forest=0.95,water=0.8'.")
]
Method = Annotated[
    str,
    typer.Option(
        help="stratified (by the map's classes), random, systematic or cluster.",
        autocompletion=one_of("stratified", "random", "systematic", "cluster"),
    ),
]
Allocation = Annotated[
    str,
    typer.Option(
        help="mixed (proportional, with a floor for rare classes), proportional, equal or neyman.",
        autocompletion=one_of("mixed", "proportional", "equal", "neyman"),
    ),
]


def sample(
    source: Annotated[str, typer.Argument(help="Map of classes.", metavar="MAP.tif")],
    out: Annotated[str, typer.Argument(help="Points to write: .gpkg or .csv.", metavar="OUT")],
    num: Annotated[int | None, typer.Option(help="Points to draw; default: as many as --target-se needs.")] = None,
    target_se: Annotated[float, typer.Option(help="Wanted standard error of overall accuracy.")] = 0.01,
    expected: Expected = "0.9",
    method: Method = "stratified",
    allocation: Allocation = "mixed",
    floor: Annotated[int, typer.Option(help="With mixed: least points of a class.")] = 50,
    strata: Annotated[str | None, typer.Option(help="Raster of strata on the map's grid, if not its classes.")] = None,
    cluster_px: Annotated[int, typer.Option(help="With cluster: side of a square in px.")] = 100,
    per_cluster: Annotated[int, typer.Option(help="With cluster: points in each square.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the random draw.")] = 0,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Draw points of a map at random for a person to interpret; covermap assess tells areas and accuracy from them.

    Fill the column `reference` with codes or names of classes. OUT.design.json must stay beside the points.

    Examples: covermap sample map.tif sample.gpkg --target-se 0.01 · covermap sample map.tif s.csv --num 640 --floor 75
    """
    from covermap.verbs.sample import Plan
    from covermap.verbs.sample import sample as work

    plan = Plan(
        method=method, num=num, target_se=target_se, expected=_expected(expected), allocation=allocation, floor=floor,
        cluster_px=cluster_px, per_cluster=per_cluster, seed=seed,
    )  # fmt: skip
    with show.progress("drawing") as tick:
        done = work(source, out, plan, strata=strata, overwrite=overwrite, on_progress=tick)
    rows = [part.model_dump() for part in done.design.strata]
    for row, half in zip(rows, done.expected_ci95, strict=False):
        row["expected_ci95"] = round(half, 4)
    if as_json:
        found = {"files": list(done.files), "method": plan.method, "num_samples": done.design.num_samples}
        show.as_json(found | {"clusters": len(done.design.clusters), "strata": rows})
        return
    show.table([list(row.values()) for row in rows], list(rows[0]), title=f"{done.design.num_samples:,} points")
    if done.expected_ci95:
        typer.echo("expected_ci95: half the 95 % interval of a class's user's accuracy, if it is as expected")
    show.wrote(done.files)


def _expected(text: str) -> float | dict[str, float]:
    """0.9, or name=0.9,other=0.8."""
    from covermap.core.errors import ConfigError

    try:
        if "=" not in text:
            return float(text)
        pairs = [part.rsplit("=", 1) for part in text.split(",") if part.strip()]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError as error:
        raise ConfigError(f"--expected {text!r} is no accuracy", fix="write 0.9, or forest=0.95,water=0.8") from error
