"""Where a distribution parts into two groups, found in the places that hold both.

A flood covers a few percent of a scene, which leaves its histogram with one peak. In some of its places it covers half:
those are sought, and the threshold is taken from their pixels alone (split-based thresholding, Martinis et al. 2009,
Nat. Hazards Earth Syst. Sci. 9; the threshold itself: Otsu 1979, IEEE Trans. SMC 9).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError

SEPARATED = 0.75
"""Share of the variance that lies between the groups: a normal distribution cut in its middle has 0.64."""
FEWEST = 0.1
"""Share of a place's pixels that the smaller group has at least."""
FULL = 0.5
"""Share of the fullest place's known pixels that a place has at least: a handful always parts into two groups."""
FAR = 4.0
"""Where no place holds two groups: robust standard deviations above the median."""
BODY = 2.0
"""Robust standard deviations above the median that a cut of a whole scene has at least: with little change it goes
through the pixels that stayed. On 30 generated pairs it lay at 0.3 to 0.7 with up to 2 % of faint change, at 2.2 and
more where change was plain (benchmarks/taizhou.py); of large faint change, at 0.9 to 1.8, less is mapped than could be.
"""
_AT_ONCE = 4096


class Threshold(NamedTuple):
    """A number, and how many places it was taken from: 0 where none holds two groups."""

    value: float
    num_places: int


def two_groups(counts: npt.NDArray[np.integer], edges: npt.NDArray[np.float64]) -> Threshold:
    """The threshold between usual and high values.

    counts: pixels of each place by value (N, B), edges: (B + 1,) of the values, 0 meaning no change. Places count whose
    threshold lies above 0. Raises DataError where nothing was counted.
    """
    if counts.ndim != 2 or counts.shape[1] + 1 != len(edges):
        raise DataError(f"counts {counts.shape} do not go with {len(edges)} edges", fix="give (places, bins)")
    every, known = counts.sum(0, dtype=np.float64), counts.sum(1, dtype=np.int64)
    if not known.any():
        raise DataError(
            "no pixel is known on both sides of the event", fix="check nodata, clouds and the place of both"
        )
    centres = (edges[1:] + edges[:-1]) / 2
    full = np.flatnonzero(known >= max(1, FULL * known.max()))
    pooled, num = np.zeros(len(centres)), 0
    for start in range(0, len(full), _AT_ONCE):
        places = counts[full[start : start + _AT_ONCE]].astype(np.float64)
        cut, separation, upper = otsu(places, centres)
        chosen = (separation >= SEPARATED) & (upper >= FEWEST) & (upper <= 1 - FEWEST) & (edges[cut + 1] > 0)
        pooled, num = pooled + places[chosen].sum(0), num + int(chosen.sum())
    if not num:
        median, spread = _usual(every, edges)
        return Threshold(median + FAR * spread, 0)
    cut, _, _ = otsu(pooled[None], centres)
    return Threshold(float(edges[cut[0] + 1]), num)


def of_all(counts: npt.NDArray[np.integer], edges: npt.NDArray[np.float64], *, beyond_body: bool = True) -> Threshold:
    """Otsu's threshold of all pixels together, which is k-means' between two groups of numbers.

    beyond_body: where it lies less than BODY above the median it is FAR instead, from no place. counts, edges and
    DataError as for two_groups.
    """
    every = counts.sum(0, dtype=np.float64)
    if not every.any():
        raise DataError("no pixel is known on both dates", fix="check nodata, clouds and the place of both")
    cut, _, _ = otsu(every[None], (edges[1:] + edges[:-1]) / 2)
    value, (median, spread) = float(edges[cut[0] + 1]), _usual(every, edges)
    if beyond_body and value < median + BODY * spread:
        return Threshold(median + FAR * spread, 0)
    return Threshold(value, len(counts))


def otsu(
    counts: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Last bin of the lower group (N,), share of the variance between both groups, share of pixels in the upper one."""
    total = counts.sum(1, keepdims=True)
    mean = counts @ centres / total[:, 0]
    variance = counts @ centres**2 / total[:, 0] - mean**2
    lower = counts.cumsum(1) / total
    below = (counts * centres).cumsum(1) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[:, None] * lower - below) ** 2 / (lower * (1 - lower))
    between = np.where(np.isfinite(between), between, 0.0)
    # Of a gap all cuts are as good: its middle.
    best = between.max(1, keepdims=True)
    same = between >= best * (1 - 1e-9)
    first, last = same.argmax(1), same.shape[1] - 1 - same[:, ::-1].argmax(1)
    cut = (first + last) // 2
    share = np.divide(best[:, 0], variance, out=np.zeros(len(best)), where=variance > 0)
    return cut, share, 1 - lower[np.arange(len(cut)), cut]


def _usual(counts: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median and robust standard deviation."""
    median = _quantile(counts, edges, 0.5)
    away = _folded(counts, (edges[1:] + edges[:-1]) / 2, median, edges)
    return median, max(1.4826 * _quantile(away, edges - edges[0], 0.5), float(edges[1] - edges[0]))


def _quantile(counts: npt.NDArray[np.float64], edges: npt.NDArray[np.float64], share: float) -> float:
    below = np.concatenate([[0], counts.cumsum()]) / counts.sum()
    return float(np.interp(share, below, edges))


def _folded(
    counts: npt.NDArray[np.float64], centres: npt.NDArray[np.float64], middle: float, edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Counts by distance from the middle, in bins from 0."""
    return np.histogram(np.abs(centres - middle), edges - edges[0], weights=counts)[0].astype(np.float64)
