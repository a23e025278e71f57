"""Numbers onto other pixels by area, so that the mean or the sum is kept; `align.py` is for imagery.

A pixel is ground that holds one number everywhere: `mean` is the mean over the known ground of a new pixel, `sum`
shares a pixel's amount out by area (people, built-up square metres). Coarser and finer, any ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.geo.align import require_crs_on_both
from covermap.geo.classes import centres, corners
from covermap.geo.grid import Grid, Window, partition

Read = Callable[[Window], tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
_HELD_PX = 1024
"""Side of the squares of the file's pixels that are held at once, give or take."""


def resize(
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.float64],
    cols: npt.NDArray[np.float64],
    method: str,
) -> npt.NDArray[np.float64]:
    """(..., H, W) and valid -> (..., h, w), NaN where nothing is known.

    rows (h + 1), cols (w + 1): rising edges of the new pixels in old ones, 0 to H and 0 to W. Exact up to rounding:
    the new pixels' sum, or their mean weighted by the ground that is known, is that of the old ones within the edges.
    """
    known = _along(_along(valid.astype(np.float64), rows, -2), cols, -1)
    total = _along(_along(np.where(valid, values, 0).astype(np.float64), rows, -2), cols, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known > 0, total / known if method == "mean" else total, np.nan)


def _along(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Sums between edges along an axis: it is cut at old and new edges, so each piece lies in one pixel of both."""
    cuts = np.union1d(edges, np.arange(math.ceil(edges[0]), math.floor(edges[-1]) + 1))
    pixel = np.floor((cuts[:-1] + cuts[1:]) / 2).astype(int)
    width = np.diff(cuts)[:, None] if axis == -2 else np.diff(cuts)
    pieces = values.take(pixel, axis) * width
    return np.asarray(np.add.reduceat(pieces, np.searchsorted(cuts, edges[:-1]), axis))


def read_resized(read: Read, source: Grid, onto: Grid, method: str, *, name: str) -> npt.NDArray[np.float64]:
    """(C, h, w) on another grid of what `read` gives by windows of `source`: values (C, H, W), valid alike.

    Exact where both grids share a CRS and their axes run alike; blocks read one by one then equal the whole. Else new
    pixels are sampled at least twice for each old one in either direction, which is near to it. Raises GridError where
    only one of both has a CRS.
    """
    require_crs_on_both(source.crs, onto.crs, name)
    to_source = ~source.transform * onto.transform
    exact = source.same_crs(onto) and to_source.b == to_source.d == 0 and min(to_source.a, to_source.e) > 0
    ratio = onto.gsd_m / source.gsd_m
    side = max(1, int(_HELD_PX / ratio)) if ratio > 1 else _HELD_PX
    parts = {}
    for tile in partition(onto.window, side, side):
        if exact:
            # Edges that fall on the same place must do so from whatever window they are counted.
            rows = np.round(to_source.f + to_source.e * np.arange(tile.row, tile.row + tile.height + 1), 8)
            cols = np.round(to_source.c + to_source.a * np.arange(tile.col, tile.col + tile.width + 1), 8)
            top, left = math.floor(rows[0]), math.floor(cols[0])
            part = Window(top, left, math.ceil(rows[-1]) - top, math.ceil(cols[-1]) - left)
            parts[tile] = resize(*read(part), rows - top, cols - left, method)
        else:
            parts[tile] = _sampled(read, source, onto, tile, max(2, math.ceil(2 * ratio)), method)
    channels = len(next(iter(parts.values())))
    out = np.empty((channels, onto.height, onto.width))
    for tile, numbers in parts.items():
        out[(slice(None), *tile.slices)] = numbers
    return out


def _sampled(read: Read, source: Grid, onto: Grid, tile: Window, factor: int, method: str) -> npt.NDArray[np.float64]:
    """(C, h, w): factor x factor samples in each pixel, each standing for its share of the pixel's area."""
    down, right = corners(onto, source, tile)
    rows, cols = np.clip(centres(down, factor), -1, source.height), np.clip(centres(right, factor), -1, source.width)
    top, left = int(rows.min()), int(cols.min())
    values, valid = read(Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1))
    values, valid = values[:, rows - top, cols - left], valid[:, rows - top, cols - left]
    edges = np.arange(tile.height + 1.0) * factor, np.arange(tile.width + 1.0) * factor
    found = resize(values, valid, *edges, method)
    if method == "mean":
        return found
    one, other = (d[1:, 1:] - d[:-1, :-1] for d in (down, right)), (d[1:, :-1] - d[:-1, 1:] for d in (down, right))
    (a, b), (c, d) = one, other
    return (
        found * np.abs(a * d - b * c) / 2 / factor**2
    )  # old pixels that a sample stands for: half the diagonals' product
