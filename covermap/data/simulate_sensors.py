"""What simulated sensors see: randomness that hangs on the position only, spectra, seasons, backscatter, clouds.

Every number is a pure function of a key and of whole pixel or lattice numbers, never of the window it is made in.
Only operations that IEEE 754 rounds exactly (+ - * / floor, table look-ups) touch pixels: vectorised exp, log and sin
may differ in the last bit with the place of an element in its array. Distributions are therefore look-up tables.
"""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]  # float32, all but the metres below
Metres = npt.NDArray[np.floating[Any]]  # float64

WATER, FOREST, GRASS, CROP, BUILT, BARE, ROAD, ORCHARD = range(1, 9)
SUMMER_CROP = 9  # a cover of its own for the sensors; in the legend both crops are cropland
LOOKS = 4.4  # equivalent number of looks of a Sentinel-1 IW GRD product (Sentinel-1 product specification)

RIVER_M = 6500.0  # spacing of rivers
_TABLE = 4096  # entries of a distribution's table: 12 bits, so that one draw of 64 bits gives five numbers


def key_of(*parts: object) -> int:
    """A 64-bit key for a named stream of random numbers; the same in every process."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def _mix(bits: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), in place."""
    bits ^= bits >> 30
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> 27
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> 31
    return bits


def draw(key: int | Bits, *ids: Ints) -> Bits:
    """64 random bits for each combination of key and ids (broadcast against each other)."""
    bits = np.array([key], np.uint64) if isinstance(key, int) else key
    for one in ids:
        bits = _mix(bits + one.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return bits


def uniform(bits: Bits) -> Floats:
    """Numbers in [0, 1) from the upper 24 bits."""
    return (bits >> 40).astype(np.float32) * np.float32(2.0**-24)


@lru_cache(1)
def _normal_table() -> Floats:
    spread = statistics.NormalDist().inv_cdf
    return np.array([spread((i + 0.5) / _TABLE) for i in range(_TABLE)], np.float32)


@lru_cache(4)
def speckle_table(looks: float) -> Floats:
    """4096 equally likely values in dB of multi-look intensity speckle: Gamma(L, mean 1) (Ulaby and Long 2014)."""
    log_x = np.linspace(-14.0, 3.0, 40_000)  # natural log of the intensity
    density = np.exp(looks * (log_x - np.exp(log_x)))
    share = np.cumsum(density)
    quantiles = np.interp((np.arange(_TABLE) + 0.5) / _TABLE, share / share[-1], log_x)
    return np.asarray(quantiles * (10 / np.log(10)), np.float32)


def look_up(table: Floats, bits: Bits, lane: int = 0) -> Floats:
    """Values of a distribution's table; `lane` 0 to 4 gives independent numbers from the same bits."""
    return np.take(table, ((bits >> (12 * lane)) & (_TABLE - 1)).view(np.int64))


def normal(bits: Bits, lane: int = 0) -> Floats:
    """Standard normal numbers (in 4096 steps)."""
    return look_up(_normal_table(), bits, lane)


def _taps(position: Metres) -> tuple[Ints, tuple[Floats, Floats, Floats]]:
    """The nearest node of each position and the weights of a quadratic B-spline on it and its two neighbours."""
    node = np.rint(position)
    t = (position - node).astype(np.float32)
    return node.astype(np.int64), ((0.5 - t) ** 2 / 2, 0.75 - t * t, (0.5 + t) ** 2 / 2)


def smooth(key: int, y: Metres, x: Metres, cell_m: float) -> Floats:
    """A smooth random field at y (H,) by x (W,), in metres: normal, mean 0, variance 1, features of about 2 cells."""
    (i, weights_y), (j, weights_x) = _taps(y / cell_m), _taps(x / cell_m)
    rows, cols = np.arange(i.min() - 1, i.max() + 2), np.arange(j.min() - 1, j.max() + 2)
    nodes = normal(draw(key, rows[:, None], cols[None, :])) * np.float32(1 / 0.55)  # 0.55: what the spline leaves
    i, j = i - rows[0], j - cols[0]
    # Columns first, while there are few rows: gathering whole rows afterwards is five times as fast.
    a, b, c = (weight * nodes[:, j + k] for k, weight in zip((-1, 0, 1), weights_x, strict=True))
    wide = a + b + c
    a, b, c = (weight[:, None] * wide[i + k] for k, weight in zip((-1, 0, 1), weights_y, strict=True))
    a += b
    a += c
    return np.asarray(a)


def fractal(key: int, y: Metres, x: Metres, cell_m: float, *, octaves: int, roughness: float = 0.5) -> Floats:
    """Smooth fields of falling size added up, variance 1; `roughness` is each one's amplitude against the last."""
    total = np.zeros((len(y), len(x)), np.float32)
    norm = sum(roughness ** (2 * n) for n in range(octaves)) ** -0.5
    for n in range(octaves):
        # 0.47: no node of one octave lies on a node of the next. The shift keeps the nodes at zero apart.
        field = smooth(key + n & 2**64 - 1, y + 317.0 * n, x + 553.0 * n, cell_m * 0.47**n)
        field *= np.float32(norm * roughness**n)
        total += field
    return total


def elevation(seed: int, y: Metres, x: Metres) -> Floats:
    """Elevation in metres (H, W): hills of 100 to 500 m that rivers cut valleys into."""
    hills = fractal(key_of(seed, "hills"), y, x, 3300, octaves=6, roughness=0.46)
    valley = 1 / (1 + (river_distance(seed, y, x) * np.float32(1 / 650)) ** 2)
    return np.asarray(90 + (np.maximum(hills, -2.4) * 85 + 230) * (1 - valley * np.float32(0.8)))


def river_distance(seed: int, y: Metres, x: Metres) -> Floats:
    """Metres to the nearest river: lines at equal distances over the whole world, bent at four scales."""
    slant, start = uniform(draw(key_of(seed, "river"), np.arange(2))).tolist()
    line = (y[:, None] + (slant - 0.5) * 1.2 * x).astype(np.float32)
    line += fractal(key_of(seed, "river bend"), y, x, 2600, octaves=4, roughness=0.36) * np.float32(760)
    line = line / np.float32(RIVER_M) + np.float32(start)
    return np.asarray(np.abs(line - np.rint(line)) * np.float32(RIVER_M))


def sunlight(seed: int, y: Metres, x: Metres) -> Floats:
    """Light (H, W) from the north-west on slopes, 1 on level ground, times a slow change of the air over the scene."""
    step = 15.0
    rise = elevation(seed, y + step, x + step) - elevation(seed, y - step, x - step)
    air = smooth(key_of(seed, "air"), y, x, 4000) * np.float32(0.025)
    return np.asarray(np.clip(1 + rise * np.float32(0.4 / step) + air, 0.6, 1.4))


@dataclass(frozen=True)
class Ground:
    """The truth at the crossings of rows and columns, and what gives it texture.

    rows (H,), cols (W,) whole pixels; y (H,), x (W,) metres; codes (H, W); parcel (H, W) random bits that are the
    same all over a parcel; along, across (H, W) metres in the direction of the parcel.
    """

    rows: Ints
    cols: Ints
    y: Metres
    x: Metres
    codes: npt.NDArray[np.uint8]
    parcel: Bits
    along: Floats
    across: Floats


# Reflectance of blue, green, red, nir, swir1, swir2: plausible round numbers, not measurements.
MATERIALS: dict[str, tuple[float, ...]] = {
    "clear water": (0.035, 0.040, 0.025, 0.015, 0.008, 0.005),
    "turbid water": (0.060, 0.085, 0.070, 0.035, 0.015, 0.010),
    "conifers": (0.020, 0.035, 0.025, 0.220, 0.100, 0.045),
    "broadleaves": (0.025, 0.050, 0.030, 0.350, 0.170, 0.075),
    "dry grass": (0.060, 0.090, 0.110, 0.250, 0.280, 0.180),
    "green grass": (0.035, 0.075, 0.050, 0.360, 0.210, 0.110),
    "light soil": (0.080, 0.115, 0.155, 0.240, 0.320, 0.270),
    "dark soil": (0.050, 0.070, 0.095, 0.155, 0.230, 0.190),
    "straw": (0.080, 0.120, 0.155, 0.300, 0.330, 0.220),
    "green crop": (0.030, 0.070, 0.040, 0.420, 0.200, 0.090),
    "red roof": (0.080, 0.100, 0.170, 0.230, 0.260, 0.220),
    "grey roof": (0.150, 0.165, 0.175, 0.205, 0.215, 0.195),
    "asphalt": (0.085, 0.095, 0.105, 0.125, 0.140, 0.130),
    "concrete": (0.130, 0.150, 0.165, 0.200, 0.225, 0.210),
}
NUM_BANDS = 6
CLOUD = (0.62, 0.63, 0.64, 0.68, 0.52, 0.42)
_NAMES = tuple(MATERIALS)
_SPECTRA = np.array(list(MATERIALS.values()), np.float32)
_RED_ROOF, _GREY_ROOF, _ASPHALT, _GREEN_GRASS = (
    _NAMES.index(n) for n in ("red roof", "grey roof", "asphalt", "green grass")
)


class Cover(NamedTuple):
    """How one cover looks: `share` of material b over a, and the spreads of the share and of the brightness.

    The spreads stand for the whole stand (a smooth field), for the parcel and for the pixel. vv, vh in dB.
    """

    a: str
    b: str
    share: float
    share_stand: float
    share_parcel: float
    light_stand: float
    light_parcel: float
    light_pixel: float
    vv: float
    vh: float


# The first line is nowhere on the ground: codes start at 1.
_COVERS = (
    Cover("clear water", "clear water", 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.0, 0.0),
    Cover("clear water", "turbid water", 0.45, 0.25, 0.00, 0.06, 0.00, 0.10, -19.0, -27.0),
    Cover("conifers", "broadleaves", 0.50, 0.35, 0.00, 0.08, 0.00, 0.20, -8.5, -14.0),
    Cover("dry grass", "green grass", 0.60, 0.16, 0.14, 0.08, 0.06, 0.20, -12.0, -19.0),
    Cover("straw", "green crop", 0.20, 0.06, 0.12, 0.04, 0.08, 0.13, -11.5, -18.0),
    Cover("grey roof", "green grass", 0.00, 0.00, 0.00, 0.06, 0.00, 0.18, -5.0, -13.5),
    Cover("dark soil", "light soil", 0.55, 0.12, 0.22, 0.05, 0.07, 0.15, -13.5, -22.0),
    Cover("asphalt", "concrete", 0.35, 0.25, 0.00, 0.06, 0.00, 0.12, -15.0, -23.5),
    Cover("light soil", "broadleaves", 0.50, 0.06, 0.08, 0.05, 0.06, 0.15, -9.5, -15.5),
    Cover("dark soil", "green crop", 0.80, 0.06, 0.12, 0.04, 0.08, 0.13, -10.0, -16.5),
)

# Green share over the year: days, shares. Temperate northern Europe.
_SEASONS: dict[int, tuple[tuple[int, ...], tuple[float, ...]]] = {
    GRASS: ((0, 60, 120, 170, 230, 290, 366), (0.35, 0.40, 0.90, 0.65, 0.50, 0.65, 0.35)),
    CROP: ((0, 60, 125, 165, 195, 205, 270, 366), (0.30, 0.35, 0.95, 0.70, 0.20, 0.10, 0.10, 0.30)),
    SUMMER_CROP: ((0, 130, 185, 235, 275, 290, 366), (0.05, 0.05, 0.75, 0.90, 0.35, 0.05, 0.05)),
    ORCHARD: ((0, 85, 130, 270, 320, 366), (0.20, 0.20, 0.50, 0.50, 0.20, 0.20)),
}
_LEAVES = ((0, 85, 130, 275, 320, 366), (0.05, 0.05, 0.50, 0.50, 0.05, 0.05))
_PARCELLED = (GRASS, CROP, BARE, ORCHARD)
_STRAW_DAYS = (165, 250)  # between ripening and tillage the crop's ground is straw, before and after it is soil


def _covers_of(ground: Ground) -> npt.NDArray[np.int64]:
    """Line of `_COVERS` of each pixel: the class, with cropland split by parcel into winter and summer crops."""
    cover = ground.codes.astype(np.int64)
    cover[(ground.codes == CROP) & (ground.parcel & np.uint64(1) == 1)] = SUMMER_CROP
    return cover


def _column(name: str, factor: float = 1.0) -> Floats:
    return np.array([getattr(cover, name) * factor for cover in _COVERS], np.float32)


def _shares_on(day: int) -> Floats:
    """The usual share of material b of every cover on a day of the year."""
    shares = _column("share")
    for cover, (days, green) in _SEASONS.items():
        shares[cover] = np.interp(day, days, green)
    shares[FOREST] = np.interp(day, *_LEAVES)
    return shares


def _lots(ground: Ground, at: npt.NDArray[np.bool_]) -> Bits:
    """Random bits of the building lots of 26 x 20 m under the chosen pixels."""
    along, across = (np.floor(ground.along[at] / 26), np.floor(ground.across[at] / 20))
    return draw(ground.parcel[at], along.astype(np.int64), across.astype(np.int64))


def _towns(ground: Ground, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], share: Floats) -> None:
    """Streets, roofs and gardens of built-up pixels, into a, b and share."""
    at = ground.codes == BUILT
    street = (ground.along[at] % 130 < 13) | (ground.across[at] % 80 < 12)
    number = uniform(_lots(ground, at))
    a[at] = np.where(street, _ASPHALT, np.where(number < 0.32, _RED_ROOF, _GREY_ROOF))
    b[at] = _GREEN_GRASS
    share[at] = np.where(street, 0.05, np.where(number < 0.62, 0.08, 0.70))


def _tree_rows(ground: Ground, share: Floats) -> None:
    """Rows of trees on soil, 22 to 32 m apart, into the share of leaves of orchards."""
    at = ground.codes == ORCHARD
    spacing = 22 + 10 * uniform(ground.parcel[at])
    across = ground.across[at]
    wave = across / spacing
    row = wave - np.floor(wave) < 0.5
    share[at] += np.where(row, 0.38, -0.38).astype(np.float32)


def reflectance(ground: Ground, *, seed: int, day: int, noise: float) -> Floats:
    """Surface reflectance (6, H, W) of blue, green, red, nir, swir1, swir2 without sensor, light and air."""
    cover = _covers_of(ground)
    stand = fractal(key_of(seed, "stand"), ground.y, ground.x, 260, octaves=3, roughness=0.7)
    pixel = draw(key_of(seed, "pixel", day), ground.rows[:, None], ground.cols[None, :])
    own = draw(ground.parcel, np.array([1]))
    share = np.take(_shares_on(day), cover)
    share += np.take(_column("share_stand", noise), cover) * stand
    share += np.take(_column("share_parcel", noise), cover) * normal(own, 0)

    materials = np.array([(_NAMES.index(one.a), _NAMES.index(one.b)) for one in _COVERS])
    if not _STRAW_DAYS[0] <= day <= _STRAW_DAYS[1]:
        materials[CROP, 0] = _NAMES.index("dark soil")
    a, b = (np.take(column, cover) for column in materials.T)
    _towns(ground, a, b, share)
    _tree_rows(ground, share)
    share = np.clip(share, 0, 1)

    light = 1 + np.take(_column("light_stand", noise), cover) * stand
    light += np.take(_column("light_parcel", noise), cover) * normal(own, 1)
    light += np.take(_column("light_pixel", noise), cover) * normal(pixel)
    light = np.clip(light, 0.3, 2.0)
    tint = np.take(_column("light_parcel", 0.5 * noise), cover)
    out = np.empty((NUM_BANDS, *cover.shape), np.float32)
    more = draw(ground.parcel, np.array([2]))
    for band in range(NUM_BANDS):
        low, high = np.take(_SPECTRA[:, band], a), np.take(_SPECTRA[:, band], b)
        high -= low
        high *= share
        low += high
        low *= light + tint * normal(own if band < 3 else more, 2 + band % 3)
        out[band] = low
    return out


def blur(values: Floats) -> Floats:
    """(C, H + 2, W + 2) -> (C, H, W): the sensor's point spread, which mixes neighbours at every border."""
    side, middle = np.float32(0.16), np.float32(0.68)
    tall = values[:, 1:-1] * middle + (values[:, :-2] + values[:, 2:]) * side
    wide = tall[:, :, 1:-1] * middle + (tall[:, :, :-2] + tall[:, :, 2:]) * side
    return np.asarray(wide)


def tint_region(values: Floats, *, region: str, strength: float) -> None:
    """The gain and offset that a region gives each band, into values (6, H, W); none at strength 0."""
    random = np.random.default_rng(key_of(region, "spectra"))
    sign = random.choice([-1.0, 1.0], NUM_BANDS)
    gain = 1 + strength * sign * random.uniform(0.08, 0.22, NUM_BANDS)
    offset = strength * sign * random.uniform(0.003, 0.012, NUM_BANDS)
    values *= gain.astype(np.float32)[:, None, None]
    values += offset.astype(np.float32)[:, None, None]


def add_sensor_noise(values: Floats, *, key: int, rows: Ints, cols: Ints, noise: float) -> None:
    """Noise of each band of its own, 0.006 plus 5 % of the reflectance, into values (6, H, W)."""
    for half in range(2):
        bits = draw(key_of(key, half), rows[:, None], cols[None, :])
        for lane in range(3):
            band = values[3 * half + lane]
            band += normal(bits, lane) * (band * np.float32(0.05 * noise) + np.float32(0.006 * noise))


def cloud_field(seed: int, date: int, y: Metres, x: Metres) -> Floats:
    """A field (H, W) of variance 1 whose highest places are clouds."""
    return fractal(key_of(seed, "cloud", date), y, x, 1500, octaves=5, roughness=0.55)


@lru_cache(32)
def cloud_threshold(seed: int, date: int, height_m: float, width_m: float, share: float) -> float:
    """The value of the cloud field that `share` of a scene exceeds, from 160 x 160 points of it."""
    middle = (np.arange(160) + 0.5) / 160
    return float(np.quantile(cloud_field(seed, date, middle * height_m, middle * width_m), 1 - share))


def add_clouds(values: Floats, excess: Floats) -> None:
    """Clouds into values (6, H, W) where `excess` (H, W) of the cloud field over its threshold is positive."""
    # A cloud's rim is already bright: the mask is exactly what can be seen.
    alpha = np.where(excess > 0, np.clip(0.4 + excess * 1.5, 0, 0.97), 0).astype(np.float32)
    for band, bright in enumerate(CLOUD):
        values[band] += alpha * (np.float32(bright) - values[band])


def beyond_swath(key: int, down: Metres, across: Metres, share: float) -> npt.NDArray[np.bool_]:
    """(H, W): True beyond the slanted, ragged end of an image on its left or right, `share` of the scene.

    down (H,), across (W,): place in the scene, 0 to 1.
    """
    room = min(share, 1 - share)
    ragged = smooth(key, down, np.zeros(1), 1 / 24)[:, 0] * (0.08 * room)
    edge = share + 2 * room * (down - 0.5) + ragged
    return np.asarray((across if key & 1 else 1 - across)[None, :] < edge[:, None])


def backscatter(ground: Ground, *, seed: int, date: int, day: int, noise: float) -> Floats:
    """VV and VH (2, H, W) in dB with speckle of 4.4 looks; crops shine with the green of the season."""
    cover = _covers_of(ground)
    stand = fractal(key_of(seed, "stand"), ground.y, ground.x, 260, octaves=3, roughness=0.7)
    bits = draw(key_of(seed, "speckle", date), ground.rows[:, None], ground.cols[None, :])
    parcel = normal(draw(ground.parcel, np.array([3])), 0)
    away = _shares_on(day) - _column("share")
    bumpy = stand * np.float32(0.6)
    built = ground.codes == BUILT
    bumpy[built] = normal(_lots(ground, built), 1) * np.float32(2.5)
    bumpy += np.where(np.isin(ground.codes, _PARCELLED), parcel, 0)
    out = np.empty((2, *cover.shape), np.float32)
    for band, name in enumerate(("vv", "vh")):
        level = np.take(_column(name) + away * np.float32(3 + 2 * band), cover)
        out[band] = level + bumpy * np.float32(noise) + look_up(speckle_table(LOOKS), bits, band)
    return out
