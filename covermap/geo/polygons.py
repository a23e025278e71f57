"""Polygons of a class map: traced whole, measured by their pixels, simplified with borders that neighbours share.

In here coordinates are columns and rows of the map: whole numbers, so that what touches touches exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import shapely

from covermap.core.errors import ConfigError
from covermap.geo.grid import Grid, placed
from covermap.geo.patches import sorted_once

Shapes = npt.NDArray[np.object_]
"""Polygons (N,)."""


def trace(path: str | Path) -> tuple[Shapes, npt.NDArray[np.int64]]:
    """The patches (pixels that share an edge) of a raster of codes as polygons (N,), and their codes (N,).

    GDAL goes through the whole band line by line, so a patch is one polygon however large the map and whatever its
    blocks. Where three patches meet, all of them have a corner. Memory: all polygons, about 1 kB for each patch and
    150 bytes for each of its corners.
    """
    with rasterio.open(path) as dataset:
        found = [
            (_polygon(shape["coordinates"]), int(code))
            for shape, code in rasterio.features.shapes(rasterio.band(dataset, 1))
            if code != dataset.nodata
        ]
        to_pixels = ~dataset.transform
    shapes = np.empty(len(found), object)
    shapes[:] = [shape for shape, _ in found]
    shapes = shapely.transform(shapes, lambda xy: np.rint(placed(xy, to_pixels)))
    return with_junctions(shapes), np.array([code for _, code in found], np.int64)


def _polygon(rings: list[list[tuple[float, float]]]) -> shapely.Polygon:
    """A polygon of its outer ring and holes; arrays take shapely a third of the time."""
    outer, *holes = (np.array(ring) for ring in rings)
    return shapely.Polygon(outer, holes)


def with_junctions(shapes: Shapes) -> Shapes:
    """The same polygons of horizontal and vertical edges, with a corner wherever the corner of another lies on an edge.

    Without them two neighbours would not have the same corners along their border, and would be simplified apart.
    """
    if not len(shapes):
        return shapes
    kind, flat, (rings, parts) = shapely.to_ragged_array(shapes)
    xy = flat.astype(np.int64)
    base = int(xy.max()) + 1
    start = np.delete(np.arange(len(xy)), rings[1:] - 1)  # the last corner of a ring begins no edge
    upright = xy[start, 0] == xy[start + 1, 0]
    first, last = np.zeros((2, len(start)), np.int64)
    corners = [sorted_once(xy[:, 1] * base + xy[:, 0]), sorted_once(xy[:, 0] * base + xy[:, 1])]
    for axis, mine in enumerate((~upright, upright)):
        at = start[mine]
        line, ends = xy[at, 1 - axis] * base, np.stack([xy[at, axis], xy[at + 1, axis]])
        first[mine] = np.searchsorted(corners[axis], line + ends.min(0), side="right")
        last[mine] = np.searchsorted(corners[axis], line + ends.max(0), side="left")
    num_new = np.zeros(len(xy), np.int64)
    num_new[start] = last - first
    place = np.concatenate([[0], np.cumsum(1 + num_new)])
    full = np.empty((place[-1], 2), np.int64)
    full[place[:-1]] = xy
    edge = np.repeat(np.arange(len(start)), last - first)
    step = np.arange(len(edge)) - np.searchsorted(edge, edge)
    forward = (xy[start + 1] - xy[start]).sum(1)[edge] > 0
    which = np.where(forward, first[edge] + step, last[edge] - 1 - step)
    target = place[start[edge]] + 1 + step
    for axis, mine in enumerate((~upright[edge], upright[edge])):
        full[target[mine], axis] = corners[axis][which[mine]] % base
        full[target[mine], 1 - axis] = xy[start[edge[mine]], 1 - axis]
    return np.asarray(shapely.from_ragged_array(kind, full.astype(np.float64), (place[rings], parts)))


def areas_ha(shapes: Shapes, grid: Grid) -> npt.NDArray[np.float64]:
    """True area of polygons (N,) in hectares: that of the pixels in them, as Grid.row_areas_ha measures them.

    By the trapezium formula with the ground above each row in place of its number; exact for whole pixels.
    """
    single, number = shapely.get_parts(shapes, return_index=True)
    there = ~shapely.is_empty(single)
    single, number = single[there], number[there]
    if not len(single):
        return np.zeros(len(shapes))
    _, flat, (rings, parts) = shapely.to_ragged_array(single)
    above = np.concatenate([[0], np.cumsum(grid.row_areas_ha())])
    height = np.interp(flat[:, 1], np.arange(len(above)), above)
    strip = (flat[:-1, 0] + flat[1:, 0]) / 2 * np.diff(height)
    strip = np.append(strip, 0.0)
    strip[rings[1:] - 1] = 0  # from one ring to the next
    area = np.abs(np.add.reduceat(strip, rings[:-1]))
    area[np.setdiff1d(np.arange(len(area)), parts[:-1])] *= -1  # holes
    sums = np.bincount(number, weights=np.add.reduceat(area, parts[:-1]), minlength=len(shapes))
    return sums.astype(np.float64)


def simplify(shapes: Shapes, grid: Grid, tolerance_m: float) -> Shapes:
    """Polygons (N,) without the corners whose triangle with both neighbours is smaller than tolerance_m squared.

    Of a border, both sides lose the same corners (Visvalingam and Whyatt 1993; shapely.coverage_simplify), so there are
    no gaps or overlaps; the map's edge and the edge to nodata stay as they are. In degrees metres are those of the
    middle row.
    """
    if not len(shapes):
        return shapes
    # A triangle's area in pixels is that in metres over a pixel's, whatever its shape; and whole numbers stay exact.
    tolerance_px = tolerance_m / float(np.sqrt(_pixel_m(grid).prod()))
    return np.asarray(shapely.coverage_simplify(shapes, tolerance_px, simplify_boundary=False))


def require_tolerance(tolerance_m: float, grid: Grid) -> None:
    """Raise ConfigError for a tolerance that takes no corner away: half a pixel is the smallest triangle there is."""
    least = float(np.sqrt(_pixel_m(grid).prod() / 2))
    if not least < tolerance_m < np.inf:
        raise ConfigError(
            f"a tolerance of {tolerance_m:g} m simplifies no outline of this map ({grid.describe()})",
            fix=f"give more than {least:.3g} m, the size of its stairs; {2 * least:.2g} m makes them straight",
        )


def _pixel_m(grid: Grid) -> npt.NDArray[np.float64]:
    """Width and height of a pixel of the middle row in metres; of a turned grid the mean of both."""
    if grid.transform.b or grid.transform.d:
        return np.full(2, grid.gsd_m)
    return np.ravel(grid.row_sizes_m(grid.height // 2, 1))


def moved_ha(before: Shapes, after: Shapes, grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Hectares that each polygon (N,) gained and lost when it was simplified."""
    gained = np.zeros(len(before))
    changed = np.flatnonzero(shapely.get_num_coordinates(before) != shapely.get_num_coordinates(after))
    gained[changed] = areas_ha(_surfaces(shapely.difference(after[changed], before[changed])), grid)
    # An overlay the other way round would take as long again.
    return gained, np.maximum(gained + areas_ha(before, grid) - areas_ha(after, grid), 0)


def _surfaces(shapes: Any) -> Shapes:
    """Only the polygons of what an overlay gives, where lines and points may be among them."""
    for number in np.flatnonzero(~np.isin(shapely.get_type_id(shapes), (3, 6))):
        parts = shapely.get_parts(shapes[number])
        shapes[number] = shapely.MultiPolygon(list(parts[shapely.get_type_id(parts) == 3]))
    return np.asarray(shapes)


def to_crs_units(shapes: Shapes, grid: Grid) -> Shapes:
    """Polygons with coordinates of the map's CRS."""
    return np.asarray(shapely.transform(shapes, lambda xy: placed(xy, grid.transform)))
