"""What a ridge probe that learns in one region is worth in another, and in ground of its own that it has not seen.

Everything of a region is learnt from for another. Inside of one, blocks of ground are held out fold by fold with their
neighbours left out, until each chip was held out once: both errors of a region are of the same chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from covermap.data.chip_regions import ChipRegions
from covermap.data.labelled_chips import TEST, TRAIN, Kind, LabelledChips
from covermap.ml.probes import one_hot
from covermap.ml.ridge import Floats, Linear, RidgePath

_FOLDS, _LEAST, _MOST = 5, 5, 2000
"""Folds of a region, and chips that a probe learns from: at least and, drawn by seed, at most."""


@dataclass(frozen=True)
class Transfer:
    """error, r2 and num_train (R, R) of probes that learnt in the region of the row, in that of the column.

    NaN where undefined. num_test (R,). unit: of the error. targets: names of what is told. notes: what was left out.
    """

    error: Floats
    r2: Floats
    num_train: npt.NDArray[np.intp]
    num_test: npt.NDArray[np.intp]
    unit: str
    targets: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def extra(self) -> Floats:
        """(R, R): error minus the local error of the column's region.

        NaN on the diagonal, and of regions whose targets do not vary: to tell them is no art at home.
        """
        found = self.error - np.diag(self.error)
        found[:, np.isnan(self.r2).all(0)] = np.nan
        np.fill_diagonal(found, np.nan)
        return np.asarray(found)


def transfer(
    regions: ChipRegions, *, target: Kind, block: int, seed: int, on_region: Callable[[], None] = lambda: None
) -> Transfer:
    """Probe all pairs of regions; raises DataError where no chip has a target, ConfigError where none of this kind is.

    All targets count together: r2 is 1 - sum of all squared errors / sum of all squares about the region's means.
    """
    chips = LabelledChips.of(regions.chips, target=target, areas="place")
    unit, sides, notes = _sides(chips)
    count = len(regions.names)
    error, r2 = np.full((count, count), np.nan), np.full((count, count), np.nan)
    learnt, sizes = np.zeros((count, count), np.intp), np.bincount(chips.area, minlength=count)
    rng = np.random.default_rng(seed)
    held = list[str]()
    rows = [np.flatnonzero(chips.area == i) for i in range(count)]
    for a, name in enumerate(regions.names):
        of = rng.permutation(rows[a])[:_MOST]
        if len(of) >= _LEAST:
            line = _fit(chips, sides, of)
            for b in range(count):
                if a != b and len(rows[b]):
                    error[a, b], r2[a, b] = _scores(chips, sides, rows[b], line.predict(chips.values[rows[b]]))
                    learnt[a, b] = len(of)
        told = _held_out(chips, sides, rows[a], name, block, seed)
        if told is None:
            held.append(name)
        else:
            error[a, a], r2[a, a] = _scores(chips, sides, rows[a], told[0])
            learnt[a, a] = told[1]
        on_region()
    flat = [
        name for name, known, told in zip(regions.names, ~np.isnan(error).all(0), ~np.isnan(r2).all(0), strict=True)
        if known and not told
    ]  # fmt: skip
    if flat:
        notes.append(
            f"{', '.join(flat[:8])}: all chips are alike in what is told of them, so that extra errors there say "
            "nothing of distance: they are left out"
        )
    if held:
        notes.append(
            f"{len(held):,} regions have too little ground to hold some of it out: their local error is not known "
            f"(smaller --block, now {block}): {', '.join(held[:8])}"
        )
    if (chips.ground[:, 1] < 0).any():
        notes.append(
            "where chips lie in their scenes is not known: those held out may lie beside those learnt from, and local "
            "errors be too small"
        )
    return Transfer(error, r2, learnt, sizes, unit, chips.names, (*chips.notes, *notes))


def _sides(chips: LabelledChips) -> tuple[str, Floats, list[str]]:
    """The unit of errors, and targets (N, T): numbers, of several names each in its standard deviation, or 0 and 1."""
    if chips.num_classes is not None:
        return "share of chips told wrongly", one_hot(chips.targets, chips.num_classes), []
    targets = chips.targets.astype(np.float64)
    shares = bool(((targets >= 0) & (targets <= 1)).all())
    if shares or targets.shape[1] == 1:
        return "RMSE", targets, []
    spread = targets.std(0)
    return "RMSE in standard deviations of each target", targets / np.where(spread > 0, spread, 1), []


def _fit(chips: LabelledChips, sides: Floats, of: npt.NDArray[np.intp]) -> Linear:
    """Ridge, its penalty of each target by leaving one chip out."""
    path = RidgePath.of(chips.values[of], sides[of])
    return path.fit(path.choose())


def _held_out(
    chips: LabelledChips, sides: Floats, of: npt.NDArray[np.intp], name: str, block: int, seed: int
) -> tuple[Floats, int] | None:
    """Answers (n, T) for the chips of a region, each by a probe that saw none near it; the fewest chips learnt from.

    None where a fold leaves too few.
    """
    mine = replace(
        chips, values=chips.values[of], raw=None, targets=chips.targets[of], area=np.zeros(len(of), np.intp),
        areas=(name,), ground=chips.ground[of],
    )  # fmt: skip
    everything = np.arange(len(of))
    folds = min(_FOLDS, len(np.unique(mine.blocks(everything, block), axis=0)))
    if folds < 2:
        return None
    answers, least = np.full((len(of), sides.shape[1]), np.nan), len(of)
    for fold in range(folds):
        role = mine.roles(share=0.5, block=block, seed=seed, folds=folds, fold=fold)
        train = of[role == TRAIN]
        if len(train) < _LEAST:
            return None
        train = np.random.default_rng([seed, fold]).permutation(train)[:_MOST]
        answers[role == TEST] = _fit(chips, sides, train).predict(mine.values[role == TEST])
        least = min(least, len(train))
    return answers, least


def _scores(chips: LabelledChips, sides: Floats, of: npt.NDArray[np.intp], answers: Floats) -> tuple[float, float]:
    """Error and r2, NaN where the targets of these chips are constant."""
    squares = float(((answers - sides[of]) ** 2).sum())
    about = float(((sides[of] - sides[of].mean(0)) ** 2).sum())
    r2 = 1 - squares / about if about > 1e-12 * max(float((sides[of] ** 2).sum()), 1e-300) else float("nan")
    if chips.num_classes is not None:
        return float((answers.argmax(1) != chips.targets[of]).mean()), r2
    return float(np.sqrt(squares / sides[of].size)), r2
