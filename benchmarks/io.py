"""Random training windows: from a compressed GeoTIFF, from the store, plain rasterio and TorchGeo, side by side.

A generated 10-band uint16 deflate GeoTIFF with 512 px blocks, larger than GDAL's block cache, which is alike on all
sides. Sides take turns; times are medians over rounds. Each side reads windows of its own from the same places.

usage: .venv/bin/python benchmarks/io.py [--side 8192] [--windows 128] [--rounds 5] [--cache-mb 320] [--peer PYTHON]
    --peer PYTHON   also: the interpreter of an environment with torchgeo
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

BANDS = [f"b{i}" for i in range(1, 11)]
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache-mb", type=int, default=320)
    parser.add_argument("--peer")
    parser.add_argument("--folder", type=Path, help="where the files are made and kept")
    args = parser.parse_args()
    os.environ["GDAL_CACHEMAX"] = str(args.cache_mb)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        run(args.folder or Path(folder), args)


def run(folder: Path, args: argparse.Namespace) -> None:
    import numpy as np

    from covermap.core.config import DataConfig
    from covermap.data.scene import open_scenes
    from covermap.data.store import write_store

    folder.mkdir(parents=True, exist_ok=True)
    image, labels = folder / "image.tif", folder / "labels.tif"
    if not image.exists():
        generate(image, labels, args.side)
    config = DataConfig(image=[{"path": str(image), "bands": BANDS}], labels=str(labels))
    if not (folder / "store").exists():
        write_store(config, folder / "store")
    (packed,) = open_scenes(config)
    (stored,) = open_scenes(DataConfig(source="prepared", root=str(folder / "store")))
    size = f"{image.stat().st_size / 1e6:.0f} MB packed, {args.side**2 * 20 / 1e6:.0f} MB plain"
    print(json.dumps({"file": size, "cache_mb": args.cache_mb, "window": SIZE, "windows": args.windows}))
    places = np.random.default_rng(0).integers(0, args.side - SIZE, (args.windows * (args.rounds + 1), 2)).tolist()
    sides: dict[str, Callable[[int], None]] = {
        "rasterio, random": plain_reader(image, places, args.windows),
        "ours, in order of blocks": ordered_reader(packed, args.windows),
        "ours, random": random_reader(packed, places, args.windows),
        "ours, store": random_reader(stored, places, args.windows),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    if args.peer:
        times["torchgeo, RandomGeoSampler"] = []
    for number in range(args.rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side(number)
            times[name].append(time.perf_counter() - start)
        if args.peer:
            times["torchgeo, RandomGeoSampler"].append(peer(args.peer, image, args.windows, number))
    rows = {name: statistics.median(found[1:]) / args.windows * 1e3 for name, found in times.items()}  # first: warm-up
    for name, ms in rows.items():
        ratios = [one / mine for one, mine in zip(times["rasterio, random"][1:], times[name][1:], strict=True)]
        line = {"side": name, "ms_a_window": round(ms, 3), "times_rasterio": round(statistics.median(ratios), 1)}
        if "torchgeo, RandomGeoSampler" in times:
            theirs = times["torchgeo, RandomGeoSampler"][1:]
            line["times_torchgeo"] = round(
                statistics.median(one / mine for one, mine in zip(theirs, times[name][1:], strict=True)), 1
            )
        print(json.dumps(line), flush=True)


def generate(image: Path, labels: Path, side: int) -> None:
    """Waves with noise; about half of its size when packed, as real reflectance."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": side, "width": side, "crs": "EPSG:32631", "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "transform": from_origin(4e5, 4.6e6, 10, 10),
    }  # fmt: skip
    with (
        rasterio.open(image, "w", count=10, dtype="uint16", nodata=0, **profile) as file,
        rasterio.open(labels, "w", count=1, dtype="uint8", nodata=0, **profile) as codes,
    ):
        for row in range(0, side, 512):
            y, x = np.mgrid[row : row + 512, 0:side]
            waves = [2000 + 800 * np.sin(x / 97 + b) + 600 * np.cos(y / 61 - b) for b in range(10)]
            noisy = np.stack([wave + rng.normal(0, 60, wave.shape) for wave in waves]).astype("uint16")
            window = rasterio.windows.Window(0, row, side, 512)
            file.write(noisy, window=window)
            codes.write((1 + (x // 90 + y // 70) % 5).astype("uint8"), 1, window=window)
        for i, name in enumerate(BANDS, 1):
            file.set_band_description(i, name)


def plain_reader(image: Path, places: list[list[int]], count: int) -> Callable[[int], None]:
    import rasterio

    file = rasterio.open(image)

    def side(number: int) -> None:
        for row, col in places[number * count : (number + 1) * count]:
            file.read(window=rasterio.windows.Window(col, row, SIZE, SIZE))

    return side


def random_reader(scene: Any, places: list[list[int]], count: int) -> Callable[[int], None]:
    from covermap.geo.grid import Window

    def side(number: int) -> None:
        for row, col in places[number * count : (number + 1) * count]:
            scene.read(Window(row, col, SIZE, SIZE))

    return side


def ordered_reader(scene: Any, count: int) -> Callable[[int], None]:
    """The windows of a training data set, read in its order, without labels and normalisation as the other sides."""
    from covermap.core.train_config import TrainConfig
    from covermap.core.types import InputSpec, SensorInput
    from covermap.data.chips import TrainWindows, survey
    from covermap.data.split import Split, Tile
    from covermap.geo.grid import Window

    split = Split((Tile(scene.name, scene.grid.window, "train"),), 0)
    cells = survey([scene], split).cells
    spec = InputSpec((SensorInput("image", tuple(BANDS), (0.0,) * 10, (1.0,) * 10),))
    config = TrainConfig(size_px=SIZE, augment={"flips": False})
    data = TrainWindows([scene], split, cells, spec, config, length=count)
    windows: dict[int, list[Window]] = {}

    class Recorder:
        """Stands for the scene while the windows of an epoch are asked for."""

        grid, name = scene.grid, scene.name

        def read(self, window: Window) -> Any:
            seen.append(window)
            raise LookupError

    seen: list[Window] = []
    data._scenes = [Recorder()]
    for epoch in range(20):
        data.start(epoch)
        seen.clear()
        for number in range(count):
            try:
                data[number]
            except LookupError:
                continue
        windows[epoch] = list(seen)
        for batch in range(0, count - 15, 16):
            blocks = {(w.row // 512, w.col // 512) for w in seen[batch : batch + 16]}
            assert len(blocks) >= 8, (epoch, batch, len(blocks))

    def side(number: int) -> None:
        for window in windows[number]:
            scene.read(window)

    return side


PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
image, count, seed, size = json.loads(sys.argv[1])
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler
torch.manual_seed(seed)
torch.set_num_threads(1)
class Image(RasterDataset):
    filename_glob = "image.tif"
    is_image = True
    separate_files = False
data = Image(image)
sampler = RandomGeoSampler(data, size=size, length=count)
loader = DataLoader(data, sampler=sampler, batch_size=16, collate_fn=stack_samples)
start = time.perf_counter()
for batch in loader:
    assert batch["image"].shape[1:] == (10, size, size)
print(json.dumps(time.perf_counter() - start))
"""


def peer(python: str, image: Path, count: int, seed: int) -> float:
    arguments = json.dumps([str(image.parent), count, seed, SIZE])
    done = subprocess.run([python, "-c", PEER, arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return float(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
