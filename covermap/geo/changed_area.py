"""What a step of post-processing did to the area of each class: before, after, gained, lost; in hectares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE, Legend
from covermap.geo.grid import Grid, Window
from covermap.geo.legend_files import csv_text
from covermap.geo.patches import Index, PixelAreas

COLUMNS = ("class", "code", "before_ha", "after_ha", "gained_ha", "lost_ha")


@dataclass(frozen=True)
class ChangedArea:
    """Hectares of each class in legend order, of one step. Gained and lost do not cancel out; ground has one class."""

    step: str
    legend: Legend
    before_ha: tuple[float, ...]
    gained_ha: tuple[float, ...]
    lost_ha: tuple[float, ...]

    @property
    def changed_ha(self) -> float:
        """Hectares that have another class than before."""
        return sum(self.gained_ha)

    @property
    def share(self) -> float:
        """Of the ground that has a class."""
        return self.changed_ha / (sum(self.before_ha) or 1.0)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each class, by COLUMNS."""
        each = zip(self.legend.classes, self.before_ha, self.gained_ha, self.lost_ha, strict=True)
        return [
            dict(zip(COLUMNS, (c.name, c.code, *(round(v, 4) for v in (b, b + g - x, g, x))), strict=True))
            for c, b, g, x in each
        ]

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        summary = {"step": self.step, "changed_ha": round(self.changed_ha, 4), "share": round(self.share, 6)}
        return summary | {"classes": self.rows}


class ChangeCounter:
    """Counts strips of a map before and after a step, by the true areas of pixels."""

    def __init__(self, grid: Grid, legend: Legend) -> None:
        self._areas, self._legend = PixelAreas.of(grid), legend
        self._moved = np.zeros((len(legend), len(legend)), np.int64)

    def add(self, window: Window, before: Index, after: Index) -> None:
        """Take in class indices (H, W) of whole rows; where there was no class nothing is counted."""
        known = before != IGNORE
        size = len(self._legend)
        keys = before[known].astype(np.intp) * size + after[known]
        units = np.broadcast_to(self._areas.units[window.row :][: window.height, None], before.shape)[known]
        moved = np.bincount(keys, weights=units, minlength=size * size)
        self._moved += moved.astype(np.int64).reshape(size, size)

    def result(self, step: str) -> ChangedArea:
        """All strips so far."""
        kept = np.diag(self._moved)
        sums = (self._moved.sum(1), self._moved.sum(0) - kept, self._moved.sum(1) - kept)
        return ChangedArea(step, self._legend, *(_hectares(units, self._areas.unit_ha) for units in sums))


def _hectares(units: npt.NDArray[np.int64], unit_ha: float) -> tuple[float, ...]:
    return tuple((units * unit_ha).tolist())


def changes_beside(out: Path) -> Path:
    """Where the table of an output's changes lies: as its areas do."""
    return out.with_name("changed.csv" if out.stem == "map" else f"{out.stem}.changed.csv")


def changes_text(changes: Sequence[ChangedArea]) -> str:
    """All steps as one CSV table."""
    rows = [
        (change.step, row["class"], row["code"], *(f"{row[name]:.4f}" for name in COLUMNS[2:]))
        for change in changes
        for row in change.rows
    ]
    return csv_text(("step", *COLUMNS), rows)
