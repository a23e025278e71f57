"""Generated floods and landslides with exactly known truth: radar (and optical) before and after, terrain, labels.

    recipe -> world -> ground before -> what the event hit -> power of each date
                                     -> parcels worked on, wetness, wind: what changes without an event

The land is that of data/simulate.py with a relief that suits the event, flat for floods, steep for landslides. All is a
pure function of seed and position; nothing is kept, and any window holds the same values whatever blocks it is read in.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from covermap.core.errors import ConfigError
from covermap.core.legend import LandClass, Legend
from covermap.core.output import claim, replacing, write_text
from covermap.data import simulate_sensors as sensors
from covermap.data.simulate import (
    BANDS, Codes, File, Mask, SceneRecipe, SimulatedScene, ground_at, in_file_numbers, part_of, reflectance_of,
    write_rasters,
)  # fmt: skip
from covermap.data.simulate_sensors import (
    BARE, BUILT, CROP, FOREST, GRASS, ORCHARD, ROAD, WATER, Bits, Floats, Ground, Metres, draw, fractal, key_of, normal,
    smooth, uniform,
)  # fmt: skip
from covermap.geo.grid import Window, partition

DAYS = ("2018-08-08", "2018-08-20", "2018-09-01", "2018-09-13", "2018-09-25", "2018-10-07")
"""Days of the radar, 12 apart; the event is between the third and the fourth, as Hokkaido's of 6 September."""
LEGENDS = {
    kind: Legend(kind, (LandClass(0, f"no {kind}", "#d9d9d9"), LandClass(1, kind, colour)), nodata=255)
    for kind, colour in (("flood", "#2b6cb0"), ("landslide", "#c0392b"))
}
"""Water that was there before a flood is `no flood`."""

_SHARES = {"flood": (0.12, 0.4), "landslide": (0.012, 0.05)}  # usual, highest
_HIGHEST_M = 8.0  # of a flood above the river bed
_STEEP = (0.32, 0.65)  # tangent of the slope: from which on slides occur, and at which they are most frequent
_CELL_M = 60.0  # at most one landslide begins in each cell
_SLIDE_M = 560.0  # how far the largest landslide can reach
# Share of parcels (of forest: clearings) that are worked on from one date to the next, by code; in dB how on average.
_WORKED = np.array([0, 0, 0.02, 0.08, 0.20, 0, 0.12, 0, 0.02], np.float32)
_WORK_DB = np.array([0, 0, -1.5, 0, -0.5, 0, 0, 0, 0], np.float32)
_DARK_SHARE = 0.05  # parcels as smooth or wet as asphalt, before as after
_SOILS = (GRASS, CROP, BARE, ORCHARD)
_STEPS = 64  # of the table from dB to power, in one dB


@lru_cache(1)
def _areas() -> Floats:
    """4096 equally likely areas of landslides in m2, heavy-tailed: 45 % are smaller than a pixel of 10 m."""
    return np.clip(127 * np.exp(1.9 * normal(np.arange(4096, dtype=np.uint64))), 9, 4e4).astype(np.float32)


@lru_cache(1)
def _powers() -> Floats:
    """Power of -60 to 30 dB: a table, because exponentials of an array differ with the place in it."""
    return np.asarray(10 ** ((np.arange(90 * _STEPS) / _STEPS - 60) / 10), np.float32)


@dataclass(frozen=True)
class EventRecipe:
    """All that decides an event; the same recipe gives the same bytes.

    kind: what happens. height, width: px. num_before, num_after: radar dates, 1 to 3 each. region_shift: 0 none to 1
    strong, in the way `region` names: land cover, spectra, backscatter and wetness. share: of the area that is hit,
    about; default: that of an ordinary event. noise: spread within classes, 1 usual. crs: in metres. Raises ConfigError.
    """

    kind: Literal["flood", "landslide"] = "flood"
    height: int = 512
    width: int = 512
    seed: int = 0
    gsd_m: float = 10.0
    num_before: int = 1
    num_after: int = 1
    region: str = "home"
    region_shift: float = 0.0
    share: float | None = None
    noise: float = 1.0
    crs: str = "EPSG:32631"

    def __post_init__(self) -> None:
        if self.kind not in LEGENDS:
            raise ConfigError(f"there is no event {self.kind!r}", fix=f"give {' or '.join(LEGENDS)}")
        usual, most = _SHARES[self.kind]
        object.__setattr__(self, "share", usual if self.share is None else self.share)
        limits = {"num_before": (1, 3), "num_after": (1, 3), "share": (0.0005, most)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"give {name} between {low:g} and {high:g}")
        self.land(0)  # refuses what is no scene

    def land(self, attempt: int) -> SceneRecipe:
        """The scene before the event; one seed gives several, of which not all suit it."""
        common = ("height", "width", "gsd_m", "region", "region_shift", "noise", "crs")
        seed = key_of(self.kind, self.seed, attempt) >> 8
        return SceneRecipe(seed=seed, **{name: getattr(self, name) for name in common})


@lru_cache(16)
def _world(recipe: EventRecipe) -> tuple[SceneRecipe, float]:
    """The first land of a seed where an event of the share can occur, and how strong it is: level or frequency."""
    share, middle, k = float(recipe.share or 0), (np.arange(160) + 0.5) / 160, np.arange(160)
    for attempt in range(60):
        land = recipe.land(attempt)
        y, x = middle * recipe.height * recipe.gsd_m, middle * recipe.width * recipe.gsd_m
        if recipe.kind == "flood":
            codes = ground_at(land, k, k, y, x, date=0).codes
            needed = np.sort(np.where(codes == WATER, np.inf, _level_needed(land.seed, y, x, codes)), axis=None)
            strength = float(needed[int(share * needed.size)])
            suits = strength <= _HIGHEST_M
        else:
            rate, wanted = _frequency(land.seed, y, x), share * _CELL_M**2 / float(_areas().mean())
            suits, strength = (rate > 0).mean() > 4 * wanted, 1.0
            for _ in range(20 if suits else 0):
                strength *= wanted / float(np.minimum(strength * rate, 1).mean())
        if suits:
            return land, strength
    raise ConfigError(f"no place of seed {recipe.seed} can be hit on {share:g} of its area", fix="give a smaller share")


def _height(kind: str, seed: int, y: Metres, x: Metres) -> Floats:
    """Elevation (H, W) in metres: a plain with a valley that is flat at its bottom, or mountains with creases."""
    if kind == "flood":
        return np.asarray(np.add(*_bed_and_above(seed, y, x)))
    creases = fractal(key_of(seed, "creases"), y, x, 1500, octaves=6, roughness=0.43)
    return np.asarray(sensors.elevation(seed, y, x) * np.float32(1.5) + np.abs(creases) * np.float32(300))


def _bed_and_above(seed: int, y: Metres, x: Metres) -> tuple[Floats, Floats]:
    """Elevation of the river bed and height above it (H, W), the hills of sensors.elevation flattened."""
    valley = 1 / (1 + (sensors.river_distance(seed, y, x) * np.float32(1 / 650)) ** 2)  # as there
    hill = (sensors.elevation(seed, y, x) - 90) / (1 - valley * np.float32(0.8))
    above = hill * (1 - valley) * np.float32(0.13)
    uneven = fractal(key_of(seed, "uneven"), y, x, 380, octaves=5, roughness=0.62) * np.float32(1.1)
    return 20 + hill * np.float32(0.03), above * above / (above + 5) + uneven


def _level_needed(seed: int, y: Metres, x: Metres, codes: Codes) -> Floats:
    """Metres above the river bed (H, W) that the flood must reach for a place to be under water."""
    above = _bed_and_above(seed, y, x)[1] + np.float32(2)
    above += np.where(codes == ROAD, np.float32(1.2), 0) + np.where(codes == BUILT, np.float32(0.8), 0)
    return np.asarray(above / np.clip(1 + smooth(key_of(seed, "dykes"), y, x, 1500) * np.float32(0.3), 0.4, 1.6))


def _frequency(seed: int, y: Metres, x: Metres) -> Floats:
    """Relative frequency of landslides (H, W): where rain was heavy, on steep slopes."""
    rain = np.maximum(fractal(key_of(seed, "rain"), y, x, 1900, octaves=2, roughness=0.4) + np.float32(0.25), 0)
    down, right = _slope(seed, y, x)
    steep = np.clip((np.sqrt(down * down + right * right) - _STEEP[0]) / (_STEEP[1] - _STEEP[0]), 0, 1)
    return np.asarray(rain * rain * steep)


def _slope(seed: int, y: Metres, x: Metres) -> tuple[Floats, Floats]:
    """Rise southwards and eastwards (H, W), metres a metre, over 40 m of the land of landslides."""
    up = partial(_height, "landslide", seed)
    return (up(y + 20, x) - up(y - 20, x)) / np.float32(40), (up(y, x + 20) - up(y, x - 20)) / np.float32(40)


class _Slides(NamedTuple):
    """Landslides (N,): metres of the head, the unit vector downhill, metres long and half as wide, random bits."""

    y: Metres
    x: Metres
    down_y: Floats
    down_x: Floats
    length: Floats
    half_width: Floats
    bits: Bits


def _slides(seed: int, strength: float, y: tuple[float, float], x: tuple[float, float]) -> _Slides:
    """All that begin between two y and two x; in the same order in any window."""
    i, j = (np.arange(int(low // _CELL_M), int(high // _CELL_M) + 1) for low, high in (y, x))
    cell_y, cell_x = (i + 0.5) * _CELL_M, (j + 0.5) * _CELL_M
    bits = draw(key_of(seed, "slides"), i[:, None], j[None, :])
    row, col = np.nonzero(uniform(bits) < np.float32(strength) * _frequency(seed, cell_y, cell_x))
    rise_y, rise_x = (rise[row, col] for rise in _slope(seed, cell_y, cell_x))
    steepness = np.sqrt(rise_y * rise_y + rise_x * rise_x)
    bits = draw(bits[row, col], np.array([1]))
    place = draw(bits, np.array([2]))
    head_y = cell_y[row] + (uniform(place) - np.float32(0.5)) * _CELL_M
    head_x = cell_x[col] + (uniform(draw(place, np.array([1]))) - np.float32(0.5)) * _CELL_M
    slender = 2 + 3 * uniform(draw(bits, np.array([3])))  # length to width
    length = np.sqrt(sensors.look_up(_areas(), bits) * slender * np.float32(4 / np.pi))
    inside = (head_y >= y[0]) & (head_y < y[1]) & (head_x >= x[0]) & (head_x < x[1])
    columns = (head_y, head_x, -rise_y / steepness, -rise_x / steepness, length, length / slender / 2, bits)
    return _Slides(*(column[inside] for column in columns))


class _Site(NamedTuple):
    """Ground before the event with its heights and slopes (H, W)."""

    ground: Ground
    height: Floats
    rise_y: Floats
    rise_x: Floats


class _Hit(NamedTuple):
    """What the event does: where (H, W), codes afterwards, how much of that radar sees, and dB added (2, H, W)."""

    where: Mask
    codes: Codes
    seen: Floats
    shift: Floats


class SimulatedEvent:
    """An event that is computed where it is read, on windows of `grid`; dates before and after by the day in `days`.

    Reading raises GridError outside of the grid, ConfigError for a date that there is not.
    """

    def __init__(self, recipe: EventRecipe) -> None:
        self.recipe, self.legend = recipe, LEGENDS[recipe.kind]
        self.days = DAYS[3 - recipe.num_before : 3 + recipe.num_after]
        land, self._strength = _world(recipe)
        # Events lie apart, so that none is taken for the same ground as another one.
        place = key_of(recipe.kind, recipe.region, recipe.seed)
        self._scene = SimulatedScene(land, origin=(300_000.0 + 50_000 * (place % 8), 1e6 + 1000 * (place // 8 % 8000)))
        self.grid = self._scene.grid
        self._last: tuple[Any, _Site] | None = None

    def truth(self, window: Window) -> Codes:
        """Codes (H, W) of `legend`: 1 where the event hit, that is by the first date after it."""
        return self._hit(self._site(window), self.recipe.num_before).where.astype(np.uint8)

    def dem(self, window: Window) -> Floats:
        """Elevation in metres (1, H, W)."""
        return self._site(window).height[None]

    def heads(self) -> npt.NDArray[np.float64]:
        """Uppermost points of all landslides (N, 2): x, y in units of the CRS; none of a flood."""
        if self.recipe.kind == "flood":
            return np.empty((0, 2))
        high, wide = self.grid.height * self.recipe.gsd_m, self.grid.width * self.recipe.gsd_m
        slides = _slides(self._scene.recipe.seed, self._strength, (0, high), (0, wide))
        left, top = self.grid.transform.c, self.grid.transform.f
        return np.stack([left + slides.x, top - slides.y], 1)

    def optical(self, window: Window, *, date: int = 0) -> npt.NDArray[np.uint16]:
        """Surface reflectance x 1e4 (6, H, W) as that of SimulatedScene, without clouds."""
        day, site = self._day(date), self._site(window, margin=1)
        codes = self._hit(site, date).codes if date >= self.recipe.num_before else site.ground.codes
        return in_file_numbers(
            reflectance_of(self._scene.recipe, replace(site.ground, codes=codes), date=date, day=day)
        )

    def sar(self, window: Window, *, date: int = 0) -> Floats:
        """Backscatter VV, VH as power (2, H, W) with speckle."""
        day, site, land = self._day(date), self._site(window), self._scene.recipe
        ground, region = site.ground, _radar(land.region, land.region_shift)

        def level(codes: Codes) -> Floats:
            of = replace(ground, codes=codes)
            db = sensors.backscatter(of, seed=land.seed, date=date, day=day, noise=land.noise)
            return db + np.take(region.covers, codes, axis=1)  # the same speckle for all codes

        codes, db = ground.codes, level(ground.codes)
        wet = smooth(key_of(land.seed, "wet", date), ground.y, ground.x, 2500) * np.float32(0.5)
        wet += np.float32(region.wet + (date >= self.recipe.num_before) * 0.6)  # it rained
        db += np.where(np.isin(codes, _SOILS), wet, 0) + self._work(site, date)
        db += np.clip(site.rise_x * 7, -4, 4) * (codes != WATER)  # the radar looks from the west
        if date >= self.recipe.num_before:
            hit = self._hit(site, date)
            db += hit.seen * (level(hit.codes) - db) + hit.shift
            codes = hit.codes
        wind = np.clip(smooth(key_of(land.seed, "wind", date), ground.y, ground.x, 1300) * np.float32(0.8), 0, 1)
        db += np.array([8, 3], np.float32)[:, None, None] * np.where(codes == WATER, wind, 0)
        db = (db + 12) * region.gain - 12 + region.offset
        return _powers()[np.clip(np.rint((db + 60) * _STEPS), 0, 90 * _STEPS - 1).astype(np.int64)]

    def _day(self, date: int) -> int:
        """Day of the year of a date."""
        if not 0 <= date < len(self.days):
            raise ConfigError(f"there is no date {date}", fix=f"the dates are 0 to {len(self.days) - 1}")
        return int((np.datetime64(self.days[date]) - np.datetime64("2018-01-01")).astype(int)) + 1

    def _site(self, window: Window, *, margin: int = 0) -> _Site:
        """The ground before the event; the last one is kept, because dates often ask for it in turn."""
        if self._last is None or self._last[0] != (window, margin):
            ground, kind, gsd_m = self._scene.ground(window, margin=margin), self.recipe.kind, self.recipe.gsd_m
            y, x = ((np.arange(n[0] - 1, n[-1] + 2) + 0.5) * gsd_m for n in (ground.rows, ground.cols))
            height = _height(kind, self._scene.recipe.seed, y, x)
            rise_y = (height[2:, 1:-1] - height[:-2, 1:-1]) / np.float32(2 * gsd_m)
            rise_x = (height[1:-1, 2:] - height[1:-1, :-2]) / np.float32(2 * gsd_m)
            if kind == "flood":  # most woods of a plain are gone
                cleared = (uniform(ground.parcel ^ np.uint64(0x3333 << 40)) < 0.7) & (ground.codes == FOREST)
                codes = np.where(cleared, np.uint8(GRASS), ground.codes)
            else:  # nobody ploughs or builds on steep slopes
                wooded = (rise_y**2 + rise_x**2 > 0.1) & np.isin(ground.codes, (CROP, BARE, ORCHARD, BUILT))
                codes = np.where(wooded, np.uint8(FOREST), ground.codes)
            self._last = (window, margin), _Site(replace(ground, codes=codes), height[1:-1, 1:-1], rise_y, rise_x)
        return self._last[1]

    def _work(self, site: _Site, date: int) -> Floats:
        """dB (2, H, W) by which parcels differ that were ploughed, harvested or cleared by a date, or always dark."""
        ground, seed = site.ground, self._scene.recipe.seed
        chance = np.take(_WORKED, ground.codes) * (site.rise_y**2 + site.rise_x**2 < 0.09)
        total = np.zeros((2, *ground.codes.shape), np.float32)
        for step in range(1, date + 1):
            bits = draw(ground.parcel, np.array([key_of(seed, "work", step) >> 1]))
            drawn = np.stack([normal(bits), normal(bits, 1) * np.float32(0.6) + normal(bits) * np.float32(0.8)])
            total = np.where(uniform(bits) < chance, np.take(_WORK_DB, ground.codes) + drawn * np.float32(2.2), total)
        dark = uniform(draw(ground.parcel, np.array([key_of(seed, "dark") >> 1]))) < _DARK_SHARE
        return np.where(dark & np.isin(ground.codes, _SOILS), np.float32(-6), total)

    def _hit(self, site: _Site, date: int) -> _Hit:
        return (self._flooded if self.recipe.kind == "flood" else self._slid)(site, date)

    def _flooded(self, site: _Site, date: int) -> _Hit:
        """Open land becomes water; woods and towns shine, tall crops hide it; the water falls from date to date."""
        ground, seed = site.ground, self._scene.recipe.seed
        level = self._strength * (1 - 0.12 * (date - self.recipe.num_before))
        depth = np.float32(level) - _level_needed(seed, ground.y, ground.x, ground.codes)
        where = (depth > 0) & (ground.codes != WATER)
        hidden = np.isin(ground.codes, (FOREST, BUILT))
        tall = (uniform(draw(ground.parcel, np.array([key_of(seed, "tall") >> 1]))) < 0.2) & (ground.codes == CROP)
        seen = np.clip(depth / np.float32(0.7), 0.25, 1) * np.where(tall, np.float32(0.35), 1) * (where & ~hidden)
        dense = np.clip(1 + smooth(key_of(seed, "dense"), ground.y, ground.x, 500), 0, 2)  # how much of it shines
        shines = np.where(where & hidden, dense, 0)
        shift = np.stack([shines * np.float32(2.2), shines * np.float32(0.5)])
        return _Hit(where, np.where(where & ~hidden, np.uint8(WATER), ground.codes), seen.astype(np.float32), shift)

    def _slid(self, site: _Site, date: int) -> _Hit:
        """Landslides leave bare soil; radar sees part of it, brighter or darker by how the debris lies."""
        ground, seed = site.ground, self._scene.recipe.seed
        y, x = ground.y, ground.x
        spans = ((v[0] - _SLIDE_M, v[-1] + _SLIDE_M) for v in (y, x))
        slides = _slides(seed, self._strength, *spans)
        ragged = 1 + fractal(key_of(seed, "ragged"), y, x, 45, octaves=2) * np.float32(0.3)
        number = np.full(ground.codes.shape, -1)
        for n, (head_y, head_x, down_y, down_x, length, half, _) in enumerate(zip(*slides, strict=True)):
            ends, side = ((head_y, head_y + down_y * length), (head_x, head_x + down_x * length)), 2 * half
            (top, bottom), (left, right) = ((min(both) - side, max(both) + side) for both in ends)
            at = part_of(y, x, top, bottom, left, right)
            dy, dx = (y[at[0]] - head_y).astype(np.float32)[:, None], (x[at[1]] - head_x).astype(np.float32)
            along, across = (dy * down_y + dx * down_x) / (length / 2) - 1, (dx * down_y - dy * down_x) / half
            number[at][(along * along + across * across < ragged[at]) & (along >= -1)] = n
        where = (number >= 0) & (ground.codes != WATER)
        bits = np.append(slides.bits, np.uint64(0))[number]
        # What is narrower than a pixel changes it only in part.
        narrow = np.append(np.minimum(slides.half_width * np.float32(2 / self.recipe.gsd_m), 1), 0)[number]
        seen = np.clip(np.float32(0.2) + uniform(draw(bits, np.array([5]))), 0, 1) * narrow * where
        shift = np.stack([normal(bits, 3) * 4, normal(bits, 3) * 3 + normal(bits, 4) * 2]).astype(np.float32) * seen
        codes = np.where(where, np.uint8(BARE), ground.codes)
        return _Hit(where, codes, (seen * np.float32(0.7)).astype(np.float32), shift.astype(np.float32))


class _Radar(NamedTuple):
    """How a region looks to radar: gain about -12 dB and offset (2, 1, 1), dB of each cover (2, 9), of wet soils."""

    gain: Floats
    offset: Floats
    covers: Floats
    wet: float


@lru_cache(16)
def _radar(region: str, strength: float) -> _Radar:
    random = np.random.default_rng(key_of(region, "radar"))
    sign = random.choice([-1.0, 1.0], (5, 1, 1))
    gain = 1 + strength * sign[:2] * random.uniform(0.05, 0.15, (2, 1, 1))
    offset = strength * sign[2:4] * random.uniform(0.8, 1.8, (2, 1, 1))
    covers = strength * random.normal(0, 0.8, (2, 9))
    wet = float(strength * sign[4, 0, 0] * random.uniform(0.5, 1.5))
    return _Radar(gain.astype(np.float32), offset.astype(np.float32), covers.astype(np.float32), wet)
