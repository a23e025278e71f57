"""What GDAL, GEOS, PROJ and Python's readers of archives raise over files that are damaged or mean nothing."""

from __future__ import annotations

import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from covermap.core.errors import CovermapError, DataError, GridError, UnreadableError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError, UnicodeDecodeError)
"""Of opening and reading rasters: rasterio lets some of GDAL's own through, and names that are no UTF-8."""
PROJ_ERRORS = (CPLE_BaseError, RasterioError, ProjError, CRSError)
"""Of bringing places from one CRS to another."""
BROKEN_ARCHIVE = (
    OSError, EOFError, RuntimeError, LookupError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
"""Of zip and tar: of other versions a RuntimeError, of names that are none an IndexError."""


@contextmanager
def naming_file(path: str | Path, *, fix: str = "copy it again from its source") -> Iterator[None]:
    """Turn what GDAL says of a raster into UnreadableError."""
    try:
        yield
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{path} is not a raster that can be read: {error}", fix=fix) from error


def read_whole_head(dataset: DatasetReader) -> bool:
    """Have GDAL read what else it reads when first asked, so that opening fails and not some later step.

    Gives whether there is a mask or alpha band. Raises GDAL_ERRORS.
    """
    _ = dataset.tags(), dataset.descriptions, dataset.colorinterp, dataset.nodata, dataset.crs
    place = tuple(dataset.transform)[:6]
    if dataset.count and not (all(map(math.isfinite, place)) and dataset.transform.determinant):
        raise RasterioError(f"its pixels have no size or place: {place}")
    return dataset.count > 0 and MaskFlags.per_dataset in dataset.mask_flag_enums[0]


@contextmanager
def between(source: object, target: object) -> Iterator[None]:
    """Turn what PROJ says of two CRS into GridError."""
    try:
        yield
    except PROJ_ERRORS as error:
        raise GridError(
            f"no way is known from {str(source)[:80]} to {str(target)[:80]}: {error}",
            fix="check the CRS that the files state: gdalinfo, ogrinfo; state the true one with gdal_edit.py -a_srs",
        ) from error


def require_finite(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Bounds as they are; raises one of PROJ_ERRORS where they have no end: no place in the other CRS."""
    if not all(map(math.isfinite, bounds)):
        raise ProjError("they have no place there")
    return bounds


@contextmanager
def naming_archive(says: str, *, fix: str) -> Iterator[None]:
    """Turn what zipfile and tarfile say into DataError: `says`, and why."""
    try:
        yield
    except CovermapError:
        raise
    except BROKEN_ARCHIVE as error:
        raise DataError(f"{says}: {error}", fix=fix) from error
