"""Real cases beside the generated ones: a flood, class shares of chips, multi-labels, time series; with intervals.

    flood          Sen1Floods11, one chip of Spain: water from Sentinel-1, Sentinel-2 or both (recipes/flood_*)
    shares         TerraMesh: shares of classes of chips, each of four places held out (recipes/class_shares.yaml)
    multilabel     BigEarthNet: 11 chips, each held out in turn (recipes/bigearthnet_tiny.yaml); too few for any claim
    fuel           Presto's fuel moisture series: class of the last date, sites held out; classes are MODEL-MADE
                   (Dynamic World), so a score is agreement with another network

raw_linear is the same linear head on the bands themselves (raw_bands.py), in the same loop. Rows are appended to
OUT.jsonl; counts of blocks, from which intervals and comparisons are made, lie beside it (OUT.counts/).

usage: COVERMAP_WEIGHTS=../shared/weights OMP_NUM_THREADS=1 .venv/bin/python benchmarks/real_cases.py OUT.jsonl
           [--data flood shares multilabel fuel] [--models ...] [--seeds 0 1 2]; then: --table OUT.jsonl
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuel_moisture import prepare

from covermap.core.config import RunConfig
from covermap.core.config_file import load_config
from covermap.core.run import Run
from covermap.core.task import Task
from covermap.data.reference import with_reference
from covermap.data.scene import open_scenes
from covermap.data.split import Split
from covermap.data.stats import with_own_statistics
from covermap.metrics.binary import MultiLabelScores
from covermap.metrics.confusion import scores_of
from covermap.metrics.intervals import Interval, bootstrap, compare, over_seeds
from covermap.models import load_model
from covermap.verbs import score
from covermap.verbs.details import Details
from covermap.verbs.train import train

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
PLACES = ("282D_485L_3_3", "38D_378R_2_3", "433D_629L_3_1", "609U_541L_3_0")
BLOCK_CHIPS = 2
"""Chips of a place are drawn for intervals in squares of so many, because neighbours depend on each other."""
LINEAR = ["model.decoder=linear", "model.backbone_options={}"]
FROZEN = [*LINEAR, "model.adapt=frozen", "train.lr=0.005"]
CACHED = ["train.cache_features=true", "train.augment={flips: false}"]
"""Of chips: features of a frozen backbone are computed once. The flood's windows are drawn anew in each epoch."""
MODELS = {
    "unet": [],  # as in the recipe
    "raw_linear": [*LINEAR, "train.lr=0.02", f"model.backbone={ROOT / 'benchmarks' / 'raw_bands.py'}:RawBands"],
    "galileo_frozen": [*FROZEN, "model.backbone=galileo_nano"],
    "presto_frozen": [*FROZEN, "model.backbone=presto"],
}
Counts = np.ndarray
_opened: dict[str, Any] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", default=["flood", "shares", "multilabel", "fuel"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print_table(args.out)
        return
    folder = args.out.with_suffix(".counts")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs:
        for seed in args.seeds:
            for data in args.data:
                for model in args.models:
                    for case, recipe, more in cases(data, model, Path(runs)):
                        if (folder / f"{case}-{model}-{seed}.npz").is_file():
                            continue
                        name = f"{case}-{model}-{seed}"
                        every = [f"output={runs}", f"name={name}", f"train.seed={seed}", *MODELS[model], *more]
                        every += CACHED if "frozen" in model and data != "flood" else []
                        for row, counts in measure(load_config(recipe, [*every, *args.set]), model):
                            row = {"data": data, "case": case, "seed": seed} | row
                            np.savez(folder / f"{case}-{row['model']}-{seed}.npz", counts=counts)
                            with open(args.out, "a") as file:
                                file.write(json.dumps(row) + "\n")
                            print(json.dumps(row), flush=True)


def cases(data: str, model: str, runs: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """(case, recipe, settings) of a data set."""
    recipes = ROOT / "recipes"
    if data == "flood":
        for name, ending in (("s1", ""), ("s2", "_s2"), ("both", "_both")):
            if model != "presto_frozen":
                yield f"flood_{name}", recipes / f"flood_spain{ending}.yaml", []
    elif data == "shares":
        for place in PLACES:
            yield f"shares_{place.split('_')[0]}", recipes / "class_shares.yaml", [f"split.test=[{place}]"]
    elif data == "multilabel" and model in ("raw_linear", "galileo_frozen"):
        config = load_config(recipes / "bigearthnet_tiny.yaml").data
        for number, scene in enumerate(open_scenes(config)):
            yield f"multilabel_{number}", recipes / "bigearthnet_tiny.yaml", [f"split.test=[{scene.name}]"]
    elif data == "fuel" and model in ("raw_linear", "presto_frozen"):  # series of single pixels
        if not (runs / "fuel").is_dir():
            prepare(SHARED / "presto_fuel_moisture", runs / "fuel")
        yield "fuel", ROOT / "benchmarks" / "fuel_moisture.yaml", [f"data.root={runs / 'fuel'}"]


def measure(config: RunConfig, name: str) -> Iterator[tuple[dict[str, Any], Counts]]:
    """Train and score one network, and beside the linear model the forest."""
    if name != "raw_linear":
        config = config.model_copy(update={"baseline": False})
    start = time.perf_counter()
    run = train(config, overwrite=True)
    seconds = time.perf_counter() - start
    key = config.data.model_dump_json()
    if key not in _opened:  # thousands of small files
        _opened.clear()
        _opened[key] = with_reference(open_scenes(config.data), config)
    scenes, task = _opened[key]
    split = Split.load(run.path("split.csv"))
    for model, folder in ((name, "model"), ("forest", "baseline")):
        if run.path(f"{folder}/config.json").is_file():
            row, counts = scored(run, folder, scenes, task, split)
            yield {"model": model, **({"train_s": round(seconds)} if folder == "model" else {}), **row}, counts
    shutil.rmtree(run.folder)


def scored(run: Run, folder: str, scenes: list, task: Task, split: Split) -> tuple[dict[str, Any], Counts]:
    """covermap's own scores of the test part, and what is counted of each block."""
    model = load_model(run.path(folder))
    found = with_own_statistics(scenes, model.spec)
    compared = score.compare(model, found, split, "test", settings=run.config.predict)
    counter = Details(task) if not task.kind.chips else Chips(model.task)
    row = score.count(compared, model.task, "test", counter).scores()
    keep = ("f1", "iou", "auprc", "auc", "oa", "macro_f1", "miou", "rmse", "mae", "r", "r2", "map")
    known = {key: float(row[key]) for key in keep if key in row}
    counts = counter.blocks.stacked() if isinstance(counter, Details) else counter.blocks()
    return {key: round(value, 4) if np.isfinite(value) else None for key, value in known.items()}, counts


class Chips:
    """Counts of chips by block: confusion tables by place, sums of numbers by squares of chips, or all answers."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._found: dict[Any, Counts] = {}
        self._seen: dict[str, int] = {}

    def add(self, one: score.Compared) -> None:
        number = self._seen[one.place] = self._seen.get(one.place, -1) + 1
        if self.task.kind.takes == "classes":
            table = np.zeros((len(self.task.legend),) * 2)
            table[one.reference.ravel(), one.answers.argmax(0).ravel()] = 1
            self._into(one.place, table)
        elif self.task.kind.takes == "presence":
            self._into((one.place, number), np.stack([one.reference, one.answers], 1))
        else:
            self._into((one.place, number // 8 // BLOCK_CHIPS, number % 8 // BLOCK_CHIPS), self._sums(one))

    def _sums(self, one: score.Compared) -> Counts:
        """(K, 8): 1, y, y y, squared error, that of the train part's mean, p, p p, p y."""
        y, p, mean = one.reference.astype(float), one.answers.astype(float), np.array(self.task.mean)
        return np.stack([np.ones_like(y), y, y * y, (p - y) ** 2, (mean - y) ** 2, p, p * p, p * y], 1)

    def _into(self, key: Any, counts: Counts) -> None:
        self._found[key] = self._found.get(key, 0) + counts

    def blocks(self) -> Counts:
        return np.stack([self._found[key] for key in sorted(self._found)])


def f1(tables: Counts) -> Counts:
    """Of the second class (water)."""
    return 2 * tables[..., 1, 1] / np.maximum(tables[..., 1, :].sum(-1) + tables[..., :, 1].sum(-1), 1)


def rmse(sums: Counts) -> Counts:
    """Over chips and classes."""
    return np.sqrt(sums[..., 3].sum(-1) / sums[..., 0].sum(-1))


def rmse_of_mean(sums: Counts) -> Counts:
    """That of the train part's mean shares, whatever the chip."""
    return np.sqrt(sums[..., 4].sum(-1) / sums[..., 0].sum(-1))


def r2(sums: Counts) -> Counts:
    """1 - squared errors of all classes over their squared deviations from each class's mean in the test place."""
    n, y, yy = sums[..., 0], sums[..., 1], sums[..., 2]
    spread = (yy - y * y / np.maximum(n, 1)).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-6, 1 - sums[..., 3].sum(-1) / spread, np.nan)


def r(sums: Counts) -> Counts:
    """Pearson's correlation over chips, the mean of those classes whose share varies in the test place."""
    n, y, yy, p, pp, py = (sums[..., i] for i in (0, 1, 2, 5, 6, 7))
    vy, vp, both = n * yy - y * y, n * pp - p * p, n * py - p * y
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where((vy > 1e-6) & (vp > 1e-12), both / np.sqrt(vy * vp), 0.0)
        return each.sum(-1) / (vy > 1e-6).sum(-1)  # a constant answer counts as 0


def macro_f1(tables: Counts) -> Counts:
    return scores_of(tables)["macro_f1"]


def oa(tables: Counts) -> Counts:
    return scores_of(tables)["oa"]


MEASURES: dict[str, dict[str, Callable[[Counts], Counts]]] = {
    "flood": {"F1 water": f1}, "shares": {"RMSE": rmse, "r": r, "R2": r2},
    "fuel": {"accuracy": oa, "macro F1": macro_f1},
}  # fmt: skip


def print_table(out: Path) -> None:
    """Of each case and model: mean over seeds with Student's interval, interval over blocks, differences on them.

    Counts of a block are summed over seeds before blocks are drawn, so that interval is of the seeds together. p is
    that of a paired permutation.
    """
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    found: dict[tuple[str, str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["data"], row["case"], row["model"]), []).append(row)
    folder = out.with_suffix(".counts")

    def counts_of(case: str, model: str, group: list[dict]) -> Counts:
        return np.sum([np.load(folder / f"{case}-{model}-{row['seed']}.npz")["counts"] for row in group], 0)

    print("| case | model, seeds | score | over seeds | over blocks | minus the forest | minus raw linear |")
    print("|---|---|---|---|---|---|---|")
    for (data, case, model), group in sorted(found.items()):
        for name, measure in MEASURES.get(data, {}).items():
            each = [float(measure(counts_of(case, model, [row]).sum(0)[None])[0]) for row in group]
            if np.isnan(each).all():  # the reference is constant in the place
                continue
            cells = [text(over_seeds(each)), text(bootstrap(counts_of(case, model, group), measure))]
            for other in ("forest", "raw_linear"):
                theirs = {row["seed"]: row for row in found.get((data, case, other), []) if other != model}
                both = [row for row in group if row["seed"] in theirs]
                a, b = (counts_of(case, m, both) if both else None for m in (model, other))
                cells.append("" if a is None or b is None else text(compare(a, b, measure), sign=True))
            print(f"| {case} | {model}, {len(group)} | {name} | {' | '.join(cells)} |")
            if data == "flood":
                auprc = text(over_seeds([row["auprc"] for row in group]))
                print(f"| {case} | {model}, {len(group)} | AUPRC | {auprc} | | | |")
            if name == "RMSE" and model == "forest":
                always = bootstrap(counts_of(case, model, group), rmse_of_mean)
                print(f"| {case} | mean of the train part | RMSE | | {text(always)} | | |")
    print_multilabel(found, counts_of)


def text(one: Interval, *, sign: bool = False) -> str:
    """0.123 (0.100 to 0.150); with a p where it has one."""
    value = f"{one.value:+.3f}" if sign else f"{one.value:.3f}"
    if np.isnan(one.low):
        return f"{value} (one)" if one.count == 1 else f"{value} ({one.note})"
    p = "" if one.p != one.p else ", p < 0.001" if one.p < 1e-3 else f", p {one.p:.3f}"
    return f"{value} ({one.low:.3f} to {one.high:.3f}{p})"


def print_multilabel(found: dict, counts_of: Callable) -> None:
    """Mean average precision of the chips that were held out one by one, ranked together; too few for an interval."""
    for model in sorted({model for data, _, model in found if data == "multilabel"}):
        groups = [
            (case, group) for (data, case, m), group in sorted(found.items()) if (data, m) == ("multilabel", model)
        ]
        chips = np.concatenate([counts_of(case, model, group[:1]) for case, group in groups])
        chance = float(chips[..., 0].mean())
        print(
            f"| multilabel | {model}, 1 | mAP of {len(chips)} chips | {mean_ap(chips):.3f}, chance {chance:.3f} | | | |"
        )


def mean_ap(chips: Counts) -> float:
    """chips (N, K, 2): whether a class is there, and its probability."""
    scores = MultiLabelScores(chips.shape[1])
    scores.add(chips[..., 1], chips[..., 0].astype(np.uint8))
    return float(scores.scores()["map"])


if __name__ == "__main__":
    main()
