"""`write_report`: one HTML file that shows a run: result, doubts, scores, pictures, data, settings.

Everything stands inside the file: no script, no font, no address is loaded. What the run does not hold yet is left out
with one sentence that says which command makes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from covermap.core.output import write_text
from covermap.core.run import Run
from covermap.core.scored import shown_of
from covermap.core.task import KINDS
from covermap.data.split import part_counts
from covermap.geo import pictures
from covermap.report import figures, scene_pictures, words
from covermap.report.beside import looks_of
from covermap.report.changes import changes_of
from covermap.report.layers import About, ShownLayer, shown_layers
from covermap.report.numbers import numbers_of
from covermap.report.pieces import MAX_SCENES, Pieces, read_json
from covermap.report.places import examples_of, maps_of
from covermap.report.render import render, seconds
from covermap.report.study_page import Section

COUNTED_PX = 1 << 27
"""Labels of scenes up to this size together are counted while the report is written (some 10 s)."""
SPOKES = range(3, 13)
"""Numbers of classes that a radar chart is drawn of: with fewer it is no shape, with more no one can read it."""


def write_report(run: Run) -> Path:
    """Write `report.html` into the run's folder from whatever the run holds by now; returns its path.

    Raises OutputError when it cannot be written. Data that can no longer be opened are named in the report.
    """
    pieces = Pieces(run)
    page = render(
        "page.html",
        name=run.config.name,
        chips=KINDS[run.config.task_section.name].chips,
        folder=shlex.quote(str(run.folder)),
        evaluate=_evaluate_command(pieces),
        sentence=result_sentence(pieces.metrics),
        facts=_facts(pieces),
        doubts=pieces.doubts,
        metrics=pieces.metrics,
        shown=shown_of(pieces.metrics),
        colours=pieces.colours,
        legend=_swatches(pieces),
        intervals=_has_intervals(pieces),
        reliability=_reliability(pieces),
        classes=_classes(pieces),
        numbers=numbers_of(pieces.run.path(f"chips_{pieces.shown_part}_model.csv")),
        confusions=_confusions(pieces),
        confused=words.of_confusion(pieces.metrics) if pieces.metrics else "",
        curves=_curves(pieces),
        split=_split(pieces),
        examples=examples_of(pieces),
        maps=maps_of(pieces),
        areas=_areas(pieces),
        change=changes_of(pieces),
        pair=pieces.is_pair_of_maps,
        dates=len(pieces.dates),
        layers=_layers(pieces),
        looks=_looks(pieces),
        scenes=_scenes(pieces),
        files=_files(pieces),
        problem=pieces.problem,
        settings=run.path("config.yaml").read_text(encoding="utf-8"),
        versions=read_json(run, "versions.json") or {},
        empty_colour=pictures.EMPTY_COLOUR,
        part_colours=scene_pictures.PART_COLOURS,
    )
    return write_text(run.path("report.html"), page)


def result_sentence(metrics: Mapping[str, Any] | None) -> str:
    """The result of a run in one sentence of words, from the values of metrics.json."""
    return "This run has no scores yet." if metrics is None else shown_of(metrics).sentence(metrics)


def _evaluate_command(pieces: Pieces) -> str:
    """The command that scores the run, on the test part or the best there is instead."""
    there = {tile.part for tile in pieces.split.tiles} if pieces.split else {"test"}
    part = next((part for part in ("test", "val", "train") if part in there), "test")
    command = f"covermap evaluate {shlex.quote(str(pieces.run.folder))}"
    return command if part == "test" else f"{command} --part {part}"


def _facts(pieces: Pieces) -> list[tuple[str, str]]:
    """The few facts under the title."""
    facts = []
    if pieces.scenes:
        grid = pieces.scenes[0].grid
        number = len(pieces.scenes)
        size = f"{grid.height:,} × {grid.width:,} px" if number == 1 else f"{number} scenes"
        bands = sum(len(names) for names in pieces.scenes[0].bands.values())
        facts += [("Data", size), ("Pixel", f"{grid.gsd_m:.4g} m"), ("Bands", str(bands))]
    if pieces.legend is not None:
        facts.append(("Classes", str(len(pieces.legend))))
    section = pieces.run.config.model
    joined = section.backbone if section.backbone == section.decoder else f"{section.backbone} + {section.decoder}"
    facts.append(("Network", joined))
    if pieces.card and "parameters" in pieces.card.facts:
        facts.append(("Parameters", f"{pieces.card.facts['parameters']:,}"))
    if pieces.log:
        facts.append(("Trained", f"{pieces.log[-1]['epoch']} epochs, {seconds(_total_seconds(pieces.log))}"))
    return facts


def _total_seconds(log: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(row.get("seconds") or 0 for row in log))


def _swatches(pieces: Pieces) -> list[dict[str, str]]:
    """Of the classes; without a legend of those that are scored."""
    names = pieces.legend.names if pieces.legend else pieces.colours
    return [{"name": name, "colour": pieces.colours[name]} for name in names]


def _classes(pieces: Pieces) -> dict[str, Any] | None:
    """Rows of the table by class or number, and the bar chart."""
    if pieces.metrics is None:
        return None
    models, shown = pieces.metrics["models"], shown_of(pieces.metrics)
    tables = {name: result[shown.table] for name, result in models.items()}
    names = [row[shown.name] for row in next(iter(tables.values()))]
    colours = [pieces.colours.get(name, "#999999") for name in names]
    rows: list[dict[str, Any]] = [
        {"name": name, "colour": colours[i], "cells": [table[i] for table in tables.values()]}
        for i, name in enumerate(names)
    ]
    if shown.bar is None or len(names) < 2:
        return {"rows": rows, "chart": None, "radar": None, "words": ""}
    key, title = shown.bar
    bars = {name: [row[key] for row in table] for name, table in tables.items()}
    return {
        "rows": rows,
        "chart": figures.class_bars(names, colours, bars, title=title),
        "radar": _rings(names, bars, title),
        "words": words.of_classes(pieces.metrics, shown.table, key, title),
    }


def _rings(names: Sequence[str], bars: Mapping[str, Sequence[float | None]], title: str) -> str | None:
    """Of classes that a model has a score of, where they are neither too few nor too many."""
    there = [i for i in range(len(names)) if any(values[i] is not None for values in bars.values())]
    if len(there) not in SPOKES:
        return None
    kept = {name: [values[i] for i in there] for name, values in bars.items()}
    return figures.radar([names[i] for i in there], kept, title=title)


def _has_intervals(pieces: Pieces) -> bool:
    models = pieces.metrics["models"].values() if pieces.metrics else ()
    return any("low" in row for result in models for row in result.get("intervals", {}).values())


def _reliability(pieces: Pieces) -> dict[str, str] | None:
    models = pieces.metrics["models"] if pieces.metrics else {}
    tables = {name: result["reliability"] for name, result in models.items() if "reliability" in result}
    return {"chart": figures.reliability(tables), "words": words.of_reliability(tables)} if tables else None


def _confusions(pieces: Pieces) -> list[dict[str, str]]:
    """By row of each model, by column of the first one too."""
    if pieces.metrics is None:
        return []
    names, first, drawn = pieces.metrics["classes"], next(iter(pieces.metrics["models"])), []
    for model, result in pieces.metrics["models"].items():
        for key, when in _CONFUSIONS.items():
            if key in result:
                for of in _WAYS if model == first else _WAYS[:1]:
                    chart = figures.confusion_heat(names, result[key], of=of)
                    drawn.append({"model": f"{model}{when}", "chart": chart, "of": of})
    return drawn


def _curves(pieces: Pieces) -> dict[str, Any] | None:
    """Of two epochs or more; of one only how long it took."""
    if not pieces.log:
        return None
    has_val = pieces.split is not None and any(tile.part == "val" for tile in pieces.split.tiles)
    monitor = pieces.run.config.monitor[0] if has_val else ""
    return {
        "chart": figures.learning_curves(pieces.log, pieces.chosen_epoch) if len(pieces.log) > 1 else None,
        "chosen": pieces.chosen_epoch,
        "monitor": monitor,
        "last": pieces.log[-1]["epoch"],
        "seconds": _total_seconds(pieces.log),
        "words": words.of_curves(pieces.log, monitor),
    }


def _split(pieces: Pieces) -> dict[str, Any] | None:
    """Pictures of the parts, and labelled pixels by class and part."""
    if pieces.split is None:
        return None
    shown = [
        {
            "scene": scene.name,
            "picture": pictures.png_uri(
                scene_pictures.part_picture(pieces.composite(scene).overview, pieces.split, scene)
            ),
        }
        for scene in pieces.scenes[:MAX_SCENES]
    ]
    rows, totals, mix, said = [], dict[str, int](), "", ""
    legend = pieces.scenes[0].legend if pieces.scenes else None
    if legend and sum(s.grid.height * s.grid.width for s in pieces.scenes) in range(1, COUNTED_PX):
        counts = {part: row.tolist() for part, row in part_counts(pieces.split, pieces.scenes).items()}
        rows = [(name, [row[i] for row in counts.values()]) for i, name in enumerate(legend.names)]
        totals = {part: sum(row) for part, row in counts.items()}
        used = {part: row for part, row in counts.items() if totals[part]}
        if len(used) > 1 and sum(any(row) for _, row in rows) > 1:
            mix = figures.part_bars(legend.names, used, scene_pictures.PART_COLOURS)
            said = words.of_split(legend.names, used)
    return {
        "pictures": shown,
        "rows": rows,
        "totals": totals,
        "mix": mix,
        "words": said,
        "method": pieces.split.method,
        "buffer_px": pieces.split.buffer_px,
        "num_scenes": len(pieces.scenes),
    }


def _areas(pieces: Pieces) -> dict[str, Any] | None:
    """What samples say of the maps, and which maps changed since; None where maps are not of classes."""
    if not pieces.maps_classes:
        return None
    of_change = {name for one in pieces.comparisons for name in one.files}
    of_classes = [one for one in pieces.assessments if one.map not in of_change]
    shown = [one for one in of_classes if one.is_current]
    return {
        "shown": shown[:MAX_SCENES],
        "charts": [one.chart(pieces.colours) for one in shown[:MAX_SCENES]],
        "number": len(shown),
        "old": [one.map for one in of_classes if not one.is_current],
        "map": shlex.quote(str(_first_map(pieces))),
    }


def _first_map(pieces: Pieces) -> Path:
    """The map that is named in commands."""
    return next(filter(None, map(pieces.map_path, pieces.scenes)), pieces.run.path("map.tif"))


def _layers(pieces: Pieces) -> list[ShownLayer]:
    maps = [(s, pieces.run.map_path(s.name, len(pieces.scenes))) for s in pieces.scenes]
    task = pieces.card.task if pieces.card else None
    about = About(
        len(pieces.legend or ()),
        task.temperature != 1 if task else False,
        task.coverage if task else 0.0,
        pieces.is_pair_of_maps,
    )
    return shown_layers(maps, pieces.run.folder, about, side_px=pieces.overview_px, at_most=MAX_SCENES)


def _looks(pieces: Pieces) -> list[Section]:
    ground = {one.name: (one.grid, pieces.composite(one).overview) for one in pieces.scenes[:MAX_SCENES]}
    return looks_of(pieces.run.folder, pieces.run.config.name, pieces.colours, ground)


def _scenes(pieces: Pieces) -> list[dict[str, str]]:
    """Place, size and bands of each scene."""
    return [
        {
            "name": scene.name,
            "size": f"{scene.grid.height:,} × {scene.grid.width:,} px",
            "gsd": f"{scene.grid.gsd_m:.4g} m",
            "crs": scene.grid.crs.to_string() if scene.grid.crs else "none",
            "bands": "; ".join(_bands(key, scene.bands[key], raster.dates) for key, raster in scene.rasters.items()),
        }
        for scene in pieces.scenes[:12]
    ]


def _bands(sensor: str, bands: Sequence[str], dates: Sequence[str | None]) -> str:
    named = [date for date in dates if date]
    when = f" ({', '.join(named)})" if 0 < len(named) <= 6 else f" ({len(dates)} dates)" if len(dates) > 1 else ""
    return f"{sensor}{when}: {', '.join(bands)}"


def _files(pieces: Pieces) -> list[dict[str, Any]]:
    """Input files with size and the start of their checksum."""
    sums: dict[str, str] = read_json(pieces.run, "inputs.json") or {}
    return [
        {"path": path, "sum": text[:12], "bytes": Path(path).stat().st_size if Path(path).is_file() else None}
        for path, text in sums.items()
    ]


_WAYS: tuple[Literal["reference", "predicted"], ...] = ("reference", "predicted")
_CONFUSIONS = {"confusion": "", "confusion_before": ", earlier date", "confusion_after": ", later date"}
