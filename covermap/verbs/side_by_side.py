"""`report` of several runs: what they set differently, their scores with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covermap.core.output import claim
from covermap.core.progress import Say, silent
from covermap.core.run import Run
from covermap.core.scored import shown_of
from covermap.metrics.intervals import over_seeds
from covermap.report.study_figures import whisker_bars
from covermap.report.study_page import Section, write_study_page
from covermap.verbs.evaluate import evaluate
from covermap.verbs.several import Setting, comparable, difference, settings_of

DASH = "–"


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
    shown = [row for row in shown_of(every[0]).scores if row.form != "count"]
    differences = [
        row for one in settings[1:] for row in difference(settings[0], one, [row.key for row in shown], "test")
    ]
    main = "miou" if any(row.key == "miou" for row in shown) else shown[0].key
    sections = [_scores(settings, [row.key for row in shown], main), _differences(differences), _settings(settings)]
    return write_study_page(
        path, " · ".join(one.name for one in settings) if len(settings) < 4 else f"{len(settings)} settings",
        kind="covermap report of several runs", sentence=_sentence(differences, main),
        sections=[section for section in sections if section.rows],
        notes=["Intervals of a single run are over blocks of ground, of several seeds Student's over seeds."],
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
    caption = f"{main}: mean over seeds, whiskers one standard deviation either way."
    return Section("Scores", "", ["", "runs", *keys], rows, 1, whisker_bars(bars, y=main), caption)


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
         _span(row.get("blocks_low"), row.get("blocks_high")), _form(row.get("p"), ".3f")]
        for row in rows
    ]  # fmt: skip
    against = rows[0]["against"] if rows else ""
    text = f"Minus {against}: of equal seeds, and on the same blocks of ground (with the p of a permutation test)."
    head = ["", "score", "difference", "95 % by seeds", "95 % by blocks", "p"]
    return Section("Differences", text, head, told, 2)


def _form(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and value == value else DASH


def _span(low: float | None, high: float | None) -> str:
    return f"{low:+.3f} to {high:+.3f}" if low is not None and low == low else DASH


def _settings(settings: Sequence[Setting]) -> Section:
    keys = sorted({key for one in settings for key in one.differing})
    rows = [[key, *(str(one.differing.get(key, DASH)) for one in settings)] for key in keys]
    return Section("What they set differently", "", ["", *(one.name for one in settings)], rows, len(settings) + 1)


def _sentence(rows: Sequence[dict[str, Any]], main: str) -> str:
    said = [f"{row['setting']} {row['mean']:+.3f}" for row in rows if row["score"] == main]
    return f"{main} against {rows[0]['against']}: {', '.join(said)}." if said else "These runs have no equal seeds."
