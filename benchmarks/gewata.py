"""Gewata by part 1's rule: mean IoU over cropland, bamboo, forest and wetland on columns 740-1055, three seeds.

Beside the network of recipes/gewata.yaml: a plain and a balanced random forest (300 trees, 40,000 pixels of columns
0-699), fitted for each seed.

usage: .venv/bin/python benchmarks/gewata.py [--seeds 0 1 2] [--set train.epochs=7 ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from covermap.core.config_file import load_config
from covermap.core.run import Run
from covermap.start import prepare_run
from covermap.verbs.baseline import train_baseline
from covermap.verbs.evaluate import evaluate
from covermap.verbs.train import train

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "gewata.yaml"
SCORED = ("cropland", "bamboo", "forest", "wetland")


def scored(result: dict, model: str) -> tuple[float, list[float]]:
    """Mean IoU over the four classes, and each."""
    rows = {row["class"]: row["iou"] for row in result["models"][model]["per_class"]}
    each = [float(rows[name]) for name in SCORED]
    return float(np.mean(each)), [round(v, 3) for v in each]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            overrides = [f"output={folder}", f"name=s{seed}", f"train.seed={seed}", *args.set]
            start = time.perf_counter()
            run = train(load_config(RECIPE, overrides))
            seconds = time.perf_counter() - start
            result = evaluate(run)
            row = {"seed": seed, "train_s": round(seconds), "network": scored(result, "network")}
            row["forest_balanced"] = scored(result, "random forest")
            row["forest_plain"] = plain_forest(run, seed)
            better = max(row["forest_balanced"][0], row["forest_plain"][0])
            row["gain"] = round(row["network"][0] - better, 4)
            print(json.dumps(row), flush=True)


def plain_forest(run: Run, seed: int) -> tuple[float, list[float]]:
    """The same forest without class weights."""
    ready = prepare_run(run.config)
    assert run.config.baseline
    config = run.config.baseline.model_copy(update={"balanced": False})
    train_baseline(run, config, ready.scenes, ready.split, ready.spec, seed=seed)
    return scored(evaluate(run), "random forest")


if __name__ == "__main__":
    main()
