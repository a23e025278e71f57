"""The frame of a view: one lattice of pixels on which all layers lie, and its tiles.

Column and row of the frame grow right and down from its origin. At the zoom `native` a tile's pixels are those of the
frame, at each zoom below it twice as large; at zoom 0 all fits into about one tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_bounds

from covermap.core.errors import GridError
from covermap.geo.damage import PROJ_ERRORS
from covermap.geo.grid import Grid

TILE_PX = 256
_WEB = CRS.from_epsg(3857)
_MOST_PX = 1 << 30
"""Longest side of a frame: layers further apart than that in pixels of the finest are not looked at together."""

_LOSS = 0.05
"""Pixels may be finer than the frame's by this share: those of neighbouring zones differ by less."""
_ROUND = 180.01
"""Degrees; whole worlds often end a rounding further."""

Box = tuple[float, float, float, float]
"""left, top, right, bottom in px of the frame."""


@dataclass(frozen=True)
class Frame:
    """crs: None in pixel coordinates, where every layer has the grid `pixels`. x0, y0: upper left, in CRS units."""

    crs: CRS | None
    x0: float
    y0: float
    resolution: float
    width: int
    height: int
    hectares_per_px: float | None = None
    pixels: Grid | None = None

    @property
    def native(self) -> int:
        """The zoom at which a tile's pixels are the frame's."""
        return max(0, math.ceil(math.log2(max(self.width, self.height, 1) / TILE_PX)))

    @cached_property
    def transform(self) -> Affine:
        """From column, row to x, y of the CRS."""
        return Affine(self.resolution, 0, self.x0, 0, -self.resolution, self.y0)

    def is_straight(self, grid: Grid) -> bool:
        """Whether a grid's rows and columns run along the frame's: its pixels are read without resampling."""
        if self.crs is None:
            return True
        to = grid.transform
        return bool(grid.crs == self.crs and to.b == to.d == 0 and to.a > 0 and to.e < 0)

    def is_exact(self, grid: Grid) -> bool:
        """Whether each of its pixels is a whole number of the frame's: then these can be counted for areas."""
        if not self.is_straight(grid):
            return False
        left, top, right, bottom = self.box(grid)
        sizes = (right - left) / grid.width, (bottom - top) / grid.height
        whole = all(size > 0.5 and abs(size - round(size)) * most < 0.02
                    for size, most in zip(sizes, (grid.width, grid.height), strict=True))  # fmt: skip
        return whole and self.shift(grid) < 0.02

    def shift(self, grid: Grid) -> float:
        """How far a grid that is straight lies off the frame's lattice, in px of the frame: 0 to 0.5."""
        return max(abs(edge - round(edge)) for edge in self.px(grid, 0, 0))

    def px(self, grid: Grid, col: float, row: float) -> tuple[float, float]:
        """Column and row of a grid that is straight -> column and row of the frame."""
        if self.crs is None:
            return col, row
        to = grid.transform
        return (to.a * col + to.c - self.x0) / self.resolution, (self.y0 - to.e * row - to.f) / self.resolution

    def of_grid(self, grid: Grid, x: float, y: float) -> tuple[float, float]:
        """Column and row of the frame -> column and row of any grid."""
        if self.crs is None:
            return x, y
        there: Any = self.transform * (x, y)
        if grid.crs != self.crs:
            there = _moved(self.crs, grid.crs, *there)
        col, row = ~grid.transform * there
        return float(col), float(row)

    def box(self, grid: Grid) -> Box:
        """Where a grid lies; raises GridError for one that has no place in the frame."""
        if self.is_straight(grid):
            return (*self.px(grid, 0, 0), *self.px(grid, grid.width, grid.height))
        left, bottom, right, top = _bounds_in(grid, self.crs)
        (x0, y0), (x1, y1) = ~self.transform * (left, top), ~self.transform * (right, bottom)
        return float(x0), float(y0), float(x1), float(y1)

    def degrees(self, x: float, y: float) -> tuple[float, float] | None:
        """Longitude and latitude of a place; None without a CRS."""
        if self.crs is None:
            grid = self.pixels
            if grid is None or grid.crs is None:
                return None
            at, crs = grid.transform * (x, y), grid.crs
        else:
            at, crs = self.transform * (x, y), self.crs
        lon, lat = _moved(crs, "EPSG:4326", *at)
        return (lon, lat) if math.isfinite(lon) and math.isfinite(lat) else None

    def place(self, x: float, y: float) -> tuple[float, float]:
        """x and y in CRS units, or in px."""
        if self.crs is None:
            at = self.pixels.transform * (x, y) if self.pixels and self.pixels.crs else (x, y)
        else:
            at = self.transform * (x, y)
        return float(at[0]), float(at[1])

    def tile(self, z: int, x: int, y: int) -> Box:
        """The box of a tile."""
        side = TILE_PX * 2.0 ** (self.native - z)
        return x * side, y * side, (x + 1) * side, (y + 1) * side

    def to_dict(self) -> dict[str, Any]:
        """As the page needs it."""
        return {
            "crs": _name(self.crs), "unit": "px" if self.crs is None else "m", "origin": [self.x0, self.y0],
            "resolution": self.resolution, "native": self.native, "tile_px": TILE_PX, "width": self.width,
            "height": self.height, "hectares_per_px": self.hectares_per_px, "metres_per_px": self.metres_per_px,
        }  # fmt: skip

    @property
    def metres_per_px(self) -> float | None:
        """On the ground in the middle of the frame, for Web Mercator stretches; None without a CRS."""
        if self.crs is None:
            return None
        factor = float(self.crs.linear_units_factor[1])
        at = self.degrees(self.width / 2, self.height / 2) if self.crs == _WEB else None
        return self.resolution * factor * (math.cos(math.radians(at[1])) if at else 1.0)


def _moved(crs: CRS, to: CRS | str, x: float, y: float) -> tuple[float, float]:
    """A place in another CRS; infinite where it has none there."""
    try:
        found = warp_points(crs, to, [x], [y])
    except PROJ_ERRORS:
        return math.inf, math.inf
    return float(found[0][0]), float(found[1][0])


def frame_of(grids: Sequence[Grid], first: Grid) -> tuple[Frame, dict[int, str]]:
    """The frame of some grids, whose CRS and lattice are those of `first` if these can be shown; and of those that
    cannot be laid on it the reason, by their number.
    """  # fmt: skip
    if first.crs is None or first.transform.b or first.transform.d:
        return _of_pixels(grids, first)
    crs = first.crs if first.crs.is_projected else _WEB
    refused, boxes, sizes = {}, [], []
    for number, grid in enumerate(grids):
        try:
            boxes.append(_bounds_in(grid, crs))
            sizes.append(_pixel_in(grid, crs))
        except GridError as error:
            refused[number] = error.message
    if not boxes:
        raise GridError("; ".join(dict.fromkeys(refused.values())))
    size = min(sizes)
    if first.crs == crs:  # whose pixels are a whole number of the frame's, though another's lose a few columns by that
        own = _pixel_in(first, crs)
        size = own / max(1, math.ceil(own / size - _LOSS))
    # Snapped to the pixels of the first, from which it is a whole number of the frame's pixels away.
    x, y = (first.transform.c, first.transform.f) if first.crs == crs else (boxes[0][0], boxes[0][3])
    left, top = min(box[0] for box in boxes), max(box[3] for box in boxes)
    x0 = x - math.ceil((x - left) / size - 1e-6) * size
    y0 = y + math.ceil((top - y) / size - 1e-6) * size
    width = max(1, math.ceil((max(box[2] for box in boxes) - x0) / size - 1e-6))
    height = max(1, math.ceil((y0 - min(box[1] for box in boxes)) / size - 1e-6))
    if max(width, height) > _MOST_PX:
        raise GridError(
            f"these layers lie too far apart to be shown together: {width:,} x {height:,} px of {size:g}",
            fix="view them one by one: covermap view FILE",
        )
    frame = Frame(crs, x0, y0, size, width, height)
    plain = Grid(crs, frame.transform, height, width)
    areas = plain.row_areas_ha(0, 1) + plain.row_areas_ha(height - 1, 1)
    same = crs.is_projected and areas[0] == areas[1] and crs != _WEB
    return Frame(crs, x0, y0, size, width, height, areas[0] if same else None), refused


def _of_pixels(grids: Sequence[Grid], first: Grid) -> tuple[Frame, dict[int, str]]:
    """A frame that is the grid of `first`."""
    why = "has no CRS" if first.crs is None else "is turned against north"
    refused = {
        number: f"is {grid.describe()}; beside {first.describe()}, which {why}, only rasters of the same grid are shown"
        for number, grid in enumerate(grids)
        if not grid.is_same(first)
    }
    area = first.row_areas_ha(0, 1)[0] if first.crs and first.crs.is_projected else None
    return Frame(None, 0.0, 0.0, 1.0, first.width, first.height, area, first), refused


def _bounds_in(grid: Grid, crs: CRS | None) -> tuple[float, float, float, float]:
    """left, bottom, right, top in a CRS; raises GridError."""
    if grid.crs is None or crs is None:
        raise GridError("has no CRS, others have one: assign it (gdal_edit.py -a_srs EPSG:... FILE)")
    if grid.crs == crs:
        return tuple(grid.bounds)
    box = grid.bounds
    if grid.is_geographic and crs == _WEB and (box.left < -_ROUND or box.right > _ROUND):
        raise GridError(
            "reaches over 180 degrees, where this display ends: give it a CRS of its place first "
            f"(gdalwarp -t_srs EPSG:3832 IN OUT, the Pacific), it spans {box.left:g} to {box.right:g}"
        )
    if grid.is_geographic and crs == _WEB:  # which ends before the poles
        box = box._replace(bottom=max(box.bottom, -85.05), top=min(box.top, 85.05))
    try:
        found = transform_bounds(grid.crs, crs, *box)
    except PROJ_ERRORS as error:
        raise GridError(f"cannot be laid over the others: {error}") from error
    if not np.isfinite(found).all() or found[0] >= found[2] or found[1] >= found[3]:
        raise GridError(f"{grid.describe()} has no place in {_name(crs)}")
    return tuple(float(v) for v in found)  # type: ignore[return-value]


def _pixel_in(grid: Grid, crs: CRS) -> float:
    """Side of a pixel in units of a CRS: the shorter, so that no column and no row is lost between two."""
    to = grid.transform
    if grid.crs == crs:
        return float(min(math.hypot(to.a, to.d), math.hypot(to.b, to.e)))
    left, bottom, right, top = _bounds_in(grid, crs)
    return float(min((right - left) / grid.width, (top - bottom) / grid.height))


def _name(crs: CRS | None) -> str | None:
    if crs is None:
        return None
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else crs.to_string()[:120]
