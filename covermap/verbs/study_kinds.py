"""What each kind of study shows: functions from the tidy rows of a study to sections of a table and a figure.

grid   one row for each setting, one figure that fits the axes; other kinds add what their question needs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

import numpy as np

from covermap.core.errors import ConfigError
from covermap.core.study_plan import Loaded
from covermap.metrics.intervals import Interval, over_seeds
from covermap.report import study_figures
from covermap.report.figures import tradeoff_curves
from covermap.report.study_page import Section
from covermap.verbs.study_merges import OWN
from covermap.verbs.study_table import FOREST, Levels, Table, conclusion, sign_of, verdict

COSTS = {"trainable_parameters": "Trained parameters", "train_seconds": "Training s", "test_seconds": "Test s",
         "peak_memory_mb": "Memory MB"}  # fmt: skip
DASH = "–"


def grid(table: Table) -> list[Section]:
    """A row for each setting, and the figure of the main score."""
    figure, caption = _figure(table)
    return [Section("Result", "", *main_rows(table), len(table.axes), figure, caption)]


def main_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and rows: levels, scores as mean ± sd, the difference in the main score, and what it took."""
    against = {tuple(row["levels"]): row for row in table.differences if row["score"] == table.main}
    costs = [key for key in COSTS if any(row["score"] == key for row in table.rows)]
    head = [*table.axes, *table.scores]
    ground = any("blocks_low" in row and row["blocks_low"] == row["blocks_low"] for row in against.values())
    gained = [f"{table.main} gained, 95 % by seeds", *(["by blocks"] if ground else [])] if against else []
    head += gained
    rows = []
    for levels in table.settings:
        row = [*levels, *(spread(table.mean(levels, key)) for key in table.scores)]
        row += _gain(against[levels])[: len(gained)] if levels in against else [""] * len(gained)
        rows.append(row + [_cost(table.mean(levels, key)) for key in costs])
    return head + [COSTS[key] for key in costs], rows + _forest_rows(table, len(gained), costs)


def _forest_rows(table: Table, gained: int, costs: Sequence[str]) -> list[list[str]]:
    """The forests beside the networks: one row, where all are the same."""
    found: dict[tuple[str, ...], tuple[Levels, list[str]]] = {}
    for levels in table.settings if table.has_beside else ():
        scores = [spread(table.mean(levels, key, model=FOREST)) for key in table.scores]
        told = [_cost(table.mean(levels, key, model=FOREST)) for key in costs]
        found.setdefault(tuple(scores), (levels, [*scores, *[""] * gained, *told]))
    if len(found) == 1:
        return [[FOREST, *[DASH] * (len(table.axes) - 1), *row] for _, row in found.values()]
    return [[f"{levels[0]}: {FOREST}", *levels[1:], *row] for levels, row in found.values()]


def _gain(row: Mapping[str, Any]) -> list[str]:
    def span(low: float, high: float) -> str:
        return f"{low:+.3f} to {high:+.3f}" if low == low else DASH

    mark = {"better": "▲ ", "worse": "▼ ", "open": ""}[verdict(row)[0]]
    by_blocks = span(row.get("blocks_low", nan), row.get("blocks_high", nan))
    by_seeds = f" ({span(row['low'], row['high'])})" if row["low"] == row["low"] else ""
    return [f"{mark}{row['mean']:+.3f}{by_seeds}", by_blocks]


def spread(found: Interval) -> str:
    """Mean ± sd in words."""
    if found.value != found.value:
        return DASH
    return f"{found.value:.3f}" + (f" ±{found.sd:.3f}" if found.sd == found.sd else "")


def _cost(found: Interval) -> str:
    if found.value != found.value:
        return DASH
    return f"{found.value:,.0f}" if found.value >= 10 else f"{found.value:.2g}"


def _pair(found: Interval) -> tuple[float, float]:
    return found.value, found.sd


def numeric_axis(table: Table, setting: str = "") -> str | None:
    """The last axis of two or more levels that are all numbers; of several the one that sets what a kind is about."""
    found = [a for a in reversed(table.axes) if len(table.axes[a]) > 1 and table.loaded.numbers(a)]
    about = [a for a in found if any(setting in settings for settings in table.loaded.axes[a].values())]
    return next(iter([*(about if setting else []), *found]), None)


def _figure(table: Table) -> tuple[str, str]:
    """The figure that fits the axes, and its caption."""
    score, axis = table.main, numeric_axis(table)
    several = [a for a in table.axes if len(table.axes[a]) > 1]
    around = "mean over seeds, {} one standard deviation either way"
    if axis is not None:
        return _lines(table, axis), f"{score} over {axis}: {around.format('band')}."
    if len(several) == 2 and not table.forests:
        down, across = several
        at = [list(table.axes).index(each) for each in several]
        values = {(levels[at[0]], levels[at[1]]): _pair(table.mean(levels, score)) for levels in table.settings}
        figure = study_figures.level_heat(table.axes[down], table.axes[across], values, down=down, across=across)
        text = f"{score}, mean over seeds and standard deviation."
        if table.has_beside:
            each = [table.mean(levels, score, model=FOREST).value for levels in table.settings]
            text += f" The random forest beside them: {min(each):.3f} to {max(each):.3f}."
        return figure, text
    bars = {table.name_of(levels): _pair(table.mean(levels, score)) for levels in table.settings}
    beside = (
        {table.name_of(levels): _pair(table.mean(levels, score, model=FOREST)) for levels in table.settings}
        if table.has_beside else None
    )  # fmt: skip
    figure = study_figures.whisker_bars(bars, y=score, baseline=beside)
    return figure, f"{score}: {around.format('whiskers')}."


def _lines(table: Table, axis: str, score: str | None = None) -> str:
    """Lines over an axis of numbers, one for each combination of the others."""
    score, at = score or table.main, list(table.axes).index(axis)
    x = dict(zip(table.axes[axis], table.loaded.numbers(axis) or (), strict=True))
    series: dict[str, list[tuple[float, float, float]]] = {}
    forest: dict[float, list[float]] = {}
    for levels in table.settings:
        name = table.name_of(levels, without=[axis]) or table.model_of(levels)
        series.setdefault(name, []).append((x[levels[at]], *_pair(table.mean(levels, score))))
        if table.has_beside:
            forest.setdefault(x[levels[at]], []).extend(table.values(levels, score, model=FOREST).values())
    for value, values in forest.items():
        series.setdefault(FOREST, []).append((value, *_pair(over_seeds(values))))
    names = {table.name_of(levels, without=[axis]) or FOREST for levels in table.forests}
    numbers = sorted(x.values())
    log = numbers[0] > 0 and numbers[-1] / numbers[0] >= 4
    return study_figures.band_lines(series, x=axis, y=score, log=log, baseline=next(iter(names), FOREST))


def merges(table: Table) -> list[Section]:
    """All in the same classes; see study_merges.py."""
    (first, *others) = grid(table)
    names = table.done[0].metrics["classes"]
    text = (
        f"All are judged in the same {len(names)} classes ({', '.join(names)}): answers in finer classes are merged "
        f"after the fact. {OWN}: in the classes that a model was trained on."
    )
    return [first._replace(text=text), *others]


def data_reduction(table: Table) -> list[Section]:
    """Bands over the budget, and how fast each learns with the largest one."""
    found, axis = grid(table), numeric_axis(table, "split.budget")
    most = max(table.axes[axis], key=float) if axis else None
    rows = [row for row in table.steps if axis is None or row[axis] == most]
    keys = [f"val_{table.main}", *sorted({row["score"] for row in rows if row["score"].startswith("val_")})]
    key = next((key for key in keys if any(row["score"] == key for row in rows)), None)
    if key is None:
        return found
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["score"] != key:
            continue
        levels = tuple(str(row[a]) for a in table.axes)
        name = table.name_of(levels, without=[axis] if axis else [])
        values.setdefault(name, {}).setdefault(row["step"], []).append(row["value"])
    series = {name: [(step, *_pair(over_seeds(each))) for step, each in one.items()] for name, one in values.items()}
    figure = study_figures.band_lines(series, x="training steps", y=key)
    text = f"With {axis} {most}." if most else ""
    caption = f"{key} against training steps: mean over seeds, band one standard deviation either way."
    return [*found, Section("How fast each learns", text, figure=figure, caption=caption)]


def losses(table: Table) -> list[Section]:
    """Recall of all classes alike against accuracy: each setting, and decisions shifted after training."""
    points, curves = {}, {}
    for levels in table.settings:
        x, y = table.mean(levels, "oa").value, table.mean(levels, "macro_recall").value
        if x == x and y == y:
            points[table.name_of(levels)] = (x, y)
    first = [one for one in table.done if tuple(one.cell.levels.values()) == table.reference_of(table.settings[0])]
    if first and (rows := first[0].more.get("tradeoff")):
        name = table.name_of(tuple(first[0].cell.levels.values()))
        curves[f"{name}, shifted"] = [(row[1], row[2]) for row in rows]
    if not points:
        return grid(table)
    text = (
        "The curve: probabilities of the first seed, decided as if rare classes were more frequent (logit adjustment). "
        "A loss below the curve costs more accuracy than that decision does."
    )
    caption = "Mean recall (macro) against overall agreement (micro), means over seeds."
    return [*grid(table), Section("Rare classes against accuracy", text if curves else "",
                                  figure=tradeoff_curves(curves, points), caption=caption)]  # fmt: skip


def gsd(table: Table) -> list[Section]:
    """What larger pixels lose and save: the coarsest usable one of each class by the plan's rule, and the cost."""
    found, axis, rule = grid(table), numeric_axis(table, "data.gsd_m"), table.loaded.plan.usable
    if axis is None:
        return found
    per_km2: dict[str, list[tuple[float, float, float]]] = {}
    rows: list[list[str]] = []
    at = list(table.axes).index(axis)
    for other in dict.fromkeys((*levels[:at], *levels[at + 1 :]) for levels in table.settings):
        own = [levels for levels in table.settings if (*levels[:at], *levels[at + 1 :]) == other]
        name = table.name_of(own[0], without=[axis]) or table.model_of(own[0])
        for levels in own:
            seconds, km2 = (table.values(levels, key) for key in ("test_seconds", "test_km2"))
            each = over_seeds([seconds[seed] / km2[seed] for seed in seconds if km2.get(seed)])
            per_km2.setdefault(name, []).append((float(levels[at]), *_pair(each)))
        rows += [[name, *row] for row in usable_rows(table, own, at)]
    text = (
        f"Rule: the coarsest pixel at which {rule.score} of the class, mean over seeds, is at least "
        f"{rule.share_of_best:.0%} of its best."
    )
    head = ["", "class", f"best {rule.score}", "at m", "lowest usable m", f"{rule.score} there"]
    cost = study_figures.band_lines(per_km2, x=f"{axis} (m)", y="seconds per km2", log=True)
    caption = "Seconds of predicting a km2 of the test part."
    return [*found, Section("Lowest usable pixel size", text, head, rows, 2),
            Section("What a pixel size costs", figure=cost, caption=caption)]  # fmt: skip


def usable_rows(table: Table, settings: Sequence[Levels], at: int) -> list[list[str]]:
    """Of each class: its best score and where, the coarsest pixel that is still usable, and the score there."""
    rule = table.loaded.plan.usable
    sizes = sorted(settings, key=lambda levels: float(levels[at]))
    names = dict.fromkeys(row["class"] for row in table.rows if row["class"] and row["score"] == rule.score)
    rows = []
    for name in names:
        values = {float(levels[at]): table.mean(levels, rule.score, name=name).value for levels in sizes}
        known = {size: value for size, value in values.items() if value == value}
        if not known:
            continue
        best = max(known, key=lambda size: known[size])
        enough = [size for size, value in known.items() if value >= rule.share_of_best * known[best] > 0]
        lowest = max(enough, default=None)
        there = f"{known[lowest]:.3f}" if lowest is not None else DASH
        rows.append([name, f"{known[best]:.3f}", f"{best:g}", f"{lowest:g}" if lowest is not None else "none", there])
    return rows


def fusion(table: Table) -> list[Section]:
    """What each sensor adds to the sets without it; levels are sensors joined by +."""
    rows = [
        [sensor, table.name_of(without), *gain(table, levels, without, table.main)]
        for sensor, levels, without in added(table)
    ]
    text = f"{table.main} with the sensor minus without it, paired by seed."
    head = ["sensor", "added to", "gain", "95 % by seeds", ""]
    return [*grid(table), Section("What each sensor adds", text, head, rows, 2)]


def added(table: Table) -> list[tuple[str, Levels, Levels]]:
    """(sensor, the setting with it, that without it) of all pairs that differ in one sensor alone."""
    axis = next((a for a, levels in table.axes.items() if any("+" in level for level in levels)), None)
    if axis is None:
        return []
    at = list(table.axes).index(axis)
    by_set = {
        (frozenset(levels[at].split("+")), (*levels[:at], *levels[at + 1 :])): levels for levels in table.settings
    }
    sensors = sorted({name for level in table.axes[axis] for name in level.split("+")})
    return [
        (sensor, levels, by_set[names - {sensor}, others])
        for sensor in sensors
        for (names, others), levels in by_set.items()
        if sensor in names and (names - {sensor}, others) in by_set
    ]


def gain(table: Table, levels: Levels, other: Levels, score: str) -> list[str]:
    """The difference of two settings, paired by seed, its interval, and whether it is told."""
    mine, theirs = table.values(levels, score), table.values(other, score)
    found = over_seeds([mine[seed] - theirs[seed] for seed in mine if seed in theirs])
    if found.low != found.low:
        return [f"{found.value:+.3f}", DASH, "one seed tells no spread"]
    told = found.low > 0 or found.high < 0
    word = ("better" if sign_of(score) * found.value > 0 else "worse") if told else "not told apart"
    return [f"{found.value:+.3f}", f"{found.low:+.3f} to {found.high:+.3f}", word]


def cross_region(table: Table) -> list[Section]:
    """Trained on one region, scored on the test part of every one."""
    axis = next(iter(table.axes))
    names, values = table.axes[axis], across_values(table)
    means = {pair: over_seeds(list(each.values())) for pair, each in values.items()}
    figure = study_figures.level_heat(
        names, names, {pair: _pair(found) for pair, found in means.items()}, down="trained on", across="scored on"
    )
    rows = [[a, *(spread(means[a, b]) if (a, b) in means else DASH for b in names)] for a in names]
    text = "Every column is scored on the same ground, the held-out blocks of its region; the diagonal is in-region."
    section = Section(f"{table.main}: trained on (rows), scored on (columns)", text, ["", *names], rows, 1, figure,
                      "Mean over seeds and standard deviation.")  # fmt: skip
    return [section, *(one._replace(title="In-region", figure="", caption="") for one in grid(table))]


def travelled(table: Table) -> str:
    """How much a model loses away from its region, in a sentence."""
    values = across_values(table)
    homes = {name: values[name, name] for name in table.axes[next(iter(table.axes))] if (name, name) in values}
    lost = {
        pair: over_seeds([value - homes[pair[1]][seed] for seed, value in each.items() if seed in homes[pair[1]]])
        for pair, each in values.items() if pair[0] != pair[1] and pair[1] in homes
    }  # fmt: skip
    lost = {pair: found for pair, found in lost.items() if found.count}
    if not lost:
        return "Nothing can be compared yet."
    worst = min(lost, key=lambda pair: sign_of(table.main) * lost[pair].value)
    span = f", {lost[worst].low:+.3f} to {lost[worst].high:+.3f} by seeds" if lost[worst].low == lost[worst].low else ""
    mean = float(np.mean([one.value for one in lost.values()]))
    return (
        f"Away from its region a model has {table.main} {mean:+.3f} on average against one of the region itself; "
        f"most is lost from {worst[0]} to {worst[1]} ({lost[worst].value:+.3f}{span})."
    )


def gains_told(table: Table) -> str:
    """What sensors add, in a sentence."""
    said = []
    for sensor, levels, without in added(table):
        value, span, word = gain(table, levels, without, table.main)
        said.append(f"{sensor} added to {table.name_of(without)}: {value} ({span}; {word})")
    return f"{table.main}: {'; '.join(said)}." if said else conclusion(table)


def across_values(table: Table) -> dict[tuple[str, str], dict[int, float]]:
    """{(trained on, scored on): {seed: the main score}}."""
    axis, found = next(iter(table.axes)), {}  # type: ignore[var-annotated]
    for one in table.done:
        home = one.cell.levels[axis]
        scores = {home: one.metrics["models"][one.main]["scores"]} | one.more.get("across", {})
        for name, each in scores.items():
            value = nan if each.get(table.main) is None else each[table.main]
            found.setdefault((home, name), {})[one.cell.seed] = value
    return found


KINDS: Mapping[str, Callable[[Table], list[Section]]] = {
    "grid": grid, "normalisation": grid, "adaptation": grid, "decoders": grid, "settings": grid,
    "data_reduction": data_reduction, "losses": losses, "gsd": gsd, "fusion": fusion, "cross_region": cross_region,
    "merges": merges,
}  # fmt: skip
"""Kinds of grids of runs; see study.py for kinds that are no such grid."""


def require_axes(loaded: Loaded) -> None:
    """Raise ConfigError where the axes do not give what a kind is about."""
    kind, axes = loaded.plan.kind, loaded.axes
    numbers = [axis for axis in axes if loaded.numbers(axis) is not None]
    needed = {
        "gsd": (bool(numbers) and all(cell.config.data.gsd_m for cell in loaded.cells),
                "an axis {setting: data.gsd_m, values: [10, 20]}, so that all cells have a pixel size"),
        "data_reduction": (bool(numbers), "an axis of numbers, {setting: split.budget, values: [1.0, 0.5]}"),
        "fusion": (any("+" in level for levels in axes.values() for level in levels),
                   "levels that are sets of sensors: s1, s2, s1+s2"),
        "cross_region": (len(axes) == 1, "one axis, whose levels are regions"),
    }  # fmt: skip
    ok, what = needed.get(kind, (True, ""))
    if not ok:
        raise ConfigError(f"{loaded.source}: kind {kind} needs {what}", fix="change the axes, or use kind: grid")


_SENTENCES: Mapping[str, Callable[[Table], str]] = {"cross_region": travelled, "fusion": gains_told}


def conclude(table: Table) -> str:
    """What a study tells, in a sentence or two."""
    return _SENTENCES.get(table.loaded.plan.kind, conclusion)(table)
