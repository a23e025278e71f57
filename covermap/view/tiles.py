"""Pixels of a layer for a box of the frame, and tiles of them as PNG or JPEG.

GDAL's datasets are not made for several threads, so each thread has handles of its own, the newest few of them.
"""

from __future__ import annotations

import io
import math
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from covermap.core.errors import ConfigError, UnreadableError, suggest
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.raster import valid_pixels
from covermap.view.classes import NOTHING, codes_of
from covermap.view.frame import TILE_PX, Box, Frame
from covermap.view.raster_layer import STRETCHES, RasterLayer

CACHE_BYTES = 64 << 20
"""GDAL's cache, of all threads together."""
_OPEN = 12
_QUALITY = 88
_LEVEL = 1
EMPTY = 255
_WARP_MB = 16


class Handles:
    """Open files of each thread: at most `_OPEN`, the oldest is closed; a file that changed is opened anew."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._local = threading.local()

    def raw(self, layer: RasterLayer) -> DatasetReader:
        """The file itself."""
        return self._pair(layer)[0]

    def on_frame(self, layer: RasterLayer) -> DatasetReader:
        """The file, or a view of it on the frame's lattice where its own is another."""
        return self._pair(layer)[1]

    def _pair(self, layer: RasterLayer) -> tuple[DatasetReader, DatasetReader]:
        store: OrderedDict[str, tuple[str, DatasetReader, DatasetReader]] = self._local.__dict__.setdefault(
            "store", OrderedDict()
        )
        version, key = layer.on_disk, str(layer.path)
        if key in store and store[key][0] == version:
            store.move_to_end(key)
            return store[key][1:]
        if key in store:
            _close(store.pop(key))
        dataset = rasterio.open(layer.path, **({"OVERVIEW_LEVEL": "NONE"} if layer.made_up else {}))
        view = dataset if self.frame.is_straight(layer.grid) else _warped(dataset, layer, self.frame)
        store[key] = version, dataset, view
        while len(store) > _OPEN:
            _close(store.popitem(last=False)[1])
        return dataset, view


def _close(entry: tuple[str, DatasetReader, DatasetReader]) -> None:
    _, dataset, view = entry
    if view is not dataset:
        view.close()
    dataset.close()


def _warped(dataset: DatasetReader, layer: RasterLayer, frame: Frame) -> DatasetReader:
    """On the frame's lattice, no larger than the layer: zoomed out GDAL goes over all lines of it."""
    left, top, right, bottom = _whole_px(frame.box(layer.grid))
    alpha, floating = ColorInterp.alpha in dataset.colorinterp, np.dtype(layer.dtype).kind == "f"
    nodata = np.nan if layer.nodata is None and floating and not alpha else layer.nodata
    if nodata is None or MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        empty: dict[str, Any] = {"add_alpha": not alpha}
    else:  # see geo/align.py
        empty = {"src_nodata": nodata, "nodata": nodata, "UNIFIED_SRC_NODATA": "NO"}
    return WarpedVRT(
        dataset, crs=frame.crs, transform=frame.transform * Affine.translation(left, top),
        width=right - left, height=bottom - top,
        resampling=Resampling.bilinear if layer.kind == "image" else Resampling.nearest,
        warp_mem_limit=_WARP_MB, tolerance=0.125 if layer.kind == "image" else 0.001, **empty,
    )  # fmt: skip


def _whole_px(box: Box) -> tuple[int, int, int, int]:
    left, top = math.floor(box[0]), math.floor(box[1])
    return left, top, max(left + 1, math.ceil(box[2])), max(top + 1, math.ceil(box[3]))


def read_box(
    handles: Handles, layer: RasterLayer, indexes: Sequence[int], box: Box, size: int = TILE_PX
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """values (C, size, size), valid (size, size) of a box of the frame: nearest, of imagery the mean when zoomed out.

    Raises UnreadableError, DataError.
    """
    frame, step = handles.frame, (box[2] - box[0]) / size
    try:
        dataset = handles.on_frame(layer)
        straight = dataset is handles.raw(layer)
        place = frame.box(layer.grid) if straight else _whole_px(frame.box(layer.grid))
        spans = [_span(box[i], step, place[i], place[i + 2], size) for i in (0, 1)]
        (left, right), (top, bottom) = spans
        values = np.zeros((len(indexes), size, size), layer.dtype)
        valid = np.zeros((size, size), bool)
        if right <= left or bottom <= top:
            return values, valid
        source = (dataset.width, dataset.height)
        ends = []
        for axis, (first, last) in enumerate(spans):
            per_px = source[axis] / (place[axis + 2] - place[axis])
            start, stop = ((box[axis] + edge * step - place[axis]) * per_px for edge in (first, last))
            ends.append((max(0.0, start), min(float(source[axis]), stop), last - first))
        part, good = _read(dataset, layer, indexes, ends)
        values[:, top:bottom, left:right], valid[top:bottom, left:right] = part, good
        return values, valid
    except GDAL_ERRORS as error:
        raise UnreadableError(
            f"{layer.name} cannot be read here: {error}", fix="it may be damaged: copy it again from its source"
        ) from error


def _span(start: float, step: float, low: float, high: float, size: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of a tile whose centres lie between low and high."""
    first = max(0, math.ceil((low - start) / step - 0.5 - 1e-9))
    last = min(size, math.ceil((high - start) / step - 0.5 - 1e-9))
    if last <= first and low < start + step * size and high > start:  # less than a pixel, yet it is there
        first = min(size - 1, max(0, math.floor((low - start) / step)))
        last = first + 1
    return first, last


def _read(
    dataset: DatasetReader, layer: RasterLayer, indexes: Sequence[int], ends: Sequence[tuple[float, float, int]]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """ends: of columns and of rows, from and to in px of the dataset, and how many are wanted."""
    (left, right, width), (top, bottom, height) = ends
    zoomed_out = (right - left) > width * 1.001 or (bottom - top) > height * 1.001
    if zoomed_out:
        window = Window(left, top, right - left, bottom - top)
        how = Resampling.average if layer.kind == "image" else Resampling.nearest
        shape = (height, width)
        values = dataset.read(list(indexes), window=window, out_shape=(len(indexes), *shape), resampling=how)
        return values, valid_pixels(values, layer.nodata) & _mask(dataset, window, shape)
    # Every pixel as often as it is seen: exact, and never a mixture of two.
    cols = np.clip((left + (np.arange(width) + 0.5) * (right - left) / width).astype(int), 0, dataset.width - 1)
    rows = np.clip((top + (np.arange(height) + 0.5) * (bottom - top) / height).astype(int), 0, dataset.height - 1)
    window = Window(cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1)
    values = dataset.read(list(indexes), window=window)
    valid = valid_pixels(values, layer.nodata) & _mask(dataset, window, values.shape[1:])
    if values.shape[1:] == (height, width):
        return values, valid
    at = np.ix_(rows - rows[0], cols - cols[0])
    return values[(slice(None), *at)], valid[at]


def _mask(dataset: DatasetReader, window: Window, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | np.bool_:
    """(H, W): where a mask or alpha band says that there is something."""
    if isinstance(dataset, WarpedVRT) and ColorInterp.alpha in dataset.colorinterp:
        # GDAL takes alpha for the mask of some numbers of bands and types alone.
        number = dataset.colorinterp.index(ColorInterp.alpha) + 1
        return np.asarray(dataset.read(number, window=window, out_shape=shape) > 0)
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return np.asarray(dataset.dataset_mask(window=window, out_shape=shape) > 0)
    return np.bool_(True)


def data_tile(handles: Handles, layer: RasterLayer, box: Box, number: int = 0) -> tuple[bytes, bool]:
    """A tile of what a layer means as PNG, and whether it holds anything: indices of classes, or numbers 0 to 254.

    number: of the class, of probabilities.
    """
    if layer.kind in ("classes", "change"):
        values, valid = read_box(handles, layer, layer.indexes[:1], box)
        codes = codes_of(values[0])
        if len(layer.classes) > 254:
            index = np.where(valid, layer.table[codes], NOTHING)
            rgb = np.stack([index >> 8, index & 255, np.zeros_like(index)], -1).astype(np.uint8)
            return png(rgb), bool((index != NOTHING).any())
        small = np.where(valid, layer.byte_table[codes], np.uint8(EMPTY))
        return png(small), bool((small != EMPTY).any())
    if not 0 <= number < len(layer.indexes):
        raise ConfigError(f"{layer.name} has no class {number}", fix=f"give one of 0 to {len(layer.indexes) - 1}")
    values, valid = read_box(handles, layer, [layer.indexes[number]], box)
    grey = np.where(valid, np.rint(scaled(handles, layer, values[0], number)), EMPTY).astype(np.uint8)
    return png(grey), bool(valid.any())


def scaled(handles: Handles, layer: RasterLayer, values: npt.NDArray[Any], number: int) -> npt.NDArray[np.float32]:
    """Numbers of a layer -> 0 at the low end of its ramp to 254 at the high end."""
    assert layer.scale is not None
    shown = in_unit(handles, layer, values, number)
    span = layer.scale.high - layer.scale.low
    with np.errstate(invalid="ignore"):
        grey = np.clip((np.nan_to_num(shown) - layer.scale.low) * (254 / span), 0, 254)
    return np.asarray(grey, np.float32)


def in_unit(handles: Handles, layer: RasterLayer, values: npt.NDArray[Any], number: int) -> npt.NDArray[np.float32]:
    """Values as the file's scale and offset mean them; of probabilities in percent."""
    dataset, index = handles.raw(layer), layer.indexes[number] - 1
    real = values.astype(np.float32) * np.float32(dataset.scales[index]) + np.float32(dataset.offsets[index])
    return real * np.float32(100) if layer.kind == "probabilities" else real


def image_tile(
    handles: Handles, layer: RasterLayer, box: Box, bands: Sequence[str], stretch: int
) -> tuple[bytes, str] | None:
    """A tile of imagery and its type: JPEG where all pixels are valid, PNG with alpha where some are; None: none is.

    Raises ConfigError for bands and stretches that there are not.
    """
    if len(bands) not in (1, 3):
        raise ConfigError(f"a picture has one band or three, not {len(bands)}", fix="bands=red,green,blue")
    for band in bands:
        if band not in layer.bands:
            raise ConfigError(f"{layer.name} has no band {band!r}", fix=suggest(band, layer.bands))
    if stretch not in STRETCHES:
        raise ConfigError(f"there is no stretch {stretch}", fix="known: " + ", ".join(map(str, STRETCHES)))
    once = list(dict.fromkeys(bands))
    values, valid = read_box(handles, layer, [layer.indexes[layer.bands.index(band)] for band in once], box)
    if not valid.any():
        return None
    try:
        limits = [layer.limits(handles.raw(layer), band, stretch) for band in once]
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{layer.name} cannot be read: {error}", fix="copy it again from its source") from error
    grey = [stretched(each, *ends) for each, ends in zip(values, limits, strict=True)]
    picture = [grey[once.index(band)] for band in bands]
    return _jpeg(picture) if valid.all() else (_png_alpha(picture, valid), "image/png")


def stretched(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Black to white between two values."""
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(255 / (high - low))
    np.nan_to_num(scaled, copy=False)
    np.clip(scaled, 0, 255, out=scaled)
    return scaled.astype(np.uint8)


def _jpeg(picture: Sequence[npt.NDArray[np.uint8]]) -> tuple[bytes, str]:
    from PIL import Image

    out = io.BytesIO()
    array = picture[0] if len(picture) == 1 else np.dstack(picture)
    Image.fromarray(array).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue(), "image/jpeg"


def _png_alpha(picture: Sequence[npt.NDArray[np.uint8]], valid: npt.NDArray[np.bool_]) -> bytes:
    colours = list(picture) if len(picture) == 3 else [picture[0]] * 3
    return png(np.dstack([np.where(valid, each, np.uint8(0)) for each in colours] + [valid * np.uint8(255)]))


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """(H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA as a PNG without any chunk that would change its values."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
