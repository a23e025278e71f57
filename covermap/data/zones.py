"""Zones: polygons with names (districts, catchments) whose areas are told, as numbers of pixels of a map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize

from covermap.core.errors import DataError, GridError, suggest
from covermap.geo.area import in_pixels
from covermap.geo.grid import Grid, Window
from covermap.geo.vector import read_table, require_crs, without_place

_LIKELY = ("name", "zone", "district", "region", "id")


@dataclass(frozen=True)
class Zones:
    """Polygons (N,) in pixels of a grid, each with the number of its zone; names of the zones in order."""

    names: tuple[str, ...]
    shapes: npt.NDArray[np.object_]
    numbers: npt.NDArray[np.intp]
    notes: tuple[str, ...]
    _tree: Any

    @staticmethod
    def open(path: str | Path, grid: Grid, field: str | None) -> Zones:
        """Polygons of a file; those of one name are one zone. Raises DataError, GridError."""
        table = read_table(path)
        require_crs(table, grid, str(path))
        columns = [str(name) for name in table.columns if name != table.geometry.name]
        if field is not None and field not in columns:
            raise DataError(f"{path} has no field {field!r}", fix=suggest(field, columns))
        chosen = field or next((name for name in columns if name.lower() in _LIKELY), None)
        if chosen is None:
            raise DataError(
                f"{path} has the fields {', '.join(columns) or 'none'}",
                fix="name the one that tells zones: --zone-field",
            )
        table = table[~without_place(table.geometry.to_numpy())]
        table = table[shapely.get_dimensions(table.geometry.to_numpy()) == 2]
        if table.empty:
            raise DataError(f"{path} holds no polygon", fix="give districts as polygons")
        shapes = in_pixels(table, grid)
        names, numbers = np.unique([str(name) for name in table[chosen].tolist()], return_inverse=True)
        tree = shapely.STRtree(shapes)
        if not tree.query(shapely.box(0, 0, grid.width, grid.height)).size:
            raise GridError(
                f"no polygon of {path} meets the map", fix="check its CRS and that it is of the same region"
            )
        return Zones(tuple(names.tolist()), shapes, numbers.astype(np.intp), _overlaps(tree, shapes, numbers), tree)

    def read(self, window: Window) -> npt.NDArray[np.int32]:
        """Number of each pixel's zone (H, W) by its centre, -1 where there is none; of zones that overlap, the last."""
        box = shapely.box(window.col, window.row, window.col + window.width, window.row + window.height)
        near = np.sort(self._tree.query(box))
        shape = window.height, window.width
        if not near.size:
            return np.full(shape, -1, np.int32)
        shift = Affine.translation(window.col, window.row)
        burnt = [(self.shapes[i], int(self.numbers[i])) for i in near.tolist()]
        return np.asarray(rasterize(burnt, out_shape=shape, transform=shift, fill=-1, dtype="int32"))

    def at(self, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        """Numbers of the zones of pixels (N,), by the rule of `read`."""
        return np.array(
            [self.read(Window(row, col, 1, 1))[0, 0] for row, col in zip(rows.tolist(), cols.tolist(), strict=True)]
        )


def _overlaps(tree: Any, shapes: npt.NDArray[np.object_], numbers: npt.NDArray[np.intp]) -> tuple[str, ...]:
    """A note where zones share more than slivers of a pixel."""
    first, second = tree.query(shapes)  # boxes alone: parts of one zone may lie on each other a thousand times
    pairs = (first < second) & (numbers[first] != numbers[second])
    shared = shapely.area(shapely.intersection(shapes[first[pairs]], shapes[second[pairs]])) > 1
    if not shared.any():
        return ()
    return (f"{int(shared.sum()):,} pairs of zones overlap: what they share is counted to the last one",)
