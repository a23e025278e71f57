"""Scenes larger than memory: peak memory from 4k to 64k px, and a Sentinel-2 tile beside TerraTorch's tiled inference.

    memory      peak of `predict` on scenes of several sides with a small network; they are VRTs that repeat one
                generated tile
    tile        peak and time of `predict` on 10,980 x 10,980 px x 10 bands with 12 classes
    terratorch  time and peak of both on a crop, with the same network; TerraTorch's Python is named by --python

usage: .venv/bin/python benchmarks/large.py memory --sides 4096 16384 65536
       .venv/bin/python benchmarks/large.py tile
       .venv/bin/python benchmarks/large.py terratorch --python PYTHON [--side 2048]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import rasterio
import torch
from predict import write_model, write_scene

from covermap.core.legend import LandClass, Legend
from covermap.core.types import InputSpec, SensorInput
from covermap.geo.grid import Window
from covermap.models import NetworkModel, load_model, save_model
from covermap.nn.build import build_model

TILE_PX = 4096
SENTINEL = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir_narrow", "swir1", "swir2")
PREDICT = (
    "import sys, time\n"
    "from covermap.core.train_config import PredictConfig\n"
    "from covermap.verbs.predict import predict\n"
    "start = time.perf_counter()\n"
    "predict(*sys.argv[1:4], settings=PredictConfig(workers=int(sys.argv[4])), overwrite=True)\n"
    "print(time.perf_counter() - start)\n"
    # Not getrusage: its peak is inherited from the process that started this one.
    "print(int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 1024)\n"
)
TERRATORCH = (
    "import sys, time\n"
    "import numpy as np, rasterio, torch\n"
    "from terratorch.tasks.tiled_inference import tiled_inference\n"
    "torch.set_num_threads(int(sys.argv[4]))\n"
    "network = torch.jit.load(sys.argv[1]).eval()\n"
    "start = time.perf_counter()\n"
    "with rasterio.open(sys.argv[2]) as dataset:\n"
    "    values, profile = dataset.read(), dataset.profile\n"
    "image = torch.from_numpy((values.astype(np.float32) * 1e-4 - 0.15) / 0.1)[None]\n"
    "more = {'crop': 256, 'stride': 232, 'delta': 4, 'batch_size': 4, 'device': 'cpu'}\n"
    "with torch.inference_mode():\n"
    "    found = tiled_inference(network, image, 12, **more)\n"
    "codes = found.argmax(1)[0].to(torch.uint8).numpy()\n"
    "profile.update(count=1, dtype='uint8', nodata=None, compress='deflate', tiled=True)\n"
    "with rasterio.open(sys.argv[3], 'w', **profile) as dataset:\n"
    "    dataset.write(codes, 1)\n"
    "print(time.perf_counter() - start)\n"
    "print(int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 1024)\n"
)


def run(python: str, code: str, *arguments: object) -> tuple[float, float]:
    """Seconds and peak MB of a script in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": str(arguments[-1])}
    done = subprocess.run([python, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, peak = map(float, done.stdout.split()[-2:])
    return seconds, peak


def repeat(tile: Path, out: Path, side: int) -> None:
    """A VRT of side x side px that shows one tile again and again."""
    with rasterio.open(tile) as dataset:
        px, names, crs, transform = (
            dataset.width,
            dataset.descriptions,
            dataset.crs.to_wkt(),
            dataset.transform.to_gdal(),
        )
    bands = []
    for number, name in enumerate(names, 1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{tile.name}</SourceFilename>'
            f'<SourceBand>{number}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{px}" ySize="{px}"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="{px}" ySize="{px}"/></SimpleSource>'
            for row in range(0, side, px) for col in range(0, side, px)
        )  # fmt: skip
        bands.append(
            f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{name}</Description>'
            f"<NoDataValue>0</NoDataValue>{sources}</VRTRasterBand>"
        )
    place = ", ".join(map(str, transform))
    out.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{crs}</SRS><GeoTransform>{place}</GeoTransform>'
        f"{''.join(bands)}</VRTDataset>"
    )


def memory(root: Path, sides: list[int]) -> None:
    write_scene(root / "tile.tif", TILE_PX)
    write_model(root / "model", widths=(4, 8))
    print("| scene | s | peak MB |\n|---|---|---|")
    for side in sides:
        repeat(root / "tile.tif", root / f"{side}.vrt", side)
        seconds, peak = run(
            sys.executable, PREDICT, root / "model", root / f"{side}.vrt", root / str(side) / "m.tif", 2
        )
        print(f"| {side:,} x {side:,} | {seconds:.0f} | {peak:.0f} |", flush=True)


def write_tile(path: Path, side: int) -> None:
    """Ten bands of uint16, of a generated scene's six with noise, compressed as mosaics are."""
    base = path.with_name("base.tif")
    write_scene(base, 1024)
    with rasterio.open(base) as dataset:
        six, profile = dataset.read(), dataset.profile
    ten = six[[0, 1, 2, 3, 3, 3, 3, 3, 4, 5]]
    ten = np.clip(ten + np.random.default_rng(0).integers(-30, 30, ten.shape), 1, None).astype("uint16")
    profile.update(width=side, height=side, count=10, tiled=True, blockxsize=512, blockysize=512, compress="deflate",
                   BIGTIFF="IF_SAFER")  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        for row in range(0, side, 1024):
            for col in range(0, side, 1024):
                window = Window(row, col, 1024, 1024).intersect(Window(0, 0, side, side))
                dataset.write(ten[:, : window.height, : window.width], window=window.rasterio)
        for number, name in enumerate(SENTINEL, 1):
            dataset.set_band_description(number, name)


def write_network(root: Path, widths: tuple[int, ...]) -> None:
    """The same network as a model folder, and traced for TerraTorch."""
    torch.manual_seed(0)
    spec = InputSpec((SensorInput("sentinel2", SENTINEL, (0.15,) * 10, (0.1,) * 10, 1e-4),), 10.0, 256)
    classes = tuple(LandClass(k, f"class {k}", f"#{k * 20:02x}4080") for k in range(1, 13))
    legend = Legend(name="twelve", title="Twelve classes", nodata=0, classes=classes)
    options = {"backbone_options": {"widths": list(widths)}}
    save_model(NetworkModel(spec, legend, build_model(spec, 12, **options), {}), root / "model", build=options)
    model = load_model(root / "model")
    assert isinstance(model, NetworkModel)

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.forward

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            from covermap.core.types import Batch

            return self.network(Batch({"sentinel2": x[:, None]}, torch.ones(len(x), 1, 256, 256, dtype=torch.bool)))

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, which they are
        torch.jit.save(torch.jit.trace(Traced(), torch.rand(4, 10, 256, 256)), root / "network.pt")


def tile(root: Path, side: int, workers: int) -> None:
    write_tile(root / "tile.tif", side)
    write_network(root, (16, 32, 48, 64, 96))
    seconds, peak = run(sys.executable, PREDICT, root / "model", root / "tile.tif", root / "out" / "map.tif", workers)
    print(f"{side:,} x {side:,} x 10 bands, 12 classes, {workers} workers: {seconds:.0f} s, peak {peak:.0f} MB")


def beside(root: Path, side: int, python: str, rounds: int) -> None:
    write_tile(root / "tile.tif", side)
    write_network(root, (16, 32, 48, 64, 96))
    print(f"{side} px, 2 threads | covermap s, MB | TerraTorch s, MB | ratio of times")
    for _ in range(rounds):
        ours = run(sys.executable, PREDICT, root / "model", root / "tile.tif", root / "out" / "map.tif", 2)
        theirs = run(python, TERRATORCH, root / "network.pt", root / "tile.tif", root / "theirs.tif", 2)
        print(f"{ours[0]:.1f} {ours[1]:.0f} | {theirs[0]:.1f} {theirs[1]:.0f} | {theirs[0] / ours[0]:.2f}", flush=True)
    with rasterio.open(root / "out/map.tif") as one, rasterio.open(root / "theirs.tif") as two:
        same = np.mean(one.read(1) == two.read(1) + 1)
    print(f"pixels of the same class: {same:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "tile", "terratorch"])
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--side", type=int, help="of the tile: 10980, beside TerraTorch 2048")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--python", default="")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if args.what == "memory":
            memory(Path(folder), args.sides)
        elif args.what == "tile":
            tile(Path(folder), args.side or 10980, args.workers)
        else:
            beside(Path(folder), args.side or 2048, args.python, args.rounds)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
