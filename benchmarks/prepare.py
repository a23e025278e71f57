"""Preparing at scale: labels by mode beside gdalwarp, and a mosaic with labels into the store; time, memory, growth.

Files are generated in streams: labels in patches with 3 % noise, ten uint16 bands, deflate, 512 px blocks. Programs run
as whole commands, in turns; memory is the peak of the process (mapped pages of files included). A process inherits the
peak of the one that starts it, so files are generated in a process of their own: nothing large may be held here.

usage: .venv/bin/python benchmarks/prepare.py [--labels 30000] [--mosaic 10000] [--rounds 5] [--folder FOLDER]
    needs gdalwarp (gdal-bin) for the comparison
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin
from rasterio.windows import Window

COVERMAP = str(Path(sys.executable).with_name("covermap"))
BANDS = [f"b{i}" for i in range(1, 11)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=30_000, help="side of the label raster in px; 0: none")
    parser.add_argument("--mosaic", type=int, default=10_000, help="side of the mosaic in px; 0: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are made and kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.folder or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if args.labels:
            downsample(place, args.labels, args.rounds)
        if args.mosaic:
            for height in (args.mosaic // 2, args.mosaic):
                mosaic(place, height, args.mosaic)


def downsample(folder: Path, side: int, rounds: int) -> None:
    """30,000 -> 3,000 px by mode: gdalwarp (also with two threads) and covermap in turns."""
    path, theirs, ours = folder / f"labels_{side}.tif", folder / "gdalwarp.tif", folder / "covermap.tif"
    if not path.exists():
        generate(write_labels, path, side, side, 1)
    warp = [
        "gdalwarp",
        "-q",
        "-overwrite",
        "-r",
        "mode",
        "-tr",
        "10",
        "10",
        "-co",
        "COMPRESS=DEFLATE",
        "-co",
        "TILED=YES",
    ]
    mine = [COVERMAP, "prepare", str(path), str(ours), "--gsd", "10", "--resampling", "mode", "--overwrite", "-q"]
    commands = {
        "gdalwarp": [*warp, str(path), str(theirs)],
        "gdalwarp_multi": [*warp, "-multi", "-wo", "NUM_THREADS=2", str(path), str(theirs)],
        "covermap": mine,
        "covermap_report": [*mine, "--report-loss"],
    }
    rows = [{name: run(command) for name, command in commands.items()} for _ in range(rounds)]
    with rasterio.open(theirs) as one, rasterio.open(ours) as other:
        different = int((one.read(1) != other.read(1)).sum())
    told: dict[str, Any] = {"labels": f"{side} -> {side // 10} px", "different_pixels": different}
    for name in commands:
        seconds, cpu = ([row[name][i] for row in rows] for i in (0, 1))
        ratios = [[round(row[name][i] / row["covermap"][i], 2) for row in rows] for i in (0, 1)]
        told[name] = {
            "s": round(statistics.median(seconds), 2), "cpu_s": round(statistics.median(cpu), 2),
            "mb": round(max(row[name][2] for row in rows)), "times_covermap": sorted(ratios[0]),
            "median": statistics.median(ratios[0]), "cpu_median": statistics.median(ratios[1]),
        }  # fmt: skip
    print(json.dumps(told, indent=1), flush=True)


def generate(function: Any, *arguments: Any) -> None:
    """Run a function in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{function.__name__} failed")


def mosaic(folder: Path, height: int, width: int) -> None:
    """A mosaic with labels on its own grid, into the store."""
    image, labels, out = folder / f"mosaic_{height}.tif", folder / f"codes_{height}.tif", folder / f"store_{height}"
    if not image.exists():
        generate(write_mosaic, image, height, width)
        generate(write_labels, labels, height, width, 10)
    shutil.rmtree(out, ignore_errors=True)
    config = folder / f"config_{height}.yaml"
    entry = {"path": str(image), "bands": BANDS}
    config.write_text(yaml.safe_dump({"name": "mosaic", "data": {"image": [entry], "labels": str(labels)}}))
    seconds, _, peak = run([COVERMAP, "prepare", str(config), str(out), "-q"])
    pixels = height * width / 1e6
    print(
        json.dumps({
            "mosaic": f"{height} x {width} px, 10 bands", "s": round(seconds, 1), "mpx_s": round(pixels / seconds, 2),
            "peak_mb": round(peak), "hours_for_300k_x_300k": round(9e4 / (pixels / seconds) / 3600, 1),
        }), flush=True,
    )  # fmt: skip


def run(command: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and the peak memory of the process in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def profile(height: int, width: int, gsd: float, **extra: Any) -> dict[str, Any]:
    return {
        "driver": "GTiff", "height": height, "width": width, "crs": "EPSG:25831", "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "zlevel": 1, "transform": from_origin(4e5, 4.6e6, gsd, gsd),
        "bigtiff": "IF_SAFER",
    } | extra  # fmt: skip


def write_labels(path: Path, height: int, width: int, gsd: float) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 13, (height // 60 + 1, width // 60 + 1)).astype("uint8")
    with rasterio.open(path, "w", count=1, dtype="uint8", nodata=255, **profile(height, width, gsd)) as file:
        for row in range(0, height, 1500):
            rows = min(1500, height - row)
            part = np.kron(coarse[row // 60 : -(-(row + rows) // 60)], np.ones((60, 60), "uint8"))[:rows, :width]
            noise = rng.random(part.shape, dtype="float32") < 0.03
            part[noise] = rng.integers(0, 13, int(noise.sum())).astype("uint8")
            file.write(part, 1, window=Window(0, row, width, rows))


def write_mosaic(path: Path, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    tile = (2000 + rng.normal(0, 60, (10, 512, 2048)).cumsum(2) / 4).clip(1, 9000).astype("uint16")
    with rasterio.open(path, "w", count=10, dtype="uint16", nodata=0, **profile(height, width, 10)) as file:
        for row in range(0, height, 512):
            rows = min(512, height - row)
            for col in range(0, width, 2048):
                cols = min(2048, width - col)
                file.write(tile[:, :rows, :cols] + np.uint16(row % 97), window=Window(col, row, cols, rows))


if __name__ == "__main__":
    main()
