"""Run: the folder of one run, and what makes it repeatable.

config.yaml  versions.json  inputs.json  split.csv  log.jsonl  log.csv
checkpoints/last.pt  model/ (best)  baseline/  metrics.json  confusion.csv  areas.csv  map.tif ...  report.html
assessment.json (of map.tif, by covermap assess)
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from covermap.core.config import RunConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import DataError, OutputError
from covermap.core.output import write_text, writing
from covermap.core.parsing import as_written, parse_json, parse_yaml, read_csv, read_json, read_text, read_yaml
from covermap.core.results import Assessed, Scored
from covermap.core.table import Table

_MAPS = ("map.tif", "confidence.tif", "entropy.tif", "set_size.tif", "sets.tif", "applicability.tif",
         "probs.tif")  # fmt: skip
_WRITTEN = (
    *(
        "model",
        "baseline",
        "checkpoints",
        "maps",
        "tensorboard",
        "log.*",
        "metrics*.json",
        "*_test*.csv",
        "*_val*.csv",
        "blocks_*.npz",
    ),
    *("map.*", *_MAPS, "areas.csv", "assessment.json"),
    *("*_train*.csv", "split.csv", "inputs.json", "notes.json", "weights.json", "report.html"),
)
_PACKAGES = ("covermap", "torch", "numpy", "rasterio", "accelerate", "transformers", "scikit-learn")


class RunFolder:
    """The folder of a run: its files, its log, and the inputs that it was made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def write_json(self, name: str, values: Any) -> Path:
        """Write values as JSON, whole or not at all; NaN becomes null."""
        return write_text(self.path(name), json.dumps(plain(values), indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run; raises DataError when it is not there."""
        if not self.path(name).is_file():
            raise DataError(
                f"{self.folder} has no {name} yet", fix="run the step that writes it: train, evaluate or predict"
            )
        return read_json(self.path(name), fix="run the step that writes it again: train, evaluate or predict")

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row to log.jsonl and log.csv."""
        with writing(self.path("log.jsonl")), open(self.path("log.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps(plain(row)) + "\n")
        rows = self.read_log()
        columns = list(dict.fromkeys(key for one in rows for key in one))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path("log.csv"), text.getvalue())

    def read_log(self) -> list[dict[str, Any]]:
        """All rows logged so far; a last line cut by a crash is left out."""
        if not self.path("log.jsonl").is_file():
            return []
        rows = []
        for line in read_text(self.path("log.jsonl"), fix="train again with --overwrite").splitlines():
            try:
                row = parse_json(line)
            except ValueError:
                break
            if not isinstance(row, dict):
                break
            rows.append(row)
        return rows

    def keep_log_until(self, last: int, key: str = "epoch") -> None:
        """Drop rows after an epoch (or step), which a resumed run writes again."""
        with as_written(self.path("log.jsonl"), fix="train again with --overwrite"):
            rows = [row for row in self.read_log() if row[key] <= last]
        write_text(self.path("log.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))

    def record_inputs(self, paths: Iterable[str]) -> None:
        """Checksums of all local input files into inputs.json, so that a changed input is noticed later."""
        self.write_json("inputs.json", {path: checksum(path) for path in paths if Path(path).is_file()})

    def require_inputs(self, paths: Iterable[str]) -> None:
        """Refuse to go on when a file is no longer the one that the run was trained with; raises DataError."""
        before = self.read_json("inputs.json")
        now = {path: checksum(path) for path in paths if Path(path).is_file()}
        if not isinstance(before, dict):
            raise DataError(f"{self.path('inputs.json')} is damaged", fix="train again with --overwrite")
        changed = sorted(path for path in before.keys() | now if before.get(path) != now.get(path))
        if changed:
            raise DataError(
                f"{', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''} changed since {self.folder} was trained",
                fix="put the old file back, or train again: covermap train CONFIG --overwrite",
            )


class Run(RunFolder):
    """A run's folder. `Run.create` starts one, `Run.open` reads a finished or interrupted one."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        super().__init__(folder)
        self.config = config

    @staticmethod
    def create(config: RunConfig, *, overwrite: bool = False, resume: bool = False) -> Run:
        """Make the folder and write config and versions; raises OutputError when a run is there already."""
        folder = config.folder
        run = Run(folder, config)
        Run.require_free(config, overwrite=overwrite, resume=resume)
        if run.path("config.yaml").exists():
            if resume:
                return run
            # Only what a run writes: a folder that also holds other things keeps them.
            for name in _WRITTEN:
                for path in folder.glob(name):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        with writing(folder):
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(run.path("config.yaml"), yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        run.write_json("versions.json", versions())
        return run

    @staticmethod
    def require_free(config: RunConfig, *, overwrite: bool, resume: bool) -> None:
        """Refuse a folder that holds a run, unless it is replaced, or resumed with the settings it was started with."""
        if overwrite or not (config.folder / "config.yaml").exists():
            return
        if not resume:
            raise OutputError(
                f"{config.folder} holds a run already",
                fix="add --resume to go on with it, or --overwrite to start again",
            )
        before, now = (each.model_dump(mode="json") for each in (Run.open(config.folder).config, config))
        for each in (before, now):  # a step in more parts is the same step
            each["train"]["batch_size"] *= each["train"].pop("accumulate")
        differing = [key for key in ("task", "data", "split", "model", "train", "decision") if before[key] != now[key]]
        if differing:
            raise OutputError(
                f"{config.folder} was started with other settings in {', '.join(differing)}",
                fix="go on with its own config.yaml, or start again with --overwrite",
            )

    @staticmethod
    def open(folder: str | Path) -> Run:
        """An existing run; raises DataError when the folder is none."""
        folder = Path(folder)
        if not (folder / "config.yaml").is_file():
            raise DataError(f"{folder} is not a run: it has no config.yaml", fix="give the folder that train printed")
        raw = read_yaml(folder / "config.yaml", fix="give a run as train left it")
        if is_pretraining(folder):
            raise DataError(
                f"{folder} is a pre-training: a backbone without classes",
                fix=f"train on it: model: {{backbone: {folder}}}; covermap report {folder} says what it learnt",
            )
        if not isinstance(raw, dict):
            raise DataError(f"{folder / 'config.yaml'} holds no settings", fix="give a run as train left it")
        return Run(folder, parse_config(raw, where=str(folder / "config.yaml")))

    @staticmethod
    def keeps(path: str | Path) -> bool:
        """Whether a path is a file where a run keeps its maps: in its folder, or in maps/ of it."""
        folder = Path(path).absolute().parent
        folder = folder.parent if folder.name == "maps" else folder
        return Path(path).is_file() and all((folder / name).is_file() for name in ("config.yaml", "versions.json"))

    def map_path(self, scene: str, num_scenes: int) -> Path:
        """Where the map of a scene lies: `map.tif`, or `maps/SCENE.tif` in a run of several scenes."""
        return self.path("map.tif" if num_scenes == 1 else f"maps/{scene}.tif")

    @property
    def map_files(self) -> list[Path]:
        """All maps and their layers that are there."""
        alone = [path for name in _MAPS if (path := self.path(name)).is_file()]
        return [*alone, *sorted(self.folder.glob("maps/*.tif"))]

    def scores(self, part: str = "test") -> Scored:
        """Scores of its models on a part, as `evaluate` left them; raises DataError where it has not been called."""
        name = "metrics.json" if part == "test" else f"metrics_{part}.json"
        with as_written(self.path(name), fix=f"score it again: covermap evaluate {self.folder}"):
            return Scored(self.read_json(name))

    def areas(self) -> Table:
        """Hectares of each class of map.tif by pixel counts and, where a sample was assessed, estimated ones.

        Raises DataError where there is no map.
        """
        from covermap.core.design import assessment_beside

        mapped = self.path("map.tif")
        if not self.path("areas.csv").is_file():
            raise DataError(f"{self.folder} has no areas.csv yet", fix="map a scene: covermap run or predict")
        kept = assessment_beside(mapped)
        if kept.is_file():
            found = Assessed(self.read_json(kept.name))
            if found["map_checksum"] == checksum(mapped):  # it may be that of an earlier map
                return found.table
        areas, fix = self.path("areas.csv"), "map the scene again: covermap run or predict"
        with as_written(areas, fix=fix):
            rows = [[row["class"], float(row["area_ha"])] for row in read_csv(areas, ("class", "area_ha"), fix=fix)]
        return Table(["class", "mapped ha"], rows, "mapped area (pixel counts)", {"mapped ha": ",.1f"})

    def _repr_html_(self) -> str:
        from covermap.core.notebook import run_html

        return run_html(self)


def checksum(path: str | Path, *, whole_below: int = 1 << 28) -> str:
    """BLAKE2b of a file; of larger ones its size and 64 evenly spaced MiB, so that huge mosaics stay quick."""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=32)
    with open(path, "rb") as file:
        if size <= whole_below:
            while part := file.read(1 << 20):
                digest.update(part)
        else:
            for i in range(64):
                file.seek((size - (1 << 20)) * i // 63)
                digest.update(file.read(1 << 20))
    return digest.hexdigest()


def is_pretraining(folder: str | Path) -> bool:
    """Whether a folder holds a pre-training, by its config.yaml."""
    try:
        raw = parse_yaml((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and "method" in raw


def versions() -> dict[str, str]:
    """Versions of Python, the packages that matter, the platform, the command and the git commit if there is one.

    processes: how many run the command, where there are several (torchrun, accelerate launch).
    """
    found = {"python": platform.python_version(), "platform": platform.platform(), "command": " ".join(sys.argv)}
    if (count := os.environ.get("WORLD_SIZE", "1")) != "1":
        found["processes"] = count
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        if commit.returncode == 0:
            found["git"] = commit.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    return found


def plain(value: Any) -> Any:
    """Numpy numbers to Python's, NaN and inf to None, so that the JSON is valid."""
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
