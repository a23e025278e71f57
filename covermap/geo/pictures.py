"""Rasters -> small pictures (H, W, 3) uint8: decimated reading, stretch, legend colours.

A picture is read at its own size, from overviews where a file has them, so that a scene of any size stays cheap.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from covermap.core.errors import DataError
from covermap.core.legend import Legend
from covermap.geo.align import read_onto
from covermap.geo.band_source import BandSource, calibrated
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, Window
from covermap.geo.raster import Raster, grid_of, open_dataset, valid_pixels

if TYPE_CHECKING:
    from PIL.Image import Image as Image_

Picture = npt.NDArray[np.uint8]

EMPTY_COLOUR = "#e2e5e7"
"""Light grey: nothing here."""
CONFIDENCE_COLOURS = ("#6d0f3c", "#bf3a4e", "#ee8862", "#f7cf9d", "#cfe6e0")
"""From unsure, dark, to sure, pale; evenly spaced, of all layers that say how sure a model is."""
FARTHEST = 254
DISTANCES = {(0, 50): "#e8f1ea", (51, 100): "#a9cbb7", (101, 150): "#f0b36b", (151, FARTHEST): "#b8402a"}
"""Colours of distances from the training data in percent of the usual."""
COMPOSITES = (
    ("red", "green", "blue"), ("nir", "red", "green"), ("nir_narrow", "red", "green"),
    ("swir1", "nir", "red"), ("swir1", "nir_narrow", "red"),
)  # fmt: skip
EMPTY = np.array([int(EMPTY_COLOUR[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
_STRIP_PX = 512


def png_uri(picture: Picture) -> str:
    """A picture (H, W, 3 or 4) uint8, red first, as a PNG data URI: exact, and small where it has few colours."""
    from PIL import Image

    whole = Image.fromarray(picture)
    few = picture.shape[2] == 3 and whole.getcolors(256)
    return _uri(_indexed(picture) if few else whole, "png", compress_level=9)


def photo_uri(picture: Picture) -> str:
    """An image of the ground (H, W, 3) uint8 as a JPEG data URI: a fraction of a PNG, colours nearly exact."""
    from PIL import Image

    return _uri(Image.fromarray(picture), "jpeg", quality=92, subsampling=0)


def _indexed(picture: Picture) -> Image_:
    """The same pixels as numbers of up to 256 colours, in the order of the colours."""
    from PIL import Image

    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    found = Image.fromarray(index.reshape(packed.shape).astype(np.uint8), "P")
    found.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).astype(np.uint8).tobytes())
    return found


def _uri(picture: Image_, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Composite:
    """How a raster is shown: one or three bands of one date, read once as an overview.

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
        """A window at full resolution, stretched as the whole raster is."""
        values, valid = self.raster.read(window)
        return stretched(values[0], valid[0], self.limits)


def composite_of(raster: Raster, side_px: int, date: int = 0) -> Composite:
    """A raster's own one or three bands on a date (of fewer dates the last one), stretched over its overview."""
    raster = raster.of_date(min(date, len(raster.dates) - 1))
    values, valid = read_overview(raster, side_px)
    known = values[:, valid].astype(np.float64)
    limits = np.percentile(known, (2, 98), axis=1) if known.size else np.tile([[0.0], [1.0]], len(values))
    return Composite(raster, limits, stretched(values, valid, limits))


def bands_shown(bands: Sequence[str]) -> tuple[str, ...]:
    """Those that show it best: true colour, else with near infrared, else the first three, or one as grey."""
    for wanted in COMPOSITES:
        if set(wanted) <= set(bands):
            return wanted
    return tuple(bands[:3] if len(bands) >= 3 else bands[:1])


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
        except GDAL_ERRORS as error:
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
    return np.where(valid[..., None], picture, EMPTY)


def class_picture(index: npt.NDArray[np.uint8], legend: Legend) -> Picture:
    """Class indices (H, W) in the legend's colours, light grey for IGNORE."""
    table = np.tile(EMPTY, (256, 1))
    table[: len(legend)] = [c.rgb for c in legend.classes]
    return np.asarray(table[index])


def ramp(colours: Sequence[str], low: float, high: float) -> Picture:
    """(256, 3): a colour for each value from 0 to 255, running through `colours` between low and high."""
    stops = np.array([rgb_of(colour) for colour in colours])
    at = np.linspace(low, high, len(stops))
    bands = [np.interp(np.arange(256), at, band) for band in stops.T]
    return np.asarray(np.rint(np.stack(bands, -1)).astype(np.uint8))


def painted(values: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_], table: Picture) -> Picture:
    """Values (H, W) in the colours of a table (256, 3), light grey where not valid."""
    return np.where(valid[..., None], table[values], EMPTY)


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green, blue (0-255) of #rrggbb."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
