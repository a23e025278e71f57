"""Polygons as a file: GeoPackage or GeoParquet, with CRS and origin; it appears whole under its name or not at all."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from covermap.core.errors import ConfigError, MissingExtra
from covermap.core.output import replacing

if TYPE_CHECKING:
    import geopandas as gpd

SUFFIXES = (".gpkg", ".parquet")


def require_writer(path: Path) -> None:
    """Raise ConfigError for an ending that is not known, MissingExtra for one that needs a package."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path} does not end in {' or '.join(SUFFIXES)}", fix="name it polygons.gpkg")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("pyarrow", "parquet", "GeoParquet")


def write_polygons(table: gpd.GeoDataFrame, path: Path, tags: Mapping[str, str]) -> Path:
    """Write a table of polygons in the form that the file's ending names; replaces the file. Raises OutputError.

    tags: kept as metadata of the layer (GeoPackage), as attributes of the table (Parquet).
    """
    with replacing(path) as partial:
        partial.unlink(missing_ok=True)
        try:
            if path.suffix.lower() == ".parquet":
                table.attrs = dict(tags)
                table.to_parquet(partial, index=False)
            else:
                _write_gpkg(table, partial, path.stem, tags)
        except RuntimeError as error:  # what all of pyogrio's errors are
            raise OSError(str(error)) from error
        finally:
            for rest in path.parent.glob(f"{partial.name}-*"):  # SQLite's journal
                rest.unlink()
    return path


def _write_gpkg(table: gpd.GeoDataFrame, path: Path, layer: str, tags: Mapping[str, str]) -> None:
    import pyogrio

    with warnings.catch_warnings():
        # A map without a CRS has polygons without one.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.write_dataframe(
            table, path, layer=layer, driver="GPKG", geometry_type="Polygon", layer_metadata=dict(tags)
        )
