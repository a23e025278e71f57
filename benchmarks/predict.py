"""Prediction of generated scenes: wall time beside the bare forward passes, peak memory, seams, windows.

usage: .venv/bin/python benchmarks/predict.py [--side 4096] [--block 2048] [--large 16384] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch

from covermap.core.engine import cores
from covermap.core.legend import Legend
from covermap.core.train_config import PredictConfig
from covermap.core.types import InputSpec, SensorInput
from covermap.data.chips import image_batch
from covermap.data.simulate import BANDS, LEGEND, SceneRecipe, SimulatedScene
from covermap.geo.grid import Window
from covermap.geo.writer import RasterWriter
from covermap.infer import Lattice
from covermap.models import NetworkModel, load_model, save_model
from covermap.nn.build import build_model
from covermap.verbs.predict import predict

WIDTHS = (16, 32, 48, 64, 96)


def write_scene(path: Path, side: int) -> None:
    """A scene of side x side px that repeats a generated one of 1024 px, so that it is written in seconds."""
    scene = SimulatedScene(SceneRecipe(height=1024, width=1024, seed=1))
    tile = scene.optical(Window(0, 0, 1024, 1024))
    grid = scene.grid.__class__(scene.grid.crs, scene.grid.transform, side, side)
    with RasterWriter(path, grid, bands=BANDS, dtype="uint16", nodata=0, overwrite=True) as writer:
        for row in range(0, side, 1024):
            for col in range(0, side, 1024):
                window = Window(row, col, 1024, 1024).intersect(grid.window)
                writer.write(window, tile[:, : window.height, : window.width])


def write_model(folder: Path, *, widths: tuple[int, ...] = WIDTHS) -> None:
    """An untrained network with plausible statistics: the time of a forward pass does not depend on the weights."""
    torch.manual_seed(0)
    spec = InputSpec((SensorInput("landsat7", tuple(BANDS), (0.1,) * 6, (0.08,) * 6, 1e-4),), 10.0, 256)
    options = {"backbone_options": {"widths": list(widths)}}
    legend: Legend = LEGEND
    save_model(NetworkModel(spec, legend, build_model(spec, len(legend), **options), {}), folder, build=options)


def forward_seconds(model_folder: Path, image: Path, settings: PredictConfig, threads: int = 1) -> tuple[float, int]:
    """Seconds of the network alone on the windows that predict computes, in the same batches."""
    torch.set_num_threads(threads)
    model = load_model(model_folder)
    assert isinstance(model, NetworkModel)
    with rasterio.open(image) as dataset:
        area = Window(0, 0, dataset.height, dataset.width)
        values = dataset.read(window=Window(0, 0, 256, 256).rasterio)
    windows = Lattice(area, 256, 24)
    from covermap.core.types import Sample

    sample = Sample({"landsat7": values[None]}, np.ones((1, 256, 256), bool))
    num, seconds = 0, 0.0
    for block in windows.blocks(settings.block_px):
        rows = sum(r < block.row + block.height and r + 256 > block.row for r in windows.rows)
        cols = sum(c < block.col + block.width and c + 256 > block.col for c in windows.cols)
        for _ in range(cols):
            for first in range(0, rows, settings.batch_size):
                size = min(settings.batch_size, rows - first)
                batch = image_batch([sample] * size, model.spec)
                start = time.perf_counter()
                with torch.inference_mode():
                    model.forward(batch)
                seconds += time.perf_counter() - start
                num += size
    return seconds, num


def peak_mb(model: Path, image: Path, out: Path) -> float:
    """Peak resident memory of a predict call in a process of its own."""
    code = (
        "import sys\nfrom covermap.core.train_config import PredictConfig\n"
        "from covermap.verbs.predict import predict\n"
        "predict(sys.argv[1], sys.argv[2], sys.argv[3], settings=PredictConfig(workers=1), overwrite=True)\n"
        # Not getrusage: its peak is inherited from the process that started this one.
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), str(image), str(out)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout) / 1024


def flip_rates(map_path: Path, windows: Lattice) -> tuple[float, float]:
    """Share of neighbouring pixels with different classes across window borders, and everywhere else."""
    with rasterio.open(map_path) as dataset:
        codes = dataset.read(1)
    change = codes[:, 1:] != codes[:, :-1]
    edges = sorted({c - 1 for c in windows.cols[1:]} | {c + windows.width - 1 for c in windows.cols[:-1]})
    at_border = change[:, edges]
    inside = np.delete(change, edges, axis=1)
    return float(at_border.mean()), float(inside.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--large", type=int, default=0, help="also the peak memory of a scene of this side")
    parser.add_argument("--block", type=int, default=2048, help="rows of a block")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, cores()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="a trained model folder for the seams; default: an untrained network")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scene(root / "scene.tif", args.side)
        write_model(root / "model")
        found: dict[str, object] = {"side_px": args.side}
        num = 0
        for workers in args.workers:
            settings = PredictConfig(workers=workers, block_px=args.block)
            ratios = []
            for _ in range(args.rounds):
                # The machine's speed drifts: the forward passes are measured on both sides of the prediction.
                before, num = forward_seconds(root / "model", root / "scene.tif", settings, workers)
                start = time.perf_counter()
                predict(root / "model", str(root / "scene.tif"), root / "map.tif", settings=settings, overwrite=True)
                seconds = time.perf_counter() - start
                after, _ = forward_seconds(root / "model", root / "scene.tif", settings, workers)
                ratios.append(2 * seconds / (before + after))
                print(
                    f"{workers} workers: bare forward {before:.1f} and {after:.1f} s, predict {seconds:.1f} s, "
                    f"ratio {ratios[-1]:.3f}",
                    flush=True,
                )
            if ratios:
                found[f"predict_over_bare_median_{workers}_workers"] = round(statistics.median(ratios), 3)
        if num:
            found |= {"windows": num, "windows_over_partition": round(num / (-(-args.side // 256)) ** 2, 3)}
        model = Path(args.model) if args.model else root / "model"
        predict(model, str(root / "scene.tif"), root / "map.tif", overwrite=True)
        at_border, inside = flip_rates(root / "map.tif", Lattice(Window(0, 0, args.side, args.side), 256, 24))
        found |= {"flips_at_window_borders": round(at_border, 5), "flips_inside": round(inside, 5)}
        write_model(root / "small", widths=(4, 8))
        found["peak_mb"] = round(peak_mb(root / "small", root / "scene.tif", root / "m.tif"))
        if args.large:
            write_scene(root / "large.tif", args.large)
            found[f"peak_mb_{args.large}"] = round(peak_mb(root / "small", root / "large.tif", root / "l.tif"))
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
