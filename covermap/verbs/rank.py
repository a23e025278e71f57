"""`rank`: where to look first. The places of a map that hold most of a class, as a table and as squares for a GIS.

OUT.csv       a row for each place, the one with most of the class on top
OUT.geojson   the same places as squares in longitude and latitude
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import DatasetReader

from covermap.core.errors import ConfigError, GridError, LabelError, suggest
from covermap.core.legend import Legend
from covermap.core.output import claim, require_no_input, write_text
from covermap.data.labels import infer_legend, open_codes
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.legend_files import csv_text
from covermap.geo.products import layer_beside, legend_of_map
from covermap.geo.raster import grid_of


@dataclass(frozen=True)
class Ranking:
    """The places in their order, and what was written."""

    files: tuple[Path, ...]
    rows: list[dict[str, Any]]
    num_places: int


def rank(
    source: str | Path, out: str | Path, *, classes: Sequence[str], side_px: int = 128, overwrite: bool = False
) -> Ranking:
    """Rank squares of a class map by the hectares of these classes that they hold; writes OUT.csv and OUT.geojson.

    Of a map of two classes with its confidence layer beside it, by the hectares to be expected: the sum of the
    probabilities. Places without a pixel of the classes are left out. Raises ConfigError, LabelError, OutputError.
    """
    out = Path(out)
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"{out} does not end in .csv", fix="the places are a table: name it places.csv")
    if side_px < 1:
        raise ConfigError(f"{side_px} px is no side of a place", fix="give 1 or more, for example 128")
    squares = out.with_suffix(".geojson")
    require_no_input([out, squares], [str(source)])
    for path in (out, squares):
        claim(path, overwrite=overwrite)
    open_codes(str(source))  # says what is wrong with a file that is no class raster
    legend = legend_of_map(source) or infer_legend(str(source))
    codes = _codes(legend, classes, str(source))
    with rasterio.open(source) as dataset:
        grid = grid_of(dataset)
        rows = _rows(dataset, grid, legend, codes, side_px, _confidence(Path(source), grid, legend))
    key = "expected_ha" if rows and "expected_ha" in rows[0] else "area_ha"
    rows = [row for row in rows if row["pixels"]]
    rows.sort(key=lambda row: -row[key])
    rows = [{"rank": number, **row} for number, row in enumerate(rows, 1)]
    write_text(out, csv_text(_HEAD, [[row.get(name, "") for name in _HEAD] for row in rows]))
    write_text(squares, _squares(rows, grid, side_px))
    return Ranking((out, squares), rows, -(-grid.height // side_px) * -(-grid.width // side_px))


_HEAD = ("rank", "row", "col", "lat", "lon", "pixels", "area_ha", "share", "expected_ha")


def _codes(legend: Legend, classes: Sequence[str], source: str) -> list[int]:
    lacking = [name for name in classes if name not in legend.names]
    if lacking or not classes:
        raise LabelError(
            f"{source} has no class {', '.join(map(repr, lacking)) or '(none was named)'}",
            fix=suggest(lacking[0] if lacking else "", legend.names),
        )
    return [one.code for one in legend.classes if one.name in classes]


def _confidence(source: Path, grid: Grid, legend: Legend) -> Path | None:
    """The layer of the best class's probability, of a map of two classes: of more it says nothing of the others."""
    path = layer_beside(source, "confidence")
    if len(legend) != 2 or not path.is_file():
        return None
    with rasterio.open(path) as dataset:
        if not grid_of(dataset).is_same(grid):
            raise GridError(f"{path} is not on the grid of {source}", fix="move it away, or predict again")
    return path


def _rows(
    dataset: DatasetReader, grid: Grid, legend: Legend, codes: Sequence[int], side: int, confidence: Path | None
) -> list[dict[str, Any]]:
    """Every place, row by row; a row of places is read at once."""
    found = []
    layer = rasterio.open(confidence) if confidence else None
    for band in partition(grid.window, side, grid.width):
        area_ha = np.asarray(grid.row_areas_ha(band.row, band.height))[:, None]
        values = dataset.read(1, window=band.rasterio)
        hit, known = np.isin(values, codes), dataset.read_masks(1, window=band.rasterio) > 0
        known &= values != legend.map_nodata
        hit &= known
        sums = {"pixels": hit, "area_ha": hit * area_ha, "known_ha": known * area_ha}
        if layer is not None:
            percent = layer.read(1, window=band.rasterio).astype(np.float64)
            share = np.where(hit, percent, 100 - percent) / 100
            sums["expected_ha"] = np.where(known, share, 0) * area_ha
        columns = {key: _by_place(values, side) for key, values in sums.items()}
        for i, col in enumerate(range(0, grid.width, side)):
            place = Window(band.row, col, band.height, min(side, grid.width - col))
            lat, lon = grid.lat_lon(place) or (None, None)
            row = {"row": band.row, "col": col, "lat": _short(lat, 6), "lon": _short(lon, 6),
                   "pixels": int(columns["pixels"][i]), "area_ha": _short(columns["area_ha"][i], 4),
                   "share": _short(columns["area_ha"][i] / max(columns["known_ha"][i], 1e-12), 4)}  # fmt: skip
            if layer is not None:
                row["expected_ha"] = _short(columns["expected_ha"][i], 4)
            found.append(row)
    if layer is not None:
        layer.close()
    return found


def _by_place(values: npt.NDArray[Any], side: int) -> npt.NDArray[np.float64]:
    """(H, W) -> sums over each `side` columns."""
    return np.add.reduceat(values.sum(0, dtype=np.float64), np.arange(0, values.shape[1], side))


def _short(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)


def _squares(rows: Sequence[dict[str, Any]], grid: Grid, side: int) -> str:
    """GeoJSON (RFC 7946: longitude, latitude on WGS 84); without a CRS the squares have no place."""
    features = []
    for row in rows:
        place = Window(row["row"], row["col"], side, side).intersect(grid.window)
        ring = grid.window_grid(place).outline
        shape = {"type": "Polygon", "coordinates": [ring]} if ring else None
        features.append({"type": "Feature", "geometry": shape, "properties": row})
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"
