"""`demo`: the whole path on a generated landscape, offline.

scene with known truth -> model -> map -> sample, interpreted by the truth -> areas with intervals beside the true ones
later image of it -> its map by the same model -> change of the two maps -> the same for the area of change
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.config import ImageConfig
from covermap.core.config_file import load_config
from covermap.core.errors import OutputError
from covermap.core.legend import IGNORE
from covermap.core.output import claim, replacing, write_text
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.registry import find
from covermap.core.run import Run
from covermap.core.train_config import PredictConfig
from covermap.data.class_map import ClassMap, open_class_map
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.geo.products import count_rows
from covermap.report import write_report
from covermap.verbs.assess import assess, keep
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.predict import predict
from covermap.verbs.run import train_and_map
from covermap.verbs.sample import Plan, sample

CONFIG = """\
# A generated landscape of six bands at 10 m with its labels. Change a value and call: covermap run covermap.yaml
name: demo
output: .
data:
  image: [{path: image_date1.tif, sensor: landsat7, date: 2020-07-14}]
  labels: labels_date1.tif
  legend: legend.yaml
split: {method: blocks, val: 0.1, test: 0.25, block_px: 128, buffer_px: 16}
model:
  backbone: unet
  backbone_options: {widths: [12, 24, 48, 64]}
  pixel_width: 32
baseline: {trees: 60, samples: 20000}
predict: {applicability: true}
train:
  epochs: 6
  steps_per_epoch: 24
  batch_size: 8
  size_px: 96
  lr: 0.004
  ema: 0.9
  validate_every: 2
"""
SIDE_PX = 1024
CHANGE_SHARE = 0.04
DATES = "2020-07-14", "2024-07-14"
"""The same day of another year: another season looks like change to a model that has seen one day only."""
LEAST_CHANGE = "9px"
"""Errors of both maps make small patches: they differ on 9 % of the ground, of which this leaves half; 4 % changed."""
NUM_POINTS = 500
NUM_CHANGED = 100
"""Of the points of the change map, those where it says changed."""
POINTS, CHANGE_POINTS = "sample_from_truth.gpkg", "changed_sample_from_truth.gpkg"
"""So called because no person has interpreted them."""
_DATES = ("image", "labels", "truth")
_WRITTEN = {f"{name}_date{date}.tif" for name in _DATES for date in (1, 2)} | {
    "legend.yaml", "scene.json", "covermap.yaml", "truth_change", "demo",
}  # fmt: skip


def demo(
    folder: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> Run:
    """Write a scene, train, score, map, assess and report in `folder`; raises OutputError when it is there already."""
    folder = claim(folder, overwrite=overwrite)
    if folder.exists():
        if {path.name for path in folder.iterdir()} - _WRITTEN:
            raise OutputError(f"{folder} holds other things than a demo", fix="choose another folder")
        shutil.rmtree(folder)
    say(f"generating a scene of {SIDE_PX} x {SIDE_PX} px")
    write_scene(SceneRecipe(height=SIDE_PX, width=SIDE_PX, seed=seed, num_dates=2, change_share=CHANGE_SHARE), folder)
    write_text(folder / "covermap.yaml", CONFIG)
    run = train_and_map(load_config(folder / "covermap.yaml"), say=say, on_progress=on_progress)
    say("assessing the map by a sample")
    plan = Plan(num=NUM_POINTS, seed=seed)
    truth, legend = folder / "truth_date1.tif", folder / "legend.yaml"
    assess_by_truth(run.path("map.tif"), truth, run.path(POINTS), plan, legend=legend)
    say("mapping image_date2, and what changed")
    image = ImageConfig(path=str(folder / "image_date2.tif"), sensor="landsat7", date=DATES[1])
    predict(run.path("model"), [image], run.path("map_date2.tif"), settings=PredictConfig(confidence=False))
    find_change(run, folder, seed=seed)
    write_report(run)
    return run


def write_miniature(layout: str, folder: str | Path, *, seed: int = 0) -> Path:
    """Write a generated data set of a few small scenes in a layout by name; raises ConfigError, OutputError."""
    source, folder = find("source", layout), Path(folder)
    if folder.exists():  # it may be the real one
        raise OutputError(f"{folder} exists already", fix="choose another folder: a data set is never overwritten")
    folder = claim(folder)
    with replacing(folder) as new:
        new.mkdir(parents=True, exist_ok=True)
        source.write_miniature(new, seed=seed)
    return folder


def find_change(run: Run, folder: Path, *, seed: int) -> None:
    """Compare the maps of both dates, and assess the area of change by points whose reference is the true change.

    change.tif says what became what; changed.tif only where, which is what is sampled: its classes are large enough.
    """
    maps = run.path("map.tif"), run.path("map_date2.tif")
    change(maps, run.path("change.tif"), rules=ChangeRules(min_area=LEAST_CHANGE))
    change(maps, run.path("changed.tif"), rules=ChangeRules(min_area=LEAST_CHANGE, binary=True))
    truth = folder / "truth_change/truth_change.tif"
    truth.parent.mkdir()
    dated = [f"{folder / f'truth_date{i}.tif'}@{date}" for i, date in enumerate(DATES, 1)]
    change(dated, truth, legends=[str(folder / "legend.yaml")], rules=ChangeRules(binary=True))
    plan = Plan(num=NUM_POINTS, floor=NUM_CHANGED, seed=seed)
    assess_by_truth(run.path("changed.tif"), truth, run.path(CHANGE_POINTS), plan)


def assess_by_truth(source: Path, truth: Path, points: Path, plan: Plan, *, legend: Path | None = None) -> None:
    """Draw points of a run's map, read their reference from the truth, and keep the assessment beside the map.

    legend: of a truth that does not say it. The assessment also holds `true_ha`: hectares of each class in the truth,
    of the pixels that the map holds.
    """
    of = open_class_map(source)
    known = open_class_map(truth, legend=str(legend) if legend else None)
    sample(source, points, plan)
    _interpret(points, known)
    found = assess(source, points)
    true_ha = _true_ha(of, known)
    for row, area_ha in zip(found["areas"], true_ha.tolist(), strict=True):
        row["true_ha"] = area_ha
    found["notes"].append(f"the references were read from the generated {truth.name}, no person has interpreted them")
    keep(source, found)


def _interpret(points: Path, truth: ClassMap) -> None:
    """Fill the column `reference`, as a person would by eye."""
    import geopandas as gpd

    table = gpd.read_file(points)
    cols, rows = ~truth.grid.transform * (table["x"].to_numpy(), table["y"].to_numpy())
    index = truth.at(np.floor(rows).astype(np.intp), np.floor(cols).astype(np.intp))
    table["reference"] = np.asarray(truth.legend.names)[index]
    with replacing(points) as partial:
        table.to_file(partial, driver="GPKG", layer=points.stem, engine="pyogrio")


def _true_ha(of: ClassMap, truth: ClassMap) -> npt.NDArray[np.float64]:
    """(K,), counted over the pixels where the map holds a class."""
    area_ha = np.zeros(256)
    for block in of.blocks():
        index = np.where(of.read(block) == IGNORE, np.uint8(IGNORE), truth.read(block, of.grid))
        area_ha += np.asarray(of.grid.row_areas_ha(block.row, block.height)) @ count_rows(index)
    return area_ha[: len(truth.legend)]
