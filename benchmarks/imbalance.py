"""Imbalance recipes on LUCAS-like chips whose Bayes rule is known: loss x weighting, five seeds, and logit adjustment.

A row for each recipe and seed: accuracy and recalls on 20,000 further test chips, as trained; then what the tau does
that the 399 val chips choose, by what their probabilities expect (as decision.adjust: auto) and by their labels, and
what the generator's own Bayes rule gains at the same loss of accuracy.
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
TEST = range(1994, 1994 + 20_000)
CURVE = np.linspace(0, 1.2, 13)
"""Strengths at which the curves are drawn."""


def config_of(root: Path, recipe: str, seed: int):
    """S0's size of data on a small network from scratch: no weights of TerraMind are here."""
    decoder = (
        {"decoder": "mlp", "decoder_options": {"width": 64}} if recipe == "mlp balanced" else {"decoder": "linear"}
    )
    return parse_config({
        "name": recipe.replace(" ", "_"), "output": str(root / "runs"), "task": "classification", "baseline": False,
        "data": {"source": "lucas", "root": str(root / "chips")},
        "split": {"method": "csv", "path": str(root / "chips" / "split.csv")},
        "model": {"backbone": "unet", "backbone_options": {"widths": [16, 32, 64]}, **decoder},
        "train": {"epochs": 15, "batch_size": 32, "lr": 3e-3, "size_px": 32, "seed": seed, "validate_every": 15,
                  **RECIPES[recipe]},
    })  # fmt: skip


def draw_test(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test chips (N, 6, S, S) and the Bayes rule's log-posterior (N, K)."""
    chips = draw_chips(seed, TEST)
    return chips, bayes_log_posterior(chips)


def log_posterior(model, chips: np.ndarray) -> np.ndarray:
    """(N, K) of a trained model."""
    valid, found = np.ones((1, *chips.shape[-2:]), bool), []
    for start in range(0, len(chips), 500):
        samples = [Sample({"hls": chip[None]}, valid, bands={"hls": BANDS}) for chip in chips[start : start + 500]]
        found.append(model.answers(image_batch(samples, model.spec)))
    return np.log(np.maximum(np.concatenate(found).astype(np.float64), 1e-12))


def run(recipe: str, seed: int, root: Path, chips: np.ndarray, bayes: np.ndarray) -> dict:
    """Train one recipe; the row has all that table and figures need."""
    config = config_of(root, recipe, seed)
    start = time.perf_counter()
    found = train(config)
    seconds = time.perf_counter() - start
    model = load_model(found.path("model"))
    val_p, val_label = answers_of(model, prepare_run(config), PredictConfig())
    return {"recipe": recipe, "seed": seed, "train_s": round(seconds, 1),
            **scored(val_p, val_label, log_posterior(model, chips), bayes, chip_classes(seed, TEST))}  # fmt: skip


def scored(val_p: np.ndarray, val_label: np.ndarray, test_p: np.ndarray, bayes: np.ndarray, label: np.ndarray) -> dict:
    """Log-probabilities (N, K) on val and test, the Bayes rule's on test -> accuracy, recalls, what adjustment does."""
    prior = np.array(TRAIN_COUNTS) / sum(TRAIN_COUNTS)
    rule, plain = tradeoff(bayes, label, PRIOR, TAUS), tradeoff(test_p, label, prior, [0.0])[0]
    soft = fit_temperature(val_p, val_label)
    taus = {"probabilities": best_within(expected_tradeoff(val_p / soft, prior, TAUS / soft), 0.03).tau * soft,
            "labels": best_within(tradeoff(val_p, val_label, prior, TAUS), 0.03).tau}  # fmt: skip
    row = {"accuracy": plain.accuracy, "macro_recall": plain.macro_recall, "recalls": recall_of(test_p, label)}
    for name, tau in taus.items():
        adjusted = tradeoff(test_p, label, prior, [tau])[0]
        within = best_within(rule, max(plain.accuracy - adjusted.accuracy, 0))
        row[f"by_{name}"] = {
            "tau": float(tau), "accuracy": adjusted.accuracy, "macro_recall": adjusted.macro_recall,
            "recalls": recall_of(test_p - tau * np.log(prior), label),
            "bayes_gain": within.macro_recall - rule[0].macro_recall,
        }  # fmt: skip
    for name, p, of in (("curve", test_p, prior), ("bayes_curve", bayes, PRIOR)):
        row[name] = [[round(value, 5) for value in point[1:]] for point in tradeoff(p, label, of, CURVE)]
    return row


def recall_of(log_p: np.ndarray, label: np.ndarray) -> list[float]:
    """Recall of each class (K,)."""
    hit = np.bincount(label, log_p.argmax(1) == label, log_p.shape[1])
    return [round(float(value), 5) for value in hit / np.bincount(label, minlength=log_p.shape[1])]


def by_recipe(out: Path) -> dict[str, list[dict]]:
    """The rows of each recipe, in the order of RECIPES."""
    rows = sorted(map(json.loads, out.read_text().splitlines()), key=lambda row: row["seed"])
    return {recipe: found for recipe in RECIPES if (found := [row for row in rows if row["recipe"] == recipe])}


def table(out: Path) -> None:
    """Accuracy and mean recall, mean and sd over seeds; then loss, gain and the Bayes rule's gain at that loss."""
    print("| recipe | seeds | accuracy | mean recall |\n|---|---|---|---|")
    for recipe, rows in by_recipe(out).items():
        spread = [f"{np.mean(v):.3f} ± {np.std(v, ddof=1) if len(v) > 1 else np.nan:.3f}"
                  for v in ([row[key] for row in rows] for key in ("accuracy", "macro_recall"))]  # fmt: skip
        print(f"| {recipe} | {len(rows)} | {' | '.join(spread)} |")
    print("\n| recipe | seed | tau by probabilities: lost / gained / Bayes rule | by labels |\n|---|---|---|---|")
    for recipe, rows in by_recipe(out).items():
        for row in rows:
            cells = [
                f"{found['tau']:.2f}: {100 * (row['accuracy'] - found['accuracy']):.1f} / "
                f"{100 * (found['macro_recall'] - row['macro_recall']):.1f} / {100 * found['bayes_gain']:.1f}"
                for found in (row["by_probabilities"], row["by_labels"])
            ]
            print(f"| {recipe} | {row['seed']} | {' | '.join(cells)} |")


FIGURES = {"ce balanced": "CE, balanced weights", "mlp balanced": "MLP, CE balanced", "focal": "focal, no weights",
           "focal sqrt": "focal, sqrt weights", "ce": "CE"}  # fmt: skip
"""S0's four runs and plain cross entropy."""


def figures(out: Path, folder: Path) -> None:
    """tradeoff.svg of all recipes; radar.svg and bars.svg of FIGURES and of CE adjusted; means over the seeds."""
    kept, names = by_recipe(out), load_legend("lucas_italy").names
    curves = {"CE and logit adjustment": "curve", "Bayes rule of the generator": "bayes_curve"}
    lines = {title: np.mean([row[key] for row in kept["ce"]], 0).tolist() for title, key in curves.items()}
    others = {"ce sqrt": "CE, sqrt weights", "ce effective": "CE, effective number",
              "ce sampled": "CE, classes drawn alike", "focal balanced": "focal, balanced weights"}  # fmt: skip
    shown = {(FIGURES | others)[recipe]: tuple(np.mean([(r["accuracy"], r["macro_recall"]) for r in rows], 0))
             for recipe, rows in kept.items()}  # fmt: skip
    rings = {
        title: np.mean([row["recalls"] for row in kept[key]], 0).tolist()
        for key, title in FIGURES.items()
        if key in kept
    }
    rings["CE, logit adjustment"] = np.mean([row["by_probabilities"]["recalls"] for row in kept["ce"]], 0).tolist()
    drawn = {"tradeoff": tradeoff_curves(lines, shown), "radar": radar(names, rings, title="Recall of each class"),
             "bars": grouped_bars(names, rings, title="Recall")}  # fmt: skip
    for name, uri in drawn.items():
        (folder / f"imbalance_{name}.svg").write_bytes(base64.b64decode(uri.partition(",")[2]))


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
                row = run(recipe, seed, Path(folder), *test)
                with open(given.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
