"""What a comparison of two maps found: the matrix in both legends, agreement by class, and the tables of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.crosswalk import Crosswalk
from covermap.core.legend import Legend
from covermap.core.notebook import told
from covermap.core.output import write_text
from covermap.core.run import plain
from covermap.core.table import Table
from covermap.data.class_map import ClassMap
from covermap.geo.grid import Grid
from covermap.geo.legend_files import csv_text
from covermap.metrics.agreement import agreement_of, agreement_per_class

MANY_LOST = 0.1
"""Share of the ground without a counterpart from which on a note proposes a coarser legend."""


@dataclass(frozen=True)
class Comparison:
    """pixels, hectares (K1 + 1, K2 + 1): pairs of the maps' own classes, the last row and column for no data.

    one, two: the ways of the map and of the other to the legend in which they are compared. parts: into how many a side
    of the map's pixels is cut. Pixels are those of `grid`.
    """

    first: ClassMap
    other: ClassMap
    one: Crosswalk
    two: Crosswalk
    grid: Grid
    parts: int
    pixels: npt.NDArray[np.int64]
    hectares: npt.NDArray[np.float64]
    files: tuple[Path, ...] = ()

    @property
    def legend(self) -> Legend:
        """The legend in which the maps are compared."""
        return self.one.target

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """Hectares (K, K) in that legend: rows the map, columns the other, of ground where both have a class of it."""
        return self._joined(self.hectares)

    @cached_property
    def matrix_px(self) -> npt.NDArray[np.int64]:
        """The same in pixels."""
        return np.rint(self._joined(self.pixels)).astype(np.int64)

    def _joined(self, table: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(self.one.shares.T @ table[:-1, :-1] @ self.two.shares)

    @property
    def lost(self) -> dict[str, list[dict[str, Any]]]:
        """Classes without a counterpart, where the other map has a class: code, name and hectares, of each map."""
        inner = self.hectares[:-1, :-1]
        found = {}
        for key, way, areas in (("map", self.one, inner.sum(1)), ("other", self.two, inner.sum(0))):
            rows = zip(way.source.classes, way.codes, areas.tolist(), strict=True)
            found[key] = [{"code": c.code, "name": c.name, "ha": ha} for c, to, ha in rows if to is None and ha > 0]
        return found

    @property
    def classes(self) -> list[dict[str, Any]]:
        """A row for each class of the common legend; see metrics/agreement.py."""
        each = agreement_per_class(self.matrix)
        named = {"map_ha": "first", "other_ha": "other", "both_ha": "both", "of_map": "of_first",
                 "of_other": "of_other", "of_either": "of_either", "quantity_ha": "quantity",
                 "allocation_ha": "allocation"}  # fmt: skip
        return [
            {"code": c.code, "name": c.name, **{key: float(each[value][i]) for key, value in named.items()}}
            for i, c in enumerate(self.legend.classes)
        ]

    @property
    def table(self) -> Table:
        """The classes that either map has, with hectares and shares."""
        columns = {"code": "code", "name": "class", "map_ha": "map ha", "other_ha": "other ha", "both_ha": "both ha",
                   "of_map": "of map", "of_other": "of other", "of_either": "of either"}  # fmt: skip
        rows = [[row[key] for key in columns] for row in self.classes if row["map_ha"] or row["other_ha"]]
        return Table(list(columns.values()), rows, f"{self.first.name} and {self.other.name} as {self.legend.name}")

    @property
    def sentence(self) -> str:
        """How far they agree."""
        scores, ha = self.scores, self.matrix.sum()
        return (
            f"agreement {scores['agreement']:.1%} of {ha:,.1f} ha; disagreement in quantity "
            f"{scores['quantity_disagreement']:.1%}, in place {scores['allocation_disagreement']:.1%}"
        )

    def _repr_html_(self) -> str:
        return told([self.table], [self.sentence], self.notes)

    @property
    def scores(self) -> dict[str, float]:
        """agreement, quantity_disagreement, allocation_disagreement: shares of the compared hectares."""
        return agreement_of(self.matrix)

    @property
    def notes(self) -> list[str]:
        """What has to be known to read the numbers."""
        where = f"on the map's grid ({self.first.grid.describe()})"
        if self.parts > 1:
            rule = f"the other map is finer: compared {where}, each pixel cut into {self.parts} x {self.parts} parts"
        else:
            rule = f"compared {where}; the other map by nearest neighbour"
        found = [
            *self.first.notes,
            *self.other.notes,
            rule,
            "agreement is not accuracy: neither map is the truth, and both may be wrong",
        ]
        both = self.hectares[:-1, :-1].sum()
        share = 1 - self.matrix.sum() / both
        if share > MANY_LOST and self.legend.name != "ipcc":
            found.append(f"{share:.0%} of the ground has a class without counterpart: --as ipcc may keep more of it")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As it stands in comparison.json."""
        sides = {"map": (self.first, self.one), "other": (self.other, self.two)}
        ha = self.hectares
        return {
            **{
                key: {"path": side.name, "legend": side.legend.name, "date": side.date, "route": list(way.route)}
                for key, (side, way) in sides.items()
            },
            "legend": self.legend.name,
            "grid": self.grid.describe(),
            "parts": self.parts,
            **self.scores,
            "compared_px": int(self.matrix_px.sum()),
            "compared_ha": float(self.matrix.sum()),
            "no_counterpart_ha": float(ha[:-1, :-1].sum() - self.matrix.sum()),
            "only_map_ha": float(ha[:-1, -1].sum()),
            "only_other_ha": float(ha[-1, :-1].sum()),
            "classes": self.classes,
            "no_counterpart": self.lost,
            "matrix_ha": self.matrix.tolist(),
            "matrix_px": self.matrix_px.tolist(),
            "basis": list(dict.fromkeys(way.basis for way in (self.one, self.two) if way.basis)),
            "notes": self.notes,
            "files": [str(file) for file in self.files],
        }


def write_tables(found: Comparison, files: Mapping[str, Path]) -> None:
    """The tables and, last, the JSON file, each where `files` says."""
    names = found.legend.names
    head = list(found.classes[0])
    rows = [[_short(row[key]) for key in head] for row in found.classes]
    write_text(files["classes"], csv_text(head, rows))
    cells = [[name, *map(_short, row)] for name, row in zip(names, found.matrix.tolist(), strict=True)]
    write_text(files["matrix"], csv_text(["map \\ other", *names], cells))
    write_text(files["pairs"], csv_text(_PAIRS, list(_pairs(found))))
    write_text(files["comparison"], json.dumps(plain(found.to_dict()), indent=2) + "\n")


_PAIRS = ("map_code", "map_class", "other_code", "other_class", "pixels", "area_ha", "map_as", "other_as")


def _pairs(found: Comparison) -> Iterator[tuple[object, ...]]:
    """Each pair of the maps' own classes that occurs, the largest first, and what both are in the common legend."""
    sides = [[(row["code"], row["name"], row["to_name"] or "") for row in way.rows] for way in (found.one, found.two)]
    inner = found.pixels[:-1, :-1]
    for i, j in sorted(np.argwhere(inner).tolist(), key=lambda at: (-inner[at[0], at[1]], at)):
        (code, name, become), (other_code, other_name, other_become) = sides[0][i], sides[1][j]
        area = _short(float(found.hectares[i, j]))
        yield code, name, other_code, other_name, int(inner[i, j]), area, become, other_become


def _short(value: object) -> object:
    return f"{value:.4f}" if isinstance(value, float) else value
