"""Pairs of classes that two maps hold in the same pixels: how many there are, and how many hectares they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE

Pairs = npt.NDArray[np.uint16]
"""256 times the index in the first map plus the one in the other, (H, W)."""
_BLOCK = 1 << 18  # pixels that stay in the processor's cache


def pairs_of(first: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> Pairs:
    """Class indices (H, W) of two maps -> their pairs."""
    pairs = first.astype(np.uint16)
    pairs <<= 8
    pairs |= other
    return pairs


def count_pairs(
    pairs: Pairs, row_areas_ha: Sequence[float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:  # fmt: skip
    """Pixels and hectares (256, 256): a row for each index of the first map, 255 where it has no class."""
    areas = np.asarray(row_areas_ha)
    alike = bool(areas.min() == areas.max())
    pixels, hectares = np.zeros(1 << 16, np.int64), np.zeros(1 << 16)
    rows = max(1, _BLOCK // max(1, pairs.shape[1]))
    for top in range(0, len(pairs), rows):
        part = pairs[top : top + rows]
        pixels += np.bincount(part.ravel(), minlength=1 << 16)
        if not alike:
            hectares += np.bincount(part.ravel(), np.repeat(areas[top : top + rows], part.shape[1]), 1 << 16)
    if alike:
        hectares = pixels * areas[0]
    return pixels.reshape(256, 256), hectares.reshape(256, 256)


def of_classes(table: npt.NDArray[Any], sizes: Sequence[int]) -> npt.NDArray[Any]:
    """(256, 256) -> (K1 + 1, K2 + 1): rows and columns of classes, the last ones for none."""
    rows, cols = ([*range(size), IGNORE] for size in sizes)
    return np.ascontiguousarray(table[np.ix_(rows, cols)])
