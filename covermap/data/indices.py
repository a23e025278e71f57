"""Spectral indices by the names of bands, in reflectance: channels beside the bands that they are made of.

A sensor's channels share one scale and offset, so an index is kept as the file number that stands for its value:
value = number * scale + offset, as for every band. NDVI of a Sentinel-2 image thus lies between -1e4 and 1e4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from covermap.core.config import ImageConfig
from covermap.core.errors import BandError
from covermap.core.sensors import SENSORS

Bands = npt.NDArray[np.float32]
_DARK = 1e-8
"""A denominator up to this is no signal, only rounding."""


@dataclass(frozen=True)
class Index:
    """An index: the bands that its formula takes in order, and whether it needs reflectance and not just a ratio."""

    title: str
    bands: tuple[str, ...]
    formula: Callable[..., tuple[Bands, Bands]]
    absolute: bool = False


def _difference(first: Bands, second: Bands) -> tuple[Bands, Bands]:
    return first - second, first + second


def _evi(nir: Bands, red: Bands, blue: Bands) -> tuple[Bands, Bands]:
    return np.float32(2.5) * (nir - red), nir + 6 * red - np.float32(7.5) * blue + 1


def _bsi(swir: Bands, red: Bands, nir: Bands, blue: Bands) -> tuple[Bands, Bands]:
    return _difference(swir + red, nir + blue)


INDICES: dict[str, Index] = {
    "ndvi": Index("vegetation (Rouse et al. 1974)", ("nir", "red"), _difference),
    "ndbi": Index("built-up area (Zha et al. 2003)", ("swir1", "nir"), _difference),
    "ndwi": Index("open water (McFeeters 1996)", ("green", "nir"), _difference),
    "mndwi": Index("open water beside built-up area (Xu 2006)", ("green", "swir1"), _difference),
    "evi": Index("dense vegetation (Huete et al. 2002)", ("nir", "red", "blue"), _evi, absolute=True),
    "bsi": Index("bare soil (Rikimaru et al. 2002)", ("swir1", "red", "nir", "blue"), _bsi),
}
"""Each formula gives numerator and denominator; values are cut to -1 and 1, and 0 where no denominator is above 0."""


def sources(index: str, available: Sequence[str]) -> tuple[str, ...] | None:
    """The bands among those available that an index is made of, in the formula's order; None where one is missing.

    The narrow near infrared, which is all that HLS has, serves where the broad one is missing.
    """
    if index not in INDICES:  # of a model that a newer version wrote
        return None
    found = tuple("nir_narrow" if band == "nir" and "nir" not in available else band for band in INDICES[index].bands)
    return found if set(found) <= set(available) else None


def reach(available: Sequence[str], indices: Sequence[str]) -> tuple[str, ...]:
    """Bands that are there, and those of the indices that can be made of them."""
    return (*(b for b in available if b not in indices), *(i for i in indices if sources(i, available) is not None))


def made_of(indices: Sequence[str]) -> str:
    """What indices are made of, as the end of a sentence."""
    return "".join(f" ({i} is made of {', '.join(INDICES[i].bands)})" for i in indices if i in INDICES)


def choose(indices: Sequence[str], image: ImageConfig, available: Sequence[str]) -> tuple[str, ...]:
    """Those of the indices that an image's bands and unit allow."""
    unit = SENSORS[image.sensor].unit if image.sensor else None
    physical = unit == "reflectance" or image.scale is not None
    return tuple(
        i for i in dict.fromkeys(indices) if sources(i, available) is not None and (physical or not INDICES[i].absolute)
    )


def refuse(index: str, available: Mapping[str, Sequence[str]]) -> NoReturn:
    """Say why none of the sensors, {name: bands}, gives an index; raises BandError."""
    wanted = INDICES[index].bands
    listed = "; ".join(f"{name} has {', '.join(bands)}" for name, bands in available.items())
    if any(sources(index, bands) is not None for bands in available.values()):
        raise BandError(
            f"{index} is made of reflectance, and the image's unit is another or not known ({listed})",
            fix="name the sensor, or the scale from file number to reflectance (scale: 0.0001)",
        )
    near = max(available.values(), key=lambda bands: len(set(wanted) & set(bands)))
    raise BandError(
        f"{index} is made of {', '.join(wanted)}, and there is no "
        f"{', '.join(band for band in wanted if band not in near)} ({listed})",
        fix="give an image with these bands, or leave the index out of data.indices",
    )


@dataclass(frozen=True)
class Channels:
    """What a sensor gives: bands of its files and indices made of them, by name and in order.

    scale, offset: value = number * scale + offset, of all channels.
    """

    names: tuple[str, ...]
    indices: tuple[str, ...]
    scale: float
    offset: float

    @property
    def bands(self) -> tuple[str, ...]:
        """The channels that come from the files as they are."""
        return tuple(name for name in self.names if name not in self.indices)

    def to_read(self, available: Sequence[str]) -> tuple[str, ...]:
        """All bands to read: the channels' own, and further ones that indices are made of."""
        needed = [band for index in self.indices for band in sources(index, available) or ()]
        return tuple(dict.fromkeys([*self.bands, *needed]))

    def of(self, numbers: npt.NDArray[np.generic], bands: Sequence[str]) -> npt.NDArray[np.float32]:
        """Numbers (T, C, H, W) of the bands read -> (T, len(names), H, W) float32."""
        at = {band: numbers[:, i].astype(np.float32) for i, band in enumerate(bands)}
        out = np.empty((len(numbers), len(self.names), *numbers.shape[2:]), np.float32)
        for i, name in enumerate(self.names):
            out[:, i] = self._number_of(name, at) if name in self.indices else at[name]
        return out

    def _number_of(self, index: str, at: dict[str, Bands]) -> Bands:
        scale, offset = np.float32(self.scale), np.float32(self.offset)
        chosen = sources(index, list(at))
        assert chosen is not None
        # Pixels that are not valid may hold anything.
        with np.errstate(all="ignore"):
            over, under = INDICES[index].formula(*(at[band] * scale + offset for band in chosen))
            value = np.where(under > _DARK, over / under, np.float32(0))
            number: Bands = (np.clip(value, -1, 1) - offset) / scale
        return number
