"""Small data of README.md, as doc_setups.py: the page's own, and that of blocks with a folder of their own."""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from doc_pages import ROOT, read_page
from doc_setups import label, require_shared
from rasterio.features import shapes
from shapely.geometry import box, shape

from covermap.core.config import ImageConfig
from covermap.core.output import write_text
from covermap.core.train_config import PredictConfig
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.data.simulate_events import EventRecipe, write_event

DATES = ("2018", "2020", "2022")
CONFIG: dict[str, Any] = {
    "split": {"block_px": 24, "buffer_px": 2}, "model": {"backbone_options": {"widths": [8, 16]}}, "baseline": False,
    "train": {"epochs": 1, "steps_per_epoch": 8, "batch_size": 4, "size_px": 32, "lr": 0.01}, "predict": {"workers": 1},
}  # fmt: skip
LABELLED = {"image": "image.tif", "sensor": "landsat7", "labels": "labels.tif", "legend": "legend.yaml"}


def _write_config(**sections: Any) -> None:
    """covermap.yaml of that data."""
    import yaml

    write_text(Path("covermap.yaml"), yaml.safe_dump({"name": "small", "data": LABELLED} | CONFIG | sections))


def _train(name: str, data: dict[str, Any], **sections: Any) -> None:
    """runs/NAME of a network that learns for a moment."""
    from covermap.core.config_file import parse_config
    from covermap.verbs.train import train

    train(parse_config({"name": name, "data": data} | CONFIG | sections))


def _map(out: str, image: str = "image.tif", date: str | None = None, model: str = "runs/NAME") -> None:
    from covermap.verbs.predict import predict

    settings = PredictConfig(workers=1, probabilities=True)
    predict(model, [ImageConfig(path=image, sensor="landsat7", date=date)], out, settings=settings)


def _sample(source: str, out: str) -> None:
    from covermap.verbs.sample import Plan, sample

    sample(source, out, Plan(num=60, floor=5))


@functools.cache
def _demo() -> tempfile.TemporaryDirectory[str]:
    """The demo, made once for all tests."""
    from covermap.verbs.demo import demo

    folder = tempfile.TemporaryDirectory()
    demo(Path(folder.name) / "demo")
    return folder


def trained(*, slow: bool) -> None:
    """image.tif of 2018, others of 2020 and 2022, labels, legend.yaml, covermap.yaml and runs/NAME."""
    write_scene(SceneRecipe(height=192, width=192, seed=1, num_dates=3, change_share=0.2), ".")
    legend = Path("legend.yaml")
    write_text(legend, legend.read_text().replace("built-up", "building"))
    for number, year in enumerate(DATES, 1):
        shutil.move(f"image_date{number}.tif", f"image_{year}.tif")
        shutil.move(f"labels_date{number}.tif", f"labels_{year}.tif")
    shutil.copy("image_2018.tif", "image.tif")
    shutil.copy("labels_2018.tif", "labels.tif")
    _write_config(model={})
    if slow:
        _train("NAME", LABELLED)


def readme(*, slow: bool) -> None:
    """image.tif with labels.gpkg; slow: also another image, a trained runs/NAME, and the demo."""
    write_scene(SceneRecipe(height=192, width=192, seed=1), ".")
    _draw_labels()
    if slow:
        shutil.copytree(Path(_demo().name) / "demo", "demo")
        write_scene(SceneRecipe(height=192, width=192, seed=2), "other")
        shutil.move("other/image.tif", "other_image.tif")
        _train("NAME", LABELLED)


def _draw_labels() -> None:
    """labels.gpkg, polygons of labels.tif with names in the field `class`."""
    from covermap.core.legend import load_legend

    names = {one.code: one.name for one in load_legend("legend.yaml").classes}
    with rasterio.open("labels.tif") as labels:
        found = [(names[code], shape(one)) for one, code in shapes(labels.read(1), transform=labels.transform) if code]
        crs = labels.crs
    table = gpd.GeoDataFrame({"class": [name for name, _ in found]}, geometry=[one for _, one in found], crs=crs)
    table.to_file("labels.gpkg")


def foundation(*, slow: bool) -> None:
    """A trained model, a checkpoint of TerraTorch with its five classes, and the backbone of docs/add_a_backbone.md."""
    trained(slow=slow)
    shared = require_shared() if slow else None
    if shared:
        shutil.copy(shared / "checkpoints/golden_terratorch_terramind_unet.pt", "flood.ckpt")
    write_text(Path("flood.yaml"), "{1: water, 2: trees, 3: crops, 4: town, 5: bare}")
    backbone = next(block.text for block in read_page(ROOT / "docs/add_a_backbone.md").blocks if block.file)
    write_text(Path("my_file.py"), backbone.replace("Mine", "MyBackbone"))


def event(*, slow: bool) -> None:
    """before.tif and after.tif of a flood in dB, pre/ and post/ of landslides as power, 2000.tif and 2003.tif, runs/flood."""
    write_event(EventRecipe(height=192, width=192, share=0.2), "flooded")
    write_event(EventRecipe(kind="landslide", height=192, width=192), "slide", optical=True)
    for side in ("before", "after"):
        with rasterio.open(f"flooded/{side}_1.tif") as power:
            profile, values, names = power.profile, power.read(), power.descriptions
        with rasterio.open(f"{side}.tif", "w", **profile) as file:
            file.write(10 * np.log10(values))
            file.descriptions = names
    for source, to in {
        "flooded/dem.tif": "dem.tif", "slide/dem.tif": "hills.tif", "slide/before_1.tif": "pre/1.tif", "slide/after_1.tif": "post/1.tif",
        "slide/optical_before_1.tif": "2000.tif", "slide/optical_after_1.tif": "2003.tif",
    }.items():  # fmt: skip
        Path(to).parent.mkdir(exist_ok=True)
        shutil.copy(source, to)
    shutil.copy("2000.tif", "image.tif")
    points = gpd.read_file("slide/heads.csv", X_POSSIBLE_NAMES="x", Y_POSSIBLE_NAMES="y").geometry
    with rasterio.open("image.tif") as image:
        places = points.set_crs(image.crs).to_crs("EPSG:4326")
    write_text(Path("heads.csv"), "lon,lat\n" + "".join(f"{one.x:.6f},{one.y:.6f}\n" for one in places))
    images = [{"path": f"{side}.tif", "sensor": "sentinel1", "date": day}
              for side, day in (("before", "2019-06-01"), ("after", "2019-06-13"))]  # fmt: skip
    data = {"image": images, "labels": "flooded/labels.tif", "legend": "flooded/legend.yaml"}
    _train("flood", data, task={"name": "hazard", "positive": "flood"})
    from covermap.verbs.event import event as find

    sides = [[ImageConfig(path=f"{side}.tif", sensor="sentinel1")] for side in ("before", "after")]
    find(sides[0], sides[1], "found.tif")  # beside map.tif lay its places.csv
    shutil.copy("found.tif", "map.tif")


def product(*, slow: bool) -> None:
    """map.tif with its probabilities."""
    trained(slow=slow)
    _map("map.tif")


def viewed(*, slow: bool) -> None:
    """The demo; a map, its image and a sample of it."""
    shutil.copytree(Path(_demo().name) / "demo", "demo")
    product(slow=slow)
    _sample("map.tif", "sample.gpkg")


def compared(*, slow: bool) -> None:
    """Images of 2018 and 2022, and a model; its maps of three dates, with probabilities."""
    trained(slow=slow)
    shutil.move("runs/NAME", "runs/x")
    classes = "water: Wetlands, forest: Forest land, grassland: Grassland, cropland: Cropland, building: Settlements"
    classes += ", bare soil: Other land, road: Settlements, orchard: Cropland"
    write_text(Path("mine.yaml"), f"from: legend.yaml\nto: ipcc\nclasses: {{{classes}}}\n")
    for letter, year in zip("abc", DATES, strict=True):
        _map(f"{letter}.tif", f"image_{year}.tif", f"{year}-07-01", "runs/x")
    for name, year in (("a", "2018"), ("c", "2022")):
        for path in Path().glob(f"{name}*.tif*"):
            shutil.copy(path, path.name.replace(name, year, 1))


def question(*, slow: bool) -> None:
    """built.tif, which tells what became building or road."""
    from covermap.verbs.change import change
    from covermap.verbs.change_rules import ChangeRules

    compared(slow=slow)
    change(["a.tif", "b.tif"], "built.tif", rules=ChangeRules(goals=("building", "road"), binary=True))


def dates(*, slow: bool) -> None:
    """The config of a task of two dates."""
    trained(slow=slow)
    images = [{"path": f"image_{year}.tif", "sensor": "landsat7", "date": f"{year}-07-01"} for year in ("2018", "2022")]
    data = {
        "image": images,
        "labels": ["labels_2018.tif", "labels_2022.tif"],
        "legend": "legend.yaml",
        "label": "dates",
    }
    model = CONFIG["model"] | {"dates": "difference"}
    train = CONFIG["train"] | {"steps_per_epoch": 2, "class_weights": "none"}
    _write_config(task="semantic_change", data=data, model=model, train=train)


def studies(*, slow: bool) -> None:
    """Plans of few small cells, a data set in its published layout, and two runs each of two settings."""
    from covermap.data.sources.wusu import Wusu

    trained(slow=False)
    Wusu.write_miniature(Path("data/WUSU"))
    train = CONFIG["train"] | {"steps_per_epoch": 2}
    for name in ("a_0", "a_1", "b_0", "b_1"):
        _train(name, LABELLED, train=train | {"lr": 0.01 if name[0] == "a" else 0.001, "seed": int(name[-1])})
    _write_config(
        data={"source": "wusu", "root": "data/WUSU", "options": {"dates": "single"}},
        train=train,
        split={"method": "source"},
    )
    levels = "{unet: {model.backbone: unet}, forest: forest}"
    write_text(
        Path("plan.yaml"), f"title: Which?\nkind: grid\nconfig: covermap.yaml\nseeds: 1\naxes: {{model: {levels}}}\n"
    )
    space = "{train.lr: [1e-4, 1e-2, log], model.decoder: [unet, fpn]}"
    write_text(Path("search.yaml"), f"config: covermap.yaml\nspace: {space}\n")


def large(*, slow: bool) -> None:
    """Products as delivered and a model of them; tiles of 1 m; dem.tif."""
    from covermap.data import miniature
    from covermap.data.sources.safe import Safe

    Safe.write_miniature(Path("s2"))
    codes = miniature.patches(range(1, 4), 120, 120, seed=0, cell_px=12)
    miniature.write(Path("s2/labels.tif"), codes, origin=(600_000, 5_700_000), epsg=32632)
    folder = next(Path("s2").glob("*20230710*32UNE*.SAFE"))
    legend = {1: "field", 2: "water", 3: "town"}
    image = {"path": str(folder), "use": ["B02", "B03", "B04", "B08"]}
    if slow:
        _train("NAME", {"image": [image], "labels": "s2/labels.tif", "legend": legend})
    write_scene(SceneRecipe(height=512, width=512, seed=1, gsd_m=1), "one", dem=True)
    shutil.copy("one/labels.tif", "labels_1m.tif")
    shutil.copy("one/dem.tif", "dem.tif")
    _cut("one/image.tif", "images")
    _cut("one/labels.tif", "labels")
    images = [{"path": "images/*.tif", "sensor": "landsat7"}]
    _write_config(data={"image": images, "labels": "labels/*.tif", "legend": "one/legend.yaml"})


def _cut(path: str, folder: str) -> None:
    """A raster in four chips that touch."""
    from rasterio.windows import Window

    Path(folder).mkdir()
    with rasterio.open(path) as whole:
        for row in range(2):
            for col in range(2):
                window = Window(col * 256, row * 256, 256, 256)
                place = {"height": 256, "width": 256, "transform": whole.window_transform(window), "tiled": False}
                with rasterio.open(f"{folder}/c{row}{col}.tif", "w", **whole.profile | place) as file:
                    file.write(whole.read(window=window))
                    file.descriptions = whole.descriptions


def region(*, slow: bool) -> None:
    """A model, and scenes/ of two places."""
    trained(slow=slow)
    write_scene(SceneRecipe(height=192, width=192, seed=2, region=1), "other")
    Path("scenes").mkdir()
    shutil.copy("image.tif", "scenes/image.tif")
    _moved("other/image.tif", "scenes/other_image.tif", 10_000)


def _moved(path: str, to: str, metres: float) -> None:
    """A raster further east."""
    with rasterio.open(path) as file:
        profile, values, names = file.profile, file.read(), file.descriptions
    place = rasterio.Affine.translation(metres, 0) @ profile["transform"]
    with rasterio.open(to, "w", **profile | {"transform": place}) as file:
        file.write(values)
        file.descriptions = names


def mapped(*, slow: bool) -> None:
    """map.tif, and districts.gpkg with its western and its eastern half."""
    product(slow=slow)
    with rasterio.open("map.tif") as file:
        (left, bottom, right, top), crs = file.bounds, file.crs
    middle = (left + right) / 2
    halves = [box(left, bottom, middle, top), box(middle, bottom, right, top)]
    gpd.GeoDataFrame({"name": ["west", "east"]}, geometry=halves, crs=crs).to_file("districts.gpkg")


def areas(*, slow: bool) -> None:
    """covermap.yaml of several scenes with labels; published weights."""
    from covermap.hub import pull
    from covermap.nn.published import published_of

    require_shared()
    pull("galileo_nano", published_of("galileo_nano"))
    for number in range(3):
        write_scene(SceneRecipe(height=96, width=96, seed=number), f"scene{number}")
        for kind, folder in (("image", "images"), ("labels", "labels")):
            Path(folder).mkdir(exist_ok=True)
            _moved(f"scene{number}/{kind}.tif", f"{folder}/{number}.tif", 10_000 * number)
    images = [{"path": "images/*.tif", "sensor": "sentinel2"}]
    _write_config(data={"image": images, "labels": "labels/*.tif", "legend": "scene0/legend.yaml"}, model={})


def unlabelled(*, slow: bool) -> None:
    """image.tif, dem.tif, covermap.yaml, and the config of the page with few steps."""
    write_scene(SceneRecipe(height=192, width=192, seed=1), ".", dem=True)
    _write_config(data=LABELLED | {"sensor": "sentinel2"}, model={})
    page = next(block.text for block in read_page(ROOT / "README.md").blocks if "simclr.yaml" in block.text)
    [text] = re.findall(r"<<'YAML'\n(.*?)^YAML$", page, re.M | re.S)
    assert "steps: 5000, batch_size: 64, size_px: 64" in text
    write_text(Path("simclr.yaml"), text.replace("5000, batch_size: 64", "4, batch_size: 4"))


def scripted(*, slow: bool) -> None:
    """A model, its map with a sample that has all answers, and maps of two dates."""
    trained(slow=slow)
    for name, year in (("map", "2018"), ("a", "2018"), ("b", "2022")):
        _map(f"{name}.tif", f"image_{year}.tif", f"{year}-07-01")
    _sample("map.tif", "sample.gpkg")
    label()
