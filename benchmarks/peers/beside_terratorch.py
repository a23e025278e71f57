"""covermap beside TerraTorch 1.2: start-up, install, networks, windows, a tiled scene, training to the same score.

Both hold the same tensors: TerraTorch makes the networks with random weights (Prithvi tiny with UNet, UperNet and FCN),
its checkpoints are imported. The scene is mapped with what TerraTorch learnt in `fit`.

usage: .venv/bin/python benchmarks/peers/beside_terratorch.py PYTHON WORK [WHAT ...] [--rounds 5]
           [--envs NAME=PYTHON ...]
    PYTHON   interpreter of an environment with terratorch 1.2
    WORK     folder for data and models, kept
    WHAT     install, start, network, windows, fit, tile; default: all
    --envs   with install: environments to be listed, with the same torch in each
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import data
import numpy as np
import rasterio
from common import OURS, Server, about, alternate, environment, header, job, row, timed

SIDE, BATCH = 224, 4
LR = 1e-3
DECODERS = ("unet", "upernet", "fcn")


class Work:
    """What both sides are given: files, and the statistics that they normalise by."""

    def __init__(self, python: str, folder: Path, train: int, val: int) -> None:
        self.python, self.folder = python, folder.resolve()
        self.chips, self.legend = self.folder / "chips", self.folder / "legend.yaml"
        if not self.legend.exists():
            data.chips(self.chips, train=train, val=val, side=SIDE)
            data.legend(self.legend)
        kept = self.folder / "numbers.json"
        if not kept.exists():
            for decoder in DECODERS:
                checkpoint = self.folder / f"{decoder}.ckpt"
                job(python, "by_terratorch.py", "build", decoder=decoder, out=checkpoint)
                kept.write_text(json.dumps(self.imported(checkpoint, self.folder / decoder)))
        self.numbers: dict[str, Any] = json.loads(kept.read_text())

    def imported(self, checkpoint: Path, model: Path) -> dict[str, Any]:
        """A checkpoint as our model folder; means and stds that its bands are normalised by."""
        found = job(OURS, "by_covermap.py", "import_checkpoint", checkpoint=checkpoint, legend=self.legend, out=model)
        return {key: found[key] for key in ("means", "stds")}

    @property
    def ours(self) -> dict[str, Any]:
        return {"folder": self.chips, "bands": data.BANDS, "legend": self.legend}

    @property
    def theirs(self) -> dict[str, Any]:
        return {"folder": self.chips, **self.numbers}


def install(environments: list[str]) -> None:
    print("\n| environment | packages | MB beside torch, torchvision, CUDA | those, MB |\n|---|---|---|---|")
    for each in environments:
        name, python = each.split("=", 1)
        found = environment(python)
        print(f"| {name} | {found['packages']} | {found['mb']:.0f} | {found['stack_mb']:.0f} |", flush=True)


def start(python: str, rounds: int) -> None:
    """Commands of both sides, and all imports before a training."""
    bins = Path(OURS).parent, Path(python).parent
    pairs: dict[str, tuple[tuple[object, ...], tuple[object, ...]]] = {
        "`--help`": ((bins[0] / "covermap", "--help"), (bins[1] / "terratorch", "--help")),
        "`train --help`, `fit --help`": (
            (bins[0] / "covermap", "train", "--help"), (bins[1] / "terratorch", "fit", "--help"),
        ),
        "`import` of the package": ((OURS, "-c", "import covermap"), (python, "-c", "import terratorch")),
        "imports before a training": (
            (OURS, "-c", "import covermap.verbs.train"),
            (python, "-c", "from terratorch.tasks import SemanticSegmentationTask; import terratorch.datamodules"),
        ),
        "`import torch` alone": ((OURS, "-c", "import torch"), (python, "-c", "import torch")),
    }  # fmt: skip
    for what, (mine, theirs) in pairs.items():
        found = alternate({"a": lambda c=mine: timed(*c), "b": lambda c=theirs: timed(*c)}, rounds)  # type: ignore[misc]
        for key, unit in (("cpu_s", "CPU s"), ("peak_mb", "MB")):
            row(f"{what}, {unit}", [f[key] for f in found["a"]], [f[key] for f in found["b"]], unit)


def calls(ours: Server, theirs: Server, what: str, name: str, rounds: int, *, per: float = 1) -> None:
    found = alternate({"a": lambda: ours.time(name), "b": lambda: theirs.time(name)}, rounds)
    for key, unit in (("cpu_s", "CPU s"), ("seconds", "s")):
        row(f"{what}, {unit}", [f[key] / per for f in found["a"]], [f[key] / per for f in found["b"]], unit)


def network(work: Work, rounds: int) -> None:
    """The same networks: forward as both predict, step as both train."""
    for decoder in DECODERS:
        sizes = {"batch": BATCH, "side": SIDE}
        ours = Server(OURS, "by_covermap.py", "network", model=work.folder / decoder, **sizes)
        theirs = Server(
            work.python, "by_terratorch.py", "network", decoder=decoder, checkpoint=work.folder / f"{decoder}.ckpt",
            **sizes,
        )  # fmt: skip
        counts = [each.facts["parameters"] / 1e6 for each in (ours, theirs)]
        for name in ("forward", "step"):
            calls(ours, theirs, f"{decoder} ({counts[0]:.2f} and {counts[1]:.2f} M parameters), {name}", name, rounds)
        ours.close(), theirs.close()


def windows(work: Work, rounds: int) -> None:
    """An epoch of training chips as batches: files read each time, and as covermap does it by default."""
    theirs = Server(work.python, "by_terratorch.py", "windows", batch=BATCH, **work.theirs)
    for what, cache_gb in (("read from files", 0.0), ("default: held in memory", 2.0)):
        ours = Server(OURS, "by_covermap.py", "windows", batch=BATCH, side=SIDE, cache_gb=cache_gb, **work.ours)
        assert ours.facts["windows"] == theirs.facts["windows"]
        calls(ours, theirs, f"a window, {what}", "epoch", rounds, per=ours.facts["windows"])
        ours.close()
    theirs.close()


def fit(work: Work, rounds: int, epochs: int) -> None:
    """Training from the same weights: time until each of several scores on the same val chips is first reached."""
    more = {"batch": BATCH, "epochs": epochs, "lr": LR}
    model, checkpoint = work.folder / "unet", work.folder / "unet.ckpt"
    sides = {
        "ours": lambda: job(
            OURS, "by_covermap.py", "fit", model=model, side=SIDE, out=work.folder / "runs", **work.ours, **more
        ),
        "theirs": lambda: job(
            work.python, "by_terratorch.py", "fit", decoder="unet", checkpoint=checkpoint,
            out=work.folder / "lightning", **work.theirs, **more,
        ),
    }  # fmt: skip
    found = alternate(sides, rounds)
    for side, runs in found.items():
        for run in runs:
            curve = ", ".join(f"{score:.3f} at {cpu:.0f}" for _, cpu, score in run["curve"])
            print(f"<!-- {side}: mIoU at CPU s: {curve}; wall {run['seconds']:.0f} s -->", flush=True)
    header("TerraTorch")
    for key, unit in (("whole_cpu_s", "CPU s"), ("peak_mb", "MB")):
        row(f"all {epochs} epochs, {unit}", *([f[key] for f in found[s]] for s in sides), unit=unit)
    for target in (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6):
        times = {s: [next((c for _, c, m in f["curve"] if m >= target), None) for f in found[s]] for s in sides}
        if all(None not in each for each in times.values()):
            row(f"val mIoU {target}, CPU s", *(times[s] for s in sides), unit="CPU s")  # type: ignore[arg-type]


def tile(work: Work, sides: list[int], rounds: int) -> None:
    """A scene with windows of 224 px that overlap by 24, by what TerraTorch learnt if `fit` has run."""
    learnt = sorted((work.folder / "lightning").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    checkpoint, model = learnt[-1] if learnt else work.folder / "unet.ckpt", work.folder / "learnt"
    work.imported(checkpoint, model)
    for side in sides:
        image = work.folder / f"scene_{side}.tif"
        if not image.exists():
            data.scene(image, None, side)
        mine, other = work.folder / "ours" / "map.tif", work.folder / "theirs.tif"
        found = alternate(
            {
                "a": lambda i=image, o=mine: job(
                    OURS, "by_covermap.py", "tile", model=model, image=i, out=o, bands=data.BANDS
                ),
                "b": lambda i=image, o=other: job(
                    work.python, "by_terratorch.py", "tile", decoder="unet", checkpoint=checkpoint, image=i, out=o,
                    **work.numbers,
                ),
            },
            rounds,
        )  # fmt: skip
        for key, unit in (
            ("cpu_s", "CPU s"),
            ("seconds", "s"),
            ("whole_cpu_s", "CPU s with imports"),
            ("peak_mb", "MB"),
        ):
            row(f"{side} x {side} px, {unit}", *([f[key] for f in found[s]] for s in ("a", "b")), unit=unit)
        with rasterio.open(mine) as one, rasterio.open(other) as two:
            print(f"\n{side} px: the same class in {np.mean(one.read(1) == two.read(1)):.4%} of the pixels\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("work", type=Path)
    parser.add_argument("what", nargs="*", default=["install", "start", "network", "windows", "fit", "tile"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fits", type=int, default=1, help="rounds of fit")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train", type=int, default=32, help="chips")
    parser.add_argument("--val", type=int, default=12, help="chips")
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096], help="with tile")
    parser.add_argument("--tiles", type=int, default=3, help="rounds of tile")
    parser.add_argument("--envs", nargs="+", default=[])
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    about(args.python, "torch", "terratorch", "torchgeo", "lightning", "rasterio", "numpy", "timm", "rioxarray")
    if "install" in args.what:
        install(args.envs)
    if "start" in args.what:
        header("TerraTorch")
        start(args.python, args.rounds)
    if not set(args.what) - {"install", "start"}:
        return
    work = Work(args.python, args.work, args.train, args.val)
    for name, run in {
        "network": lambda: network(work, args.rounds), "windows": lambda: windows(work, args.rounds),
    }.items():  # fmt: skip
        if name in args.what:
            header("TerraTorch")
            run()
    if "fit" in args.what:
        fit(work, args.fits, args.epochs)
    if "tile" in args.what:
        header("TerraTorch")
        tile(work, args.sides, args.tiles)


if __name__ == "__main__":
    main()
