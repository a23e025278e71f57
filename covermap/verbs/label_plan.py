"""`study plan`: which chips to label next, and what score to expect of so many more labels, from those there are.

    embeddings -> pilot (chips with a target) and candidates (without) -> choice by a strategy -> OUT for a GIS
                  pilot -> held-out scores by size -> a curve, extrapolated                    -> OUT.plan.json

Chips of the test part are left alone: they are neither learnt from nor chosen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, OutputError
from covermap.core.output import claim, only_with, require_no_input, write_text
from covermap.core.run import checksum, plain
from covermap.data.embeddings import Embeddings, parquet
from covermap.data.given_labels import with_labels
from covermap.data.labelled_chips import (
    EVERYWHERE,
    TEST,
    TRAIN,
    Kind,
    LabelledChips,
    ground_of,
    places_of,
    targets_of,
)
from covermap.geo.polygon_file import TABLE_SUFFIXES, write_table
from covermap.ml.learning_curve import Expected, HeldOut, curve_of, expect, hold_out, require_pilot
from covermap.ml.next_labels import NEED_PILOT, choose, doubts_of_classes, doubts_of_numbers, require_strategy
from covermap.ml.ridge_bank import one_thread

WHY = {"stratum": "stands for its cluster", "doubt": "the model is in doubt", "far": "unlike all that is labelled"}
_SHARE = 0.95
_SAMPLE = 500
"""Chips that stand for all ground."""


@dataclass(frozen=True)
class LabelPlanSettings:
    """What is asked. strategy: mixed, or stratified where the pilot is too small, unless named. block: side of the
    blocks of ground that are held out together, in chips.
    """

    budget: int = 300
    strategy: str | None = None
    target: Kind = "auto"
    block: int = 4
    seed: int = 0


@dataclass
class LabelPlan:
    """What is to be labelled, and what to expect. score: accuracy or r2; enough: labels more that reach 95 % of limit,
    None beyond a million.
    """

    files: tuple[Path, ...]
    strategy: str
    num_pilot: int
    num_candidates: int
    rows: list[dict[str, Any]]
    score: str
    now: Expected | None = None
    expected: Expected | None = None
    limit: float | None = None
    enough: int | None = None
    curve: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Chips:
    """All chips that may be learnt from or chosen: targets of the embeddings, and which are labelled (N,)."""

    found: Embeddings
    rows: npt.NDArray[np.intp]
    targets: npt.NDArray[Any]
    names: tuple[str, ...]
    classes: bool
    ground: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.bool_]

    @property
    def values(self) -> npt.NDArray[np.float32]:
        return self.found.values[self.rows]

    @property
    def num_classes(self) -> int | None:
        return len(self.names) if self.classes else None


def plan_labels(
    paths: Sequence[str | Path],
    out: str | Path,
    settings: LabelPlanSettings | None = None,
    *,
    labels: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> LabelPlan:
    """Choose chips of embeddings by one encoder; writes OUT (.gpkg, .geojson, .csv) and OUT.plan.json.

    labels: tables that a former plan wrote, whose column `reference` has been filled. Raises DataError, ConfigError,
    OutputError, MissingExtra.
    """
    settings, out = settings or LabelPlanSettings(), Path(out)
    beside = out.with_suffix(".plan.json")
    if out.suffix.lower() not in TABLE_SUFFIXES:
        raise OutputError(f"{out} does not end in {', '.join(TABLE_SUFFIXES)}", fix="name it next.gpkg")
    if settings.strategy is not None:
        require_strategy(settings.strategy)
    if settings.budget < 1 or settings.block < 1 or settings.seed < 0:
        raise ConfigError("a budget and a block count from 1, a seed from 0", fix="--budget 300 --block 4 --seed 0")
    require_no_input([out, beside], [*paths, *labels])
    for path in (out, beside):
        claim(path, overwrite=overwrite)
    found = plan_chips(Embeddings.read_all(paths), settings, labels=labels)
    found.files = (out, beside)
    shapes = _shapes(paths, found.rows, out)
    facts = {key: value for key, value in asdict(found).items() if key not in ("files", "rows")}
    asked = {**asdict(settings), "strategy": found.strategy, "embeddings": {str(p): checksum(p) for p in paths}}
    write_text(beside, json.dumps(plain({"settings": asked, **facts}), indent=2) + "\n")
    with only_with(beside):
        write_table(found.rows, shapes, out)
    return found


def plan_chips(found: Embeddings, settings: LabelPlanSettings, *, labels: Sequence[str | Path] = ()) -> LabelPlan:
    """The plan of embeddings in memory, not written; `number` of its rows: of the chip. Raises as plan_labels does."""
    chips, notes = _chips(found, labels, settings)
    with one_thread():
        return _plan(chips, settings, notes)


def _chips(
    found: Embeddings, labels: Sequence[str | Path], settings: LabelPlanSettings
) -> tuple[_Chips, list[str]]:  # fmt: skip
    """Chips with and without a target; raises DataError where none or fewer than the budget are left to label."""
    notes: list[str] = []
    if labels:
        targets, names = with_labels(found, labels, settings.target)
        classes = True
    elif settings.target == "auto" and found.numbers is None and found.labels is None and found.class_pixels is None:
        targets, names, classes = np.full(len(found), -1), (), True
    else:
        targets, names, classes, notes = targets_of(found, settings.target)
    known = np.asarray((targets >= 0) if classes else np.isfinite(targets).all(1))
    whole, tested = np.isfinite(found.values).all(1), np.array(found.part) == "test"
    for odd, what in ((~whole, "have embeddings that are no numbers"), (whole & tested, "are of the test part")):
        if odd.any():
            notes.append(f"{int(odd.sum()):,} chips {what}: they are neither learnt from nor chosen")
    rows = np.flatnonzero(whole & ~tested)
    left = int((~known[rows]).sum())
    if not left:
        raise DataError(
            f"all {len(rows):,} chips of {found.source} have a target: none is left to label",
            fix="embed chips without labels too; how many labels pay is told by covermap probe",
        )
    if settings.budget > left:
        raise DataError(
            f"{settings.budget:,} chips are to be chosen, {left:,} are not labelled", fix=f"--budget {left}"
        )
    return _Chips(found, rows, targets[rows], names, classes, ground_of(found)[rows], known[rows]), notes


def _plan(chips: _Chips, settings: LabelPlanSettings, notes: list[str]) -> LabelPlan:
    of, strategy = np.flatnonzero(chips.labelled), settings.strategy
    usable = True
    try:
        require_pilot(chips.targets[of], classes=chips.classes)
    except DataError as error:
        usable = False
        notes.append(f"no score can be told: {error.message} ({error.fix})")
        if strategy in NEED_PILOT:
            raise DataError(
                f"strategy {strategy} asks where a model is in doubt: {error.message}",
                fix="--strategy stratified or diversity, and label those first",
            ) from error
    strategy = strategy or ("mixed" if usable else "stratified")
    doubts = predicted = None
    if usable:
        doubts, predicted = _doubts(chips, of)
    chosen = choose(strategy, chips.values, chips.ground, chips.labelled, settings.budget,
                    doubts=doubts, seed=settings.seed)  # fmt: skip
    rows = []
    for rank, (i, reason) in enumerate(zip(chosen.order.tolist(), chosen.reasons, strict=True), 1):
        told = "" if predicted is None else _told(chips, predicted[i])
        doubt = None if doubts is None else round(float(doubts[i]), 4)
        rows.append({
            "id": chips.found.ids[chips.rows[i]], "rank": rank, "stratum": int(chosen.stratum[i]), "why": WHY[reason],
            "predicted": told, "doubt": doubt, **_place(chips, i), "reference": "", "number": int(chips.rows[i]),
        })  # fmt: skip
    score = "accuracy" if chips.classes else "r2"
    found = LabelPlan((), strategy, len(of), int((~chips.labelled).sum()), rows, score, notes=notes)
    if usable:
        _tell_score(found, _held_out(chips, of, settings), settings)
    return found


def _doubts(
    chips: _Chips, of: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:  # fmt: skip
    values = chips.values
    if chips.num_classes is not None:
        return doubts_of_classes(values[of], chips.targets[of], chips.num_classes, values)
    return doubts_of_numbers(values[of], chips.targets[of], values)


def _told(chips: _Chips, answers: npt.NDArray[np.float64]) -> str:
    """The class, or the largest numbers with their names."""
    if chips.classes:
        return chips.names[int(answers.argmax())]
    return ", ".join(f"{chips.names[i]} {answers[i]:.3g}" for i in np.argsort(-answers)[:3])


def _place(chips: _Chips, i: int) -> dict[str, Any]:
    found, row = chips.found, chips.rows[i]
    left, upper = found.pixel_bbox[row, :2].tolist()
    known = found.centre is not None and np.isfinite(found.centre[row]).all()
    lat, lon = found.centre[row].tolist() if known and found.centre is not None else (None, None)
    return {"scene": found.scene[row], "row": upper if left >= 0 else None, "col": left if left >= 0 else None,
            "lon": lon, "lat": lat}  # fmt: skip


def _held_out(chips: _Chips, of: npt.NDArray[np.intp], settings: LabelPlanSettings) -> HeldOut:
    """Held-out scores of the pilot, by blocks of ground with their neighbours left out."""
    targets = chips.targets[of]
    pilot = LabelledChips(chips.values[of], None, targets, chips.names, chips.classes, np.zeros(len(of), np.intp),
                          (EVERYWHERE,), chips.ground[of], None, (),
                          places_of(chips.found, chips.rows[of]))  # fmt: skip
    side = settings.block
    everyone = np.arange(len(of))
    while True:
        blocks = np.unique(pilot.blocks(everyone, side), axis=0, return_inverse=True)[1].reshape(-1)
        count = int(blocks.max()) + 1
        if count >= 10 or side == 1:
            break
        side //= 2
    folds, repeats = min(10 if len(of) <= 600 else 5, count), max(1, min(5, 1500 // len(of)))
    if folds < 2:
        raise DataError("all labelled chips lie at one place: none can be held out", fix="label chips elsewhere too")
    parts = [pilot.roles(share=0, block=side, seed=settings.seed + repeat, folds=folds, fold=fold)
             for repeat in range(repeats) for fold in range(folds)]  # fmt: skip
    splits = [(np.flatnonzero(part == TRAIN), np.flatnonzero(part == TEST)) for part in parts]
    sample = np.random.default_rng(settings.seed).permutation(len(chips.rows))[:_SAMPLE]
    return hold_out(
        pilot.values, targets, splits, blocks, num_classes=chips.num_classes, candidates=chips.values[sample],
        seed=settings.seed,
    )  # fmt: skip


def _tell_score(found: LabelPlan, held: HeldOut, settings: LabelPlanSettings) -> None:
    """Add the score now, the one to be expected, and the curve."""
    pilot, curve = found.num_pilot, curve_of(held)
    a, b, c = curve.best
    found.now = expect(held, pilot, seed=settings.seed)
    found.expected = expect(held, pilot + settings.budget, seed=settings.seed)
    found.limit = curve.limit
    if (times := 1 + settings.budget / pilot) > 2:
        found.notes.append(
            f"that is {times:.1f} times the pilot: expectations have been tried out up to twice as many labels only"
        )
    if curve.limit > 0 and np.isfinite(size := curve.size_for(_SHARE * curve.limit)):
        found.enough = max(0, int(size) - pilot)
    points = [{"labels": float(n), "score": float(s)} for n, s in zip(held.sizes, held.scores(), strict=True)]
    found.curve = {"a": a, "b": b, "c": c, "points": points}


def _shapes(paths: Sequence[str | Path], rows: list[dict[str, Any]], out: Path) -> list[Any]:
    """Footprints of the chosen chips, or their centres, in WGS 84, None where not known, [] for a CSV.

    Takes the number of its chip off each row.
    """
    import shapely

    numbers = [row.pop("number") for row in rows]
    if out.suffix.lower() == ".csv":
        return []
    files = [parquet().ParquetFile(path) for path in paths]
    shapes: list[Any] = []
    for file in files:
        if "geometry" not in file.schema_arrow.names:
            shapes += [None] * file.metadata.num_rows
            continue
        column = file.read(["geometry"]).column("geometry").to_pylist()
        shapes += [one if isinstance(one, bytes) else None for one in column]
    chosen = shapely.from_wkb(np.array([shapes[i] for i in numbers], object))
    for i, row in enumerate(rows):
        if chosen[i] is None and row["lon"] is not None:
            chosen[i] = shapely.Point(row["lon"], row["lat"])
    return list(chosen)
