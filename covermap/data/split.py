"""Which pixels train, select and score: spatial blocks with a buffer, and the leaky splits for comparison.

A split is a list of rectangles with a part each; later rectangles lie on top of earlier ones. It is saved as CSV and is
the same in every process. Labels nearer than `buffer_px` (in rows or columns) to another part are dropped from the side
that can spare them: train gives way to val and test, val gives way to test. A polygon belongs to the part that its
centre lies in; its pixels elsewhere are dropped, so that no polygon stands on two sides. Scenes that show the same
ground (two dates, overlapping tiles) share their blocks, or give way to each other in the same manner.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.warp import transform_bounds

from covermap.core.config import Box, SplitConfig
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.legend import IGNORE
from covermap.core.output import write_text
from covermap.data.balance import balanced_subset
from covermap.data.scene import Scene
from covermap.geo.grid import Window, partition
from covermap.geo.rasterize import VectorLabels

PARTS = ("none", "train", "val", "test")
ELSEWHERE = {"val elsewhere": 2, "test elsewhere": 3}
"""Ground that another scene uses, and the part there."""
TRIALS = 256
"""Random assignments of blocks that are tried; the one with the most even classes is kept."""


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
    """(scene, object number) of polygons that lie in several scenes and are used in another one."""

    def part_mask(self, scene: str, window: Window) -> npt.NDArray[np.uint8]:
        """(H, W) uint8: index into PARTS, the buffers taken out."""
        wide = window.pad(self.buffer_px)
        mask = _paint(self._here.get(scene, []), wide)
        others = self._elsewhere.get(scene, [])
        if self.buffer_px or others:
            far = _paint(others, wide)
            test, held = (mask == 3) | (far == 3), (mask >= 2) | (far >= 2)
            near_test, near_held = spread(test, self.buffer_px), spread(held, self.buffer_px)
            mask[(mask == 1) & near_held] = 0
            mask[(mask == 2) & near_test] = 0
        rows, cols = window.within(wide).slices
        return mask[rows, cols]

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

    def _use_of_object(self, scene: Scene, number: int) -> int:
        """Index into PARTS; number 0 is no object."""
        if number == 0 or (scene.name, number) in self.dropped:
            return 0
        return PARTS.index(self.part_of_object(scene, number))

    def part_of_object(self, scene: Scene, number: int) -> str:
        """The part of a polygon or point by the centre of its bounding box."""
        parts = self._object_parts.setdefault(scene.name, {})
        if not parts:
            assert isinstance(scene.labels, VectorLabels)
            for one, _, box in scene.labels.object_windows():
                centre = Window(box.row + box.height // 2, box.col + box.width // 2, 1, 1)
                parts[one] = PARTS[int(self.part_mask(scene.name, centre)[0, 0])]
        return parts.get(number, "none")  # a window may show shapes that lie beside the scene

    @cached_property
    def _object_parts(self) -> dict[str, dict[int, str]]:
        return {}

    def windows(self, scene: str, part: str) -> list[Window]:
        """The rectangles of a part in one scene (those on top may cover some of them)."""
        return [window for window, number in self._here.get(scene, []) if PARTS[number] == part]

    def save(self, path: Path | str) -> None:
        """Write the CSV: scene, row, col, height, width, part, object; the first line holds method and buffer."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([f"# method={self.method} buffer_px={self.buffer_px}"])
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
        try:
            head = dict(item.split("=") for item in lines[0].strip('#" ').split())
            rows = list(csv.DictReader(lines[1:]))
            tiles = tuple(
                Tile(r["scene"], Window(*(int(r[k]) for k in ("row", "col", "height", "width"))), r["part"])
                for r in rows
                if not r.get("object")
            )
            if any(tile.part not in (*PARTS, *ELSEWHERE) for tile in tiles):
                raise ValueError(f"part must be one of {', '.join((*PARTS, *ELSEWHERE))}")
            dropped = frozenset((r["scene"], int(r["object"])) for r in rows if r.get("object"))
            return Split(tiles, int(head["buffer_px"]), head["method"], dropped=dropped)
        except (ValueError, KeyError, IndexError, TypeError) as error:
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


def make_split(scenes: Sequence[Scene], config: SplitConfig, *, size_px: int) -> Split:
    """Build the split that a config asks for; raises LabelError for an empty part, ConfigError for wrong settings."""
    if config.method == "csv":
        split = _from_csv(scenes, config.path)
        wanted = {"train"} | {tile.part for tile in split.tiles if tile.part in ("val", "test")}
    else:
        split = _with_shared_ground(_draw(scenes, config, size_px), scenes, config)
        split = _keep_balanced(split, scenes, config.balanced, config.seed) if config.balanced else split
        wanted = {"train"} | {part for part in ("val", "test") if getattr(config, part)}
    return replace(split, notes=(*split.notes, *_check(split, scenes, wanted)))


def _from_csv(scenes: Sequence[Scene], path: str | None) -> Split:
    """A split written earlier, if it goes with these scenes."""
    if not path:
        raise ConfigError("split.method csv needs split.path", fix="name the CSV, or use method: blocks")
    split = Split.load(path)
    grids = {scene.name: scene.grid for scene in scenes}
    known = {tile.scene for tile in split.tiles}
    if lone := sorted(known ^ set(grids)):
        raise ConfigError(
            f"{path} and the images do not name the same scenes: {', '.join(lone[:5])}",
            fix=f"the images are the scenes {', '.join(list(grids)[:5])}: name them so in the CSV",
        )
    for tile in split.tiles:
        if tile.part in PARTS and tile.window.intersect(grids[tile.scene].window).is_empty:
            raise ConfigError(
                f"{path}: the rectangle {tuple(tile.window)} lies outside of scene {tile.scene}",
                fix="the split was made for another image: make a new one with method: blocks",
            )
    return split


def _draw(scenes: Sequence[Scene], config: SplitConfig, size_px: int) -> Split:
    """Blocks with parts by the config's rule, the fixed rectangles on top; one pass over the labels."""
    boxes = _boxes(config, scenes)
    random = config.method in ("random", "stratified")
    longest = max(max(scene.grid.height, scene.grid.width) for scene in scenes)
    block = config.block_px or (size_px if random else max(8, longest // 12))
    buffer = config.buffer_px if config.buffer_px is not None else (0 if random else min(64, block // 10))
    fractions = {p: v for p in ("val", "test") if isinstance(v := getattr(config, p), float) and v}
    if config.method == "regions" and fractions.get("test"):
        raise ConfigError(
            "split.method regions needs scene names for test", fix=f"name one: split.test: [{scenes[-1].name}]"
        )
    whole = [t.scene for t in boxes if t.window == _scene(scenes, t.scene).grid.window]
    # Scenes on one grid show the same ground: a block has one part in all of them.
    groups: dict[object, list[Scene]] = {}
    for scene in (s for s in scenes if s.name not in whole):
        grid = scene.grid
        place = (grid.crs.to_wkt(), tuple(grid.transform), grid.window) if grid.crs else scene.name
        groups.setdefault(place, []).append(scene)
    blocks = [(group, w) for group in groups.values() for w in partition(group[0].grid.window, block, block)]
    counts = np.array([sum(_count(s, window, boxes) for s in group) for group, window in blocks])
    trials = 1 if config.method == "random" else TRIALS
    parts = assign(counts.reshape(len(blocks), -1), fractions, trials=trials, seed=config.seed)
    tiles = [Tile(s.name, w, p) for (group, w), p in zip(blocks, parts, strict=True) for s in group] + boxes
    return Split(tuple(tiles), buffer, config.method)


def _keep_balanced(split: Split, scenes: Sequence[Scene], share: float, seed: int) -> Split:
    """The split with a share of its labelled train blocks, those whose classes are most even together."""
    by_name = {scene.name: scene for scene in scenes}
    legend = scenes[0].legend
    assert legend is not None
    train = [i for i, tile in enumerate(split.tiles) if tile.part == "train"]
    counts = np.zeros((len(train), len(legend)), np.int64)
    for row, tile in zip(counts, (split.tiles[i] for i in train), strict=True):
        index = split.labels(by_name[tile.scene], tile.window, "train")
        row += np.bincount(index.ravel(), minlength=256)[: len(legend)]
    held = np.flatnonzero(counts.sum(1))
    if not len(held):
        return split
    kept = held[balanced_subset(counts[held], max(1, round(share * len(held))), seed=seed)]
    lost = {train[i] for i in set(range(len(train))) - set(kept.tolist())}
    tiles = tuple(replace(tile, part="none") if i in lost else tile for i, tile in enumerate(split.tiles))
    rarest = int(np.argmin(np.where(counts.sum(0) > 0, counts.sum(0), np.iinfo(np.int64).max)))
    shares = [found[rarest] / found.sum() for found in (counts.sum(0), counts[kept].sum(0))]
    note = (
        f"{len(kept):,} of {len(held):,} labelled train blocks are kept for even classes: "
        f"{legend.names[rarest]} has {shares[1]:.1%} of their labels instead of {shares[0]:.1%}"
    )
    return replace(split, tiles=tiles, notes=(*split.notes, note))


def _with_shared_ground(split: Split, scenes: Sequence[Scene], config: SplitConfig) -> Split:
    """The split with what other scenes use of a scene's ground, and of its polygons, taken out.

    Scenes that the config gives to a part by name stay whole: whoever does so asks about another date or place.
    """
    lists = {part: names for part in ("val", "test") if isinstance(names := getattr(config, part), list)}
    named = {name: part for part, names in lists.items() for name in names}
    far, notes = [], []
    tiles: dict[str, list[Tile]] = {}
    for tile in split.tiles:
        tiles.setdefault(tile.scene, []).append(tile)
    for scene, other in _neighbours(scenes, split.buffer_px):
        if scene.name in named or other.name in named:
            if named.get(scene.name) != named.get(other.name) and scene.grid.overlap(other.grid):
                notes = ["parts show the same ground in different images: the scores are of other images, not places"]
            continue
        own, reach = set(tiles[scene.name]), scene.grid.window.pad(split.buffer_px)
        for tile in tiles[other.name]:
            if tile.part in ("val", "test"):
                here = Tile(scene.name, scene.grid.window_of(other.grid, tile.window), tile.part)
                if here not in own and not here.window.intersect(reach).is_empty:
                    far.append(replace(here, part=f"{tile.part} elsewhere"))
    split = replace(split, tiles=split.tiles + tuple(far))
    split = replace(split, dropped=_shared_objects(split, scenes))
    if split.dropped:
        notes.append(f"{len(split.dropped):,} polygons lie in several scenes and are used in one part only")
    return replace(split, notes=tuple(notes))


def _neighbours(scenes: Sequence[Scene], buffer_px: int) -> list[tuple[Scene, Scene]]:
    """Pairs of scenes (both ways round) of which the first, grown by the buffer, overlaps the second on the ground."""
    placed = [scene for scene in scenes if scene.grid.crs is not None]
    if len(placed) < 2:
        return []
    grown = [scene.grid.window_grid(scene.grid.window.pad(buffer_px)) for scene in placed]
    boxes = shapely.box(*np.array([transform_bounds(grid.crs, "EPSG:4326", *grid.bounds) for grid in grown]).T)
    pairs = [(i, j) for i, j in shapely.STRtree(boxes).query(boxes).T.tolist() if i != j]
    return [(placed[i], placed[j]) for i, j in pairs if grown[i].overlap(placed[j].grid) > 0]


def _shared_objects(split: Split, scenes: Sequence[Scene]) -> frozenset[tuple[str, int]]:
    """Objects of one label file that fall into different parts in different scenes: the weaker parts lose them."""
    by_file: dict[str, list[Scene]] = {}
    for scene in scenes:
        if isinstance(scene.labels, VectorLabels) and scene.labels_path:
            by_file.setdefault(scene.labels_path, []).append(scene)
    dropped = set()
    for sharing in (group for group in by_file.values() if len(group) > 1):
        parts: dict[int, dict[str, int]] = {}
        for scene in sharing:
            assert isinstance(scene.labels, VectorLabels)
            for number, _, _ in scene.labels.object_windows():
                parts.setdefault(number, {})[scene.name] = PARTS.index(split.part_of_object(scene, number))
        for number, found in parts.items():
            dropped |= {(name, number) for name, part in found.items() if part < max(found.values())}
    return frozenset(dropped)


def _scene(scenes: Sequence[Scene], name: str) -> Scene:
    return next(scene for scene in scenes if scene.name == name)


def _boxes(config: SplitConfig, scenes: Sequence[Scene]) -> list[Tile]:
    """The rectangles that the config fixes, excluded ones first so that val and test lie on top."""
    found: list[Tile] = []
    names = [scene.name for scene in scenes]
    asked: list[tuple[str, object]] = [("none", box) for box in config.exclude]
    asked += [("val", config.val), ("test", config.test)]
    for part, what in asked:
        if isinstance(what, Box):
            for scene in scenes:
                if what.scene in (None, scene.name):
                    rows, cols = what.rows or (0, scene.grid.height), what.cols or (0, scene.grid.width)
                    window = Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0]).intersect(scene.grid.window)
                    if window.is_empty:
                        raise ConfigError(
                            f"split: the {part} box rows {rows}, columns {cols} lies outside of scene {scene.name}",
                            fix=f"the scene has {scene.grid.height} rows and {scene.grid.width} columns",
                        )
                    found.append(Tile(scene.name, window, part))
        elif isinstance(what, list):
            for name in what:
                if name not in names:
                    raise ConfigError(f"split.{part}: there is no scene {name!r}", fix=f"scenes: {', '.join(names)}")
                found.append(Tile(name, _scene(scenes, name).grid.window, part))
    return found


def _count(scene: Scene, window: Window, boxes: Sequence[Tile]) -> npt.NDArray[np.int64]:
    """Labelled pixels of each class in a block, those under fixed boxes left out."""
    assert scene.legend is not None
    index = scene.read_labels(window)
    for box in boxes:
        common = box.window.intersect(window)
        if box.scene == scene.name and not common.is_empty:
            index[common.within(window).slices] = IGNORE
    return np.bincount(index.ravel(), minlength=256)[: len(scene.legend)]


def assign(
    counts: npt.NDArray[np.int64], fractions: dict[str, float], *, trials: int = TRIALS, seed: int = 0
) -> list[str]:
    """Give each block (rows of `counts`, columns classes) a part so that every part holds its share of every class.

    Of `trials` random orders the one is kept whose class shares are nearest to the fractions, and in which the
    fewest classes are missing from a part (missing from train counts most).
    """
    num_blocks = len(counts)
    total = counts.sum()
    filled = np.flatnonzero(counts.sum(1) > 0) if counts.size else np.array([], int)
    rng = np.random.default_rng(seed)
    best, best_cost = np.ones(num_blocks, np.int64), np.inf
    share = counts / np.maximum(counts.sum(0), 1) if counts.size else counts
    present = counts.sum(0) > 0 if counts.size else np.zeros(0, bool)
    for _ in range(trials if fractions and total else 0):
        order = rng.permutation(filled)
        mass = np.cumsum(counts[order].sum(1)) / total
        parts = np.ones(num_blocks, np.int64)
        start, cost = 0.0, 0.0
        for part, wanted in fractions.items():
            # A block goes where its middle falls, so that a part is neither empty nor too large on average.
            middle = mass - counts[order].sum(1) / total / 2
            parts[order[(middle >= start) & (middle < start + wanted)]] = PARTS.index(part)
            start += wanted
        for number, wanted in ((1, 1 - sum(fractions.values())), *((PARTS.index(p), f) for p, f in fractions.items())):
            held = share[parts == number].sum(0)[present]
            cost += float(np.abs(held - wanted).sum()) + float((held == 0).sum()) * (20 if number == 1 else 5) * (
                wanted > 0
            )
        if cost < best_cost:
            best, best_cost = parts, cost
    return [PARTS[p] for p in best]


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


def _check(split: Split, scenes: Sequence[Scene], wanted: Set[str]) -> list[str]:
    """Refuse wanted parts that are empty; say which classes are missing where."""
    counts = part_counts(split, scenes)
    legend = scenes[0].legend
    assert legend is not None
    notes = []
    for part, row in counts.items():
        if part in wanted and row.sum() == 0:
            raise LabelError(
                f"the {part} part of the split holds no labelled pixel",
                fix="use smaller blocks (split.block_px), a smaller split.buffer_px, or more labels",
            )
        lacking = [n for n, c in zip(legend.names, row, strict=True) if c == 0]
        if part in wanted and lacking and len(lacking) < len(legend):
            notes.append(f"{part} has no pixel of {', '.join(lacking)}")
    if (counts["train"] > 0).sum() == 1:
        only = legend.names[int(np.argmax(counts["train"]))]
        raise LabelError(
            f"train holds only one class, {only!r}: there is nothing to learn",
            fix="add labels of at least a second class",
        )
    if split.method in ("random", "stratified"):
        notes.append(f"split {split.method}: neighbouring windows stand on both sides, so scores are too good")
    return notes


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
