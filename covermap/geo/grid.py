"""Grid and Window: where pixels lie, and exact partitions of a scene into blocks and overlapping windows.

Everything inside covermap is counted in whole pixels, rows before columns; metres and degrees appear only here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio.windows
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_bounds

from covermap.core.errors import GridError
from covermap.geo.damage import PROJ_ERRORS, between, require_finite


class Window(NamedTuple):
    """A rectangle of pixels: first row, first column, height, width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing an array whose last two axes are rows and columns."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    @property
    def rasterio(self) -> rasterio.windows.Window:
        return rasterio.windows.Window(self.col, self.row, self.width, self.height)

    def intersect(self, other: Window) -> Window:
        """The common part; height or width is 0 where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.col + self.width, other.col + other.width)
        return Window(row, col, max(0, bottom - row), max(0, right - col))

    def pad(self, px: int) -> Window:
        """Grown by px on every side (it may reach outside the scene)."""
        return Window(self.row - px, self.col - px, self.height + 2 * px, self.width + 2 * px)

    def within(self, outer: Window) -> Window:
        """The same rectangle counted from the upper left of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.height, self.width)

    @property
    def is_empty(self) -> bool:
        return self.height <= 0 or self.width <= 0


@dataclass(frozen=True)
class Grid:
    """A raster's place: CRS (None: unknown), affine transform of the upper left corner, height and width in px."""

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, self.height, self.width)

    @property
    def bounds(self) -> BoundingBox:
        """left, bottom, right, top in CRS units."""
        corners = [self.transform * xy for xy in ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height))]
        xs, ys = [c[0] for c in corners], [c[1] for c in corners]
        return BoundingBox(min(xs), min(ys), max(xs), max(ys))

    @property
    def is_geographic(self) -> bool:
        return bool(self.crs and self.crs.is_geographic)

    @property
    def gsd_m(self) -> float:
        """Ground size of a pixel in metres, mean of both axes; of a geographic CRS at the grid's centre."""
        x, y = math.hypot(self.transform.a, self.transform.d), math.hypot(self.transform.b, self.transform.e)
        if self.is_geographic:
            _, lat = self.transform * (self.width / 2, self.height / 2)
            return (x * 111_320 * math.cos(math.radians(lat)) + y * 110_574) / 2
        factor = self.crs.linear_units_factor[1] if self.crs and self.crs.is_projected else 1.0
        return float((x + y) / 2 * factor)

    @property
    def _is_mercator(self) -> bool:
        # By WKT: what to_dict says of a CRS with a code is another thing in each version of rasterio.
        return bool(self.crs and self.crs.is_projected and 'PROJECTION["Mercator' in self.crs.to_wkt())

    def row_areas_ha(self, first: int = 0, count: int | None = None) -> list[float]:
        """Area of one pixel of each row in hectares; geodesic (WGS 84) in degrees and in Mercator, which stretches."""
        count = self.height - first if count is None else count
        if not self.is_geographic and not self._is_mercator:
            factor = self.crs.linear_units_factor[1] if self.crs and self.crs.is_projected else 1.0
            return [abs(self.transform.determinant) * factor**2 / 1e4] * count
        geod = Geod(ellps="WGS84")
        areas = []
        for row in range(first, first + count):
            corners = [self.transform * xy for xy in ((0, row), (1, row), (1, row + 1), (0, row + 1))]
            xs, ys = [c[0] for c in corners], [c[1] for c in corners]
            if self._is_mercator:
                xs, ys = warp_points(self.crs, "EPSG:4326", xs, ys)
            area, _ = geod.polygon_area_perimeter(xs, ys)
            areas.append(abs(area) / 1e4)
        return areas

    def row_sizes_m(self, first: int, count: int) -> tuple[list[float], list[float]]:
        """Width and height in metres of a pixel of each row, measured as by `row_areas_ha`; not of turned grids."""
        if not self.is_geographic and not self._is_mercator:
            factor = self.crs.linear_units_factor[1] if self.crs and self.crs.is_projected else 1.0
            return [abs(self.transform.a) * factor] * count, [abs(self.transform.e) * factor] * count
        rows, middle = np.arange(first, first + count), self.width / 2
        ends = ((middle - 0.5, rows + 0.5), (middle + 0.5, rows + 0.5), (middle, rows), (middle, rows + 1.0))
        a, _, c, _, e, f = self.transform[:6]
        places = [(np.full(count, a * col + c), e * row + f) for col, row in ends]
        if self._is_mercator:
            places = [warp_points(self.crs, "EPSG:4326", *xy) for xy in places]
        (west, east, top, bottom), geod = places, Geod(ellps="WGS84")
        return np.asarray(geod.inv(*west, *east)[2]).tolist(), np.asarray(geod.inv(*top, *bottom)[2]).tolist()

    def window_grid(self, window: Window) -> Grid:
        """The grid of one window of this grid."""
        return Grid(self.crs, self.transform * Affine.translation(window.col, window.row), window.height, window.width)

    def coarsen(self, factor: float) -> Grid:
        """The same extent with pixels `factor` times as large (the last row and column may reach beyond)."""
        height, width = math.ceil(self.height / factor - 1e-9), math.ceil(self.width / factor - 1e-9)
        return Grid(self.crs, self.transform * Affine.scale(factor), height, width)

    def is_same(self, other: Grid, *, tolerance_px: float = 0.01) -> bool:
        """Whether both lay the same pixels on the same ground, to a hundredth of a pixel over the whole extent."""
        if self is other:
            return True
        if (self.height, self.width) != (other.height, other.width) or not self.same_crs(other):
            return False
        for xy in ((0, 0), (self.width, 0), (0, self.height), (self.width, self.height)):
            col, row = ~self.transform * (other.transform * xy)
            if abs(col - xy[0]) > tolerance_px or abs(row - xy[1]) > tolerance_px:
                return False
        return True

    def has_extent_of(self, other: Grid) -> bool:
        """Whether both have the same CRS (or none) and corners, to a pixel of the coarser: tiles too."""
        if not self.same_crs(other):
            return False
        pixel = max(abs(g.transform.determinant) ** 0.5 for g in (self, other))
        mine, others = ((*g.transform * (0, 0), *g.transform * (g.width, g.height)) for g in (self, other))
        start, end = (max(abs(a - b) for a, b in zip(mine[i:j], others[i:j], strict=True)) for i, j in ((0, 2), (2, 4)))
        return bool(start < 0.01 * pixel and end < pixel)

    def same_crs(self, other: Grid) -> bool:
        return self.crs == other.crs

    def overlap(self, other: Grid) -> float:
        """Share of this grid's extent that `other` covers, 0 to 1 (bounding boxes; `other` brought to this CRS)."""
        if other.crs and self.crs and other.crs != self.crs:
            box = _brought(other.bounds, other.crs, self.crs)
        else:
            box = other.bounds
        mine = self.bounds
        wide = min(mine.right, box.right) - max(mine.left, box.left)
        tall = min(mine.top, box.top) - max(mine.bottom, box.bottom)
        area = (mine.right - mine.left) * (mine.top - mine.bottom)
        return max(0.0, wide) * max(0.0, tall) / area if area > 0 else 0.0

    def window_of(self, other: Grid, window: Window) -> Window:
        """The rectangle of this grid's pixels (it may reach outside) that holds a window of another grid."""
        bounds = other.window_grid(window).bounds
        if other.crs and self.crs and other.crs != self.crs:
            bounds = _brought(bounds, other.crs, self.crs)
            with between(other.crs, self.crs):
                require_finite(bounds)
        corners = [~self.transform * (x, y) for x in (bounds.left, bounds.right) for y in (bounds.bottom, bounds.top)]
        cols, rows = ([corner[axis] for corner in corners] for axis in (0, 1))
        first_row, first_col = math.floor(min(rows) + 1e-6), math.floor(min(cols) + 1e-6)
        return Window(
            first_row, first_col, math.ceil(max(rows) - 1e-6) - first_row, math.ceil(max(cols) - 1e-6) - first_col
        )

    def lat_lon(self, window: Window | None = None) -> tuple[float, float] | None:
        """Latitude and longitude in degrees of a window's centre; None without a CRS, or one that lies nowhere."""
        if self.crs is None:
            return None
        window = window or self.window
        x, y = self.transform * (window.col + window.width / 2, window.row + window.height / 2)
        try:
            lon, lat = self._to_degrees.transform(x, y)
        except PROJ_ERRORS:
            return None
        return float(lat), float(lon)

    @property
    def outline(self) -> list[tuple[float, float]]:
        """The border as a closed ring of longitude, latitude, counter-clockwise; edges bend, so 8 points each.

        Empty without a CRS.
        """
        if self.crs is None:
            return []
        there = np.arange(8) / 8
        back, zeros, ones = 1 - there, np.zeros(8), np.ones(8)
        cols = np.concatenate([zeros, there, ones, back]) * self.width
        rows = np.concatenate([there, ones, back, zeros]) * self.height
        a, b, c, d, e, f = self.transform[:6]
        lon, lat = warp_points(self.crs, "EPSG:4326", a * cols + b * rows + c, d * cols + e * rows + f)
        ring = [(round(x, 7), round(y, 7)) for x, y in zip(lon, lat, strict=True)]
        return [*ring, ring[0]]

    def degrees(self, windows: Sequence[Window]) -> list[float]:
        """west, south, east, north on WGS 84 around windows; NaN without a CRS."""
        places = np.array(windows)
        first, last = places[:, :2].min(0), (places[:, :2] + places[:, 2:]).max(0)
        ring = self.window_grid(Window(*first.tolist(), *(last - first).tolist())).outline or [(np.nan, np.nan)]
        return [*np.min(ring, 0).tolist(), *np.max(ring, 0).tolist()]

    @cached_property
    def _to_degrees(self) -> Transformer:
        """Made once: training asks for the place of every window."""
        assert self.crs is not None
        return Transformer.from_crs(self.crs.to_wkt(), "EPSG:4326", always_xy=True)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_to_degrees"}

    def describe(self) -> str:
        """One line for messages: CRS, pixel size, size."""
        crs = self.crs.to_string() if self.crs else "no CRS"
        crs = crs if len(crs) <= 24 else crs[:21] + "..."
        return f"{crs} at {self.gsd_m:.4g} m, {self.height} x {self.width} px"


def _brought(bounds: BoundingBox, source: CRS, target: CRS) -> BoundingBox:
    with between(source, target):
        return BoundingBox(*transform_bounds(source, target, *bounds))


def placed(xy: npt.NDArray[np.float64], transform: Affine) -> npt.NDArray[np.float64]:
    """Points (N, 2) after an affine transform."""
    a, b, c, d, e, f = transform[:6]
    return np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1)


def similar_gsd(one: float, two: float) -> bool:
    """Whether two pixel sizes differ by less than a fifth, which one model can take."""
    return 1 / 1.2 <= one / two <= 1.2


def require_same_crs(image: Grid, other: Grid, *, image_name: str, other_name: str) -> None:
    """Raise GridError when one of two grids has no CRS or both differ; the message says how to align."""
    if (image.crs is None and other.crs is None) or image.same_crs(other):
        return
    raise GridError(
        f"{other_name} is {other.describe()}, {image_name} is {image.describe()}",
        fix=f"align it: covermap prepare {other_name} OUT.tif --like {image_name} --resampling mode",
    )


def lattice(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of windows of `size` that cover 0..length with at least `overlap` shared by neighbours.

    Steps are equal; only the last window is moved back so that it ends at `length`. A line shorter than one
    window gives the single start 0.
    """
    if not 0 <= overlap < size:
        raise GridError(
            f"overlap {overlap} px does not go with windows of {size} px", fix="give an overlap below the window size"
        )
    if length <= size:
        return [0]
    step = size - overlap
    starts = list(range(0, length - size, step))
    return [*starts, length - size]


def windows(area: Window, size: int, overlap: int = 0) -> Iterator[Window]:
    """Windows of size x size px over `area`, row by row; smaller ones only where the area is smaller than a window."""
    for row in lattice(area.height, size, overlap):
        for col in lattice(area.width, size, overlap):
            yield Window(area.row + row, area.col + col, min(size, area.height), min(size, area.width))


def spread(grid: Grid, side: int, *, num: int = 4) -> list[Window]:
    """Windows of side x side px spread evenly over a grid, up to num in each direction; cut where it is smaller."""
    rows, cols = (np.unique(np.linspace(0, max(0, n - side), num).astype(int)) for n in (grid.height, grid.width))
    return [Window(r, c, side, side).intersect(grid.window) for r in rows.tolist() for c in cols.tolist()]


def add_by_square(total: npt.NDArray[np.float64], values: npt.NDArray[Any], window: Window, side: int) -> None:
    """Add a window's pixels (H, W) to the sums of squares of side x side px, counted from the grid's corner."""
    rows, cols = (np.arange(first, first + n) // side for first, n in (window[::2], window[1::2]))
    inner = np.add.reduceat(values.astype(np.float64), np.flatnonzero(np.diff(cols, prepend=-1)), axis=1)
    inner = np.add.reduceat(inner, np.flatnonzero(np.diff(rows, prepend=-1)), axis=0)
    total[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] += inner


def partition(area: Window, height: int, width: int) -> Iterator[Window]:
    """Blocks that cover `area` exactly once, row by row; the last of a row or column is cut to fit."""
    for row in range(area.row, area.row + area.height, height):
        for col in range(area.col, area.col + area.width, width):
            yield Window(row, col, height, width).intersect(area)
