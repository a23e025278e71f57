"""Class codes onto another grid: nearest, most frequent, weighted by rarity, or the share of each class."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.warp import transform as warp_points

from covermap.core.engine import cores, map_unordered
from covermap.core.errors import ConfigError, GridError, LabelError, suggest
from covermap.core.legend import IGNORE, Legend, histogram
from covermap.geo.align import require_crs_on_both
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.raster import grid_of, open_dataset, read_plain

METHODS = ("nearest", "mode", "weighted_mode")
"""How several class codes in one pixel become one."""

TILE_PX = 2048
"""Side of the arrays that `read_classes` holds at once, give or take a factor of the square root of 2."""
BLOCK_PX = 512
"""Side of the blocks of the result that cores work at: small, so that all have work until the end."""
_BLOCKS_AT_ONCE = 4096
"""Blocks that are counted class by class at once: their counts stay in the processor's cache."""


def reduce_classes(
    index: npt.NDArray[np.uint8],
    factor: int,
    num_classes: int,
    *,
    method: str = "mode",
    weights: Sequence[float] | None = None,
) -> npt.NDArray[np.uint8]:
    """Class indices (H * factor, W * factor) -> (H, W), one per block; IGNORE where a block holds no class.

    mode: the most frequent class of the block's valid pixels. weighted_mode: the same after each class's count is
    multiplied by its weight, so that rare classes survive (`rare_class_weights`). A tie goes to the lowest index.
    nearest: the pixel at the block's centre (lower right of the middle where factor is even).
    Raises GridError (size is no multiple of factor) and ConfigError (method, weights).
    """
    _check_method(method, weights, num_classes)
    height, width = _blocks(index, factor)
    if factor == 1 or method == "nearest":
        picked = index[factor // 2 :: factor, factor // 2 :: factor]
        return np.where(picked < num_classes, picked, np.uint8(IGNORE))
    # In most blocks the class of the pixel in the middle outweighs all others together: only the rest is counted.
    weight = np.zeros(256)
    weight[:num_classes] = 1.0 if weights is None else weights
    chosen = np.ascontiguousarray(index[factor // 2 :: factor, factor // 2 :: factor])
    alike = index.reshape(height, factor, -1) == np.repeat(chosen, factor, axis=1)[:, None]
    count = _count(alike.reshape(index.shape), factor)
    rows, cols = np.nonzero(count * weight[chosen] <= (factor**2 - count) * weight.max())
    blocks = index.reshape(height, factor, width, factor)[rows, :, cols, :]
    chosen[rows, cols] = _most_votes(blocks, num_classes, weight[:num_classes])
    return chosen


def class_shares(index: npt.NDArray[np.uint8], factor: int, num_classes: int) -> npt.NDArray[np.float32]:
    """Class indices (H * factor, W * factor) -> (K, H, W): share of each class among a block's valid pixels.

    Shares add up to 1, or are all 0 where a block holds no class. Raises GridError as `reduce_classes` does.
    """
    height, width = _blocks(index, factor)
    shares = np.zeros((num_classes, height, width), np.float32)
    for k in _present(index, num_classes):
        shares[k] = _count(index == k, factor)
    return np.asarray(shares / np.maximum(shares.sum(0), 1), np.float32)


def rare_class_weights(counts: npt.ArrayLike) -> list[float]:
    """Weights 1 / sqrt(class share) for `weighted_mode`, from pixels per class; 0 for a class without pixels."""
    pixels = np.asarray(counts, np.float64)
    shares = pixels / max(pixels.sum(), 1)
    return [float(1 / np.sqrt(share)) if share > 0 else 0.0 for share in shares]


def read_classes(
    path: str | Path,
    grid: Grid,
    legend: Legend,
    *,
    window: Window | None = None,
    method: str = "mode",
    weights: Sequence[float] | None = None,
    nodata: float | None = None,
    unknown: str = "error",
) -> npt.NDArray[np.uint8]:
    """Class indices (H, W) of a code raster's first band on `window` of `grid` (default: all of it).

    Several codes that fall into one pixel are reduced as `reduce_classes` says. Any CRS, ratio and extent goes;
    blocks read one by one equal the whole. Pixels outside of the file and nodata (the file's, or `nodata`) are
    IGNORE. Raises GridError (CRS missing on one side), LabelError (unknown codes; nodata that is also a class).
    """
    _check_method(method, weights, len(legend))
    window = window or grid.window
    out = np.empty((window.height, window.width), np.uint8)
    for tile, index, factor in _read_fine(path, grid, window, legend, method, nodata, unknown):
        if tile == window and factor == 1:
            return index
        few = index if factor == 1 else reduce_classes(index, factor, len(legend), method=method, weights=weights)
        out[tile.within(window).slices] = few
    return out


def read_by_method(
    path: str | Path, grid: Grid, legend: Legend, *, window: Window, weights: Sequence[float],
    nodata: float | None = None, unknown: str = "error",
) -> dict[str, npt.NDArray[np.uint8]]:  # fmt: skip
    """{method: what `read_classes` gives}, for all methods from one reading of the fine pixels."""
    found = {method: np.full((window.height, window.width), IGNORE, np.uint8) for method in METHODS}
    for tile, index, factor in _read_fine(path, grid, window, legend, "mode", nodata, unknown):
        for method, out in found.items():
            mine = weights if method == "weighted_mode" else None
            out[tile.within(window).slices] = reduce_classes(index, factor, len(legend), method=method, weights=mine)
    source = grid_of(open_dataset(str(path)))
    if _offset_px(grid, source, max(1, round(pixel_ratio(grid, source, str(path))))) is None:
        # Centres of pixels do not fall on the fine pixels that the others are counted from.
        found["nearest"] = read_classes(
            path, grid, legend, window=window, method="nearest", nodata=nodata, unknown=unknown
        )
    return found


def count_classes(
    path: str | Path, grid: Grid, legend: Legend, *, nodata: float | None = None, unknown: str = "error"
) -> npt.NDArray[np.int64]:
    """Samples per class (K,) of a code raster inside `grid` before they are reduced; read block by block.

    Weights of rare classes come from here, and the classes that a reduction lost. Raises as `read_classes` does.
    """

    def count(block: Window) -> npt.NDArray[np.int64]:
        found = np.zeros(256, np.int64)
        for _, index, _ in _read_fine(path, grid, block, legend, "mode", nodata, unknown):
            found += histogram(index)
        return found

    blocks = list(partition(grid.window, BLOCK_PX, BLOCK_PX))
    counts = np.stack(list(map_unordered(count, blocks, workers=cores())))
    return np.asarray(counts.sum(0)[: len(legend)])


def class_losses(
    legend: Legend, before: npt.NDArray[np.int64], after: Mapping[str, npt.NDArray[np.int64]]
) -> list[dict[str, Any]]:
    """What each class loses, from pixels per class (K,) before and by each method after, as rows of a table.

    Shares are of all labelled pixels, from 0 to 1; `loss` names the methods that lose the class, or more than half.
    """
    rows = []
    for k, c in enumerate(legend.classes):
        share = float(before[k] / max(1, before.sum()))
        left = {method: float(pixels[k] / max(1, pixels.sum())) for method, pixels in after.items()}
        said = [
            f"{method}: {'more than half' if rest else 'lost'}" for method, rest in left.items() if rest < share / 2
        ]
        known = {"code": c.code, "class": c.name, "pixels": int(before[k]), "share": share}
        rows.append(known | left | {"loss": ", ".join(said)})
    return rows


def _check_method(method: str, weights: Sequence[float] | None, num_classes: int) -> None:
    if method not in METHODS:
        raise ConfigError(f"there is no label resampling {method!r}", fix=suggest(method, METHODS))
    if (weights is None) == (method == "weighted_mode"):
        raise ConfigError(
            f"label resampling {method} {'needs' if weights is None else 'takes no'} weights",
            fix="give one weight per class together with weighted_mode, none otherwise",
        )
    if weights is not None and len(weights) != num_classes:
        raise ConfigError(f"{len(weights)} weights for {num_classes} classes", fix="give one weight per class")


def _blocks(index: npt.NDArray[np.uint8], factor: int) -> tuple[int, int]:
    height, width = index.shape
    if factor < 1 or height % factor or width % factor:
        raise GridError(
            f"{height} x {width} px cannot be cut into blocks of {factor} x {factor} px",
            fix="cut the array to a multiple of the factor",
        )
    return height // factor, width // factor


def _most_votes(
    blocks: npt.NDArray[np.uint8], num_classes: int, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """(..., f, f) -> (...): the class with the most weighted pixels, the lowest of equals; IGNORE where all have 0."""
    shape = blocks.shape[:-2]
    one = blocks.reshape(-1, blocks.shape[-1] ** 2)
    chosen = np.empty(len(one), np.uint8)
    for start in range(0, len(one), _BLOCKS_AT_ONCE):
        part = np.minimum(one[start : start + _BLOCKS_AT_ONCE], num_classes)
        key = part + np.arange(len(part), dtype=np.int32)[:, None] * (num_classes + 1)
        votes = np.bincount(key.ravel(), minlength=len(part) * (num_classes + 1)).reshape(len(part), -1)
        score = votes[:, :num_classes] * weights
        best = score.argmax(1)
        chosen[start : start + len(part)] = np.where(score.max(1) > 0, best, IGNORE)
    return chosen.reshape(shape)


def _present(index: npt.NDArray[np.uint8], num_classes: int) -> list[int]:
    """The classes that occur, in rising order."""
    return [int(k) for k in np.flatnonzero(np.bincount(index.ravel(), minlength=256)[:num_classes])]


def _count(mask: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.int64]:
    """True pixels per block; rows first, as that sum runs along memory, in the shortest numbers that hold it."""
    height, width = mask.shape
    short = np.uint8 if factor < 256 else np.uint16
    rows = np.add.reduce(mask.view(np.uint8).reshape(height // factor, factor, width), axis=1, dtype=short)
    return np.asarray(sum((rows[:, i::factor] for i in range(1, factor)), rows[:, ::factor].astype(np.int64)))


def _read_fine(
    path: str | Path, grid: Grid, window: Window, legend: Legend, method: str, nodata: float | None, unknown: str
) -> Iterator[tuple[Window, npt.NDArray[np.uint8], int]]:
    """Tiles of the window with their class indices on a grid `factor` times finer, which fits the file's pixels.

    factor and offsets are taken from the whole grid, never from a tile, so that tiles agree with each other.
    """
    dataset = open_dataset(str(path))
    source = grid_of(dataset)
    nodata = _nodata_code(dataset, legend, nodata)
    ratio = pixel_ratio(grid, source, str(path))
    factor = 1 if method == "nearest" else max(1, round(ratio))
    offset = _offset_px(grid, source, factor)
    # A power of two, so that tiles mostly end where the blocks of the file end, and none is decoded twice.
    side = 1 << max(0, round(math.log2(TILE_PX / max(1.0, ratio))))
    for tile in partition(window, side, side):
        if offset is not None:
            fine = Window(*(n * factor for n in tile))
            part = Window(fine.row + offset[0], fine.col + offset[1], fine.height, fine.width)
            index = _read_index(dataset, part, legend, nodata, unknown)
        else:
            codes, valid = read_nearest(dataset, [1], grid, tile, nodata, factor=factor)
            index = _encode_valid(codes[0], valid, legend, unknown, str(path))
        yield tile, index, factor


def read_nearest(
    dataset: DatasetReader, indexes: Sequence[int], grid: Grid, window: Window, nodata: float | None, *,
    factor: int = 1, masked: bool = True,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:  # fmt: skip
    """values (C, H * factor, W * factor), valid: the file's pixels that hold centres of a window of any grid."""
    source = grid_of(dataset)
    rows, cols = _places(grid, source, window, factor)
    valid = (rows >= 0) & (cols >= 0) & (rows < source.height) & (cols < source.width)
    found = np.zeros((len(indexes), *valid.shape), dataset.dtypes[indexes[0] - 1])
    if valid.any():
        rows, cols = rows[valid], cols[valid]
        part = _around(rows, cols)
        values, seen = read_plain(dataset, indexes, part, nodata, masked=masked)
        found[:, valid] = values[:, rows - part.row, cols - part.col]
        valid[valid] = seen[rows - part.row, cols - part.col]
    return found, valid


def _read_index(
    dataset: DatasetReader, part: Window, legend: Legend, nodata: float | None, unknown: str
) -> npt.NDArray[np.uint8]:
    """Class indices of a window of a file, IGNORE for nodata and outside of it."""
    known = nodata is None or (nodata in (legend.nodata, *legend.ignore) and nodata not in legend.merged)
    inside = part.intersect(grid_of(dataset).window) == part
    if known and inside and MaskFlags.per_dataset not in dataset.mask_flag_enums[0]:
        # The legend tells nodata from classes: looking for it apart takes as long. What is damaged is named below.
        with contextlib.suppress(*GDAL_ERRORS):
            return legend.encode(dataset.read(1, window=part.rasterio), unknown=unknown, where=dataset.name)
    values, valid = read_plain(dataset, [1], part, nodata)
    return _encode_valid(values[0], valid, legend, unknown, dataset.name)


def _encode_valid(
    codes: npt.NDArray[Any], valid: npt.NDArray[np.bool_], legend: Legend, unknown: str, where: str
) -> npt.NDArray[np.uint8]:
    if valid.all():
        return legend.encode(codes, unknown=unknown, where=where)
    index = legend.encode(np.where(valid, codes, legend.codes[0]), unknown=unknown, where=where)
    return np.where(valid, index, np.uint8(IGNORE))


def _nodata_code(dataset: DatasetReader, legend: Legend, nodata: float | None) -> float | None:
    """The nodata of a code raster; raises LabelError where the file and the legend contradict each other."""
    if nodata is None and dataset.nodata is not None and dataset.nodata in legend.codes:
        name = legend.names[legend.codes.index(int(dataset.nodata))]
        raise LabelError(
            f"{dataset.name} says that {dataset.nodata:g} is nodata, legend {legend.name!r} that it is {name!r}",
            fix="give the code that is nodata (-1 for none), or take the class out of the legend",
        )
    return dataset.nodata if nodata is None else nodata


def pixel_ratio(grid: Grid, source: Grid, name: str) -> float:
    """How many source pixels one pixel at the grid's centre spans, in one direction."""
    require_crs_on_both(source.crs, grid.crs, name)
    middle = Window(grid.height // 2, grid.width // 2, 1, 1)
    rows, cols = corners(grid, source, middle)
    across = np.hypot(rows[0, 1] - rows[0, 0], cols[0, 1] - cols[0, 0])
    down = np.hypot(rows[1, 0] - rows[0, 0], cols[1, 0] - cols[0, 0])
    ratio = float(np.sqrt(across * down))
    if not np.isfinite(ratio):
        raise GridError(f"the grid ({grid.describe()}) cannot be expressed in the CRS of {name}", fix="check both CRS")
    return ratio


def _offset_px(grid: Grid, source: Grid, factor: int) -> tuple[int, int] | None:
    """First source row and column of the grid, where `factor` source pixels lie exactly in each of its pixels."""
    if not grid.same_crs(source):
        return None
    fine = Grid(grid.crs, grid.transform * Affine.scale(1 / factor), grid.height * factor, grid.width * factor)
    col, row = (round(v) for v in ~source.transform * (fine.transform.c, fine.transform.f))
    place = source.window_grid(Window(row, col, fine.height, fine.width))
    return (row, col) if place.is_same(fine) else None


def corners(grid: Grid, source: Grid, tile: Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Source rows and columns (float) of a tile's pixel corners, (H + 1, W + 1) each; inf where there is none."""
    cols, rows = np.meshgrid(
        np.arange(tile.col, tile.col + tile.width + 1), np.arange(tile.row, tile.row + tile.height + 1)
    )
    x, y = _apply(grid.transform, cols, rows)
    if not grid.same_crs(source):
        xs, ys = warp_points(grid.crs, source.crs, x.ravel(), y.ravel())
        x, y = np.reshape(xs, x.shape), np.reshape(ys, y.shape)
    col, row = _apply(~source.transform, x, y)
    return row, col


def _apply(
    transform: Affine, x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def _places(grid: Grid, source: Grid, tile: Window, factor: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Source row and column of every sub-pixel's centre, (H * factor, W * factor) each; negative where there is none.

    The CRS change is done exactly at pixel corners and is straight inside a pixel. GDAL's warper is not used: it
    bends its approximation from block to block, so that blocks would differ from the whole.
    """
    rows, cols = corners(grid, source, tile)
    return centres(rows, factor), centres(cols, factor)


def centres(corner: npt.NDArray[np.float64], factor: int) -> npt.NDArray[np.int32]:
    """Bilinear values between corners (H + 1, W + 1) at the sub-pixels' centres, as whole pixel numbers."""
    height, width = corner.shape[0] - 1, corner.shape[1] - 1
    inner = (np.arange(factor) + 0.5) / factor
    corner = np.clip(np.where(np.isfinite(corner), corner, -1e9), -1e9, 1e9)
    down = corner[:-1, None, :] * (1 - inner[:, None]) + corner[1:, None, :] * inner[:, None]
    across = down[:, :, :-1, None] * (1 - inner) + down[:, :, 1:, None] * inner
    # A centre on the line between two source pixels belongs to the right or lower one, rounding or not.
    return np.floor(across + 1e-6).astype(np.int32).reshape(height * factor, width * factor)


def _around(rows: npt.NDArray[np.int32], cols: npt.NDArray[np.int32]) -> Window:
    """The smallest window that holds all places."""
    top, left = int(rows.min()), int(cols.min())
    return Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
