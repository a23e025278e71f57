"""Results as their JSON has them, with the tables that the terminal prints and notebooks show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from covermap.core.notebook import told
from covermap.core.scored import shown_of
from covermap.core.table import Between, Table, Tables, Within


class Scored(dict[str, Any]):
    """What `evaluate` gives, as in metrics.json. tables: the scores of all models, then of each model by class."""

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        return shown_of(self).sentence(self)

    @property
    def tables(self) -> Tables:
        shown, models = shown_of(self), self["models"]
        rows = [[row.key, *(_score(one, row.key) for one in models.values())] for row in shown.scores]
        interval = " (95 % interval)" if any(isinstance(cell, Between) for row in rows for cell in row) else ""
        columns = [shown.name, *(column.key for column in shown.columns), shown.counted.key]
        scores = Table(["score", *models], rows, f"scores on {self['part']}{interval}")
        listed = [(name, [_counted(row, columns) for row in one[shown.table]]) for name, one in models.items()]
        return Tables((scores, *(Table(columns, rows, name) for name, rows in listed)))

    @property
    def table(self) -> Table:
        """The scores of all models."""
        return self.tables[0]

    def _repr_html_(self) -> str:
        return told(self.tables, [self.sentence], list(filter(None, [self.get("note")])))


def _counted(row: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    return [*(row[key] for key in columns[:-1]), int(row[columns[-1]])]


def _score(model: Mapping[str, Any], key: str) -> Any:
    value, ends = model["scores"][key], (model.get("intervals") or {}).get(key) or {}
    # Of few blocks there is none.
    return value if ends.get("low") is None else Between(value, ends["low"], ends["high"])


class Assessed(dict[str, Any]):
    """What `assess` gives, as in assessment.json. table: areas and accuracies of classes. matrix: errors, in points."""

    @property
    def table(self) -> Table:
        users, producers = ({row["code"]: row for row in self[key]} for key in ("users", "producers"))
        rows = [
            [row["name"], _within(users[row["code"]]), _within(producers[row["code"]]), row["mapped_ha"], _area(row)]
            for row in self["areas"]
        ]
        form = {"user's accuracy": ".3f", "producer's accuracy": ".3f", "mapped ha": ",.1f", "area ha (95 %)": ",.1f"}
        return Table(["class", *form], rows, formats=form)

    @property
    def matrix(self) -> Table:
        of = self["matrix"]
        rows = [[name, *counts] for name, counts in zip(of["names"], of["counts"], strict=True)]
        return Table(["map \\ reference", *of["names"]], rows, f"{self['num_points']:,} points, {self['method']}")

    @property
    def tables(self) -> Tables:
        """Matrix, classes and, where there are any, zones."""
        form = {"mapped ha": ",.1f", "area ha (95 %)": ",.1f"}
        rows = [[row["zone"], row["name"], row["mapped_ha"], _area(row), row["num_points"]]
                for row in self.get("zones", ())]  # fmt: skip
        zones = [Table(["zone", "class", *form, "points"], rows, formats=form)] if rows else []
        return Tables((self.matrix, self.table, *zones))

    @property
    def sentence(self) -> str:
        """Overall accuracy, and by which estimator."""
        overall = self["overall"]
        return (
            f"overall accuracy {_within(overall).text('.3f')}, of the points as they are {overall['unweighted']:.3f}; "
            f"{self['estimator']}"
        )

    @property
    def all_notes(self) -> list[str]:
        """Those of the whole and of single rows, each once."""
        rows = (row for key in ("areas", "users", "producers", "zones") for row in self.get(key, ()))
        return list(dict.fromkeys([*self["notes"], *(row["note"] for row in rows if "note" in row)]))

    def _repr_html_(self) -> str:
        return told(self.tables, [self.sentence], self.all_notes)


def _within(row: Mapping[str, Any]) -> Within:
    return Within(row["value"], row["ci95"], row.get("low"), row.get("high"))


def _area(row: Mapping[str, Any]) -> Within:
    return Within(row["area_ha"], row["ci95_ha"], row.get("low_ha"), row.get("high_ha"))
