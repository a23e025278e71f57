"""`change` beside the plain reading and writing of the files: two maps of 11 classes -> change map, tables.

Maps are a generated tile of 2048 px, turned and repeated: patches of some 25 px with ragged borders, in the second map
moved by a pixel and a tenth of the ground changed. Sides take turns, each in a process of its own; medians.

    copy    the least there is: rasterio reads both maps (a thread each), GDAL copies a plain uint16 raster of the same
            codes, which is there already, into a COG of the same options
    stream  the same with the plain raster written first, as a program must that makes what it writes
    change  covermap change: codes, counts, checksum, COG, attribute table, styles, CSV, JSON, STAC item

Beside it the counting alone: Mpx/s of codes and joint counts on one core.

usage: .venv/bin/python benchmarks/change.py [--side 10000] [--rounds 3] [--threads 2] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from covermap.core.from_to import FromTo
from covermap.core.legend import Legend
from covermap.geo.grid import Window
from covermap.geo.pairs import PairKeys

TILE_PX, STRIP_PX = 2048, 512
LEGEND = Legend.from_dict(
    {"name": "eleven", "nodata": 0, "classes": [{"code": i, "name": f"class {i}"} for i in range(1, 12)]}
)
_END = (
    "print(time.perf_counter() - start)\n"
    "print(time.process_time())\n"
    # Not getrusage: its peak is inherited from the process that started this one.
    "print(int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 1024)\n"
)
CHANGE = (
    "import sys, time\n"
    "start = time.perf_counter()\n"
    "from covermap.verbs.change import change\n"
    "change(sys.argv[1:3], sys.argv[3], overwrite=True)\n" + _END
)
PLAIN = (
    "import sys, time\n"
    "start = time.perf_counter()\n"
    "import threading, rasterio, rasterio.shutil, numpy as np\n"
    "from rasterio.windows import Window\n"
    "first, second, out, plain, threads, stream = sys.argv[1:7]\n"
    "def read(path):\n"
    "    with rasterio.open(path) as dataset:\n"
    "        for row in range(0, dataset.height, 512):\n"
    "            dataset.read(1, window=Window(0, row, dataset.width, min(512, dataset.height - row)))\n"
    "with rasterio.Env(GDAL_CACHEMAX=64 << 20):\n"
    "    both = [threading.Thread(target=read, args=(path,)) for path in (first, second)]\n"
    "    [each.start() for each in both]\n"
    "    [each.join() for each in both]\n"
    "    with rasterio.open(plain) as source:\n"
    "        if stream == 'stream':\n"
    "            with rasterio.open(out + '.plain.tif', 'w', **source.profile) as copy:\n"
    "                for row in range(0, source.height, 512):\n"
    "                    window = Window(0, row, source.width, min(512, source.height - row))\n"
    "                    copy.write(source.read(1, window=window), 1, window=window)\n"
    "    with rasterio.open(out + '.plain.tif' if stream == 'stream' else plain) as source:\n"
    "        rasterio.shutil.copy(source, out, driver='COG', COMPRESS='DEFLATE', BLOCKSIZE=512, BIGTIFF='IF_SAFER',\n"
    "            OVERVIEW_RESAMPLING='MODE', STATISTICS='YES', NUM_THREADS=threads)\n" + _END
)


def smooth(seed: int, width_px: float) -> np.ndarray:
    """Noise (TILE_PX, TILE_PX) of patches of a width, without a seam."""
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((TILE_PX, TILE_PX)))
    square = np.fft.fftfreq(TILE_PX)[:, None] ** 2 + np.fft.rfftfreq(TILE_PX)[None] ** 2
    found = np.fft.irfft2(noise * np.exp(-2 * (np.pi * width_px) ** 2 * square))
    return found / found.std()


def write_maps(folder: Path, side: int) -> tuple[Path, Path]:
    """Both maps as tiled, compressed GeoTIFFs."""
    fields = [smooth(k, 12) + 0.15 * smooth(100 + k, 1.5) for k in range(11)]
    first = (np.argmax(fields, 0) + 1).astype(np.uint8)
    second = np.where(smooth(50, 8) > 1.9, np.roll(first, (300, 500), (0, 1)), np.roll(first, 1, 1)).astype(np.uint8)
    paths = folder / f"first_{side}.tif", folder / f"second_{side}.tif"
    for path, tile, date in zip(paths, (first, second), ("2018", "2022"), strict=True):
        profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8", "nodata": 0,
                   "crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 10, 10), "tiled": True,
                   "blockxsize": STRIP_PX, "blockysize": STRIP_PX, "compress": "deflate",
                   "bigtiff": "IF_SAFER"}  # fmt: skip
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.update_tags(COVERMAP_LEGEND=json.dumps(LEGEND.to_dict()), COVERMAP_DATE=date)
            for row in range(0, side, TILE_PX):
                for col in range(0, side, TILE_PX):
                    window = Window(row, col, TILE_PX, TILE_PX).intersect(Window(0, 0, side, side))
                    turned = tile[:: -1 if row // TILE_PX % 2 else 1, :: -1 if col // TILE_PX % 2 else 1]
                    dataset.write(turned[: window.height, : window.width], 1, window=window.rasterio)
    return paths


def write_plain(change: Path, plain: Path) -> None:
    """The codes of a change map as a plain tiled raster."""
    with rasterio.open(change) as source:
        profile = source.profile | {"driver": "GTiff", "bigtiff": "IF_SAFER"}
        profile.pop("compress")
        with rasterio.open(plain, "w", **profile) as out:
            out.write_colormap(1, source.colormap(1))
            for row in range(0, source.height, STRIP_PX):
                window = Window(row, 0, min(STRIP_PX, source.height - row), source.width)
                out.write(source.read(1, window=window.rasterio), 1, window=window.rasterio)


def run(code: str, *arguments: object) -> tuple[float, float, float]:
    """Seconds, seconds of processors and peak MB of a script in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, busy, peak = map(float, done.stdout.split()[-3:])
    return seconds, busy, peak


def counting() -> None:
    """Codes and joint counts of 64 Mpx on one core."""
    random = np.random.default_rng(0)
    first = np.kron(random.integers(0, 11, (512, 512)), np.ones((16, 16), int)).astype(np.uint8)
    second = np.where(random.random(first.shape) < 0.1, random.integers(0, 11, first.shape), first).astype(np.uint8)
    codes, pairs, areas = FromTo(LEGEND), PairKeys((11, 11)), [0.01] * len(first)
    for name, work in (
        ("codes", lambda: codes.encode(first, second)),
        ("joint counts", lambda: pairs.count(pairs.of(first, second), areas)),
    ):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        print(f"{name}: {first.size / 1e6 / statistics.median(seconds):.0f} Mpx/s on one core", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of GDAL on the plain sides; ours: all cores")
    parser.add_argument("--folder", type=Path, help="where the files are made and kept")
    args = parser.parse_args()
    counting()
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        first, second = write_maps(folder, args.side)
        out, plain = folder / "out" / "change.tif", folder / "plain.tif"
        run(CHANGE, first, second, out)
        write_plain(out, plain)
        found: dict[str, list[tuple[float, float, float]]] = {"copy": [], "stream": [], "change": []}
        for _ in range(args.rounds):
            for side in found:
                if side == "change":
                    done = run(CHANGE, first, second, out)
                else:
                    done = run(PLAIN, first, second, folder / "copied.tif", plain, args.threads, side)
                found[side].append(done)
                said = f"{side}: {done[0]:.1f} s, processors {done[1]:.1f} s, peak {done[2]:.0f} MB"
                print(f"{said}, load {os.getloadavg()[0]:.1f}", flush=True)
        times = {side: [statistics.median(row[i] for row in rows) for i in (0, 1)] for side, rows in found.items()}
        for side in ("copy", "stream"):
            wall, busy = (a / b for a, b in zip(times[side], times["change"], strict=True))
            print(f"{args.side} px: change at {wall:.2f} x the speed of {side} ({busy:.2f} by processors)")


if __name__ == "__main__":
    main()
