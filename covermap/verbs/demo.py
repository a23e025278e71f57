"""`demo`: the whole path on a generated landscape, offline.

scene with known truth -> model -> map -> sample, interpreted by the truth -> areas with intervals beside the true ones
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.config_file import load_config
from covermap.core.errors import OutputError
from covermap.core.legend import IGNORE
from covermap.core.output import claim, replacing, write_text
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import Run
from covermap.data.class_map import ClassMap, open_class_map
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.geo.products import count_rows
from covermap.report import write_report
from covermap.verbs.assess import assess, keep
from covermap.verbs.run import train_and_map
from covermap.verbs.sample import Plan, sample

CONFIG = """\
# A generated landscape: image.tif (six bands, 10 m) and labels.tif. Change a value and call: covermap run covermap.yaml
name: demo
output: .
data:
  image: image.tif
  sensor: landsat7
  labels: labels.tif
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
NUM_POINTS = 500
POINTS = "sample_from_truth.gpkg"
"""So called because no person has interpreted it."""
_WRITTEN = {"image.tif", "labels.tif", "truth.tif", "legend.yaml", "scene.json", "covermap.yaml", "demo"}


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
    write_scene(SceneRecipe(height=SIDE_PX, width=SIDE_PX, seed=seed), folder)
    write_text(folder / "covermap.yaml", CONFIG)
    run = train_and_map(load_config(folder / "covermap.yaml"), say=say, on_progress=on_progress)
    say("assessing the map by a sample")
    assess_by_truth(run.path("map.tif"), folder / "truth.tif", folder / "legend.yaml", run.path(POINTS), seed=seed)
    write_report(run)
    return run


def assess_by_truth(source: Path, truth: Path, legend: Path, points: Path, *, seed: int) -> None:
    """Draw points of a run's map, read their reference from the truth, and keep the assessment beside the map.

    It also holds `true_ha`: hectares of each class in the truth, of the pixels that the map holds.
    """
    known = open_class_map(truth, legend=str(legend))
    sample(source, points, Plan(num=NUM_POINTS, seed=seed))
    _interpret(points, known)
    found = assess(source, points)
    true_ha = _true_ha(open_class_map(source), known)
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
