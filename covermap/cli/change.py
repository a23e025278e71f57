"""`covermap change`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from covermap.cli import show
from covermap.cli.completion import legends
from covermap.core.table import Table

if TYPE_CHECKING:
    from covermap.verbs.change import Changes
    from covermap.verbs.transitions import Change

Files = Annotated[
    list[str],
    Argument(
        help="Two maps of classes or more in the order of time (or folders of the tiles of one; FILE@DATE states a "
        "date), then the map to write; of three maps or more a folder.",
        metavar="A.tif B.tif [C.tif ...] OUT",
    ),
]
Stated = Annotated[
    list[str] | None,
    Option("--legend", help="Legend of maps that do not say it; once, or once for each.", autocompletion=legends),
]
As = Annotated[
    str | None, Option("--as", help="Legend to compare in, such as ipcc.", autocompletion=legends, metavar="LEGEND")
]
Own = Annotated[list[str] | None, Option("--crosswalk", help="Crosswalk of your own (YAML); may be repeated.")]
Merge = Annotated[list[str] | None, Option(help="Classes as one: 'built=low building,high building'; may be repeated.")]
To = Annotated[str | None, Option("--to", help="Map only changes to these classes, with commas: building,road.")]
From = Annotated[str | None, Option("--from", help="Map only changes from these classes.")]
Binary = Annotated[
    bool, Option("--binary", help="The map says only 1 unchanged, 2 changed; with --to: 1 'not to', 2 'to'.")
]
MinArea = Annotated[str | None, Option(help="Patches of one change below it are unchanged: 1ha, 500m2 or 9px.")]
Connectivity = Annotated[int, Option(help="What touches: 4 (edges) or 8 (and corners).")]
Impossible = Annotated[
    list[str] | None,
    Option(help="Changes that cannot be, 'water>built' or 'built>*', or a CSV or YAML file; counted, then unchanged."),
]
Accuracy = Annotated[
    str | None, Option(help="Overall accuracy of each map, 0.9,0.85, or its assessment.json: how much change is false?")
]
Tolerance = Annotated[
    int | None,
    Option(metavar="PX", help="Change that a shift by so many pixels explains is none; usually 1. Before --min-area."),
]
Probabilities = Annotated[
    bool,
    Option(
        "--probabilities",
        help="Read the probabilities that predict wrote beside maps: a layer of the probability of change, and with "
        "--prior all dates decided together.",
    ),
]
Prior = Annotated[
    str | None,
    Option(
        help="How often classes change, to decide all dates together: none (default, each date has the classes of its "
        "map), a CSV or YAML table (matrix.csv of change between labels), a share that stays (0.95), or estimate (from "
        "the probabilities, which have to be calibrated)."
    ),
]
Confidence = Annotated[float | None, Option(help="Change of a lower probability is none: 0.8.")]
Model = Annotated[
    str | None,
    Option(
        help="The files are images: map each by this model of segmentation or semantic_change first; the maps stay in "
        "OUT_maps/."
    ),
]
Bands = Annotated[str | None, Option(help="Names of the images' bands, where the files do not say them: blue,green.")]
_MOST_ROWS = 15


def change(
    files: Files,
    legend: Stated = None,
    target: As = None,
    crosswalk: Own = None,
    merge: Merge = None,
    to: To = None,
    from_: From = None,
    binary: Binary = False,
    min_area: MinArea = None,
    connectivity: Connectivity = 4,
    impossible: Impossible = None,
    accuracy: Accuracy = None,
    tolerance: Tolerance = None,
    probabilities: Probabilities = False,
    prior: Prior = None,
    confidence: Confidence = None,
    model: Model = None,
    bands: Bands = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Say what became what between maps of two or more dates: land cover change by cross classification.

    Writes the from-to map and, beside it, the transition matrix, gains and losses in hectares. Errors of both maps look
    like change too: --accuracy says how much; sample and assess give areas of change with intervals.

    Examples: covermap change 2018.tif 2022.tif change.tif ·
    covermap change a.tif b.tif change.tif --tolerance 1 --min-area 1ha ·
    covermap change a.tif b.tif built.tif --to building,road --binary · covermap change a.tif b.tif c.tif changes/ ·
    covermap change a.tif b.tif change.tif --probabilities --prior labels.matrix.csv --confidence 0.8 ·
    covermap change s2_2019.tif@2019 s2_2022.tif@2022 change.tif --model runs/cover
    """
    from covermap.verbs.change import change as work
    from covermap.verbs.change_rules import ChangeRules

    rules = ChangeRules(
        merge=tuple(merge or ()), origins=(from_,) if from_ else (), goals=(to,) if to else (), binary=binary,
        impossible=tuple(impossible or ()), min_area=min_area, connectivity=connectivity,
        tolerance=tolerance, confidence=confidence,
    )  # fmt: skip
    with show.progress("comparing") as tick:
        done = work(
            files[:-1], files[-1], legends=legend or (), target=target, crosswalks=crosswalk or (), rules=rules,
            accuracy=show.listed(accuracy) or (), probabilities=probabilities, prior=prior, model=model,
            bands=show.listed(bands),
            overwrite=overwrite, on_progress=tick,
        )  # fmt: skip
    if as_json:
        show.as_json(done.to_dict())
    else:
        _tell(done)


def _tell(done: Changes) -> None:
    for pair in done.pairs:
        _tell_pair(pair)
    for title, found in (("over all dates", done.trajectories), ("maps on their own", done.alone)):
        if found is not None:
            _tell_rates(title, found.rates, steps=found.num_dates > 2)
    if done.contradictions is not None and done.contradictions.rate > 0:
        typer.echo(
            f"the change maps contradict each other on {done.contradictions.rate:.2%} (rules look at pairs alone)"
        )
    show.notes((*done.notes, *(note for pair in done.pairs for note in pair.notes)))
    show.wrote(done.files)


def _tell_rates(title: str, rates: dict[str, Any], *, steps: bool) -> None:
    more = f", {rates['changed_more']:.1%} more often; flicker (A-B-A) on {rates['flicker']:.2%}" if steps else ""
    typer.echo(
        f"{title}: {rates['stable']:.1%} stable, {rates['changed_once']:.1%} changed{' once' if steps else ''}{more}; "
        f"impossible steps on {rates['impossible']:.2%}"
    )


def _tell_pair(found: Change) -> None:
    transitions, classes = found.tables
    largest = Table(transitions.head, transitions.rows[:_MOST_ROWS])
    more = f", the largest {_MOST_ROWS} of {len(transitions.rows)}" if len(transitions.rows) > _MOST_ROWS else ""
    typer.echo(f"{transitions.title}{more}")
    if largest.rows:
        show.draw(largest)
    show.draw(classes)
    typer.echo(found.sentence)
    if found.mapped.total != found.changed.total:
        typer.echo(f"asked for and in the map: {found.mapped.total['area_ha']:,.1f} ha")
    if found.num_patches:
        typer.echo(f"{found.num_patches[1]:,} of {found.num_patches[0]:,} patches of change are below the least area")
    for side, lost in found.lost.items():
        if lost:
            listed = ", ".join(f"{each['name']} {each['area_ha']:,.1f} ha" for each in lost)
            typer.echo(f"no counterpart ({side}), ignored: {listed}")
    if found.expected:
        typer.echo(f"false change: {found.expected['in_words']}")
    if found.expected_errors:
        typer.echo(f"expected errors: {found.expected_errors['in_words']}")
