"""Windows of scenes as a torch data set: where to cut, what to read, and batches.

A window is a function of (seed, epoch, number) alone, so a run can be resumed at any epoch and the number of reading
processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from covermap.core.errors import ConfigError, LabelError
from covermap.core.legend import IGNORE
from covermap.core.task import Task
from covermap.core.train_config import TrainConfig
from covermap.core.types import Batch, InputSpec, Sample
from covermap.data.augment import Images, Warp, flip, vary
from covermap.data.balance import Sampling
from covermap.data.order import Order, plan_order
from covermap.data.reference import chip_answer, chip_windows
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split
from covermap.data.stats import normalise_sample
from covermap.data.target import Target
from covermap.geo.grid import Window, partition


@dataclass(frozen=True)
class Cell:
    """A small square of a scene that holds training labels; windows are laid around it."""

    scene: int
    window: Window
    labelled_px: int


@dataclass(frozen=True)
class Survey:
    """What the train part holds: its N cells and the labelled pixels of each class, (K,) in all, (N, K) by cell."""

    cells: tuple[Cell, ...]
    class_px: npt.NDArray[np.int64]
    cell_px: npt.NDArray[np.uint32]
    notes: tuple[str, ...] = ()


def survey(scenes: Sequence[Scene], split: Split, *, part: str = "train", cell_px: int = 32) -> Survey:
    """One pass over the labels of a part; raises LabelError when it holds none."""
    legend = scenes[0].legend
    assert legend is not None
    cells: list[Cell] = []
    counts: list[npt.NDArray[np.uint32]] = []
    totals = np.zeros(len(legend), np.int64)
    for number, scene in enumerate(scenes):
        for block in partition(scene.grid.window, 64 * cell_px, 64 * cell_px):
            index = split.labels(scene, block, part)
            if (index == IGNORE).all():  # of thousands of chips most may belong to other parts
                continue
            totals += np.bincount(index.ravel(), minlength=256)[: len(legend)]
            for cell in partition(block, cell_px, cell_px):
                mine = np.bincount(index[cell.within(block).slices].ravel(), minlength=256)[: len(legend)]
                if mine.any():
                    cells.append(Cell(number, cell, int(mine.sum())))
                    counts.append(mine.astype(np.uint32))
    if not cells:
        raise LabelError(f"the {part} part holds no labelled pixel", fix="check with: covermap check CONFIG")
    return Survey(tuple(cells), totals, np.stack(counts))


def survey_chips(scenes: Sequence[Scene], split: Split, task: Task, *, part: str, size_px: int) -> Survey:
    """The chips of a part, each a cell of its own; class_px and cell_px then count chips, not pixels.

    Chips that lie in several parts, or of which nothing is known, are left out; raises LabelError where none is left.
    """
    wanted, cells, counts, cut = PARTS.index(part), [], [], 0
    for number, scene in enumerate(scenes):
        for window in chip_windows(scene, size_px):
            mine = split.part_mask(scene.name, window) == wanted
            cut += bool(mine.any() and not mine.all())
            if mine.all():
                row = _tells_of(scene, window, task)
                if row is not None:
                    cells.append(Cell(number, window, window.height * window.width))
                    counts.append(row)
    if not cells:
        raise LabelError(
            f"the {part} part holds no chip of {size_px} px with an answer",
            fix="check with: covermap check CONFIG; blocks of the split should be multiples of train.size_px",
        )
    table = np.stack(counts).astype(np.uint32)
    notes = (f"{cut} chips lie only partly in the {part} part: they are left out",) if cut else ()
    return Survey(tuple(cells), table.sum(0, dtype=np.int64), table, notes)


def _tells_of(scene: Scene, window: Window, task: Task) -> npt.NDArray[np.bool_] | None:
    """(K,): which classes, or numbers, a chip tells of; None where nothing is known."""
    answer = chip_answer(scene, window, task)
    if answer.dtype == np.uint8:
        return None if answer[0, 0] == IGNORE else np.arange(len(task.legend)) == answer[0, 0]
    known = np.isfinite(answer)
    if not known.any():
        return None
    return np.asarray(answer > 0) if task.kind.takes == "presence" else known


class HeldScene:
    """A scene whose pixels, and labels (H, W) if any, are held in memory once read; same `read` as Scene."""

    def __init__(self, scene: Scene, label: npt.NDArray[np.uint8] | None = None) -> None:
        self.name, self.grid = scene.name, scene.grid
        self._sample = replace(scene.read(scene.grid.window), label=label)
        self._scene = scene

    def read(self, window: Window) -> Sample:
        """Sample with the labels; pixels outside of the scene are not valid."""
        inside, whole = window.intersect(self.grid.window), self._sample
        at = inside.within(window)
        after = (window.height - at.row - at.height, window.width - at.col - at.width)
        margins = ((at.row, after[0]), (at.col, after[1]))

        def cut(values: npt.NDArray[Any], fill: int = 0) -> npt.NDArray[Any]:
            part = values[..., *inside.slices]
            around = ((0, 0),) * (values.ndim - 2) + margins
            return part if inside == window else np.pad(part, around, constant_values=fill)

        return replace(
            whole, image={key: cut(values) for key, values in whole.image.items()}, valid=cut(whole.valid),
            label=None if whole.label is None else cut(whole.label, IGNORE), location=self.grid.lat_lon(window),
            key=f"{self.name}:{window.row},{window.col}",
        )  # fmt: skip


def scene_bytes(scene: Scene) -> int:
    """Memory that a scene's pixels and labels take when held."""
    pixels = scene.grid.height * scene.grid.width
    per_pixel = 0
    for sensor, raster in scene.rasters.items():
        dtype = np.float32 if sensor in scene.channels else raster.dtype
        per_pixel += len(raster.sources) * (len(scene.bands[sensor]) * np.dtype(dtype).itemsize + 1)
    return pixels * (per_pixel + 1)


class TrainWindows(Dataset[dict[str, Any]]):
    """Random training windows around labelled cells, augmented and normalised; call `start(epoch)` before an epoch.

    targets: whether they come with the scenes' targets; raises ConfigError where these would not lie on their windows.
    chip_px: cells are chips, which come whole, all on windows of this side, each once in an epoch.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        split: Split,
        cells: Sequence[Cell],
        spec: InputSpec,
        config: TrainConfig,
        *,
        length: int,
        sampling: Sampling | None = None,
        cache_bytes: float = 0.0,
        targets: bool = False,
        chip_px: int | None = None,
    ) -> None:
        self._scenes, self._split, self._cells, self._spec, self._config = scenes, split, cells, spec, config
        self._sampling = sampling or Sampling(np.ones(len(cells)), np.ones(len(cells), np.int64))
        self._length, self._targets, self._chip_px = length, targets, chip_px
        if targets and not chip_px:
            _require_targets(scenes[0].target, config)
        self._held: dict[int, HeldScene] = {}
        self._order: Order | None = None
        if sum(scene_bytes(scene) for scene in scenes) <= cache_bytes:
            self._held = {
                i: HeldScene(scene, split.labels(scene, scene.grid.window, "train")) for i, scene in enumerate(scenes)
            }
        elif not chip_px:
            places = [(cell.scene, cell.window) for cell in cells]
            self._order = plan_order(scenes, places, self._sampling.weights, size_px=max(config.sizes_px))
        self.start(0)

    def __len__(self) -> int:
        return self._length

    def start(self, epoch: int) -> None:
        """Choose the epoch whose windows are given; with cached features all have the windows of the first."""
        self._epoch = epoch
        self._drawn = 0 if self._config.cache_features else epoch
        if self._order:
            self._regions = self._order.epoch(self._length, [self._config.seed, self._drawn])
        if self._chip_px:
            rng = np.random.default_rng([self._config.seed, self._drawn])
            self._chips = self._sampling.order(self._length, rng)

    def __getitem__(self, number: int) -> dict[str, Any]:
        rng = np.random.default_rng([self._config.seed, self._drawn, number])
        augment = self._config.augment
        warp = Warp.draw(augment, self.size_of(number), rng)
        sample = warp(self._draw(number, warp, rng))
        if augment.flips:
            # The same windows may turn in another way in each epoch.
            turns = (
                rng if self._drawn == self._epoch else np.random.default_rng([self._config.seed, self._epoch, number])
            )
            symmetry = int(turns.integers(8))
            key = f"{sample.key}/{symmetry}" if self._config.cache_features else sample.key
            sample = replace(flip(sample, symmetry), key=key)
        image = vary(normalise_sample(sample, self._spec), sample.valid, augment, rng, self._spec)
        # Where the image holds nothing there is nothing to learn from.
        assert sample.label is not None
        seen = np.asarray(sample.valid.any(0))
        label = np.where(seen, sample.label, IGNORE)
        if sample.target is not None:
            there = _seen_on(sample.target.shape, seen)
            sample = replace(sample, target=np.where(there, sample.target, np.float32(np.nan)))
        return {"image": image, "valid": sample.valid, "label": label, "sample": sample}

    def size_of(self, number: int) -> int:
        """Side of a window: one for all of a batch, so that they stack."""
        if self._chip_px:
            return self._chip_px
        sizes = self._config.sizes_px
        key = [self._config.seed, self._epoch, number // self._config.batch_size, len(sizes)]
        return sizes[int(np.random.default_rng(key).integers(len(sizes)))] if len(sizes) > 1 else sizes[0]

    def _draw(self, number: int, warp: Warp, rng: np.random.Generator) -> Sample:
        """What is read for a window: a labelled cell's random pixel lies at a random place of it."""
        if self._chip_px:
            cell = self._cells[self._chips[number]]
            whole = Window(cell.window.row, cell.window.col, self._chip_px, self._chip_px)
            return self._read(cell.scene, whole, answers_for=cell.window)
        region = self._order.regions[self._regions[number]] if self._order else None
        cell = self._cells[region.draw(rng) if region else self._sampling.draw(rng)]
        row = cell.window.row + int(rng.integers(cell.window.height))
        down = int(rng.integers(warp.size_px))
        col = cell.window.col + int(rng.integers(cell.window.width))
        right = int(rng.integers(warp.size_px))
        down, right = warp.place(down, right)
        grid, size = self._scenes[cell.scene].grid, warp.read_px
        area = region.window if region and min(region.window[2:]) >= size else grid.window
        window = Window(
            _first(row - down, size, area.row, area.height), _first(col - right, size, area.col, area.width), size, size
        )
        return self._read(cell.scene, window)

    def _read(self, number: int, window: Window, *, answers_for: Window | None = None) -> Sample:
        """A window with its labels, and the target of it, or of the chip that it holds."""
        held, scene = self._held.get(number), self._scenes[number]
        if held is not None:
            sample = held.read(window)
        else:
            sample = replace(scene.read(window), label=self._split.labels(scene, window, "train"))
        if not self._targets:
            return sample
        return replace(sample, target=self._split.target(scene, answers_for or window, "train"))


def _seen_on(shape: tuple[int, ...], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a target (C, h, w), or (C,) of a chip, has any pixel (H, W) of the image."""
    if shape[-2:] == seen.shape:
        return seen
    if len(shape) == 1 or any(n % m for n, m in zip(seen.shape, shape[-2:], strict=True)):
        return np.asarray(seen.any())
    down, across = (n // m for n, m in zip(seen.shape, shape[-2:], strict=True))
    return np.asarray(seen.reshape(shape[-2], down, shape[-1], across).any((1, 3)))


def _require_targets(target: Target | None, config: TrainConfig) -> None:
    """Refuse what would leave a window's target beside its image; raises ConfigError."""
    if target is None:
        raise ConfigError("there are no targets", fix="set data.target")
    if (config.augment.scale or config.augment.rotation) and not target.turns:
        raise ConfigError(
            "train.augment.scale and rotation would need a target of other ground than the window's",
            fix="leave both out, or data.target's size_px, factor, per_chip and resampling: sum",
        )
    factor = target.size.factor or 1
    if odd := [size for size in config.sizes_px if abs(size / factor - round(size / factor)) > 1e-6]:
        raise ConfigError(
            f"windows of {odd[0]} px do not hold a whole number of targets of {factor:g} px",
            fix="set train.size_px to a multiple of data.target.factor",
        )


def _first(wanted: int, size: int, start: int, length: int) -> int:
    """First row of a window of `size`, inside of `length` rows from `start` on where these are enough."""
    return int(np.clip(wanted, start, start + max(0, length - size)))


def collate(items: Sequence[Mapping[str, Any]]) -> Batch:
    """Items of TrainWindows as one Batch."""
    label = torch.from_numpy(np.stack([item["label"] for item in items]).astype(np.int64))
    return replace(_batch([item["sample"] for item in items], [item["image"] for item in items]), label=label)


def image_batch(samples: Sequence[Sample], spec: InputSpec) -> Batch:
    """Samples without labels as one Batch, for prediction."""
    return _batch(samples, [normalise_sample(sample, spec) for sample in samples])


def _batch(samples: Sequence[Sample], images: Sequence[Images]) -> Batch:
    targets = [sample.target for sample in samples if sample.target is not None]
    return Batch(
        {key: torch.from_numpy(np.stack([image[key] for image in images])) for key in images[0]},
        torch.from_numpy(np.stack([sample.valid for sample in samples])),
        dates=tuple(sample.dates for sample in samples),
        location=_locations(samples),
        keys=tuple(sample.key for sample in samples),
        target=torch.from_numpy(np.stack(targets)) if targets else None,
    )


def _locations(samples: Sequence[Sample]) -> torch.Tensor | None:
    if all(sample.location is None for sample in samples):
        return None
    return torch.tensor([sample.location or (torch.nan, torch.nan) for sample in samples], dtype=torch.float32)
