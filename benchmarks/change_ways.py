"""Which way of telling change is best? Generated triples of dates, one landscape and one training seed after the other.

A triple is like WUSU's: four bands (blue, green, red, near infrared) on three days of three years, classes of every
pixel on each, 8 % of the area changing from date to date; days of the year differ, so colours do too. Scored are both
steps on ground that did not teach, against the truth, by `covermap change-study`.

usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/change_ways.py FOLDER [--seeds 0 1 2 3 4]; then --table FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from covermap.core.config import RunConfig
from covermap.core.config_file import parse_config
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.metrics.intervals import over_seeds
from covermap.verbs.change_study import PLAIN, WAYS, change_study

DAYS, DATES = (150, 200, 245), ("2015-05-30", "2016-07-18", "2018-09-02")
SCORES = ("sek_from_to", "sek_dates_stacked", "fscd_from_to", "fscd_dates_stacked", "miou", "f1")


def config_of(folder: Path, seed: int) -> RunConfig:
    """A generated triple of 640 x 640 px and how it is learnt."""
    scene = folder / f"triple_{seed}"
    if not (scene / "scene.json").exists():
        recipe = SceneRecipe(640, 640, seed=seed, num_dates=3, change_share=0.08, days=DAYS, noise=1.5)
        write_scene(recipe, scene, overwrite=True)
    image = [
        {"path": str(scene / f"image_date{i}.tif"), "sensor": "landsat7", "use": ["blue", "green", "red", "nir"],
         "date": date}
        for i, date in enumerate(DATES, 1)
    ]  # fmt: skip
    return parse_config({
        "name": "triple", "task": "semantic_change",
        "data": {"image": image, "labels": [str(scene / f"labels_date{i}.tif") for i in (1, 2, 3)], "label": "dates",
                 "legend": str(scene / "legend.yaml")},
        "split": {"method": "blocks", "val": 0.15, "test": 0.3, "block_px": 80, "buffer_px": 8, "seed": seed},
        "model": {"backbone": "unet", "backbone_options": {"widths": [16, 32, 48, 64]}, "pixel_width": 32},
        "baseline": {"trees": 60, "samples": 30000},
        "train": {"epochs": 8, "steps_per_epoch": 40, "batch_size": 8, "size_px": 80, "lr": 0.004, "ema": 0.9,
                  "validate_every": 4, "class_weights": "none"},
        "decision": {"applicability": False},
    })  # fmt: skip


def table(studies: dict[int, dict[str, Any]]) -> str:
    """Mean and standard deviation over triples of each way, and what it gains over plain comparison in points."""
    lines = ["| way | " + " | ".join(SCORES) + " |", "|---" * (1 + len(SCORES)) + "|"]
    found = [{(row["way"], row["score"]): row["values"][0] for row in one["scores"]} for one in studies.values()]
    values = {(way, score): [one.get((way, score)) for one in found] for way in WAYS for score in SCORES}
    for way in WAYS:
        cells = []
        for score in SCORES:
            known = [v for v in values[way, score] if v is not None]
            told = over_seeds(known)
            cells.append(f"{100 * told.value:.1f} ± {100 * told.sd:.1f}" if known else "")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    lines += ["", "| minus plain comparison, points | sek_from_to | sek_dates_stacked | each triple (sek_from_to) |",
              "|---|---|---|---|"]  # fmt: skip
    for way in WAYS:
        if way == PLAIN or values[way, "sek_from_to"][0] is None:
            continue
        cells = []
        for score in ("sek_from_to", "sek_dates_stacked"):
            each = [100 * (a - b) for a, b in zip(values[way, score], values[PLAIN, score], strict=True)]
            told = over_seeds(each)
            cells.append(f"{told.value:+.1f} ({told.low:+.1f} to {told.high:+.1f})")
        each = [100 * (a - b) for a, b in zip(values[way, "sek_from_to"], values[PLAIN, "sek_from_to"], strict=True)]
        lines.append(f"| {way} | {cells[0]} | {cells[1]} | " + ", ".join(f"{v:+.1f}" for v in each) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in [] if args.table else args.seeds:
        out = args.folder / f"study_{seed}"
        change_study(config_of(args.folder, seed), out, seeds=[seed], resume=True, say=print)
    done = sorted(args.folder.glob("study_*/study.json"))
    print(table({int(path.parent.name[6:]): json.loads(path.read_text()) for path in done}))


if __name__ == "__main__":
    main()
