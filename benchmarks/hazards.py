"""Floods and landslides on generated events with exactly known truth (data/simulate_events.py): three studies.

    flood      Galileo nano, radar before and after: low-rank updates of rank 4, 16, 64, 256 beside a frozen and a fully
               trained backbone; scored inside of the events that taught and on an event in another region
    density    heads of landslides -> kernel density -> classes of 128 px chips, from elevation and one or three radar
               dates before and after; AUC by border on events that did not teach
    twostage   does a chip hold a landslide (stage 1, another event), its features beside the hazard's network (stage
               2), by number of labelled chips; false pixels on chips without landslides
    event      no labels at all: covermap event

A row for each network and forest; rows of one study differ in one thing. The events are generated: these figures say
how the parts work together, not how well landslides can be found.

usage: COVERMAP_WEIGHTS=../shared/weights OMP_NUM_THREADS=1 .venv/bin/python benchmarks/hazards.py OUT.jsonl
           [--study flood density twostage event] [--seeds 0 1 2]; then: --table OUT.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.legend import IGNORE
from covermap.data.simulate_events import DAYS, EventRecipe, write_event, write_landslide_chips
from covermap.metrics.binary import BinaryScores
from covermap.metrics.intervals import over_seeds
from covermap.verbs.evaluate import evaluate
from covermap.verbs.event import event
from covermap.verbs.predict import predict
from covermap.verbs.prepare import prepare
from covermap.verbs.train import train

RANKS = (4, 16, 64, 256)
BREAKS = [1, 5, 20]  # heads of landslides on a km2
CHIPS = [f"hokkaido_chip_{i}" for i in range(100)]
"""Of an event of 1,280 x 1,280 px, row by row: what scores, what chooses and what teaches are strips of ground."""
UNET = {"backbone": "unet", "backbone_options": {"widths": [16, 32, 64]}}
Row = dict[str, Any]


def write_events(root: Path, recipes: dict[str, EventRecipe], bandwidth_m: float | None = None) -> None:
    """ROOT/LAYER/NAME.tif of each layer (before_1, ..., dem, labels, density): files of one scene share their stem."""
    for name, recipe in recipes.items():
        folder = root / f"_{name}"
        for path in write_event(recipe, folder).values():
            if path.suffix == ".tif":
                (root / path.stem).mkdir(parents=True, exist_ok=True)
                path.rename(root / path.stem / f"{name}.tif")
        if bandwidth_m:
            (root / "density").mkdir(exist_ok=True)
            prepare(
                str(folder / "heads.csv"), root / "density" / f"{name}.tif", like=str(root / "dem" / f"{name}.tif"),
                density_m=bandwidth_m, epsg=32631,
            )  # fmt: skip
        shutil.rmtree(folder)


def radar(root: Path, layer: str, name: str = "*", *, num: int = 1) -> Row:
    """An entry of data.image: power, taken in dB. num: dates of the event on each side."""
    side, _, number = layer.partition("_")
    day = DAYS[3 - num + int(number) - 1] if side == "before" else DAYS[3 + int(number) - 1]
    return {"path": str(root / layer / f"{name}.tif"), "sensor": "sentinel1", "quantity": "power",
            "date": day}  # fmt: skip


def binary(row: Row) -> Row:
    return {key: row[key] for key in ("auprc", "auc", "f1", "iou", "precision", "recall")}


def flood(root: Path, seeds: list[int], done: set) -> Iterator[Row]:
    """Four events at home teach, each with a held-out fifth; an event of another region and seed is never seen."""
    home = {f"e{i}": EventRecipe("flood", seed=i, height=384, width=384) for i in (1, 2, 3, 5)}
    away = EventRecipe("flood", seed=12, height=384, width=384, region="delta", region_shift=1.0)
    write_events(root, home)
    write_events(root / "away", {"away": away})
    galileo = {"backbone": "galileo_nano", "decoder": "linear"}
    models: dict[str, Row] = {f"galileo {how}": {**galileo, "adapt": how} for how in ("frozen", "full")}
    models |= {f"galileo lora {r}": {**galileo, "adapt": {"method": "lora", "rank": r, "targets": "attention"}}
               for r in RANKS}  # fmt: skip
    unet = {**UNET, "decoder": "unet"}  # joins the dates itself
    models |= {"unet": unet, "unet, statistics of each event": unet}
    models |= {"galileo lora 64, statistics of each event": models["galileo lora 64"]}
    for seed, (name, model) in itertools.product(seeds, models.items()):
        if ("flood", seed, name, "out-of-event", None) in done:
            continue
        config = parse_config({
            "name": f"{name.replace(' ', '_')}_{seed}", "output": str(root / "runs"), "task": "hazard",
            "data": {"image": [radar(root, "before_1"), radar(root, "after_1")],
                     "labels": str(root / "labels" / "*.tif"), "legend": {0: "no flood", 1: "flood"}},
            "split": {"block_px": 64, "buffer_px": 0, "seed": 0},
            "model": model,
            "baseline": {"trees": 100} if name == "unet" else False,
            "train": {"epochs": 3, "steps_per_epoch": 25, "batch_size": 8, "size_px": 32, "validate_every": 3,
                      "lr": 1e-3 if "lora" in name or "full" in name else 5e-3, "seed": seed,
                      "normalise": "scene" if "statistics" in name else "auto"},
            "predict": {"size_px": 32, "overlap_px": 0, "batch_size": 16, "workers": 1},
        })  # fmt: skip
        start = time.perf_counter()
        run = train(config)
        seconds = round(time.perf_counter() - start)
        found = evaluate(run)["models"]
        for kind, folder in (("network", "model"), ("random forest", "baseline")):
            if kind in found:
                about = {"study": "flood", "seed": seed, "model": name if kind == "network" else kind,
                         "train_s": seconds}  # fmt: skip
                yield {**about, "where": "in-event", **binary(found[kind]["scores"])}
                scores = on_event(run.path(folder), root / "away", config.predict)
                yield {**about, "where": "out-of-event", **scores}


def on_event(model: Path, root: Path, settings: Any) -> Row:
    """Map an event with a model and score it by all of its pixels."""
    images = [ImageConfig(**radar(root, layer, "away")) for layer in ("before_1", "after_1")]
    out = root / "map.tif"
    predict(model, images, out, settings=settings.model_copy(update={"probabilities": True}), overwrite=True)
    with rasterio.open(root / "probs.tif") as file:
        positive = file.read(2).astype(np.float32) / 200
    with rasterio.open(root / "labels" / "away.tif") as file:
        truth = file.read(1)
    scores = BinaryScores()
    scores.add(positive, np.where(truth == 255, IGNORE, truth))
    return binary(scores.scores())


def density(root: Path, seeds: list[int], done: set) -> Iterator[Row]:
    """Chips of 128 px; fourteen events teach, two others score."""

    def recipes(ids: tuple[int, ...], prefix: str, **more: Any) -> dict[str, EventRecipe]:
        size = {"height": 768, "width": 768, "num_before": 3, "num_after": 3}
        return {f"{prefix}{i}": EventRecipe("landslide", seed=i, **size, **more) for i in ids}

    write_events(root, recipes(tuple(range(1, 15)), "e"), 300)
    write_events(root, recipes((21, 22), "t", region="south", region_shift=0.5), 300)
    dem = {"path": str(root / "dem" / "*.tif"), "sensor": "dem"}
    one, three = ("before_3", "after_1"), ("before_1", "before_2", "before_3", "after_1", "after_2", "after_3")
    kinds = {"elevation": (), "elevation, 1 + 1 dates": one, "elevation, 3 + 3 dates": three}
    for seed in seeds:
        for name, layers in kinds.items():
            if ("density", seed, f"network, {name}", None, None) in done:
                continue
            run = train(parse_config({
                "name": f"density_{len(layers)}_{seed}", "output": str(root / "runs"),
                "task": {"name": "density", "breaks": BREAKS},
                "data": {"image": [*(radar(root, layer, num=3) for layer in layers), dem],
                         "target": {"path": str(root / "density" / "*.tif"), "unit": "per km2", "per_chip": True}},
                "split": {"method": "regions", "test": ["t21", "t22"], "val": 0.2},
                "model": {**UNET, "decoder": "linear"},
                "baseline": {"trees": 300},
                "train": {"epochs": 30, "batch_size": 8, "size_px": 128, "lr": 1e-3, "seed": seed, "validate_every": 3,
                          "normalise": "scene"},
            }))  # fmt: skip
            for model, result in evaluate(run)["models"].items():
                kept = {key: result["scores"][key] for key in ("auc", "oa", "macro_recall", "kappa", "mae")}
                aucs = {f"auc from {row['from']:g}": row["auc"] for row in result["per_border"]}
                yield {"study": "density", "seed": seed, "model": f"{model}, {name}", **kept, **aucs}


def twostage(root: Path, seeds: list[int], done: set) -> Iterator[Row]:
    """Stage 1 on another event's chips, stage 2 with few chips of the event that is asked about."""
    size: dict[str, Any] = {"height": 1280, "width": 1280, "share": 0.004}
    here, there = EventRecipe("landslide", seed=3, **size), EventRecipe("landslide", seed=31, region="south",
                                                                       region_shift=0.5, **size)  # fmt: skip
    write_landslide_chips(root / "here", {"hokkaido": here})
    write_landslide_chips(root / "there", {"hokkaido": there})
    for seed in seeds:
        first = train(parse_config(_cubes(root / "there", f"stage1_{seed}", seed, 1.0) | {
            "task": {"name": "multilabel", "classes": ["landslide"]}, "baseline": False,
            "split": {"val": CHIPS[:20], "test": []},
        }))  # fmt: skip
        for budget in (0.06, 0.25, 1.0):
            for name, extra in (("from scratch", {}), ("with stage 1", {"extra": str(first.folder)})):
                if ("twostage", seed, name, None, budget) in done:
                    continue
                raw = _cubes(root / "here", f"{name.replace(' ', '_')}_{budget}_{seed}", seed, budget)
                raw["model"] |= extra
                run = train(parse_config(raw | {"task": "hazard", "baseline": {"trees": 100} if not extra else False}))
                chips = sum(1 for line in run.path("split.csv").read_text().splitlines() if ",train" in line)
                for model, result in evaluate(run)["models"].items():
                    scores = result["scores"]
                    kept = ("false_positive_px_negative_chips", "count_error_median_negative_chips",
                            "count_error_median_positive_chips", "num_chips", "num_positive_chips")  # fmt: skip
                    yield {"study": "twostage", "seed": seed, "chips": chips, "budget": budget,
                           "model": name if model == "network" else model, **binary(scores),
                           **{key: scores[key] for key in kept}}  # fmt: skip


def _cubes(root: Path, name: str, seed: int, budget: float) -> Row:
    return {
        "name": name, "output": str(root.parent / "runs"),
        "data": {"source": "landslide", "root": str(root), "options": {"quantity": "power"}},
        "split": {"test": CHIPS[:40], "val": CHIPS[40:60], "seed": 0, "budget": budget},
        "model": {**UNET, "decoder": "unet"},
        "train": {"epochs": 6, "steps_per_epoch": 20, "batch_size": 8, "size_px": 128, "lr": 3e-3, "seed": seed,
                  "validate_every": 3},
    }  # fmt: skip


def without_labels(root: Path, seeds: list[int], done: set) -> Iterator[Row]:
    """`covermap event` on one date before and one after, and on three each."""
    for kind in ("flood", "landslide"):
        for seed in range(8):
            for dates in (1, 3):
                if ("event", seed, f"{kind}, {dates} + {dates} dates", None, None) in done:
                    continue
                folder = root / f"{kind}{seed}_{dates}"
                write_event(EventRecipe(kind, seed=seed, num_before=dates, num_after=dates), folder)  # type: ignore[arg-type]
                sides = [
                    [ImageConfig(path=str(folder / f"{side}_{i + 1}.tif"), sensor="sentinel1", quantity="power")
                     for i in range(dates)]
                    for side in ("before", "after")
                ]  # fmt: skip
                event(*sides, folder / "map.tif", kind=kind, dem=str(folder / "dem.tif"))
                with rasterio.open(folder / "map.tif") as file:
                    mapped = file.read(1)
                with rasterio.open(folder / "labels.tif") as file:
                    truth = file.read(1)
                scores = BinaryScores()
                scores.add((mapped == 2).astype(np.float32), np.where(mapped == 0, IGNORE, truth).astype(np.uint8))
                yield {"study": "event", "seed": seed, "model": f"{kind}, {dates} + {dates} dates",
                       **binary(scores.scores())}  # fmt: skip


STUDIES = {"flood": flood, "density": density, "twostage": twostage, "event": without_labels}


def table(rows: list[Row]) -> None:
    """Mean and half the 95 % interval over seeds (of `event` over events) of every score."""
    for study in dict.fromkeys(row["study"] for row in rows):
        chosen = [row for row in rows if row["study"] == study]
        keys = [key for key in chosen[0] if key not in ("study", "seed", "model", "where", "budget", "chips")]
        print(f"\n| {study} | seeds | {' | '.join(keys)} |\n|---|---|{'---|' * len(keys)}")
        groups: dict[str, list[Row]] = {}
        for row in chosen:
            name = ", ".join(str(row[key]) for key in ("model", "where", "budget") if key in row)
            groups.setdefault(name, []).append(row)
        for name, group in groups.items():
            cells = []
            for key in keys:
                found = over_seeds([float("nan") if row.get(key) is None else float(row[key]) for row in group])
                half = (found.high - found.low) / 2
                cells.append(f"{found.value:.3g}" + (f" ± {half:.2g}" if half == half else ""))
            print(f"| {name} | {len(group)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--study", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        return table([json.loads(line) for line in given.out.read_text().splitlines()])
    done = set()
    if given.out.is_file():
        rows = [json.loads(line) for line in given.out.read_text().splitlines()]
        done = {(row["study"], row["seed"], row["model"], row.get("where"), row.get("budget")) for row in rows}
    for study in given.study:
        with tempfile.TemporaryDirectory() as folder:
            for row in STUDIES[study](Path(folder), given.seeds, done):
                with open(given.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
