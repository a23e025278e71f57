"""Generated floods and landslides with exactly known truth: radar and optical before and after, terrain, labels.

The land is that of data/simulate.py with a relief that suits the event. Between the dates change, beside what was hit:
parcels that were worked on, clearings, wet soils, wind on water, speckle. All is a pure function of seed and position.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from covermap.core.errors import ConfigError
from covermap.core.legend import LandClass, Legend
from covermap.core.output import claim, replacing, write_text
from covermap.data import simulate_sensors as sensors
from covermap.data.simulate import (
    BANDS,
    Codes,
    File,
    SceneRecipe,
    SimulatedScene,
    ground_at,
    part_of,
    require_within,
    write_rasters,
)
from covermap.data.simulate_sensors import BARE, BUILT, CROP, FOREST, GRASS, ORCHARD, ROAD, WATER, Bits, Floats, Ground
from covermap.geo.grid import Window, partition

Reals = npt.NDArray[np.floating]  # float64

DAYS = ("2018-08-08", "2018-08-20", "2018-09-01", "2018-09-13", "2018-09-25", "2018-10-07")
"""Days of the radar, 12 apart; the event is between the third and the fourth, as Hokkaido's of 6 September."""
LEGENDS = {
    kind: Legend(kind, (LandClass(0, f"no {kind}", "#d9d9d9"), LandClass(1, kind, colour)), nodata=255)
    for kind, colour in (("flood", "#2b6cb0"), ("landslide", "#c0392b"))
}
"""Water that was there before a flood is `no flood`."""

_SHARES = {"flood": (0.12, 0.4), "landslide": (0.012, 0.03)}  # usual, highest
_HIGHEST_M = 8.0  # of a flood above the river bed
_STEEP = (0.32, 0.65)  # tangent of the slope: from which on slides occur, and at which they are most frequent
_CELL_M = 40.0  # at most one landslide begins in each cell
_REACH_M = 640.0  # of the largest landslide
# By code, of parcels: chance to be worked on (forest: cleared) from one date to the next, and the mean change in dB.
_WORKED = np.array([0, 0, 0.02, 0.08, 0.20, 0, 0.12, 0, 0.02], np.float32)
_WORK_DB = np.array([0, 0, -1.5, 0, -0.5, 0, 0, 0, 0], np.float32)
_SOILS = (GRASS, CROP, BARE, ORCHARD)


@lru_cache(1)
def _areas() -> Floats:
    """4096 equally likely areas of landslides in m2, heavy-tailed: 45 % are smaller than a pixel of 10 m."""
    return np.asarray(np.clip(127 * np.exp(1.9 * sensors.normal(np.arange(4096, dtype=np.uint64))), 9, 4e4), np.float32)


@lru_cache(1)
def _powers() -> Floats:
    """Power of -60 to 30 dB, 64 in one dB: a table, because exponentials of an array differ with the place in it."""
    return np.asarray(10 ** ((np.arange(90 * 64) / 64 - 60) / 10), np.float32)


@dataclass(frozen=True)
class EventRecipe:
    """All that decides an event; the same recipe gives the same bytes.

    height, width: px. num_before, num_after: dates. region_shift: 0 none to 1 strong, in the way `region` names: land
    cover, spectra, backscatter. share: of the area that is hit, about; default: an ordinary one. noise: spread within
    classes, 1 usual. crs: projected, in metres. Raises ConfigError.
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
        require_within(self, {"num_before": (1, 3), "num_after": (1, 3), "share": (0.0005, most)})
        self.land(0)  # refuses what is no scene

    @property
    def dates(self) -> tuple[str, ...]:
        """YYYY-MM-DD of the dates, those before the event first."""
        return DAYS[3 - self.num_before : 3 + self.num_after]

    def land(self, attempt: int) -> SceneRecipe:
        """The scene before the event; one seed gives several, of which not all suit it."""
        days = tuple(int(np.datetime64(day).astype(int) - 17_532) for day in self.dates)  # since the end of 2017
        same = ("height", "width", "gsd_m", "region", "region_shift", "noise", "crs")
        seed = sensors.key_of(self.kind, self.seed, attempt) >> 8
        return SceneRecipe(
            seed=seed, num_dates=len(days), days=days, change_share=0.0, **{name: getattr(self, name) for name in same}
        )


@lru_cache(16)
def _world(recipe: EventRecipe) -> tuple[SceneRecipe, float]:
    """The first land of a seed where the event can hit its share, and how strong it is: level or frequency."""
    share, k = float(recipe.share or 0), np.arange(160)
    y, x = ((k + 0.5) / 160 * px * recipe.gsd_m for px in (recipe.height, recipe.width))
    for attempt in range(60):
        land, strength = recipe.land(attempt), 1.0
        if recipe.kind == "flood":
            codes = ground_at(land, k, k, y, x, date=0).codes
            needed = np.sort(np.where(codes == WATER, np.inf, _level_needed(land.seed, y, x, codes)), axis=None)
            strength = float(needed[int(share * needed.size)])
            suits = strength <= _HIGHEST_M
        else:
            rate = _frequency(land.seed, y, x)
            wanted = 1.2 * share * _CELL_M**2 / float(_areas().mean())  # some overlap or are left out
            suits = bool((rate > 0).mean() > 4 * wanted)
            for _ in range(20 if suits else 0):
                strength *= wanted / float(np.minimum(strength * rate, 1).mean())
        if suits:
            return land, strength
    raise ConfigError(f"no place of seed {recipe.seed} can be hit on {share:g} of its area", fix="give a smaller share")


def _height(kind: str, seed: int, y: Reals, x: Reals) -> Floats:
    """Elevation (H, W) in metres: a plain with a valley that is flat at its bottom, or mountains with creases."""
    if kind == "flood":
        return np.asarray(np.add(*_bed_and_above(seed, y, x)))
    creases = sensors.fractal(sensors.key_of(seed, "creases"), y, x, 1500, octaves=6, roughness=0.43)
    return np.asarray(sensors.elevation(seed, y, x) * np.float32(1.5) + np.abs(creases) * np.float32(300))


def _bed_and_above(seed: int, y: Reals, x: Reals) -> tuple[Floats, Floats]:
    """Elevation of the river bed and height above it (H, W), the hills of sensors.elevation flattened."""
    valley = 1 / (1 + (sensors.river_distance(seed, y, x) * np.float32(1 / 650)) ** 2)  # as there
    hill = (sensors.elevation(seed, y, x) - 90) / (1 - valley * np.float32(0.8))
    above = hill * (1 - valley) * np.float32(0.13)
    uneven = sensors.fractal(sensors.key_of(seed, "uneven"), y, x, 380, octaves=5, roughness=0.62) * np.float32(1.1)
    return 20 + hill * np.float32(0.03), above * above / (above + 5) + uneven


def _level_needed(seed: int, y: Reals, x: Reals, codes: Codes) -> Floats:
    """Reals above the river bed (H, W) that the flood must reach for a place to be under water."""
    above = _bed_and_above(seed, y, x)[1] + np.float32(2)
    above += np.where(codes == ROAD, np.float32(1.2), 0) + np.where(codes == BUILT, np.float32(0.8), 0)
    dykes = sensors.smooth(sensors.key_of(seed, "dykes"), y, x, 1500)
    return np.asarray(above / np.clip(1 + dykes * np.float32(0.3), 0.4, 1.6))


def _frequency(seed: int, y: Reals, x: Reals) -> Floats:
    """Relative frequency of landslides (H, W): where rain was heavy, on steep slopes."""
    rain = sensors.fractal(sensors.key_of(seed, "rain"), y, x, 1900, octaves=2, roughness=0.4)
    rise_y, rise_x = _rise(seed, y, x)
    steep = (np.sqrt(rise_y * rise_y + rise_x * rise_x) - _STEEP[0]) / (_STEEP[1] - _STEEP[0])
    return np.asarray(np.maximum(rain + np.float32(0.25), 0) ** 2 * np.clip(steep, 0, 1))


def _rise(seed: int, y: Reals, x: Reals) -> tuple[Floats, Floats]:
    """Rise southwards and eastwards (H, W), metres a metre, over 60 m of the land of landslides."""
    at = partial(_height, "landslide", seed)
    return (at(y + 30, x) - at(y - 30, x)) / np.float32(60), (at(y, x + 30) - at(y, x - 30)) / np.float32(60)


def _slides(seed: int, strength: float, y: tuple[float, float], x: tuple[float, float]) -> tuple[Reals, Bits]:
    """All that begin between two y and two x, in the same order in any window: (N, 6) and random bits (N,).

    Metres of the head (y, x), unit vector downhill (y, x), metres long and half as wide.
    """
    i, j = (
        np.arange((low - _REACH_M) // _CELL_M, (high + _REACH_M) // _CELL_M + 1).astype(np.int64)
        for low, high in (y, x)
    )
    cell_y, cell_x = (i + 0.5) * _CELL_M, (j + 0.5) * _CELL_M
    drawn = sensors.draw(sensors.key_of(seed, "slides"), i[:, None], j[None, :])
    row, col = np.nonzero(sensors.uniform(drawn) < np.float32(strength) * _frequency(seed, cell_y, cell_x))
    bits = sensors.draw(drawn[row, col][:, None], np.arange(1, 5))
    right, down, thin = sensors.uniform(bits).astype(np.float64).T[:3]
    head_y, head_x = cell_y[row] + (down - 0.5) * _CELL_M, cell_x[col] + (right - 0.5) * _CELL_M
    rise_y, rise_x = (rise[row, col] for rise in _rise(seed, cell_y, cell_x))
    steepness, slender = np.sqrt(rise_y * rise_y + rise_x * rise_x), 2 + 3 * thin
    length = np.sqrt(sensors.look_up(_areas(), bits[:, 3]) * slender * (4 / np.pi))
    inside = (head_y >= y[0]) & (head_y < y[1]) & (head_x >= x[0]) & (head_x < x[1])
    down_y, down_x = -rise_y / steepness, -rise_x / steepness
    toe = ((head + down * length) // _CELL_M for head, down in ((head_y, down_y), (head_x, down_x)))
    toe_row, toe_col = (np.clip(n.astype(np.int64) - k[0], 0, len(k) - 1) for n, k in zip(toe, (i, j), strict=True))
    height = _height("landslide", seed, cell_y, cell_x)
    inside &= height[toe_row, toe_col] <= height[row, col]  # else it would cross a valley
    return np.stack((head_y, head_x, down_y, down_x, length, length / slender / 2), 1)[inside], bits[inside, 3]


@lru_cache(16)
def _radar_of(region: str, strength: float) -> tuple[Floats, Floats, Floats]:
    """How radar sees a region: gain about -12 dB (2, 1, 1), offset (2, 1, 1) and that of covers (2, 9) in dB."""
    random = np.random.default_rng(sensors.key_of(region, "radar"))
    gain, offset = random.choice([-1, 1], (2, 2, 1, 1)) * random.uniform([[[0.05]], [[0.8]]], [[[0.15]], [[1.8]]])
    wet = np.isin(np.arange(9), _SOILS) * random.uniform(-1.5, 1.5) + random.normal(0, 0.8, (2, 9))
    gain, offset, covers = (np.asarray(v * strength, np.float32) for v in (gain, offset, wet))
    return 1 + gain, offset, covers


class _Hit(NamedTuple):
    """What the event does: where (H, W), codes afterwards, how much of that radar sees, and dB added (2, H, W)."""

    where: npt.NDArray[np.bool_]
    codes: Codes
    seen: Floats
    shift: Floats


class SimulatedEvent(SimulatedScene):
    """An event that is computed where it is read; `optical` and `ground` show each date, `truth` what was hit.

    Reading raises GridError outside of the grid, ConfigError for a date that there is not.
    """

    def __init__(self, event: EventRecipe) -> None:
        land, self._strength = _world(event)
        place = sensors.key_of(event.kind, event.region, event.seed)  # apart, so that no two seem to be the same ground
        super().__init__(land, origin=(300_000.0 + 50_000 * (place % 8), 1e6 + 1000 * (place // 8 % 8000)))
        self.event, self.legend = event, LEGENDS[event.kind]

    def truth(self, window: Window, *, date: int | None = None) -> Codes:
        """Codes (H, W) of `legend`: 1 where the event hit by a date; default: the first one after it."""
        date = self.event.num_before if date is None else date
        return self._hit(self._before(window, date), date).where.astype(np.uint8)

    labels = truth

    def dem(self, window: Window) -> Floats:
        """Elevation in metres (1, H, W)."""
        _, _, y, x = self._positions(window, 0)
        return _height(self.event.kind, self.recipe.seed, y, x)[None]

    def heads(self) -> Reals:
        """Uppermost points of all landslides (N, 2): x, y in units of the CRS; none of a flood."""
        sides = [(0.0, px * self.recipe.gsd_m) for px in (self.grid.height, self.grid.width)]
        head_y, head_x = _slides(self.recipe.seed, self._strength * (self.event.kind == "landslide"), *sides)[0].T[:2]
        return np.stack([self.grid.transform.c + head_x, self.grid.transform.f - head_y], 1)

    def ground(self, window: Window, date: int = 0, *, fine: bool = False, margin: int = 0) -> Ground:
        """What stands on the ground on a date: open land under water is water, landslides are bare."""
        ground = self._before(window, date, margin)
        return replace(ground, codes=self._hit(ground, date).codes)

    def sar(self, window: Window, *, date: int = 0) -> Floats:
        """Backscatter VV, VH as power (2, H, W) with speckle."""
        ground, land = self._before(window, date), self.recipe
        seed, y, x = land.seed, ground.y, ground.x
        gain, offset, covers = _radar_of(land.region, land.region_shift)
        hit, after = self._hit(ground, date), date >= self.event.num_before

        def level(codes: Codes) -> Floats:  # the same speckle for all codes
            of = replace(ground, codes=codes)
            db = sensors.backscatter(of, seed=seed, date=date, day=land.days[date], noise=land.noise)
            return np.asarray(db + np.take(covers, codes, axis=1))

        east = _height(self.event.kind, seed, y, x + 15) - _height(self.event.kind, seed, y, x - 15)
        wet = sensors.smooth(sensors.key_of(seed, "wet", date), y, x, 2500) * np.float32(0.5) + np.float32(0.6 * after)
        db = level(ground.codes) + np.where(np.isin(ground.codes, _SOILS), wet, 0) + self._work(ground, date)
        db += np.clip(east * np.float32(7 / 30), -4, 4) * (ground.codes != WATER)  # the radar looks from the west
        if after:
            db += hit.seen * (level(hit.codes) - db) + hit.shift
        wind = np.clip(sensors.smooth(sensors.key_of(seed, "wind", date), y, x, 1300) * np.float32(0.6), 0, 1)
        db += np.array([8, 3], np.float32)[:, None, None] * np.where(hit.codes == WATER, wind, 0)
        db = (db + 12) * gain - 12 + offset
        return np.take(_powers(), np.clip(np.rint((db + 60) * 64), 0, 90 * 64 - 1).astype(np.int64))

    def _chance(self, ground: Ground, what: str) -> Floats:
        """A number in [0, 1) of each parcel."""
        return sensors.uniform(sensors.draw(ground.parcel, np.array([sensors.key_of(self.recipe.seed, what) >> 1])))

    def _before(self, window: Window, date: int, margin: int = 0) -> Ground:
        self._positions(window, date)  # refuses what there is not
        return super().ground(window, margin=margin)

    def _ground_at(self, rows: sensors.Ints, cols: sensors.Ints, y: Reals, x: Reals, date: int) -> Ground:
        """The ground before the event. Plains have few woods; nobody ploughs the mountains' steep slopes."""
        ground = super()._ground_at(rows, cols, y, x, 0)
        if self.event.kind == "flood":
            cleared = (ground.codes == FOREST) & (self._chance(ground, "cleared") < 0.7)
            return replace(ground, codes=np.where(cleared, np.uint8(GRASS), ground.codes))
        rise_y, rise_x = _rise(self.recipe.seed, y, x)
        wooded = (rise_y * rise_y + rise_x * rise_x > _STEEP[0] ** 2) & np.isin(ground.codes, (CROP, BARE, ORCHARD))
        return replace(ground, codes=np.where(wooded, np.uint8(FOREST), ground.codes))

    def _work(self, ground: Ground, date: int) -> Floats:
        """dB (2, H, W) by which parcels differ that were ploughed, harvested or cleared by a date, or always dark."""
        total = np.zeros((2, *ground.codes.shape), np.float32)
        for step in range(1, date + 1):
            bits = sensors.draw(ground.parcel, np.array([sensors.key_of(self.recipe.seed, "work", step) >> 1]))
            vv, other = sensors.normal(bits), sensors.normal(bits, 1)
            drawn = np.stack([vv, vv * np.float32(0.8) + other * np.float32(0.6)]) * np.float32(2.2)
            worked = sensors.uniform(bits) < np.take(_WORKED, ground.codes)
            total = np.where(worked, np.take(_WORK_DB, ground.codes) + drawn, total)
        dark = (self._chance(ground, "dark") < 0.05) & np.isin(ground.codes, _SOILS)  # as asphalt, wet or smooth
        return np.where(dark, np.float32(-6), total)

    def _hit(self, ground: Ground, date: int) -> _Hit:
        if date < self.event.num_before:
            nothing = np.zeros(ground.codes.shape, np.float32)
            return _Hit(nothing > 0, ground.codes, nothing, np.stack([nothing, nothing]))
        return self._flooded(ground, date) if self.event.kind == "flood" else self._slid(ground)

    def _flooded(self, ground: Ground, date: int) -> _Hit:
        """Open land becomes water; woods and towns shine, tall crops hide it; the water falls from date to date."""
        seed, codes = self.recipe.seed, ground.codes
        level = np.float32(self._strength * (1 - 0.12 * (date - self.event.num_before)))
        depth = level - _level_needed(seed, ground.y, ground.x, codes)
        where, hidden = (depth > 0) & (codes != WATER), np.isin(codes, (FOREST, BUILT))
        tall = (self._chance(ground, "tall") < 0.15) & (codes == CROP)
        seen = np.clip(depth * 2, 0.4, 1) * np.where(tall, np.float32(0.35), np.float32(1)) * (where & ~hidden)
        dense = sensors.smooth(sensors.key_of(seed, "dense"), ground.y, ground.x, 500)
        shines = np.clip(1 + dense, 0, 2) * (where & hidden)
        shift = np.array([2.2, 0.5], np.float32)[:, None, None] * shines
        return _Hit(where, np.where(where & ~hidden, np.uint8(WATER), codes), seen, shift)

    def _slid(self, ground: Ground) -> _Hit:
        """Landslides leave bare soil; radar sees part of it, brighter or darker by how the debris lies."""
        seed, y, x = self.recipe.seed, ground.y, ground.x
        slides, bits = _slides(seed, self._strength, *((v[0] - _REACH_M, v[-1] + _REACH_M) for v in (y, x)))
        ragged = 1 + sensors.fractal(sensors.key_of(seed, "ragged"), y, x, 45, octaves=2) * np.float32(0.3)
        number = np.full(ground.codes.shape, -1)
        for n, (head_y, head_x, down_y, down_x, length, half) in enumerate(slides.tolist()):
            (top, bottom), (left, right) = (
                sorted((head, head + down * length)) for head, down in ((head_y, down_y), (head_x, down_x))
            )
            at = part_of(y, x, top - 2 * half, bottom + 2 * half, left - 2 * half, right + 2 * half)
            dy, dx = (y[at[0]] - head_y)[:, None], x[at[1]] - head_x
            along, across = (dy * down_y + dx * down_x) / (length / 2) - 1, (dx * down_y - dy * down_x) / half
            number[at][(along * along + across * across < ragged[at]) & (along >= -1)] = n
        where = (number >= 0) & (ground.codes != WATER)
        bits = sensors.draw(np.append(bits, np.uint64(0))[number], np.array([1]))
        # What is narrower than a pixel changes it only in part.
        narrow = np.minimum(np.append(slides[:, 5], 0)[number] * np.float32(2 / self.recipe.gsd_m), 1)
        seen = np.minimum(np.float32(0.3) + sensors.uniform(bits), 1) * narrow.astype(np.float32) * where
        vv, other = sensors.normal(bits), sensors.normal(bits, 1)
        shift = np.stack([vv * 6, vv * 5 + other * 2]) * seen
        return _Hit(where, np.where(where, np.uint8(BARE), ground.codes), seen * np.float32(0.8), shift)


def _rasters(event: SimulatedEvent, *, optical: bool) -> Iterator[File]:
    """The rasters of an event; before_1 is the earliest."""
    nan, num_before = float("nan"), event.event.num_before
    for date in range(len(event.event.dates)):
        end = f"before_{date + 1}" if date < num_before else f"after_{date - num_before + 1}"
        yield File(end, event.grid, ("vv", "vh"), "float32", nan, partial(event.sar, date=date))
        if optical:
            yield File(f"optical_{end}", event.grid, BANDS, "uint16", 0, partial(event.optical, date=date))
    yield File("dem", event.grid, ("elevation",), "float32", nan, event.dem)
    yield File("labels", event.grid, ("class",), "uint8", 255, event.truth)


def write_event(
    recipe: EventRecipe, folder: str | Path, *, overwrite: bool = False, optical: bool = False
) -> dict[str, Path]:
    """Write an event as GeoTIFFs, legend.yaml and event.json (recipe and days); returns the paths by name.

    before_1, ..., after_1, ... hold power of VV and VH (`quantity: power`), labels the codes of legend.yaml. Landslides
    also have heads.csv: x, y in the recipe's CRS (`epsg`), id. Raises OutputError before any work when a file exists.
    """
    folder, event = Path(folder), SimulatedEvent(recipe)
    files = list(_rasters(event, optical=optical))
    texts = {
        "legend.yaml": yaml.safe_dump(event.legend.to_dict(), sort_keys=False),
        "event.json": json.dumps({"recipe": asdict(recipe), "dates": recipe.dates}, indent=2) + "\n",
    }
    if recipe.kind == "landslide":
        lines = [f"{x:.2f},{y:.2f},{n}\n" for n, (x, y) in enumerate(event.heads().tolist(), 1)]
        texts["heads.csv"] = "".join(["x,y,id\n", *lines])
    paths = {Path(name).stem: folder / name for name in (*(f"{file.name}.tif" for file in files), *texts)}
    for path in paths.values():
        claim(path, overwrite=overwrite)
    write_rasters(files, paths, block_px=1024, overwrite=overwrite)
    for name, text in texts.items():
        write_text(folder / name, text)
    return paths


def write_landslide_chips(
    root: str | Path, recipes_by_name: Mapping[str, EventRecipe], *, chip_px: int = 128, overwrite: bool = False
) -> list[Path]:
    """Write landslides-NAME/chips_128x128/chip_N of each event, as the layout `landslide` reads; returns the folders.

    Power of VV, VH, elevation, truth; what is left over at the right and lower edge makes no chip. Names but hokkaido
    need `options: {event: [2018-09-05, 2018-09-07]}`. Raises ConfigError, OutputError for a folder that exists.
    """
    for name, recipe in recipes_by_name.items():
        if recipe.kind != "landslide" or not 1 <= chip_px <= min(recipe.height, recipe.width):
            size = f"{recipe.height} x {recipe.width} px"
            raise ConfigError(f"{name} is a {recipe.kind} of {size}", fix=f"give landslides of {chip_px} px or more")
    folders = [claim(Path(root) / f"landslides-{name}", overwrite=overwrite) for name in recipes_by_name]
    for folder, recipe in zip(folders, recipes_by_name.values(), strict=True):
        event, days = SimulatedEvent(recipe), [day.replace("-", "") for day in recipe.dates]
        layers = [f"TS::{band}::{day}" for day in days for band in ("vv", "vh")] + ["ST::dem", "ST::landslides"]
        windows = [w for w in partition(event.grid.window, chip_px, chip_px) if w.height == w.width == chip_px]
        with replacing(folder) as new:
            chips = new / f"chips_{chip_px}x{chip_px}"
            chips.mkdir(parents=True)
            for n, window in enumerate(windows):
                radar = [event.sar(window, date=date) for date in range(len(days))]
                cube = np.concatenate([*radar, event.dem(window), event.truth(window)[None]], dtype=np.float32)
                np.savez_compressed(chips / f"chip_{n}.npz", cube)
                place = {"bounds": event.grid.window_grid(window).bounds, "crs": recipe.crs}
                text = json.dumps({"variables": layers, **place, "chip_id": n})
                (chips / f"chip_{n}.metadata.json").write_text(text, encoding="utf-8")
    return folders
