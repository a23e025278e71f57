"""Rasters cut into the chips of a grid, with bands of chips at an angle as train, val and test.

    image.tif    labels.tif    chips.geojson: polygons with an `identifier`

Any names below the root, by options. A chip is the box of its polygon in the raster's CRS, to the nearest whole pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_section
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import PARTS, SceneFiles, Source, inside, read_parts
from covermap.geo.grid import Grid
from covermap.geo.mosaic import nearest_window
from covermap.geo.raster import grid_of, open_dataset
from covermap.geo.vector import read_table

Bounds = tuple[float, float, float, float]


@register("source", "chip_grid")
class ChipGrid(Source):
    """A scene for each chip that all rasters hold whole, in the order of the chips' file.

    images: entries as in data.image, paths below the root. labels: a class raster, or None. chips: the grid.
    bands, angle, shares: see bands_at_angle. splits: a table (identifier, split) instead of bands.
    """

    licence = "that of the rasters"

    def __init__(
        self,
        root: str | Path,
        *,
        images: Sequence[Mapping[str, Any]] = ({"path": "image.tif"},),
        labels: str | None = "labels.tif",
        chips: str = "chips.geojson",
        bands: int = 60,
        angle: float = 9.0,
        shares: Sequence[float] = (0.6, 0.2, 0.2),
        splits: str | None = None,
    ) -> None:
        super().__init__(root)
        entries = [dict(image) for image in images]
        if not entries or any(not isinstance(entry.get("path"), str) for entry in entries):
            raise ConfigError("data.options.images: each entry needs one path", fix="images: [{path: image.tif}]")
        self.images = [
            parse_section(
                ImageConfig, {**entry, "path": str(inside(self.root, entry["path"]))}, where="data.options.images"
            )
            for entry in entries
        ]
        self.labels = str(inside(self.root, labels)) if labels else None
        self.chips, self.splits = inside(self.root, chips), inside(self.root, splits) if splits else None
        self.bands, self.angle, self.shares = bands, angle, tuple(shares)

    def scenes(self) -> list[SceneFiles]:
        self.notes.clear()
        rasters = [str(image.path) for image in self.images] + ([self.labels] if self.labels else [])
        grids = [grid_of(open_dataset(path)) for path in rasters]
        table = read_table(self.chips, self.notes)
        boxes = [self._boxes(table, grid) for grid in grids]
        chosen = [
            chip
            for chip in boxes[0]
            if all(_holds(grid, found[chip]) for grid, found in zip(grids, boxes, strict=True))
        ]
        if len(chosen) < len(boxes[0]):
            self.notes.append(
                f"left out {len(boxes[0]) - len(chosen)} chips that do not lie whole inside of all rasters"
            )
        if not chosen:
            raise DataError(f"no chip of {self.chips} lies whole inside of {rasters[0]}", fix="check the CRS of both")
        parts = self._parts(chosen, [boxes[0][chip] for chip in chosen], grids[0])
        found = []
        for chip, part in parts.items():
            images = [
                image.model_copy(update={"bounds": mine[chip]})
                for image, mine in zip(self.images, boxes[: len(self.images)], strict=True)
            ]
            labels = {"class": LabelFile(self.labels, bounds=boxes[-1][chip])} if self.labels else {}
            found.append(SceneFiles(chip, tuple(images), labels, part))
        return found

    def _boxes(self, table: gpd.GeoDataFrame, grid: Grid) -> dict[str, Bounds]:
        """{chip: bounds in the grid's CRS}; raises DataError for chips without names or a name twice."""
        if "identifier" not in table.columns:
            raise DataError(f"{self.chips} has no field identifier", fix=f"it has {', '.join(map(str, table.columns))}")
        if grid.crs is None or table.crs is None:
            raise DataError(f"{self.chips} or a raster has no CRS, so the chips have no place", fix="assign the CRS")
        names = table["identifier"].astype(str).tolist()
        double = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if double is not None:
            raise DataError(f"{self.chips} has the chip {double} twice", fix="keep one polygon for each chip")
        bounds = table.to_crs(grid.crs).geometry.bounds.to_numpy()
        return {name: (box[0], box[1], box[2], box[3]) for name, box in zip(names, bounds.tolist(), strict=True)}

    def _parts(self, chips: Sequence[str], boxes: Sequence[Bounds], grid: Grid) -> dict[str, str]:
        if self.splits is not None:
            table = read_parts(self.splits)
            lacking = [chip for chip in chips if chip not in table]
            if lacking:
                self.notes.append(f"left out {len(lacking)} chips that {self.splits.name} does not name")
            return {chip: table[chip] for chip in chips if chip in table}
        corners = np.asarray(boxes)
        x, y = (corners[:, 0] + corners[:, 2]) / 2, (corners[:, 1] + corners[:, 3]) / 2
        if grid.is_geographic:
            x = x * math.cos(math.radians(float(y.mean())))
        found = bands_at_angle(x, y, num_bands=self.bands, angle=self.angle, shares=self.shares)
        return dict(zip(chips, found, strict=True))

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        codes = miniature.patches((1, 2, 3), 96, 160, seed=seed)
        miniature.write(root / "labels.tif", codes, nodata=0)
        values = miniature.picture(codes, 3, seed=seed, low=100, high=5000, dtype="uint16")
        miniature.write(root / "image.tif", values, bands=["green", "red", "nir"])
        shapes = []
        for i in range(15):
            left, top = 400_000 + 320 * (i % 5), 4_600_000 - 320 * (i // 5)
            ring = [[left, top], [left + 320, top], [left + 320, top - 320], [left, top - 320], [left, top]]
            geometry = {"type": "Polygon", "coordinates": [ring]}
            shapes.append({"type": "Feature", "properties": {"identifier": f"chip{i}"}, "geometry": geometry})
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
        text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": shapes})
        (root / "chips.geojson").write_text(text)


def _holds(grid: Grid, bounds: Bounds) -> bool:
    if not all(map(math.isfinite, bounds)):
        return False
    window = nearest_window(grid, bounds)
    return not window.is_empty and window.intersect(grid.window) == window


def bands_at_angle(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    *,
    num_bands: int,
    angle: float,
    shares: Sequence[float] = (0.6, 0.2, 0.2),
) -> list[str]:
    """train, val or test of each point (N,), by bands of equal width that cross the whole area.

    The bands run from south to north, turned clockwise by `angle` degrees. From the western one on, each band goes to
    the part that is furthest behind its share of the bands. Raises ConfigError; DataError for a part without points.
    """
    if num_bands < 1 or len(shares) != len(PARTS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
        raise ConfigError(
            f"{num_bands} bands with shares {list(shares)} are no split", fix="bands: 60, shares: [0.6, 0.2, 0.2]"
        )
    turn = math.radians(angle)
    across = x * math.cos(turn) - y * math.sin(turn)
    span = float(np.ptp(across)) or 1.0
    index = np.minimum(((across - across.min()) / span * num_bands).astype(int), num_bands - 1)
    counts, order = [0] * len(PARTS), []
    for band in range(num_bands):
        behind = [share * (band + 1) - count for share, count in zip(shares, counts, strict=True)]
        chosen = max(range(len(PARTS)), key=lambda k: (round(behind[k], 9), -k))
        counts[chosen] += 1
        order.append(PARTS[chosen])
    parts = [order[i] for i in index.tolist()]
    empty = [part for part, share in zip(PARTS, shares, strict=True) if share and part not in parts]
    if empty:
        raise DataError(
            f"{num_bands} bands leave no chips for {', '.join(empty)}",
            fix="give fewer or more bands: a band should be about as wide as a chip or wider",
        )
    return parts
