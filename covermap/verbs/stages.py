"""Training by stages of pixel size (10 -> 5 -> 1 m): one config becomes one run for each, on the same ground.

runs/NAME/stages/1_10m, runs/NAME/stages/2_5m, ..., and the finest stage as runs/NAME itself
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from covermap.core.config import SHORT, RunConfig, StageConfig
from covermap.core.config_file import parse_section
from covermap.core.run import Run
from covermap.core.train_config import ModelConfig, TrainConfig
from covermap.data.make_split import make_split
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split, Tile
from covermap.geo.grid import Window


def plan_stages(config: RunConfig) -> Iterator[RunConfig]:
    """The configs of all stages, coarse first; each starts from the model of the one before, the last is the run.

    The split is drawn once, on the finest pixels, and scaled: what tests at the end has taught no stage.
    Raises what opening the data and splitting it raises; ConfigError for settings of a stage.
    """
    plans = [_config(config, number) for number in range(len(config.stages))]
    fine = open_scenes(plans[-1].data)
    split = make_split(fine, config.split, size_px=max(plans[-1].train.sizes_px))
    for plan, stage in zip(plans[:-1], config.stages, strict=False):
        path = config.folder / "stages" / f"split_{stage.gsd_m:g}m.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        scaled_split(split, fine, open_scenes(plan.data)).save(path)
        section = parse_section(type(config.split), {"method": "csv", "path": str(path)}, where="split")
        yield plan.model_copy(update={"split": section})
    yield plans[-1]


def stage_row(run: Run, stage: StageConfig) -> dict[str, object]:
    """What is recorded of a finished stage: its pixel size, folder, and the scores of its best model."""
    log = [row for row in run.read_log() if "val_miou" in row]
    key = run.config.train.monitor
    best = max(log, key=lambda row: -row[key] if key == "val_loss" else row[key], default={})
    scores = {name: value for name, value in best.items() if name.startswith("val_") or name == "epoch"}
    if run.path("metrics.json").is_file():
        scores["test"] = run.read_json("metrics.json")["models"]["network"]["scores"]
    return {"gsd_m": stage.gsd_m, "run": str(run.folder), **scores}


def scaled_split(split: Split, fine: list[Scene], coarse: list[Scene]) -> Split:
    """A split of the same ground on larger pixels; those that reach into another rectangle belong to no part."""
    factors = {a.name: b.grid.transform.a / a.grid.transform.a for a, b in zip(fine, coarse, strict=True)}
    bounds = {scene.name: scene.grid.window for scene in coarse}
    tiles: list[Tile] = []
    for tile in split.tiles:
        inside, touched = _scaled(tile.window, factors[tile.scene])
        if touched != inside:
            tiles.append(Tile(tile.scene, touched.intersect(bounds[tile.scene]), "none"))
        if not inside.is_empty:
            tiles.append(Tile(tile.scene, inside, tile.part))
    buffer = math.ceil(split.buffer_px / min(factors.values()))
    return replace(split, tiles=tuple(tiles), buffer_px=buffer)


def _scaled(window: Window, factor: float) -> tuple[Window, Window]:
    """The pixels of `factor` times the size that lie in a window, and those that touch it."""
    slack = 1e-6
    first = (window.row / factor, window.col / factor)
    last = ((window.row + window.height) / factor, (window.col + window.width) / factor)
    low, high = [math.ceil(x - slack) for x in first], [math.floor(x + slack) for x in last]
    inside = Window(*low, *(max(0, b - a) for a, b in zip(low, high, strict=True)))
    low, high = [math.floor(x + slack) for x in first], [math.ceil(x - slack) for x in last]
    return inside, Window(*low, *(b - a for a, b in zip(low, high, strict=True)))


def _config(config: RunConfig, number: int) -> RunConfig:
    stage, last = config.stages[number], number == len(config.stages) - 1
    images = [image.model_copy(update={"gsd_m": stage.gsd_m}) for image in config.data.images]
    data = config.data.model_copy(update=dict.fromkeys(SHORT) | {"image": images})
    if not last and config.data.align == "none":
        data = data.model_copy(update={"align": "mode"})
    merged = config.train.model_dump(exclude_unset=True) | stage.train
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


def _name(config: RunConfig, number: int) -> str:
    return f"{number + 1}_{config.stages[number].gsd_m:g}m"
