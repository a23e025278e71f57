"""What stress.py works with: small generated data, calls of the command line that may be killed, outputs compared."""

from __future__ import annotations

import atexit
import csv
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin

HOOK = Path(__file__).resolve().parent / "stress_hook"
PACKAGE = Path(__file__).resolve().parent.parent


def write_tif(path: Path, values: Any, bands: Sequence[str] = (), *, row: float = 0) -> None:
    """Values (C, H, W) or (H, W) as a GeoTIFF at 10 m."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = values[None] if values.ndim == 2 else values
    count, height, width = values.shape
    place = from_origin(500_000, 5_000_000 - 10 * row, 10, 10)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs="EPSG:32631",
        transform=place, nodata=0,
    ) as file:  # fmt: skip
        file.write(values)
        for number, name in enumerate(bands, 1):
            file.set_band_description(number, name)


def landscape(seed: int, height: int = 96, width: int = 128) -> tuple[Any, Any]:
    """Codes (H, W) of three classes and numbers (3, H, W) that show them with noise."""
    draw = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    codes = 1 + ((rows // 12 + cols // 16 + (draw.random((height, width)) < 0.02)) % 3)
    means = np.array([[500, 900, 2500], [400, 600, 300], [1500, 1800, 2000]])
    image = means[codes - 1].transpose(2, 0, 1) + draw.normal(0, 150, (3, height, width))
    return codes.astype("uint8"), np.clip(image, 1, 9000).astype("uint16")


def write_data(folder: Path, seed: int = 0) -> None:
    """Two dates of an image with their labels, three scenes, and a config, a pre-training and a plan of a study."""
    bands = ["green", "red", "nir"]
    for number, name in enumerate(("", "_later")):
        codes, image = landscape(seed + number)
        write_tif(folder / f"image{name}.tif", image, bands)
        write_tif(folder / f"labels{name}.tif", codes)
    for number in range(3):
        write_tif(folder / f"scenes/scene_{number}.tif", landscape(seed + number, 64, 64)[1], bands, row=64 * number)
    data = {
        "image": [{"path": str(folder / "image.tif"), "date": "2020-07-01"}],
        "labels": str(folder / "labels.tif"), "legend": {1: "field", 2: "water", 3: "town"},
    }  # fmt: skip
    shared = {"output": "runs", "data": data, "split": {"block_px": 16, "buffer_px": 2}}
    steps = {"epochs": 3, "steps_per_epoch": 3, "batch_size": 4, "size_px": 32, "lr": 0.01}
    config = {
        **shared, "name": "small", "model": {"backbone_options": {"widths": [8, 16]}}, "train": steps,
        "decision": {"temperature": True}, "baseline": {"trees": 5, "samples": 500},
        "predict": {"size_px": 32, "workers": 1, "block_px": 32},
    }  # fmt: skip
    learnt = {
        **shared, "name": "unlabelled", "model": {"backbone": "vit_tiny", "backbone_options": {"patch_px": 8}},
        "method": {"name": "mae"},
        "train": {"steps": 12, "batch_size": 4, "size_px": 32, "watch_every": 4, "save_every": 3},
    }  # fmt: skip
    plan = {
        "title": "Small", "kind": "decoders", "config": {**config, "train": {**steps, "epochs": 2}}, "seeds": 1,
        "axes": {"model": {"unet": {"model.backbone": "unet"}, "forest": "forest"}}, "against": {"model": "forest"},
    }  # fmt: skip
    for name, text in (("covermap", config), ("pretrain", learnt), ("plan", plan)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")


CASES = {
    "prepare": "prepare ../data/covermap.yaml out/prepared --tile 32",
    "prepare_image": "prepare ../data/image.tif out/coarse.tif --gsd 20",
    "train": "train ../data/covermap.yaml --resume --set output=../work/out",
    "run": "run ../data/covermap.yaml --resume --set output=../work/out",
    "predict": "predict ../data/runs/small ../data/image.tif out/map.tif --date 2020-07-01 --block 32 --size 32 "
    "--workers 1",
    "predict_scenes": "predict ../data/runs/small ../data/scenes/*.tif out/maps --block 32 --size 32 --workers 1",
    "predict_processes": "predict ../data/runs/small ../data/image.tif out/map.tif --date 2020-07-01 --block 16 "
    "--size 32 --workers 2 --engine processes",
    "embed": "embed ../data/covermap.yaml out/chips.parquet --size 16 --workers 1",
    "embed_pixels": "embed ../data/runs/small ../data/image.tif out/pixels.tif --workers 1",
    "embed_scenes": "embed ../data/runs/small ../data/scenes/*.tif out/pixels --workers 1",
    "study": "study run ../data/plan.yaml out/study --engine serial",
    "pretrain": "pretrain ../data/pretrain.yaml --resume --set output=../work/out",
    "change": "change ../data/labels.tif ../data/labels_later.tif out/change.tif --legend ../data/legend.yaml "
    "--min-area 4px",
    "compare": "compare ../data/labels.tif ../data/labels_later.tif out/compared --legend ../data/legend.yaml "
    "--other-legend ../data/legend.yaml --raster",
    "change_model": "change ../data/image.tif@2018 ../data/image_later.tif@2022 out/change.tif "
    "--model ../data/runs/small",
}  # fmt: skip
"""Verbs with their options, called in a folder `work` beside `data`; what they make lies in out/."""


class Call:
    """A call of the command line in a process group of its own, forked from this one, which has imported what is slow.

    events: a file that gets each change of a file below cwd. kill_at: the change before which all is killed.
    """

    def __init__(
        self, arguments: Sequence[str], cwd: Path, *, events: Path | None = None, kill_at: int = 0,
        env: Mapping[str, str] | None = None, largest: int | None = None, cold: bool = False,
    ) -> None:  # fmt: skip
        self.arguments, self.cwd, self.started = list(arguments), cwd, time.perf_counter()
        self.told = cwd.parent / f"told_{time.monotonic_ns()}.txt"
        more = {"PYTHONPATH": f"{HOOK}{os.pathsep}{PACKAGE}", "COLUMNS": "200", **(env or {})}
        if events:
            events.unlink(missing_ok=True)
            more |= {"STRESS_FOLDER": str(cwd), "STRESS_EVENTS": str(events), "STRESS_KILL_AT": str(kill_at)}
        self.pid = os.fork()
        if self.pid == 0:
            self._become(more, largest, cold)

    def left(self, seconds: float = 10) -> bool:
        """Whether processes of its group are there after some seconds, which are then killed."""
        end = time.monotonic() + seconds
        try:
            while os.killpg(self.pid, 0) is None and time.monotonic() < end:
                time.sleep(0.01)
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _become(self, more: Mapping[str, str], largest: int | None, cold: bool) -> None:
        code = 1
        try:
            os.setsid()
            os.chdir(self.cwd)
            os.environ.update(more)
            told = os.open(self.told, os.O_WRONLY | os.O_CREAT)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(told, 1), os.dup2(told, 2)
            if largest:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            if cold:
                os.execv(sys.executable, [sys.executable, "-m", "covermap", *self.arguments])
            sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
            if "STRESS_EVENTS" in os.environ:
                runpy.run_path(str(HOOK / "sitecustomize.py"))
            sys.argv = ["covermap", *self.arguments]
            try:
                runpy.run_module("covermap", run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            atexit._run_exitfuncs()
            sys.stdout.flush(), sys.stderr.flush()
        except BaseException as error:
            os.write(2, f"Traceback of the harness: {error!r}\n".encode())
        finally:
            os._exit(code)

    def wait(self, seconds: float | None = None, *, alone: bool = False) -> Ended:
        """Wait for its end; after some seconds it is killed with all its processes, or alone.

        Processes that go on after a call that was killed alone are its own affair: they are not stopped here.
        """
        status = None
        while status is None:
            pid, found = os.waitpid(self.pid, 0 if seconds is None else os.WNOHANG)
            if pid:
                status = found
            elif seconds is not None and time.perf_counter() - self.started > seconds:
                (os.kill if alone else os.killpg)(self.pid, signal.SIGKILL)
                seconds = None
            else:
                time.sleep(0.002)
        try:
            while (
                not alone and os.killpg(self.pid, signal.SIGKILL) is None
            ):  # what it started is not to go on beside the next call
                time.sleep(0.01)
        except ProcessLookupError:
            pass
        told = self.told.read_text(encoding="utf-8", errors="replace") if self.told.exists() else ""
        self.told.unlink(missing_ok=True)
        return Ended(os.waitstatus_to_exitcode(status), told, time.perf_counter() - self.started)


@dataclass(frozen=True)
class Ended:
    """code: that of the process, -9 if it was killed. told: all that it said."""

    code: int
    told: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def rude(self) -> str:
        """What a user is not to see: a traceback, a bug, or an error without its remedy."""
        if "Traceback" in self.told or "a bug in covermap" in self.told:
            return self.told.strip()[-600:]
        if self.code > 0 and ("error:" not in self.told or "fix:" not in self.told):
            return f"exit code {self.code} without a reason: {self.told.strip()[-300:]}"
        return ""

    @property
    def error(self) -> str:
        """Its error message in one line."""
        return " ".join(self.told.partition("error:")[2].split())


def arguments_of(case: str) -> list[str]:
    """A case as the words of a command line."""
    return CASES[case].split()


def fresh(root: Path) -> Path:
    """The folder that calls work in, empty."""
    work = root / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    return work


_TIMES = (
    "seconds",
    "train_seconds",
    "test_seconds",
    "peak_memory_mb",
    "test_km2",
    "km2_per_s",
    "command",
    "duration",
    "datetime",
)
_LOOSE = {"study.json", "report.html", "LOG.md", "cells.parquet", "log.csv", "versions.json"}
"""Files that hold times; that they are there and can be read is all that is asked."""


def contents(folder: Path) -> dict[str, Any]:
    """What is compared of each file below a folder, by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[f"{name}/"] = b""
        elif path.name != ".lock":
            found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".log" or path.name in _LOOSE:
        return b"" if path.stat().st_size or path.suffix == ".log" else b"empty"
    if path.suffix == ".pt":
        import torch

        return _numbers(torch.load(path, weights_only=True))
    if path.name == "cell.json" or (path.parent.name == "jobs" and path.suffix == ".json"):
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.name == "item.stac.json":  # of a model whose dates are not known it says when it was made
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.name == "log.jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.name == "cells.csv":
        with open(path, newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if row["score"] not in _TIMES]
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _numbers(value: Any) -> Any:
    if hasattr(value, "numpy"):
        return value.numpy().tobytes()
    if isinstance(value, Mapping):
        return {key: _numbers(each) for key, each in value.items()}
    return [_numbers(each) for each in value] if isinstance(value, list | tuple) else value


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of files that are too many, missing or other."""
    said = [f"left over: {name}" for name in found if name not in wanted]
    said += [f"missing: {name}" for name in wanted if name not in found]
    return said + [f"differs: {name}" for name in wanted if name in found and found[name] != wanted[name]]
