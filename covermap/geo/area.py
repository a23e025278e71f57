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
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.vector import read_table


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
    # Cut first: polygons that reach around the world have no place in most CRS.
    bounds = transform_bounds(grid.crs, table.crs.to_wkt(), *grid.bounds)
    # With room around, for the straight cut becomes a bent line in the other CRS.
    near = shapely.box(*bounds).buffer(max(bounds[2] - bounds[0], bounds[3] - bounds[1]) / 2, join_style="mitre")
    cut = shapely.intersection(shapely.make_valid(table.geometry.to_numpy()), near)
    shapes = shapely.make_valid(gpd.GeoSeries(cut, crs=table.crs).to_crs(grid.crs.to_wkt()).to_numpy())
    to_pixels = ~grid.transform
    matrix = [to_pixels.a, to_pixels.b, to_pixels.d, to_pixels.e, to_pixels.c, to_pixels.f]
    union = shapely.affinity.affine_transform(shapely.union_all(shapes), matrix)
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
