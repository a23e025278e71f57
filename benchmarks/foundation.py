"""Galileo nano and Presto with their real weights beside a U-Net and a random forest, on three data sets, over seeds.

    gewata    Landsat-7, test columns 740-1055 (recipes/gewata.yaml)
    terramesh Sentinel-2, one of four places held out (recipes/terramesh.yaml)
    oscd      Sentinel-2 L1C, cities pisa and rennes held out; labels are MODEL-MADE (Dynamic World), no ground truth

All networks of a data set see windows from the same split. Rows are appended to the output as JSON lines.

usage: COVERMAP_WEIGHTS=../shared/weights .venv/bin/python benchmarks/foundation.py OUT.jsonl
           [--data gewata terramesh oscd] [--models ...] [--seeds 0 1 2]; then: --table OUT.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import yaml

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.config_file import load_config
from covermap.data.scene import open_scenes
from covermap.verbs.evaluate import evaluate
from covermap.verbs.train import train

ROOT = Path(__file__).resolve().parent.parent
OSCD = ROOT.parent / "shared" / "data" / "oscd"
CITIES = ("aguasclaras", "bordeaux", "mumbai", "nantes", "norcia", "pisa", "rennes")
SCORED = {"gewata": ("cropland", "bamboo", "forest", "wetland")}
SMALL = ["train.size_px=32", "train.batch_size=16", "model.pixel_width=0", "model.backbone_options={}", "train.ema=0.9"]
GALILEO = [*SMALL, "model.backbone=galileo_nano"]
MODELS = {
    "unet": [],  # as in the data set's recipe, with its own number of steps
    "unet_same_steps": ["train.size_px=32", "train.batch_size=16", "train.ema=0.9"],
    "galileo_frozen": [*GALILEO, "model.adapt=frozen", "model.decoder=linear", "train.lr=0.005"],
    "galileo_tuned": [*GALILEO, "model.decoder=unet", "train.lr=0.0005"],
    "galileo_random": [*GALILEO, "model.decoder=unet", "train.lr=0.0005", "model.weights=none"],
    "presto_frozen": [
        *SMALL, "model.backbone=presto", "model.adapt=frozen", "model.decoder=linear", "train.lr=0.005",
        "train.size_px=16",
    ],
}  # fmt: skip
STEPS = ["train.epochs=4", "train.steps_per_epoch=30", "train.validate_every=4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", default=["gewata", "terramesh", "oscd"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print_table([json.loads(line) for line in args.out.read_text().splitlines()])
        return
    with tempfile.TemporaryDirectory() as folder:
        recipes = {name: ROOT / "recipes" / f"{name}.yaml" for name in ("gewata", "terramesh")}
        if "oscd" in args.data:
            recipes["oscd"] = write_oscd(Path(folder) / "oscd")
        for seed in args.seeds:
            for data in args.data:
                for model in args.models:
                    row = measure(recipes[data], data, model, seed, Path(folder), args.set)
                    with open(args.out, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)


def measure(recipe: Path, data: str, model: str, seed: int, folder: Path, more: list[str]) -> dict:
    """Train and score one network, with the forest on the same split."""
    steps = [] if model == "unet" else STEPS
    overrides = [f"output={folder}", f"name={data}_{model}_{seed}", f"train.seed={seed}", *steps, *MODELS[model], *more]
    config = load_config(recipe, overrides)
    if model != "unet":  # the forest is that of the U-Net's run
        config = config.model_copy(update={"baseline": False})
    start = time.perf_counter()
    run = train(config, overwrite=True)
    seconds = time.perf_counter() - start
    row = {"data": data, "model": model, "seed": seed, "train_s": round(seconds)}
    start = time.perf_counter()
    result = evaluate(run)["models"]
    row |= {"evaluate_s": round(time.perf_counter() - start)} | scores(result["network"], data)
    if "random forest" in result:
        row["forest"] = scores(result["random forest"], data)
    shutil.rmtree(run.folder)
    return row


def scores(result: dict, data: str) -> dict:
    """Overall accuracy and mean IoU of the test part, over the classes that the data set is scored by."""
    each = {row["class"]: row["iou"] for row in result["per_class"]}
    miou = np.mean([each[name] for name in SCORED[data]]) if data in SCORED else result["scores"]["miou"]
    return {"miou": round(float(miou), 4), "oa": round(result["scores"]["oa"], 4)}


def write_oscd(folder: Path) -> Path:
    """First dates of seven cities, 12 bands on the 10 m grid, with their model-made labels; gives the config."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for city in CITIES:
        source = OSCD / "images" / city / "imgs_1"
        files = sorted(str(path) for path in source.glob("*.tif"))
        scene = open_scenes(DataConfig(image=[ImageConfig(path=files, sensor="sentinel2")]), labels=False)[0]
        raster = next(iter(scene.rasters.values()))
        names = [band for band in raster.bands if band != "cirrus"]
        sample = scene.read(scene.grid.window)
        values = next(iter(sample.image.values()))[0][[raster.bands.index(band) for band in names]]
        profile = {
            "driver": "GTiff", "height": scene.grid.height, "width": scene.grid.width, "count": len(names),
            "dtype": "float32", "crs": scene.grid.crs, "transform": scene.grid.transform,
        }  # fmt: skip
        with rasterio.open(folder / "images" / f"{city}.tif", "w", **profile) as file:
            file.write(values.astype(np.float32))
            for i, name in enumerate(names, 1):
                file.set_band_description(i, name)
        with rasterio.open(OSCD / "dw_labels_model_made" / f"{city}_imgs_1_dw.tif") as labels:
            codes = labels.read(1)
            meta = labels.profile | {"count": 1, "nodata": 255}
        with rasterio.open(folder / "labels" / f"{city}.tif", "w", **meta) as file:
            file.write(codes, 1)
    config = {
        "name": "oscd",
        "output": str(folder),
        "data": {
            "image": [{"path": "images/*.tif", "sensor": "sentinel2", "date": "2016"}],
            "labels": "labels/*.tif",
            "legend": dict(enumerate(
                ["water", "trees", "grass", "flooded vegetation", "crops", "shrub", "built", "bare", "snow"])),
        },
        "split": {"method": "regions", "test": ["pisa", "rennes"], "val": ["nantes"]},
        "model": {"backbone_options": {"widths": [16, 32, 48, 64]}, "pixel_width": 32},
        "baseline": {"trees": 100},
        "train": {
            "epochs": 4, "steps_per_epoch": 50, "batch_size": 16, "size_px": 64, "ema": 0.95, "validate_every": 4,
            "lr": 0.002, "augment": {"brightness": 0.1},
        },
    }  # fmt: skip
    path = folder / "oscd.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def print_table(rows: list[dict]) -> None:
    """Mean and 95 % interval over seeds (Student's t; the interval covers training seeds, not places)."""
    quantile = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["data"], row["model"]), []).append(row)
        if "forest" in row:
            found.setdefault((row["data"], "random forest"), []).append(row["forest"])
    print("| data | model | seeds | mean IoU | overall accuracy | training, s |\n|---|---|---|---|---|---|")
    for (data, model), group in sorted(found.items()):
        cells = []
        for key in ("miou", "oa"):
            values = np.array([row[key] for row in group])
            spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            cells.append(f"{values.mean():.3f} ± {quantile.get(len(values), math.nan) * spread:.3f}")
        seconds = np.median([row.get("train_s", 0) for row in group])
        print(f"| {data} | {model} | {len(group)} | {cells[0]} | {cells[1]} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
