"""False change by misregistration: how much of it goes, and what of the real change goes with it.

Two dates of a generated landscape (parcels, rivers, roads, towns; 2 % of the area changes) whose second map is read one
pixel, or half a pixel, off. First the truth itself, so that all false change comes from the shift; then maps of a
classifier with known, calibrated probabilities (normal classes around the truth, noise of single pixels or of blobs)
at three accuracies, where false change comes from both. Recall is of the truth at its own place: a shift alone costs
some. Means over seeds, with half the 95 % interval.

usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/registration.py [--size 768] [--seeds 5] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from covermap.core.legend import IGNORE
from covermap.data.simulate import LEGEND, SceneRecipe, SimulatedScene
from covermap.geo.grid import Grid, Window
from covermap.geo.patches import MappingUnit, sieve_classes
from covermap.geo.registration import halo, misregistered
from covermap.metrics.intervals import over_seeds
from covermap.ml.joint import change_probability, decide_pair, decide_series
from covermap.ml.transitions import NO_SHARE, STEPS, TransitionPrior

MARGIN = 4


def maps(seed: int, size: int, gsd_m: float, shift: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Classes before, after where they are, and after as it is read: shift px off."""
    factor, side = (1 if all(float(s).is_integer() for s in shift) else 2), size + 2 * MARGIN
    recipe = SceneRecipe(side, side, seed=seed, num_dates=2, change_share=0.02, gsd_m=gsd_m, label_factor=factor)
    scene = SimulatedScene(recipe)
    dates = [LEGEND.encode(scene.truth(Window(0, 0, side * factor, side * factor), date=date)) for date in (0, 1)]

    def read(date: int, down: float, right: float) -> np.ndarray:
        row, col = (int((MARGIN + s) * factor) for s in (down, right))
        return np.ascontiguousarray(dates[date][row::factor, col::factor][:size, :size])

    return read(0, 0, 0), read(1, 0, 0), read(1, *shift)


def classified(truth: np.ndarray, distance: float, blob_px: float, random: np.random.Generator) -> np.ndarray:
    """Layers (K, H, W) uint8 of the exact probabilities given a noisy picture of the truth."""
    seen = random.normal(size=(len(LEGEND), *truth.shape))
    if blob_px:
        seen = np.stack([gaussian_filter(each, blob_px) for each in seen])
        seen /= seen.std()
    rows, cols = np.ogrid[: truth.shape[0], : truth.shape[1]]
    seen[truth, rows, cols] += distance
    of = np.maximum(np.bincount(truth.ravel(), minlength=len(LEGEND)) / truth.size, 1e-6)
    weights = np.exp(distance * seen) * of[:, None, None]
    return np.rint(weights / weights.sum(0) * STEPS).astype(np.uint8)


def tolerated(before: np.ndarray, after: np.ndarray, px: int) -> np.ndarray:
    """Change that is left."""
    around = halo(px)
    return (before != after) & ~misregistered(
        *(np.pad(each, around, constant_values=IGNORE) for each in (before, after)), px
    )


def sieved(change: np.ndarray, px: int, grid: Grid) -> np.ndarray:
    index = change.astype(np.uint8)
    whole = grid.window
    found = sieve_classes(lambda window: index, grid, MappingUnit(px, "px"), connectivity=8, strip_px=change.size)
    assert found.windows == (whole,)
    return found.apply(0, index) == 1


def rules(before: np.ndarray, after: np.ndarray, grid: Grid) -> Iterator[tuple[str, np.ndarray]]:
    yield "plain comparison", before != after
    for px in (1, 2):
        yield f"tolerance {px} px", tolerated(before, after, px)
    yield "smallest change 4 px", sieved(before != after, 4, grid)
    for px in (4, 25):
        yield f"tolerance 1 px, then smallest change {px} px", sieved(tolerated(before, after, 1), px, grid)


def joint_rules(p1: np.ndarray, p2: np.ndarray, truth: np.ndarray, grid: Grid) -> Iterator[tuple[str, np.ndarray]]:
    before, after = (p.argmax(0).astype(np.uint8) for p in (p1, p2))
    yield from rules(before, after, grid)
    pair = decide_pair(p1, p2, TransitionPrior.estimate([(p1, p2)]))
    yield "joint decision, estimated prior", pair.before != pair.after
    yield "joint decision, then tolerance 1 px", tolerated(pair.before, pair.after, 1)
    plain = before != after
    still = np.where(plain & ~tolerated(before, after, 1), np.uint8(NO_SHARE), p1)
    pair_of = decide_pair(p1, p2, TransitionPrior.estimate([(still, p2)]))
    yield "the same, prior without what the shift explains", tolerated(pair_of.before, pair_of.after, 1)
    # The cut of P(change) that has plain comparison's recall, less half a point: known here only, for the truth is.
    goal = max(0.0, plain[truth].mean() - 0.005)
    cut = np.quantile(pair.change[truth], 1 - goal)
    likely = pair.change >= cut
    yield "P(change) under the first prior, cut at equal recall", likely
    yield "the same, then tolerance 1 px", likely & ~(plain & ~tolerated(before, after, 1))


def measure(options: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """Case, rule, scores by seed."""
    cases: list[tuple[str, dict]] = [
        (f"truth, {gsd_m:g} m pixels, shift {shift[0]:g} down {shift[1]:g} right", {"gsd_m": gsd_m, "shift": shift})
        for gsd_m in (10.0, 20.0, 30.0) for shift in ((0, 1), (1, 1), (0.5, 0.5))
    ]  # fmt: skip
    cases += [
        (f"classified, 10 m pixels, shift 1 down 1 right, {kind}", {
            "gsd_m": 10.0, "shift": (1, 1), "distance": distance, "blob_px": blob_px,
        })
        for distance in (4.0, 3.5, 3.0) for kind, blob_px in (("noise of single pixels", 0.0), ("of blobs", 1.5))
    ]  # fmt: skip
    for name, case in cases:
        found: dict[str, dict[str, list[float]]] = {}
        for seed in range(options.seeds):
            before, after, read = maps(seed, options.size, case["gsd_m"], case["shift"])
            truth = before != after
            grid = Grid(None, SimulatedScene(SceneRecipe()).grid.transform, *truth.shape)
            if "distance" in case:
                random = np.random.default_rng(seed)
                p1, p2 = (classified(each, case["distance"], case["blob_px"], random) for each in (before, read))
                each = joint_rules(p1, p2, truth, grid)
                accuracy = float((p1.argmax(0) == before).mean())
            else:
                each, accuracy = rules(before, read, grid), 1.0
            first: tuple[float, float] | None = None
            for rule, change in each:
                false, recall = 100 * float((change & ~truth).mean()), 100 * float(change[truth].mean())
                first = first or (false, recall)
                row = found.setdefault(rule, {})
                for key, value in (("false", false), ("falls", 100 - 100 * false / first[0]), ("recall", recall),
                                   ("lost", recall - first[1]), ("accuracy", accuracy)):  # fmt: skip
                    row.setdefault(key, []).append(value)
        for rule, row in found.items():
            yield name, rule, row


def speed() -> str:
    before, after, read = maps(0, 2048, 10.0, (1, 1))
    told = [f"tolerance of 1 px {timed(lambda: misregistered(before, read, 1), before.size)}"]
    random = np.random.default_rng(0)
    p1, p2 = (classified(each[:1024, :1024], 3.5, 0.0, random) for each in (before, after))
    prior = TransitionPrior.estimate([(p1, p2)])
    told.append(f"P(change) of {len(p1)} classes {timed(lambda: change_probability(p1, p2), p1[0].size)}")
    told.append(f"joint decision {timed(lambda: decide_pair(p1, p2, prior), p1[0].size)}")
    told.append(f"three dates {timed(lambda: decide_series([p1, p2, p1], prior), p1[0].size)}")
    told.append(f"the prior {1 / timed_s(lambda: TransitionPrior.estimate([(p1, p2)])):.1f} times a second")
    return "One core, median of 5, Mpx/s: " + ", ".join(told) + "."


def timed(work: Callable[[], object], pixels: int) -> str:
    return f"{pixels / 1e6 / timed_s(work):.0f}"


def timed_s(work: Callable[[], object]) -> float:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines, last = [], ""
    for case, rule, row in measure(options):
        if case != last:
            accurate = f" (accuracy of a date {np.mean(row['accuracy']):.3f})" if "classified" in case else ""
            header = "| rule | false change, % of pixels | it falls by, % | recall, % | recall against plain, points |"
            lines += ["", f"### {case}{accurate}", "", header, "|---|---|---|---|---|"]
            last = case
        cells = [over_seeds(row[key]) for key in ("false", "falls", "recall", "lost")]
        digits = (2, 1, 1, 2)
        shown = (f"{c.value:.{d}f} ± {(c.high - c.low) / 2:.{d}f}" for c, d in zip(cells, digits, strict=True))
        lines.append(f"| {rule} | {' | '.join(shown)} |")
        print(lines[-1], flush=True)
    lines += ["", speed()]
    if options.out:
        options.out.write_text("\n".join(lines).lstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
