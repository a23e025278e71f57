"""Regions: names of ground that is held out whole: scenes, places, or polygons of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely

from covermap.core.config import SCENE_REGIONS
from covermap.core.errors import ConfigError, GridError, suggest
from covermap.data.blocks import Block
from covermap.data.scene import Scene
from covermap.geo.grid import Window
from covermap.geo.vector import read_table


@dataclass(frozen=True)
class Regions:
    """For each block the region that its centre lies in (None: no region), and all regions that it touches."""

    names: tuple[str, ...]
    own: list[str | None]
    touched: list[frozenset[str]]
    notes: tuple[str, ...] = ()


def find_regions(blocks: Sequence[Block], regions: str, field: str | None) -> Regions:
    """Regions of blocks by `scenes`, `places`, or a file of polygons; raises DataError or ConfigError."""
    if regions not in SCENE_REGIONS:
        return _by_polygon(blocks, regions, field)
    first = [block.places[0][0] for block in blocks]
    own = [(scene.place if regions == "places" else None) or scene.name for scene in first]
    return Regions(tuple(dict.fromkeys(own)), list(own), [frozenset([name]) for name in own])


def _by_polygon(blocks: Sequence[Block], path: str, field: str | None) -> Regions:
    table, notes = _read(path, field)
    names = table[field].astype(str).str.strip().to_numpy()
    own: list[str | None] = [None] * len(blocks)
    touched: list[frozenset[str]] = [frozenset()] * len(blocks)
    by_crs: dict[str, list[int]] = {}
    for number, block in enumerate(blocks):
        crs = block.places[0][0].grid.crs
        if crs is None:
            raise GridError(
                f"scene {block.places[0][0].name} has no CRS, so no region of {path} can hold it",
                fix="split.regions: places or scenes, with method: kfold",
            )
        by_crs.setdefault(crs.to_wkt(), []).append(number)
    for wkt, numbers in by_crs.items():
        tree = shapely.STRtree(table.to_crs(wkt).geometry.to_numpy())
        shapes = np.array([_outline(*blocks[number].places[0]) for number in numbers])
        block, polygon = tree.query(shapely.centroid(shapes), predicate="intersects")
        for i, j in zip(block[::-1].tolist(), polygon[::-1].tolist(), strict=True):
            own[numbers[i]] = names[j]  # backwards: of several polygons the file's first holds it
        for i, j in tree.query(shapes, predicate="intersects").T.tolist():
            touched[numbers[i]] |= {names[j]}
    if not any(own):
        raise GridError(f"no region of {path} holds the centre of a block", fix="check that both show the same place")
    return Regions(tuple(sorted(set(names))), own, touched, notes)


def _read(path: str, field: str | None) -> tuple[gpd.GeoDataFrame, tuple[str, ...]]:
    """Polygons with a name, and a note on what was left out; raises ConfigError (field) or GridError (no CRS)."""
    table = read_table(path)
    columns = [str(column) for column in table.columns if column != table.geometry.name]
    if field not in columns:
        what = f"has no field {field!r}" if field else "needs the field that holds the regions' names"
        raise ConfigError(
            f"split.regions: {path} {what}; its fields are {', '.join(columns) or 'none'}",
            fix=f"split.region_field: {columns[0] if columns else '...'}" if not field else suggest(field, columns),
        )
    if table.crs is None:
        raise GridError(f"{path} has no CRS", fix="assign it: ogr2ogr -a_srs EPSG:... OUT.gpkg IN")
    shapes = table.geometry.to_numpy()
    whole = table[field].notna().to_numpy() & ~shapely.is_missing(shapes) & (shapely.get_dimensions(shapes) == 2)
    if not whole.any():
        raise ConfigError(f"{path} holds no polygon with a name in {field!r}", fix="regions are polygons")
    lost = int((~whole).sum())
    return table[whole], (f"{lost:,} shapes of {path} are no polygons with a name and were left out",) if lost else ()


def _outline(scene: Scene, window: Window) -> shapely.Polygon:
    """The window's rectangle in the scene's CRS."""
    left, top, right, bottom = window.col, window.row, window.col + window.width, window.row + window.height
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return shapely.Polygon([scene.grid.transform * corner for corner in corners])
