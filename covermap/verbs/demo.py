"""`demo`: the whole path on a generated landscape, offline."""

from __future__ import annotations

import shutil
from pathlib import Path

from covermap.core.config_file import load_config
from covermap.core.errors import OutputError
from covermap.core.output import claim, write_text
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import Run
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.verbs.run import run

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
_WRITTEN = {"image.tif", "labels.tif", "truth.tif", "legend.yaml", "scene.json", "covermap.yaml", "demo"}


def demo(
    folder: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> Run:
    """Write a scene, train, score, map and report in `folder`; raises OutputError when it is there already."""
    folder = claim(folder, overwrite=overwrite)
    if folder.exists():
        if {path.name for path in folder.iterdir()} - _WRITTEN:
            raise OutputError(f"{folder} holds other things than a demo", fix="choose another folder")
        shutil.rmtree(folder)
    say(f"generating a scene of {SIDE_PX} x {SIDE_PX} px")
    write_scene(SceneRecipe(height=SIDE_PX, width=SIDE_PX, seed=seed), folder)
    write_text(folder / "covermap.yaml", CONFIG)
    return run(load_config(folder / "covermap.yaml"), say=say, on_progress=on_progress)
