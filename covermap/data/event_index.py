"""What an event changed, seen without a model: one number for each pixel, the larger the more likely it was hit.

              radar (dB)                                  optical
    flood     drop: open water sends nothing back         rise of MNDWI, or of NDWI where there is no swir1
    landslide change either way                           drop of NDVI: bare ground where plants were
    damage    change either way                           length of the change vector (Malila 1980)
    change    all bands together, either way, by a method: cva (the change vector), mad, irmad (ml.mad)

Dates of a side and neighbouring pixels of radar are averaged in power, which is what takes off speckle; of optical
images a side is the median of its clear dates. A change vector counts from the change that most of the scene shows,
in its spread: another sun and season change every pixel, and a bright band more than others. MAD learns from up to
MOST_BLOCKS blocks drawn over the scene, all of it up to a million pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import BandError, ConfigError, DataError, suggest
from covermap.core.sensors import SENSORS
from covermap.core.types import Sample
from covermap.data.indices import INDICES, sources
from covermap.data.scene import Scene, scaling
from covermap.geo.band_source import LOWEST_DB
from covermap.geo.composite import composite
from covermap.geo.grid import Window, partition, spread
from covermap.geo.raster import Raster
from covermap.geo.terrain import require_terrain, terrain
from covermap.ml.mad import Mad

KINDS = ("flood", "landslide", "damage", "change")
METHODS = ("irmad", "mad", "cva")
"""Of the kind change; the first is the default."""
OPTICAL = {"flood": ("mndwi", "ndwi"), "landslide": ("ndvi",), "damage": (), "change": ()}
"""Indices of which the first whose bands are there is taken."""
SLOPES = {"flood": (0.0, 5.0), "landslide": (10.0, 90.0)}
"""Degrees that the ground may have."""
MOST_DB = 200
_PROBE_PX = 256
BLOCK_PX, MOST_BLOCKS = 128, 64
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EventIndex:
    """The index of a scene of one sensor whose first `num_before` dates lie before the event, the others after it.

    kind: flood, landslide, damage, or change, which has a method. looks_px: side of the square of radar pixels that are
    averaged. dem: elevation on the scene's grid, by which floods lie on slopes up to 5 degrees, landslides on those
    from 10. Raises ConfigError, BandError, GridError (slopes of a turned grid).
    """

    scene: Scene
    num_before: int
    kind: str
    looks_px: int = 5
    dem: Raster | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no kind of event {self.kind!r}", fix=suggest(self.kind, KINDS))
        if self.method is not None and (self.kind != "change" or self.method not in METHODS):
            raise ConfigError(
                f"there is no index {self.method!r} of {self.kind}",
                fix=suggest(self.method, METHODS) if self.kind == "change" else "an index is of --kind change",
            )
        if self.looks_px < 1 or self.looks_px % 2 == 0:
            raise ConfigError(f"a square of {self.looks_px} px has no middle", fix="give an odd number, for example 5")
        if len(self.scene.rasters) != 1:
            listed = ", ".join(self.scene.rasters)
            raise ConfigError(f"before and after are images of {listed}", fix="give images of one sensor")
        if self.dem is not None:
            if self.kind not in SLOPES:
                raise ConfigError(f"no slope rules out {self.kind}: a dem has no effect", fix="leave it out")
            require_terrain(["slope"], self.scene.grid)
        if OPTICAL[self.kind] and not self.is_radar and self.index is None:
            wanted = " or ".join(f"{name} ({', '.join(INDICES[name].bands)})" for name in OPTICAL[self.kind])
            raise BandError(
                f"a {self.kind} is seen by {wanted}; the image has {', '.join(self.bands)}",
                fix="name the bands: --bands green,red,nir; or say --sensor sentinel1 if it is radar",
            )
        if self.is_radar:
            self._require_decibel()

    def _require_decibel(self) -> None:
        """Raise BandError where numbers, in windows spread over the scene, are no dB: of land they lie below 0."""
        shown = ((self._physical(sample.image[self.sensor]), sample.valid) for sample in self._probes())
        seen = np.concatenate([values.swapaxes(0, 1)[:, valid].ravel() for values, valid in shown])
        if seen.size and (np.median(seen) > 0 or np.abs(seen).max() > MOST_DB):
            name = self.scene.rasters[self.sensor].name
            raise BandError(
                f"{name} holds numbers such as {np.median(seen):.4g}: no backscatter in dB",
                fix="say what they are: --quantity power or amplitude; optical images: --sensor sentinel2",
            )

    @property
    def sensor(self) -> str:
        """The images' sensor."""
        return next(iter(self.scene.rasters))

    @property
    def bands(self) -> tuple[str, ...]:
        """The images' bands."""
        return self.scene.bands[self.sensor]

    @property
    def is_radar(self) -> bool:
        """Whether numbers are dB."""
        return self.sensor in SENSORS and SENSORS[self.sensor].unit == "dB"

    @property
    def index(self) -> str | None:
        """The spectral index of an optical image, None for the change vector."""
        return next((name for name in OPTICAL[self.kind] if sources(name, self.bands)), None)

    @property
    def how(self) -> str | None:
        """The method of the kind change."""
        return self.method or METHODS[0] if self.kind == "change" else None

    @property
    def unit(self) -> str:
        """What the numbers are."""
        if self.how in ("mad", "irmad"):
            return (
                f"length of the {self.how.upper().replace('IR', 'IR-')} variates, in standard deviations of no change"
            )
        if self.is_radar and not self.how:
            return "drop of backscatter, dB" if self.kind == "flood" else "change of backscatter either way, dB"
        if self.index is None:
            return "length of the change vector, in standard deviations of each band's usual change"
        return f"{'drop' if self.index == 'ndvi' else 'rise'} of {self.index.upper()}"

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(H, W), NaN where a side or the elevation shows nothing, -inf where the slope rules the event out."""
        with np.errstate(invalid="ignore"):
            found = self._change(*self._sides(window))
        if self.dem is None:
            return found
        slope, (low, high) = self._slope(window), SLOPES[self.kind]
        found = np.where((slope < low) | (slope > high), np.where(np.isnan(found), found, np.float32(-np.inf)), found)
        return np.where(np.isnan(slope), np.float32(np.nan), found)

    def _sides(self, window: Window) -> tuple[Values, Values]:
        """Both sides (C, H, W), NaN where one shows nothing."""
        sample = self.scene.read(window.pad(self.looks_px // 2 if self.is_radar else 0))
        values, valid, n = sample.image[self.sensor], sample.valid, self.num_before
        side = self._decibel if self.is_radar else self._median
        return side(values[:n], valid[:n]), side(values[n:], valid[n:])

    def _slope(self, window: Window) -> Values:
        """(H, W) in degrees, NaN where elevation is not known; at the border as if the last row went on."""
        assert self.dem is not None
        height, known = self.dem.read(window.pad(1))
        z, seen = height[0, 0].astype(np.float32), known[0].copy()
        for turn in range(4):  # each side in turn is the first row
            edge, there = np.rot90(z, turn), np.rot90(seen, turn)
            if not there[0].any():
                edge[0], there[0] = edge[1], there[1]
        return terrain(z, seen, self.scene.grid, window)["slope"]

    def _physical(self, values: npt.NDArray[Any]) -> Values:
        """File numbers in the image's unit."""
        scale, offset = scaling(self.scene.images[0])
        return np.asarray(values.astype(np.float32) * np.float32(scale) + np.float32(offset))

    def _probes(self) -> Iterator[Sample]:
        """What is seen in windows spread over the scene."""
        return map(self.scene.read, spread(self.scene.grid, _PROBE_PX))

    def _change(self, before: Values, after: Values) -> Values:
        """Two sides (C, H, W) -> (H, W)."""
        if self.how in ("mad", "irmad"):
            return self.mad.statistic(before, after).astype(np.float32)
        if self.is_radar and not self.how:
            drop: Values = (before - after).mean(0)
            return drop if self.kind == "flood" else np.abs(drop)
        if self.index is None:
            middle, spread = self._usual
            length: Values = np.sqrt((((after - before - middle) / spread) ** 2).mean(0))
            return length
        rise = self._spectral(after) - self._spectral(before)
        return -rise if self.index == "ndvi" else rise

    @cached_property
    def _usual(self) -> tuple[Values, Values]:
        """Median and robust standard deviation of each band's change, (C, 1, 1), in windows spread over the scene."""
        found = []
        for window in spread(self.scene.grid, _PROBE_PX):
            before, after = self._sides(window)
            change = after - before
            found.append(change[:, np.isfinite(change).all(0)])
        change = np.concatenate(found, 1)
        if not change.size:
            raise DataError(
                "no pixel is known on both sides of the event", fix="check nodata, clouds and the place of both"
            )
        middle = np.median(change, 1, keepdims=True)
        usual = 1.4826 * np.median(np.abs(change - middle), 1, keepdims=True)
        return middle[..., None], np.where(usual > 0, usual, np.float32(1))[..., None].astype(np.float32)

    @cached_property
    def mad(self) -> Mad:
        """Fitted to what both sides show in blocks of the scene, drawn with equal chances where there are many."""
        blocks = list(partition(self.scene.grid.window, BLOCK_PX, BLOCK_PX))
        chosen = np.random.default_rng(0).permutation(len(blocks))[:MOST_BLOCKS]
        known = []
        for number in np.sort(chosen).tolist():
            pair = self._sides(blocks[number])
            seen = np.isfinite(pair[0]).all(0) & np.isfinite(pair[1]).all(0)
            known.append((pair[0][:, seen], pair[1][:, seen]))
        return Mad.fit(lambda: known, reweighted=self.how == "irmad")

    def _decibel(self, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Values:
        """(T, C, H + looks - 1, ...) -> (C, H, W): mean power of all dates and of the square around a pixel, in dB."""
        decibel = np.where(valid[:, None], self._physical(values), np.float32(0)).astype(np.float64)
        valid = valid & ~(decibel <= LOWEST_DB).all(1)  # 0 in all bands: nothing was seen
        power = np.where(valid[:, None], 10.0 ** (decibel / 10), 0.0)
        total, count = _square_sums(power.sum(0), self.looks_px), _square_sums(valid.sum(0)[None], self.looks_px)
        shown = _inner(np.asarray(valid.any(0)), self.looks_px // 2)
        mean = np.divide(total, count, out=np.ones_like(total), where=count > 0)
        return np.where(shown, 10 * np.log10(np.maximum(mean, 1e-12)), np.nan).astype(np.float32)

    def _median(self, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Values:
        """(T, C, H, W) -> (C, H, W) in the image's unit."""
        return self._physical(composite(values, valid, self.bands, "median"))

    def _spectral(self, values: Values) -> Values:
        assert self.index is not None
        chosen = sources(self.index, self.bands)
        assert chosen is not None
        over, under = INDICES[self.index].formula(*(values[self.bands.index(band)] for band in chosen))
        ratio = np.divide(over, under, out=np.zeros_like(over), where=~(np.abs(under) <= 1e-8))
        return np.clip(ratio, -1, 1)


def _inner(x: npt.NDArray[Any], px: int) -> npt.NDArray[Any]:
    """Without px on every side of the last two axes."""
    return x[..., px : x.shape[-2] - px, px : x.shape[-1] - px]


def _square_sums(values: npt.NDArray[np.number], side: int) -> npt.NDArray[np.float64]:
    """(C, H, W) -> (C, H - side + 1, W - side + 1): sums over squares."""
    found = values.astype(np.float64)
    for axis in (1, 2):
        count = found.shape[axis] - side + 1
        found = np.sum([found.take(range(i, i + count), axis) for i in range(side)], axis=0)
    return np.asarray(found)
