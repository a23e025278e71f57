"""What an event changed, seen without a model: one number for each pixel, the larger the more likely it was hit.

              radar (dB)                                  optical
    flood     drop: open water sends nothing back         rise of MNDWI, or of NDWI where there is no swir1
    landslide change either way                           drop of NDVI: bare ground where plants were
    damage    change either way                           length of the change vector (Malila 1980)

Dates of a side and neighbouring pixels of radar are averaged in power, which is what takes off speckle; of optical
images a side is the median of its clear dates. A change vector counts from the change that most of the scene shows,
in its spread: another sun and season change every pixel, and a bright band more than others.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import BandError, ConfigError, DataError, suggest
from covermap.core.sensors import SENSORS
from covermap.data.indices import INDICES, sources
from covermap.data.scene import Scene, scaling
from covermap.geo.composite import composite
from covermap.geo.grid import Window
from covermap.geo.terrain import terrain

KINDS = ("flood", "landslide", "damage")
OPTICAL = {"flood": ("mndwi", "ndwi"), "landslide": ("ndvi",), "damage": ()}
"""Indices of which the first whose bands are there is taken."""
SLOPES = {"flood": (0.0, 5.0), "landslide": (10.0, 90.0)}
"""Degrees that the ground may have."""
MOST_DB = 200
_PROBE_PX = 256
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EventIndex:
    """The index of a scene whose first `num_before` dates lie before the event, the others after it.

    kind: flood, landslide or damage. looks_px: side of the square of radar pixels that are averaged. With elevation
    (sensor dem) floods lie on slopes up to 5 degrees, landslides on those from 10. Raises ConfigError, BandError.
    """

    scene: Scene
    num_before: int
    kind: str
    looks_px: int = 5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no kind of event {self.kind!r}", fix=suggest(self.kind, KINDS))
        if self.looks_px < 1 or self.looks_px % 2 == 0:
            raise ConfigError(f"a square of {self.looks_px} px has no middle", fix="give an odd number, for example 5")
        others = [name for name in self.scene.rasters if name != "dem"]
        if len(others) != 1:
            raise ConfigError(f"before and after are images of {', '.join(others)}", fix="give images of one sensor")
        if OPTICAL[self.kind] and not self.is_radar and self.index is None:
            wanted = " or ".join(f"{name} ({', '.join(INDICES[name].bands)})" for name in OPTICAL[self.kind])
            raise BandError(
                f"a {self.kind} is seen by {wanted}; the image has {', '.join(self.bands)}",
                fix="name the bands: --bands green,red,nir; or say --sensor sentinel1 if it is radar",
            )

        if self.is_radar:
            self._require_decibel()

    def _require_decibel(self) -> None:
        """Raise BandError where numbers in the middle of the scene are no dB: of land they lie below 0."""
        grid, side = self.scene.grid, 512
        middle = Window((grid.height - side) // 2, (grid.width - side) // 2, side, side).intersect(grid.window)
        sample = self.scene.read(middle)
        seen = sample.image[self.sensor].swapaxes(0, 1)[:, sample.valid]
        if seen.size and (np.median(seen) > 0 or np.abs(seen).max() > MOST_DB):
            name = self.scene.rasters[self.sensor].name
            raise BandError(
                f"{name} holds numbers such as {np.median(seen):.4g}: no backscatter in dB",
                fix="say what they are: --quantity power or amplitude; optical images: --sensor sentinel2",
            )

    @property
    def sensor(self) -> str:
        """The images' sensor."""
        return next(name for name in self.scene.rasters if name != "dem")

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
    def unit(self) -> str:
        """What the numbers are."""
        if self.is_radar:
            return "drop of backscatter, dB" if self.kind == "flood" else "change of backscatter either way, dB"
        if self.index is None:
            return "length of the change vector, in standard deviations of each band's usual change"
        return f"{'drop' if self.index == 'ndvi' else 'rise'} of {self.index.upper()}"

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(H, W), NaN where a side shows nothing, -inf where the slope rules the event out."""
        half = self.looks_px // 2 if self.is_radar else 0
        margin = max(half, 1)  # a pixel for the slope
        sample = self.scene.read(window.pad(margin))
        values, valid = (_inner(x, margin - half) for x in (sample.image[self.sensor], sample.valid))
        side, n = self._decibel if self.is_radar else self._median, self.num_before
        with np.errstate(invalid="ignore"):
            found = self._change(side(values[:n], valid[:n]), side(values[n:], valid[n:]))
        if "dem" in self.scene.rasters and self.kind in SLOPES:
            height, known = (
                _inner(sample.image["dem"][0, 0], margin - 1),
                _inner(np.asarray(sample.valid.any(0)), margin - 1),
            )
            slope = terrain(height.astype(np.float32), known, self.scene.grid, window)["slope"]
            low, high = SLOPES[self.kind]
            found = np.where((slope < low) | (slope > high), np.float32(-np.inf), found)
        return found

    def _change(self, before: Values, after: Values) -> Values:
        """Two sides (C, H, W) -> (H, W)."""
        if self.is_radar:
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
        grid, found = self.scene.grid, []
        rows, cols = (np.linspace(0, max(0, n - _PROBE_PX), 4).astype(int) for n in (grid.height, grid.width))
        for row, col in itertools.product(np.unique(rows).tolist(), np.unique(cols).tolist()):
            sample = self.scene.read(Window(row, col, _PROBE_PX, _PROBE_PX).intersect(grid.window))
            values, n = sample.image[self.sensor], self.num_before
            change = self._median(values[n:], sample.valid[n:]) - self._median(values[:n], sample.valid[:n])
            found.append(change[:, np.isfinite(change).all(0)])
        change = np.concatenate(found, 1)
        if not change.size:
            raise DataError(
                "no pixel is known on both sides of the event", fix="check nodata, clouds and the place of both"
            )
        middle = np.median(change, 1, keepdims=True)
        spread = 1.4826 * np.median(np.abs(change - middle), 1, keepdims=True)
        return middle[..., None], np.where(spread > 0, spread, np.float32(1))[..., None].astype(np.float32)

    def _decibel(self, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Values:
        """(T, C, H + looks - 1, ...) -> (C, H, W): mean power of all dates and of the square around a pixel, in dB."""
        power = np.where(valid[:, None], 10.0 ** (values.astype(np.float64) / 10), 0.0)
        total, count = _square_sums(power.sum(0), self.looks_px), _square_sums(valid.sum(0)[None], self.looks_px)
        shown = _inner(np.asarray(valid.any(0)), self.looks_px // 2)
        mean = np.divide(total, count, out=np.ones_like(total), where=count > 0)
        return np.where(shown, 10 * np.log10(np.maximum(mean, 1e-12)), np.nan).astype(np.float32)

    def _median(self, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]) -> Values:
        """(T, C, H, W) -> (C, H, W) in the image's unit."""
        image = next(image for image in self.scene.images if image.sensor == self.sensor or image.sensor is None)
        scale, offset = scaling(image)
        return composite(values, valid, self.bands, "median") * np.float32(scale) + np.float32(offset)

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
