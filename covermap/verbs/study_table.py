"""What the runs of a study say, as tidy rows, and what follows from them: means over seeds and paired differences.

cells -> rows of cell, levels, seed, learner, class, score, value -> means -> differences to one level, by seed
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy.typing as npt

from covermap.core.run import Run
from covermap.core.study_plan import Cell, Loaded
from covermap.core.task import LOW_IS_GOOD
from covermap.metrics.intervals import Interval, over_seeds
from covermap.verbs.several import Setting, difference

NETWORK, FOREST = "network", "random forest"
MINORITY = "minority_recall"
MOST_NAMED = 6
"""Settings of one verdict that a conclusion names."""
Levels = tuple[str, ...]


@dataclass
class Finished:
    """A cell with what its run left; way (K, k): classes that are merged after the fact."""

    cell: Cell
    run: Run
    metrics: dict[str, Any]
    more: dict[str, Any]
    way: npt.NDArray[Any] | None = None

    @staticmethod
    def of(cell: Cell) -> Finished | None:
        """None where it is not finished."""
        if not (cell.config.folder / "cell.json").is_file():
            return None
        run = Run.open(cell.config.folder)
        metrics = run.read_json("metrics.json")
        more = run.read_json("cell.json")
        for result in metrics["models"].values():
            result["scores"][MINORITY] = minority_recall(result, more.get("trained_px"))
        return Finished(cell, run, metrics, more)

    @property
    def main(self) -> str:
        """The model that the cell is about."""
        return FOREST if self.cell.forest else NETWORK

    def rows(self) -> Iterator[dict[str, Any]]:
        """Tidy rows: scores of all and of each class, and costs."""
        about = {"cell": self.cell.name, **self.cell.levels, "seed": self.cell.seed}
        for model, result in self.metrics["models"].items():
            scores = result["scores"] | self.more["costs"].get(model, {})
            for key, value in scores.items():
                if isinstance(value, int | float):
                    yield about | {"learner": model, "class": "", "score": key, "value": value}
            for row in [*result.get("per_class", ()), *result.get("per_number", ())]:
                name = row.get("class", row.get("target"))
                for key, value in row.items():
                    if isinstance(value, int | float):
                        yield about | {"learner": model, "class": name, "score": key, "value": value}

    def steps(self) -> Iterator[dict[str, Any]]:
        """Tidy rows of the log: loss and scores of the val part by training step."""
        about = {"cell": self.cell.name, **self.cell.levels, "seed": self.cell.seed}
        for row in self.run.read_log() if not self.cell.forest else ():
            for key, value in row.items():
                if (key == "loss" or key.startswith("val_")) and value is not None:
                    yield about | {"step": row["step"], "epoch": row["epoch"], "score": key, "value": value}


def minority_recall(result: Mapping[str, Any], trained: Mapping[str, int] | None = None) -> float | None:
    """Recall of the class with the fewest labelled pixels (chips) of the part, of those that it and train have.

    trained: {class: labelled pixels of train}.
    """
    known = trained or {}
    present = [row for row in result.get("per_class", ()) if row.get("reference_px") and known.get(row.get("class"), 1)]
    return min(present, key=lambda row: row["reference_px"])["producers"] if present else None


@dataclass
class Table:
    """All that the finished cells of a study say. rows, steps: tidy; scores: those shown, the main one first."""

    loaded: Loaded
    done: list[Finished]
    scores: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = self.rows or [row for one in self.done for row in one.rows()]
        self.steps = self.steps or [row for one in self.done for row in one.steps()]

    @property
    def axes(self) -> dict[str, list[str]]:
        """{axis: its levels}."""
        return {axis: list(levels) for axis, levels in self.loaded.axes.items()}

    @property
    def main(self) -> str:
        """The score that is drawn and concluded from."""
        return self.scores[0]

    @cached_property
    def _values(self) -> dict[tuple[Levels, str, str, str], dict[int, float]]:
        found: dict[tuple[Levels, str, str, str], dict[int, float]] = {}
        for row in self.rows:
            levels = tuple(str(row[axis]) for axis in self.axes)
            found.setdefault((levels, row["learner"], row["class"], row["score"]), {})[row["seed"]] = row["value"]
        return found

    @cached_property
    def settings(self) -> list[Levels]:
        """Combinations of levels that have a finished cell, in the plan's order."""
        order = dict.fromkeys(tuple(cell.levels.values()) for cell in self.loaded.cells)
        there = {levels for levels, *_ in self._values}
        return [levels for levels in order if levels in there]

    @cached_property
    def forests(self) -> set[Levels]:
        """Settings whose own model is the forest."""
        return {tuple(cell.levels.values()) for cell in self.loaded.cells if cell.forest}

    def model_of(self, levels: Levels) -> str:
        """The model that a setting is about."""
        return FOREST if levels in self.forests else NETWORK

    def values(self, levels: Levels, score: str, *, model: str | None = None, name: str = "") -> dict[int, float]:
        """{seed: value}; name: of a class."""
        return self._values.get((levels, model or self.model_of(levels), name, score), {})

    def mean(self, levels: Levels, score: str, *, model: str | None = None, name: str = "") -> Interval:
        """Over seeds."""
        return over_seeds(list(self.values(levels, score, model=model, name=name).values()))

    @property
    def has_beside(self) -> bool:
        """Whether forests stand beside networks, and not in cells of their own."""
        return not self.forests and any(model == FOREST for _, model, *_ in self._values)

    def means(self) -> list[dict[str, Any]]:
        """A row for each setting, model, class and score."""
        found = []
        for (levels, model, name, score), values in self._values.items():
            told = over_seeds(list(values.values()))
            about = dict(zip(self.axes, levels, strict=True)) | {"learner": model, "class": name, "score": score}
            found.append(about | {"mean": told.value, "sd": told.sd, "low": told.low, "high": told.high,
                                  "seeds": told.count, "values": list(values.values())})  # fmt: skip
        return found

    @cached_property
    def differences(self) -> list[dict[str, Any]]:
        """Each setting minus the one with the levels of `against` in place of its own, paired by seed."""
        found = []
        for levels in self.settings:
            other = self.reference_of(levels)
            if other != levels and other in self.settings:
                first, mine = self.setting(other), self.setting(levels)
                found += [row | {"levels": list(levels)} for row in difference(first, mine, self.scores, "test")]
        return found

    def reference_of(self, levels: Levels) -> Levels:
        """The setting that one is compared with."""
        named = dict(zip(self.axes, levels, strict=True)) | self.loaded.against
        return tuple(named.values())

    def setting(self, levels: Levels) -> Setting:
        """The finished runs of some levels, by seed."""
        mine = [one for one in self.done if tuple(one.cell.levels.values()) == levels]
        return Setting(
            {}, {(one.cell.seed, 0, None): one.run for one in mine},
            {(one.cell.seed, 0, None): one.metrics for one in mine}, self.name_of(levels), self.model_of(levels),
            mine[0].way,
        )  # fmt: skip

    def name_of(self, levels: Levels, *, without: Sequence[str] = ()) -> str:
        """Levels in words; those of axes whose levels are numbers with the axis."""
        said = [
            f"{axis} {level}" if self.loaded.numbers(axis) is not None else level
            for axis, level in zip(self.axes, levels, strict=True)
            if axis not in without and (len(self.axes[axis]) > 1 or len(self.axes) == 1)
        ]
        return ", ".join(said)


def sign_of(score: str) -> int:
    """1, or -1 of scores of which the lowest is the best."""
    return -1 if score in LOW_IS_GOOD else 1


def verdict(row: Mapping[str, Any]) -> tuple[str, float, float, float, str]:
    """better, worse or open, with the difference, its interval, and what tells it: seeds, or blocks with one seed."""
    by_seeds = not math.isnan(row["low"])
    keys = ("mean", "low", "high") if by_seeds else ("blocks_value", "blocks_low", "blocks_high")
    value, low, high = (float(row.get(key, math.nan)) for key in keys)
    sign = sign_of(row["score"])
    told = "open" if not (low > 0 or high < 0) else "better" if sign * value > 0 else "worse"
    return told, value if value == value else row["mean"], low, high, "seeds" if by_seeds else "blocks of ground"


def conclusion(table: Table) -> str:
    """What the differences in the main score tell, in a sentence or two."""
    rows = [row for row in table.differences if row["score"] == table.main]
    if not rows:
        return "Nothing can be compared yet."
    other = ", ".join(f"{axis} {level}" for axis, level in table.loaded.against.items())
    groups: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for row in rows:
        told, value, low, high, by = verdict(row)
        span = f", {low:+.3f} to {high:+.3f} by {by}" if low == low else ", no interval"
        groups[told].append(f"{row['setting']} ({value:+.3f}{span})")
    words = {"better": "better with", "worse": "worse with", "open": "not told apart with"}
    said = [f"{words[key]} {_listed(names)}" for key, names in groups.items() if names]
    text = f"Against {other}, {table.main} is {'; '.join(said)}."
    if len(table.loaded.plan.all_seeds) < 3:
        text += " Fewer than three seeds do not tell how much training varies."
    return text


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
