"""Frame: the pixels of a map that a sample is drawn from, by stratum, and pixels drawn from it at random.

Blocks are gone through in one order, so that what is drawn depends on map and seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.design import SAME_GROUND, Cluster
from covermap.core.errors import DataError, GridError
from covermap.core.legend import IGNORE
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import ClassMap, open_class_map
from covermap.geo.grid import Window, add_by_square
from covermap.geo.products import count_rows

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Pixels (N,): row, column, stratum and cluster as index."""

    rows: Ints
    cols: Ints
    stratum: Ints
    cluster: Ints

    @staticmethod
    def join(parts: Sequence[tuple[Ints, Ints, int, int]]) -> Drawn:
        """Parts: rows, columns, one stratum, one cluster."""
        sizes = [len(rows) for rows, *_ in parts]
        return Drawn(
            np.concatenate([part[0] for part in parts]).astype(np.int64),
            np.concatenate([part[1] for part in parts]).astype(np.int64),
            np.repeat([part[2] for part in parts], sizes),
            np.repeat([part[3] for part in parts], sizes),
        )

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Frame:
    """A map, and the raster whose classes are its strata; None: all of the map is one stratum.

    on_progress: hears of both times that the map is read.
    """

    map: ClassMap
    strata: ClassMap | None
    on_progress: Tick = unseen

    @staticmethod
    def open(source: str | Path, strata: str | Path | None, *, stratified: bool, on_progress: Tick = unseen) -> Frame:
        """Strata: those of another raster, or the map's own classes. Raises DataError, LabelError, GridError.

        Strata must hold all of the map: a sample of a part says nothing about the rest.
        """
        found = open_class_map(source, infer=True)
        by = open_class_map(strata, infer=True) if strata else found
        if not by.grid.is_same(found.grid):
            raise GridError(
                f"{strata} is not on the grid of {source}: {by.grid.describe()}; {found.grid.describe()}",
                fix=f"bring it there: gdalwarp -r near with the extent and pixel size of {source}",
            )
        frame = Frame(found, by if stratified else None, on_progress)
        if by is not found:
            mapped_ha, drawn_ha = Frame(found, None).area_ha.sum(), frame.area_ha.sum()
            if mapped_ha - drawn_ha > SAME_GROUND * mapped_ha:
                raise DataError(
                    f"{strata} holds {drawn_ha:,.1f} ha of {source}, {mapped_ha - drawn_ha:,.1f} ha lie outside of it",
                    fix="give what lies outside a stratum of its own; to assess the part alone, make it a map: set the "
                    "rest of the map to nodata",
                )
        return frame

    @property
    def names(self) -> tuple[str, ...]:
        """Of the strata."""
        return self.strata.legend.names if self.strata else ("all",)

    @property
    def codes(self) -> tuple[int, ...]:
        """Of the strata; 0 for all of the map."""
        return self.strata.legend.codes if self.strata else (0,)

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """Stratum index (H, W), IGNORE where nothing can be drawn: the map or the strata hold nothing."""
        mapped = self.map.read(window)
        by = self.strata.read(window) if self.strata and self.strata is not self.map else mapped
        found = by if self.strata else np.zeros_like(mapped)
        return np.where(mapped == IGNORE, np.uint8(IGNORE), found)

    def _blocks(self, times_before: int) -> Iterator[Window]:
        blocks = list(self.map.blocks())
        for done, block in enumerate(blocks, 1):
            yield block
            self.on_progress(times_before * len(blocks) + done, 2 * len(blocks))

    @cached_property
    def _counted(self) -> tuple[Ints, npt.NDArray[np.float64]]:
        num_pixels, area_ha = np.zeros(256, np.int64), np.zeros(256)
        for block in self._blocks(0):
            in_row = count_rows(self.read(block))
            num_pixels += in_row.sum(0)
            area_ha += np.asarray(self.map.grid.row_areas_ha(block.row, block.height)) @ in_row
        size = len(self.codes)
        if not num_pixels[:size].any():
            raise DataError(f"{self.map.name} holds no pixel of a class", fix="check its nodata value and legend")
        return num_pixels[:size], area_ha[:size]

    @property
    def num_pixels(self) -> Ints:
        """Of each stratum (S,)."""
        return self._counted[0]

    @property
    def area_ha(self) -> npt.NDArray[np.float64]:
        """Hectares of each stratum (S,); rows weigh by the ground size of their own pixels."""
        return self._counted[1]

    def pick(self, num: Sequence[int], seed: int) -> Drawn:
        """`num` pixels of each stratum, each set equally likely."""
        random = np.random.default_rng(seed)
        # The ranks of the wanted pixels among those of their stratum, in the order of reading.
        ranks = [np.sort(random.choice(int(n), k, replace=False, shuffle=False)) if k else np.zeros(0, np.int64)
                 for n, k in zip(self.num_pixels, num, strict=True)]  # fmt: skip
        seen, parts = [0] * len(ranks), []
        for block in self._blocks(1):
            index = self.read(block).ravel()
            counts = np.bincount(index, minlength=256)
            for s, wanted in enumerate(ranks):
                first, last = np.searchsorted(wanted, [seen[s], seen[s] + counts[s]])
                if first < last:
                    at = np.flatnonzero(index == s)[wanted[first:last] - seen[s]]
                    parts.append((block.row + at // block.width, block.col + at % block.width, s, 0))
                seen[s] += int(counts[s])
        return Drawn.join(parts)

    def every(self, num: int, seed: int) -> Drawn:
        """Pixels in a square lattice with a random start, about `num` of them with a class."""
        grid, random = self.map.grid, np.random.default_rng(seed)
        step = max(1.0, float(np.sqrt(self.num_pixels.sum() / num)))
        row0, col0 = random.uniform(0, step, 2)
        rows = np.arange(row0, grid.height, step).astype(np.int64)
        cols = np.arange(col0, grid.width, step).astype(np.int64)
        parts = []
        for block in self._blocks(1):
            mine = (rows[(rows >= block.row) & (rows < block.row + block.height)],
                    cols[(cols >= block.col) & (cols < block.col + block.width)])  # fmt: skip
            if mine[0].size and mine[1].size:
                r, c = (v.ravel() for v in np.meshgrid(*mine, indexing="ij"))
                known = self.read(block)[r - block.row, c - block.col] != IGNORE
                parts.append((r[known], c[known], 0, 0))
        found = Drawn.join(parts) if parts else None
        if found is None or len(found) < 2:
            raise DataError(
                "the lattice meets fewer than two pixels with a class", fix="draw more (--num), or --seed 1"
            )
        return found

    def squares(self, side_px: int, num: int, per_cluster: int, seed: int) -> tuple[Drawn, list[Cluster]]:
        """`num` squares of side_px that hold a class, each set equally likely, and up to per_cluster pixels in each."""
        grid, random = self.map.grid, np.random.default_rng(seed)
        total = np.zeros((-(-grid.height // side_px), -(-grid.width // side_px)))
        for block in self._blocks(1):
            add_by_square(total, self.read(block) != IGNORE, block, side_px)
        held = np.argwhere(total > 0)
        if len(held) < max(2, num):
            raise DataError(
                f"the map has {len(held):,} squares of {side_px} px with a class, {max(2, num):,} are to be drawn",
                fix="make them smaller (--cluster-px), or draw fewer",
            )
        parts, clusters = [], []
        for number, which in enumerate(np.sort(random.choice(len(held), num, replace=False)).tolist()):
            row, col = (held[which] * side_px).tolist()
            window = Window(row, col, side_px, side_px).intersect(grid.window)
            at = np.flatnonzero(self.read(window) != IGNORE)
            mine = np.sort(random.choice(at, min(per_cluster, len(at)), replace=False))
            parts.append((row + mine // window.width, col + mine % window.width, 0, number))
            clusters.append(Cluster(id=number, num_pixels=len(at), num_samples=len(mine)))
        return Drawn.join(parts), clusters
