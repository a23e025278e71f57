"""Density of points (heads of landslides, epicentres, sightings): how many there are on a square kilometre.

A Gaussian kernel around each point; its standard deviation is the bandwidth in metres on the ground, measured by
each point's own row, so that any window holds the same values as the whole (Silverman 1986, chapter 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from covermap.core.errors import ConfigError, GridError, LabelError
from covermap.geo.grid import Grid, Window
from covermap.geo.vector import onto_crs, read_table, without_place

_REACH = 4.0
"""Standard deviations after which a kernel ends: 0.01 % of it lies beyond."""
_AT_ONCE = 2000
"""Points that are added to a window together."""


@dataclass(frozen=True)
class PointDensity:
    """Points on a grid: `rows`, `cols` in px (N,), sizes of a pixel there and the kernel's standard deviation in m.

    Points beyond the grid count as far as their kernels reach; no correction is made where the inventory ends.
    """

    grid: Grid
    rows: npt.NDArray[np.float64]
    cols: npt.NDArray[np.float64]
    width_m: npt.NDArray[np.float64]
    height_m: npt.NDArray[np.float64]
    bandwidth_m: float
    notes: tuple[str, ...] = ()

    @staticmethod
    def open(
        path: str | Path, *, grid: Grid, bandwidth_m: float, layer: str | None = None, epsg: int | None = None
    ) -> PointDensity:
        """Read points of a GPKG, GeoJSON, Shapefile or CSV; raises ConfigError, DataError, LabelError, GridError."""
        if not (np.isfinite(bandwidth_m) and bandwidth_m > 0):
            raise ConfigError(f"{bandwidth_m:g} m is no bandwidth", fix="give metres above 0, for example 500")
        if bandwidth_m < grid.gsd_m / 2:
            raise ConfigError(
                f"a bandwidth of {bandwidth_m:g} m is below half a pixel ({grid.gsd_m:g} m): points would be lost",
                fix="give a larger one, usually some hundred metres",
            )
        if grid.crs is None or grid.transform.b or grid.transform.d:
            raise GridError("a density counts metres: the grid needs a CRS and rows from west to east", fix="gdalwarp")
        notes: list[str] = []
        shapes = onto_crs(read_table(path, notes, layer=layer, epsg=epsg), grid, epsg, str(path)).geometry.to_numpy()
        nowhere = without_place(shapes)
        shapes = shapes[~nowhere]
        if num := int((shapely.get_dimensions(shapes) > 0).sum()):
            raise LabelError(f"{path} holds {num:,} lines or polygons", fix="give points: their heads or centroids")
        xy = shapely.get_coordinates(shapes)
        cols, rows = ~grid.transform * (xy[:, 0], xy[:, 1])
        near = _near(grid, rows, cols, bandwidth_m)
        for count, what in ((nowhere.sum(), "have no place"), ((~near).sum(), "lie out of reach of the grid")):
            if count:
                notes.append(f"{int(count):,} points {what} and were left out")
        if not near.any():
            raise GridError(f"no point of {path} lies on the grid ({grid.describe()})", fix="check the CRS of both")
        rows, cols = rows[near], cols[near]
        width_m, height_m = _sizes_m(grid, rows)
        return PointDensity(grid, rows, cols, width_m, height_m, bandwidth_m, tuple(notes))

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """Points per km2 (H, W) at the centres of a window's pixels."""
        y = np.arange(window.row, window.row + window.height, dtype=np.float64)[:, None] + 0.5
        x = np.arange(window.col, window.col + window.width, dtype=np.float64)[:, None] + 0.5
        found = np.zeros((window.height, window.width))
        down, across = _REACH * self.bandwidth_m / self.height_m, _REACH * self.bandwidth_m / self.width_m
        here = (self.rows > y[0] - down) & (self.rows < y[-1] + down)
        here = np.flatnonzero(here & (self.cols > x[0] - across) & (self.cols < x[-1] + across))
        for i in np.split(here, range(_AT_ONCE, len(here), _AT_ONCE)):
            found += self._kernel(y, self.rows[i], self.height_m[i]) @ self._kernel(x, self.cols[i], self.width_m[i]).T
        return (found * 1e6).astype(np.float32)

    def _kernel(
        self, place: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], size_m: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Along one axis, per metre: places (P, 1) in px, centres (N,) -> (P, N)."""
        away = (place - centre) * size_m / self.bandwidth_m
        height = np.exp(-0.5 * away**2) / (np.sqrt(2 * np.pi) * self.bandwidth_m)
        return np.where(np.abs(away) < _REACH, height, 0.0)


def _sizes_m(grid: Grid, rows: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Width and height in metres of a pixel in each point's row; beyond the grid as in its first or last row."""
    width, height = (np.asarray(size) for size in grid.row_sizes_m(0, grid.height))
    which = np.clip(np.floor(rows).astype(np.int64), 0, grid.height - 1)
    return width[which], height[which]


def _near(
    grid: Grid, rows: npt.NDArray[np.float64], cols: npt.NDArray[np.float64], bandwidth_m: float
) -> npt.NDArray[np.bool_]:
    width_m, height_m = _sizes_m(grid, rows)
    down, across = _REACH * bandwidth_m / height_m, _REACH * bandwidth_m / width_m
    return (rows > -down) & (rows < grid.height + down) & (cols > -across) & (cols < grid.width + across)
