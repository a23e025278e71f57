"""Does a plan of labels tell the truth, and which strategy is worth most? Simulated campaigns, and Gewata's.

A campaign is a landscape of 96 x 96 chips with smooth classes; half of its blocks of 12 x 12 chips are candidates, the
other half is the test set. A pilot of 40 to 300 chips is labelled, one by one or in squares of 2 x 2 or 3 x 3 chips,
and `study plan` is asked what accuracy twice as many labels reach. Then as many again are labelled in the same manner,
or where a strategy says, a ridge probe is fitted to all, and scored on the test set: by labels with the pilot's share
of wrong ones, as a person would score it, and by the truth, which no campaign can know.

    campaigns    seeds from 0 on, of 3 to 8 classes of 1 to 3 kinds, 32 to 256 features, 0 to 5 % wrong labels
    strategies   the same, all strategies beside further labels at random
    numbers      campaigns whose targets are three numbers (R2)
    gewata       pilots of embeddings of Gewata:
                 covermap embed recipes/gewata.yaml gewata8.parquet --size 8 --set model.backbone=galileo_nano
                     --set 'model.backbone_options={}' --set train.normalise=pretrained

usage: .venv/bin/python benchmarks/planner.py [campaigns strategies numbers gewata] [--first 0] [--count 100]
           [--embeddings gewata8.parquet]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from covermap.data.embeddings import Embeddings
from covermap.data.labelled_chips import targets_of
from covermap.ml.next_labels import STRATEGIES
from covermap.ml.probes import fit_probe
from covermap.ml.ridge_bank import one_thread
from covermap.verbs.label_plan import LabelPlanSettings, plan_chips

SIDE, BLOCK, NEAR = 96, 12, 0.05
EASE = (1.0, 4.0)
"""Distance between classes, drawn evenly over its logarithm."""


@dataclass(frozen=True)
class Campaign:
    values: np.ndarray
    truth: np.ndarray  # class of each chip, -1 none, or numbers
    told: np.ndarray  # what a person says that it is
    ground: np.ndarray  # row, column
    candidates: np.ndarray
    test: np.ndarray
    pilot: np.ndarray
    more: np.ndarray
    square: int
    classes: int


def smooth(random: np.random.Generator, count: int, sigma: float) -> np.ndarray:
    fields = [gaussian_filter(random.standard_normal((SIDE, SIDE)), sigma, mode="wrap") for _ in range(count)]
    return np.stack([field / field.std() for field in fields])


def landscape(seed: int, numbers: bool = False) -> Campaign:
    random = np.random.default_rng([7, seed])
    classes, d = int(random.integers(3, 9)), int(random.choice([32, 64, 128, 256]))
    imbalance, sigma = random.uniform(0, 1.2), random.uniform(1, 5)
    apart, wrong = float(np.exp(random.uniform(*np.log(EASE)))), random.uniform(0, 0.05)
    kinds = int(random.integers(1, 4))
    bias = (imbalance * random.standard_normal(classes))[:, None, None]
    truth = (smooth(random, classes, sigma) + bias).argmax(0)
    kind = smooth(random, kinds, sigma).argmax(0)
    spread = (1.0 + np.arange(d)) ** -0.35
    means = random.standard_normal((classes, d))
    means *= 1.6 * apart / np.linalg.norm(means, axis=1, keepdims=True)
    of_kind = random.standard_normal((classes, kinds, d))
    of_kind *= apart * random.uniform(0.3, 1.2) * (kinds > 1) / np.linalg.norm(of_kind, axis=2, keepdims=True)
    noise = random.standard_normal((SIDE, SIDE, d)) * spread / np.sqrt((spread**2).mean())
    haze = np.moveaxis(smooth(random, 6, 3), 0, -1) @ (random.standard_normal((6, d)) / np.sqrt(6))
    values = means[truth] + of_kind[truth, kind] + noise + random.uniform(0, 1) * haze
    x, y = values.reshape(-1, d).astype(np.float32), truth.ravel()
    told = np.where(random.random(len(y)) < wrong, random.integers(0, classes, len(y)), y)
    if numbers:
        y = (x - x.mean(0)) @ (random.standard_normal((d, 3)) * spread[:, None])
        y = np.tanh(y / y.std(0)) + random.uniform(0.2, 1.5) * random.standard_normal(y.shape)
        told, classes = y, 0
    ground = np.stack(np.divmod(np.arange(SIDE * SIDE), SIDE), 1)
    return label(x, y, told, ground, np.arange(SIDE * SIDE), classes, random)


def label(
    x: np.ndarray, y: np.ndarray, told: np.ndarray, ground: np.ndarray, usable: np.ndarray, classes: int,
    random: np.random.Generator,
) -> Campaign:  # fmt: skip
    """Draw a pilot and as many again; drawn anew where the pilot has one class, for which a plan tells nothing."""
    even = (ground[usable] // BLOCK).sum(1) % 2 == 0
    candidates, test = usable[even], usable[~even]
    at = {tuple(place): i for i, place in zip(candidates.tolist(), ground[candidates].tolist(), strict=True)}
    while True:
        count, square = int(random.integers(40, 301)), int(random.choice([1, 1, 2, 3]))
        drawn: dict[int, None] = {}
        while len(drawn) < 2 * count:
            row, col = ground[candidates[random.integers(len(candidates))]].tolist()
            near = [at.get((row + i, col + j)) for i in range(square) for j in range(square)]
            drawn |= dict.fromkeys(i for i in near if i is not None)
        order = np.array(list(drawn))
        if not classes or len(np.unique(told[order[:count]])) > 1:
            parts = order[:count], order[count : 2 * count]
            return Campaign(x, y, told, ground, candidates, test, *parts, square, classes)


def embeddings(one: Campaign) -> Embeddings:
    """The candidates, of which the pilot is labelled."""
    of, count = one.candidates, len(one.candidates)
    known = np.isin(of, one.pilot)
    row, col = one.ground[of].T
    labels = np.where(known, one.told[of], -1) if one.classes else None
    numbers = None if one.classes else np.where(known[:, None], one.told[of], np.nan)
    box = np.stack([16 * col, 16 * row, 16 * col + 16, 16 * row + 16], 1)
    return Embeddings(
        one.values[of], None, None, labels, numbers, ["scene"] * count, [""] * count, ["none"] * count, box, None,
        [str(i) for i in of], None, (), {}, "simulated",
    )  # fmt: skip


def reached(one: Campaign, of: np.ndarray) -> tuple[float, float]:
    """Score on the test set of a probe fitted to chips: by labels as a person gives them, by the truth."""
    told = fit_probe("ridge", one.values[of], one.told[of], num_classes=one.classes or None)
    answers, test = told.answers(one.values[one.test]), one.test
    if one.classes:
        found = answers.argmax(1)
        return float((found == one.told[test]).mean()), float((found == one.truth[test]).mean())
    error = ((answers - one.told[test]) ** 2).sum() / ((one.told[test] - one.told[test].mean(0)) ** 2).sum()
    return float(1 - error), float(1 - error)


def work(seed: int, kind: str, path: str | None) -> dict[str, float]:
    one = from_gewata(seed, path) if kind == "gewata" else landscape(seed, kind == "numbers")
    found, count = embeddings(one), len(one.pilot)
    with one_thread():
        plan = plan_chips(found, LabelPlanSettings(count))
        row = {"seed": seed, "pilot": count, "square": one.square, "now": plan.now.score,
               "told": plan.expected.score, "low": plan.expected.low, "high": plan.expected.high}  # fmt: skip
        row["true now"], _ = reached(one, one.pilot)
        row["true"], row["clean"] = reached(one, np.concatenate([one.pilot, one.more]))
        row["random"] = row["clean"]
        for name in STRATEGIES if kind in ("strategies", "gewata") else ("mixed",):
            chosen = plan if name == "mixed" else plan_chips(found, LabelPlanSettings(count, name))
            more = one.candidates[[each["number"] for each in chosen.rows]]
            row[f"{name} told"], row[name] = reached(one, np.concatenate([one.pilot, more]))
    return row


_KEPT: dict[str, Campaign] = {}


def from_gewata(seed: int, path: str | None) -> Campaign:
    if not _KEPT:
        found = Embeddings.read(path or "gewata8.parquet")
        classes, names, _, _ = targets_of(found, "majority")
        ground = found.pixel_bbox[:, [1, 0]] // 8
        usable = np.flatnonzero((classes >= 0) & np.isfinite(found.values).all(1))
        nothing = np.zeros(0, int)
        _KEPT["all"] = Campaign(
            found.values, classes, classes, ground, usable, nothing, nothing, nothing, 1, len(names)
        )
    every = _KEPT["all"]
    random = np.random.default_rng([8, seed])
    return label(every.values, every.truth, every.told, every.ground, every.candidates, every.classes, random)


def tell(kind: str, rows: list[dict[str, float]], seconds: float) -> None:
    of = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    error, now = of["told"] - of["true"], of["now"] - of["true now"]
    print(f"\n## {kind}: {len(rows)} campaigns from seed {rows[0]['seed']:g}, {seconds:.0f} s\n")
    print("| campaigns | number | within 5 points | mean error | mean absolute | interval holds it | its width |")
    print("|---|---|---|---|---|---|---|")
    wide, inside = of["high"] - of["low"], (of["low"] <= of["true"]) & (of["true"] <= of["high"])
    groups = {"all": np.ones(len(rows), bool)}
    groups |= {f"labelled in squares of {s:g}": of["square"] == s for s in np.unique(of["square"])}
    groups |= {"pilot below 100": of["pilot"] < 100, "pilot of 200 or more": of["pilot"] >= 200}
    groups |= {"true score below 0.8": of["true"] < 0.8, "0.8 to 0.95": (of["true"] >= 0.8) & (of["true"] < 0.95),
               "above 0.95": of["true"] >= 0.95}  # fmt: skip
    for name, k in ((name, k) for name, k in groups.items() if k.any()):
        print(f"| {name} | {k.sum()} | {np.mean(abs(error[k]) <= NEAR):.2f} | {error[k].mean():+.3f} | "
              f"{abs(error[k]).mean():.3f} | {inside[k].mean():.2f} | {wide[k].mean():.2f} |")  # fmt: skip
    clean, mixed = of["told"] - of["clean"], of["told"] - of["mixed told"]
    near = [np.mean(abs(each) <= NEAR) for each in (clean, mixed, now, of["now"] - of["true"])]
    print(f"\nWithin 5 points of the truth instead of labels with errors: {near[0]:.2f}; of what mixed reaches: "
          f"{near[1]:.2f} (mean error {mixed.mean():+.3f}). The score now: {near[2]:.2f}; without a curve, the score "
          f"now told of twice as many labels: {near[3]:.2f}.")  # fmt: skip
    if "diversity" not in of:
        return
    print("\n| strategy | score on the test set | over random, points | scattered | in squares | better in | worst |")
    print("|---|---|---|---|---|---|---|")
    for name in ("random", *STRATEGIES):
        gain, alone = 100 * (of[name] - of["random"]), of["square"] == 1
        half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
        print(f"| {name} | {of[name].mean():.3f} | {gain.mean():+.2f} ± {half:.2f} | {gain[alone].mean():+.2f} | "
              f"{gain[~alone].mean():+.2f} | {np.mean(gain > 0):.2f} | {gain.min():+.1f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["strategies"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--embeddings")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for kind in options.kinds:
            start = time.perf_counter()
            rows = pool.map(partial(work, kind=kind, path=options.embeddings), seeds, chunksize=5)
            tell(kind, rows, time.perf_counter() - start)


if __name__ == "__main__":
    main()
