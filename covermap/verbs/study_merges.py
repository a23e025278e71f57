"""Class granularity: models of finer classes beside one of merged classes, all judged in the same merged classes.

The finer model's answers are merged after the fact: rows and columns of its confusion tables are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.metrics.confusion import scores_of
from covermap.metrics.intervals import compare, over_seeds
from covermap.report.study_page import Section
from covermap.verbs.evaluate import MODELS
from covermap.verbs.study_table import Finished, Levels, Table

SHOWN = ("miou", "macro_f1", "macro_recall", "oa")


def merges(table: Table) -> list[Section]:
    """The table of all models in the classes of one level."""
    by_levels: dict[Levels, list[Finished]] = {}
    for one in table.done:
        by_levels.setdefault(tuple(one.cell.levels.values()), []).append(one)
    target = target_of(table, by_levels)
    if target is None:
        return []
    judged = by_levels[target][0]
    names, old = judged.metrics["classes"], _old_names(judged)
    values: dict[Levels, dict[int, dict[str, float]]] = {}
    tables: dict[Levels, npt.NDArray[Any]] = {}
    for levels, runs in by_levels.items():
        for one in runs:
            way = way_to(_old_names(one), old, one.cell.name)
            confusion = merged(np.asarray(one.metrics["models"][one.main]["confusion"]), way)
            scores = {key: float(value) for key, value in scores_of(confusion).items()}
            values.setdefault(levels, {})[one.cell.seed] = scores
        blocks = [np.load(one.run.path(f"blocks_test_{MODELS[one.main]}.npz"))["counts"] for one in runs]
        if len({block.shape for block in blocks}) == 1:
            tables[levels] = merged(np.sum(blocks, 0), way_to(_old_names(runs[0]), old, ""))
    rows = [_row(levels, target, values, tables, by_levels[levels][0], table) for levels in by_levels]
    head = ["trained on", "classes", *SHOWN, "miou gained", "95 % by seeds", "95 % by blocks"]
    text = (
        f"All judged in the {len(names)} classes of {table.name_of(target)}: answers in finer classes are merged after "
        "the fact. Gains are against the model that was trained on these."
    )
    return [Section("Judged in the same classes", text, head, rows, 1)]


def target_of(table: Table, by_levels: Mapping[Levels, Sequence[Finished]]) -> Levels | None:
    """The setting whose classes all are judged in: the plan's, else the one of fewest."""
    wanted = table.loaded.plan.judged
    named = [levels for levels in by_levels if wanted is None or wanted in levels]
    return min(named, key=lambda levels: len(by_levels[levels][0].metrics["classes"]), default=None)


def _old_names(one: Finished) -> dict[str, set[str]]:
    """{class: the data's own classes that it stands for}."""
    merge = one.run.config.data.merge or {}
    return {name: set(merge.get(name, [name])) for name in one.metrics["classes"]}


def way_to(fine: Mapping[str, set[str]], coarse: Mapping[str, set[str]], where: str) -> npt.NDArray[np.float64]:
    """(fine, coarse) of 0 and 1: which class becomes which; raises DataError where one would have to be cut."""
    found = np.zeros((len(fine), len(coarse)))
    for i, (name, parts) in enumerate(fine.items()):
        for j, whole in enumerate(coarse.values()):
            if parts <= whole:
                found[i, j] = 1
        if not found[i].any():
            raise DataError(
                f"{where}: its class {name} does not lie in one class of those all are judged in",
                fix="set judged: to the level of the coarsest classes",
            )
    return found


def merged(counts: npt.NDArray[Any], way: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Confusion tables (..., K, K) in the coarser classes."""
    return np.asarray(np.einsum("ia,...ij,jb->...ab", way, counts, way))


def _row(
    levels: Levels, target: Levels, values: Mapping[Levels, Mapping[int, Mapping[str, float]]],
    tables: Mapping[Levels, npt.NDArray[Any]], one: Finished, table: Table,
) -> list[str]:  # fmt: skip
    mine, theirs = values[levels], values[target]
    row = [table.name_of(levels), str(len(one.metrics["classes"]))]
    for key in SHOWN:
        found = over_seeds([scores[key] for scores in mine.values()])
        row.append(f"{found.value:.3f}" + (f" ±{found.sd:.3f}" if found.sd == found.sd else ""))
    if levels == target:
        return [*row, "", "", ""]
    gain = over_seeds([mine[seed]["miou"] - theirs[seed]["miou"] for seed in mine if seed in theirs])
    row += [f"{gain.value:+.3f}", f"{gain.low:+.3f} to {gain.high:+.3f}" if gain.low == gain.low else "–"]
    a, b = tables.get(levels), tables.get(target)
    if a is None or b is None or a.shape != b.shape or not np.array_equal(a.sum(-1), b.sum(-1)):
        return [*row, "–"]
    ground = compare(a, b, lambda both: scores_of(both)["miou"])
    return [*row, f"{ground.low:+.3f} to {ground.high:+.3f}" if ground.low == ground.low else "–"]
