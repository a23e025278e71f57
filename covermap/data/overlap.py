"""Ground that several scenes show: no pixel of it and no polygon stands on two sides of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
import shapely
from rasterio.warp import transform_bounds

from covermap.data.blocks import ground_of
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split, Tile
from covermap.geo.grid import partition
from covermap.geo.rasterize import VectorLabels

OTHER_IMAGES = (
    "parts show the same ground, in different images or pairs of dates that may share one: the scores are of other "
    "images, not places"
)


def with_shared_ground(split: Split, scenes: Sequence[Scene], named: Mapping[str, str], *, by_user: bool) -> Split:
    """The split with what other scenes use of a scene's ground, and of its polygons, taken out.

    named: scenes whose part is given. What the user names stays whole: whoever does so asks about another date or
    place. Of a layout's parts, only images of exactly the same ground do.
    """
    notes = [OTHER_IMAGES] if _same_place_in_two_parts(scenes, named) else []
    far = []
    tiles: dict[str, list[Tile]] = {}
    for tile in split.tiles:
        tiles.setdefault(tile.scene, []).append(tile)
    holding = {tile.scene for tile in split.tiles if tile.part in ("val", "test")}
    for scene, other in neighbours(scenes, holding, split.buffer_px):
        given = scene.name in named or other.name in named
        two_parts = given and named.get(scene.name) != named.get(other.name)
        if given if by_user else two_parts and ground_of(scene) == ground_of(other):
            if two_parts and scene.grid.overlap(other.grid):
                notes.append(OTHER_IMAGES)
            continue
        held = [tile for tile in tiles[other.name] if tile.part in ("val", "test")]
        own, reach = set(tiles[scene.name] if held else ()), scene.grid.window.pad(split.buffer_px)
        for tile in held:
            here = Tile(scene.name, scene.grid.window_of(other.grid, tile.window), tile.part)
            if here not in own and not here.window.intersect(reach).is_empty:
                far.append(replace(here, part=f"{tile.part} elsewhere"))
    split = replace(split, tiles=split.tiles + tuple(far))
    split = replace(split, dropped=_shared_objects(split, scenes))
    if split.dropped:
        notes.append(f"{len(split.dropped):,} polygons lie in several scenes and are used in one part only")
    split = replace(split, notes=(*split.notes, *dict.fromkeys(notes)))
    return _scored_once(split, scenes)


def _scored_once(split: Split, scenes: Sequence[Scene]) -> Split:
    """The split without the quarters of held tiles that an earlier tile of the place shows, pixel by pixel.

    Tiles that overlap by half and do not say where they lie (WUSU) would be scored up to four times.
    """
    places = Counter(scene.place or "" for scene in scenes if scene.place and scene.rasters and not scene.grid.crs)
    held = {tile.scene for tile in split.tiles if tile.part in ("val", "test")}
    seen: set[tuple[str | None, bytes]] = set()
    again = []
    for scene in (scene for scene in scenes if places[scene.place or ""] > 1 and scene.name in held):
        for window in partition(scene.grid.window, -(-scene.grid.height // 2), -(-scene.grid.width // 2)):
            shown = [np.ascontiguousarray(values) for values in scene.read(window).image.values()]
            digest = scene.place, hashlib.sha256(b"".join(values.tobytes() for values in shown)).digest()
            if digest in seen and any(np.ptp(values) > 0 for values in shown):
                again.append(Tile(scene.name, window, "none"))
            seen.add(digest)
    note = f"{len(again):,} quarters of tiles show what another tile of the place shows: they are scored once"
    return replace(split, tiles=split.tiles + tuple(again), notes=(*split.notes, *([note] if again else [])))


def _same_place_in_two_parts(scenes: Sequence[Scene], named: Mapping[str, str]) -> bool:
    """Whether scenes of one place stand in different parts because their parts are given."""
    parts: dict[str, set[str]] = {}
    for scene in scenes if named else ():
        if scene.place:
            parts.setdefault(scene.place, set()).add(named.get(scene.name, "train"))
    return any(len(found) > 1 for found in parts.values())


def neighbours(scenes: Sequence[Scene], holding: Set[str], buffer_px: int) -> list[tuple[Scene, Scene]]:
    """Pairs of scenes of which the first, grown by the buffer, overlaps the second, one of `holding`, on the ground."""
    placed = [scene for scene in scenes if scene.grid.crs is not None]
    if len(placed) < 2:
        return []
    grown = [scene.grid.window_grid(scene.grid.window.pad(buffer_px)) for scene in placed]
    boxes = shapely.box(*np.array([transform_bounds(grid.crs, "EPSG:4326", *grid.bounds) for grid in grown]).T)
    pairs = [(i, j) for i, j in shapely.STRtree(boxes).query(boxes).T.tolist() if i != j and placed[j].name in holding]
    return [(placed[i], placed[j]) for i, j in pairs if grown[i].overlap(placed[j].grid) > 0]


def _shared_objects(split: Split, scenes: Sequence[Scene]) -> frozenset[tuple[str, int]]:
    """Objects of one label file that fall into different parts in different scenes: the weaker parts lose them."""
    by_file: dict[str, list[Scene]] = {}
    for scene in scenes:
        if isinstance(scene.labels, VectorLabels) and scene.labels_path:
            by_file.setdefault(scene.labels_path, []).append(scene)
    dropped = set()
    for sharing in (group for group in by_file.values() if len(group) > 1):
        parts: dict[int, dict[str, int]] = {}
        for scene in sharing:
            assert isinstance(scene.labels, VectorLabels)
            for number, _, _ in scene.labels.object_windows():
                parts.setdefault(number, {})[scene.name] = PARTS.index(split.part_of_object(scene, number))
        for number, found in parts.items():
            dropped |= {(name, number) for name, part in found.items() if part < max(found.values())}
    return frozenset(dropped)
