"""Split: which pixels train, select and score, as rectangles in a CSV; make_split.py says how one is made.

A split is a list of rectangles with a part each; later rectangles lie on top of earlier ones. It is saved as CSV and is
the same in every process. Labels nearer than `buffer_px` (in rows or columns) to another part are dropped from the side
that can spare them: train gives way to val and test, val gives way to test. A polygon belongs to the part that its
centre lies in; its pixels elsewhere are dropped, so that no polygon stands on two sides. Scenes that show the same
ground (two dates, overlapping tiles) share their blocks, or give way to each other in the same manner.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.core.legend import IGNORE
from covermap.core.output import write_text
from covermap.core.parsing import parse_csv
from covermap.data.scene import Scene
from covermap.geo.grid import Window, partition
from covermap.geo.rasterize import VectorLabels
from covermap.geo.resize import read_resized

PARTS = ("none", "train", "val", "test")
ELSEWHERE = {"val elsewhere": 2, "test elsewhere": 3}
"""Ground that another scene uses, and the part there."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of a scene and its part."""

    scene: str
    window: Window
    part: str


@dataclass(frozen=True)
class Split:
    """Rectangles in order; the part of a pixel is that of the last rectangle that holds it."""

    tiles: tuple[Tile, ...]
    buffer_px: int
    method: str = "blocks"
    notes: tuple[str, ...] = field(default=(), compare=False)
    dropped: frozenset[tuple[str, int]] = frozenset()
    """(scene, object number) of polygons that are not used: another scene uses them, or the budget leaves them out."""
    budget: float = 1.0
    """Share of the train part's labels that is used; the tiles and `dropped` say which."""

    def part_mask(self, scene: str, window: Window) -> npt.NDArray[np.uint8]:
        """(H, W) uint8: index into PARTS, the buffers taken out."""
        wide = window.pad(self.buffer_px)
        mask = _paint(self._here.get(scene, []), wide)
        others = self._elsewhere.get(scene, [])
        if self.buffer_px or others:
            far = _paint(others, wide)
            test, held = (mask == 3) | (far == 3), (mask >= 2) | (far >= 2)
            for part, stronger in ((1, held), (2, test)):
                weak = mask == part
                if weak.any() and stronger.any():
                    mask[weak & spread(stronger, self.buffer_px)] = 0
        rows, cols = window.within(wide).slices
        return mask[rows, cols]

    def held_out(self, scene: str, window: Window) -> npt.NDArray[np.bool_]:
        """(H, W): ground of val or test, in this scene or in another that shows it, also where it is not scored."""
        here = [place for place in self._here.get(scene, []) if place[1] > 0]
        return np.asarray((_paint(here, window) >= 2) | (_paint(self._elsewhere.get(scene, []), window) > 0))

    @cached_property
    def _here(self) -> dict[str, list[tuple[Window, int]]]:
        """Rectangles and parts of each scene."""
        found: dict[str, list[tuple[Window, int]]] = {}
        for tile in self.tiles:
            if tile.part in PARTS:
                found.setdefault(tile.scene, []).append((tile.window, PARTS.index(tile.part)))
        return found

    @cached_property
    def _elsewhere(self) -> dict[str, list[tuple[Window, int]]]:
        """Rectangles of each scene that another scene uses, test last so that it lies on top."""
        found: dict[str, list[tuple[Window, int]]] = {}
        for tile in self.tiles:
            if tile.part in ELSEWHERE:
                found.setdefault(tile.scene, []).append((tile.window, ELSEWHERE[tile.part]))
        return {scene: sorted(places, key=lambda place: place[1]) for scene, places in found.items()}

    def labels(self, scene: Scene, window: Window, part: str) -> npt.NDArray[np.uint8]:
        """Class indices (H, W) of one part only; IGNORE elsewhere and for objects that belong to another part."""
        index, parts = self.labels_and_parts(scene, window)
        return np.where(parts == PARTS.index(part), index, np.uint8(IGNORE))

    def labels_and_parts(self, scene: Scene, window: Window) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Class indices and the part (index into PARTS) that may use them, 0 for none; (H, W) each."""
        index = scene.read_labels(window)
        parts = self.part_mask(scene.name, window)
        if isinstance(scene.labels, VectorLabels) and (index != IGNORE).any():
            objects = scene.labels.read_objects(window)
            numbers, places = np.unique(objects, return_inverse=True)
            own = np.array([self._use_of_object(scene, number) for number in numbers.tolist()], np.uint8)
            parts = np.where(own[places].reshape(parts.shape) == parts, parts, np.uint8(0))
        return index, parts

    def target(self, scene: Scene, window: Window, part: str) -> npt.NDArray[np.float32]:
        """The scene's target (C, h, w) or (C,); NaN where any of a number's ground is not of the part.

        Ground of another part must tell nothing; that beyond the scene does no harm.
        """
        assert scene.target is not None

        def elsewhere(block: Window) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
            other = np.zeros((1, block.height, block.width), bool)
            inside = block.intersect(scene.grid.window)
            other[0][inside.within(block).slices] = self.part_mask(scene.name, inside) != PARTS.index(part)
            return other, np.ones_like(other)

        onto = scene.target.grid_of(window)
        lost = read_resized(elsewhere, scene.grid, onto, "sum", name=scene.name)[0] > 1e-6
        numbers = scene.target.read(window)
        return np.where(lost if numbers.ndim == 3 else lost[0, 0], np.float32(np.nan), numbers)

    def _use_of_object(self, scene: Scene, number: int) -> int:
        """Index into PARTS; number 0 is no object."""
        if number == 0 or (scene.name, number) in self.dropped:
            return 0
        return PARTS.index(self.part_of_object(scene, number))

    def part_of_object(self, scene: Scene, number: int) -> str:
        """The part of a polygon or point by the centre of its bounding box."""
        parts = self._object_parts.get(scene.name)
        if parts is None:  # several threads may ask: what is kept is whole
            assert isinstance(scene.labels, VectorLabels)
            parts = {}
            for one, _, box in scene.labels.object_windows():
                centre = Window(box.row + box.height // 2, box.col + box.width // 2, 1, 1)
                parts[one] = PARTS[int(self.part_mask(scene.name, centre)[0, 0])]
            self._object_parts[scene.name] = parts
        return parts.get(number, "none")  # a window may show shapes that lie beside the scene

    @cached_property
    def _object_parts(self) -> dict[str, dict[int, str]]:
        return {}

    def windows(self, scene: str, part: str) -> list[Window]:
        """The rectangles of a part in one scene (those on top may cover some of them)."""
        return [window for window, number in self._here.get(scene, []) if PARTS[number] == part]

    def save(self, path: Path | str) -> None:
        """Write the CSV: scene, row, col, height, width, part, object; method, buffer and budget in line 1."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([f"# method={self.method} buffer_px={self.buffer_px} budget={self.budget!r}"])
        writer.writerow(["scene", "row", "col", "height", "width", "part", "object"])
        writer.writerows([tile.scene, *tile.window, tile.part, ""] for tile in self.tiles)
        writer.writerows([scene, "", "", "", "", "none", number] for scene, number in sorted(self.dropped))
        write_text(path, text.getvalue())

    @staticmethod
    def load(path: Path | str) -> Split:
        """Read a split CSV; raises DataError naming the line that is wrong."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(
                f"there is no split file {path}", fix="train writes split.csv into its run folder"
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no split file ({error})", fix="give split.csv of a run") from error
        try:
            head = dict(item.split("=") for item in lines[0].strip('#" ').split())
            rows = parse_csv("\n".join(lines[1:]))
            tiles = tuple(
                Tile(r["scene"], Window(*(int(r[k]) for k in ("row", "col", "height", "width"))), r["part"])
                for r in rows
                if not r.get("object")
            )
            if any(tile.part not in (*PARTS, *ELSEWHERE) for tile in tiles):
                raise ValueError(f"part must be one of {', '.join((*PARTS, *ELSEWHERE))}")
            dropped = frozenset((r["scene"], int(r["object"])) for r in rows if r.get("object"))
            budget = float(head.get("budget", 1))  # files of the first version have none
            if not 0 < budget <= 1:
                raise ValueError(f"budget is a share, {budget:g} is none")
            return Split(tiles, int(head["buffer_px"]), head["method"], dropped=dropped, budget=budget)
        except (ValueError, LookupError) as error:
            raise DataError(
                f"{path} is no split file ({error})", fix="columns: scene,row,col,height,width,part"
            ) from error


def _paint(places: Sequence[tuple[Window, int]], window: Window) -> npt.NDArray[np.uint8]:
    """(H, W): the number of the last rectangle that holds a pixel, 0 where none does."""
    mask = np.zeros((window.height, window.width), np.uint8)
    for place, number in places:
        common = place.intersect(window)
        if not common.is_empty:
            mask[common.within(window).slices] = number
    return mask


def spread(mask: npt.NDArray[np.bool_], px: int) -> npt.NDArray[np.bool_]:
    """Grow True areas by px pixels in rows and columns (Chebyshev distance), by running sums; same shape."""
    for axis in (0, 1) if px else ():
        length = mask.shape[axis]
        sums = np.concatenate([np.zeros_like(mask.take([0], axis), np.int32), mask.cumsum(axis, dtype=np.int32)], axis)
        last = np.minimum(np.arange(length) + px + 1, length)
        first = np.maximum(np.arange(length) - px, 0)
        mask = sums.take(last, axis) > sums.take(first, axis)
    return mask


def part_counts(split: Split, scenes: Sequence[Scene]) -> dict[str, npt.NDArray[np.int64]]:
    """Labelled pixels of each class in each part, as they will be used (buffers and objects taken out)."""
    legend = scenes[0].legend
    assert legend is not None
    totals = {part: np.zeros(len(legend), np.int64) for part in PARTS[1:]}
    for scene in scenes:
        for block in partition(scene.grid.window, 2048, 2048):
            index, parts = split.labels_and_parts(scene, block)
            for part, total in totals.items():
                total += np.bincount(index[parts == PARTS.index(part)], minlength=256)[: len(legend)]
    return totals


def min_distance_px(split: Split, scene: Scene, first: str = "train", second: str = "test") -> int | None:
    """Smallest distance (rows or columns, the larger) between used labels of two parts of one scene; None if apart.

    Reads the whole scene: for checks and reports of scenes that fit in memory.
    """
    one = split.labels(scene, scene.grid.window, first) != IGNORE
    two = split.labels(scene, scene.grid.window, second) != IGNORE
    if not one.any() or not two.any():
        return None
    low, high = 0, max(one.shape)
    while low < high:  # the smallest px at which the grown area meets the other
        middle = (low + high) // 2
        if (spread(one, middle) & two).any():
            high = middle
        else:
            low = middle + 1
    return low
