"""Numbers of embedding rasters: AlphaEarth's 8-bit codes, TESSERA's codes with a scale, and unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NODATA = -128
"""Of 8-bit codes, in all bands; floats have NaN."""
DTYPES = ("int8", "float16", "float32")
Floats = npt.NDArray[np.float32]


def quantise(values: Floats) -> npt.NDArray[np.int8]:
    """Numbers from -1 to 1 -> codes q from -127 to 127, value = sign(q) (|q| / 127.5)^2; NaN becomes NODATA."""
    known = np.isfinite(values)
    codes = np.rint(127.5 * np.sqrt(np.abs(np.where(known, values, 0))))
    codes = np.copysign(np.minimum(codes, 127), values)
    return np.where(known, codes, NODATA).astype(np.int8)


def dequantise(codes: npt.NDArray[np.int8]) -> Floats:
    """The numbers of codes; NaN where they are NODATA."""
    return _VALUES[codes.view(np.uint8)]


def _table() -> Floats:
    """(256,) numbers by the byte of a code."""
    codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    values = np.sign(codes) * (codes / 127.5) ** 2
    return np.where(codes == NODATA, np.nan, values).astype(np.float32)


_VALUES = _table()


def with_scale(values: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Vectors (D, H, W) -> codes (D, H, W) from -127 to 127 and scales (H, W), value = code * scale; NaN: scale NaN."""
    scale = np.abs(values).max(0) / np.float32(127)
    codes = np.rint(np.nan_to_num(values / np.where(scale > 0, scale, 1)))
    return codes.astype(np.int8), scale


def encode(values: Floats, dtype: str) -> npt.NDArray[Any]:
    """Unit vectors as they are stored: codes, or float32, which holds what is left of float16."""
    if dtype == "int8":
        return quantise(values)
    return values.astype(np.float16).astype(np.float32) if dtype == "float16" else values.astype(np.float32)


def decode(stored: npt.NDArray[Any], nodata: float | None = None) -> Floats:
    """What a band holds, by its type: 8-bit codes are AlphaEarth's, other numbers stand for themselves."""
    if stored.dtype == np.int8:
        return dequantise(stored)
    values = stored.astype(np.float32)
    return values if nodata is None or np.isnan(nodata) else np.where(values == nodata, np.float32(np.nan), values)


def unit(values: Floats, axis: int = 0) -> Floats:
    """Vectors along an axis brought to length 1; those of length 0 and NaN stay."""
    length = np.sqrt(np.einsum("i...,i...->...", *(np.moveaxis(values, axis, 0),) * 2, dtype=np.float64))
    return np.asarray(values / np.expand_dims(np.where(length > 0, length, 1), axis), np.float32)


def halved(values: Floats) -> Floats:
    """Unit vectors (D, 2 h, 2 w) -> (D, h, w): means of those that are known, brought to length 1 again."""
    bands, height, width = values.shape
    odd = ((0, 0), (0, height % 2), (0, width % 2))
    four = np.pad(values, odd, constant_values=np.nan)
    four = four.reshape(bands, (height + 1) // 2, 2, (width + 1) // 2, 2)
    known = np.isfinite(four).all(0)
    total = np.where(known, four, 0).sum((2, 4), dtype=np.float32)
    there = np.logical_or.reduce(known, axis=(1, 3))
    return np.where(there, unit(total), np.float32(np.nan))
