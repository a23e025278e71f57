"""Pictures (H, W, 3) uint8 of scenes, maps and splits for the report; how one is read and coloured: geo/pictures.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE, Legend
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split, Tile
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.pictures import (
    COMPOSITES,
    EMPTY,
    Composite,
    Picture,
    bands_shown,
    composite_of,
    map_raster,
    read_overview,
    rgb_of,
)  # fmt: skip

PART_COLOURS = {"train": "#0072b2", "val": "#e69f00", "test": "#d55e00"}
_MAX_CANDIDATES = 64


def composite(scene: Scene, side_px: int, date: int = 0) -> Composite:
    """A scene's bands to show, by name: true colour, else near infrared, else the first three, or one as grey.

    date: number of the date; of a sensor that has fewer its last one.
    """
    for bands in COMPOSITES:
        for raster in scene.rasters.values():
            if set(bands) <= set(raster.bands):
                return composite_of(raster.select(bands), side_px, date)
    first = next(iter(scene.rasters.values()))
    return composite_of(first.select(bands_shown(first.bands)), side_px, date)


def read_map(path: Path, scene: Scene, legend: Legend, window: Window) -> npt.NDArray[np.uint8]:
    """Class indices (H, W) of a class map in a window of the scene, IGNORE where it holds none."""
    values, valid = map_raster(path, scene.grid).read(window)
    return _encoded(values[0, 0], valid[0], legend, path)


def map_overview(path: Path, grid: Grid, legend: Legend, side_px: int) -> npt.NDArray[np.uint8]:
    """Class indices of a whole class map, decimated."""
    values, valid = read_overview(map_raster(path, grid), side_px)
    return _encoded(values[0], valid, legend, path)


def _encoded(
    codes: npt.NDArray[Any], valid: npt.NDArray[np.bool_], legend: Legend, path: Path
) -> npt.NDArray[np.uint8]:
    index = legend.encode(codes, unknown="ignore", where=str(path))
    return np.where(valid, index, np.uint8(IGNORE))


def change_picture(
    codes: npt.NDArray[Any], valid: npt.NDArray[np.bool_], table: Picture, ground: Picture | None
) -> Picture:
    """Codes (H, W) in the colours of a table, where it has one, over a grey overview (or on white); pale where none.

    Black in the table stands for no colour: what did not change shows the ground.
    """
    grey = 255.0 if ground is None else 120 + 0.5 * _few_greys(ground)
    drawn = valid & table[codes].any(-1)
    out = np.where(drawn[..., None], table[codes], np.where(valid[..., None], grey, EMPTY))
    return np.asarray(np.rint(np.clip(out, 0, 255)).astype(np.uint8))


def _few_greys(picture: Picture) -> npt.NDArray[np.float64]:
    """(H, W, 3) -> (H, W, 1): 64 greys, as many as a ground needs, so that the file stays small."""
    return np.asarray(4.0 * np.floor(picture.mean(-1, keepdims=True) / 4))


def part_picture(image: Picture, split: Split, scene: Scene) -> Picture:
    """The parts of a split in colour over a grey overview; what belongs to no part, buffers too, stays grey."""
    height, width = image.shape[:2]
    down, across = height / scene.grid.height, width / scene.grid.width
    tiles = tuple(
        Tile(tile.scene, _scaled(tile.window, down, across), tile.part)
        for tile in split.tiles
        if tile.scene == scene.name
    )
    small = replace(split, tiles=tiles, buffer_px=round(split.buffer_px * down))
    parts = small.part_mask(scene.name, Window(0, 0, height, width))
    grey = _few_greys(image)
    out = 160 + 0.3 * grey  # light, so that colours carry the meaning and the picture only the place
    for part, colour in PART_COLOURS.items():
        tint = np.array(rgb_of(colour), float)
        out = np.where(parts[..., None] == PARTS.index(part), 0.25 * grey + 0.75 * tint, out)
    return np.asarray(np.rint(np.clip(out, 0, 255)).astype(np.uint8))


def _scaled(window: Window, down: float, across: float) -> Window:
    top, left = round(window.row * down), round(window.col * across)
    return Window(
        top,
        left,
        round((window.row + window.height) * down) - top,
        round((window.col + window.width) * across) - left,
    )


def example_windows(
    scenes: Sequence[Scene], split: Split, part: str, *, count: int = 4, side_px: int = 256
) -> list[tuple[Scene, Window]]:
    """Up to `count` windows of a part, chosen so that together they show as many classes as they can.

    Of the windows (at most 64 are looked at, evenly spread) the next one is always that with the most classes not
    shown yet, then that with the most labelled pixels.
    """
    pieces = [
        (scene, piece)
        for scene in scenes
        for window in split.windows(scene.name, part)
        for piece in partition(window, side_px, side_px)
    ]
    step = max(1, -(-len(pieces) // _MAX_CANDIDATES))
    candidates = []
    for scene, window in pieces[::step]:
        index = split.labels(scene, window, part)
        known = index[index != IGNORE]
        if known.size:
            candidates.append((scene, window, set(np.unique(known).tolist()), known.size))
    chosen: list[tuple[Scene, Window]] = []
    shown: set[int] = set()
    while candidates and len(chosen) < count:
        best = max(candidates, key=lambda c: (len(c[2] - shown), c[3]))
        candidates.remove(best)
        shown |= best[2]
        chosen.append((best[0], best[1]))
    return chosen
