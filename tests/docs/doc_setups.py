"""Small data that pages name in `<!-- setup: NAME -->`, written into the current folder."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from doc_pages import ROOT, read_page
from rasterio.windows import Window

from covermap.core.output import write_text
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.data.simulate_chips import write_chips
from covermap.data.simulate_events import EventRecipe, write_event
from tests.conftest import SHARED


def image(*, slow: bool) -> None:
    """image.tif, labels.tif, legend.yaml of a generated scene."""
    write_scene(SceneRecipe(height=128, width=128, seed=1), ".")


def config(*, slow: bool) -> None:
    """The same with covermap.yaml, which trains for a moment."""
    image(slow=slow)
    write_text(
        Path("covermap.yaml"),
        "name: small\ndata: {image: image.tif, sensor: landsat7, labels: labels.tif, legend: legend.yaml}\n"
        "split: {block_px: 16, buffer_px: 2}\nmodel: {backbone_options: {widths: [8, 16]}}\nbaseline: {trees: 5}\n"
        "train: {epochs: 1, steps_per_epoch: 2, batch_size: 4, size_px: 32, lr: 0.01}\npredict: {workers: 1}\n",
    )


def own_source(*, slow: bool) -> None:
    """data/ in the layout of docs/add_a_source.md."""
    code = next(block.text for block in read_page(ROOT / "docs/add_a_source.md").blocks if block.file == "my_source.py")
    names: dict[str, Any] = {"__name__": "my_source"}
    exec(compile(code, "my_source.py", "exec"), names)
    names["Mine"].write_miniature(Path("data"))


def tasks(*, slow: bool) -> None:
    """What the configs of docs/tasks.md name: a scene, its two dates, chips with labels and numbers, LUCAS, a flood."""
    image(slow=slow)
    Path("legend.yaml").unlink()
    Path("scene.json").unlink()
    write_scene(SceneRecipe(height=128, width=128, seed=1, num_dates=2, change_share=0.2), ".")
    write_event(EventRecipe(height=128, width=128, share=0.1), "event")
    write_chips("lucas", num_train=40, num_val=20, num_test=20)
    with rasterio.open("image.tif") as picture, rasterio.open("labels.tif") as labels:
        for row, col in itertools.product(range(8), range(8)):
            window = Window(col * 16, row * 16, 16, 16)
            place = {"height": 16, "width": 16, "transform": picture.window_transform(window)}
            values = picture.read(window=window)
            numbers = (values[3:4] / 50).astype("float32")
            for folder, source, of in (
                ("chips", picture, values),
                ("chip_labels", labels, labels.read(window=window)),
                ("numbers", picture, numbers),
            ):
                Path(folder).mkdir(exist_ok=True)
                profile = source.profile | place | {"count": len(of), "dtype": of.dtype, "tiled": False}
                with rasterio.open(f"{folder}/c{row}{col}.tif", "w", **profile) as file:
                    file.write(of)
                    if folder == "chips":
                        file.descriptions = picture.descriptions


def published(*, slow: bool) -> None:
    """Nothing but real weights, which the hub of the tests hands out."""
    require_shared()


def require_shared() -> Path:
    """The folder of real data and weights; skips the test without it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, the folder of real weights")
    return SHARED


def label() -> None:
    """Answers to all points or chips that have none: what the map or model says, but for each tenth."""
    for path in Path().glob("*.gpkg"):
        table = gpd.read_file(path)
        if "reference" in table and table["reference"].fillna("").eq("").all():
            told = table["predicted" if "predicted" in table else "stratum"].astype(str)
            table["reference"] = told.where(np.arange(len(told)) % 10 > 0, told.iloc[0])
            table.to_file(path)
