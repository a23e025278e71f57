"""Where scenes hold data, on the grid of another one: so that a place that several scenes show is mapped once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject, transform_bounds

from covermap.data.scene import Scene
from covermap.geo.grid import Grid, Window


def covered(grid: Grid, window: Window, scenes: Sequence[Scene]) -> npt.NDArray[np.bool_]:
    """(H, W) of a window of a grid: whether one of the scenes holds data at a pixel's centre."""
    found = np.zeros((window.height, window.width), bool)
    for scene in scenes:
        there = _window_in(scene.grid, grid.window_grid(window))
        if not there.is_empty:
            onto = grid.window_grid(window)
            valid = np.asarray(scene.read(there).valid.any(0))
            found |= _onto(valid, scene.grid.window_grid(there), onto)
    return found


def overlapping(grid: Grid, scenes: Sequence[Scene]) -> list[Scene]:
    """Those scenes whose extent meets that of a grid."""
    return [scene for scene in scenes if not _window_in(scene.grid, grid).is_empty]


def _window_in(grid: Grid, other: Grid) -> Window:
    """The window of a grid that holds all of another one's extent, as far as the grid reaches; a pixel to spare."""
    box = other.bounds
    if grid.crs and other.crs and not grid.same_crs(other):
        box = transform_bounds(other.crs, grid.crs, *other.bounds, densify_pts=21)
    to = ~grid.transform
    corners = [to * xy for xy in ((box[0], box[1]), (box[0], box[3]), (box[2], box[1]), (box[2], box[3]))]
    if not np.isfinite(corners).all():
        return Window(0, 0, 0, 0)
    cols, rows = ([corner[axis] for corner in corners] for axis in (0, 1))
    top, left = int(np.floor(min(rows))) - 1, int(np.floor(min(cols))) - 1
    window = Window(top, left, int(np.ceil(max(rows))) + 1 - top, int(np.ceil(max(cols))) + 1 - left)
    if min(max(rows), grid.height - min(rows), max(cols), grid.width - min(cols)) <= 0:
        return Window(0, 0, 0, 0)
    return window.intersect(grid.window)


def _onto(valid: npt.NDArray[np.bool_], own: Grid, grid: Grid) -> npt.NDArray[np.bool_]:
    """A mask on another grid, by the nearest pixel."""
    found = np.zeros((grid.height, grid.width), np.uint8)
    plain = CRS.from_epsg(3857)  # grids without a CRS share one that nobody knows
    reproject(
        valid.astype(np.uint8), found, src_transform=own.transform, src_crs=own.crs or plain,
        dst_transform=grid.transform, dst_crs=grid.crs or plain, resampling=Resampling.nearest, init_dest_nodata=False,
    )  # fmt: skip
    return found.astype(bool)
