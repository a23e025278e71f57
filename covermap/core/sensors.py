"""Sensors and bands by name: one vocabulary of band names, and what each sensor calls them.

Band order is never assumed: a file's bands are named (by its descriptions or by the user), every name is
brought to the common vocabulary (`B02`, `B2`, `blue`, `B1_blue` of Landsat-7 are all `blue`) and looked up.

Wavelengths in nm and GSD in m: ESA Sentinel-2 MSI and USGS Landsat user guides, HLS user guide v2,
CRESDA (Gaofen-2), Planet imagery specification. Common names follow the STAC `eo` extension where it has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from covermap.core.errors import BandError, suggest


@dataclass(frozen=True)
class Band:
    """One band: its common name, the sensor's own name for it, centre wavelength in nm (0: none), GSD in m."""

    name: str
    native: str
    wavelength_nm: float = 0.0
    gsd_m: float = 0.0


@dataclass(frozen=True)
class Sensor:
    """A sensor: its bands in the usual order and the factor from digital number to physical unit."""

    name: str
    title: str
    bands: tuple[Band, ...]
    scale: float = 1.0
    unit: str = "1"

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    def common_name(self, native: str) -> str | None:
        """The common name of one of this sensor's own band names, or None."""
        key = _squeeze(native)
        return next((band.name for band in self.bands if key in (_squeeze(band.native), _squeeze(band.name))), None)


def _bands(*rows: tuple[str, str, float, float]) -> tuple[Band, ...]:
    return tuple(Band(*row) for row in rows)


_S2 = _bands(
    ("coastal", "B01", 443, 60), ("blue", "B02", 490, 10), ("green", "B03", 560, 10), ("red", "B04", 665, 10),
    ("rededge1", "B05", 705, 20), ("rededge2", "B06", 740, 20), ("rededge3", "B07", 783, 20),
    ("nir", "B08", 842, 10), ("nir_narrow", "B8A", 865, 20), ("water_vapour", "B09", 945, 60),
    ("cirrus", "B10", 1375, 60), ("swir1", "B11", 1610, 20), ("swir2", "B12", 2190, 20),
)  # fmt: skip
_TM = _bands(
    ("blue", "B1", 485, 30), ("green", "B2", 560, 30), ("red", "B3", 660, 30), ("nir", "B4", 830, 30),
    ("swir1", "B5", 1650, 30), ("swir2", "B7", 2215, 30),
)  # fmt: skip
_OLI = _bands(
    ("coastal", "B1", 443, 30), ("blue", "B2", 482, 30), ("green", "B3", 561, 30), ("red", "B4", 655, 30),
    ("nir", "B5", 865, 30), ("swir1", "B6", 1609, 30), ("swir2", "B7", 2201, 30),
)  # fmt: skip
_SAR = _bands(("vv", "VV", 0, 10), ("vh", "VH", 0, 10))

SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor("sentinel2", "Sentinel-2 MSI, L1C or L2A", _S2, 1e-4, "reflectance"),
        Sensor("landsat5", "Landsat-5 TM, surface reflectance x 1e4", _TM, 1e-4, "reflectance"),
        Sensor("landsat7", "Landsat-7 ETM+, surface reflectance x 1e4", _TM, 1e-4, "reflectance"),
        Sensor("landsat8", "Landsat-8/9 OLI, surface reflectance x 1e4", _OLI, 1e-4, "reflectance"),
        Sensor(
            "hls",
            "Harmonized Landsat Sentinel-2, the six bands both have",
            _bands(
                ("blue", "BLUE", 490, 30), ("green", "GREEN", 560, 30), ("red", "RED", 665, 30),
                ("nir_narrow", "NIR_NARROW", 865, 30), ("swir1", "SWIR_1", 1610, 30), ("swir2", "SWIR_2", 2190, 30),
            ),
            1e-4,
            "reflectance",
        ),
        Sensor(
            "gaofen2",
            "Gaofen-2 PMS, 8 bit",
            _bands(("blue", "B1", 485, 1), ("green", "B2", 555, 1), ("red", "B3", 660, 1), ("nir", "B4", 830, 1)),
            1 / 255,
            "8-bit brightness",
        ),
        Sensor(
            "planetscope",
            "PlanetScope, surface reflectance x 1e4",
            _bands(("blue", "B1", 485, 3), ("green", "B2", 545, 3), ("red", "B3", 630, 3), ("nir", "B4", 820, 3)),
            1e-4,
            "reflectance",
        ),
        Sensor("sentinel1", "Sentinel-1 GRD or RTC backscatter in dB", _SAR, 1.0, "dB"),
        Sensor(
            "sentinel1_coherence",
            "Sentinel-1 interferometric coherence, by days between both images",
            _bands(*((f"coherence{days}", f"COH{days}", 0, 90) for days in (12, 24, 36, 48))),
            1.0,
            "as in the files",
        ),
        Sensor("sentinel1_pairs", "Sentinel-1 interferograms, bands by pair of dates", (), 1.0, "as in the files"),
        Sensor("attention", "What heads of a transformer look at (covermap attention)", (), 1.0, "1: uniform"),
        Sensor("dem", "Elevation model", _bands(("elevation", "DEM", 0, 30)), 1.0, "m"),
        Sensor(
            "era5",
            "ERA5-Land weather of the month",
            _bands(("temperature_2m", "t2m", 0, 11_000), ("total_precipitation", "tp", 0, 11_000)),
            1.0,
            "K and m",
        ),
        Sensor(
            "rgb",
            "Colour picture, 8 bit",
            _bands(("red", "R", 660, 0), ("green", "G", 560, 0), ("blue", "B", 490, 0)),
            1 / 255,
            "8-bit brightness",
        ),
        Sensor(
            "naip",
            "NAIP or other four-band aerial picture, 8 bit",
            _bands(("red", "R", 660, 1), ("green", "G", 560, 1), ("blue", "B", 490, 1), ("nir", "N", 830, 1)),
            1 / 255,
            "8-bit brightness",
        ),
    )
}  # fmt: skip

# Spellings that mean one band whatever the sensor.
_ALIASES = {
    "coastalaerosol": "coastal", "aerosol": "coastal", "nir1": "nir", "nearinfrared": "nir", "nirbroad": "nir",
    "nir08": "nir_narrow", "nirnarrow": "nir_narrow", "nir8a": "nir_narrow", "nir09": "water_vapour",
    "watervapor": "water_vapour", "swir16": "swir1", "swir22": "swir2", "swir": "swir1",
    "rededge071": "rededge1", "rededge075": "rededge2", "rededge078": "rededge3", "re1": "rededge1",
    "re2": "rededge2", "re3": "rededge3", "dem": "elevation", "height": "elevation", "altitude": "elevation",
}  # fmt: skip
_SENTINEL2_ALONE = {"b8a", "b12"}
_BACKSCATTER = ("vv", "vh", "hh", "hv")
VOCABULARY: tuple[str, ...] = (
    *dict.fromkeys(band.name for sensor in SENSORS.values() for band in sensor.bands),
    *("hh", "hv", "slope", "ndvi"),
)


def find_sensor(name: str) -> Sensor:
    """The sensor called `name`; raises BandError with a suggestion."""
    if name not in SENSORS:
        raise BandError(f"there is no sensor called {name!r}", fix=suggest(name, SENSORS))
    return SENSORS[name]


@lru_cache(4096)
def _squeeze(name: str) -> str:
    """Lower case, letters and digits only, no leading zeros of numbers: `B02`, `b2` and `B_2` become `b2`."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[^a-z0-9]", "", name.lower()))


_BY_KEY = {_squeeze(name): name for name in VOCABULARY} | {_squeeze(name): band for name, band in _ALIASES.items()}


def common_name(name: str, sensor: Sensor | None = None) -> str:
    """Bring a band's name to the vocabulary; a name that is not known stays as it is, in lower case.

    `B1_blue` is read part by part, and only if all parts that mean something mean the same band.
    """

    def look_up(part: str) -> str | None:
        return (sensor.common_name(part) if sensor else None) or _BY_KEY.get(_squeeze(part))

    whole = look_up(name)
    if whole:
        return whole
    meant = {found for part in _parts(name) if (found := look_up(part))}
    return meant.pop() if len(meant) == 1 else name.strip().lower()


def name_bands(names: Iterable[str], *, sensor: Sensor | None, where: str) -> tuple[str, ...]:
    """Common names of a file's bands in file order; raises BandError if two get one name, or they are Sentinel-2's."""
    given = list(names)
    _require_own(given, sensor, where)
    common = tuple(common_name(name, sensor) for name in given)
    double = sorted({name for name in common if common.count(name) > 1})
    if double:
        raise BandError(
            f"{where}: two bands mean {', '.join(double)} (the names given are {', '.join(given)})",
            fix="name each band once, in file order: bands: [blue, green, red, ...]",
        )
    return common


def _require_own(names: Sequence[str], sensor: Sensor | None, where: str) -> None:
    """Raise BandError for numbers that only Sentinel-2 has, where those that others have too would mean other bands."""
    if sensor is None or sensor.common_name("B2") is None or sensor.common_name("B12"):
        return
    if found := [name for name in names if {*map(_squeeze, _parts(name))} & _SENTINEL2_ALONE]:
        raise BandError(
            f"{where} has bands {', '.join(found)}: these are of Sentinel-2, it was to be read as {sensor.title}",
            fix=f"give images of {sensor.name}; if they are, name the bands: {', '.join(sensor.band_names)}",
        )


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\s_\-.:/()]+", name) if part]


def pick_bands(
    available: Sequence[str], wanted: Iterable[str], *, where: str, sensor: Sensor | None = None
) -> list[int]:
    """0-based positions of the wanted bands among the available ones; raises BandError for a missing name."""
    positions = []
    for name in wanted:
        common = common_name(name, sensor)
        if common not in available:
            raise BandError(
                f"{where} has no band {name!r}; it has {', '.join(available)}", fix=suggest(common, available)
            )
        positions.append(list(available).index(common))
    return positions


def band_in_file_name(stem: str, sensor: Sensor | None) -> str:
    """`T32_20200101_B8A_20m` -> the band that one of its parts names; the last such part, else the whole stem."""
    parts = [p for p in re.split(r"[_\-.\s]+", stem) if p]
    for part in reversed(parts):
        if re.fullmatch(r"\d+m?", part):
            continue
        name = common_name(part, sensor)
        if name != part.lower() or (sensor and name in sensor.band_names):
            return part
    return parts[-1] if len(parts) > 1 else stem


def backscatter_bands(sensor: str, bands: Sequence[str]) -> tuple[int, ...]:
    """0-based positions of a sensor's bands that hold radar backscatter in dB."""
    in_db = sensor in SENSORS and SENSORS[sensor].unit == "dB"
    return tuple(i for i, band in enumerate(bands) if in_db and band in _BACKSCATTER)
