"""Pixels a second of the scores on one core: the confusion matrix with ignore and legend mapping, and the others.

usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/scores.py [--mpx 32] [--rounds 7]

Seconds are those of the processor (time.process_time), for the machine may be shared; medians of the rounds, in turns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

from covermap.core.legend import IGNORE, Legend
from covermap.metrics.binary import BinaryScores
from covermap.metrics.calibration import Calibration
from covermap.metrics.confusion import Confusion
from covermap.metrics.objects import BoundaryIoU, ObjectRecall
from covermap.metrics.regression import RegressionScores

K = 12
CODES = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100, 110], np.uint8)  # those of WorldCover, and one more
LEGEND = Legend.from_dict({"nodata": 0, "classes": [{"code": int(c), "name": f"class {c}"} for c in CODES]})


def maps(run: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference (10 % ignored) and prediction (70 % right): runs of `run` equal pixels, as in maps; 1 is noise."""
    rng = np.random.default_rng(run)
    runs = pixels // run + 1
    reference = rng.integers(0, K, runs).astype(np.uint8)
    other = rng.integers(0, K, runs).astype(np.uint8)
    prediction = np.where(rng.random(runs) < 0.7, reference, other)
    reference[rng.random(runs) < 0.1] = IGNORE
    return np.repeat(reference, run)[:pixels], np.roll(np.repeat(prediction, run)[:pixels], run // 2)


def plain(reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The count as it was before: pick the known pixels, then count pairs."""
    known = reference != IGNORE
    pairs = reference[known].astype(np.intp) * K + prediction[known]
    return np.bincount(pairs, minlength=K * K).reshape(K, K)


def compare(sides: Mapping[str, Callable[[], object]], pixels: int, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            side()
            seconds[name].append(time.process_time() - start)
    for name, taken in seconds.items():
        print(f"| {name} | {pixels / statistics.median(taken) / 1e6:.0f} | {pixels / max(taken) / 1e6:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpx", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    pixels = args.mpx << 20
    print(f"numpy {np.__version__}, Python {platform.python_version()}, {args.mpx} Mpx, {K} classes\n")
    print("| side | Mpx/s, median | slowest round |\n|---|---|---|")
    to_code = np.zeros(256, np.uint8)
    to_code[:K] = CODES
    for run in (1, 4, 16, 256):
        reference, prediction = maps(run, pixels)
        raw, raw_prediction = to_code[reference], to_code[prediction]
        index, codes = Confusion(K), Confusion(K)
        index.add(reference, prediction)
        codes.add_codes(raw, raw_prediction, LEGEND)
        assert (index.counts == plain(reference, prediction)).all()
        assert (codes.counts == index.counts).all()
        sides = {
            f"as before, indices, runs of {run} px": lambda r=reference, p=prediction: plain(r, p),
            f"as before, codes, runs of {run} px": lambda r=raw, p=raw_prediction: plain(
                LEGEND.encode(r), LEGEND.encode(p)
            ),
            f"Confusion.add, indices, runs of {run} px": lambda r=reference, p=prediction: Confusion(K).add(r, p),
            f"Confusion.add_codes, runs of {run} px": lambda r=raw, p=raw_prediction: Confusion(K).add_codes(
                r, p, LEGEND
            ),
            f"Confusion.add of 40 classes, runs of {run} px": lambda r=reference, p=prediction: Confusion(40).add(r, p),
        }
        compare(sides, pixels, args.rounds)

    side = 1 << 10
    rng = np.random.default_rng(0)
    reference, prediction = (each.reshape(side, side) for each in maps(16, side**2))
    logits = rng.normal(0, 2, (K, side, side)).astype(np.float32)
    probability = np.exp(logits) / np.exp(logits).sum(0)
    hazard = np.where(reference == IGNORE, IGNORE, reference == 3).astype(np.uint8)
    others = {
        "BinaryScores.add": lambda: BinaryScores().add(probability[3], hazard, chip="a"),
        f"Calibration.add, {K} classes": lambda: Calibration().add(probability, reference),
        "RegressionScores.add": lambda: RegressionScores().add(logits[0], logits[1]),
        f"BoundaryIoU.add, {K} classes": lambda: BoundaryIoU(K).add(reference, prediction),
        f"ObjectRecall.add, {K} classes": lambda: ObjectRecall(K).add(reference, prediction),
    }
    compare(others, side**2, args.rounds)


if __name__ == "__main__":
    main()
