"""Training by stages of pixel size (10 -> 5 -> 1 m): one config becomes one run for each, on the same ground.

runs/NAME/stages/1_10m, runs/NAME/stages/2_5m, ..., and the finest stage as runs/NAME itself
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affine import Affine

from covermap.core.config import RunConfig, StageConfig
from covermap.core.config_file import parse_section
from covermap.core.errors import OutputError
from covermap.core.run import Run
from covermap.core.train_config import ModelConfig, TrainConfig
from covermap.data.make_split import make_split
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import ELSEWHERE, Split, Tile
from covermap.geo.grid import Window
from covermap.geo.rasterize import VectorLabels


@dataclass(frozen=True)
class Plan:
    """One stage: its settings, the config of its run, and its split where that is not the config's own."""

    stage: StageConfig
    config: RunConfig
    split: Split | None = None

    def save_split(self, *, resume: bool) -> None:
        """Write the split that the config names; raises OutputError where a stage that is resumed had another one."""
        if self.split is None:
            return
        path = Path(str(self.config.split.path))
        if resume and path.is_file() and Split.load(path) != self.split:
            raise OutputError(
                f"{path.parent.parent} was started with another split: what tests now may have taught before",
                fix="go on with the split that it was started with, or start again with --overwrite",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.split.save(path)


def plan_stages(config: RunConfig) -> list[Plan]:
    """All stages, coarse first; each starts from the model of the one before, the last is the run itself.

    The split is drawn once, on the finest pixels, and scaled: what tests at the end has taught no stage.
    Raises what opening the data and splitting it raises; ConfigError for settings of a stage.
    """
    configs = [_config(config, number) for number in range(len(config.stages))]
    fine = open_scenes(configs[-1].data)
    split = make_split(fine, config.split, size_px=max(configs[-1].train.sizes_px))
    plans = []
    for stage, one in zip(config.stages[:-1], configs, strict=False):
        path = config.folder / "stages" / f"split_{stage.gsd_m:g}m.csv"
        section = parse_section(type(config.split), {"method": "csv", "path": str(path)}, where="split")
        scaled = scaled_split(split, fine, open_scenes(one.data))
        plans.append(Plan(stage, one.model_copy(update={"split": section}), scaled))
    return [*plans, Plan(config.stages[-1], configs[-1])]


def stage_row(run: Run, stage: StageConfig) -> dict[str, object]:
    """What is recorded of a finished stage: its pixel size, folder, and the scores of its best model."""
    key, sign = run.config.monitor
    log = [row for row in run.read_log() if row.get(key) is not None]
    best = max(log, key=lambda row: sign * row[key], default={})
    scores = {name: value for name, value in best.items() if name.startswith("val_") or name == "epoch"}
    if run.path("metrics.json").is_file():
        scores["test"] = run.read_json("metrics.json")["models"]["network"]["scores"]
    return {"gsd_m": stage.gsd_m, "run": str(run.folder), **scores}


def scaled_split(split: Split, fine: Sequence[Scene], coarse: Sequence[Scene]) -> Split:
    """A split of the same ground on larger pixels.

    Pixels that reach into another rectangle belong to no part, nor do polygons whose centre would change sides.
    """
    to_coarse = {a.name: ~b.grid.transform * a.grid.transform for a, b in zip(fine, coarse, strict=True)}
    tiles: list[Tile] = []
    for tile in split.tiles:
        inside, touched = _scaled(tile.window, to_coarse[tile.scene])
        if tile.part in ELSEWHERE:
            tiles.append(Tile(tile.scene, touched, tile.part))
            continue
        if touched != inside:
            tiles.append(Tile(tile.scene, touched, "none"))
        if not inside.is_empty:
            tiles.append(Tile(tile.scene, inside, tile.part))
    factor = min(abs(1 / transform.determinant) ** 0.5 for transform in to_coarse.values())
    scaled = replace(split, tiles=tuple(tiles), buffer_px=math.ceil(split.buffer_px / factor))
    moved = {
        (b.name, number)
        for a, b in zip(fine, coarse, strict=True)
        if isinstance(b.labels, VectorLabels)
        for number, _, _ in b.labels.object_windows()
        if scaled.part_of_object(b, number) != split.part_of_object(a, number)
    }
    return replace(scaled, dropped=split.dropped | moved)


def _scaled(window: Window, to_coarse: Affine) -> tuple[Window, Window]:
    """The larger pixels that lie in a window of small ones, and those that touch it."""
    slack = 1e-6
    left, top = to_coarse * (window.col, window.row)
    right, bottom = to_coarse * (window.col + window.width, window.row + window.height)
    low, high = [math.ceil(x - slack) for x in (top, left)], [math.floor(x + slack) for x in (bottom, right)]
    inside = Window(*low, *(max(0, b - a) for a, b in zip(low, high, strict=True)))
    low, high = [math.floor(x + slack) for x in (top, left)], [math.ceil(x - slack) for x in (bottom, right)]
    return inside, Window(*low, *(b - a for a, b in zip(low, high, strict=True)))


def _config(config: RunConfig, number: int) -> RunConfig:
    stage, last = config.stages[number], number == len(config.stages) - 1
    data = config.data.model_copy(update={"gsd_m": stage.gsd_m})
    if not last and config.data.align == "none":
        data = data.model_copy(update={"align": "mode"})
    merged = _merged(config.train.model_dump(exclude_unset=True), stage.train)
    model = config.model
    if number:
        before = config.folder / "stages" / _name(config, number - 1) / "model"
        adapt = model.adaptation.model_copy(update={"adapter": None})
        model = parse_section(
            ModelConfig,
            model.model_dump() | {"start": str(before), "weights": "auto", "adapt": adapt.model_dump()},
            where="model",
        )
    return config.model_copy(
        update={
            "name": config.name if last else f"{config.name}/stages/{_name(config, number)}",
            "data": data,
            "model": model,
            "train": parse_section(TrainConfig, merged, where=f"stages[{number}].train"),
            "stages": [],
        }
    )


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with some of them changed, sections entry by entry."""
    both = {key: _merged(settings[key], value) if isinstance(value, Mapping) and isinstance(settings.get(key), Mapping)
            else value for key, value in changes.items()}  # fmt: skip
    return {**settings, **both}


def _name(config: RunConfig, number: int) -> str:
    return f"{number + 1}_{config.stages[number].gsd_m:g}m"
