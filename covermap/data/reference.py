"""What a task's outputs are compared with: classes of pixels, one answer of a chip, or numbers; one way for all.

    scenes, config -> with_reference -> scenes whose labels say where something is known, and the task

Where not classes of pixels or chips are learnt, the labels are of one class, known, so that splits, cells and windows
are laid as for classes; the numbers themselves, or which classes are there, come as the scene's target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError, LabelError
from covermap.core.legend import IGNORE, LandClass, Legend
from covermap.core.target_config import TargetConfig
from covermap.core.task import KINDS, Task, make_task
from covermap.data.labels import ChipLabels
from covermap.data.scene import Scene
from covermap.data.target import Target
from covermap.data.transitions import Transitions
from covermap.geo.grid import Grid, Window
from covermap.geo.rasterize import VectorLabels

KNOWN = Legend("known", (LandClass(1, "known", "#56b4e9"),))


@dataclass(frozen=True)
class Known:
    """Labels of the one class `known`, where a scene's target is."""

    grid: Grid
    target: Target
    legend: Legend = KNOWN
    notes: tuple[str, ...] = ()

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """0 or IGNORE (H, W)."""
        index = np.full((window.height, window.width), IGNORE, np.uint8)
        inside = window.intersect(self.grid.window)
        if not inside.is_empty:
            index[inside.within(window).slices][self.target.known(inside)] = 0
        return index


@dataclass(frozen=True)
class Presence(Target):
    """1 for each class that occurs in a window, else 0; NaN where nothing is labelled. By labels, or by a list.

    legend: the classes that are asked for. there: codes of all classes of the scene as a whole.
    """

    legend: Legend = KNOWN
    there: tuple[int, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.legend.names

    @property
    def units(self) -> tuple[str, ...]:
        return ("",) * len(self.legend)

    def known(self, window: Window) -> npt.NDArray[np.bool_]:
        if self.there is not None:
            return np.ones((window.height, window.width), bool)
        return super().known(window)

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(K,)."""
        if self.there is not None:
            return np.isin(self.legend.codes, self.there).astype(np.float32)
        assert self.labels is not None
        index = self.labels.read(window.intersect(self.grid.window))
        counts = np.bincount(index[index != IGNORE], minlength=len(self.labels.legend))
        if not counts.any():
            return np.full(len(self.legend), np.nan, np.float32)
        chosen = [self.labels.legend.codes.index(code) for code in self.legend.codes]
        return (counts[chosen] > 0).astype(np.float32)


def with_reference(scenes: Sequence[Scene], config: RunConfig) -> tuple[list[Scene], Task]:
    """Scenes with what a config's task compares with, and the task; raises ConfigError, LabelError for data without."""
    section = config.task_section
    kind, first = KINDS[section.name], scenes[0]
    target = first.target
    numbers = dict(zip(target.names, target.units, strict=True)) if target else {}
    task = make_task(section, _legend_of(first, kind.takes), numbers)
    if kind.takes == "classes":
        _require_classes(scenes, section.name, chips=kind.chips)
        return list(scenes), task
    if kind.takes == "transitions":
        return list(scenes), task
    if any(isinstance(scene.labels, VectorLabels) for scene in scenes) and (target is None or target.labels):
        raise LabelError(
            f"task {section.name} with polygons or points: a split by chips would cut them",
            fix="make pixels of them first: covermap prepare LABELS OUT.tif --like IMAGE",
        )
    if kind.takes == "presence":
        found = [replace(scene, target=_presence(scene, task)) for scene in scenes]
    else:
        found = [replace(scene, target=_of_numbers(scene, chips=kind.chips)) for scene in scenes]
    return [replace(s, labels=Known(s.grid, s.target)) for s in found if s.target is not None], task


def with_known_ground(scenes: Sequence[Scene]) -> tuple[list[Scene], bool]:
    """Scenes whose labels say where anything is known, of whatever task, and whether that is of chips as a whole.

    Scenes of which nothing is known stay as they are.
    """
    found = []
    for scene in scenes:
        if scene.labels is None and scene.chip_classes is not None:
            legend, there = scene.chip_classes.legend, scene.chip_classes.codes
            target: Target | None = Presence(scene.grid, TargetConfig(per_chip=True), legend=legend, there=there)
        else:
            target = scene.target
        found.append(scene if scene.labels or target is None else replace(scene, labels=Known(scene.grid, target)))
    first = scenes[0]
    whole = isinstance(first.labels, ChipLabels) or first.chip_classes is not None
    return found, whole or (first.target is not None and first.target.size.per_chip)


def _legend_of(scene: Scene, takes: str) -> Legend | None:
    if takes == "transitions":
        if not isinstance(scene.target, Transitions) or scene.target.legend is None:
            raise LabelError(
                f"scene {scene.name} has no classes of two dates",
                fix="set data.label: dates, with a layout of several dates or data.labels: [before.tif, after.tif]",
            )
        return scene.target.legend
    return scene.chip_classes.legend if scene.chip_classes else scene.legend


def _require_classes(scenes: Sequence[Scene], task: str, *, chips: bool) -> None:
    for scene in scenes:
        if scene.labels is None:
            several = "several classes for a chip as a whole" if scene.chip_classes else "no labels"
            raise LabelError(
                f"scene {scene.name} has {several}; task {task} needs {'one' if chips else 'classes of pixels'}",
                fix="use task: multilabel" if scene.chip_classes else "set data.labels",
            )
        if chips and not isinstance(scene.labels, ChipLabels):
            raise LabelError(
                f"scene {scene.name} has classes of pixels; task {task} needs one class for each chip",
                fix="use task: multilabel (which classes occur), or chip_regression with data.target: {shares: true}",
            )


def _presence(scene: Scene, task: Task) -> Presence:
    size = TargetConfig(per_chip=True)
    if scene.chip_classes:
        return Presence(scene.grid, size, legend=task.legend, there=scene.chip_classes.codes)
    if scene.labels is None:
        raise LabelError(f"scene {scene.name} has no labels", fix="set data.labels, or a layout that has them")
    return Presence(scene.grid, size, labels=scene.labels, legend=task.legend)


def _of_numbers(scene: Scene, *, chips: bool) -> Target:
    target = scene.target
    if target is None:
        raise LabelError(f"scene {scene.name} has no target", fix="set data.target.path")
    size = target.size
    if not chips and (size.per_chip or size.size_px):
        what = "per_chip" if size.per_chip else "size_px"
        raise ConfigError(
            f"data.target.{what} gives one answer for windows, task regression numbers for pixels",
            fix="leave it out (factor gives coarser pixels), or use task: chip_regression",
        )
    if not chips and size.factor and any(band.resampling == "sum" for _, band in target.bands):
        raise ConfigError(
            "data.target.resampling: sum with factor: amounts of coarse pixels are no numbers of the image's pixels",
            fix="divide them by the pixel's area first and take the mean, or use task: chip_regression",
        )
    if chips and (size.factor or size.size_px):
        raise ConfigError("data.target.factor and size_px do not go with one answer for a chip", fix="leave them out")
    return replace(target, size=size.model_copy(update={"per_chip": True})) if chips else target


def chip_windows(scene: Scene, size_px: int) -> list[Window]:
    """The chips of a scene: all of it, where its answer is of the whole or it is no larger; else full squares.

    What is left over at the right and lower edge belongs to no chip.
    """
    whole = isinstance(scene.labels, ChipLabels) or scene.chip_classes is not None
    grid = scene.grid
    if whole or max(grid.height, grid.width) <= size_px:
        return [grid.window]
    rows, cols = (range(0, max(1, n - size_px + 1), size_px) for n in (grid.height, grid.width))
    height, width = min(size_px, grid.height), min(size_px, grid.width)
    return [Window(row, col, height, width) for row in rows for col in cols]


def chip_answer(scene: Scene, window: Window, task: Task) -> npt.NDArray[Any]:
    """What is known of a chip: its class index (1, 1) uint8, IGNORE where there is none, or numbers (K,) with NaN."""
    if task.kind.takes == "classes":
        assert isinstance(scene.labels, ChipLabels)
        return np.array([[scene.labels.index]], np.uint8)
    assert scene.target is not None
    numbers = scene.target.read(window)
    if task.kind.takes != "order":
        return numbers
    index = np.digitize(numbers[0], np.array(task.breaks, np.float32))  # float32 as in the loss
    return np.array([[index if np.isfinite(numbers[0]) else IGNORE]], np.uint8)


def side_of_windows(scenes: Sequence[Scene], config: RunConfig) -> int:
    """Side of the windows that a config is learnt in, px: the largest of train.size_px, or of what holds a chip."""
    size_px = max(config.train.sizes_px)
    return _chip_side(scenes, size_px) if KINDS[config.task_section.name].chips else size_px


def _chip_side(scenes: Sequence[Scene], size_px: int) -> int:
    """Side of the windows that hold a chip each, px: `size_px` for chips cut from scenes, or the largest scene's."""
    return max(max(window[2:]) for scene in scenes for window in chip_windows(scene, size_px))
