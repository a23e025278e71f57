"""What became of what between two maps: the matrix, gains and losses, what was set aside, and the tables of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.crosswalk import Crosswalk
from covermap.core.from_to import FromTo
from covermap.core.legend import IGNORE, Legend
from covermap.core.notebook import told
from covermap.core.output import write_text
from covermap.core.run import plain
from covermap.core.table import Table, Tables
from covermap.data.class_map import ClassMap
from covermap.geo.grid import Grid, Window
from covermap.geo.legend_files import csv_text
from covermap.metrics.agreement import agreement_of
from covermap.metrics.temporal import ExpectedErrors, expected_false_share
from covermap.metrics.transition_matrix import class_changes
from covermap.verbs.change_rules import ChangeRules

MANY_LOST = 0.1
"""Share of the ground without a counterpart from which on a note proposes a coarser legend."""
NOT_CALIBRATED = (
    "the probabilities are not calibrated: P(change), the errors to be expected and a decision of all dates together "
    "cannot be relied on (of a model of classes: train with decision: {temperature: true} and predict again)"
)


@dataclass(frozen=True)
class Amount:
    """Pixels and hectares of transitions (K, K): rows are classes before, columns those after."""

    pixels: npt.NDArray[np.int64]
    hectares: npt.NDArray[np.float64]

    @property
    def total(self) -> dict[str, float]:
        return {"pixels": int(self.pixels.sum()), "area_ha": float(self.hectares.sum())}

    def where(self, chosen: npt.NDArray[np.bool_]) -> Amount:
        """The same, nothing for other transitions."""
        return Amount(np.where(chosen, self.pixels, 0), np.where(chosen, self.hectares, 0.0))

    def as_stable(self) -> Amount:
        """What counts as a class that stayed: sums of rows on the diagonal."""
        return Amount(np.diag(self.pixels.sum(1)), np.diag(self.hectares.sum(1)))

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.pixels + other.pixels, self.hectares + other.hectares)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.pixels - other.pixels, self.hectares - other.hectares)


@dataclass(frozen=True)
class ChangeProbability:
    """A raster of P(change) on the grid of a pair: floats, NaN where unknown, or whole percent, 255 where unknown.

    calibrated: whether a temperature was fitted to what it is made of.
    """

    path: Path
    calibrated: bool = False

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(H, W)."""
        with rasterio.open(self.path) as dataset:
            values = dataset.read(1, window=window.rasterio)
        if values.dtype != np.uint8:
            return np.asarray(values, np.float32)
        return np.where(values == 255, np.float32(np.nan), values / np.float32(100))


@dataclass(frozen=True)
class Pair:
    """Two maps in the order of time; one, two: the ways from their legends to the one that they are compared in."""

    first: ClassMap
    other: ClassMap
    one: Crosswalk
    two: Crosswalk
    dates: tuple[str | None, str | None] = (None, None)
    probability: ChangeProbability | None = None
    images: tuple[str, str] | None = None
    """What the maps are of, where `change` made them itself."""

    @property
    def names(self) -> tuple[str, str]:
        """What a user knows both dates by."""
        return self.images or (self.first.name, self.other.name)

    @property
    def legend(self) -> Legend:
        return self.one.target

    @property
    def grid(self) -> Grid:
        """That of the first."""
        return self.first.grid

    def read(self, window: Window, pad: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Class indices (H, W) before and after in the maps' own legends, on a window of `grid`.

        pad: pixels on every side of it, IGNORE outside of the grid.
        """
        wanted = window.pad(pad)
        inside = wanted.intersect(self.grid.window)
        both = self.first.read(inside), self.other.read(inside, self.grid)
        if inside == wanted:
            return both
        there = inside.within(wanted)
        sides = (
            (there.row, wanted.height - there.row - there.height),
            (there.col, wanted.width - there.col - there.width),
        )
        first, other = (np.pad(index, sides, constant_values=IGNORE) for index in both)
        return first, other

    def together(self, counted: Amount) -> Amount:
        """Pairs of the maps' own classes (K1 + 1, K2 + 1) as pairs of `legend` (K, K)."""
        left, right = self.one.shares, self.two.shares
        pixels, hectares = (left.T @ t[:-1, :-1] @ right for t in (counted.pixels, counted.hectares))
        return Amount(np.rint(pixels).astype(np.int64), np.asarray(hectares))

    @property
    def span(self) -> str | None:
        """From the first date to the last, as a period."""
        first, last = self.dates
        return f"{first.split('/')[0]}/{last.split('/')[-1]}" if first and last else None


class Side(NamedTuple):
    """A map of one date on its way to the legend of the comparison."""

    map: ClassMap
    way: Crosswalk
    date: str | None


def steps_of(num_dates: int) -> list[tuple[int, int]]:
    """Which dates are compared, from 0: each with the next and, of three or more, the first with the last."""
    return [*pairwise(range(num_dates)), *([(0, num_dates - 1)] if num_dates > 2 else [])]


def sides(pairs: Sequence[Pair]) -> list[Side]:
    """Each date once, of pairs of neighbouring dates, which one from the first to the last may follow."""
    steps = pairs[:-1] if len(pairs) > 1 else pairs
    first = Side(steps[0].first, steps[0].one, steps[0].dates[0])
    return [first, *(Side(pair.other, pair.two, pair.dates[1]) for pair in steps)]


@dataclass(frozen=True)
class Change:
    """counted (K1 + 1, K2 + 1): pairs of the maps' own classes, the last row and column for no data.

    set_aside: transitions that the maps show and the change map does not, by reason; they count as unchanged.
    num_patches: those of change, and those below the least area. accuracy: overall accuracies of the maps, if known.
    errors: hectares that are expected of the map, where P(change) is known. decision: how dates were decided together;
    alone: the maps before that, where their classes lack counterparts.
    """

    pair: Pair
    rules: ChangeRules
    counted: Amount
    set_aside: Mapping[str, Amount] = field(default_factory=dict)
    num_patches: tuple[int, int] | None = None
    accuracy: tuple[float, float] | None = None
    errors: ExpectedErrors | None = None
    decision: Mapping[str, Any] | None = None
    alone: Change | None = None
    path: Path | None = None
    files: tuple[Path, ...] = ()

    @property
    def legend(self) -> Legend:
        """The legend in which the maps are compared."""
        return self.pair.legend

    @cached_property
    def plain(self) -> Amount:
        """Plain comparison, nothing set aside."""
        return self.pair.together(self.counted)

    @cached_property
    def matrix(self) -> Amount:
        """The transition matrix: what is set aside counts as unchanged in the class before."""
        found = self.plain
        for aside in self.set_aside.values():
            found = found - aside + aside.as_stable()
        return found.where(found.pixels > 0)  # of hectares differences leave a residue

    @cached_property
    def changed(self) -> Amount:
        """The transitions of the matrix."""
        return self.matrix.where(~np.eye(len(self.legend), dtype=bool))

    @cached_property
    def mapped(self) -> Amount:
        """Those that are in the map: what was asked for."""
        asked = self.rules.asked(self.legend)
        return self.changed if asked is None else self.changed.where(asked)

    @property
    def scores(self) -> dict[str, float]:
        """Shares of the compared hectares: what changed, and of it the change of quantity and that of place alone."""
        found = agreement_of(self.matrix.hectares)
        return {
            "changed_share": 1 - found["agreement"],
            "quantity_disagreement": found["quantity_disagreement"],
            "allocation_disagreement": found["allocation_disagreement"],
        }  # fmt: skip

    @property
    def classes(self) -> list[dict[str, Any]]:
        """A row for each class that occurs; see metrics/transition_matrix.py."""
        each, pixels = class_changes(self.matrix.hectares), self.matrix.pixels
        return [
            {"code": c.code, "name": c.name, **{f"{key}_ha": float(values[i]) for key, values in each.items()}}
            for i, c in enumerate(self.legend.classes)
            if pixels[i].any() or pixels[:, i].any()
        ]

    def rows(self, amount: Amount) -> Iterator[dict[str, Any]]:
        """A row for each pair of classes that occurs: changes first, the largest on top."""
        codes, total = FromTo(self.legend), float(self.matrix.hectares.sum()) or 1.0
        classes = self.legend.classes
        at = np.argwhere(amount.pixels).tolist()
        for a, b in sorted(at, key=lambda ab: (ab[0] == ab[1], -amount.hectares[ab[0], ab[1]], ab)):
            area = float(amount.hectares[a, b])
            yield {
                "code": codes.code(a, b), "from_code": classes[a].code, "from": classes[a].name,
                "to_code": classes[b].code, "to": classes[b].name, "pixels": int(amount.pixels[a, b]), "area_ha": area,
                "share": area / total,
            }  # fmt: skip

    @property
    def transitions(self) -> list[dict[str, Any]]:
        """All of the matrix; in_map: whether the change map shows it."""
        rows = list(self.rows(self.matrix))
        asked = self.rules.asked(self.legend)
        index = {code: i for i, code in enumerate(self.legend.codes)}
        for row in rows:
            at = index[row["from_code"]], index[row["to_code"]]
            row["in_map"] = "yes" if row["code"] and (asked is None or asked[at]) else "no"
        return rows

    @property
    def expected(self) -> dict[str, Any] | None:
        """How much change errors alone make, beside the measured one; None where no accuracies are known."""
        if self.accuracy is None:
            return None
        share = expected_false_share(*self.accuracy, len(self.legend))
        total, away = float(self.plain.hectares.sum()), ~np.eye(len(self.legend), dtype=bool)
        measured_ha = float(self.plain.where(away).hectares.sum())
        measured = measured_ha / total
        part = min(1.0, share / measured) if measured else 0.0
        says = (
            f"of maps that are right on {self.accuracy[0]:.1%} and {self.accuracy[1]:.1%} of the ground, {share:.1%} "
            f"would differ if nothing had changed and errors were independent ({share * total:,.1f} ha); they differ "
            f"on {measured:.1%} ({measured_ha:,.1f} ha): as much as {part:.0%} of the measured change could be false"
        )
        return {
            "accuracy": list(self.accuracy), "expected_false_share": share, "expected_false_ha": share * total,
            "measured_share": measured, "measured_ha": measured_ha, "could_be_false": part, "in_words": says,
        }  # fmt: skip

    @property
    def expected_errors(self) -> dict[str, Any] | None:
        """How much of the map probabilities expect to be errors; None where there are none, or dates are unrelated.

        Without a prior it would be far off: on the demo 216 ha of 950 false where 566 are, 2,892 missed where 39 are.
        missed_ha is of all that the map does not show, also of what was not asked for.
        """
        if self.errors is None or self.is_apart:
            return None
        mapped_ha, false_ha, missed_ha = self.mapped.total["area_ha"], *self.errors[:2]
        part = f" ({false_ha / mapped_ha:.0%})" if mapped_ha else ""
        certain = "the probabilities are calibrated" if self.is_calibrated else "the probabilities were calibrated"
        says = (
            f"of the {mapped_ha:,.1f} ha mapped as change about {false_ha:,.1f} ha{part} are expected to be errors of "
            f"the maps, and {missed_ha:,.1f} ha of change not to be in the map, if errors of the dates are "
            f"independent and {certain}"
        )
        return {
            "mapped_ha": mapped_ha, "false_ha": false_ha, "missed_ha": missed_ha, "known_ha": self.errors.known,
            "calibrated": self.is_calibrated, "in_words": says,
        }  # fmt: skip

    @property
    def is_apart(self) -> bool:
        """Whether P(change) is that of dates which tell nothing of each other."""
        return self.decision is not None and bool(self.decision["apart"])

    @property
    def is_calibrated(self) -> bool:
        """Whether P(change) comes of probabilities that were calibrated."""
        return self.pair.probability is not None and self.pair.probability.calibrated

    @property
    def lost(self) -> dict[str, list[dict[str, Any]]]:
        """Classes without a counterpart, where the other map has a class: they are ignored."""
        if self.alone is not None:
            return self.alone.lost
        inner = Amount(self.counted.pixels[:-1, :-1], self.counted.hectares[:-1, :-1])
        found = {}
        for key, way, axis in (("before", self.pair.one, 1), ("after", self.pair.two, 0)):
            rows = zip(way.source.classes, way.codes, inner.pixels.sum(axis), inner.hectares.sum(axis), strict=True)
            found[key] = [
                {"code": c.code, "name": c.name, "pixels": int(n), "area_ha": float(ha)}
                for c, to, n, ha in rows
                if to is None and n
            ]
        return found

    @property
    def lost_share(self) -> float:
        """Of the ground where both maps hold a class, that where one of them has no counterpart."""
        if self.alone is not None:
            return self.alone.lost_share
        inner = float(self.counted.hectares[:-1, :-1].sum())
        return 1 - float(self.plain.hectares.sum()) / inner if inner else 0.0

    @property
    def notes(self) -> list[str]:
        """What has to be known to read the numbers."""
        first, other = self.pair.first, self.pair.other
        found = []
        if not other.grid.is_same(first.grid):
            found.append(
                f"{other.name} ({other.grid.describe()}) was laid on the grid of {first.name} "
                f"({first.grid.describe()}) by nearest neighbour{_apart(first.grid, other.grid)}: borders that shift "
                "look like change"
            )
        if self.lost_share > MANY_LOST:
            found.append(f"{self.lost_share:.0%} of the ground has a class without counterpart and is ignored")
        for reason, aside in self.set_aside.items():
            px, ha = aside.total["pixels"], aside.total["area_ha"]
            found.append(f"set aside as unchanged: {px:,} px, {ha:,.1f} ha, {reason}")
        if (asked := self.rules.asked(self.legend)) is not None:
            found.append(f"the map shows {int(asked.sum()):,} of {asked.size - len(asked):,} transitions; tables, all")
        if self.expected is None and (self.errors is None or self.is_apart or not self.is_calibrated):
            found.append(
                "errors of both maps add up, and all look like change: --accuracy 0.9,0.85 tells how much of it they "
                "may make; the area of change with its interval comes from points: covermap sample, covermap assess"
            )
        if self.pair.probability is not None and not self.is_calibrated:
            found.append(NOT_CALIBRATED)
        if None in self.pair.dates:
            found.append("no STAC item was written: a date is not known (state it: A.tif@2018 B.tif@2022)")
        return found

    @property
    def tables(self) -> Tables:
        """What became what, of the map, the largest first; gains and losses of classes."""
        first, other = self.pair.names
        title = f"{first} > {other} in legend {self.legend.name}"
        of_pairs = {"code": "code", "from": "from", "to": "to", "area_ha": "ha", "share": "share"}
        of_classes = {"code": "code", "name": "class", "before_ha": "before ha", "after_ha": "after ha",
                      "gain_ha": "gain", "loss_ha": "loss", "net_ha": "net", "swap_ha": "swap"}  # fmt: skip
        rows = [[row[key] for key in of_pairs] for row in self.transitions if row["in_map"] == "yes"]
        classes = [[row[key] for key in of_classes] for row in self.classes]
        return Tables((Table(list(of_pairs.values()), rows, title), Table(list(of_classes.values()), classes)))

    @property
    def sentence(self) -> str:
        """How much changed."""
        scores, total, changed = self.scores, self.matrix.total, self.changed.total
        return (
            f"changed: {changed['area_ha']:,.1f} of {total['area_ha']:,.1f} ha ({scores['changed_share']:.2%}); "
            f"in quantity {scores['quantity_disagreement']:.2%}, in place {scores['allocation_disagreement']:.2%}"
        )

    def _repr_html_(self) -> str:
        return told(self.tables, [self.sentence], self.notes)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in change.json."""
        sides = (("before", self.pair.first, self.pair.one, 0), ("after", self.pair.other, self.pair.two, 1))
        ha, px, total = self.counted.hectares, self.counted.pixels, self.matrix.total
        nothing: dict[str, Any] = {
            "only_before": np.s_[:-1, -1],
            "only_after": np.s_[-1, :-1],
            "neither": np.s_[-1, -1],
        }
        return {
            "map": None if self.path is None else str(self.path),
            **{
                key: {"path": side.name, "legend": side.legend.name, "date": self.pair.dates[n],
                      **({"image": self.pair.images[n]} if self.pair.images else {}),
                      "route": list(way.route), "content": side.tags.get("COVERMAP_CONTENT")}
                for key, side, way, n in sides
            },
            "legend": self.legend.name,
            "codes": [{"code": c.code, "name": c.name} for c in self.legend.classes],
            "grid": self.pair.grid.describe(),
            "rules": self.rules.to_dict(),
            "compared": total,
            "changed": self.changed.total,
            "in_map": self.mapped.total,
            **self.scores,
            "nodata": {key: {"pixels": int(px[at].sum()), "area_ha": float(ha[at].sum())}
                       for key, at in nothing.items()},
            "no_counterpart": self.lost,
            "set_aside": {key: {**aside.total, "transitions": list(self.rows(aside))}
                          for key, aside in self.set_aside.items()},
            "patches": None if self.num_patches is None else dict(zip(("all", "below"), self.num_patches, strict=True)),
            "false_change": self.expected,
            "expected_errors": self.expected_errors,
            "decision": None if self.decision is None else dict(self.decision),
            "classes": self.classes,
            "transitions": self.transitions,
            "matrix_px": self.matrix.pixels.tolist(),
            "matrix_ha": self.matrix.hectares.tolist(),
            **({"plain_matrix_px": self.plain.pixels.tolist(), "plain_matrix_ha": self.plain.hectares.tolist()}
               if self.set_aside else {}),
            "basis": list(dict.fromkeys(way.basis for way in (self.pair.one, self.pair.two) if way.basis)),
            "notes": self.notes,
            "files": [str(file) for file in self.files],
        }  # fmt: skip


def _apart(grid: Grid, other: Grid) -> str:
    """How far the centres of pixels lie from the middle of the other's, where both have one CRS."""
    if not grid.same_crs(other):
        return ""
    rows, cols = grid.height, grid.width
    far = 0.0
    for place in ((0, 0), (cols - 1, 0), (0, rows - 1), (cols - 1, rows - 1), (cols // 2, rows // 2)):
        at = ~other.transform * (grid.transform * (place[0] + 0.5, place[1] + 0.5))
        far = max(far, *(abs(value % 1 - 0.5) for value in at))
    return f", centres up to {far:.2f} px apart"


def table_beside(out: Path, key: str) -> Path:
    """Where a table of a change map lies."""
    return out.with_name(f"{key}.csv" if out.stem == "change" else f"{out.stem}.{key}.csv")


def tables_beside(out: Path) -> dict[str, Path]:
    """The tables of a change map, by role: `transitions.csv` beside change.tif, `x.transitions.csv` beside x.tif."""
    return {
        **{key: table_beside(out, key) for key in ("transitions", "matrix", "classes")},
        "change": out.with_name("change.json" if out.stem == "change" else f"{out.stem}.change.json"),
    }


def write_tables(found: Change, files: Mapping[str, Path]) -> None:
    """The CSV tables, each where `files` says."""
    rows = found.transitions
    head = ("code", "from_code", "from", "to_code", "to", "pixels", "area_ha", "share", "in_map")
    write_text(files["transitions"], csv_text(head, [[short(row[key]) for key in head] for row in rows]))
    classes = found.classes
    write_text(files["classes"], csv_text(list(classes[0]), [[short(v) for v in row.values()] for row in classes]))
    write_text(files["matrix"], _matrix_text(found.legend.names, found.matrix.hectares))


def write_json(found: Change, path: Path) -> None:
    """change.json, which lists all files."""
    write_text(path, json.dumps(plain(found.to_dict()), indent=2) + "\n")


def _matrix_text(names: Sequence[str], hectares: npt.NDArray[np.float64]) -> str:
    """Rows before, columns after, with totals."""
    lines = [[name, *row, sum(row)] for name, row in zip(names, hectares.tolist(), strict=True)]
    lines.append(["total", *hectares.sum(0).tolist(), float(hectares.sum())])
    return csv_text(["from \\ to", *names, "total"], [[short(v) for v in line] for line in lines])


def short(value: object) -> object:
    """Numbers as tables hold them."""
    return f"{value:.6g}" if isinstance(value, float) and 0 < abs(value) < 1e-3 else (
        f"{value:.4f}" if isinstance(value, float) else value
    )  # fmt: skip
