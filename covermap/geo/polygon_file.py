"""Polygons and points as a file: GeoPackage or GeoParquet, with CRS and origin; it appears whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
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
    with _writing(path) as partial:
        if path.suffix.lower() == ".parquet":
            table.attrs = dict(tags)
            table.to_parquet(partial, index=False)
        else:
            _write_gpkg(table, partial, path.stem, "Polygon", tags)
    return path


def write_points(table: gpd.GeoDataFrame, path: Path) -> Path:
    """Write a table of points as a GeoPackage; replaces the file. Raises OutputError."""
    with _writing(path) as partial:
        _write_gpkg(table, partial, path.stem, "Point", {})
    return path


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    with replacing(path) as partial:
        partial.unlink(missing_ok=True)
        try:
            yield partial
        except RuntimeError as error:  # what all of pyogrio's errors are
            raise OSError(str(error)) from error
        finally:
            for rest in path.parent.glob(f"{partial.name}-*"):  # SQLite's journal
                rest.unlink()


def _write_gpkg(table: gpd.GeoDataFrame, path: Path, layer: str, kind: str, tags: Mapping[str, str]) -> None:
    import pyogrio

    with warnings.catch_warnings():
        # A map without a CRS has shapes without one.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.write_dataframe(
            table, path, layer=layer, driver="GPKG", geometry_type=kind, layer_metadata=dict(tags) or None
        )
