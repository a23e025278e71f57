"""`predict` with a model of chips: a row of a table for each chip, and for one scene a raster of a pixel for each.

images -> scenes -> chips side by side -> answers -> OUT.csv, and OUT.tif if that is the name given
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.card import ModelCard
from covermap.core.config import ImageConfig
from covermap.core.errors import DataError, OutputError
from covermap.core.legend import IGNORE
from covermap.core.output import claim, require_no_input, write_text
from covermap.core.progress import Tick, unseen
from covermap.core.task import Task
from covermap.core.train_config import PredictConfig
from covermap.core.types import OwnStatistics
from covermap.data.scene import Scene
from covermap.data.stats import with_own_statistics
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.legend_files import csv_text
from covermap.geo.products import finish_cog, finish_map, layer_beside, names_beside
from covermap.geo.writer import RasterWriter
from covermap.infer import infer_chips, open_all_for
from covermap.models import LandModel, load_model, read_card
from covermap.verbs.prediction import Prediction
from covermap.verbs.score import Compared


def predict_chips(
    folder: Path, images: Sequence[Sequence[ImageConfig]], out: Path, *, settings: PredictConfig, any_gsd: bool = False,
    overwrite: bool = False, dry_run: bool = False, statistics: Sequence[OwnStatistics] = (),
    on_progress: Tick = unseen,
) -> Prediction:  # fmt: skip
    """Write OUT.csv, a row for each chip, the one to look at first on top where the task says so.

    images: of each scene, or of many by a pattern, one for each of the model's sensors. statistics: of each scene's
    place, where it is known.
    With OUT.tif also a raster: classes with their probabilities beside them, or numbers. Raises OutputError, DataError.
    """
    started = time.perf_counter()
    card = read_card(folder)
    scenes = [scene for each in images for scene in open_all_for(card.spec, each, any_gsd=any_gsd)]
    scenes = with_statistics(scenes, card, statistics)
    side = settings.size_px or card.spec.size_px
    raster = out.suffix.lower() in (".tif", ".tiff")
    if not raster and out.suffix.lower() != ".csv":
        raise OutputError(f"{out} is neither .csv nor .tif", fix="the model answers for chips: name a table, chips.csv")
    if raster and len(scenes) > 1:
        raise DataError(
            f"{images[0][0].path} names {len(scenes)} scenes", fix="a table takes them all: name it chips.csv"
        )
    table = out.with_suffix(".csv")
    outputs = [table, *([out, layer_beside(out, "probs"), *names_beside(out).values()] if raster else [])]
    require_no_input(outputs, (file for scene in scenes for file in scene.files))
    for path in outputs:
        claim(path, overwrite=overwrite, dry_run=dry_run)
    chips = [(i, w) for i, scene in enumerate(scenes) for w in partition(scene.grid.window, side, side)]
    notes = tuple(dict.fromkeys(note for scene in scenes for note in scene.notes))
    if dry_run:
        return Prediction(out, (), None, 0.0, 0.0, len(chips), 0, notes)
    model = load_model(folder, device=settings.device, precision=settings.precision)
    found = np.full((len(chips), len(model.legend)), np.nan, np.float32)
    for number, answer in enumerate(
        infer_chips(model, scenes, chips, size_px=side, batch_size=settings.batch_size, tta=settings.tta)
    ):
        found[number] = answer
        on_progress(number + 1, len(chips))
    files = [write_chips(table, model.task, scenes, chips, found)]
    if raster:
        files += _rasters(out, model, scenes[0], side, found, overwrite=overwrite)
    ha = sum(sum(scene.grid.row_areas_ha()) * scene.grid.width for scene in scenes)
    seconds = time.perf_counter() - started
    return Prediction(out, tuple(files), None, seconds, ha / 100 / seconds, len(chips), 0, notes)


def with_statistics(scenes: Sequence[Scene], card: ModelCard, statistics: Sequence[OwnStatistics] = ()) -> list[Scene]:
    """The scenes with those of their places; without any, those that were given together are one place."""
    if statistics:
        scenes = [replace(scene, statistics=own) for scene, own in zip(scenes, statistics, strict=True)]
    elif card.facts.get("statistics_of") == "places" and len(scenes) > 1:
        note = f"bands are normalised over all {len(scenes):,} scenes together, as of one place: give each place alone"
        scenes = [replace(scene, place="all", notes=[*scene.notes, note]) for scene in scenes]
    return with_own_statistics(scenes, card.spec)


def write_chips(
    path: Path, task: Task, scenes: Sequence[Scene], chips: Sequence[tuple[int, Window]],
    answers: npt.NDArray[np.float32],
) -> Path:  # fmt: skip
    """A CSV with the place and the answer of each chip; empty where the image holds nothing.

    Of classes in order, and of a single class that is there or not, the highest come first.
    """
    order = np.arange(len(chips))
    if (rank := _rank(task, answers)) is not None:
        order = np.argsort(-np.nan_to_num(rank, nan=-1), kind="stable")
    head = ["scene", "row", "col", "x", "y", "lat", "lon", *_columns(task)]
    rows = []
    for number in order.tolist():
        which, window = chips[number]
        scene = scenes[which]
        inside = window.intersect(scene.grid.window)
        x, y = scene.grid.transform * (inside.col + inside.width / 2, inside.row + inside.height / 2)
        lat, lon = scene.grid.lat_lon(inside) or ("", "")
        place = [scene.name, window.row, window.col, f"{x:.10g}", f"{y:.10g}", *(_short(v) for v in (lat, lon))]
        rows.append([*place, *_cells(task, answers[number])])
    write_text(path, csv_text(head, rows))
    return path


class ChipTable:
    """Answers of chips beside what is known of them, as a CSV from which their scores can be made again."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._rows: list[list[Any]] = []

    def add(self, one: Compared) -> None:
        """Keep a chip."""
        assert one.chip is not None
        answer, known = one.answers.ravel(), one.reference.ravel()
        where = [one.place, one.scene, one.chip.row, one.chip.col]
        self._rows.append([*where, *self._known(known), *_cells(self.task, answer, digits=7)])

    def write(self, path: Path) -> Path:
        """A row for each chip: place, scene, row, col, what is known (empty: not known), answer."""
        names = self.task.legend.names
        one = self.task.kind.takes in ("classes", "order")
        known = ["reference"] if one else [f"known {name}" for name in names]
        return write_text(path, csv_text(["place", "scene", "row", "col", *known, *_columns(self.task)], self._rows))

    def _known(self, known: npt.NDArray[Any]) -> list[str]:
        if self.task.kind.takes in ("numbers", "presence"):
            return ["" if math.isnan(value) else f"{value:.7g}" for value in known.tolist()]
        return ["" if known[0] == IGNORE else self.task.legend.names[int(known[0])]]


def _rank(task: Task, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    if task.kind.takes == "order":
        return (answers @ np.arange(answers.shape[1])).astype(np.float32)
    return answers[:, 0] if task.kind.takes == "presence" and answers.shape[1] == 1 else None


def _columns(task: Task) -> list[str]:
    names = list(task.legend.names)
    if task.kind.takes == "numbers":
        return [f"{n} ({u})" if u else n for n, u in zip(names, task.units, strict=True)]
    return [*(["classes"] if task.kind.takes == "presence" else ["code", "class"]), *(f"p({name})" for name in names)]


def _cells(task: Task, answer: npt.NDArray[np.float32], digits: int = 5) -> list[Any]:
    shown = ["" if math.isnan(value) else f"{value:.{digits}g}" for value in answer.tolist()]
    if task.kind.takes == "numbers":
        return shown
    if np.isnan(answer).any():
        return [*([""] if task.kind.takes == "presence" else ["", ""]), *shown]
    if task.kind.takes == "presence":
        there = [name for name, p in zip(task.legend.names, answer, strict=True) if p >= task.threshold]
        return ["; ".join(there), *shown]
    best = task.legend.classes[int(answer.argmax())]
    return [best.code, best.name, *shown]


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6f}"


def _rasters(
    out: Path, model: LandModel, scene: Scene, side: int, answers: npt.NDArray[np.float32], *, overwrite: bool
) -> list[Path]:
    """A pixel for each chip; the last row and column may reach beyond the scene."""
    grid = scene.grid.coarsen(side)
    cube = answers.reshape(grid.height, grid.width, -1).transpose(2, 0, 1)
    legend, takes = model.legend, model.task.kind.takes
    plain = out.with_name(f".{out.stem}.plain.tif")
    try:
        _write(plain, grid, cube, list(legend.names))
        if takes in ("numbers", "presence"):
            return [finish_cog(plain, out, nodata=math.nan, description=legend.names, overwrite=overwrite)]
        probs = layer_beside(out, "probs")
        files = [finish_cog(plain, probs, nodata=math.nan, description=legend.names, overwrite=overwrite)]
        known = np.isfinite(cube).all(0)
        best = np.nan_to_num(cube).argmax(0).astype(np.uint8)
        codes = np.where(known, legend.decode(best), legend.map_nodata).astype(legend.map_dtype)
        _write(plain, grid, codes[None], ["class"], dtype=legend.map_dtype, nodata=legend.map_nodata)
        date = next((day for day in scene.dates if day), None)
        layers = {"probs": probs}
        return [*finish_map(plain, out, legend, date=date, layers=layers, overwrite=overwrite).files, *files]
    finally:
        plain.unlink(missing_ok=True)


def _write(
    path: Path, grid: Grid, values: npt.NDArray[Any], names: list[str], *, dtype: str = "float32",
    nodata: float = math.nan,
) -> None:  # fmt: skip
    with RasterWriter(path, grid, bands=names, dtype=dtype, nodata=nodata, overwrite=True) as writer:
        writer.write(Window(0, 0, grid.height, grid.width), values)
