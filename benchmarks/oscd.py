"""OSCD, a city left out in turn: where did it change? Mean AUC and average precision over six cities, three seeds.

    network            siamese U-Net of recipes/oscd_change.yaml, trained on four cities, chosen on the next one
    forest             random forest on both dates' bands and their differences (the run's own baseline)
    forest_differences random forest on the differences of the bands alone
    change_vector      no training: length of the change vector (event mode)

Seventh city norcia has no mask. usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/oscd.py OUT.jsonl
    [--seeds 0 1 2] [--cities ...] [--set KEY=VALUE ...]; then: --table OUT.jsonl
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import RunConfig
from covermap.core.config_file import load_config
from covermap.core.legend import IGNORE
from covermap.core.run import Run
from covermap.data.event_index import EventIndex
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split
from covermap.data.stats import with_own_statistics
from covermap.metrics.binary import BinaryScores
from covermap.metrics.intervals import over_seeds
from covermap.ml.forest import fit_forest
from covermap.models import load_model, pixel_features
from covermap.verbs.baseline import sample_pixels
from covermap.verbs.evaluate import evaluate
from covermap.verbs.train import train

ROOT = Path(__file__).resolve().parent.parent
CITIES = ("aguasclaras", "bordeaux", "mumbai", "nantes", "pisa", "rennes")
SCORES = ("auc", "auprc", "f1")
Row = dict[str, Any]


def config_of(city: str, seed: int, folder: str, sets: list[str]) -> RunConfig:
    """The recipe with another test city, the next one to choose by, and a seed."""
    other = CITIES[(CITIES.index(city) + 1 + seed) % len(CITIES)]
    other = CITIES[(CITIES.index(city) + 2 + seed) % len(CITIES)] if other == city else other
    return load_config(
        ROOT / "recipes/oscd_change.yaml",
        overrides=[f"split.test=[{city}]", f"split.val=[{other}]", f"train.seed={seed}", f"output={folder}", *sets],
    )


def rows_of(city: str, seed: int, sets: list[str]) -> Iterator[Row]:
    """A row for each way, of one city and seed."""
    with tempfile.TemporaryDirectory() as folder:
        config, start = config_of(city, seed, folder, sets), time.perf_counter()
        run = train(config)
        found = evaluate(run)["models"]
        for name, way in (("network", "network"), ("random forest", "forest")):
            if name in found:
                yield row(way, city, seed, found[name]["scores"], time.perf_counter() - start)
        yield row("forest_differences", city, seed, forest_on_differences(run, seed))
    if seed == 0:
        yield row("change_vector", city, seed, change_vector(open_scenes(config.data), city))


def row(way: str, city: str, seed: int, scores: Row, seconds: float = 0.0) -> Row:
    return {"way": way, "city": city, "seed": seed, **{key: scores[key] for key in SCORES}, "seconds": round(seconds)}


def forest_on_differences(run: Run, seed: int) -> Row:
    """A forest that sees only how much each band changed, on the same pixels as the run's own forest."""
    baseline = run.config.baseline
    assert baseline
    model = load_model(run.path("baseline"))
    scenes = with_own_statistics(open_scenes(run.config.data), model.spec)
    split = Split.load(run.path("split.csv"))
    count = len(model.spec.sensors[0].bands)

    def differences(stacked: np.ndarray) -> np.ndarray:
        return pixel_features(stacked, model.spec, model.task)[:, -count:]

    stacked, labels = sample_pixels(scenes, split, model.spec, baseline.samples, seed=seed)
    forest = fit_forest(
        differences(stacked), labels, num_classes=2, trees=baseline.trees, balanced=baseline.balanced, seed=seed
    )
    stacked, labels = sample_pixels(scenes, split, model.spec, 10**9, part="test", seed=seed)
    found = BinaryScores()
    found.add(forest.probabilities(differences(stacked))[:, 1], labels)
    return dict(found.scores())


def change_vector(scenes: list[Scene], city: str) -> Row:
    """The index of event mode, ranked; its F1 is at no threshold that could be told, so there is none."""
    scene = next(scene for scene in scenes if scene.name == city)
    index = EventIndex(scene, 1, "damage").read(scene.grid.window)
    label = np.where(np.isfinite(index), scene.read_labels(scene.grid.window), np.uint8(IGNORE))
    found = BinaryScores()
    found.add(np.nan_to_num(index / (1 + index)).astype(np.float32), label)
    return dict(found.scores()) | {"f1": None}


def table(rows: list[Row]) -> str:
    """Means over cities: mean and spread over seeds of each way, and each city's mean."""
    ways, lines = list(dict.fromkeys(r["way"] for r in rows)), []
    for way in ways:
        mine = [r for r in rows if r["way"] == way]
        seeds = sorted({r["seed"] for r in mine})
        cells = []
        for key in SCORES:
            means = [np.mean([r[key] for r in mine if r["seed"] == s]) for s in seeds if mine[0][key] is not None]
            if not means:
                cells.append("")
                continue
            told = over_seeds([float(m) for m in means])
            cells.append(f"{told.value:.3f}" + (f" ± {told.sd:.3f}" if len(seeds) > 1 else ""))
        lines.append(f"| {way} | {len(seeds)} | " + " | ".join(cells) + " |")
    head = "| way | seeds | AUC | AP | F1 |\n|---|---|---|---|---|\n"
    cities = "\n\n| city (AP, mean over seeds) | " + " | ".join(ways) + " |\n|---" * 1 + "|---" * len(ways) + "|\n"
    each = []
    for city in CITIES:
        shown = [[r["auprc"] for r in rows if r["way"] == way and r["city"] == city] for way in ways]
        each.append(f"| {city} | " + " | ".join(f"{np.mean(v):.3f}" if v else "" for v in shown) + " |")
    return head + "\n".join(lines) + cities + "\n".join(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cities", nargs="+", default=CITIES)
    parser.add_argument("--set", nargs="+", default=[], dest="sets")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    if args.table:
        print(table(rows))
        return
    done = {(r["city"], r["seed"]) for r in rows}
    for seed in args.seeds:
        for city in args.cities:
            if (city, seed) in done:
                continue
            with args.out.open("a") as file:
                for one in rows_of(city, seed, args.sets):
                    print(one, flush=True)
                    file.write(json.dumps(one) + "\n")


if __name__ == "__main__":
    main()
