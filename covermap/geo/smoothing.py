"""Smoothing of a class map by the pixels around: the majority of classes, or the highest of smoothed probabilities.

Both take whole numbers only, so that a pixel's outcome does not depend on the window it is computed in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE
from covermap.geo.patches import Index

_PEAK = 256
"""The centre's weight in the Gaussian."""


def majority(index: Index, radius: int) -> Index:
    """Class indices (H + 2r, W + 2r) -> (H, W): the most frequent class of the square of 2 r + 1 px around each pixel.

    Ties keep the centre's class if it is among the best, else the lowest index wins. Pixels without a class have no
    vote and stay as they are.
    """
    side = 2 * radius + 1
    shape = index.shape[0] - side + 1, index.shape[1] - side + 1
    centre = index[radius : radius + shape[0], radius : radius + shape[1]]
    best, own = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    winner = np.full(shape, IGNORE, np.uint8)
    for each in np.flatnonzero(np.bincount(index.ravel(), minlength=256)[:IGNORE]):
        votes = _in_square(index == each, side)
        here = centre == each
        own[here] = votes[here]
        better = votes > best
        best[better], winner[better] = votes[better], each
    return np.asarray(np.where((own == best) | (centre == IGNORE), centre, winner))


def _in_square(hit: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.int32]:
    """How many are True in the square of side px that starts at each pixel; (H - side + 1, W - side + 1)."""
    total = hit.astype(np.int32)
    for axis in (1, 0):
        ends = np.moveaxis(np.cumsum(total, axis=axis, dtype=np.int32), axis, 0)
        ends[side:] -= ends[:-side].copy()
        total = np.moveaxis(ends[side - 1 :], 0, axis)
    return total


def most_probable(shares: npt.NDArray[np.uint8], centre: Index, radius: int) -> Index:
    """Shares of each class (K, H + 2r, W + 2r), 0 where unknown, smoothed -> the class of the highest (H, W).

    A Gaussian with a standard deviation of half the radius, cut off at the radius along rows and columns. Ties keep the
    class of `centre` (H, W) if it is among the best, else the lowest index wins; where it is IGNORE it stays so.
    """
    weights = gaussian(radius)
    # 200 is the largest share of a layer, 254 of any.
    kind: Any = np.int32 if 254 * int(weights.sum()) ** 2 < 2**31 else np.int64
    best, own = np.full(centre.shape, -1, kind), np.full(centre.shape, -1, kind)
    winner = np.full(centre.shape, IGNORE, np.uint8)
    for each, share in enumerate(shares):
        smooth = share.astype(kind)
        for axis in (1, 0):
            smooth = _weighted(smooth, weights, axis)
        here = centre == each
        own[here] = smooth[here]
        better = smooth > best
        best[better], winner[better] = smooth[better], each
    return np.asarray(np.where((own == best) | (centre == IGNORE), centre, winner))


def gaussian(radius: int) -> npt.NDArray[np.int64]:
    """Whole weights (2 r + 1,) of a Gaussian with a standard deviation of r / 2."""
    away = np.arange(-radius, radius + 1) / (radius / 2)
    return np.asarray(np.rint(_PEAK * np.exp(-(away**2) / 2)), np.int64)


def _weighted(values: npt.NDArray[Any], weights: npt.NDArray[np.int64], axis: int) -> npt.NDArray[Any]:
    """Sums of values times weights along an axis, where the weights lie wholly inside."""
    size = values.shape[axis] - len(weights) + 1
    lines = np.moveaxis(values, axis, 0)
    total = np.zeros((size, *lines.shape[1:]), values.dtype)
    for start, weight in enumerate(weights.tolist()):
        total += lines[start : start + size] * values.dtype.type(weight)
    return np.moveaxis(total, 0, axis)
