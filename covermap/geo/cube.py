"""Arrays in .npz and .npy files as rasters: each layer a band, with the place from a JSON file beside or above it."""

from __future__ import annotations

import json
import re
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import from_bounds

from covermap.core.errors import DataError, UnreadableError

_held: weakref.WeakKeyDictionary[DatasetReader, MemoryFile] = weakref.WeakKeyDictionary()


def open_cube(path: str) -> DatasetReader:
    """`arr_0` (C, H, W) of an .npz file as an open dataset; CRS and bounds from STEM.metadata.json where there is one.

    The array is held in memory. Nothing in the file is unpickled. Raises DataError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = file["arr_0"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UnreadableError(f"{path} is no .npz file with an array arr_0 ({error})", fix="copy it again") from error
    if values.ndim != 3 or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: arr_0 {values.shape} is not layers x rows x columns of numbers", fix="copy it again")
    about = read_metadata(Path(path))
    return _held_in_memory(values, about.get("crs"), about.get("bounds"))


def open_patch_array(path: str) -> DatasetReader:
    """An array of an EOPatch (eo-learn), (T, H, W, C) or (H, W, C), as an open dataset of T * C bands, dates first.

    The place is that of the patch's bbox.geojson. The array is held in memory; nothing is unpickled. Raises DataError.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableError(f"{path} is no .npy file of numbers ({error})", fix="copy it again") from error
    if not isinstance(values, np.ndarray) or values.ndim not in (3, 4) or values.dtype.kind not in "iufb":
        shape = getattr(values, "shape", "")
        raise DataError(f"{path} {shape} is no array (T, H, W, C) or (H, W, C) of numbers", fix="copy it again")
    crs, bounds = read_bbox(Path(path).parent.parent / "bbox.geojson")
    values = np.moveaxis(values, -1, -3)
    return _held_in_memory(values.reshape(-1, *values.shape[-2:]), crs, bounds)


def read_bbox(path: Path) -> tuple[str, tuple[float, float, float, float]]:
    """CRS and bounds (left, bottom, right, top) of an EOPatch's bbox.geojson; raises DataError."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
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


def _held_in_memory(values: npt.NDArray[Any], crs: Any, bounds: Any) -> DatasetReader:
    """Layers (C, H, W) as an open dataset; types that GDAL does not have become others that hold the same numbers."""
    if values.dtype == bool:
        values = values.astype("uint8")
    elif values.dtype in (np.float16, np.int64, np.uint64):
        values = values.astype("float32")
    count, height, width = values.shape
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name,
    }  # fmt: skip
    if crs is not None and bounds is not None:
        profile |= {"crs": crs, "transform": from_bounds(*bounds, width, height)}
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
        found = json.loads(side.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{side} is no JSON ({error})", fix="write it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{side} holds no description of a cube", fix="write it again")
    return found
