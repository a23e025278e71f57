"""TESSERA's folders: YEAR/grid_LON_LAT/ with codes and scales of a cell of 0.1 degrees, value = code * scale.

grid_0.15_52.05.npy          int8 (H, W, D)
grid_0.15_52.05_scales.npy   float32 (H, W), NaN where there is nothing
grid_0.15_52.05.tiff         uint8, 1 where there is something: CRS and transform
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from numpy.lib.format import open_memmap
from pyproj import Transformer

from covermap.core.errors import DataError, OutputError
from covermap.core.output import replacing
from covermap.geo.embedding_codes import with_scale
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.raster import grid_of
from covermap.geo.writer import RasterWriter

_ROWS = 64


def cell_name(lon: float, lat: float) -> str:
    """The cell that holds a place, named by its centre."""
    return "grid_{:.2f}_{:.2f}".format(*(math.floor(degrees * 10 + 1e-9) / 10 + 0.05 for degrees in (lon, lat)))


def write_cells(plain: Path, out: Path, year: str, *, overwrite: bool) -> list[Path]:
    """Cut a raster of vectors (float32, NaN nodata) to cells, each the rectangle of pixels around it; the files.

    Raises DataError without a CRS, OutputError for cells that are there.
    """
    files = []
    with rasterio.open(plain) as source:
        grid = grid_of(source)
        for name, window in _cells(grid):
            folder = out / year / name
            if folder.exists() and not overwrite:
                raise OutputError(
                    f"{folder} exists already", fix="join scenes that share a cell first, or add --overwrite"
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            with replacing(folder) as partial:
                partial.mkdir()
                if not _write_cell(source, grid, window, partial, name):
                    continue
            files += [folder / f"{name}{end}" for end in (".npy", "_scales.npy", ".tiff")]
    return [file for file in files if file.exists()]


def _cells(grid: Grid) -> list[tuple[str, Window]]:
    if grid.crs is None:
        raise DataError("the image has no CRS, and TESSERA's cells lie in degrees", fix="write OUT.tif instead")
    ring = np.array(grid.outline)
    (west, south), (east, north) = ring.min(0), ring.max(0)
    away = Transformer.from_crs("EPSG:4326", grid.crs.to_wkt(), always_xy=True)
    found = []
    for row in range(math.floor(south * 10), math.ceil(north * 10)):
        for col in range(math.floor(west * 10), math.ceil(east * 10)):
            there = np.linspace(0, 0.1, 5)
            lon, lat = (v.ravel() for v in np.meshgrid(col / 10 + there, row / 10 + there))
            x, y = away.transform(lon, lat)
            inverse = ~grid.transform
            cols, rows = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
            first = math.floor(rows.min()), math.floor(cols.min())
            window = Window(*first, math.ceil(rows.max()) - first[0], math.ceil(cols.max()) - first[1])
            window = window.intersect(grid.window)
            if not window.is_empty:
                found.append((cell_name(col / 10 + 0.05, row / 10 + 0.05), window))
    return found


def _write_cell(source: rasterio.io.DatasetReader, grid: Grid, window: Window, folder: Path, name: str) -> bool:
    """Whether the cell holds anything."""
    shape = window.height, window.width
    codes = open_memmap(folder / f"{name}.npy", "w+", np.int8, (*shape, source.count))
    scales = open_memmap(folder / f"{name}_scales.npy", "w+", np.float32, shape)
    for strip in partition(window, _ROWS, window.width):
        rows = strip.within(window).slices[0]
        coded, scale = with_scale(source.read(window=strip.rasterio))
        codes[rows], scales[rows] = coded.transpose(1, 2, 0), scale
    codes.flush()
    known = np.isfinite(scales)
    place = grid.window_grid(window)
    with RasterWriter(folder / f"{name}.tiff", place, bands=["valid"], dtype="uint8", overwrite=True) as writer:
        writer.write(place.window, known.astype(np.uint8))
    return bool(known.any())
