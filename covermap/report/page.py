"""`write_report`: one HTML file that shows a run: result, doubts, scores, pictures, data, settings.

Everything stands inside the file: no script, no font, no address is loaded. What the run does not hold yet is left out
with one sentence that says which command makes it.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from covermap.card import ModelCard
from covermap.core.errors import CovermapError
from covermap.core.legend import IGNORE, PALETTE, Legend
from covermap.core.output import write_text
from covermap.core.run import Run
from covermap.core.task import KINDS
from covermap.data.reference import with_reference
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split, part_counts
from covermap.models import read_card
from covermap.report import figures, pictures
from covermap.report.areas import Assessment, assessments_of, interval_of, sensible
from covermap.report.doubts import find_doubts
from covermap.report.layers import About, ShownLayer, shown_layers
from covermap.report.scored import hectares, number, percent, score, shown_of

MAX_SCENES = 3
"""Scenes shown as pictures; tables count all of them."""
COUNTED_PX = 1 << 27
"""Labels of scenes up to this size together are counted while the report is written (some 10 s)."""
OVERVIEW_PX = 560


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
        confusions=_confusions(pieces),
        curves=_curves(pieces),
        split=_split(pieces),
        examples=_examples(pieces),
        maps=_maps(pieces),
        areas=_areas(pieces),
        layers=_layers(pieces),
        scenes=_scenes(pieces),
        files=_files(pieces),
        problem=pieces.problem,
        settings=run.path("config.yaml").read_text(encoding="utf-8"),
        versions=_json(run, "versions.json") or {},
        empty_colour=pictures.EMPTY_COLOUR,
        part_colours=pictures.PART_COLOURS,
    )
    return write_text(run.path("report.html"), page)


def render(template: str, **values: Any) -> str:
    """A page of this folder with its values in it."""
    environment = Environment(
        loader=PackageLoader("covermap", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "score": score, "count": count, "hectares": hectares, "seconds": seconds,
        "sensible": sensible, "interval": interval_of,
        "as": lambda value, form: _FORMS[form](value),
    }  # fmt: skip
    return environment.get_template(template).render(**values)


@dataclass
class Pieces:
    """What a run holds, read once; `problem` says why its data could not be opened."""

    run: Run
    problem: str = ""
    scenes: list[Scene] = field(default_factory=list)
    shown: dict[str, pictures.Composite] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.scenes, _ = with_reference(open_scenes(self.run.config.data), self.run.config)
        except CovermapError as error:
            self.problem = error.message
        self.metrics: dict[str, Any] | None = _json(self.run, "metrics.json") or _json(self.run, "metrics_val.json")
        self.log = self.run.read_log()
        self.split = Split.load(self.run.path("split.csv")) if self.run.path("split.csv").is_file() else None
        has_model = self.run.path("model/config.json").is_file()
        self.card: ModelCard | None = read_card(self.run.path("model")) if has_model else None

    @cached_property
    def legend(self) -> Legend | None:
        """The classes of the model, or of the data where there is none yet."""
        mine = self.scenes[0].legend if self.scenes else None
        return self.card.legend if self.card else mine

    @property
    def maps_classes(self) -> bool:
        """Whether maps are of classes, pixel by pixel: others are not shown as pictures."""
        return self.card is None or (self.card.task.kind.takes == "classes" and not self.card.task.kind.chips)

    @cached_property
    def colours(self) -> dict[str, str]:
        """One colour for each class name, written anew from its numbers so that nothing else gets into the page."""
        if self.legend is not None:
            return {c.name: "#{:02x}{:02x}{:02x}".format(*c.rgb) for c in self.legend.classes}
        names = self.metrics["classes"] if self.metrics else []
        return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}

    @cached_property
    def doubts(self) -> list[str]:
        found = find_doubts(
            self.run.config,
            split=self.split,
            notes=_json(self.run, "notes.json") or [],
            metrics=self.metrics,
            log=self.log,
            chosen_epoch=self.chosen_epoch,
            areas={one.map: one.found["areas"] for one in self.assessments if one.is_current},
        )
        return ([f"The data of this run cannot be opened: {self.problem}."] if self.problem else []) + found

    @property
    def chosen_epoch(self) -> int | None:
        return self.card.facts.get("epoch") if self.card else None

    @property
    def shown_part(self) -> str:
        """The part that examples are taken from: that of the scores, else test."""
        return self.metrics["part"] if self.metrics else "test"

    def composite(self, scene: Scene) -> pictures.Composite:
        """How a scene is shown; its overview is read once."""
        if scene.name not in self.shown:
            self.shown[scene.name] = pictures.composite(scene, self.overview_px)
        return self.shown[scene.name]

    @property
    def overview_px(self) -> int:
        return OVERVIEW_PX if len(self.scenes) == 1 else OVERVIEW_PX * 3 // 4

    @cached_property
    def assessments(self) -> list[Assessment]:
        """What samples say of the run's maps."""
        return assessments_of(self.run)

    def map_path(self, scene: Scene) -> Path | None:
        """The map of a scene, or None."""
        path = self.run.map_path(scene.name, len(self.scenes))
        return path if path.is_file() else None


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
    return [{"name": name, "colour": colour} for name, colour in pieces.colours.items()]


def _classes(pieces: Pieces) -> dict[str, Any] | None:
    """Rows of the table by class or number, and the bar chart."""
    if pieces.metrics is None:
        return None
    models, shown = pieces.metrics["models"], shown_of(pieces.metrics)
    tables = {name: result[shown.table] for name, result in models.items()}
    names = [row[shown.name] for row in next(iter(tables.values()))]
    colours = [pieces.colours.get(name, "#999999") for name in names]
    rows = [
        {"name": name, "colour": colours[i], "cells": [table[i] for table in tables.values()]}
        for i, name in enumerate(names)
    ]
    chart = None
    if shown.bar:
        key, title = shown.bar
        bars = {name: [row[key] for row in table] for name, table in tables.items()}
        chart = figures.class_bars(names, colours, bars, title=title)
    return {"rows": rows, "chart": chart}


def _has_intervals(pieces: Pieces) -> bool:
    models = pieces.metrics["models"].values() if pieces.metrics else ()
    return any("low" in row for result in models for row in result.get("intervals", {}).values())


def _reliability(pieces: Pieces) -> str | None:
    models = pieces.metrics["models"] if pieces.metrics else {}
    tables = {name: result["reliability"] for name, result in models.items() if "reliability" in result}
    return figures.reliability(tables) if tables else None


def _confusions(pieces: Pieces) -> list[dict[str, str]]:
    if pieces.metrics is None:
        return []
    names = pieces.metrics["classes"]
    return [
        {"model": model, "chart": figures.confusion_heat(names, result["confusion"])}
        for model, result in pieces.metrics["models"].items()
        if "confusion" in result
    ]


def _curves(pieces: Pieces) -> dict[str, Any] | None:
    if not pieces.log:
        return None
    has_val = pieces.split is not None and any(tile.part == "val" for tile in pieces.split.tiles)
    return {
        "chart": figures.learning_curves(pieces.log, pieces.chosen_epoch),
        "chosen": pieces.chosen_epoch,
        "monitor": pieces.run.config.monitor[0] if has_val else "",
        "last": pieces.log[-1]["epoch"],
        "seconds": _total_seconds(pieces.log),
    }


def _split(pieces: Pieces) -> dict[str, Any] | None:
    """Pictures of the parts, and labelled pixels by class and part."""
    if pieces.split is None:
        return None
    shown = [
        {
            "scene": scene.name,
            "picture": figures.png_uri(pictures.part_picture(pieces.composite(scene).overview, pieces.split, scene)),
        }
        for scene in pieces.scenes[:MAX_SCENES]
    ]
    rows, totals = [], {}
    legend = pieces.scenes[0].legend if pieces.scenes else None
    if legend and sum(s.grid.height * s.grid.width for s in pieces.scenes) in range(1, COUNTED_PX):
        counts = {part: row.tolist() for part, row in part_counts(pieces.split, pieces.scenes).items()}
        rows = [(name, [row[i] for row in counts.values()]) for i, name in enumerate(legend.names)]
        totals = {part: sum(row) for part, row in counts.items()}
    return {
        "pictures": shown,
        "rows": rows,
        "totals": totals,
        "method": pieces.split.method,
        "buffer_px": pieces.split.buffer_px,
        "num_scenes": len(pieces.scenes),
    }


def _examples(pieces: Pieces) -> list[dict[str, Any]]:
    """Image, label and prediction of a few windows of the scored part, where there are maps."""
    legend, split = pieces.legend, pieces.split
    mapped = [scene for scene in pieces.scenes if pieces.map_path(scene)] if pieces.maps_classes else []
    if not mapped or legend is None or split is None:
        return []
    examples = []
    for scene, window in pictures.example_windows(mapped, split, pieces.shown_part):
        composite = pieces.composite(scene)
        label = split.labels(scene, window, pieces.shown_part)
        path = pieces.map_path(scene)
        assert path is not None
        predicted = pictures.read_map(path, scene, legend, window)
        known = (label != IGNORE) & (predicted != IGNORE)
        examples.append(
            {
                "scene": scene.name,
                "window": window,
                "title": composite.title,
                "image": figures.png_uri(composite.read(window)),
                "label": figures.png_uri(pictures.class_picture(label, legend)),
                "prediction": figures.png_uri(pictures.class_picture(predicted, legend)),
                "pixels": int(known.sum()),
                "agree": float((label == predicted)[known].mean()) if known.any() else None,
            }
        )
    return examples


def _maps(pieces: Pieces) -> dict[str, Any] | None:
    """Overviews of the class maps beside the image, and mapped areas of all of them together."""
    legend = pieces.legend
    mapped = [(scene, path) for scene in pieces.scenes if (path := pieces.map_path(scene))]
    if not mapped or legend is None or not pieces.maps_classes:
        return None
    shown = []
    for scene, path in mapped[:MAX_SCENES]:
        composite = pieces.composite(scene)
        index = pictures.map_overview(path, scene.grid, legend, pieces.overview_px)
        shown.append(
            {
                "scene": scene.name,
                "file": path.relative_to(pieces.run.folder).as_posix(),
                "size": f"{scene.grid.height:,} × {scene.grid.width:,} px of {scene.grid.gsd_m:.4g} m",
                "title": composite.title,
                "image": figures.png_uri(composite.overview),
                "map": figures.png_uri(pictures.class_picture(index, legend)),
            }
        )
    areas = _mapped_ha([path for _, path in mapped], legend)
    total = sum(areas.values())
    rows = [
        {"name": n, "colour": pieces.colours[n], "area_ha": a, "share": a / total if total else 0.0}
        for n, a in areas.items()
    ]
    return {"pictures": shown, "rows": rows, "total": total, "number": len(mapped), "largest": _largest(rows)}


def _largest(rows: Sequence[Mapping[str, Any]]) -> float:
    return max((row["share"] for row in rows), default=0.0) or 1.0


def _mapped_ha(maps: Sequence[Path], legend: Legend) -> dict[str, float]:
    """Hectares of each class over all maps, from the tables beside them; empty when one has none."""
    totals = dict.fromkeys(legend.names, 0.0)
    for path in maps:
        table = next((t for t in _area_tables(path) if t.is_file()), None)
        if table is None:
            return {}
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["class"] in totals:
                    totals[row["class"]] += float(row["area_ha"])
    return totals


def _area_tables(path: Path) -> list[Path]:
    return [path.with_name(name) for name in (f"{path.stem}_areas.csv", f"{path.stem}.areas.csv", "areas.csv")]


def _areas(pieces: Pieces) -> dict[str, Any] | None:
    """What samples say of the maps, and which maps changed since; None where maps are not of classes."""
    if not pieces.maps_classes:
        return None
    shown = [one for one in pieces.assessments if one.is_current]
    return {
        "shown": shown[:MAX_SCENES],
        "charts": [one.chart(pieces.colours) for one in shown[:MAX_SCENES]],
        "number": len(shown),
        "old": [one.map for one in pieces.assessments if not one.is_current],
        "map": shlex.quote(str(_first_map(pieces))),
    }


def _first_map(pieces: Pieces) -> Path:
    """The map that is named in commands."""
    return next(filter(None, map(pieces.map_path, pieces.scenes)), pieces.run.path("map.tif"))


def _layers(pieces: Pieces) -> list[ShownLayer]:
    maps = [(s, pieces.run.map_path(s.name, len(pieces.scenes))) for s in pieces.scenes]
    task = pieces.card.task if pieces.card else None
    about = About(len(pieces.legend or ()), task.temperature != 1 if task else False, task.coverage if task else 0.0)
    return shown_layers(maps, pieces.run.folder, about, side_px=pieces.overview_px, at_most=MAX_SCENES)


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
    sums: dict[str, str] = _json(pieces.run, "inputs.json") or {}
    return [
        {"path": path, "sum": text[:12], "bytes": Path(path).stat().st_size if Path(path).is_file() else None}
        for path, text in sums.items()
    ]


def _json(run: Run, name: str) -> Any:
    return run.read_json(name) if run.path(name).is_file() else None


def count(value: float | None) -> str:
    """12345 -> 12,345; a dash for None."""
    return "–" if value is None else f"{value:,.0f}"


_FORMS: Mapping[str, Callable[[float | None], str]] = {
    "percent": percent, "score": score, "number": number, "count": count,
}  # fmt: skip


def seconds(value: float) -> str:
    """A duration in words: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
