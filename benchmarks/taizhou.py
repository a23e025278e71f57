"""Change without labels on the real Landsat pair of Taizhou: each index x cut of `covermap event --kind change`.

Scored are the 4,227 changed and 17,163 unchanged pixels that are labelled, of 160,000: OA, kappa, F1 of change at the
cut, and AUC, AP of the index itself. `--generated` shows instead where the cut of all pixels lies on generated pairs,
of no change to 30 %, on one day of the year and on two: that is what the least of it (metrics.threshold.BODY) was set
by.

usage: OMP_NUM_THREADS=1 .venv/bin/python benchmarks/taizhou.py FOLDER_OF_TAIZHOU [--generated]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from covermap.core.config import ImageConfig
from covermap.data.event_index import METHODS
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.metrics.binary import auc, average_precision, ranks
from covermap.metrics.confusion import Confusion
from covermap.metrics.threshold import of_all
from covermap.verbs.event import CUTS, event

BANDS = ["blue", "green", "red", "nir", "swir1", "swir2"]


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def taizhou(folder: Path) -> None:
    changed, unchanged = (read(folder / f"{name}.bmp") > 0 for name in ("change", "unchanged"))
    reference = np.where(changed, 1, np.where(unchanged, 0, 255)).astype(np.uint8)
    sides = [[ImageConfig(path=str(folder / name), bands=BANDS)] for name in ("2000TM", "2003TM")]
    print("| index | cut | at | OA | kappa | F1 | precision | recall | AUC | AP | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for method in METHODS:
        for cut in CUTS:
            with tempfile.TemporaryDirectory() as place:
                took = []
                for _ in range(3):
                    start = time.perf_counter()
                    done = event(*sides, Path(place) / "map.tif", kind="change", method=method, cut=cut, overwrite=True)
                    took.append(time.perf_counter() - start)
                classes, index = read(Path(place) / "map.tif") - 1, read(Path(place) / "change.tif")
            at = next(note for note in done.notes if "from " in note).split("from ")[1].split(" on")[0]
            show([method, cut, at], reference, classes, index, float(np.median(took)))
        middle = k_means(index)
        show([method, "k-means, here", f"{middle:.3g}"], reference, (index > middle).astype(np.uint8), index, np.nan)


def show(first: list[str], reference: np.ndarray, classes: np.ndarray, index: np.ndarray, took: float) -> None:
    known, counted = reference < 255, Confusion(2)
    counted.add(reference, classes)
    rank = ranks(index[known], reference[known] == 1)
    each, scores = counted.per_class(), counted.scores()
    cells = [f"{100 * scores['oa']:.2f}", f"{scores['kappa']:.3f}"]
    cells += [f"{100 * each[key][1]:.2f}" for key in ("f1", "users", "producers")]
    cells += [f"{auc(*rank):.4f}", f"{average_precision(*rank):.4f}", "" if np.isnan(took) else f"{took:.1f}"]
    print(f"| {' | '.join(first + cells)} |", flush=True)


def k_means(index: np.ndarray) -> float:
    """Lloyd's middle between two groups of the numbers themselves, from their mean on."""
    at, before = float(index.mean()), np.inf
    while abs(at - before) > 1e-9:
        before, at = at, float(index[index > at].mean() + index[index <= at].mean()) / 2
    return at


def generated() -> None:
    print("| change | days | index | AUC | Otsu's cut, robust sd above the median | F1 of it | F1 of auto | best F1 |")
    print("|---|---|---|---|---|---|---|---|")
    for share in (0.0, 0.02, 0.05, 0.1, 0.3):
        for days in ((196, 196), (196, 260)):
            for method in ("irmad", "cva"):
                rows = np.array([one_pair(seed, share, days, method) for seed in (0, 1, 2)])
                shown = [f"{rows[:, 0].mean():.3f}", ", ".join(f"{v:.1f}" for v in rows[:, 1])]
                shown += [f"{v:.2f}" for v in rows[:, 2:].mean(0)] if share else ["", "", ""]
                print(f"| {share:.0%} | {days[0]}, {days[1]} | {method} | {' | '.join(shown)} |", flush=True)


def one_pair(seed: int, share: float, days: tuple[int, int], method: str) -> list[float]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe = SceneRecipe(512, 512, seed=seed, num_dates=2, change_share=share, days=days)
        write_scene(recipe, folder)
        sides = [[ImageConfig(path=str(folder / f"image_date{date}.tif"), bands=BANDS)] for date in (1, 2)]
        event(*sides, folder / "map.tif", kind="change", method=method, cut="auto")
        index, mapped = read(folder / "change.tif"), read(folder / "map.tif") == 2
        true = read(folder / "truth_date1.tif") != read(folder / "truth_date2.tif")

    def f1(hit: np.ndarray) -> float:
        return 200 * float((hit & true).sum()) / max(1, int(hit.sum() + true.sum()))

    low, high = np.quantile(index, [0.0005, 0.9995])
    edges = np.linspace(low, high, 257)
    counts = np.histogram(np.clip(index, low, high), edges)[0][None]
    cut, median = of_all(counts, edges, beyond_body=False).value, float(np.median(index))
    usual = 1.4826 * float(np.median(np.abs(index - median)))
    best = max(f1(index >= v) for v in np.quantile(index, np.linspace(0.5, 0.999, 60)))
    return [auc(*ranks(index, true)), (cut - median) / usual, f1(index >= cut), f1(mapped), best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generated", action="store_true")
    options = parser.parse_args()
    if options.generated:
        generated()
    else:
        taizhou(options.folder)


if __name__ == "__main__":
    main()
