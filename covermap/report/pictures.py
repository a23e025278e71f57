"""Rasters -> small pictures (H, W, 3) uint8 for the report: decimated reading, stretch, legend colours.

A picture is read at its own size, from overviews where a file has them, so that a scene of any size stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from covermap.core.errors import DataError
from covermap.core.legend import IGNORE, Legend
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split, Tile
from covermap.geo.align import read_onto
from covermap.geo.band_source import BandSource, calibrated
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.raster import Raster, grid_of, open_dataset, valid_pixels

Picture = npt.NDArray[np.uint8]

EMPTY_COLOUR = "#e2e5e7"
"""Light grey: nothing here."""
PART_COLOURS = {"train": "#0072b2", "val": "#e69f00", "test": "#d55e00"}
CONFIDENCE_COLOURS = ("#6d0f3c", "#bf3a4e", "#ee8862", "#f7cf9d", "#cfe6e0")
"""From unsure, dark, to sure, pale; evenly spaced, of all layers that say how sure a model is."""

COMPOSITES = (
    ("red", "green", "blue"), ("nir", "red", "green"), ("nir_narrow", "red", "green"),
    ("swir1", "nir", "red"), ("swir1", "nir_narrow", "red"),
)  # fmt: skip
"""Bands that are shown as red, green and blue, the best first."""
_EMPTY = np.array([int(EMPTY_COLOUR[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
_MAX_CANDIDATES = 64
_STRIP_PX = 512


@dataclass(frozen=True)
class Composite:
    """How a scene is shown: one or three bands of one date, read once as an overview.

    `limits` (2, C) are the 2nd and 98th percentile of the overview, between which every picture is stretched.
    """

    raster: Raster
    limits: npt.NDArray[np.float64]
    overview: Picture

    @property
    def kind(self) -> str:
        """What is shown in which colours."""
        bands = self.raster.bands
        kind = "" if bands == COMPOSITES[0] else "false colour: " if len(bands) == 3 else "grey: "
        return kind + ", ".join(bands)

    @property
    def title(self) -> str:
        date = self.raster.dates[0]
        return self.kind + (f" of {date}" if date else "")

    def read(self, window: Window) -> Picture:
        """A window at full resolution, stretched as the whole scene is."""
        values, valid = self.raster.read(window)
        return stretched(values[0], valid[0], self.limits)


def composite(scene: Scene, side_px: int, date: int = 0) -> Composite:
    """A scene's bands to show, by name: true colour, else near infrared, else the first three, or one as grey.

    date: number of the date; of a sensor that has fewer its last one.
    """
    for bands in COMPOSITES:
        for raster in scene.rasters.values():
            if set(bands) <= set(raster.bands):
                return _of_date(raster.select(bands), side_px, date)
    first = next(iter(scene.rasters.values()))
    return _of_date(first.select(first.bands[:3] if len(first.bands) >= 3 else first.bands[:1]), side_px, date)


def _of_date(raster: Raster, side_px: int, date: int) -> Composite:
    raster = raster.of_date(min(date, len(raster.dates) - 1))
    values, valid = read_overview(raster, side_px)
    known = values[:, valid].astype(np.float64)
    limits = np.percentile(known, (2, 98), axis=1) if known.size else np.tile([[0.0], [1.0]], len(values))
    return Composite(raster, limits, stretched(values, valid, limits))


def overview_shape(grid: Grid, side_px: int) -> tuple[int, int]:
    """Height and width of a picture of a whole grid: its longer side is `side_px`, never more than the grid has."""
    factor = max(1.0, max(grid.height, grid.width) / side_px)
    return max(1, round(grid.height / factor)), max(1, round(grid.width / factor))


def read_overview(raster: Raster, side_px: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """values (C, h, w) of the first date and valid (h, w), nearest pixels of the whole grid; raises DataError."""
    height, width = overview_shape(raster.grid, side_px)
    scaling = Affine.scale(raster.grid.width / width, raster.grid.height / height)
    coarse = Grid(raster.grid.crs, raster.grid.transform * scaling, height, width)
    values = np.zeros((len(raster.bands), height, width), raster.dtype)
    valid = np.ones((height, width), bool)
    parts = [(c, i, part) for c, source in enumerate(raster.sources[0]) for i, part in enumerate(source.parts)]
    for path in dict.fromkeys(part.path for _, _, part in parts):
        dataset = open_dataset(path)
        nodata = raster.nodata if raster.nodata is not None else dataset.nodata
        mine = [(c, i, part) for c, i, part in parts if part.path == path]
        indexes = [source.index for _, _, source in mine]
        try:
            if grid_of(dataset).is_same(raster.grid):
                part, good = _read_decimated(dataset, indexes, height, width, nodata)
            else:
                part, good = read_onto(dataset, indexes, coarse, nodata=nodata, resampling="nearest")
        except (RasterioError, OSError) as error:
            raise DataError(f"{path} is damaged: {error}", fix="copy it again from its source") from error
        for layer, (c, i, source) in zip(part, mine, strict=True):
            values[c] += (-1 if i else 1) * calibrated(layer[None], [source])[0].astype(raster.dtype)
        valid &= good
    return values, valid


def _read_decimated(
    dataset: DatasetReader, indexes: list[int], height: int, width: int, nodata: float | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Nearest pixels of a whole file in strips of about one row of blocks.

    Read at once, GDAL decodes a file without overviews anew for each band: four times as slow for three bands.
    """
    step = dataset.height / height
    rows = max(1, int(_STRIP_PX / step))
    strips, masks = [], []
    for first in range(0, height, rows):
        count = min(rows, height - first)
        place = {"window": RasterioWindow(0, first * step, dataset.width, count * step)}
        strip = dataset.read(indexes, out_shape=(len(indexes), count, width), **place)
        good = valid_pixels(strip, nodata)
        if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
            good &= dataset.dataset_mask(out_shape=(count, width), **place) > 0
        strips.append(strip)
        masks.append(good)
    return np.concatenate(strips, 1), np.concatenate(masks)


def map_raster(path: Path, grid: Grid) -> Raster:
    """A one-band product as a Raster on a scene's grid, never interpolated."""
    dataset = open_dataset(str(path))
    return Raster(grid, (path.stem,), ((BandSource(str(path), 1),),), dataset.dtypes[0], resampling="nearest")


def stretched(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], limits: npt.NDArray[np.float64]) -> Picture:
    """values (C, H, W), C of 1 or 3, limits (2, C) -> black to white between the limits, light grey where not valid."""
    low, high = limits[:, :, None, None]
    scaled = (np.where(valid, values, 0) - low) / np.maximum(high - low, 1e-12)
    grey = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    picture = np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1)
    return np.where(valid[..., None], picture, _EMPTY)


def class_picture(index: npt.NDArray[np.uint8], legend: Legend) -> Picture:
    """Class indices (H, W) in the legend's colours, light grey for IGNORE."""
    table = np.tile(_EMPTY, (256, 1))
    table[: len(legend)] = [c.rgb for c in legend.classes]
    return np.asarray(table[index])


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


def ramp(colours: Sequence[str], low: float, high: float) -> Picture:
    """(256, 3): a colour for each value from 0 to 255, running through `colours` between low and high."""
    stops = np.array([rgb_of(colour) for colour in colours])
    at = np.linspace(low, high, len(stops))
    bands = [np.interp(np.arange(256), at, band) for band in stops.T]
    return np.asarray(np.rint(np.stack(bands, -1)).astype(np.uint8))


def painted(values: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_], table: Picture) -> Picture:
    """Values (H, W) in the colours of a table (256, 3), light grey where not valid."""
    return np.where(valid[..., None], table[values], _EMPTY)


def change_picture(
    codes: npt.NDArray[Any], valid: npt.NDArray[np.bool_], table: Picture, ground: Picture | None
) -> Picture:
    """Codes (H, W) in the colours of a table, where it has one, over a grey overview (or on white); pale where none.

    Black in the table stands for no colour: what did not change shows the ground.
    """
    grey = 255.0 if ground is None else 120 + 0.5 * ground.mean(-1, keepdims=True)
    drawn = valid & table[codes].any(-1)
    out = np.where(drawn[..., None], table[codes], np.where(valid[..., None], grey, _EMPTY))
    return np.asarray(np.rint(np.clip(out, 0, 255)).astype(np.uint8))


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
    grey = image.mean(-1, keepdims=True)
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


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green, blue (0-255) of #rrggbb."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


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
