"""Small data that pages name in `<!-- setup: NAME -->`, written into the current folder."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from doc_pages import ROOT, read_page
from rasterio.features import shapes
from rasterio.windows import Window
from shapely.geometry import shape

from covermap.core.output import write_text
from covermap.data.simulate import LEGEND, SceneRecipe, write_scene
from covermap.data.simulate_chips import write_chips
from covermap.data.simulate_events import EventRecipe, write_event


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


def readme(*, slow: bool) -> None:
    """image.tif with labels.gpkg; slow: also the demo, a trained runs/NAME, an event, scenes/ and what else README names."""
    write_scene(SceneRecipe(height=192, width=192, seed=1), ".", dem=True)
    names = {one.code: one.name for one in LEGEND.classes}
    with rasterio.open("labels.tif") as labels:
        found = [(names[code], shape(one)) for one, code in shapes(labels.read(1), transform=labels.transform)]
        crs = labels.crs
    table = gpd.GeoDataFrame({"class": [name for name, _ in found]}, geometry=[one for _, one in found], crs=crs)
    table.to_file("labels.gpkg")
    points = table.representative_point().to_crs("EPSG:4326")
    write_text(Path("heads.csv"), "lon,lat\n" + "".join(f"{one.x:.6f},{one.y:.6f}\n" for one in points[:20]))
    if not slow:
        return
    from covermap.core.config_file import parse_config
    from covermap.verbs.demo import demo
    from covermap.verbs.train import train

    demo("demo")
    write_scene(SceneRecipe(height=192, width=192, seed=2), "other")
    shutil.move("other/image.tif", "other_image.tif")
    raw = {
        "name": "NAME", "data": {"image": "image.tif", "sensor": "landsat7", "labels": "labels.tif", "legend": "legend.yaml"},
        "split": {"block_px": 24, "buffer_px": 2}, "model": {"backbone_options": {"widths": [8, 16]}}, "baseline": False,
        "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "size_px": 32},
    }  # fmt: skip
    train(parse_config(raw))
    backbone = next(block.text for block in read_page(ROOT / "docs/add_a_backbone.md").blocks if block.file)
    write_text(Path("my_file.py"), backbone.replace("Mine", "MyBackbone"))
    write_scene(SceneRecipe(height=128, width=128, seed=1, label_factor=10), "fine")
    shutil.move("fine/labels.tif", "labels_1m.tif")
    Path("scenes").mkdir()
    for name in ("image.tif", "other_image.tif"):
        shutil.copy(name, f"scenes/{name}")
    _event()


def _event() -> None:
    """before.tif and after.tif in dB, pre/ and post/ as power, 2000.tif and 2003.tif of an optical sensor."""
    write_event(EventRecipe(kind="landslide", height=192, width=192), "slide", optical=True)
    shutil.copy("slide/dem.tif", "dem.tif")
    for side, decibel, other in (("before", "before.tif", "pre"), ("after", "after.tif", "post")):
        Path(other).mkdir()
        shutil.copy(f"slide/{side}_1.tif", f"{other}/1.tif")
        with rasterio.open(f"slide/{side}_1.tif") as power:
            profile, values, names = power.profile, power.read(), power.descriptions
        with rasterio.open(decibel, "w", **profile) as file:
            file.write(10 * np.log10(values))
            file.descriptions = names
    shutil.copy("slide/optical_before_1.tif", "2000.tif")
    shutil.copy("slide/optical_after_1.tif", "2003.tif")
