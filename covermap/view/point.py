"""What lies under a click: the values of each layer's own pixel there, not of a tile."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from covermap.core.errors import UnreadableError
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.raster import valid_pixels
from covermap.view.classes import NOTHING, codes_of
from covermap.view.raster_layer import RasterLayer
from covermap.view.tiles import Handles, in_unit

_TOP = 3


def values_at(handles: Handles, layers: Iterable[RasterLayer], x: float, y: float) -> dict[str, Any]:
    """Place and values of a point of the frame (px); None for a layer that holds nothing there."""
    frame = handles.frame
    lon_lat = frame.degrees(x, y)
    place_x, place_y = frame.place(x, y)
    found: dict[str, Any] = {
        "x": place_x, "y": place_y, "lon": lon_lat[0] if lon_lat else None, "lat": lon_lat[1] if lon_lat else None,
    }  # fmt: skip
    shown = list(layers)
    found["versions"] = {layer.id: layer.version for layer in shown}  # by which a page sees that its picture is old
    return found | {"layers": {layer.id: value_at(handles, layer, x, y) for layer in shown}}


def value_at(handles: Handles, layer: RasterLayer, x: float, y: float) -> dict[str, Any] | None:
    """What a layer says of a point; raises UnreadableError."""
    values = _pixel(handles, layer, x, y)
    if values is None:
        return None
    if layer.kind in ("classes", "change"):
        number = int(layer.table[int(codes_of(values[:1])[0])])
        if number == NOTHING:
            return None
        one = layer.classes[number]
        if layer.kind == "change":
            return {"code": one.code, "name": one.name, "from": one.before, "to": one.after, "changed": one.changed}
        return {"code": one.code, "name": one.name}
    if layer.kind == "number":
        return {"value": _plain(in_unit(handles, layer, values[:1], 0)[0])}
    if layer.kind == "probabilities":
        shares = [_plain(in_unit(handles, layer, values[i : i + 1], i)[0]) for i in range(len(values))]
        order = sorted(range(len(shares)), key=lambda i: -(shares[i] or 0.0))[:_TOP]
        return {"top": [{"name": layer.bands[i], "percent": shares[i]} for i in order]}
    known = [bool(valid_pixels(values[i : i + 1, None, None], layer.nodata).all()) for i in range(len(values))]
    return {band: _plain(value) if good else None for band, value, good in zip(layer.bands, values, known, strict=True)}


def _pixel(handles: Handles, layer: RasterLayer, x: float, y: float) -> npt.NDArray[Any] | None:
    """The values (C,) of a pixel, None outside of the layer and where it holds nothing."""
    if not handles.frame.is_straight(layer.grid):
        x, y = math.floor(x) + 0.5, math.floor(y) + 0.5  # what the picture shows of the frame's pixel
    col, row = handles.frame.of_grid(layer.grid, x, y)
    if not (math.isfinite(col) and math.isfinite(row) and 0 <= col < layer.grid.width and 0 <= row < layer.grid.height):
        return None
    window = Window(math.floor(col), math.floor(row), 1, 1)
    try:
        dataset = handles.raw(layer)
        values = dataset.read(list(layer.indexes), window=window)
        masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
        known = not masked or bool(dataset.dataset_mask(window=window).any())
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{layer.name} cannot be read here: {error}", fix="copy it again") from error
    # Imagery is shown where the bands that are drawn hold something, whatever the others do.
    parts = [values[i : i + 1] for i in range(len(values))] if layer.kind == "image" else [values]
    return values[:, 0, 0] if known and any(valid_pixels(part, layer.nodata).all() for part in parts) else None


def _plain(value: Any) -> float | int | None:
    """A number for JSON, with the digits that mean something."""
    if isinstance(value, np.integer):
        return int(value)
    return float(f"{float(value):.6g}") if math.isfinite(float(value)) else None
