"""`init`: a commented config from an image and its labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from covermap.core.config import DataConfig
from covermap.core.legend import IGNORE, Legend
from covermap.core.output import claim, write_text
from covermap.data.labels import is_vector
from covermap.data.scene import Scene, open_scenes
from covermap.geo.grid import Grid, partition
from covermap.geo.raster import grid_of, open_dataset
from covermap.geo.vector import likely_field

TEMPLATE = """\
# {name}: written by covermap init. Paths count from this file's folder. All keys: covermap schema
name: {name}
data:
  image: {image}
{sensor}{bands}  labels: {labels}
{field}{align}  legend: {legend}
split: {{method: blocks, val: 0.2, test: 0.2}}  # spatial blocks with a buffer between the parts
model: {{backbone: unet, decoder: unet, pixel_width: 32}}  # a U-Net and an expert on single pixels, added
baseline: {{trees: 300}}  # random forest on pixels, scored beside the network (needs covermap[ml])
train:
  epochs: 30
  size_px: {size}  # side of a training window
  batch_size: 8
  lr: 0.001
  class_weights: sqrt  # none, sqrt, balanced or one number for each class
"""


def init(
    image: str,
    labels: str,
    out: str | Path,
    *,
    field: str | None = None,
    layer: str | None = None,
    epsg: int | None = None,
    sensor: str | None = None,
    bands: Sequence[str] | None = None,
    legend: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write the config; returns sentences about what was found. Raises what opening the data raises."""
    out = claim(out, overwrite=overwrite)
    field = field or (likely_field(labels, layer=layer, epsg=epsg) if is_vector(labels) else None)
    align = "none"
    if not is_vector(labels) and not grid_of(open_dataset(labels)).is_same(_image_grid(image, sensor, bands)):
        align = "mode"
    config = DataConfig(
        image=image, labels=labels, field=field, sensor=sensor, bands=list(bands) if bands else None, legend=legend,
        align=align, layer=layer, epsg=epsg,
    )  # fmt: skip
    scene = open_scenes(config)[0]
    found = scene.legend
    assert found is not None
    base = out.parent.resolve()
    write_text(
        out,
        TEMPLATE.format(
            name=_quoted(Path(image).stem or "run"),
            image=_quoted(_from(base, image)),
            labels=_quoted(os.path.relpath(labels, base)),
            sensor=f"  sensor: {sensor}\n" if sensor else "",
            bands=f"  bands: [{', '.join(map(_quoted, bands))}]\n" if bands else "",
            field="".join(
                f"  {key}: {_quoted(value)}\n"
                for key, value in (("field", field), ("layer", layer), ("epsg", epsg))
                if value
            ),
            align=f"  align: {align}  # the labels lie on another grid\n" if align != "none" else "",
            legend=_quoted(_from(base, legend) if legend.endswith(_YAML) else legend) if legend else _inline(found),
            size=int(np.clip(2 ** int(np.log2(max(16, min(scene.grid.height, scene.grid.width) / 4))), 16, 128)),
        ),
    )
    return _summary(scene, found)


_YAML = (".yaml", ".yml")
"""Endings of legends that are files; others are names, and a folder may be called so."""


def _from(base: Path, path: str) -> str:
    """A path as a config in the folder `base` says it; patterns and names stay."""
    return os.path.relpath(path, base) if os.path.exists(path) else path


def _image_grid(image: str, sensor: str | None, bands: Sequence[str] | None) -> Grid:
    config = DataConfig(image=image, sensor=sensor, bands=list(bands) if bands else None)
    return open_scenes(config, labels=False)[0].grid


def _inline(legend: Legend) -> str:
    lines = [f"    - {{code: {c.code}, name: {_quoted(c.name)}, colour: '{c.colour}'}}" for c in legend.classes]
    nodata = "null" if legend.nodata is None else legend.nodata
    return f"\n    nodata: {nodata}\n    classes:\n" + "\n".join("  " + line for line in lines)


def _quoted(text: str | int) -> str:
    return yaml.safe_dump(text, width=10_000).removesuffix("\n").removesuffix("...").strip()


def _summary(scene: Scene, legend: Legend) -> list[str]:
    counts = np.zeros(256, np.int64)
    for block in partition(scene.grid.window, 2048, 2048):
        counts += np.bincount(scene.read_labels(block).ravel(), minlength=256)
    total = counts.sum()
    lines = [f"image: {scene.grid.describe()}"]
    lines += [f"  {key}: {', '.join(raster.bands)}" for key, raster in scene.rasters.items()]
    lines.append(f"labels: {1 - counts[IGNORE] / total:.1%} of the image is labelled")
    lines += [f"  {name}: {counts[i]:,} px" for i, name in enumerate(legend.names)]
    return lines + [f"note: {note}" for note in scene.notes]
