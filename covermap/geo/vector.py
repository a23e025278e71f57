"""Vector files as tables: polygons and points with their fields, from GPKG, GeoJSON, Shapefile or CSV."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from covermap.core.errors import DataError, GridError, LabelError, suggest
from covermap.geo.damage import between
from covermap.geo.grid import Grid

if TYPE_CHECKING:
    import geopandas as gpd

_COORDINATES = (("longitude", "latitude"), ("lon", "lat"), ("lng", "lat"), ("x", "y"))
_LIKELY_FIELDS = ("class", "land_cover", "landcover", "lc", "label", "lulc", "category", "type", "code")


def read_table(
    path: str | Path, notes: list[str] | None = None, *, layer: str | None = None, epsg: int | None = None
) -> gpd.GeoDataFrame:
    """A vector file, or a CSV with coordinates, as a table; what GDAL warns of is added to `notes`.

    epsg: CRS of a CSV with x and y (lon and lat are WGS 84). Raises DataError, LabelError (several layers), GridError.
    """
    import geopandas as gpd  # with pandas half a second, which rasters need not pay
    import pyogrio

    notes = [] if notes is None else notes
    if Path(path).suffix.lower() == ".csv":
        return _read_csv(Path(path), epsg)
    if not Path(path).exists():
        raise DataError(f"there is no file {path}", fix="check the path; paths in a config count from its folder")
    with _naming_file(path):
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    if layer is None and len(layers) > 1:
        raise LabelError(
            f"{path} holds the layers {', '.join(layers)}",
            fix=f"name one: data.layer: {layers[0]}; where "
            f"a file alone is given, give one of a single layer: ogr2ogr NEW.gpkg {path} {layers[0]}",
        )
    with _naming_file(path), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        table = pyogrio.read_dataframe(path, layer=layer or (layers[0] if layers else None))
    notes += [f"reading {Path(path).name}: {warning.message}" for warning in heard]
    if not isinstance(table, gpd.GeoDataFrame):
        raise DataError(
            f"{path} holds a table without geometry", fix="export it with its geometry, for example as GPKG"
        )
    return _plain(table, path)


@contextmanager
def _naming_file(path: str | Path) -> Iterator[None]:
    """Turn what GDAL, GEOS and PROJ say of a file into DataError."""
    try:
        yield
    # pyogrio's own errors are RuntimeErrors; of names that are no UTF-8 and CRS that are none, Python's pass through.
    except (
        RuntimeError,
        OSError,
        shapely.errors.ShapelyError,
        CRSError,
        UnicodeDecodeError,
        UnboundLocalError,
    ) as error:
        raise DataError(
            f"{path} is not a vector file that can be read: {error}",
            fix=f"check it: ogrinfo -al -so {path}; shapes are repaired by ogr2ogr -makevalid NEW.gpkg {path}",
        ) from error


def _plain(table: gpd.GeoDataFrame, path: str | Path) -> gpd.GeoDataFrame:
    """Lists and mappings of GeoJSON as text; raises DataError for two columns of one name."""
    if double := table.columns[table.columns.duplicated()].tolist():
        raise DataError(f"{path} has the field {double[0]!r} twice", fix="rename one of them in QGIS or ogr2ogr")
    for name in (name for name in table.columns if table[name].dtype == object):
        values = table[name].tolist()
        if any(isinstance(value, dict | list | np.ndarray) for value in values):
            table[name] = [str(value) if isinstance(value, dict | list | np.ndarray) else value for value in values]
    return table


def _read_csv(path: Path, epsg: int | None) -> gpd.GeoDataFrame:
    import geopandas as gpd
    import pandas as pd

    try:
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        # Spreadsheets that separate by semicolons write decimal commas; points are still understood below.
        decimal = "," if separator == ";" else "."
        table = pd.read_csv(path, sep=separator, decimal=decimal, encoding="utf-8-sig", low_memory=False)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", fix="paths in a config count from its folder") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a CSV table: {error}", fix="save it as UTF-8 with one header line") from error
    names = {str(name).strip().lower(): name for name in table.columns}
    pair = next((pair for pair in _COORDINATES if set(pair) <= set(names)), None)
    if pair is None:
        listed = ", ".join(map(str, table.columns))
        raise LabelError(f"{path} has the columns {listed}", fix="name the coordinates lon, lat or x, y")
    if epsg is None and pair == ("x", "y"):
        raise GridError(f"{path} has columns x and y, but no CRS", fix="state it: data.epsg: 32632, --epsg 32632")
    x, y = (pd.to_numeric(table[names[axis]], errors="coerce").to_numpy(np.float64) for axis in pair)
    points = shapely.points(x, y)
    points[np.isnan(x) | np.isnan(y)] = None
    return gpd.GeoDataFrame(table, geometry=gpd.GeoSeries(points, crs=known_crs(epsg or 4326)))


def known_crs(epsg: int) -> CRS:
    """The CRS of a code; raises GridError for one that means nothing."""
    try:
        return CRS.from_epsg(epsg)
    except CRSError as error:
        raise GridError(f"EPSG:{epsg} is no CRS that is known", fix="write for example epsg: 32632") from error


def onto_crs(table: gpd.GeoDataFrame, grid: Grid, epsg: int | None, path: str) -> gpd.GeoDataFrame:
    """A table in the CRS of a grid; epsg: that of a file which states none. Raises GridError."""
    if table.crs is None and epsg is not None:
        table = table.set_crs(known_crs(epsg))
    require_crs(table, grid, path, fix="state it: data.epsg: 4326, --epsg 4326")
    if grid.crs is None:
        return table
    if epsg is not None and table.crs.to_epsg() not in (None, epsg):
        raise GridError(f"{path} says EPSG:{table.crs.to_epsg()}, epsg says {epsg}", fix="leave epsg out")
    with between(f"the CRS of {path}", grid.crs):
        return table.to_crs(grid.crs.to_wkt())


def require_crs(table: gpd.GeoDataFrame, grid: Grid, path: str, *, fix: str = "") -> None:
    """Raise GridError where a table or a grid has a CRS and the other one has none."""
    if table.crs is None and grid.crs is not None:
        raise GridError(f"{path} has no CRS", fix=fix or f"assign it: ogr2ogr -a_srs EPSG:... NEW.gpkg {path}")
    if table.crs is not None and grid.crs is None:
        raise GridError(f"the image has no CRS, {path} has {table.crs.name}", fix="gdal_edit.py -a_srs EPSG:... IMAGE")


def without_place(shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """Which of the shapes (N,) are missing, empty or at no finite place."""
    nothing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    # Not their bounds alone, which leave NaN out.
    corners, of = shapely.get_coordinates(shapes, return_index=True)
    odd = np.bincount(of[~np.isfinite(corners).all(1)], minlength=len(shapes)) > 0
    return np.asarray(nothing | odd | ~np.isfinite(shapely.bounds(shapes)).all(1))


def require_field(path: str | Path, field: str | None, table: gpd.GeoDataFrame) -> str:
    """The class field if the table has it; raises LabelError that lists the fields and names the likely one."""
    if field is not None and field in table.columns:
        return field
    columns = [str(c) for c in table.columns if c != table.geometry.name]
    likely = _likely(table, field)
    hint = f"name the class field: field: {likely}" if likely else suggest(field or "class", columns)
    what = f"has no field {field!r}" if field is not None else "needs the name of its class field"
    raise LabelError(f"{path} {what}; its fields are {', '.join(columns) or 'none'}", fix=hint)


def likely_field(path: str | Path, *, layer: str | None = None, epsg: int | None = None) -> str:
    """The class field where the file leaves no doubt; raises LabelError that lists the fields otherwise."""
    table = read_table(path, layer=layer, epsg=epsg)
    columns = [str(c) for c in table.columns if c != table.geometry.name]
    likely = columns[0] if len(columns) == 1 else next((c for c in columns if c.lower() in _LIKELY_FIELDS), None)
    return likely if likely is not None else require_field(path, None, table)


def _likely(table: gpd.GeoDataFrame, field: str | None) -> str | None:
    columns = [str(c) for c in table.columns if c != table.geometry.name]
    found = [c for c in columns if field is not None and c.lower() == field.lower()]
    found += [c for word in _LIKELY_FIELDS for c in columns if c.lower() == word]
    found += [c for c in columns if 2 <= table[c].nunique() <= 50 and table[c].dtype.kind not in "fM"]
    return found[0] if found else None


def describe_vector(path: str | Path) -> dict[str, Any]:
    """Shapes, CRS, extent and fields of a vector file, for `info`."""
    table = read_table(path)
    fields = []
    for column in (c for c in table.columns if c != table.geometry.name):
        values = table[column].dropna()
        few = ", ".join(str(v) for v in sorted(values.unique(), key=str)[:8]) if values.nunique() <= 30 else ""
        fields.append({"field": str(column), "type": str(values.dtype), "different": values.nunique(), "values": few})
    return {
        "shapes": f"{len(table)} {', '.join(sorted(set(table.geometry.geom_type.dropna())))}",
        "crs": table.crs.to_string() if table.crs else "none",
        "bounds": str([round(float(v), 6) for v in table.total_bounds]) if len(table) else None,
        "fields": fields,
    }
