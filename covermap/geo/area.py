"""Area of interest: polygons that say which part of a scene is mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.warp import transform_bounds

from covermap.core.errors import DataError, GridError
from covermap.geo.damage import between, require_finite
from covermap.geo.grid import Grid, Window, partition, placed
from covermap.geo.vector import read_table

STEPS = 1000
"""Steps along the longer side of a grid in which the edges of polygons in another CRS are followed."""


@dataclass(frozen=True)
class Area:
    """The union of polygons in pixels of a grid, and its bounding window cut to the grid."""

    shape: Any
    window: Window

    def read(self, window: Window) -> npt.NDArray[np.bool_]:
        """(H, W): True for pixels whose centre lies inside."""
        size = (window.height, window.width)
        transform = Affine.translation(window.col, window.row)
        return np.asarray(rasterize([(self.shape, 1)], out_shape=size, transform=transform, dtype="uint8"), bool)


class Outside(GridError):
    """Polygons that hold nothing of a grid."""


def in_pixels(table: gpd.GeoDataFrame, grid: Grid) -> npt.NDArray[np.object_]:
    """The polygons (N,) of a table in pixels of a grid, cut to its surroundings: empty where they are far away.

    Edges are straight in the table's CRS, so they are followed in short steps. Both CRS are known, or neither is.
    """
    shapes = _valid(table.geometry.to_numpy())
    if grid.crs and table.crs != grid.crs.to_wkt():
        # Cut first: polygons that reach around the world have no place in most CRS.
        with between(grid.crs, table.crs):
            box = transform_bounds(grid.crs, table.crs.to_wkt(), *grid.bounds)
            left, bottom, right, top = require_finite(box)
        across = left > right  # the antimeridian
        side = max(right - left + 360 * across, top - bottom)
        parts = [(left, 180.0), (-180.0, right)] if across else [(left, right)]
        # With room around, for the straight cut becomes a bent line in the other CRS.
        near = shapely.union_all([
            shapely.box(west, bottom, east, top).buffer(side / 2, join_style="mitre") for west, east in parts
        ])  # fmt: skip
        shapes = shapely.segmentize(shapely.intersection(shapes, near), side / STEPS)
        shapes = _valid(gpd.GeoSeries(shapes, crs=table.crs).to_crs(grid.crs.to_wkt()).to_numpy())
    return np.asarray(shapely.transform(shapes, lambda xy: placed(xy, ~grid.transform)))


def _valid(shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Polygons without lines that touch themselves; such lines hold no area."""
    return np.asarray(shapely.make_valid(shapes, method="structure", keep_collapsed=False))


def read_area(path: str | Path, grid: Grid) -> Area:
    """Polygons of a file on a grid; raises DataError (unreadable, no polygon), GridError (no CRS) and Outside."""
    table = read_table(path)
    if table.crs is None or grid.crs is None:
        raise GridError(
            f"{path if table.crs is None else 'the image'} has no CRS",
            fix="assign it, so that both can be laid over each other",
        )
    table = table[np.isin(shapely.get_type_id(table.geometry.to_numpy()), (3, 6, 7))]
    if not len(table):
        raise DataError(f"{path} holds no polygon", fix="give an area of interest drawn as polygons")
    union = shapely.union_all(in_pixels(table, grid))
    window = Window(0, 0, 0, 0)
    if not union.is_empty:
        left, top, right, bottom = (float(v) for v in union.bounds)
        first_row, first_col = int(np.floor(top)), int(np.floor(left))
        window = Window(first_row, first_col, int(np.ceil(bottom)) - first_row, int(np.ceil(right)) - first_col)
        window = window.intersect(grid.window)
    if window.is_empty:
        raise Outside(f"{path} does not overlap the image ({grid.describe()})", fix="check the place and CRS of both")
    area = Area(union, window)
    if not any(area.read(block).any() for block in partition(window, 4096, 4096)):
        raise Outside(f"{path} holds no pixel's centre ({grid.describe()})", fix="give a larger area of interest")
    return area
