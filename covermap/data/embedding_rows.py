"""Chips on their way to a GeoParquet file of embeddings: columns, the place of each chip, its label, its name.

The columns are listed in data/embeddings.py; grid cells and names follow Major TOM (Francis & Czerkawski 2024).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from covermap.core.config import whole_period
from covermap.core.errors import MissingExtra
from covermap.core.legend import IGNORE, Legend
from covermap.data.labels import ChipLabels, Labels
from covermap.data.reference import Known
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split
from covermap.data.target import Target
from covermap.data.transitions import Transitions
from covermap.geo.grid import Grid, Window
from covermap.geo.rasterize import VectorLabels

CELL_KM, EARTH_KM = 10.0, 6378.137


def arrow() -> Any:
    """pyarrow; raises MissingExtra."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "GeoParquet") from error
    return pyarrow


def grid_cell(lat: float, lon: float) -> tuple[str, int, int]:
    """Major TOM's cell of 10 km that holds a place: name, row counted upwards, column counted to the right."""
    height = 180 / math.ceil(math.pi * EARTH_KM / CELL_KM)
    row = math.floor(lat / height)
    around = math.ceil(2 * math.pi * EARTH_KM * math.cos(math.radians(row * height)) / CELL_KM)
    col = math.floor(lon / (360 / max(1, around)))
    col += around if col * 360 / max(1, around) < -180 else 0  # with an odd number one cell lies across longitude 180
    name = f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(col)}{'R' if col >= 0 else 'L'}"
    return name, row, col


@dataclass(frozen=True)
class Told:
    """What the data of a config tell of chips beside the image: classes of pixels, one of a chip, or numbers."""

    legend: Legend | None = None
    of_chip: bool = False
    names: tuple[str, ...] = ()
    split: Split | None = None

    @staticmethod
    def of(scene: Scene, split: Split | None) -> Told:
        """As the first scene has it; the others have the same."""
        labels: Labels | None = None if isinstance(scene.labels, Known) else scene.labels
        names = scene.target.names if scene.target and not isinstance(scene.target, Transitions) else ()
        return Told(labels.legend if labels else None, isinstance(labels, ChipLabels), tuple(names), split)

    def around(self, scene: Scene, window: Window) -> Around:
        """Labels and parts of a piece of a scene, read once for all of its chips."""
        inside = window.intersect(scene.grid.window)
        index = parts = mask = None
        if self.split is not None:
            mask = self.split.part_mask(scene.name, inside)
        if self.legend is not None and not self.of_chip:
            index = scene.read_labels(inside)
            if self.split is not None and isinstance(scene.labels, VectorLabels):
                parts = self.split.labels_and_parts(scene, inside)[1]  # without polygons that belong to another part
        return Around(inside, index, mask if parts is None else parts, mask)

    def columns(self, scene: Scene, window: Window, around: Around) -> dict[str, Any]:
        """part, and class_pixels or label, and values of one chip."""
        inside = window.intersect(scene.grid.window)
        here = inside.within(around.window).slices
        part = "none" if around.mask is None else part_of(around.mask[here])
        found: dict[str, Any] = {"part": part}
        if self.legend is not None and self.of_chip:
            assert isinstance(scene.labels, ChipLabels)
            found["label"] = None if scene.labels.index == IGNORE else scene.labels.index
        elif self.legend is not None:
            assert around.classes is not None
            index = around.classes[here]
            if around.parts is not None and part != "none":
                index = np.where(around.parts[here] == PARTS.index(part), index, np.uint8(IGNORE))
            found["class_pixels"] = np.bincount(index.ravel(), minlength=256)[: len(self.legend)].tolist()
        if self.names and scene.target is not None:
            found["values"] = whole_target(scene).read(inside).astype(np.float64).tolist()
        return found


class Around(NamedTuple):
    """A piece of a scene: class indices, the part that may use each, and the part of the ground, (H, W) each."""

    window: Window
    classes: npt.NDArray[np.uint8] | None
    parts: npt.NDArray[np.uint8] | None
    mask: npt.NDArray[np.uint8] | None


class Chip(NamedTuple):
    """A chip of a scene."""

    scene: Scene
    window: Window
    around: Around


def whole_target(scene: Scene) -> Target:
    """The scene's target as one answer for a window."""
    assert scene.target is not None
    size = scene.target.size
    alone: dict[str, Any] = {"per_chip": True, "factor": None, "size_px": None}
    return scene.target if size.per_chip else replace(scene.target, size=size.model_copy(update=alone))


def part_of(mask: npt.NDArray[np.uint8]) -> str:
    """The part that all pixels of a chip belong to, none where they do not."""
    first = int(mask.flat[0]) if mask.size else 0
    return PARTS[first] if (mask == first).all() else "none"


@dataclass
class Rows:
    """Chips of a unit of work, as columns that grow."""

    told: Told
    columns: dict[str, list[Any]] = field(default_factory=dict)
    skipped: int = 0

    def add(
        self, chips: Sequence[Chip], vectors: npt.NDArray[np.float32], raw: npt.NDArray[np.float32]
    ) -> None:  # fmt: skip
        """Add chips with their embeddings (N, d) and raw statistics (N, r)."""
        number = 0
        for _, group in itertools.groupby(chips, lambda chip: id(chip.scene)):
            mine = list(group)
            scene, places = mine[0].scene, _places(mine[0].scene.grid, [chip.window for chip in mine])
            date, product = _timestamp(scene), _product(scene)
            for chip, place in zip(mine, places, strict=True):
                inside = chip.window.intersect(scene.grid.window)
                box = [inside.col, inside.row, inside.col + inside.width, inside.row + inside.height]
                row = {
                    "unique_id": unique_id(vectors[number], scene.name, box, date, product, place["geometry"]),
                    "embedding": vectors[number], "timestamp": date, "product_id": product, **place, "pixel_bbox": box,
                    "scene": scene.name, "place": scene.place, "raw_statistics": raw[number],
                    **self.told.columns(scene, chip.window, chip.around),
                }  # fmt: skip
                for key, value in row.items():
                    self.columns.setdefault(key, []).append(value)
                number += 1

    def table(self, schema: Any) -> Any:
        """An Arrow table, its columns in the order of the schema."""
        return arrow().table({name: self.columns.get(name, []) for name in schema.names}, schema=schema)


def schema_of(told: Told) -> Any:
    """The columns of a file and their types."""
    pa = arrow()
    floats, whole = pa.list_(pa.float32()), pa.int32()
    fields = {
        "unique_id": pa.string(), "embedding": floats, "timestamp": pa.string(), "product_id": pa.string(),
        "grid_cell": pa.string(), "grid_row_u": pa.int16(), "grid_col_r": pa.int16(), "geometry": pa.binary(),
        "centre_lat": pa.float32(), "centre_lon": pa.float32(), "utm_footprint": pa.string(), "utm_crs": pa.string(),
        "pixel_bbox": pa.list_(whole), "scene": pa.string(), "place": pa.string(), "part": pa.string(),
        "raw_statistics": floats,
    }  # fmt: skip
    if told.legend is not None:
        fields |= {"label": whole} if told.of_chip else {"class_pixels": pa.list_(whole)}
    if told.names:
        fields["values"] = pa.list_(pa.float64())
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])


def unique_id(vector: npt.NDArray[np.float32], *place: object) -> str:
    """SHA-256 of the numbers themselves and of the place: arrays that only look alike when printed have another."""
    content = hashlib.sha256(np.ascontiguousarray(vector, "<f4").tobytes())
    content.update(repr(place).encode())
    return content.hexdigest()


def file_metadata(facts: Mapping[str, Any], bounds: Sequence[float] | None) -> dict[str, str]:
    """What the file says of itself: GeoParquet 1.1 and our facts. bounds: west, south, east, north."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"] if bounds else []}
    column |= {"bbox": list(bounds)} if bounds else {}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return {"geo": json.dumps(geo), "covermap": json.dumps(facts)}


def _places(grid: Grid, windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Columns of where each chip lies, cut to the scene; null without a CRS."""
    keys = ("grid_cell", "grid_row_u", "grid_col_r", "geometry", "centre_lat", "centre_lon", "utm_footprint", "utm_crs")
    if grid.crs is None:
        return [dict.fromkeys(keys) for _ in windows]
    boxes = np.array([window.intersect(grid.window) for window in windows], np.float64)
    top, left, bottom, right = boxes[:, 0], boxes[:, 1], boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    cols = np.stack([left, left, right, right, (left + right) / 2])  # counter-clockwise, and the centre
    rows = np.stack([top, bottom, bottom, top, (top + bottom) / 2])
    a, b, c, d, e, f = grid.transform[:6]
    lon, lat = _to_degrees(grid.crs.to_wkt()).transform(a * cols + b * rows + c, d * cols + e * rows + f)
    if grid.transform.determinant > 0:  # rows upwards turn the ring over
        lon, lat = (np.concatenate([v[3::-1], v[4:]]) for v in (lon, lat))
    found = []
    for number in range(len(windows)):
        y, x = float(lat[4, number]), float(lon[4, number])
        ring = shapely.Polygon(np.stack([lon[:4, number], lat[:4, number]], 1))
        code, to_utm = _utm(round(y, 6), x)
        east, north = to_utm.transform(lon[:4, number], lat[:4, number])
        utm = shapely.Polygon(np.round(np.stack([east, north], 1), 3))
        cell = dict(zip(keys[:3], grid_cell(y, x), strict=True))
        found.append({
            **cell, "geometry": shapely.to_wkb(ring), "centre_lat": y, "centre_lon": x,
            "utm_footprint": shapely.to_wkt(utm, rounding_precision=3), "utm_crs": f"EPSG:{code}",
        })  # fmt: skip
    return found


@lru_cache(maxsize=64)
def _to_degrees(wkt: str) -> Transformer:
    return Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)


def _utm(lat: float, lon: float) -> tuple[int, Transformer]:
    """EPSG code of the UTM zone of a place, and the way there from degrees."""
    zone = int((lon + 180) // 6) % 60 + 1
    code = (32600 if lat >= 0 else 32700) + zone
    return code, _from_degrees(code)


@lru_cache(maxsize=120)
def _from_degrees(code: int) -> Transformer:
    return Transformer.from_crs("EPSG:4326", f"EPSG:{code}", always_xy=True)


def _timestamp(scene: Scene) -> str | None:
    """The date of a scene, first/last of several; None where none is known."""
    days = [day for day in scene.dates if day]
    return whole_period(days) if days else None


def _product(scene: Scene) -> str:
    """Names of the files that a scene's images come from."""
    paths = [path for image in scene.images for path in ([image.path] if isinstance(image.path, str) else image.path)]
    return ";".join(dict.fromkeys(Path(path).stem for path in paths)) or scene.name
