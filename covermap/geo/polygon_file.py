"""Polygons, points and tables as a file, with CRS and origin; it appears whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, MissingExtra
from covermap.core.output import replacing, write_text
from covermap.geo.legend_files import csv_text

if TYPE_CHECKING:
    import geopandas as gpd

SUFFIXES = (".gpkg", ".parquet")
TABLE_SUFFIXES = (".gpkg", ".geojson", ".csv")
"""Of tables whose rows may have a shape."""


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


def write_table(
    rows: Sequence[Mapping[str, Any]], shapes: Sequence[Any] | npt.NDArray[np.object_], path: Path
) -> Path:  # fmt: skip
    """Write rows as CSV, or with their shapes (WGS 84, None where not known) as GeoPackage or GeoJSON; replaces it.

    Raises DataError for a row without a shape where shapes are drawn, OutputError.
    """
    if path.suffix.lower() == ".csv":
        head = list(rows[0]) if rows else []
        return write_text(
            path, csv_text(head, [["" if row[key] is None else row[key] for key in head] for row in rows])
        )
    import geopandas as gpd
    import pyogrio

    if any(shape is None for shape in shapes):
        raise DataError("chips without a place cannot be drawn: their images have no CRS", fix="name OUT.csv")
    table = gpd.GeoDataFrame([dict(row) for row in rows], geometry=list(shapes), crs=4326)
    driver = "GPKG" if path.suffix.lower() == ".gpkg" else "GeoJSON"
    with _writing(path) as partial:
        pyogrio.write_dataframe(table, partial, layer=path.stem, driver=driver)
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
