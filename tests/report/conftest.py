"""A finished run without training: a landscape, labels, maps and numbers that belong together."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin
from scipy import ndimage

from covermap.core.config_file import parse_config
from covermap.core.run import Run
from covermap.core.types import InputSpec, SensorInput
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.metrics.confusion import Confusion
from covermap.report import write_report
from covermap.verbs.assess import assess
from covermap.verbs.sample import Plan, sample

CLASSES = {
    "water": ("#2b6cb0", (700, 600, 400, 250)),
    "forest": ("#1e6b34", (300, 450, 350, 3200)),
    "cropland": ("#e8c547", (600, 900, 800, 3900)),
    "grassland": ("#9bd067", (500, 800, 700, 2600)),
    "built-up": ("#c8344b", (1600, 1700, 1800, 2100)),
    "bare soil": ("#b08d6a", (1100, 1500, 2000, 2500)),
    "wetland": ("#2aa198", (600, 700, 500, 1500)),
}


def write_tif(path, array, *, bands=(), nodata=None, dtype=None):
    array = np.asarray(array, dtype)
    array = array[None] if array.ndim == 2 else array
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2]}
    place = {"crs": "EPSG:32631", "transform": from_origin(600_000, 5_000_000, 10, 10)}
    with rasterio.open(path, "w", **profile, **place, dtype=array.dtype, nodata=nodata) as dataset:
        dataset.write(array)
        for i, name in enumerate(bands, 1):
            dataset.set_band_description(i, name)
    return str(path)


def landscape(size_px, seed=3):
    """Class indices (H, W): patches of seven classes, a winding river, a rare wetland in one corner."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=(size_px, size_px)), size_px / s) for s in (24, 30, 36, 40, 50)]
    index = np.argmax([f / f.std() for f in fields], 0) + 1
    rows, cols = np.mgrid[:size_px, :size_px] / size_px
    index[np.abs(cols - 0.45 - 0.12 * np.sin(7 * rows)) < 0.03] = 0
    index[(rows - 0.1) ** 2 + (cols - 0.12) ** 2 < 0.002] = 6
    return index


def make_run(folder, *, size_px=192, names=tuple(CLASSES), seed=3, split=None):
    """A finished run with everything that a report shows, without training: numbers are made, and consistent."""
    rng = np.random.default_rng(seed)
    index = landscape(size_px, seed)
    means = np.array([spectrum for _, spectrum in CLASSES.values()], float)
    smooth = ndimage.gaussian_filter(rng.normal(size=(size_px, size_px)), size_px / 60)
    image = means[index].transpose(2, 0, 1) * (1 + 0.1 * smooth / smooth.std()) + rng.normal(0, 90, (4, *index.shape))
    image = np.clip(image, 1, 9000).astype(np.uint16)
    image[:, : size_px // 12, -size_px // 6 :] = 0
    labels = np.where(rng.random(index.shape) < 0.03, 0, index + 1)
    colours = [colour for colour, _ in CLASSES.values()]
    legend = {
        "name": "demo",
        "nodata": 0,
        "classes": [
            {"code": i + 1, "name": n, "colour": c} for i, (n, c) in enumerate(zip(names, colours, strict=True))
        ],
    }
    config = parse_config(
        {
            "name": "demo",
            "output": str(folder / "runs"),
            "data": {
                "image": write_tif(folder / "image.tif", image, bands=["blue", "green", "red", "nir"], nodata=0),
                "sensor": "sentinel2",
                "labels": write_tif(folder / "labels.tif", labels, nodata=0, dtype="uint8"),
                "legend": legend,
            },
            "split": split or {"block_px": max(8, size_px // 8)},
            "train": {"epochs": 30},
        }
    )
    run = Run.create(config)
    scenes = open_scenes(config.data)
    parts = make_split(scenes, config.split, size_px=64)
    parts.save(run.path("split.csv"))
    run.write_json("notes.json", ["labels.tif: 12 polygons overlap; the pixels they share are not used", *parts.notes])
    run.record_inputs(scenes[0].paths)
    predictions = {
        "network": disturbed(index, rng, patch_px=size_px / 60, share=0.1),
        "random forest": disturbed(index, rng, patch_px=0.6, share=0.3),
    }
    write_metrics(run, parts, scenes[0], predictions)
    write_log(run, rng)
    write_products(run, legend, predictions["network"], index, image[0] > 0, rng)
    write_assessment(run.path("map.tif"), index)
    return run


def disturbed(index, rng, *, patch_px, share):
    """Class indices with `share` of the pixels given another class in patches."""
    noise = ndimage.gaussian_filter(rng.normal(size=index.shape), patch_px)
    other = np.roll(index, 17, (0, 1))
    return np.where(noise > np.quantile(noise, 1 - share), other, index)


def write_metrics(run, split, scene, predictions):
    label = split.labels(scene, scene.grid.window, "test")
    models = {}
    for name, index in predictions.items():
        confusion = Confusion(len(scene.legend))
        confusion.add(label, index.astype(np.uint8))
        models[name] = {
            "scores": confusion.scores() | {"nll": 0.4},
            "per_class": confusion.table(scene.legend.names),
            "confusion": confusion.counts.tolist(),
        }
    classes = list(scene.legend.names)
    run.write_json("metrics.json", {"part": "test", "is_test": True, "note": "", "classes": classes, "models": models})


def write_log(run, rng, epochs=30):
    for epoch in range(1, epochs + 1):
        done = epoch / epochs
        row = {"epoch": epoch, "loss": 0.25 + 1.5 * np.exp(-5 * done) + rng.normal(0, 0.02)}
        row |= {"lr": 1e-3 * min(1, epoch / 2) * (0.5 + 0.5 * np.cos(np.pi * done))}
        score = 0.78 - 0.6 * np.exp(-5 * done) + rng.normal(0, 0.012)
        row |= {"val_miou": score, "val_oa": score + 0.13, "val_macro_f1": score + 0.07}
        row |= {"val_loss": 0.33 + 1.4 * np.exp(-4.5 * done) + rng.normal(0, 0.03), "seconds": 7.3}
        run.log({key: float(v) if key != "epoch" else v for key, v in row.items()})


def write_products(run, legend, predicted, index, valid, rng):
    codes = np.where(valid, predicted + 1, 0)
    write_tif(run.path("map.tif"), codes, nodata=0, dtype="uint8")
    with rasterio.open(run.path("map.tif"), "r+") as dataset:
        dataset.update_tags(COVERMAP_LEGEND=json.dumps(legend))
    sure = ndimage.gaussian_filter((predicted == index).astype(float), 3) * 55 + 40 + rng.normal(0, 3, index.shape)
    percent = np.where(valid, np.clip(sure, 15, 100), 255)
    write_tif(run.path("confidence.tif"), percent, nodata=255, dtype="uint8")
    away = np.where(valid, np.minimum(np.arange(valid.shape[1])[None] + np.zeros_like(sure), 254), 255)
    write_tif(run.path("applicability.tif"), away, nodata=255, dtype="uint8")
    write_tif(run.path("entropy.tif"), np.where(valid, np.clip(110 - sure, 0, 100), 255), nodata=255, dtype="uint8")
    size = np.digitize(sure, [97, 85, 70, 50])
    write_tif(run.path("set_size.tif"), np.where(valid, np.minimum(size + 1, 4), 255), nodata=255, dtype="uint8")
    with open(run.path("areas.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "code", "pixels", "area_ha", "share"])
        for c in legend["classes"]:
            pixels = int((codes == c["code"]).sum())
            writer.writerow([c["name"], c["code"], pixels, pixels / 100, pixels / (codes > 0).sum()])
    spec = InputSpec((SensorInput("sentinel2", ("blue", "green", "red", "nir"), (0.1,) * 4, (0.1,) * 4, 1e-4),))
    facts = {"run": "demo", "parameters": 1_234_567, "epoch": 28, "val_miou": 0.77}
    card = {"format": 1, "kind": "network", "input": spec.to_dict(), "legend": legend, "build": {}, "facts": facts}
    card["task"] = {"name": "segmentation", "coverage": 0.9, "set_from": 0.2}
    run.path("model").mkdir()
    run.write_json("model/config.json", card)


def write_assessment(path, index, *, num=300):
    """A sample of the map whose references are those of `index`, and what it says, kept beside the map."""
    points = path.with_name(f"{path.stem}_sample.csv")
    sample(path, points, Plan(num=num))
    table = pd.read_csv(points)
    rows, cols = (5_000_000 - table["y"]) // 10, (table["x"] - 600_000) // 10
    table["reference"] = index[rows.astype(int), cols.astype(int)] + 1
    table.to_csv(points, index=False)
    assess(path, points)


@pytest.fixture(scope="session", name="make_run")
def _make_run():
    return make_run


@pytest.fixture(scope="session")
def class_colours():
    """{name: colour} of the run's legend."""
    return {name: colour for name, (colour, _) in CLASSES.items()}


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of 192 x 192 px with its report."""
    run = make_run(tmp_path_factory.mktemp("run"))
    assert write_report(run) == run.path("report.html")
    return run
