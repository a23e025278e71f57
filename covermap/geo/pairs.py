"""Pairs of classes that two maps hold in the same pixels: how many there are, and how many hectares they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import histogram

Keys = npt.NDArray[Any]
"""A number for each pair, (H, W): 8 bits where they suffice, else 16."""
_BLOCK = 1 << 18  # pixels that stay in the processor's cache


@dataclass(frozen=True)
class PairKeys:
    """Numbers of pairs of class indices, a (K2 + 1) + b; K1 and K2 stand for no class. sizes: K1, K2."""

    sizes: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """K1 + 1, K2 + 1."""
        return self.sizes[0] + 1, self.sizes[1] + 1

    def of(self, first: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> Keys:
        """Keys of class indices (H, W) of two maps; IGNORE, and whatever is no class, is none."""
        rows, cols = self.shape
        kind = "uint8" if rows * cols <= 256 else "uint16"
        keys = _capped(first, self.sizes[0]).astype(kind)
        keys *= keys.dtype.type(cols)
        keys += _capped(other, self.sizes[1])
        return keys

    def count(
        self, keys: Keys, row_areas_ha: Sequence[float], where: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Pixels and hectares (K1 + 1, K2 + 1), the last row and column for none; where (H, W): of these alone."""
        areas, size = np.asarray(row_areas_ha), self.shape[0] * self.shape[1]
        if where is not None:
            picked = keys[where]
            weighed = np.bincount(picked, np.repeat(areas, where.sum(1)), size)
            counted = np.bincount(picked, minlength=size).astype(np.int64)
            return counted.reshape(self.shape), weighed.astype(np.float64).reshape(self.shape)
        pixels, hectares = np.zeros(size, np.int64), np.zeros(size)
        alike = bool(areas.min() == areas.max())
        rows = max(1, _BLOCK // max(1, keys.shape[1]))
        for top in range(0, len(keys), rows):
            part = keys[top : top + rows]
            pixels += histogram(part)[:size] if part.dtype == np.uint8 else np.bincount(part.ravel(), minlength=size)
            if not alike:
                hectares += np.bincount(part.ravel(), np.repeat(areas[top : top + rows], part.shape[1]), size)
        if alike:
            hectares = pixels * areas[0]
        return pixels.reshape(self.shape), hectares.reshape(self.shape)


def _capped(index: npt.NDArray[np.uint8], most: int) -> npt.NDArray[np.uint8]:
    """Indices, those above `most` as that; to look for them takes a tenth of the time of numpy's minimum."""
    return index if index.max(initial=0) <= most else np.minimum(index, np.uint8(most))
