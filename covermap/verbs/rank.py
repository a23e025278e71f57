"""`rank`: where to look first. The places of a map that hold most of a class, as a table and as squares for a GIS.

OUT.csv       a row for each place, the one with most of the class on top
OUT.geojson   the same places as squares in longitude and latitude
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import DatasetReader

from covermap.core.errors import ConfigError, LabelError, suggest
from covermap.core.legend import Legend
from covermap.core.output import claim, require_no_input, write_text
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import HISTORY, open_class_map
from covermap.geo.grid import Grid, Window, add_by_square, partition
from covermap.geo.legend_files import csv_text
from covermap.geo.products import layer_beside
from covermap.geo.raster import grid_of

_READ_PX = 1024
_HEAD = ("rank", "row", "col", "lat", "lon", "pixels", "area_ha", "share", "expected_ha")


@dataclass(frozen=True)
class Ranking:
    """The places in their order, and what was written."""

    files: tuple[Path, ...]
    rows: list[dict[str, Any]]
    num_places: int


def rank(
    source: str | Path, out: str | Path, *, classes: Sequence[str], side_px: int = 128, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Ranking:  # fmt: skip
    """Rank squares of a class map by the hectares of these classes that they hold; writes OUT.csv and OUT.geojson.

    Of a map of two classes that predict made, by the hectares to be expected: the sum of the probabilities in the
    confidence layer beside it, unless a decision has shifted them. A folder of maps counts as one map, by its classes
    alone. Places without a pixel of the classes are left out. Raises ConfigError, DataError, LabelError, OutputError.
    Memory: windows of the map, and a row for each place.
    """
    out = Path(out)
    if out.suffix.lower() != ".csv":
        raise ConfigError(f"{out} does not end in .csv", fix="the places are a table: name it places.csv")
    require_side(side_px)
    squares = out.with_suffix(".geojson")
    given = open_class_map(source, infer=True)
    require_no_input([out, squares], given.files)
    for path in (out, squares):
        claim(path, overwrite=overwrite)
    legend, grid = given.legend, given.grid
    codes = _codes(legend, classes, given.name)
    with rasterio.open(given.path) as dataset:
        alone = len(given.files) == 1 and len(codes) < len(legend)
        layer = _confidence(Path(given.path), dataset, grid, legend) if alone else None
        rows = _rows(dataset, grid, legend, codes, side_px, layer, on_progress)
    key = "expected_ha" if rows and "expected_ha" in rows[0] else "area_ha"
    rows = [row for row in rows if row["pixels"]]
    rows.sort(key=lambda row: -row[key])
    rows = [{"rank": number, **row} for number, row in enumerate(rows, 1)]
    write_text(out, csv_text(_HEAD, [[row.get(name, "") for name in _HEAD] for row in rows]))
    write_text(squares, _squares(rows, grid, side_px))
    return Ranking((out, squares), rows, -(-grid.height // side_px) * -(-grid.width // side_px))


def require_side(side_px: int) -> None:
    """Raise ConfigError for a place without pixels."""
    if side_px < 1:
        raise ConfigError(f"{side_px} px is no side of a place", fix="give 1 or more, for example 128")


def _codes(legend: Legend, classes: Sequence[str], source: str) -> list[int]:
    lacking = [name for name in classes if name not in legend.names]
    if lacking or not classes:
        raise LabelError(
            f"{source} has no class {', '.join(map(repr, lacking)) or '(none was named)'}",
            fix=suggest(lacking[0] if lacking else "", legend.names),
        )
    return [one.code for one in legend.classes if one.name in classes]


def _confidence(source: Path, of: DatasetReader, grid: Grid, legend: Legend) -> Path | None:
    """The layer of the best class's probability, of a map of two classes: of more it says nothing of the others.

    Only that of the model which made the map, and only where probabilities are as the model gave them and no later step
    (sieve, smooth) has changed classes.
    """
    path = layer_beside(source, "confidence")
    if len(legend) != 2 or not path.is_file():
        return None
    with rasterio.open(path) as dataset:
        made, shifted = (dataset.tags().get(f"COVERMAP_{key}") for key in ("MODEL", "SHIFTED"))
        same = made is not None and made == of.tags().get("COVERMAP_MODEL") and HISTORY not in of.tags() and not shifted
        return path if same and grid_of(dataset).is_same(grid) else None


def _rows(
    dataset: DatasetReader, grid: Grid, legend: Legend, codes: Sequence[int], side: int, confidence: Path | None,
    on_progress: Tick,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every place, row by row."""
    shape = -(-grid.height // side), -(-grid.width // side)
    sums = {key: np.zeros(shape) for key in ("pixels", "area_ha", "known_ha", "expected_ha")}
    with rasterio.open(confidence) if confidence else nullcontext() as layer:
        windows = list(partition(grid.window, _READ_PX, _READ_PX))
        for done, window in enumerate(windows, 1):
            area_ha = np.asarray(grid.row_areas_ha(window.row, window.height))[:, None]
            values = dataset.read(1, window=window.rasterio)
            known = (dataset.read_masks(1, window=window.rasterio) > 0) & (values != legend.map_nodata)
            hit = np.isin(values, codes) & known
            parts = {"pixels": hit, "area_ha": hit * area_ha, "known_ha": known * area_ha}
            if layer is not None:
                percent = layer.read(1, window=window.rasterio, masked=True).astype(np.float64).filled(np.nan)
                share = np.where(hit, percent, 100 - percent) / 100
                parts["expected_ha"] = np.where(known, np.nan_to_num(share), 0) * area_ha
            for key, part in parts.items():
                add_by_square(sums[key], part, window, side)
            on_progress(done, len(windows))
    return [_row(grid, row, col, side, sums, confidence is not None) for row, col in np.ndindex(shape)]


def _row(
    grid: Grid, row: int, col: int, side: int, sums: dict[str, npt.NDArray[np.float64]], expected: bool
) -> dict[str, Any]:
    place = Window(row * side, col * side, side, side).intersect(grid.window)
    lat, lon = grid.lat_lon(place) or (None, None)
    at = {key: float(total[row, col]) for key, total in sums.items()}
    found = {"row": place.row, "col": place.col, "lat": _short(lat, 6), "lon": _short(lon, 6),
             "pixels": int(at["pixels"]), "area_ha": _short(at["area_ha"], 4),
             "share": _short(at["area_ha"] / max(at["known_ha"], 1e-12), 4)}  # fmt: skip
    return found | ({"expected_ha": _short(at["expected_ha"], 4)} if expected else {})


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
