"""Arrays in .npz files as rasters: each layer a band, with the place from a JSON file beside it."""

from __future__ import annotations

import json
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import from_bounds

from covermap.core.errors import DataError

_held: weakref.WeakKeyDictionary[DatasetReader, MemoryFile] = weakref.WeakKeyDictionary()


def open_cube(path: str) -> DatasetReader:
    """`arr_0` (C, H, W) of an .npz file as an open dataset; CRS and bounds from STEM.metadata.json where there is one.

    The array is held in memory. Nothing in the file is unpickled. Raises DataError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = file["arr_0"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no .npz file with an array arr_0 ({error})", fix="copy it again") from error
    if values.ndim != 3 or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: arr_0 {values.shape} is not layers x rows x columns of numbers", fix="copy it again")
    values = values.astype("float32") if values.dtype in (np.float16, np.int64, np.uint64) else values
    count, height, width = values.shape
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name,
    }  # fmt: skip
    about = read_metadata(Path(path))
    if "bounds" in about and "crs" in about:
        profile |= {"crs": about["crs"], "transform": from_bounds(*about["bounds"], width, height)}
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
