"""`evaluate` of several runs: mean and spread over seeds, and what one setting gains over another.

Runs that differ in nothing but their seeds are one setting. Seeds tell how much training varies, blocks of ground how
much places do: a difference is shown with both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.core.progress import Say, silent
from covermap.core.run import Run
from covermap.core.scored import shown_of
from covermap.metrics.confusion import merged
from covermap.metrics.intervals import Interval, compare, over_seeds
from covermap.models import read_card
from covermap.verbs.evaluate import MODELS, details_of, evaluate
from covermap.verbs.ground import OnGround

Seeds = tuple[int, int, int | None]
"""Of training, of the split and of the share that its budget leaves."""


_LONGEST = 80
"""Letters of a name made of settings; longer ones say less than the folder does."""


@dataclass
class Setting:
    """Runs with equal settings by their seeds, and what sets them apart from the others' settings.

    model: which of a run's models is compared. way (K, k): classes that are merged after the fact.
    differing: settings that others have otherwise, {a.b: value}.
    """

    settings: dict[str, Any]
    runs: dict[Seeds, Run] = field(default_factory=dict)
    results: dict[Seeds, dict[str, Any]] = field(default_factory=dict)
    name: str = ""
    model: str = "network"
    way: npt.NDArray[Any] | None = None
    differing: dict[str, Any] = field(default_factory=dict)

    def blocks(self, seeds: Sequence[Seeds], part: str) -> _Blocks | None:
        """Counts by block of ground, summed over the runs of some seeds."""
        found = _blocks([self.runs[one] for one in seeds], part, self.model)
        return found if found is None or self.way is None else found._replace(counts=merged(found.counts, self.way))


def evaluate_several(runs: Sequence[Run], *, part: str = "test", say: Say = silent) -> dict[str, Any]:
    """Score runs on a part; returns rows `settings` (score, mean, sd, interval) and `differences` to the first one.

    Raises DataError where a run is given twice, or runs are of different tasks or classes.
    """
    settings = settings_of(runs)
    for setting in settings:
        for seeds, run in setting.runs.items():
            say(f"{run.folder}")
            setting.results[seeds] = evaluate(run, part=part, say=say)
    every = comparable(settings)
    keys = [row.key for row in shown_of(every[0]).scores if row.form != "count"]
    rows = [row for setting in settings for row in _over_seeds(setting, keys)]
    differences = [row for other in settings[1:] for row in difference(settings[0], other, keys, part)]
    return {"part": part, "is_test": every[0]["is_test"], "note": every[0]["note"], "task": every[0]["task"],
            "settings": rows, "differences": differences}  # fmt: skip


def comparable(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """All their results; raises DataError where these are of different tasks or classes."""
    every = [result for setting in settings for result in setting.results.values()]
    if len({(result["task"], tuple(result["classes"])) for result in every}) > 1:
        raise DataError(
            "the runs learn different tasks or classes, so their scores do not compare",
            fix="evaluate runs of one task and one legend together",
        )
    return every


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """The runs by what they set, in the order they were given."""
    found: list[Setting] = []
    folders = [run.folder.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise DataError(f"{run.folder} was given twice", fix="name each run once")
        own, seeds = _without_seeds(run)
        setting = next((one for one in found if one.settings == own and seeds not in one.runs), None)
        if setting is None:
            found.append(setting := Setting(own))
        setting.runs[seeds] = run
    different = {
        key for one in found for key in one.settings if any(o.settings.get(key) != one.settings[key] for o in found)
    }
    for one in found:
        one.differing = {key: one.settings[key] for key in sorted(different & one.settings.keys())}
        said = [f"{key}={value}" for key, value in one.differing.items()]
        short = 0 < len(said) <= 3 and len(", ".join(said)) <= _LONGEST
        one.name = ", ".join(said) if short else next(iter(one.runs.values())).folder.name
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            one.name = f"{next(iter(one.runs.values())).folder.name}: {one.name}"
    return found


def _without_seeds(run: Run) -> tuple[dict[str, Any], Seeds]:
    raw = run.config.model_dump(mode="json")
    seeds = raw["train"].pop("seed"), raw["split"].pop("seed"), raw["split"].pop("budget_seed")
    return _flat({key: value for key, value in raw.items() if key not in ("name", "output", "predict")}), seeds


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{a: {b: 1}} -> {a.b: 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def _over_seeds(setting: Setting, keys: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for model in MODELS:
        scores = [result["models"][model]["scores"] for result in setting.results.values() if model in result["models"]]
        for key in keys if scores else ():
            values = [float("nan") if one[key] is None else one[key] for one in scores]
            rows.append({"setting": setting.name, "model": model, "score": key, **_row(over_seeds(values))})
    return rows


def _row(found: Interval) -> dict[str, Any]:
    return {"mean": found.value, "sd": found.sd, "low": found.low, "high": found.high, "seeds": found.count}


def difference(first: Setting, other: Setting, keys: Sequence[str], part: str) -> list[dict[str, Any]]:
    """Models of a setting minus those of the first one, of equal seeds; blocks where both saw the same pixels."""
    common = [seeds for seeds in first.results if seeds in other.results]
    if not common:
        return []
    mine, theirs = (one.blocks(common, part) for one in (other, first))
    judge = details_of(read_card(first.runs[common[0]].path(MODELS[first.model])).task)
    rows = []
    for key in keys:
        pairs = [
            [one.results[seeds]["models"][one.model]["scores"].get(key) for one in (other, first)] for seeds in common
        ]
        found = over_seeds([a - b if a is not None and b is not None else float("nan") for a, b in pairs])
        row = {"setting": other.name, "against": first.name, "score": key, **_row(found)}
        if mine and theirs and key in judge.sure and mine.of_same_ground(theirs, judge):
            ground = compare(mine.counts, theirs.counts, judge.sure[key])
            row |= {
                "blocks_value": ground.value,
                "blocks_low": ground.low,
                "blocks_high": ground.high,
                "blocks": ground.count,
                "p": ground.p,
            }
        rows.append(row)
    return rows


class _Blocks(NamedTuple):
    """Counts (N, ...) of blocks, and which they are."""

    counts: npt.NDArray[Any]
    places: npt.NDArray[np.str_]

    def of_same_ground(self, other: _Blocks, judge: OnGround) -> bool:
        """Whether both count the same labels of the same blocks."""
        return np.array_equal(self.places, other.places) and judge.same_reference(self.counts, other.counts)


def _blocks(runs: Sequence[Run], part: str, model: str) -> _Blocks | None:
    """Of one of their models, summed over runs that were scored on the same ones; else None."""
    total, places = None, None
    for run in runs:
        path = run.path(f"blocks_{part}_{MODELS[model]}.npz")
        if not path.is_file():
            return None
        with np.load(path) as kept:
            if places is not None and not np.array_equal(places, kept["places"]):
                return None
            places, total = kept["places"], kept["counts"] + (0 if total is None else total)
    return None if total is None or places is None else _Blocks(total, places)
