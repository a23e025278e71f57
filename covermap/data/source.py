"""Source: a data set's layout on disk -> the files of its scenes, paired by name.

    config -> a layout's Source.scenes(), or patterns of paths -> SceneFiles (images, labels, parts) -> data.scene

A layout is one file in data/sources with one `@register("source", NAME)` line. Everything is paired by names: a file
without its partner, or two files with one name, is an error that says which.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import ValidationError

from covermap.core.config import DataConfig, ImageConfig, expand
from covermap.core.errors import ConfigError, CovermapError, DataError, suggest
from covermap.core.parsing import read_csv
from covermap.core.registry import find
from covermap.core.target_config import TargetConfig
from covermap.data.given import given_paths
from covermap.data.label_file import LabelFile

PARTS = ("train", "val", "test")
MASK_CODES = {0: 1, 1: 2, 255: 2}
"""What a mask of change holds -> codes of from_to.CHANGE."""


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    labels: {what: file}; `class` is the class raster that training uses, others are change masks and the like.
    part: where the data set itself puts the scene (train, val, test). place: scenes of one place may overlap, so they
    never stand on two sides of a split. chip_class: one class for the whole scene; chip_classes: all that occur in it.
    targets: files of numbers, channels one after the other; their pixels are those that the config says.
    """

    name: str
    images: tuple[ImageConfig, ...]
    labels: Mapping[str, LabelFile] = field(default_factory=dict)
    part: str | None = None
    place: str | None = None
    chip_class: int | None = None
    chip_classes: tuple[int, ...] = ()
    targets: tuple[TargetConfig, ...] = ()


def numbered(name: str, classes: Sequence[str], *, first: int = 1, **more: Any) -> dict[str, Any]:
    """A legend with running codes in the order of the names; 0 is unlabelled unless `more` says another nodata."""
    listed = [{"code": code, "name": each} for code, each in enumerate(classes, first)]
    return {"name": name, "nodata": 0, "classes": listed, **more}


class Source(ABC):
    """A layout: its root folder and options in, scenes out.

    legend: what the class labels mean: a shipped name, {code: name} or a legend's dictionary; None: found in the files.
    licence, url: of the data set. records: where its files lie, as data.hosts reads it; only what is certain.
    """

    legend: str | Mapping[Any, Any] | None = None
    licence: ClassVar[str] = ""
    url: ClassVar[str] = ""
    records: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}", fix="set data.root to the data set's folder")
        self.notes: list[str] = []

    @abstractmethod
    def scenes(self) -> list[SceneFiles]:
        """All scenes in a fixed order; raises DataError for files that do not pair."""

    @classmethod
    @abstractmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        """Write a small data set in this layout, with a known landscape, into an empty folder."""


@dataclass(frozen=True)
class Found:
    """The scenes that a config describes, with the legend and the notes of their layout."""

    scenes: list[SceneFiles]
    legend: str | Mapping[Any, Any] | None = None
    notes: tuple[str, ...] = ()


class Refuse(Protocol):
    """Takes an error with what kind it is of, its files, and the names by which data.leave_out mends it."""

    def __call__(self, kind: str, error: CovermapError, files: Sequence[str], names: Sequence[str]) -> None: ...


def _raise(kind: str, error: CovermapError, files: Sequence[str], names: Sequence[str]) -> None:
    raise error


@dataclass
class _Pairing:
    """How strictly files are paired while a layout lists its scenes, and what data.leave_out names."""

    names: Sequence[str] = ()
    refuse: Refuse = _raise
    met: set[str] = field(default_factory=set)

    def leaves_out(self, name: str) -> bool:
        self.met |= {name} & set(self.names)
        return name in self.names


_STRICT = _Pairing()
_pairing: ContextVar[_Pairing] = ContextVar("_pairing", default=_STRICT)


def tell_audit(kind: str, message: str) -> None:
    """Hand what a layout leaves out by itself to whoever collects all that is wrong (data.audit), if anyone does."""
    if (take := _pairing.get().refuse) is not _raise:
        take(kind, DataError(message), (), ())


def find_scenes(config: DataConfig, *, refuse: Refuse = _raise) -> Found:
    """The files of all scenes of a config, by its layout or its patterns, without those of data.leave_out.

    Raises DataError where files do not pair, or hands it to `refuse`; ConfigError for names that are not there.
    """
    pairing = _Pairing(config.left_out, refuse)
    token = _pairing.set(pairing)
    try:
        found = _find(config)
    finally:
        _pairing.reset(token)
    kept = [files for files in found.scenes if not pairing.leaves_out(files.name)]
    if unknown := [name for name in pairing.names if name not in pairing.met]:
        raise ConfigError(
            f"data.leave_out names {len(unknown)} that do not exist: {', '.join(unknown[:5])}",
            fix=suggest(unknown[0], [files.name for files in found.scenes]),
        )
    if not kept:
        raise DataError("no scene is left to use", fix="check the data's folder, and data.leave_out")
    listed = ", ".join(pairing.names[:5]) + (" ..." if len(pairing.names) > 5 else "")
    note = [f"left out {len(pairing.names)} by name: {listed}"] if pairing.names else []
    return replace(found, scenes=kept, notes=(*found.notes, *note))


def _find(config: DataConfig) -> Found:
    if config.source is None:
        return Found(_with_targets(_by_pattern(config), config))
    kind = find("source", config.source)
    try:
        source: Source = kind(config.root, **config.options)
    except TypeError as error:
        raise ConfigError(f"data.options: {error}", fix=f"what {config.source} takes: covermap models show") from error
    try:
        scenes = source.scenes()
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise DataError(
            f"{config.root}: {wrong['input']!r} in a table of the data set: {wrong['msg']}", fix="restore its tables"
        ) from error
    except OSError as error:
        raise DataError(f"{config.root}: {error}", fix="restore the data set") from error
    return Found(_with_targets(scenes, config), source.legend, tuple(source.notes))


def _by_pattern(config: DataConfig) -> list[SceneFiles]:
    if not config.images:
        raise ConfigError("data.image names no image", fix="image: [{path: image.tif}]")
    found = [scenes_of(image) for image in config.images]
    labels: dict[str, dict[str, LabelFile]] = {}
    for key, pattern in _own_labels(config).items():
        codes = MASK_CODES if key == "change" else None
        for name, path in _files_of(pattern, found[0], "labels").items():
            labels.setdefault(name, {})[key] = LabelFile(path, codes=codes)
    return [SceneFiles(name, images, labels.get(name, {})) for name, images in paired(config.images, found).items()]


def _own_labels(config: DataConfig) -> dict[str, str]:
    """The label files that a config names, by what they are of."""
    if isinstance(config.labels, list):
        found = {f"class:{number}": path for number, path in enumerate(config.labels, 1)}
        return found | ({"change": config.change} if config.change else {})
    return {"change" if config.label == "change" else "class": config.labels} if config.labels else {}


Named = dict[str, tuple[ImageConfig, ...]]
"""{scene: its images}."""


def scenes_of(image: ImageConfig) -> Named:
    """The scenes that an image's path names, called as their files; raises ConfigError, DataError."""
    paths = given_paths(image)
    if isinstance(paths[0], list):
        return {Path(paths[0][0]).stem: (image,)}
    own = {Path(str(path)): path for path in paths}  # the path of a URL would lose a slash
    return {stem: (image.model_copy(update={"path": own[path]}),) for stem, path in by_stem(own).items()}


def paired(images: Sequence[ImageConfig], found: Sequence[Named]) -> Named:
    """What several image sources name, by scene: where each names one, whatever they are called, else by name.

    Raises DataError for what stands alone, and for clouds without a file.
    """
    if all(len(files) == 1 for files in found):
        name = next(iter(found[0]))
        return {name: tuple(with_own_clouds(one, None) for files in found for each in files.values() for one in each)}
    for image, files in zip(images[1:], found[1:], strict=True):
        require_pairs(found[0], files, first_name=f"files of {images[0].path}", second_name=f"{image.path}")
    return {name: tuple(with_own_clouds(one, name) for files in found for one in files[name]) for name in found[0]}


def with_own_clouds(image: ImageConfig, stem: str | None) -> ImageConfig:
    """The image with its own cloud file: that of a pattern with its stem, or the only one."""
    if "*" not in image.cloud_path:
        return image
    files = by_stem(Path(file) for file in expand(image.cloud_path))
    if stem is None and len(files) == 1:
        stem = next(iter(files))
    own = [stem] if stem in files else [name for name in files if name.startswith((f"{stem}_", f"{stem}."))]
    if len(own) != 1:
        raise DataError(
            f"clouds: {image.cloud_path} ({len(files)} files) has {len(own) or 'none'} for {stem or image.path}",
            fix="name a mask as its image, or with an ending: a_SCL.tif for a.tif; what its name does not say, "
            "say in clouds: {path: ..., specification: ...}",
        )
    return image.with_clouds(str(files[own[0]]))


def _with_targets(scenes: list[SceneFiles], config: DataConfig) -> list[SceneFiles]:
    """The scenes with the config's target files; raises ConfigError and DataError for none or too many of them."""
    target = config.target
    own = [files.name for files in scenes if files.targets]
    if target is None or (own and target.path is None and not target.shares):
        return scenes
    if own or (target.path is None and not target.shares):
        what = "has targets of its own" if own else "has no targets, and data.target names none"
        fix = "leave out data.options.targets" if own else "set data.target.path, or data.target.shares: true"
        raise ConfigError(f"{config.source or 'the config'} {what}", fix=fix)
    if target.path is None:
        return scenes
    named = {files.name: files for files in scenes}
    paths = _files_of(target.path, {name: name for name in named}, "targets")
    return [replace(files, targets=(target.model_copy(update={"path": paths[name]}),)) for name, files in named.items()]


def _files_of(pattern: str, images: dict[str, Any], what: str) -> dict[str, str]:
    """{scene: its file}: that of its name, or the only one."""
    if "*" not in pattern:
        return dict.fromkeys(images, expand(pattern)[0])
    found = by_stem(map(Path, expand(pattern)))
    require_pairs(images, found, first_name="images", second_name=f"{what} in {pattern}")
    return {stem: str(path) for stem, path in found.items()}


def list_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder with one of the endings, in natural order (2 before 10), without what systems leave behind.

    Raises DataError where there is none.
    """
    if not folder.is_dir():
        there = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        raise DataError(f"there is no folder {folder}", fix=suggest(folder.name, there))
    found = [
        path for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith((".", "._")) and path.is_file()
    ]  # fmt: skip
    if not found:
        raise DataError(f"{folder} holds no {' or '.join(suffixes)} files", fix="is this the data set's folder?")
    return sorted(found, key=lambda path: natural(path.name))


def natural(name: str) -> list[tuple[int, str]]:
    """A sorting key in which numbers count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """{stem: path}; refuses two files with one name."""
    found: dict[str, Path] = {}
    for path in paths:
        if _pairing.get().leaves_out(path.name):
            continue
        if path.stem in found:
            message = f"{found[path.stem]} and {path} have one name"
            error = DataError(message, fix="keep one of them, or give each its own name")
            _pairing.get().refuse("same name", error, [str(found[path.stem]), str(path)], [path.name])
            continue
        found[path.stem] = path
    return found


def require_pairs(first: dict[str, Any], second: dict[str, Any], *, first_name: str, second_name: str) -> None:
    """Refuse what stands alone on either side, by file; what is left out by name or refused softly is taken away."""
    pairing = _pairing.get()
    for mine, other, have, lack in (
        (first, second, first_name, second_name), (second, first, second_name, first_name),
    ):  # fmt: skip
        alone = {stem: mine.pop(stem) for stem in list(mine) if stem not in other}
        lone = {stem: _shown(file) for stem, file in alone.items() if not pairing.leaves_out(stem)}
        if lone:
            listed = ", ".join(list(lone.values())[:5]) + (" ..." if len(lone) > 5 else "")
            error = DataError(
                f"{len(lone)} {have} without {lack}: {listed}",
                fix="files pair by equal names: rename or restore the missing ones, take these away, or name them in "
                "data.leave_out",
            )
            pairing.refuse("no partner", error, list(lone.values()), list(lone))


def _shown(file: Any) -> str:
    """A file as it is told of; of a scene's images the first one's."""
    path = file[0].path if isinstance(file, tuple) else file
    return str(path[0] if isinstance(path, list) else path)


def rgb(path: Path, date: str | None = None) -> ImageConfig:
    """A picture in natural colours."""
    return ImageConfig(path=str(path), sensor="rgb", bands=["red", "green", "blue"], date=date)


def is_series(dates: str) -> bool:
    """Whether the option `dates` says series, not single; raises ConfigError for anything else."""
    if dates not in ("single", "series"):
        raise ConfigError(f"data.options.dates: {dates!r} is not known", fix="single or series")
    return dates == "series"


def by_place(
    images: Iterable[tuple[str, ImageConfig]],
    labels: Callable[[str, Sequence[ImageConfig]], dict[str, LabelFile]],
    *,
    series: bool,
) -> list[SceneFiles]:
    """Images of (place, image) as a scene for each place with all its dates, or one for each date, in order.

    Raises DataError for two images of one place and day.
    """
    places: dict[str, dict[str, ImageConfig]] = {}
    for place, image in images:
        other = places.setdefault(place, {}).setdefault(str(image.date), image)
        if other is not image:
            raise DataError(
                f"{other.path} and {image.path} are of one tile and one day: {place}, {image.date}",
                fix="keep one product of each tile and day",
            )
    found = []
    for place, dates in sorted(places.items()):
        ordered = tuple(image for _, image in sorted(dates.items()))
        scenes = {place: ordered} if series else {f"{place}_{image.date}": (image,) for image in ordered}
        found += [SceneFiles(name, own, labels(place, own), place=place) for name, own in scenes.items()]
    return found


def inside(root: Path, name: str) -> Path:
    """A path that a table, a host or an archive names below the root; raises DataError where it leaves it."""
    if "\0" in name:
        raise DataError(f"{name!r} is no name of a file", fix="restore the table that names it")
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"{name} leads out of {root}", fix="names in tables and archives count from the folder")
    return path


def read_table(path: Path, first: str, second: str) -> list[dict[str, str]]:
    """The rows of a CSV with these columns; raises DataError for one without rows or columns."""
    rows = read_csv(path, fix="save it as a CSV table in UTF-8")
    if not rows or not {first, second} <= set(rows[0]):
        raise DataError(f"{path} has no columns {first} and {second}", fix="restore the data set's table")
    return rows


def read_parts(path: Path) -> dict[str, str]:
    """{identifier: part} in the table's order; raises DataError for other columns, parts, or an identifier twice."""
    rows = read_table(path, "identifier", "split")
    found: dict[str, str] = {}
    for row in rows:
        chip, part = (row["identifier"] or "").strip(), (row["split"] or "").strip()
        if not chip or chip in found:
            raise DataError(f"{path} has the chip {chip!r} twice or without a name", fix="keep one row for each chip")
        if part not in PARTS:
            raise DataError(f"{path}: the split of {chip} is {part!r}", fix=f"parts are {', '.join(PARTS)}")
        found[chip] = part
    return found
