"""What became what: classes of two dates, and a mask of change beside them or made of them.

    layout or config -> labels `before`, `after`, `change` of a scene -> Transitions -> Sample.target (3, H, W)

Labels of several dates come from a layout as `class:DATE`, masks as `change` or `change:DATES`, in order of time;
`data.label` says what of them a run learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.from_to import CHANGE
from covermap.core.legend import IGNORE, Legend
from covermap.core.target_config import TargetConfig
from covermap.data.label_file import LabelFile
from covermap.data.labels import Labels, open_labels
from covermap.data.source import Found, SceneFiles
from covermap.data.target import Target
from covermap.geo.grid import Grid, Window, partition

NAMES = ("before", "after", "changed")


@dataclass(frozen=True)
class Transitions(Target):
    """Class indices of both dates and 0 or 1 of change, as float32 with NaN where one is not known.

    before, after: classes of the dates, None where there is only a mask. mask: where it changed (legend CHANGE);
    without one a pixel changed where its classes differ.
    """

    before: Labels | None = None
    after: Labels | None = None
    mask: Labels | None = None

    @property
    def legend(self) -> Legend | None:
        """Of the classes, None of a mask alone."""
        return self.before.legend if self.before else None

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def units(self) -> tuple[str, ...]:
        return ("",) * len(NAMES)

    @property
    def turns(self) -> bool:
        return True

    @property
    def notes(self) -> list[str]:
        """What opening the labels had to say."""
        return [note for labels in (self.before, self.after, self.mask) if labels for note in labels.notes]

    def indices(self, window: Window) -> tuple[npt.NDArray[np.uint8], ...]:
        """Class indices of both dates and of CHANGE, (H, W) each, IGNORE where not known."""
        nothing = np.full((window.height, window.width), IGNORE, np.uint8)
        before, after = (labels.read(window) if labels else nothing for labels in (self.before, self.after))
        if self.mask is not None:
            return before, after, self.mask.read(window)
        known = (before != IGNORE) & (after != IGNORE)
        return before, after, np.where(known, before != after, IGNORE).astype(np.uint8)

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(3, H, W)."""
        index = np.stack(self.indices(window))
        return np.where(index == IGNORE, np.float32(np.nan), index.astype(np.float32))

    def known(self, window: Window) -> npt.NDArray[np.bool_]:
        return np.asarray((np.stack(self.indices(window)) != IGNORE).any(0))

    def contradictions(self) -> tuple[int, int]:
        """Pixels that the mask calls changed though their classes are one, and unchanged though they are two."""
        same, two = 0, 0
        if self.mask is not None and self.before is not None:
            for block in partition(self.grid.window, 2048, 2048):
                before, after, changed = self.indices(block)
                known = (before != IGNORE) & (after != IGNORE)
                same += int((known & (before == after) & (changed == 1)).sum())
                two += int((known & (before != after) & (changed == 0)).sum())
        return same, two


@dataclass(frozen=True)
class Changed:
    """Labels of two classes, unchanged and changed, of a scene's transitions."""

    target: Transitions
    legend: Legend = CHANGE

    @property
    def grid(self) -> Grid:
        return self.target.grid

    @property
    def notes(self) -> list[str]:
        return self.target.notes

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """0, 1 or IGNORE (H, W)."""
        return self.target.indices(window)[2]


def open_transitions(
    files: SceneFiles, *, grid: Grid, config: DataConfig, legend: Legend | None, image_name: str
) -> Transitions:
    """The transitions of a scene whose labels are `before`, `after` and `change`, each if there."""

    def opened(key: str, of: Legend | None) -> Labels | None:
        if (file := files.labels.get(key)) is None or of is None:
            return None
        return open_labels(file, grid=grid, config=config, legend=of, image_name=image_name)

    return Transitions(
        grid,
        TargetConfig(),
        before=opened("before", legend),
        after=opened("after", legend),
        mask=opened("change", CHANGE),
    )


def contradictions(targets: Sequence[Target | None]) -> list[str]:
    """A note on masks of change that their own classes contradict, with how often."""
    found = [target.contradictions() for target in targets if isinstance(target, Transitions)]
    same, two = (sum(counts) for counts in zip(*found, strict=True)) if found else (0, 0)
    if not same + two:
        return []
    scenes = sum(1 for counts in found if any(counts))
    return [
        f"in {scenes} of {len(found)} scenes the mask of change contradicts the classes: {same:,} px are changed "
        f"though both dates have one class, {two:,} px unchanged though they have two; the mask counts for change, the "
        "classes for what became what"
    ]


def chosen_labels(found: Found, config: DataConfig) -> Found:
    """The scenes with the labels that `data.label` asks for; raises ConfigError where a layout has none of them."""
    if config.label == "class":
        return found
    make = _each_date if config.label == "single" else _pairs
    bare = [files.name for files in found.scenes if not _dated(files) and not _masks(files)]
    if len(bare) == len(found.scenes):
        raise ConfigError(
            f"data.label: {config.label}: no scene has labels of two dates, or a mask of change",
            fix="data.labels: [before.tif, after.tif], or another layout: covermap models list",
        )
    scenes = [scene for files in found.scenes if files.name not in bare for scene in make(files, config)]
    listed = ", ".join(bare[:5]) + (" ..." if len(bare) > 5 else "")
    note = (f"left out {len(bare)} scenes without labels of change: {listed}",) if bare else ()
    return replace(found, scenes=scenes, notes=(*found.notes, *note))


def _pairs(files: SceneFiles, config: DataConfig) -> list[SceneFiles]:
    """A scene of two dates for each date and the next."""
    dated, masks = _dated(files), _masks(files)
    series = _series(files)
    num = max(len(images) for images in series)
    if num < 2:
        raise DataError(f"{files.name} has one date; change needs two", fix=_MORE_DATES)
    if len(masks) not in (0, num - 1) or (len(dated) != num and (config.label == "dates" or not masks)):
        what = f"{len(dated)} dates with classes and {len(masks)} masks of change"
        raise ConfigError(
            f"data.label: {config.label}: {files.name} has {num} images and {what}",
            fix="use task: change and data.label: change, which need no classes"
            if masks and not dated
            else "give the labels of every date (data.labels: [before.tif, after.tif]), or a mask for each pair",
        )
    found = []
    for i in range(num - 1):
        images = tuple(one for own in series for one in (own[i : i + 2] if len(own) > 1 else own))
        labels = dict(zip(("before", "after"), dated[i : i + 2], strict=False)) if len(dated) == num else {}
        labels |= {"change": masks[i]} if masks else {}
        name = files.name if num == 2 else f"{files.name}_{i + 1}_{i + 2}"
        found.append(replace(files, name=name, images=images, labels=labels, place=files.place or files.name))
    return found


def _each_date(files: SceneFiles, config: DataConfig) -> list[SceneFiles]:
    """A scene of one date for each, with its own classes."""
    dated, series = _dated(files), _series(files)
    num = max(len(images) for images in series)
    if len(dated) != num:
        raise ConfigError(
            f"data.label: single: {files.name} has {num} images and {len(dated)} dates with classes",
            fix="give the labels of every date: data.labels: [before.tif, after.tif]",
        )
    return [
        replace(
            files, name=f"{files.name}_{i + 1}", images=tuple(own[i] if len(own) > 1 else own[0] for own in series),
            labels={"class": dated[i]}, place=files.place or files.name,
        )
        for i in range(num)
    ]  # fmt: skip


def _dated(files: SceneFiles) -> list[LabelFile]:
    return [file for key, file in files.labels.items() if key.startswith("class:")]


def _masks(files: SceneFiles) -> list[LabelFile]:
    return [file for key, file in files.labels.items() if key.split(":")[0] == "change"]


def _series(files: SceneFiles) -> list[list[ImageConfig]]:
    """The images of each sensor in order of time; raises DataError where that of known dates is another."""
    found: dict[str | None, list[ImageConfig]] = {}
    for image in files.images:
        found.setdefault(image.sensor, []).append(image)
    for images in found.values():
        for one, other in pairwise(images):
            if one.path == other.path or (one.date and one.date == other.date):
                both = f"both of {one.date}" if one.path != other.path else f"the same file, {one.path}"
                raise DataError(f"{files.name}: two dates are {both}", fix="name an image of another date")
            if one.date and other.date and one.date > other.date:
                raise DataError(
                    f"{files.name}: {other.date} comes after {one.date}",
                    fix="name the images in the order of their dates",
                )
    longest = max(map(len, found.values()))
    if odd := [str(sensor) for sensor, images in found.items() if len(images) not in (1, longest)]:
        raise DataError(
            f"{files.name} has {longest} dates, but {len(found[odd[0]])} of {odd[0]}",
            fix="give each sensor as many dates as the others, or one",
        )
    return list(found.values())


_MORE_DATES = "name an image for each date with its sensor, or a layout with several: data.options: {dates: series}"
