"""Vector files as tables: polygons, points and lines with their fields."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from covermap.core.errors import DataError


def read_table(path: str | Path) -> gpd.GeoDataFrame:
    """A vector file as a table; raises DataError."""
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}", fix="check the path")
    try:
        return pyogrio.read_dataframe(path)
    except (DataSourceError, DataLayerError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no vector file that can be read: {error}", fix="give GPKG or GeoJSON") from error
