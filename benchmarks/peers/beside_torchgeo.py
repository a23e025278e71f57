"""covermap beside TorchGeo 0.8: start-up, install, windows of a GeoTIFF, U-Net with ResNet-18, a scene's map.

usage: .venv/bin/python benchmarks/peers/beside_torchgeo.py PYTHON WORK [WHAT ...] [--rounds 5] [--side 4096]
    PYTHON   interpreter of an environment with torchgeo 0.8 (and requests, which it imports without asking for it)
    WORK     folder for data and models, kept
    WHAT     install, start, windows, network, predict; default: all
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import data
from beside_terratorch import calls, install
from common import OURS, Server, about, alternate, header, job, row, timed

MEAN, STD = [1500.0] * 6, [1000.0] * 6
WIDTHS = [32, 64, 128, 256]
"""Channels of our U-Net decoder, finest first. segmentation_models_pytorch also joins a map at a stride of 2 px and
computes 16 channels at full size: the networks are alike, not the same; operations are printed beside the times."""


def start(python: str, rounds: int) -> None:
    bins = Path(OURS).parent, Path(python).parent
    pairs: dict[str, tuple[tuple[object, ...], tuple[object, ...]]] = {
        "`--help`": ((bins[0] / "covermap", "--help"), (bins[1] / "torchgeo", "--help")),
        "`import` of the package": ((OURS, "-c", "import covermap"), (python, "-c", "import torchgeo")),
        "imports before a training": (
            (OURS, "-c", "import covermap.verbs.train"),
            (python, "-c", "import torchgeo.datasets, torchgeo.samplers, torchgeo.trainers"),
        ),
    }  # fmt: skip
    for what, (mine, theirs) in pairs.items():
        found = alternate({"a": lambda c=mine: timed(*c), "b": lambda c=theirs: timed(*c)}, rounds)  # type: ignore[misc]
        for key, unit in (("cpu_s", "CPU s"), ("peak_mb", "MB")):
            row(f"{what}, {unit}", [f[key] for f in found["a"]], [f[key] for f in found["b"]], unit)


def windows(python: str, folder: Path, legend: Path, rounds: int, *, size: int, count: int) -> None:
    """Random windows with labels, as batches of 16; windows of a grid, without."""
    sizes: dict[str, Any] = {"folder": folder, "size": size, "count": count, "batch": 16}
    mine = {"legend": legend, "bands": data.BANDS}
    theirs = Server(python, "by_torchgeo.py", "windows", **sizes)
    for what, store in (("GeoTIFF on both sides", None), ("covermap: from `prepare`", folder / "store")):
        ours = Server(OURS, "by_covermap.py", "scene_windows", store=store, **sizes, **mine)
        calls(ours, theirs, f"a random window with labels, {what}", "random", rounds, per=count)
        assert ours.facts == theirs.facts, (ours.facts, theirs.facts)
        calls(ours, theirs, f"a window of a grid, {what}", "grid", rounds, per=ours.facts["grid"])
        ours.close()
    theirs.close()


def network(python: str, model: Path, rounds: int) -> None:
    sizes = {"batch": 4, "side": 256}
    ours, theirs = (
        Server(OURS, "by_covermap.py", "network", model=model, **sizes),
        Server(python, "by_torchgeo.py", "network", **sizes),
    )
    for name in ("forward", "step"):
        calls(ours, theirs, name, name, rounds)
    print(f"<!-- parameters and GFLOP of a forward pass, ours and theirs: {ours.facts}, {theirs.facts} -->")
    found = alternate({"a": lambda: ours.time("step"), "b": lambda: theirs.time("task_step")}, rounds)
    row("step; TorchGeo's with the task's metrics, CPU s", *([f["cpu_s"] for f in found[s]] for s in ("a", "b")))
    ours.close(), theirs.close()


def predict(python: str, model: Path, folder: Path, out: Path, rounds: int) -> None:
    """256 px windows, batches of 4: without overlap, and by a stride of 232 px, which covermap blends."""
    image = folder / "image.tif"
    for overlap in (24, 0):
        sizes = {"size": 256, "stride": 256 - overlap, "mean": MEAN, "std": STD, "batch": 4}
        found = alternate(
            {
                "a": lambda o=overlap: job(
                    OURS, "by_covermap.py", "tile", model=model, image=image, out=out / "ours/map.tif",
                    bands=data.BANDS, overlap_px=o,
                ),
                "b": lambda s=sizes: job(python, "by_torchgeo.py", "predict", folder=folder, out=out / "geo.tif", **s),
            },
            rounds,
        )  # fmt: skip
        # Imports count on both sides: each does some of them late.
        for key, unit in (("whole_cpu_s", "CPU s"), ("seconds", "s"), ("peak_mb", "MB")):
            row(f"map, overlap {overlap} px, {unit}", *([f[key] for f in found[s]] for s in ("a", "b")), unit=unit)
        print(f"<!-- pixels that TorchGeo's grid left out: {found['b'][0]['left_out']:.3%} -->", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("work", type=Path)
    parser.add_argument("what", nargs="*", default=["install", "start", "windows", "network", "predict"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--maps", type=int, default=3, help="rounds of predict")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--envs", nargs="+", default=[])
    args = parser.parse_args()
    os.environ.setdefault("GDAL_CACHEMAX", "64")  # alike on both sides, smaller than the scene
    work = args.work.resolve()
    folder, legend, model = work / f"scene_{args.side}", work / "legend.yaml", work / "resnet18"
    folder.mkdir(parents=True, exist_ok=True)
    about(args.python, "torch", "torchgeo", "lightning", "rasterio", "numpy", "segmentation-models-pytorch")
    if not (model / "config.json").exists() or not (folder / "labels.tif").exists():
        data.legend(legend)
        data.scene(folder / "image.tif", folder / "labels.tif", args.side)
        job(
            OURS,
            "by_covermap.py",
            "unet",
            out=model,
            legend=legend,
            bands=data.BANDS,
            mean=MEAN,
            std=STD,
            widths=WIDTHS,
        )
    if "install" in args.what:
        install(args.envs)
    parts = {
        "start": lambda: start(args.python, args.rounds),
        "windows": lambda: windows(args.python, folder, legend, args.rounds, size=256, count=args.windows),
        "network": lambda: network(args.python, model, args.rounds),
        "predict": lambda: predict(args.python, model, folder, work, args.maps),
    }
    for name, run in parts.items():
        if name in args.what:
            header("TorchGeo")
            run()


if __name__ == "__main__":
    main()
