"""Dates decided together beside each on its own: semantic change by separated kappa (SeK), in both conventions.

Three dates of a generated landscape (2 or 10 % of the area changes in each step), classified with known probabilities:
normal classes around the truth, errors in blobs. shared: the part of the noise that all dates have in common, as one
model has at one place; sure: logits times that, 1 is calibrated. The prior of transitions is estimated from the same
probabilities, without labels. SeK of the first step and of the change from the first to the last date.

usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/joint.py [--size 512] [--seeds 5]
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
from scipy.ndimage import gaussian_filter

from covermap.data.simulate import LEGEND, SceneRecipe, SimulatedScene
from covermap.geo.grid import Window
from covermap.metrics.intervals import over_seeds
from covermap.ml.joint import decide_pair, decide_series
from covermap.ml.transitions import STEPS, TransitionPrior

K, BLOB_PX = len(LEGEND), 1.5
Maps = tuple[np.ndarray, np.ndarray]


def noise(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    found = np.stack([gaussian_filter(each, BLOB_PX) for each in random.normal(size=(K, *shape))])
    return found / found.std()


def classified(dates: list[np.ndarray], distance: float, shared: float, sure: float, seed: int) -> list[np.ndarray]:
    random, found = np.random.default_rng(seed), []
    common = noise(random, dates[0].shape)
    rows, cols = np.ogrid[: dates[0].shape[0], : dates[0].shape[1]]
    for truth in dates:
        seen = np.sqrt(shared) * common + np.sqrt(1 - shared) * noise(random, truth.shape)
        seen[truth, rows, cols] += distance
        of = np.maximum(np.bincount(truth.ravel(), minlength=K) / truth.size, 1e-6)
        logits = sure * (distance * seen + np.log(of)[:, None, None])
        weights = np.exp(logits - logits.max(0))
        found.append(np.rint(weights / weights.sum(0) * STEPS).astype(np.uint8))
    return found


def sek(maps: Maps, truth: Maps, convention: str) -> float:
    """In percent; methods of Yang et al. (2021): exp(IoU of change - 1) x kappa without the unchanged pixels."""
    said, is_ = maps[0] != maps[1], truth[0] != truth[1]
    if convention == "dates stacked":
        size, pairs = K + 1, [((p + 1) * said, (t + 1) * is_) for p, t in zip(maps, truth, strict=True)]
    else:
        size = K * K + 1
        codes = [a.astype(np.int64) * K + b + 1 for a, b in (maps, truth)]
        pairs = [(codes[0] * said, codes[1] * is_)]
    table = sum(np.bincount((p.astype(np.int64) * size + t).ravel(), minlength=size**2) for p, t in pairs)
    table = np.asarray(table, np.float64).reshape(size, size)
    iou = table[1:, 1:].sum() / (table.sum() - table[0, 0])
    table[0, 0] = 0
    agreed = table.trace() / table.sum()
    chance = (table.sum(0) * table.sum(1)).sum() / table.sum() ** 2
    return float(100 * np.exp(iou - 1) * (agreed - chance) / (1 - chance))


def scores(size: int, seed: int, share: float, distance: float, shared: float, sure: float) -> dict[str, list[float]]:
    scene = SimulatedScene(SceneRecipe(size, size, seed=seed, num_dates=3, change_share=share))
    truth = [LEGEND.encode(scene.truth(Window(0, 0, size, size), date=date)) for date in range(3)]
    p = classified(truth, distance, shared, sure, seed)
    alone = [each.argmax(0).astype(np.uint8) for each in p]
    prior = TransitionPrior.estimate([(p[0], p[1]), (p[1], p[2])])
    pair, series = decide_pair(p[0], p[1], prior), decide_series(p, prior).classes
    first, whole = (truth[0], truth[1]), (truth[0], truth[2])
    across = decide_pair(p[0], p[2], TransitionPrior.estimate([(p[0], p[2])]))
    found = {}
    for name, one, last in (
        ("each date alone", (alone[0], alone[1]), (alone[0], alone[2])),
        ("pair", (pair.before, pair.after), (across.before, across.after)),
        ("all three dates", (series[0], series[1]), (series[0], series[2])),
    ):
        found[name] = [sek(m, t, c) for m, t in ((one, first), (last, whole)) for c in ("dates stacked", "from-to")]
    found["accuracy"] = [float((alone[0] == truth[0]).mean())]
    found["prior"] = [prior.changed, float((truth[0] != truth[1]).mean() + (truth[1] != truth[2]).mean()) / 2]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print("| change | accuracy of a date | shared | sure | change by the prior, truly | decided |", end="")
    print(" step 1, dates stacked | step 1, from-to | 1 to 3, dates stacked | 1 to 3, from-to |\n" + "|---" * 10 + "|")
    cases = [(share, distance, 0.0, 1.0) for share, distance in product((0.02, 0.1), (4.0, 3.0, 2.5))]
    cases += [
        (0.1, 3.0, 0.5, 1.0),
        (0.1, 3.0, 0.8, 1.0),
        (0.1, 3.0, 0.0, 2.0),
        (0.1, 3.0, 0.0, 0.5),
        (0.1, 3.0, 0.5, 2.0),
    ]
    for share, distance, shared, sure in cases:
        rows = [scores(options.size, seed, share, distance, shared, sure) for seed in range(options.seeds)]
        said, true = np.mean([row["prior"] for row in rows], axis=0)
        accuracy = np.mean([row["accuracy"] for row in rows])
        for name in ("each date alone", "pair", "all three dates"):
            cells = [over_seeds([row[name][i] for row in rows]) for i in range(4)]
            shown = " | ".join(f"{c.value:.1f} ± {(c.high - c.low) / 2:.1f}" for c in cells)
            case = f"{share:.0%} | {accuracy:.3f} | {shared:g} | {sure:g} | {said:.3f}, {true:.3f}"
            print(f"| {case} | {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
