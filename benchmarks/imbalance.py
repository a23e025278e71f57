"""Imbalance recipes on LUCAS-like chips whose Bayes rule is known: loss x weighting, five seeds, and logit adjustment.

A row for each recipe and seed: accuracy and mean recall on 20,000 further test chips, as trained; the log-probabilities
lie beside the rows. The table also has what tau does that the 399 val chips choose, by what their probabilities expect
(as decision.adjust: auto) and by their labels, and the generator's own Bayes rule at the same loss of accuracy.
S0's four runs are ce balanced, mlp balanced, focal (its weights were never applied) and focal sqrt.

usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/imbalance.py OUT.jsonl [--seeds 0 1 2 3 4] [--recipes ce ...]
       then: --table, or --figures FOLDER, with the same OUT.jsonl
"""

from __future__ import annotations

import argparse
import base64
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from covermap.core.config_file import parse_config
from covermap.core.legend import load_legend
from covermap.core.train_config import PredictConfig
from covermap.core.types import Sample
from covermap.data.chips import image_batch
from covermap.data.simulate_chips import PRIOR, TRAIN_COUNTS, bayes_log_posterior, chip_classes, draw_chips, write_chips
from covermap.data.sources.lucas import BANDS
from covermap.metrics.calibration import fit_temperature
from covermap.metrics.tradeoff import best_within, expected_tradeoff, tradeoff
from covermap.models import load_model
from covermap.report.figures import grouped_bars, radar, tradeoff_curves
from covermap.start import prepare_run
from covermap.verbs.decide import TAUS, answers_of
from covermap.verbs.train import train

RECIPES: dict[str, dict] = {
    "ce": {"class_weights": "none"},
    "ce sqrt": {"class_weights": "sqrt"},
    "ce balanced": {"class_weights": "balanced"},
    "ce effective": {"class_weights": "effective", "effective_beta": 0.999},
    "focal": {"loss": "focal", "class_weights": "none"},
    "focal sqrt": {"loss": "focal", "class_weights": "sqrt"},
    "focal balanced": {"loss": "focal", "class_weights": "balanced"},
    "ce sampled": {"class_weights": "none", "sampling": "balanced"},
    "mlp balanced": {"class_weights": "balanced"},
}
NUM_TEST = 20_000


def config_of(root: Path, recipe: str, seed: int):
    """S0's size of data on a small network from scratch: no weights of TerraMind are here."""
    return parse_config({
        "name": recipe.replace(" ", "_"), "output": str(root / "runs"), "task": "classification", "baseline": False,
        "data": {"source": "lucas", "root": str(root / "chips")},
        "split": {"method": "csv", "path": str(root / "chips" / "split.csv")},
        "model": {"backbone": "unet", "backbone_options": {"widths": [16, 32, 64]},
                  "decoder": "mlp" if recipe.startswith("mlp") else "linear"},
        "train": {"epochs": 15, "batch_size": 32, "lr": 3e-3, "size_px": 32, "seed": seed, "validate_every": 15,
                  **RECIPES[recipe]},
    })  # fmt: skip


def draw_test(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test chips (N, 6, S, S) and the Bayes rule's log-posterior (N, K)."""
    chips = draw_chips(seed, range(1994, 1994 + NUM_TEST))
    return chips, bayes_log_posterior(chips)


def log_posterior(model, chips: np.ndarray) -> np.ndarray:
    """(N, K) of a trained model."""
    valid, found = np.ones((1, *chips.shape[-2:]), bool), []
    for start in range(0, len(chips), 500):
        samples = [Sample({"hls": chip[None]}, valid, bands={"hls": BANDS}) for chip in chips[start : start + 500]]
        found.append(model.answers(image_batch(samples, model.spec)))
    return np.log(np.maximum(np.concatenate(found).astype(np.float64), 1e-12))


def run(recipe: str, seed: int, root: Path, chips: np.ndarray, bayes: np.ndarray, out: Path) -> dict:
    """Train one recipe; keeps its log-probabilities on val and test beside the rows."""
    config = config_of(root, recipe, seed)
    start = time.perf_counter()
    found = train(config)
    seconds = time.perf_counter() - start
    model = load_model(found.path("model"))
    val_p, val_label = answers_of(model, prepare_run(config), PredictConfig())
    test_p, label = log_posterior(model, chips), chip_classes(seed, range(1994, 1994 + NUM_TEST))
    kept = {"val_p": val_p, "val_label": val_label, "test_p": test_p, "bayes": bayes, "label": label}
    np.savez(
        out.parent / f"{recipe.replace(' ', '_')}_{seed}.npz", **{k: v.astype(np.float32) for k, v in kept.items()}
    )
    plain = tradeoff(test_p, label, PRIOR, [0.0])[0]
    return {"recipe": recipe, "seed": seed, "accuracy": plain.accuracy, "macro_recall": plain.macro_recall,
            "train_s": round(seconds, 1)}  # fmt: skip


def table(out: Path) -> None:
    """Loss of accuracy / gain in mean recall / the Bayes rule's gain at that loss, in points, of all that is kept."""
    prior = np.array(TRAIN_COUNTS) / sum(TRAIN_COUNTS)
    print("| recipe | seed | accuracy / mean recall | tau by probabilities | by labels |\n|---|---|---|---|---|")
    for path in sorted(out.parent.glob("*_[0-9].npz")):
        kept = np.load(path)
        label, val_label = (kept[key].astype(np.int64) for key in ("label", "val_label"))
        bayes, plain = tradeoff(kept["bayes"], label, PRIOR, TAUS), tradeoff(kept["test_p"], label, prior, [0.0])[0]
        soft = fit_temperature(kept["val_p"], val_label)
        taus = (best_within(expected_tradeoff(kept["val_p"] / soft, prior, TAUS / soft), 0.03).tau * soft,
                best_within(tradeoff(kept["val_p"], val_label, prior, TAUS), 0.03).tau)  # fmt: skip
        cells = []
        for tau in taus:
            found = tradeoff(kept["test_p"], label, prior, [tau])[0]
            loss, gain = plain.accuracy - found.accuracy, found.macro_recall - plain.macro_recall
            most = best_within(bayes, max(loss, 0)).macro_recall - bayes[0].macro_recall
            cells.append(f"{tau:.2f}: {100 * loss:.1f} / {100 * gain:.1f} / {100 * most:.1f}")
        recipe, seed = path.stem.rsplit("_", 1)
        print(f"| {recipe} | {seed} | {plain.accuracy:.3f} / {plain.macro_recall:.3f} | {' | '.join(cells)} |")


FIGURES = {"ce balanced": "CE, balanced", "mlp balanced": "MLP, CE balanced", "focal": "focal, no weights",
           "focal sqrt": "focal, sqrt weights", "ce": "CE", "adjusted": "CE, logit adjustment"}  # fmt: skip
"""S0's four runs, plain cross entropy, and the same adjusted by what its probabilities expect."""


def figures(out: Path, folder: Path) -> None:
    """tradeoff.svg of all recipes, radar.svg and bars.svg of FIGURES; means over the seeds that are kept."""
    prior = np.array(TRAIN_COUNTS) / sum(TRAIN_COUNTS)
    names = load_legend("lucas_italy").names
    curves: dict[str, list] = {"CE and logit adjustment": [], "Bayes rule of the generator": []}
    points: dict[str, list] = {}
    recalls: dict[str, list] = {}
    for path in sorted(out.parent.glob("*_[0-9].npz")):
        kept, recipe = np.load(path), path.stem.rsplit("_", 1)[0].replace("_", " ")
        label = kept["label"].astype(np.int64)
        points.setdefault(recipe, []).append(tradeoff(kept["test_p"], label, prior, [0.0])[0][1:])
        recalls.setdefault(recipe, []).append(recall_of(kept["test_p"], label))
        if recipe == "ce":
            soft = fit_temperature(kept["val_p"], kept["val_label"].astype(np.int64))
            tau = best_within(expected_tradeoff(kept["val_p"] / soft, prior, TAUS / soft), 0.03).tau * soft
            recalls.setdefault("adjusted", []).append(recall_of(kept["test_p"] - tau * np.log(prior), label))
            for name, p, of in (("CE and logit adjustment", kept["test_p"], prior),
                                ("Bayes rule of the generator", kept["bayes"], PRIOR)):  # fmt: skip
                curves[name].append([row[1:] for row in tradeoff(p, label, of, np.linspace(0, 1.2, 13))])
    lines = {name: np.mean(found, 0).tolist() for name, found in curves.items()}
    shown = {FIGURES.get(k, k): tuple(np.mean(v, 0)) for k, v in sorted(points.items())}
    rings = {title: np.mean(recalls[key], 0).tolist() for key, title in FIGURES.items() if key in recalls}
    drawn = {"tradeoff": tradeoff_curves(lines, shown), "radar": radar(names, rings, title="Recall of each class"),
             "bars": grouped_bars(names, rings, title="Recall")}  # fmt: skip
    for name, uri in drawn.items():
        (folder / f"imbalance_{name}.svg").write_bytes(base64.b64decode(uri.partition(",")[2]))


def recall_of(log_p: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Recall of each class (K,)."""
    hit = log_p.argmax(1) == label
    return np.bincount(label, hit, log_p.shape[1]) / np.bincount(label, minlength=log_p.shape[1])


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--figures", type=Path, help="folder for tradeoff, radar and bars as SVG")
    given = parser.parse_args()
    if given.table:
        return table(given.out)
    if given.figures:
        return figures(given.out, given.figures)
    done = set()
    if given.out.is_file():
        done = {(row["recipe"], row["seed"]) for row in map(json.loads, given.out.read_text().splitlines())}
    for seed in given.seeds:
        todo = [recipe for recipe in given.recipes if (recipe, seed) not in done]
        if not todo:
            continue
        test = draw_test(seed)
        with tempfile.TemporaryDirectory() as folder:
            write_chips(Path(folder) / "chips", seed=seed, num_test=0)
            for recipe in todo:
                row = run(recipe, seed, Path(folder), *test, given.out)
                with open(given.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
