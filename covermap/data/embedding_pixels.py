"""Embeddings of pixels at places: of a COG (ours, AlphaEarth's, any of floats) or of TESSERA's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Transformer
from rasterio.io import DatasetReader

from covermap.core.errors import DataError, UnreadableError
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.embedding_codes import NODATA, decode
from covermap.geo.raster import grid_of
from covermap.geo.tessera import cell_name

Places = npt.NDArray[np.float64]


def read_pixels(
    path: str | Path, *, lonlat: npt.ArrayLike | None = None, rowcol: npt.ArrayLike | None = None
) -> npt.NDArray[np.float32]:
    """Vectors (N, d) at longitudes and latitudes (N, 2), or at rows and columns (N, 2); NaN where there is nothing.

    Codes become numbers by AlphaEarth's rule (int8), or by TESSERA's scales. Whichever way up a file is. Raises
    DataError for what is neither, and for rows and columns of TESSERA's folders, which have none in common.
    """
    path = Path(path)
    if (lonlat is None) == (rowcol is None):
        raise DataError("places are missing, or given twice", fix="give lonlat or rowcol")
    if path.is_dir():
        if lonlat is None:
            raise DataError(f"{path} is a folder of cells, which have no rows in common", fix="give lonlat")
        return _of_cells(path, np.asarray(lonlat, np.float64).reshape(-1, 2))
    try:
        with rasterio.open(path) as dataset:
            require_vectors(dataset)
            if rowcol is None:
                rowcol = rows_and_columns(dataset, np.asarray(lonlat, np.float64).reshape(-1, 2))
            return _at(dataset, np.asarray(rowcol, np.float64).reshape(-1, 2))
    except GDAL_ERRORS as error:
        raise UnreadableError(
            f"{path} cannot be read as a raster ({error})", fix="give a GeoTIFF, or a folder"
        ) from error


def require_vectors(dataset: DatasetReader) -> None:
    """Raise DataError for a raster that holds no embeddings of a kind that is known."""
    kind = np.dtype(dataset.dtypes[0])
    if kind == np.int8 and dataset.nodata in (None, NODATA):
        return
    if kind.kind != "f":
        raise DataError(
            f"{dataset.name} holds {kind} with nodata {dataset.nodata}: neither codes (int8, {NODATA}) nor floats",
            fix="give a raster of embeddings: covermap embed CONFIG.yaml OUT.tif",
        )


def rows_and_columns(dataset: DatasetReader, lonlat: Places) -> Places:
    """(N, 2), of pixels, as whole numbers; raises DataError without a CRS."""
    grid = grid_of(dataset)
    if grid.crs is None:
        raise DataError(f"{dataset.name} has no CRS: longitude and latitude say nothing", fix="give rows and columns")
    to_crs = Transformer.from_crs("EPSG:4326", grid.crs.to_wkt(), always_xy=True)
    x, y = to_crs.transform(lonlat[:, 0], lonlat[:, 1])
    inverse = ~grid.transform  # of files that are bottom-up, too
    cols, rows = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    return np.asarray(np.floor(np.stack([rows, cols], 1)))


def _at(dataset: DatasetReader, rowcol: Places) -> npt.NDArray[np.float32]:
    """One read for each tile of the file that holds a place."""
    found = np.full((len(rowcol), dataset.count), np.nan, np.float32)
    limit = np.array([dataset.height, dataset.width])
    inside = np.flatnonzero(((rowcol >= 0) & (rowcol < limit)).all(1))
    tile = np.array(dataset.block_shapes[0])
    places = rowcol[inside].astype(np.int64)
    tiles, member = np.unique(places // tile, axis=0, return_inverse=True)
    member = member.reshape(-1)
    for number, corner in enumerate(tiles * tile):
        mine = np.flatnonzero(member == number)
        own = places[mine]
        first, last = own.min(0), own.max(0) + 1
        window = rasterio.windows.Window(first[1], first[0], last[1] - first[1], last[0] - first[0])
        assert (first >= corner).all()
        values = decode(dataset.read(window=window), dataset.nodata)
        row, col = (own - first).T
        found[inside[mine]] = values[:, row, col].T
    return found


def _of_cells(folder: Path, lonlat: Places) -> npt.NDArray[np.float32]:
    """Of TESSERA's folders: of one year, or the only year in it."""
    names = [cell_name(*place) for place in lonlat.tolist()]
    years = [folder] if any(folder.glob("grid_*")) else sorted(p for p in folder.iterdir() if any(p.glob("grid_*")))
    if len(years) != 1:
        raise DataError(f"{folder} holds {len(years)} years of cells", fix=f"give the folder of one: {folder}/2024")
    found: npt.NDArray[np.float32] | None = None
    for name in sorted(set(names)):
        own = years[0] / name
        if not own.is_dir():
            continue
        chosen = np.array([each == name for each in names])
        values = _of_cell(own, name, lonlat[chosen])
        found = np.full((len(lonlat), values.shape[1]), np.nan, np.float32) if found is None else found
        found[chosen] = values
    if found is None:
        raise DataError(f"{years[0]} has none of the cells {', '.join(sorted(set(names))[:5])}", fix="check the places")
    return found


def _of_cell(folder: Path, name: str, lonlat: Places) -> npt.NDArray[np.float32]:
    codes = np.load(folder / f"{name}.npy", mmap_mode="r")
    scales = np.load(folder / f"{name}_scales.npy", mmap_mode="r")
    place = next((p for p in sorted(folder.glob(f"{name}*.tif*"))), None)
    if place is None:
        raise DataError(
            f"{folder} has no GeoTIFF that says where its pixels lie", fix=f"put the land mask there as {name}.tiff"
        )
    with rasterio.open(place) as dataset:
        rows, cols = rows_and_columns(dataset, lonlat).T
        if (dataset.height, dataset.width) != codes.shape[:2]:
            raise DataError(f"{place} is of another size than {name}.npy", fix="give the land mask of the same cell")
    inside = (rows >= 0) & (cols >= 0) & (rows < codes.shape[0]) & (cols < codes.shape[1])
    found = np.full((len(lonlat), codes.shape[2]), np.nan, np.float32)
    at = rows[inside].astype(np.int64), cols[inside].astype(np.int64)
    found[inside] = codes[at].astype(np.float32) * scales[at][..., None] if scales.ndim == 2 else codes[at] * scales[at]
    return np.where(np.isfinite(found), found, np.float32(np.nan))
