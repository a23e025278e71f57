"""`report` of several runs: what they set differently, their scores with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covermap.core.output import claim
from covermap.core.progress import Say, silent
from covermap.core.run import Run
from covermap.core.scored import Shown, shown_of
from covermap.metrics.intervals import over_seeds
from covermap.report.drawing import MANY
from covermap.report.figures import grouped_bars, radar
from covermap.report.page import SPOKES
from covermap.report.pretrain_figures import Points, step_curves
from covermap.report.study_figures import whisker_bars
from covermap.report.study_page import Section, write_study_page
from covermap.verbs.evaluate import evaluate
from covermap.verbs.several import Setting, comparable, difference, settings_of
from covermap.verbs.side_by_side_maps import maps_apart

DASH = "–"

_INTERVALS = (
    "Intervals of a single run are over blocks of ground, of several seeds Student's over seeds, which of two or three "
    "may reach beyond what a score can be."
)


def report_several(
    runs: Sequence[Run], out: str | Path | None = None, *, overwrite: bool = False, say: Say = silent
) -> Path:
    """Write a page that shows runs beside each other; runs that differ in seeds alone are one column.

    out: default comparison.html beside the first run. Runs without scores are evaluated first. Raises DataError for
    runs of different tasks or classes, OutputError where the file exists.
    """
    path = claim(out or runs[0].folder.parent / "comparison.html", overwrite=overwrite)
    settings = settings_of(runs)
    for setting in settings:
        for seeds, run in setting.runs.items():
            there = run.path("metrics.json").is_file()
            setting.results[seeds] = run.read_json("metrics.json") if there else evaluate(run, say=say)
            if "network" not in setting.results[seeds]["models"]:
                setting.model = next(iter(setting.results[seeds]["models"]))
    every = comparable(settings)
    whole = shown_of(every[0])
    shown = [row for row in whole.scores if row.form != "count"]
    differences = [
        row for one in settings[1:] for row in difference(settings[0], one, [row.key for row in shown], "test")
    ]
    main = "miou" if any(row.key == "miou" for row in shown) else shown[0].key
    sections = [
        _scores(settings, [row.key for row in shown], main), _differences(differences), *_classes(settings, whole),
        _curves(settings), *maps_apart({one.name: next(iter(one.runs.values())) for one in settings}),
        _settings(settings),
    ]  # fmt: skip
    return write_study_page(
        path, " · ".join(one.name for one in settings) if len(settings) < 4 else f"{len(settings)} settings",
        kind="covermap report of several runs", sentence=_sentence(differences, main),
        sections=[section for section in sections if section.rows or section.figure], doubts=_doubts(settings, every),
        notes=[_INTERVALS],
    )  # fmt: skip


def _scores(settings: Sequence[Setting], keys: Sequence[str], main: str) -> Section:
    """A row for each setting and model, and bars of the main score."""
    rows, bars = [], {}
    for setting in settings:
        for model in next(iter(setting.results.values()))["models"]:
            results = [one["models"][model] for one in setting.results.values() if model in one["models"]]
            name = setting.name if model == setting.model else f"{setting.name}: {model}"
            values = [_number(one["scores"].get(main)) for one in results]
            found = over_seeds(values)
            bars[name] = (found.value, found.sd)
            rows.append([name, str(len(results)), *(_told(results, key) for key in keys)])
    caption = f"{main}: mean over seeds, whiskers one standard deviation either way; none of a single run."
    return Section("Scores", "", ["", "runs", *keys], rows, 1, whisker_bars(bars, y=main), caption)


def _doubts(settings: Sequence[Setting], every: Sequence[dict[str, Any]]) -> list[str]:
    """What speaks against the comparison as a whole; those of single runs stand in their own reports."""
    found = []
    if not every[0]["is_test"]:
        found.append(f"These are scores of the {every[0]['part']} part, which is no test.")
    if min(len(one.runs) for one in settings) == 1:
        found.append("Some settings were run once: what another seed would give is not known.")
    if any(key.startswith("split.") or key.startswith("data.") for one in settings for key in one.differing):
        found.append("Data or split differ: scores on other ground, or other labels, do not compare.")
    return found


def _classes(settings: Sequence[Setting], shown: Shown) -> list[Section]:
    """The score that a run's report draws of each class: a table, bars, and rings where they can be read."""
    if shown.bar is None:
        return []
    key, title = shown.bar
    columns: dict[str, list[float | None]] = {}
    names: list[str] = []
    for setting in settings:
        tables = [one["models"][setting.model][shown.table] for one in setting.results.values()]
        names = [row[shown.name] for row in tables[0]]
        means = [over_seeds([_number(table[i][key]) for table in tables]).value for i in range(len(names))]
        columns[setting.name] = [mean if mean == mean else None for mean in means]
    if len(names) < 2:
        return []
    rows = [[name, *(_form(column[i], ".3f") for column in columns.values())] for i, name in enumerate(names)]
    drawn = dict(list(columns.items())[: len(MANY)])
    left = f" The first {len(drawn)} of {len(columns)} are drawn." if len(drawn) < len(columns) else ""
    text = f"{title[:1].upper()}{title[1:]} of each class, mean over seeds. {_widest(names, columns)}".strip()
    found = [Section("Classes", text, ["", *columns], rows, 1, grouped_bars(names, drawn, title=title),
                     f"{title} of each class.{left}")]  # fmt: skip
    there = [i for i in range(len(names)) if any(column[i] is not None for column in drawn.values())]
    if len(there) in SPOKES:
        caption = f"{title}: farther out is better; the area inside depends on the order and means nothing.{left}"
        kept = {name: [column[i] for i in there] for name, column in drawn.items()}
        alt = f"Radar chart of the {title} of each class, a ring for each of {', '.join(drawn)}"
        found.append(
            Section(
                "Classes as rings", figure=radar([names[i] for i in there], kept, title=title), caption=caption, alt=alt
            )
        )
    return found


def _widest(names: Sequence[str], columns: dict[str, list[float | None]]) -> str:
    """Where the settings differ most, in words."""
    apart = []
    for i, name in enumerate(names):
        known = {setting: value for setting, column in columns.items() if (value := column[i]) is not None}
        if len(known) > 1:
            best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
            apart.append((known[best] - known[worst], name, best, worst))
    if not apart:
        return ""
    wide, name, best, worst = max(apart)
    return f"They differ most on {name}: {best} is {wide:.3f} above {worst}."


def _curves(settings: Sequence[Setting]) -> Section:
    """Loss, monitored score and rate over the epochs, means over seeds; of trainings of two epochs or more."""
    logs = {one.name: [run.read_log() for run in one.runs.values()] for one in settings[: len(MANY)]}
    logs = {name: found for name, found in logs.items() if min(map(len, found)) > 1}
    monitors = {run.config.monitor[0] for one in settings for run in one.runs.values()}
    keys = {"Train loss": "loss", **{f"{key} on val": key for key in sorted(monitors)}, "Learning rate": "lr"}
    panels: dict[str, dict[str, Points]] = {}
    for title, key in keys.items():
        lines: dict[str, Points] = {
            name: points for name, found in logs.items() if (points := _mean_points(found, key))
        }
        panels |= {title: lines} if lines else {}
    if len(logs) < 2:
        return Section("")
    caption = "Means over seeds. Losses compare where loss, classes and weights are the same."
    alt = f"Curves over the epochs of {', '.join(logs)}: {', '.join(panels)}"
    return Section("Training", figure=step_curves(panels, x="epoch"), caption=caption, alt=alt)


def _mean_points(logs: Sequence[Sequence[dict[str, Any]]], key: str) -> list[tuple[int, float]]:
    """(epoch, mean) of the epochs that all logs know."""
    found = [{row["epoch"]: row[key] for row in log if row.get(key) is not None} for log in logs]
    common = [epoch for epoch in found[0] if all(epoch in one for one in found)]
    return [(epoch, sum(one[epoch] for one in found) / len(found)) for epoch in common]


def _told(results: Sequence[dict[str, Any]], key: str) -> str:
    """A score with its interval."""
    found = over_seeds([_number(one["scores"].get(key)) for one in results])
    if found.value != found.value:
        return DASH
    if found.low == found.low:
        return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
    sure = results[0].get("intervals", {}).get(key, {})
    span = f" ({sure['low']:.3f} to {sure['high']:.3f})" if sure.get("low") is not None and len(results) == 1 else ""
    return f"{found.value:.3f}{span}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _differences(rows: Sequence[dict[str, Any]]) -> Section:
    told = [
        [row["setting"], row["score"], _form(row["mean"], "+.3f"), _span(row["low"], row["high"]),
         _span(row.get("blocks_low"), row.get("blocks_high")), _chance(row.get("p"))]
        for row in rows
    ]  # fmt: skip
    against = rows[0]["against"] if rows else ""
    text = f"Minus {against}: of equal seeds, and on the same blocks of ground (with the p of a permutation test)."
    head = ["", "score", "difference", "95 % by seeds", "95 % by blocks", "p"]
    return Section("Differences", text, head, told, 2)


def _form(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and value == value else DASH


def _chance(p: float | None) -> str:
    return DASH if p is None or p != p else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _span(low: float | None, high: float | None) -> str:
    return f"{low:+.3f} to {high:+.3f}" if low is not None and low == low else DASH


def _settings(settings: Sequence[Setting]) -> Section:
    keys = sorted({key for one in settings for key in one.differing})
    rows = [[key, *(str(one.differing.get(key, DASH)) for one in settings)] for key in keys]
    return Section("What they set differently", "", ["", *(one.name for one in settings)], rows, len(settings) + 1)


def _sentence(rows: Sequence[dict[str, Any]], main: str) -> str:
    said = [f"{row['setting']} {row['mean']:+.3f}" for row in rows if row["score"] == main]
    return (
        f"{main} against {rows[0]['against']}: {', '.join(said)}."
        if said
        else "These runs have no equal seeds: nothing is compared in pairs, only scores with their intervals."
    )
