"""Class granularity: models of finer classes beside one of merged classes, all judged in the same merged classes.

The finer model's answers are merged after the fact: rows and columns of its confusion tables are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, suggest
from covermap.core.study_plan import Loaded
from covermap.metrics.confusion import Confusion, merged
from covermap.verbs.study_table import MINORITY, Finished, minority_recall

OWN = "own_miou"
"""Mean IoU in the classes that a model was trained on."""


def in_same_classes(loaded: Loaded, done: Sequence[Finished]) -> list[Finished]:
    """The cells with their scores in the classes of one level: the plan's `judged`, else that of fewest classes.

    Raises DataError where a finer class would have to be cut.
    """
    wanted = loaded.plan.judged
    levels = [level for axis in loaded.axes.values() for level in axis]
    if wanted is not None and wanted not in levels:
        raise ConfigError(f"{loaded.source}: judged: there is no level {wanted!r}", fix=suggest(wanted, levels))
    named = [one for one in done if wanted is None or wanted in one.cell.levels.values()]
    if not named:
        return []
    target = old_names(min(named, key=lambda one: len(one.metrics["classes"])))
    return [_judged(one, target) for one in done]


def old_names(one: Finished) -> dict[str, set[str]]:
    """{class: the data's own classes that it stands for}."""
    merge = one.cell.config.data.merge or {}
    return {name: set(merge.get(name, [name])) for name in one.metrics["classes"]}


def way_to(fine: Mapping[str, set[str]], coarse: Mapping[str, set[str]], where: str) -> npt.NDArray[np.int64]:
    """(fine, coarse) of 0 and 1: which class becomes which; raises DataError where one would have to be cut."""
    found = np.array([[parts <= whole for whole in coarse.values()] for parts in fine.values()]).astype(np.int64)
    for name, row in zip(fine, found, strict=True):
        if not row.any():
            raise DataError(
                f"{where}: its class {name} does not lie in one class of those that all are judged in",
                fix="set judged: to the level of the coarsest classes",
            )
    return found


def _judged(one: Finished, target: Mapping[str, set[str]]) -> Finished:
    """A cell with all its scores in other classes; scores that need the answers themselves are left out."""
    way = way_to(old_names(one), target, one.cell.name)
    models: dict[str, Any] = {}
    for name, result in one.metrics["models"].items():
        confusion = Confusion(len(target))
        confusion.counts = merged(np.asarray(result["confusion"]), way)
        table = confusion.table(list(target))
        models[name] = {"scores": dict(confusion.scores()), "per_class": table, "confusion": confusion.counts.tolist()}
        own = {OWN: result["scores"]["miou"], MINORITY: minority_recall(models[name])}
        models[name]["scores"] |= own
    return replace(one, metrics=one.metrics | {"classes": list(target), "models": models}, way=way)
