"""Blocks: the ground of the scenes cut into pieces that each stand on one side of a split.

Scenes on one grid show the same ground and share their blocks. Scenes of one place on different grids may overlap
without saying where, so they are one block together. A scene that is not larger than a block is a block: chips stay
whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE
from covermap.data.scene import Scene
from covermap.geo.grid import Window, partition

MANY_SCENES = 24
"""From so many places on, whole scenes are blocks enough; a single scene is cut into about 144."""


@dataclass(frozen=True)
class Block:
    """A window of a scene, or of all scenes that show its ground; `counts`: labelled pixels of each class (K,)."""

    places: tuple[tuple[Scene, Window], ...]
    counts: npt.NDArray[np.int64]

    @property
    def pieces(self) -> list[list[tuple[Scene, Window]]]:
        """The places, those of one ground together."""
        found: dict[object, list[tuple[Scene, Window]]] = {}
        for scene, window in self.places:
            found.setdefault((ground_of(scene), window), []).append((scene, window))
        return list(found.values())


def ground_of(scene: Scene) -> object:
    """Equal for scenes that show exactly the same ground."""
    grid = scene.grid
    return (grid.crs.to_wkt(), tuple(grid.transform), grid.window) if grid.crs else scene.name


def together(scenes: Sequence[Scene]) -> list[list[Scene]]:
    """Scenes that stand on one side: those of one place, else those on one grid; in the order given."""
    groups: dict[object, list[Scene]] = {}
    for scene in scenes:
        groups.setdefault(("place", scene.place) if scene.place else ground_of(scene), []).append(scene)
    return list(groups.values())


def default_side_px(scenes: Sequence[Scene]) -> int:
    """Side of a block: a twelfth of the largest scene; of many scenes, one that leaves ordinary ones whole."""
    sides = [max(scene.grid.height, scene.grid.width) for scene in scenes]
    if len(together(scenes)) < MANY_SCENES:
        return max(8, max(sides) // 12)
    ordinary = 2 * median(sides)
    return max(side for side in sides if side <= ordinary)


def cut(scenes: Sequence[Scene], side_px: int, fixed: Mapping[str, Sequence[Window]]) -> list[Block]:
    """The blocks of all scenes; labels under `fixed` windows of a scene are not counted. One pass over the labels."""
    blocks = []
    for group in together(scenes):
        if len({ground_of(scene) for scene in group}) > 1:
            pieces = [tuple((scene, scene.grid.window) for scene in group)]
        else:
            windows = partition(group[0].grid.window, side_px, side_px)
            pieces = [tuple((scene, window) for scene in group) for window in windows]
        for places in pieces:
            counts = sum(_count(scene, window, fixed.get(scene.name, ())) for scene, window in places)
            blocks.append(Block(places, np.asarray(counts)))
    return blocks


def _count(scene: Scene, window: Window, fixed: Sequence[Window]) -> npt.NDArray[np.int64]:
    """Labelled pixels of each class (K,)."""
    assert scene.legend is not None
    index = scene.read_labels(window)
    for other in fixed:
        common = other.intersect(window)
        if not common.is_empty:
            index[common.within(window).slices] = IGNORE
    return np.bincount(index.ravel(), minlength=256)[: len(scene.legend)]


def table(blocks: Sequence[Block], num_classes: int) -> npt.NDArray[np.int64]:
    """The counts of all blocks, (N, K)."""
    return np.array([block.counts for block in blocks], np.int64).reshape(len(blocks), num_classes)
