"""Patches of a class map: pixels of one class that touch each other, however large the map and whatever its blocks.

    strips of class indices -> runs -> components of a strip -> patches of the map -> those below a unit are absorbed

A map is gone through twice, strip by strip: first to find its patches and which of them touch, then to give every pixel
the class of its patch. What is kept in between are numbers for each patch, nothing for a pixel. Areas are counted in
whole units, so that no sum depends on the strips.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError
from covermap.core.progress import Tick, unseen
from covermap.geo.grid import Grid, Window, partition

STRIP_PX = 1 << 22
"""Pixels of a strip; at most 2^24, so that areas in it are exact as float64."""
_STEPS = 1 << 28
_HA = {"ha": 1.0, "m2": 1e-4}

Index = npt.NDArray[np.uint8]
"""Class indices (H, W), IGNORE where there is no class."""
Numbers = npt.NDArray[Any]
"""Class indices (H, W), or codes of 16 bits; the largest number of the type where there is nothing: IGNORE is one."""
_Units = npt.NDArray[np.int64]
_Ids = npt.NDArray[np.int32]
"""Numbers of components, half as large as numpy's own."""


class PixelAreas(NamedTuple):
    """Area of one pixel of each row in whole units (H,), and the hectares of a unit: sums are exact in any order.

    The largest pixel has 2^28 units, others as many as their share of it, to 4e-9.
    """

    units: _Units
    unit_ha: float

    @staticmethod
    def of(grid: Grid) -> PixelAreas:
        """True areas, as Grid.row_areas_ha gives them: geodesic in degrees and in Mercator."""
        areas = np.asarray(grid.row_areas_ha())
        return PixelAreas(np.rint(areas / areas.max() * _STEPS).astype(np.int64), float(areas.max() / _STEPS))


class MappingUnit(NamedTuple):
    """The minimum mapping unit: the least area of a patch."""

    value: float
    unit: str

    @staticmethod
    def parse(text: str) -> MappingUnit:
        """`1ha`, `500 m2` or `9px`; raises ConfigError."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ha|m2|m²|px)\s*", text.lower())
        if not found or not float(found[1]):
            raise ConfigError(f"{text!r} is no area", fix="give a number with ha, m2 or px: --min-area 1ha")
        return MappingUnit(float(found[1]), found[2].replace("²", "2"))

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    def on(self, grid: Grid) -> tuple[_Units, float]:
        """Units of a pixel of each row (H,), and how many of them a patch must have; all pixels count alike for px.

        Raises ConfigError for an area that is not larger than a pixel, or larger than the map.
        """
        if self.unit == "px":
            units, least = np.ones(grid.height, np.int64), self.value
        else:
            areas = PixelAreas.of(grid)
            # Less the rounding of the division: 1 ha is 100 pixels of 10 m.
            units, least = areas.units, self.value * _HA[self.unit] / areas.unit_ha * (1 - 1e-9)
        if least <= units.min():
            raise ConfigError(
                f"an area of {self} is not larger than a pixel of the map ({grid.describe()}): nothing would change",
                fix="give that of two pixels at least",
            )
        if least > int(units.sum()) * grid.width:
            raise ConfigError(
                f"an area of {self} is larger than the map ({grid.describe()})", fix="give one that patches can have"
            )
        return units, least


def strips(grid: Grid, strip_px: int = STRIP_PX) -> tuple[Window, ...]:
    """A grid in parts of whole rows, of about strip_px pixels."""
    return tuple(partition(grid.window, max(1, strip_px // grid.width), grid.width))


@dataclass(frozen=True)
class Sieved:
    """A map whose small patches are absorbed; `apply` gives its strips.

    num_patches, num_below: patches of the map, and those below the unit. num_left: those that are below it even with
    all that they touch, for nodata or the map's border is around them.
    """

    windows: tuple[Window, ...]
    num_patches: int
    num_below: int
    num_left: int
    eight: bool
    first: Sequence[int]
    before: Numbers
    after: Numbers

    def apply(self, number: int, index: Numbers) -> Numbers:
        """Class indices of a strip, as they were read before, with every pixel in the class of its patch."""
        mine = slice(self.first[number], self.first[number + 1])
        if (self.before[mine] == self.after[mine]).all():
            return index
        strip = _Components.of(index, self.eight)
        return np.asarray(self.after[mine][strip.of_run][strip.run])


def sieve_classes(
    read: Callable[[Window], Index], grid: Grid, unit: MappingUnit, *, connectivity: int = 4,
    strip_px: int = STRIP_PX, on_progress: Tick = unseen,
) -> Sieved:  # fmt: skip
    """Give every patch below the minimum mapping unit the class of its largest neighbour, until none is left.

    In rounds: a patch goes when none of its neighbours below the unit is smaller (of equals the higher class index goes
    first). It takes the class of its largest neighbour (of equals the lower index) and is one patch with all neighbours
    of that class from then on. A patch of the unit's size keeps its class; nodata is no patch and no neighbour. The
    outcome depends on the map alone, not on strips, nor on which side is up. connectivity: 4 (edges) or 8 (and
    corners), of the pixels of a patch and of neighbours.

    GDAL's sieve, which looks once, leaves small patches that have only small neighbours, and counts pixels. Memory: 60
    bytes for a pixel of a strip and about 160 for a patch. Raises ConfigError.
    """
    units, least = unit.on(grid)
    found = _found(read, grid, units, least, connectivity, strip_px, on_progress)
    before = np.concatenate(found.classes)
    root, sizes, patch = found.patches(before)
    num_patches, num_below = int(patch.sum()), int((sizes[patch] < least).sum())
    touch, first = _distinct(root[np.concatenate(found.touch, axis=1)]), found.first
    del found
    after = before.copy()
    last = _absorb(after, sizes, touch, least)[root]
    left = (last == np.arange(len(last))) & (before != _nothing(before)) & (sizes < least)
    return Sieved(
        strips(grid, strip_px), num_patches, num_below, int(left.sum()), connectivity == 8, first, before, after[last]
    )


def drop_small(
    read: Callable[[Window], Numbers], grid: Grid, unit: MappingUnit, *, connectivity: int = 4,
    strip_px: int = STRIP_PX, on_progress: Tick = unseen,
) -> Sieved:  # fmt: skip
    """Make nothing of every patch below the minimum mapping unit; the others stay as they are.

    Memory: 60 bytes for a pixel of a strip and about 50 for a patch. Raises ConfigError.
    """
    units, least = unit.on(grid)
    found = _found(read, grid, units, 0, connectivity, strip_px, on_progress)
    before = np.concatenate(found.classes)
    root, sizes, patch = found.patches(before)
    after = np.where(sizes[root] < least, _nothing(before), before).astype(before.dtype)
    num_below = int((sizes[patch] < least).sum())
    return Sieved(strips(grid, strip_px), int(patch.sum()), num_below, 0, connectivity == 8, found.first, before, after)


def _nothing(index: Numbers) -> int:
    """The number that stands for no class."""
    return int(np.iinfo(index.dtype).max)


class _Components(NamedTuple):
    """Components of a strip, by the runs of its rows. Nodata never joins.

    run: of each pixel (H, W). first: flat index of each run's first pixel (R,). of_run: each run's component (R,).
    lead: flat index of each component's first pixel (N,). touch: runs of two classes beside each other (2, E).
    """

    run: npt.NDArray[np.int32]
    first: npt.NDArray[np.intp]
    of_run: _Ids
    lead: npt.NDArray[np.intp]
    touch: _Ids

    @staticmethod
    def of(index: Numbers, eight: bool) -> _Components:
        """Components of class indices (H, W)."""
        starts = np.ones(index.shape, bool)
        starts[:, 1:] = index[:, 1:] != index[:, :-1]
        first = np.flatnonzero(starts)
        run = (np.cumsum(starts, dtype=np.int32) - 1).reshape(index.shape)
        same, touch = _pairs(index[:-1], index[1:], run[:-1], run[1:], eight)
        root = connected(len(first), same)
        lead = np.flatnonzero(root == np.arange(len(root)))
        number = np.empty(len(root), np.int32)
        number[lead] = np.arange(len(lead))
        known = index.ravel()[first] != _nothing(index)
        beside = np.flatnonzero(known[1:] & known[:-1] & (first[1:] % index.shape[1] > 0))
        touch = np.concatenate([touch, np.stack([beside, beside + 1]).astype(np.int32)], axis=1)
        return _Components(run, first, number[root], first[lead], touch)


class _Found(NamedTuple):
    """Components of all strips so far: classes, sizes, pairs of one patch, pairs that touch, first of each strip."""

    classes: list[Numbers]
    sizes: list[_Units]
    same: list[_Ids]
    touch: list[_Ids]
    first: list[int]

    def add(
        self, index: Numbers, units: _Units, border: tuple[Numbers, _Ids] | None, least: float, *, eight: bool
    ) -> tuple[Numbers, _Ids]:
        """Take in a strip; border: the last row of the one before, with its components. Returns its own last row.

        least: two that touch and have this size are not kept as neighbours.
        """
        strip, offset = _Components.of(index, eight), self.first[-1]
        self.classes.append(index.ravel()[strip.lead])
        runs = np.diff(strip.first, append=index.size) * units[strip.first // index.shape[1]]
        sizes = np.bincount(strip.of_run, weights=runs).astype(np.int64)
        self.sizes.append(sizes)
        self.first.append(offset + len(sizes))
        touch = strip.of_run[strip.touch]
        # Two that have the size already stay apart, whatever happens.
        self.touch.append(_distinct(touch[:, (sizes[touch] < least).any(0)]) + offset)
        top, bottom = (strip.of_run[strip.run[rows]] + offset for rows in (slice(0, 1), slice(-1, None)))
        if border:
            same, touch = _pairs(border[0], index[:1], border[1], top, eight)
            self.same.append(same)
            self.touch.append(touch)
        else:
            self.same.append(np.zeros((2, 0), np.int32))
        return index[-1:], bottom

    def patches(self, classes: Numbers) -> tuple[_Ids, _Units, npt.NDArray[np.bool_]]:
        """Of each component the first one of its patch; the sizes of those, and which they are, each (N,)."""
        root = connected(len(classes), np.concatenate(self.same, axis=1))
        sizes = np.zeros(len(classes), np.int64)
        np.add.at(sizes, root, np.concatenate(self.sizes))
        return root, sizes, (root == np.arange(len(root))) & (classes != _nothing(classes))


def require_connectivity(connectivity: int) -> None:
    """Raise ConfigError for another than 4 and 8."""
    if connectivity not in (4, 8):
        raise ConfigError(f"a connectivity of {connectivity} is not known", fix="give 4 (edges) or 8 (and corners)")


def _found(
    read: Callable[[Window], Numbers], grid: Grid, units: _Units, least: float, connectivity: int,
    strip_px: int, on_progress: Tick,
) -> _Found:  # fmt: skip
    """Components of all strips of a map."""
    require_connectivity(connectivity)
    found, windows = _Found([], [], [], [], [0]), strips(grid, strip_px)
    border: tuple[Numbers, _Ids] | None = None
    for number, window in enumerate(windows, 1):
        index = read(window)
        border = found.add(index, units[window.row :][: window.height], border, least, eight=connectivity == 8)
        on_progress(number, len(windows))
    return found


def _pairs(
    upper: Numbers, lower: Numbers, above: npt.NDArray[Any], below: npt.NDArray[Any], eight: bool
) -> tuple[_Ids, _Ids]:
    """Which ids of rows and of those below are of one class, and which of two, (2, E) each; classes and ids (H, W)."""
    fresh = np.ones(upper.shape, bool)  # where both ids are those of the pixel before, nothing is new
    fresh[:, 1:] = (above[:, 1:] != above[:, :-1]) | (below[:, 1:] != below[:, :-1])
    everywhere, left, right = slice(None), slice(None, -1), slice(1, None)
    same: list[_Ids] = []
    touch: list[_Ids] = []
    for a, b in ((everywhere, everywhere), (left, right), (right, left)) if eight else ((everywhere, everywhere),):
        one, other = upper[:, a], lower[:, b]
        known = (one != _nothing(one)) & (other != _nothing(other))
        known &= fresh if a == everywhere else True
        for pairs, hit in ((same, known & (one == other)), (touch, known & (one != other))):
            pairs.append(np.stack([above[:, a][hit], below[:, b][hit]]).astype(np.int32))
    return np.concatenate(same, axis=1), np.concatenate(touch, axis=1)


def connected(count: int, pairs: _Ids) -> _Ids:
    """The least member of the component of each of `count` nodes (count,) that pairs (2, E) link.

    Roots hook onto lesser roots and paths are made short until no pair has two (as Shiloach and Vishkin 1982).
    """
    root = np.arange(count, dtype=np.int32)
    while pairs.size:
        np.minimum.at(root, pairs.max(0), pairs.min(0))
        while not np.array_equal(shorter := root[root], root):
            root = shorter
        pairs = root[pairs]
        pairs = pairs[:, pairs[0] != pairs[1]]
    return root


def _distinct(pairs: _Ids) -> _Ids:
    """Every pair (2, E) of two different ids once."""
    pairs = pairs[:, pairs[0] != pairs[1]]
    base = int(pairs.max(initial=0)) + 1
    keys = pairs.min(0).astype(np.int64)
    keys *= base
    keys += pairs.max(0)
    keys = sorted_once(keys)
    found = np.empty((2, len(keys)), np.int32)
    np.divmod(keys, base, out=(found[0], found[1]), casting="unsafe")
    return found


def sorted_once(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As np.unique, which hashes and takes ten times as long."""
    keys = np.sort(keys)
    fresh = np.ones(len(keys), bool)
    fresh[1:] = keys[1:] > keys[:-1]
    return np.asarray(keys[fresh])


def _absorb(classes: Numbers, sizes: _Units, pairs: _Ids, least: float) -> _Ids:
    """Join what is smaller than `least` to its neighbours (2, E); returns what each is part of in the end (N,).

    Both classes and sizes (N,) are changed in place; they hold for the nodes that are left.
    """
    part_of = np.arange(len(classes), dtype=np.int32)
    while (pairs := pairs[:, (sizes[pairs] < least).any(0)]).size:
        nodes = sorted_once(pairs.ravel())
        at = np.searchsorted(nodes, pairs).astype(np.int32)
        order = np.lexsort((-classes[nodes].astype(np.int32), sizes[nodes])).astype(np.int32)
        rank = np.empty(len(nodes), np.int32)
        rank[order] = np.arange(len(nodes))
        # Neighbours are of two classes, so none has the same size and class as another: ranks of a pair have no ties.
        low, high = order[np.sort(rank[at], axis=0)]
        waits = np.zeros(len(nodes), bool)
        waits[high[sizes[nodes[high]] < least]] = True
        low, high = low[~waits[low]], high[~waits[low]]
        largest = np.zeros(len(nodes), np.int32)
        np.maximum.at(largest, low, rank[high])
        classes[nodes[low]] = classes[nodes[order[largest[low]]]]
        joins = classes[nodes[low]] == classes[nodes[high]]
        root = connected(len(nodes), np.stack([low[joins], high[joins]]))
        moved = np.flatnonzero(root != np.arange(len(root)))
        part_of[nodes[moved]] = nodes[root[moved]]
        np.add.at(sizes, nodes[root[moved]], sizes[nodes[moved]])
        pairs = _distinct(nodes[root[at]])
    while not np.array_equal(further := part_of[part_of], part_of):
        part_of = further
    return part_of
