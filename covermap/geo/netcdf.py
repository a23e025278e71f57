"""Variables of netCDF files as rasters: their addresses for GDAL, and the names of their bands along each dimension."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import rasterio
from rasterio.io import DatasetReader

from covermap.core.errors import DataError, UnreadableError, suggest
from covermap.geo.damage import GDAL_ERRORS

_ADDRESS = re.compile(r'^NETCDF:"(.+)":(.+)$')


def file_of(path: str) -> str:
    """The file of a variable's address; any other path is itself."""
    match = _ADDRESS.match(path)
    return match[1] if match else path


def address(path: str, variable: str) -> str:
    """GDAL's address of a variable, also of one inside of a group; raises DataError.

    A variable without regular coordinates is refused: nothing would say whether its first row is the northern one.
    """
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}", fix="check the path; paths in a config count from its folder")
    try:
        with rasterio.open(path) as file:
            inner = {name.rpartition(":")[2] for name in file.subdatasets} or {file.tags(1)["NETCDF_VARNAME"]}
        found = sorted(name for name in inner if variable in (name, name.rpartition("/")[2]))
        if len(found) != 1:
            what = "has no variable" if not found else "has in several groups the variable"
            raise DataError(f"{path} {what} {variable!r}: {', '.join(sorted(inner))}", fix=suggest(variable, inner))
        whole = f'NETCDF:"{path}":{found[0]}'
        with rasterio.open(whole) as file:
            placed = not file.transform.is_identity
    except (*GDAL_ERRORS, LookupError) as error:
        raise UnreadableError(f"{path} is not a netCDF file that can be read: {error}", fix="copy it again") from error
    if not placed:
        raise DataError(
            f"{path}: {variable} has no regular x and y coordinates, so which row is the first is not known",
            fix="write it with the coordinates of its rows and columns, and a CRS",
        )
    return whole


def band_dimensions(dataset: DatasetReader) -> list[dict[str, str]]:
    """Of each band of a variable its place along every dimension but rows and columns: {dimension: value}.

    The last dimension runs fastest. Raises DataError where the file does not name the places along a dimension.
    """
    tags = dataset.tags()
    names = _listed(tags.get("NETCDF_DIM_EXTRA", ""))
    along = []
    for name in names:
        values = _listed(tags.get(f"NETCDF_DIM_{name}_VALUES", ""))
        if not values:
            raise DataError(
                f"{file_of(dataset.name)} does not say what stands along its dimension {name}",
                fix="write it with a coordinate variable of this name",
            )
        along.append(values)
    places = [dict(zip(names, place, strict=True)) for place in itertools.product(*along)]
    if len(places) != dataset.count:
        raise DataError(
            f"{file_of(dataset.name)}: {dataset.count} bands, but {', '.join(names)} tell of {len(places)}",
            fix="is it the data set's own file?",
        )
    return places


def _listed(text: str) -> list[str]:
    """`{winter,spring}` -> [winter, spring]."""
    return [part.strip() for part in text.strip("{} ").split(",") if part.strip()]
