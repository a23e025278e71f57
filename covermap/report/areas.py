"""What `assess` has kept of a run's maps, as the page shows it: areas with intervals, accuracies, what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from covermap.core.design import assessment_beside
from covermap.core.parsing import read_json
from covermap.core.run import Run, checksum
from covermap.core.table import Within
from covermap.report import figures


@dataclass(frozen=True)
class Assessment:
    """What is known of a map. map: its path in the run. is_current: whether it still is the map that was assessed."""

    map: str
    is_current: bool
    found: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Areas by class with user's and producer's accuracy; is_apart: the mapped area lies outside the interval."""
        by_code = {key: {row["code"]: row for row in self.found[key]} for key in ("users", "producers")}
        return [
            {**row, "users": by_code["users"][row["code"]], "producers": by_code["producers"][row["code"]],
             "is_apart": is_apart(row)}
            for row in self.found["areas"]
        ]  # fmt: skip

    @property
    def sample(self) -> str:
        """How it was drawn, in one sentence."""
        found, strata = self.found, self.found["strata"]
        sizes = sorted(row["num_samples"] for row in strata if row["num_samples"])
        each = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        how = {
            "stratified": f"drawn at random within {len(sizes)} strata, {each} in each",
            "random": "drawn at random from the whole map",
            "systematic": "drawn as a lattice with a random start",
            "cluster": f"drawn at random in {found['num_clusters']:,} squares",
        }[found["method"]]
        return f"{found['num_points']:,} points ({found['points']}) {how}; estimator: {found['estimator']}."

    @property
    def notes(self) -> list[str]:
        """Of the whole, then those of single classes, each once with what it is of."""
        of: dict[str, list[str]] = {}
        for key, what in (("areas", "area"), ("users", "user's accuracy"), ("producers", "producer's accuracy")):
            for note in dict.fromkeys(row["note"] for row in self.found[key] if "note" in row):
                names = [row["name"] for row in self.found[key] if row.get("note") == note]
                of.setdefault(note, []).append(f"{what} of {', '.join(names)}")
        notes = [*self.found["notes"], *(f"{'; '.join(where)}: {note}" for note, where in of.items())]
        return [note[:1].upper() + note[1:] for note in notes]

    def chart(self, colours: Mapping[str, str]) -> str:
        """Mapped and estimated areas, and true ones where they are known."""
        rows: Sequence[Mapping[str, Any]] = self.found["areas"]
        return figures.area_bars(
            [row["name"] for row in rows], [colours.get(row["name"], "#999999") for row in rows],
            [row["mapped_ha"] for row in rows], [(row["area_ha"], row["low_ha"], row["high_ha"]) for row in rows],
            [row["true_ha"] for row in rows if "true_ha" in row],
        )  # fmt: skip


def is_apart(row: Mapping[str, Any]) -> bool:
    """Whether the mapped area of a class lies outside the interval of its estimated one."""
    return row["low_ha"] is not None and not row["low_ha"] <= row["mapped_ha"] <= row["high_ha"]


def assessments_of(run: Run) -> list[Assessment]:
    """All that lie in the run, that of map.tif first."""
    found = []
    for path in [*run.folder.glob("*.tif"), *run.folder.glob("maps/*.tif")]:
        kept = assessment_beside(path)
        if kept.is_file():
            result = read_json(kept, fix="make it again: covermap assess")
            is_current = result["map_checksum"] == checksum(path)
            found.append(Assessment(path.relative_to(run.folder).as_posix(), is_current, result))
    return sorted(found, key=lambda one: (one.map != "map.tif", one.map))


def interval_of(row: Mapping[str, Any]) -> str:
    """± half its width, or its ends where these are not alike (areas are not below 0)."""
    value, half, low, high = (row[key] for key in ("area_ha", "ci95_ha", "low_ha", "high_ha"))
    if half is None:
        return "no interval"
    if Within(value, half, low, high).is_even:
        return f"±\N{NO-BREAK SPACE}{sensible(half, half)}"
    return f"({sensible(low, half)} to {sensible(high, half)})"


def sensible(value: float | None, half: float | None) -> str:
    """Hectares with as many digits as half their interval leaves sensible: 1234.5, 89.2 -> 1,234; a dash for None."""
    digits = 0 if half is None or half >= 10 else 1 if half >= 1 else 2
    return "–" if value is None else f"{value:,.{digits}f}"
