"""covermap's random forest on pixels beside a plain script of rasterio and scikit-learn: Gewata, the same columns.

Both use scikit-learn to fit; covermap keeps the trees as plain arrays and walks them itself.

usage: .venv/bin/python benchmarks/peers/beside_sklearn.py WORK [--data FOLDER] [--rounds 3] [--trees 300]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from common import OURS, about, alternate, header, job, row

TRAIN, TEST = [0, 700], [740, 1056]
BANDS = ["blue", "green", "red", "nir", "swir1", "swir2"]
LEGEND = {1: "cropland", 2: "bamboo", 3: "bare soil", 4: "coffee plantation", 5: "forest", 6: "wetland"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/gewata"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--samples", type=int, default=40_000)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    image, labels = (next(iter(sorted(args.data.resolve().glob(name)))) for name in ("*etm*.tif", "*lulc*.tif"))
    about(OURS, "scikit-learn", "numpy", "rasterio")
    files: dict[str, Any] = {"image": image, "labels": labels, "train_cols": TRAIN, "samples": args.samples,
                             "trees": args.trees}  # fmt: skip
    theirs = work / "sklearn_map.tif"
    found = alternate(
        {
            "a": lambda: job(OURS, "by_covermap.py", "forest", out=work / "runs", legend=LEGEND, sensor="landsat7",
                             bands=BANDS, test_cols=TEST, **files),
            "b": lambda: job(OURS, "by_sklearn.py", "classify", out=theirs, jobs=os.cpu_count(), **files),
        },
        args.rounds,
    )  # fmt: skip
    header("plain script")
    keys = {"fit_cpu_s": "reading, sampling, fitting, CPU s", "map_cpu_s": "map, CPU s", "map_s": "map, s",
            "cpu_s": "all, CPU s", "seconds": "all, s", "peak_mb": "peak MB"}  # fmt: skip
    for key, what in keys.items():
        row(what, *([f[key] for f in found[s]] for s in ("a", "b")), unit="MB" if key == "peak_mb" else "s")
    maps = [work / "runs/forest/map.tif", theirs]
    print(job(OURS, "by_sklearn.py", "scores", maps=maps, labels=labels, test_cols=TEST))


if __name__ == "__main__":
    main()
