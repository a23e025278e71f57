"""Tiles of scenes: where they lie, what they hold, and which are worth keeping; every drop has a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.data.scene import Scene
from covermap.geo.grid import Window, lattice

Edge = Literal["shift", "pad", "drop"]


@dataclass(frozen=True)
class Tiling:
    """How scenes are cut, and what a tile must hold.

    edge: where a scene is no multiple of the step, the last tile is moved back (shift), reaches beyond (pad: nodata) or
    is left out (drop). max_nodata: largest share of pixels without data in every sensor and date; min_labelled:
    smallest share with a label; only: a tile of which all labelled pixels are of these classes is left out.
    """

    size_px: int
    overlap_px: int = 0
    edge: Edge = "shift"
    max_nodata: float = 1.0
    min_labelled: float = 0.0
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size_px < 16 or not 0 <= self.overlap_px < self.size_px:
            raise ConfigError(
                f"tiles of {self.size_px} px with an overlap of {self.overlap_px} px cannot be cut",
                fix="give a size from 16 and an overlap below it",
            )
        for what in ("max_nodata", "min_labelled"):
            if not 0 <= getattr(self, what) <= 1:
                raise ConfigError(f"{what} {getattr(self, what):g} is no share", fix="give a number from 0 to 1")


@dataclass(frozen=True)
class Tile:
    """A tile of a scene: shares of its pixels with data and with a label, its classes, and why it is dropped, if so."""

    name: str
    scene: str
    window: Window
    valid: float
    labelled: float
    classes: tuple[str, ...]
    dropped: str = ""


def windows(scene: Scene, tiling: Tiling) -> Iterator[Window]:
    """Windows of one size over a scene, row by row; they cover every pixel unless edge is drop."""
    rows, cols = (_starts(length, tiling) for length in (scene.grid.height, scene.grid.width))
    for row in rows:
        for col in cols:
            yield Window(row, col, tiling.size_px, tiling.size_px)


def _starts(length: int, tiling: Tiling) -> Sequence[int]:
    step = tiling.size_px - tiling.overlap_px
    if tiling.edge == "shift":
        return lattice(length, tiling.size_px, tiling.overlap_px)
    if tiling.edge == "drop":
        return range(0, length - tiling.size_px + 1, step)
    return range(0, max(1, length - tiling.overlap_px), step)


def cut(scene: Scene, tiling: Tiling) -> list[Tile]:
    """All tiles of a scene, named SCENE_x_y by their first column and row; each is read once.

    Raises ConfigError for classes that the legend does not know.
    """
    legend = scene.legend
    only = {legend.index_of(name) for name in tiling.only} if legend else set()
    if tiling.only and legend is None:
        raise ConfigError("tiles are to be dropped by class, but there are no labels", fix="leave that out")
    tiles = []
    for window in windows(scene, tiling):
        sample = scene.read(window, labels=True)
        valid = float(sample.valid.any(0).mean())
        assert sample.label is not None
        found = np.flatnonzero(np.bincount(sample.label.ravel(), minlength=256)[:IGNORE]).tolist()
        labelled = float((sample.label != IGNORE).mean())
        names = tuple(legend.names[i] for i in found) if legend else ()
        reason = ""
        if valid == 0:
            reason = "no data"
        elif 1 - valid > tiling.max_nodata:
            reason = f"{1 - valid:.1%} without data"
        elif labelled < tiling.min_labelled:
            reason = f"{labelled:.1%} labelled"
        elif only and found and set(found) <= only:
            reason = f"only {', '.join(names)}"
        name = f"{scene.name}_{window.col}_{window.row}"
        tiles.append(Tile(name, scene.name, window, valid, labelled, names, reason))
    if not tiles:  # only with edge drop
        tiles.append(Tile(f"{scene.name}_0_0", scene.name, scene.grid.window, 0, 0, (), "scene smaller than a tile"))
    return tiles
