"""What became of each place over three or more dates: sequences of classes, flicker, and impossible steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.crosswalk import Crosswalk
from covermap.core.engine import cores, map_ordered
from covermap.core.from_to import UNCHANGED
from covermap.core.legend import IGNORE, Legend
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import ClassMap
from covermap.geo.grid import Window, partition
from covermap.geo.legend_files import csv_text
from covermap.geo.products import small_cache
from covermap.geo.raster import open_dataset
from covermap.metrics.temporal import Violations, violations

_WINDOW_PX = (512, 2048)
_Counted = dict[tuple[int, ...], tuple[int, float]]


@dataclass(frozen=True)
class Trajectories:
    """Pixels and hectares of each sequence of class indices that occurs, of places where all maps have a class.

    counted: the largest first. num_lost: pixels of the grid where one of the maps has none, or none with a counterpart.
    """

    legend: Legend
    num_dates: int
    counted: _Counted
    num_lost: int
    forbidden: npt.NDArray[np.bool_]

    @property
    def rates(self) -> dict[str, Any]:
        """Shares of the ground (by area): stable; changed once, or more often; flicker; impossible steps.

        flicker: some A-B-A within three dates in a row. impossible: some step that is said to be so.
        """
        total = sum(ha for _, ha in self.counted.values()) or 1.0
        found = dict.fromkeys(("stable", "changed_once", "changed_more", "flicker", "impossible"), 0.0)
        pixels = dict.fromkeys(found, 0)
        for each, (num, ha) in self.counted.items():
            steps = list(pairwise(each))
            moves = sum(a != b for a, b in steps)
            kinds = [("stable", "changed_once")[moves] if moves < 2 else "changed_more"]
            kinds += ["flicker"] if any(a == c != b for a, b, c in zip(each, each[1:], each[2:], strict=False)) else []
            kinds += ["impossible"] if any(self.forbidden[step] for step in steps) else []
            for kind in kinds:
                found[kind] += ha / total
                pixels[kind] += num
        return {**found, "pixels": pixels}

    @property
    def csv(self) -> str:
        """trajectories.csv: a column for each date, pixels, area_ha, share; the most frequent first."""
        total = sum(ha for _, ha in self.counted.values()) or 1.0
        head = [*(f"date_{number}" for number in range(1, self.num_dates + 1)), "changes", "pixels", "area_ha", "share"]
        rows = [
            (*(self.legend.names[i] for i in each), sum(a != b for a, b in pairwise(each)), num,
             f"{ha:.4f}", f"{ha / total:.6g}")
            for each, (num, ha) in self.counted.items()
        ]  # fmt: skip
        return csv_text(head, rows)


@small_cache()
def find_trajectories(
    maps: Sequence[ClassMap], ways: Sequence[Crosswalk], forbidden: npt.NDArray[np.bool_], *,
    on_progress: Tick = unseen,
) -> Trajectories:  # fmt: skip
    """Read all maps once, on the grid of the first. Memory: windows, and the sequences that occur."""
    legend, grid = ways[0].target, maps[0].grid
    tables = [np.where(way.table == IGNORE, len(legend), way.table).astype(np.int64) for way in ways]

    def look(window: Window) -> _Counted:
        codes = [table[each.read(window, grid)] for each, table in zip(maps, tables, strict=True)]
        return _sequences(codes, len(legend), np.asarray(grid.row_areas_ha(window.row, window.height)))

    found: _Counted = {}
    windows = list(partition(grid.window, *_WINDOW_PX))
    for number, part in enumerate(map_ordered(look, windows, workers=cores()), 1):
        for each, (pixels, ha) in part.items():
            had = found.get(each, (0, 0.0))
            found[each] = had[0] + pixels, had[1] + ha
        on_progress(number, len(windows))
    order = sorted(found, key=lambda each: (-found[each][0], each))
    num_lost = grid.height * grid.width - sum(pixels for pixels, _ in found.values())
    return Trajectories(legend, len(maps), {each: found[each] for each in order}, num_lost, forbidden)


@small_cache()
def contradictions(steps: Sequence[Path], whole: Path) -> Violations:
    """How often change maps of two steps and that of the whole contradict each other, over all that they know.

    Comparisons of the same classes never do; rules that set changes aside, or maps of change that were learnt, may.
    """
    found: Violations | None = None
    readers = [open_dataset(str(path)) for path in (*steps, whole)]
    for window in partition(Window(0, 0, readers[0].height, readers[0].width), *_WINDOW_PX):
        codes = [reader.read(1, window=window.rasterio) for reader in readers]
        known = np.logical_and.reduce([code != reader.nodata for code, reader in zip(codes, readers, strict=True)])
        # From-to maps hold 0 where nothing changed, binary ones 1.
        still = [1 if code.dtype == np.uint8 else UNCHANGED for code in codes]
        first, second, both = (code != no for code, no in zip(codes, still, strict=True))
        part = violations(first, second, both, known)
        found = part if found is None else found.plus(part)
    assert found is not None
    return found


def _sequences(codes: Sequence[npt.NDArray[np.int64]], k: int, row_ha: npt.NDArray[np.float64]) -> _Counted:
    """Sequences of indices (H, W) of each date, k for none; those with one that is none are left out.

    Date by date: the sequences so far are numbered anew, so that their numbers stay small whatever the dates.
    """
    areas = np.repeat(row_ha, codes[0].shape[1])
    numbers = codes[0].ravel()
    known: list[tuple[int, ...]] = [(i,) for i in range(k + 1)]
    for each in codes[1:]:
        numbers = numbers * (k + 1) + each.ravel()
        there = np.flatnonzero(np.bincount(numbers, minlength=len(known) * (k + 1)))
        anew = np.zeros(len(known) * (k + 1), np.int64)
        anew[there] = np.arange(len(there))
        numbers = anew[numbers]
        known = [(*known[i // (k + 1)], i % (k + 1)) for i in there.tolist()]
    pixels = np.bincount(numbers, minlength=len(known))
    hectares = np.bincount(numbers, areas, len(known))
    each_of = zip(known, pixels.tolist(), hectares.tolist(), strict=True)
    return {sequence: (num, ha) for sequence, num, ha in each_of if num and k not in sequence}
