"""What every layout must keep: its miniature is read back whole, in one order, and a missing file is named."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import DataConfig
from covermap.core.errors import CovermapError, DataError
from covermap.core.legend import IGNORE
from covermap.core.registry import find
from covermap.data.label_file import LabelFile
from covermap.data.scene import Scene, open_found
from covermap.data.source import Found, SceneFiles, Source
from covermap.testing.outcome import Outcome, require, run_checks

PARTS = (None, "train", "val", "test")
MAX_BYTES = 20_000_000


@dataclass(frozen=True)
class Case:
    """A layout by name with options, and a folder that holds its miniature."""

    name: str | Callable[..., Source]
    options: Mapping[str, Any]
    root: Path

    def source(self, root: Path | None = None) -> Source:
        """The layout on its miniature, or on a changed copy of it."""
        found: Source = find("source", self.name)(root or self.root, **self.options)
        return found

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy of the miniature to change."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(shutil.copytree(self.root, Path(folder) / "copy"))


def check_source(source: str | Callable[..., Source], *, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Run all checks on a layout, by name or as a class, on the miniature that it writes itself."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        root.mkdir()
        find("source", source).write_miniature(root)
        return run_checks(CHECKS, Case(source, options or {}, root))


def _writes_a_small_data_set(case: Case) -> None:
    files = [path for path in case.root.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    require(files, "the miniature is empty")
    require(size <= MAX_BYTES, f"the miniature takes {size / 1e6:.0f} MB, {MAX_BYTES / 1e6:.0f} at most")


def _lists_scenes_with_names_of_their_own_in_one_order(case: Case) -> None:
    scenes = case.source().scenes()
    names = [files.name for files in scenes]
    require(scenes, "there are no scenes")
    require(len(set(names)) == len(names), "two scenes have one name")
    require(names == [files.name for files in case.source().scenes()], "the order differs from call to call")
    odd = {files.part for files in scenes} - set(PARTS)
    require(not odd, f"parts {odd} are not train, val or test")
    outside = [
        path
        for files in scenes
        for path in _paths(files)
        if not Path(path).resolve().is_relative_to(case.root.resolve())
    ]
    require(not outside, f"{outside[:1]} lies outside of the root")
    lost = [path for files in scenes for path in _paths(files) if not Path(path).exists()]
    require(not lost, f"{lost[:1]} does not exist")


def _paths(files: SceneFiles) -> list[str]:
    return [*_image_paths(files), *(file.path for file in files.labels.values())]


def _image_paths(files: SceneFiles) -> list[str]:
    return [path for image in files.images for path in ([image.path] if isinstance(image.path, str) else image.path)]


def _opens_every_scene(case: Case) -> None:
    """Pixels are finite and not all the same; class labels are known, and cover something."""
    scenes = _open(case)
    seen: set[int] = set()
    for scene in scenes:
        sample = scene.read(scene.grid.window, labels=True)
        require(sample.valid.any(), f"{scene.name} holds no valid pixel")
        for sensor, values in sample.image.items():
            flat = [
                band for band, x in zip(sample.bands[sensor], values[0], strict=True) if np.ptp(x[sample.valid[0]]) == 0
            ]
            require(len(flat) < len(values[0]), f"{scene.name}: {sensor} is constant")
        require(sample.label is not None, "there is no label")
        assert sample.label is not None
        seen |= set(np.unique(sample.label).tolist()) - {IGNORE}
    listed = case.source().scenes()
    classes = {files.chip_class for files in listed} - {None} | {c for files in listed for c in files.chip_classes}
    labelled = any("class" in files.labels for files in listed)
    require(seen or classes or not labelled, "no scene has a labelled pixel")


def _open(case: Case) -> list[Scene]:
    source = case.source()
    return open_found(Found(source.scenes(), source.legend), DataConfig(image="-", align="mode"))


def _names_a_label_that_is_missing(case: Case) -> None:
    """Never a shifted pairing: without one label file the layout refuses, or leaves out what goes with it.

    Its message or its notes name what stands alone.
    """
    scenes = case.source().scenes()
    images = {path for files in scenes for path in _image_paths(files)}
    labels = [files.labels["class"].path for files in scenes if "class" in files.labels]
    labels = [path for path in labels if path not in images]  # a cube holds its own
    if len(labels) < 2:
        return
    with case.copy() as root:
        gone = root / Path(labels[1]).relative_to(case.root)
        gone.unlink()
        source = case.source(root)
        try:
            left = [files.name for files in source.scenes()]
        except DataError as error:
            require(gone.stem in str(error), f"the message does not name {gone.stem}: {error}")
            return
    whole = [files.name for files in scenes if files.labels.get("class", LabelFile("")).path != labels[1]]
    require(any(gone.stem in note for note in source.notes), f"without {gone.name} nothing is said")
    require(left == whole, f"without {gone.name} the scenes are {left}, not {whole}")


def _does_not_mind_what_systems_leave_behind(case: Case) -> None:
    names = [files.name for files in case.source().scenes()]
    with case.copy() as root:
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            (folder / "._left.tif").write_bytes(b"x")
            (folder / ".DS_Store").write_bytes(b"x")
        require([files.name for files in case.source(root).scenes()] == names, "hidden files change the scenes")


def _refuses_an_empty_folder(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            case.source(Path(folder)).scenes()
        except CovermapError:
            return
    raise AssertionError("an empty folder is not refused")


CHECKS: Sequence[Callable[[Case], None]] = (
    _writes_a_small_data_set,
    _lists_scenes_with_names_of_their_own_in_one_order,
    _opens_every_scene,
    _names_a_label_that_is_missing,
    _does_not_mind_what_systems_leave_behind,
    _refuses_an_empty_folder,
)
