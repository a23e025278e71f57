"""Imagery onto another grid. With `classes.py`, which does the same for class codes, the only place that resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from covermap.core.errors import GridError
from covermap.geo.grid import Grid


def read_onto(
    dataset: DatasetReader,
    indexes: Sequence[int],
    grid: Grid,
    *,
    nodata: float | None = None,
    resampling: str = "bilinear",
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """values (C, H, W), valid (H, W) of a dataset's bands on another grid; only what the grid needs is read.

    Coarser targets are averaged over the pixel's area (`bilinear` widens its kernel as GDAL does). Nodata never
    bleeds into valid pixels. A dataset without CRS is taken to lie in the grid's CRS.
    """
    crs = grid.crs or dataset.crs
    require_crs_on_both(dataset.crs, grid.crs, dataset.name)
    floating = any(np.dtype(dataset.dtypes[i - 1]).kind == "f" for i in indexes)
    options: dict[str, Any] = {
        "crs": crs or "EPSG:3857",
        "src_crs": dataset.crs or "EPSG:3857",
        "transform": grid.transform,
        "height": grid.height,
        "width": grid.width,
        "resampling": Resampling[resampling],
        "src_nodata": nodata,
        "dtype": None if resampling in ("nearest", "mode") else "float32",
        # rasterio's default counts as nodata only what is so in all bands, and mixes the others into their neighbours.
        "UNIFIED_SRC_NODATA": "NO",
    }
    has_nodata = nodata is not None or floating
    if has_nodata:
        options["nodata"] = np.nan if options["dtype"] == "float32" or floating else nodata
        options["src_nodata"] = nodata if nodata is not None else np.nan
    else:
        options["add_alpha"] = rasterio.enums.ColorInterp.alpha not in dataset.colorinterp
    with WarpedVRT(dataset, **options) as vrt:
        values = read_bands(vrt, indexes)
        if has_nodata:
            fill = options["nodata"]
            good = np.isfinite(values).all(0) if np.isnan(fill) else (values != fill).all(0)
        else:
            good = vrt.read(vrt.count) > 0
    return np.where(good, values, 0).astype(values.dtype), np.asarray(good)


def read_bands(dataset: DatasetReader, indexes: Sequence[int], window: Any = None) -> npt.NDArray[Any]:
    """values (C, H, W); bands of several types, as a VRT may have, in one that holds the numbers of all."""
    if len({dataset.dtypes[i - 1] for i in indexes}) > 1:
        return np.stack([dataset.read(i, window=window) for i in indexes])
    return np.asarray(dataset.read(list(indexes), window=window))


def require_crs_on_both(source: CRS | None, grid: CRS | None, name: str) -> None:
    """Raise GridError when only one of a file and a grid has a CRS."""
    if (source is None) != (grid is None):
        has = ["no CRS" if crs is None else "a CRS" for crs in (source, grid)]
        raise GridError(
            f"{name} has {has[0]}, the grid has {has[1]}", fix="give the file its CRS: gdal_edit.py -a_srs EPSG:..."
        )
