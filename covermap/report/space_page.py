"""The page of an embedding space: distances of regions, what they cost, chips as points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.metrics.mantel import LEAST, Rising
from covermap.report.drawing import WRONG
from covermap.report.space_figures import TOLD, Groups, Shaded, against_error, clouds, heats
from covermap.report.study_page import Section, write_study_page

Floats = npt.NDArray[np.float64]
NAMED = {"centroid": "centroid distance", "frechet": "Fréchet distance", "mmd": "MMD²", "knn": "own among 10 nearest"}
_LABEL = 44
"""Characters of a label beside a figure."""
_SHOWN = 3000
"""Chips that are drawn, at most."""


class Words(NamedTuple):
    """What was found, in sentences: the answer, then of distances, transfer, what distance costs, and position."""

    lead: str
    distances: str
    transfer: str
    cost: str
    positional: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """All but the answer, which stands among them."""
        return [line for line in (self.distances, self.transfer, self.cost, *self.positional) if line]


@dataclass(frozen=True)
class SpaceFound:
    """What the page shows. matrices: distances (R, R) by name. error, r2, extra (R, R): None without targets.

    coordinates: (n, 2) of the sample's chips by the name of the projection, with the words of its axes.
    """

    title: str
    names: Sequence[str]
    sizes: Sequence[int]
    matrices: Mapping[str, Floats]
    methods: str
    error: Floats | None
    r2: Floats | None
    extra: Floats | None
    unit: str
    rising: Mapping[str, Rising]
    coordinates: Mapping[str, tuple[Floats, tuple[str, str]]]
    groups: Sequence[Groups]
    positional: Sequence[tuple[str, str]]
    words: Words
    doubts: Sequence[str]
    notes: Sequence[str]
    facts: Sequence[tuple[str, str]]


def write_space_page(path: Path, found: SpaceFound) -> Path:
    """Write the page, self-contained; raises OutputError."""
    sections = [_distances(found), *_transfer(found), *_clouds(found), _positional(found)]
    return write_study_page(
        path, found.title, kind="embedding space", sentence=found.words.lead, sections=sections, notes=found.notes,
        doubts=found.doubts, facts=found.facts,
    )  # fmt: skip


def _distances(found: SpaceFound) -> Section:
    figure = heats(found.names, {NAMED[name]: Shaded(matrix) for name, matrix in found.matrices.items()})
    named = [name if len(found.names) <= TOLD else f"{i}  {name}" for i, name in enumerate(found.names, 1)]
    rows = [
        [name, f"{size:,}", *_nearest(found, i)] for i, (name, size) in enumerate(zip(named, found.sizes, strict=True))
    ]
    head = ["region", "chips", "nearest (Fréchet)", "distance", "farthest (Fréchet)", "distance"]
    return Section("Regions against each other", found.words.distances, head, rows, 1, figure, found.methods)


def _nearest(found: SpaceFound, region: int) -> list[str]:
    row = found.matrices["frechet"][region]
    ends = (int(np.nanargmin(row)), int(np.nanargmax(row)))
    return [text for end in ends for text in (found.names[end], f"{row[end]:.3f}")]


def _transfer(found: SpaceFound) -> list[Section]:
    if found.error is None or found.r2 is None or found.extra is None:
        return []
    matrices = {f"error ({found.unit})": Shaded(found.error, WRONG), "R2": Shaded(found.r2, low=0.0, high=1.0)}
    carried = Section(
        "Learnt here, told there", found.words.transfer,
        figure=heats(found.names, matrices, across="told in", down="learnt in"),
        caption="Ridge probes, penalty by leaving one chip out. On the diagonal blocks of ground of the region itself "
        "are held out with their neighbours, until each chip was; these learn from fewer chips. White: undefined. R2 "
        "below 0 is worse than the mean of what is told.",
    )  # fmt: skip
    if not any(math.isfinite(rising.correlation) for rising in found.rising.values()):
        return [carried]
    rows = [[NAMED[name], *_told(rising)] for name, rising in found.rising.items()]
    panels = {
        NAMED[name]: (found.matrices[name], f"rank correlation {_number(rising.correlation)}" + _p(rising.p))
        for name, rising in found.rising.items()
    }
    figure = against_error(panels, found.extra, found.names, y=_extra(found.unit))
    head = ["distance", "rank correlation", "p", "pairs", "undefined"]
    words = (
        "A point is a region that was learnt in and one that was told: the error there, less the error of a probe that "
        "learnt in that region itself. p is the share of relabellings of whole regions with a correlation at least as "
        "large (Mantel 1967): pairs of regions are not independent, and count less than as many points would. "
        "Drawn: of relabellings at random, where there are too many for all."
    )
    few = f"Of fewer than {LEAST} regions no p is told." if len(found.names) < LEAST else ""
    return [carried, Section("Does distance cost?", f"{found.words.cost} {few}".strip(), head, rows, 1, figure, words)]


def _extra(unit: str) -> str:
    """A label as long as an axis is high; the unit stands at the errors above too."""
    label = f"extra error ({unit})"
    return label if len(label) <= _LABEL else "extra error"


def _clouds(found: SpaceFound) -> list[Section]:
    some = np.random.default_rng(0).permutation(len(found.groups[0].group))[:_SHOWN]
    drawn = [panel._replace(group=panel.group[some]) for panel in found.groups]
    return [
        Section(f"Chips as points: {name}", figure=clouds(points[some], drawn, words),
                caption=f"{len(some):,} chips, drawn at random. {CAUTION[name]}")
        for name, (points, words) in found.coordinates.items()
    ]  # fmt: skip


CAUTION = {
    "principal components": "Two components show a part of the variance only (axes): what overlaps here may lie apart.",
    "UMAP": "UMAP keeps neighbours; distances between clouds, and their sizes, tell nothing.",
}


def _positional(found: SpaceFound) -> Section:
    text = (
        "Share of the variance of chips' cells that follows from where in the chip they lie (eta squared, position as "
        "the factor). What exceeds chance is a pattern of the encoder or of how chips are cut, not of the ground."
    )
    return Section("Positional patterns", text, ["file", "position tells"], found.positional, 2)


def _told(rising: Rising) -> list[str]:
    p = "–" if rising.p != rising.p else f"{rising.p:.4f}" + ("" if rising.exact else " (drawn)")
    return [_number(rising.correlation), p, f"{rising.pairs:,}", f"{rising.undefined:,}"]


def _number(value: float) -> str:
    return "undefined" if value != value else f"{value:.2f}"


def _p(value: float) -> str:
    return "" if value != value else f", p = {value:.3f}" if value >= 0.001 else ", p < 0.001"
