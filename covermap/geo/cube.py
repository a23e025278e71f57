"""Arrays in .npz and .npy files as rasters: each layer a band, with the place from a JSON file beside or above it."""

from __future__ import annotations

import math
import re
import struct
import tokenize
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as formats
from rasterio.crs import CRS
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import from_bounds

from covermap.core.errors import DataError, UnreadableError
from covermap.core.parsing import parse_json
from covermap.geo.damage import BROKEN_ARCHIVE, GDAL_ERRORS

BROKEN_ARRAY = (
    *BROKEN_ARCHIVE, TypeError, AttributeError, SyntaxError, ArithmeticError, struct.error, tokenize.TokenError
)  # fmt: skip
"""What numpy and zipfile let through of damaged files: the head of an array is read as Python is."""
_held: weakref.WeakKeyDictionary[DatasetReader, MemoryFile] = weakref.WeakKeyDictionary()


def open_cube(path: str) -> DatasetReader:
    """`arr_0` (C, H, W) of an .npz file as an open dataset; CRS and bounds from STEM.metadata.json where there is one.

    The array is held in memory. Nothing in the file is unpickled. Raises DataError.
    """
    try:
        _require_as_long_as_told(path, "arr_0.npy")
        with np.load(path, allow_pickle=False) as file:
            values = file["arr_0"]
    except BROKEN_ARRAY as error:
        raise UnreadableError(f"{path} is no .npz file with an array arr_0 ({error})", fix="copy it again") from error
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: arr_0 {values.shape} is not layers x rows x columns of numbers", fix="copy it again")
    about = read_metadata(Path(path))
    return _held_in_memory(values, about.get("crs"), about.get("bounds"), path)


def _require_as_long_as_told(path: str, name: str) -> None:
    """Raise ValueError where the head of an array in a zip tells of more numbers than there are bytes."""
    with zipfile.ZipFile(path) as pack, pack.open(name) as member:
        read_head = {1: formats.read_array_header_1_0, 2: formats.read_array_header_2_0}
        shape, _, dtype = read_head[formats.read_magic(member)[0]](member)
        if math.prod(shape) * dtype.itemsize > pack.getinfo(name).file_size:
            raise ValueError(f"it is too short for {shape} {dtype}")


def open_patch_array(path: str) -> DatasetReader:
    """An array of an EOPatch (eo-learn), (T, H, W, C) or (H, W, C), as an open dataset of T * C bands, dates first.

    The place is that of the patch's bbox.geojson. The array is held in memory; nothing is unpickled. Raises DataError.
    """
    try:
        with np.errstate(over="raise"):
            values = np.load(path, allow_pickle=False, mmap_mode="r")  # a head that tells of too much takes no memory
    except BROKEN_ARRAY as error:
        raise UnreadableError(f"{path} is no .npy file of numbers ({error})", fix="copy it again") from error
    if not isinstance(values, np.ndarray) or values.ndim not in (3, 4) or values.dtype.kind not in "iufb":
        shape = getattr(values, "shape", "")
        raise DataError(f"{path} {shape} is no array (T, H, W, C) or (H, W, C) of numbers", fix="copy it again")
    crs, bounds = read_bbox(Path(path).parent.parent / "bbox.geojson")
    values = np.moveaxis(values, -1, -3)
    if not values.size:
        raise DataError(f"{path} {values.shape} holds nothing", fix="copy it again")
    return _held_in_memory(values.reshape(-1, *values.shape[-2:]), crs, bounds, path)


def read_bbox(path: Path) -> tuple[str, tuple[float, float, float, float]]:
    """CRS and bounds (left, bottom, right, top) of an EOPatch's bbox.geojson; raises DataError."""
    try:
        about = parse_json(path.read_text(encoding="utf-8"))
        code = re.search(r"EPSG:+(\d+)$", about["crs"]["properties"]["name"])
        (ring,) = about["coordinates"]
        xs, ys = zip(*((float(x), float(y)) for x, y in ring), strict=True)
        if code is None:
            raise ValueError("no EPSG code")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} does not say where the patch lies ({error})", fix="a polygon with its crs, as eo-learn writes it"
        ) from error
    return f"EPSG:{code[1]}", (min(xs), min(ys), max(xs), max(ys))


def _held_in_memory(values: npt.NDArray[Any], crs: Any, bounds: Any, path: str) -> DatasetReader:
    """Layers (C, H, W) as an open dataset; types that GDAL does not have become others that hold the same numbers.

    Raises DataError for a type without such another, and for a place that is none.
    """
    if values.dtype == bool:
        values = values.astype("uint8")
    elif values.dtype.kind == "f" and values.dtype.itemsize == 2:
        values = values.astype("float32")
    elif values.dtype.itemsize > 8:
        raise DataError(f"{path} holds {values.dtype.name}, which no raster does", fix="write it again as float64")
    count, height, width = values.shape
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name,
    }  # fmt: skip
    if crs is not None and bounds is not None:
        try:
            left, bottom, right, top = (float(bound) for bound in bounds)
            if not (left < right and bottom < top and math.isfinite(right - left) and math.isfinite(top - bottom)):
                raise ValueError("bounds are left, bottom, right, top")
            place = from_bounds(left, bottom, right, top, width, height)
            profile |= {"crs": CRS.from_user_input(crs), "transform": place}
        except (*GDAL_ERRORS, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"what lies beside {path} tells no place ({error})", fix="write it again") from error
    memory = MemoryFile()
    with memory.open(**profile) as target:
        target.write(values)
    dataset = memory.open()
    _held[dataset] = memory  # the bytes live as long as the dataset
    return dataset


def read_metadata(path: Path) -> dict[str, Any]:
    """What STEM.metadata.json says of a cube: variables, bounds, crs; nothing without one. Raises DataError."""
    side = path.with_name(path.stem + ".metadata.json")
    if not side.is_file():
        return {}
    try:
        found = parse_json(side.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{side} is no JSON ({error})", fix="write it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{side} holds no description of a cube", fix="write it again")
    return found
