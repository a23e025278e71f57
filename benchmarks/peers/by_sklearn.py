"""A plain script of rasterio and scikit-learn, as tutorials show it: labelled pixels, a forest, a map.

It is beside_sklearn.py's peer; `scores` tells both maps' agreement with the held-out labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window
from serve import Clock, main


def classify(
    image: str, labels: str, out: str, train_cols: list[int], samples: int, trees: int, jobs: int, rows: int = 256
) -> dict[str, Any]:
    """Forest of random labelled pixels of the columns of train; classes and their probability by strips of rows."""
    from sklearn.ensemble import RandomForestClassifier

    clock = Clock()
    with rasterio.open(image) as file, rasterio.open(labels) as known:
        values, codes = file.read(), known.read(1)
        nodata, profile = file.nodata, file.profile
    inside = np.zeros(codes.shape, bool)
    inside[:, train_cols[0] : train_cols[1]] = True
    valid = (values != nodata).all(0) if nodata is not None else np.ones(codes.shape, bool)
    at = np.flatnonzero((codes > 0) & valid & inside)
    at = np.random.default_rng(0).choice(at, min(samples, len(at)), replace=False)
    pixels = values.reshape(len(values), -1).T
    forest = RandomForestClassifier(trees, n_jobs=jobs, random_state=0, class_weight="balanced")
    forest.fit(pixels[at], codes.ravel()[at])
    fitted = clock.read()
    profile.update(count=1, dtype="uint8", nodata=0, compress="deflate")
    with rasterio.open(out, "w", **profile) as file:
        for row in range(0, codes.shape[0], rows):
            strip = values[:, row : row + rows]
            shares = forest.predict_proba(strip.reshape(len(strip), -1).T)
            found = forest.classes_[shares.argmax(1)].reshape(strip.shape[1:]).astype("uint8")
            found[~valid[row : row + rows]] = 0
            file.write(found, 1, window=Window(0, row, found.shape[1], found.shape[0]))
    whole = clock.read()
    return {"fit_s": fitted["seconds"], "fit_cpu_s": fitted["cpu_s"], "map_s": whole["seconds"] - fitted["seconds"],
            "map_cpu_s": whole["cpu_s"] - fitted["cpu_s"], **whole}  # fmt: skip


def scores(maps: list[str], labels: str, test_cols: list[int]) -> dict[str, Any]:
    """Overall accuracy and macro F1 of each map on the columns of test, and the share of equal pixels of the two."""
    from sklearn.metrics import accuracy_score, f1_score

    with rasterio.open(labels) as file:
        known = file.read(1)[:, test_cols[0] : test_cols[1]]
    found = []
    for path in maps:
        with rasterio.open(path) as file:
            found.append(file.read(1))
    here = known > 0
    rows = []
    for each in found:
        answers = each[:, test_cols[0] : test_cols[1]][here]
        rows.append([accuracy_score(known[here], answers), f1_score(known[here], answers, average="macro")])
    return {"oa_f1": rows, "same": float((found[0] == found[1]).mean())}


if __name__ == "__main__":
    main({"classify": classify, "scores": scores})
