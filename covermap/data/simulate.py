"""A generated landscape with exactly known truth: imagery, SAR, terrain and labels for demos and tests.

The world is drawn in metres and is a pure function of the seed and the position, so GSD and label size only decide
where it is sampled, and any window holds the same values whatever blocks it is made in. Nothing is kept: a scene of
any size streams through memory block by block.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from covermap.core.errors import ConfigError, GridError
from covermap.core.legend import LandClass, Legend
from covermap.core.output import claim, write_text
from covermap.data import simulate_sensors as sensors
from covermap.data.simulate_sensors import (
    BARE,
    BUILT,
    CROP,
    FOREST,
    GRASS,
    ORCHARD,
    ROAD,
    WATER,
    Bits,
    Floats,
    Ground,
    Ints,
    Metres,
    draw,
    fractal,
    key_of,
    normal,
    smooth,
    uniform,
)
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.writer import RasterWriter

_Positions = tuple[Ints, Ints, Metres, Metres]
Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

LEGEND = Legend(
    name="simulated",
    title="Land cover of a generated scene",
    nodata=0,
    classes=(
        LandClass(WATER, "water", "#2b6cb0"),
        LandClass(FOREST, "forest", "#1b5e20"),
        LandClass(GRASS, "grassland", "#a6d96a"),
        LandClass(CROP, "cropland", "#f0d264"),
        LandClass(BUILT, "built-up", "#c0392b"),
        LandClass(BARE, "bare soil", "#b08d6e"),
        LandClass(ROAD, "road", "#4d4d4d"),
        LandClass(ORCHARD, "orchard", "#8e44ad"),
    ),
)
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")

_ORIGIN = (400_000.0, 5_000_000.0)  # easting and northing of the upper left corner
_BLOCK_M = 1100.0  # farmland with one direction of fields
_TOWN_M = 2600.0  # spacing of towns and of the crossings of roads
_STREAM_M = 4300.0  # spacing of streams
_CHANGEABLE = 0.92  # usual share of the area that is neither water nor town nor road
# Parcels of one kind of block: cumulative shares of cropland, grassland and bare soil; the rest is orchard.
_FARMING = np.array([[0.80, 0.89, 1.0], [0.42, 0.80, 0.90], [0.16, 0.93, 1.0], [0.20, 0.28, 0.36]])
_BLOCK_KINDS = np.array([0.46, 0.27, 0.17, 0.10])
# By code 0 to 8: what a changed parcel becomes (two ways), and the similar class that a wrong label names.
_CHANGES = np.array([[0, 1, BARE, CROP, BUILT, BUILT, CROP, 7, CROP], [0, 1, GRASS, BUILT, GRASS, 5, BUILT, 7, BARE]])
_CONFUSED = np.array([0, GRASS, ORCHARD, CROP, GRASS, BARE, CROP, BUILT, FOREST], np.uint8)


def require_within(recipe: object, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raise ConfigError for the first setting of a recipe that lies outside of its limits."""
    for name, (low, high) in limits.items():
        value = getattr(recipe, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}", fix=f"give {name} between {low:g} and {high:g}")


@dataclass(frozen=True)
class SceneRecipe:
    """All that decides a scene; the same recipe gives the same bytes.

    height, width: px of the image. change_share: share of the area that changes class from one date to the next.
    label_factor: truth and label pixels along one image pixel. label_noise: share of the area (whole parcels) whose
    label names a similar class. region_shift: 0 none to 1 strong, in the way `region` names: spectra and mixture.
    cloud_share, nodata_share: share of each date's image. days: day of the year of each date (empty: 196).
    noise: spread within classes and sensor noise, 1 usual. crs: projected, in metres. Raises ConfigError.
    """

    height: int = 1024
    width: int = 1024
    seed: int = 0
    gsd_m: float = 10.0
    num_dates: int = 1
    change_share: float = 0.02
    label_factor: int = 1
    label_noise: float = 0.0
    region: str = "home"
    region_shift: float = 0.0
    cloud_share: float = 0.0
    nodata_share: float = 0.0
    days: tuple[int, ...] = ()
    noise: float = 1.0
    crs: str = "EPSG:32631"

    def __post_init__(self) -> None:
        object.__setattr__(self, "days", tuple(self.days) or (196,) * self.num_dates)
        require_within(self, {
            "height": (1, 10**6), "width": (1, 10**6), "gsd_m": (0.1, 60), "num_dates": (1, 6),
            "label_factor": (1, 100), "change_share": (0, 0.5), "label_noise": (0, 1), "region_shift": (0, 2),
            "cloud_share": (0, 1), "nodata_share": (0, 1), "noise": (0, 5),
        })  # fmt: skip
        if len(self.days) != self.num_dates or not all(1 <= day <= 366 for day in self.days):
            raise ConfigError(f"days {self.days} for {self.num_dates} dates", fix="give one of 1 to 366 per date")
        try:
            crs = CRS.from_user_input(self.crs)
        except CRSError as error:
            raise ConfigError(f"crs {self.crs!r} is unknown: {error}", fix="give for example EPSG:32631") from error
        if not crs.is_projected or crs.linear_units_factor[1] != 1.0:
            raise ConfigError(f"crs {self.crs} is not in metres", fix="give a UTM zone, for example EPSG:32631")


class SimulatedScene:
    """A scene that is computed where it is read; windows lie on `grid`, those of truth and labels on `label_grid`.

    Truth is the class at a pixel's centre; the image mixes the classes of neighbouring pixels as a sensor does.
    """

    legend = LEGEND
    bands = BANDS

    def __init__(self, recipe: SceneRecipe, *, origin: tuple[float, float] = _ORIGIN) -> None:
        self.recipe = recipe
        place = Affine(recipe.gsd_m, 0, origin[0], 0, -recipe.gsd_m, origin[1])
        self.grid = Grid(CRS.from_user_input(recipe.crs), place, recipe.height, recipe.width)
        self.label_grid = self.grid.coarsen(1 / recipe.label_factor)
        self._last: tuple[Any, Ground] | None = None

    def truth(self, window: Window, *, date: int = 0) -> Codes:
        """Class codes (H, W) at the centres of label pixels: no noise, no nodata. Raises GridError outside."""
        return self.ground(window, date, fine=True).codes.copy()

    def labels(self, window: Window, *, date: int = 0) -> Codes:
        """Class codes (H, W) as a user would get them: with label noise, 0 where the date's image holds nothing."""
        ground = self.ground(window, date, fine=True)
        number = uniform(draw(ground.parcel, np.array([key_of(self.recipe.seed, "label noise") >> 1])))
        codes = np.where(number < self.recipe.label_noise, _CONFUSED[ground.codes], ground.codes)
        factor = self.recipe.label_factor
        codes[self._nodata(ground.rows // factor, ground.cols // factor, date)] = 0
        return codes

    def optical(self, window: Window, *, date: int = 0) -> npt.NDArray[np.uint16]:
        """Surface reflectance x 1e4 (6, H, W) of `bands`, clouds included, 0 where there is nothing."""
        recipe, ground = self.recipe, self.ground(window, date, margin=1)
        values = sensors.blur(sensors.reflectance(ground, seed=recipe.seed, day=recipe.days[date], noise=recipe.noise))
        rows, cols, y, x = ground.rows[1:-1], ground.cols[1:-1], ground.y[1:-1], ground.x[1:-1]
        values *= sensors.sunlight(recipe.seed, y, x)
        sensors.tint_region(values, region=recipe.region, strength=recipe.region_shift)
        sensors.add_sensor_noise(
            values, key=key_of(recipe.seed, "sensor", date), rows=rows, cols=cols, noise=recipe.noise
        )
        if recipe.cloud_share:
            sensors.add_clouds(values, self._cloud_excess(y, x, date))
        out: npt.NDArray[np.uint16] = np.clip(np.rint(values * np.float32(1e4)), 1, 16_000).astype(np.uint16)
        out[:, self._nodata(rows, cols, date)] = 0
        return out

    def cloud_mask(self, window: Window, *, date: int = 0) -> Mask:
        """(H, W): True where a cloud changes the optical image."""
        _, _, y, x = self._positions(window, date)
        if not self.recipe.cloud_share:
            return np.zeros((window.height, window.width), bool)
        return np.asarray(self._cloud_excess(y, x, date) > 0)

    def nodata_mask(self, window: Window, *, date: int = 0) -> Mask:
        """(H, W): True where the optical image of the date holds nothing."""
        rows, cols, _, _ = self._positions(window, date)
        return self._nodata(rows, cols, date)

    def sar(self, window: Window, *, date: int = 0) -> Floats:
        """Backscatter VV, VH in dB (2, H, W) with speckle; radar sees through clouds and has no nodata."""
        recipe, ground = self.recipe, self.ground(window, date)
        return sensors.backscatter(ground, seed=recipe.seed, date=date, day=recipe.days[date], noise=recipe.noise)

    def dem(self, window: Window) -> Floats:
        """Elevation in metres (1, H, W)."""
        _, _, y, x = self._positions(window, 0)
        return sensors.elevation(self.recipe.seed, y, x)[None]

    def _positions(self, window: Window, date: int, *, fine: bool = False, margin: int = 0) -> _Positions:
        """Pixel numbers and metres of a window's rows and columns, grown by a margin; raises GridError, ConfigError."""
        grid, factor = (self.label_grid, self.recipe.label_factor) if fine else (self.grid, 1)
        if window.is_empty or window.intersect(grid.window) != window:
            size = f"{grid.height} x {grid.width} px"
            raise GridError(f"{window} does not lie in the scene of {size}", fix="read a window inside of it")
        if not 0 <= date < self.recipe.num_dates:
            raise ConfigError(f"there is no date {date}", fix=f"the dates are 0 to {self.recipe.num_dates - 1}")
        window, gsd_m = window.pad(margin), self.recipe.gsd_m / factor
        rows, cols = np.arange(window.height) + window.row, np.arange(window.width) + window.col
        return rows, cols, (rows + 0.5) * gsd_m, (cols + 0.5) * gsd_m

    def ground(self, window: Window, date: int = 0, *, fine: bool = False, margin: int = 0) -> Ground:
        """The truth of a window, grown by a margin; fine: on the grid of labels. Raises GridError, ConfigError.

        The last one is kept, because image, truth and labels often ask for it in turn.
        """
        key = (window, date, fine and self.recipe.label_factor > 1, margin)
        last = self._last
        if last is None or last[0] != key:
            last = (key, self._ground_at(*self._positions(window, date, fine=fine, margin=margin), date))
            self._last = last
        return last[1]

    def _ground_at(self, rows: Ints, cols: Ints, y: Metres, x: Metres, date: int) -> Ground:
        return ground_at(self.recipe, rows, cols, y, x, date=date)

    def _cloud_excess(self, y: Metres, x: Metres, date: int) -> Floats:
        """(H, W): how far the cloud field lies above the value that gives this scene its share of clouds."""
        recipe = self.recipe
        size_m = (recipe.height * recipe.gsd_m, recipe.width * recipe.gsd_m)
        threshold = sensors.cloud_threshold(recipe.seed, date, *size_m, recipe.cloud_share)
        return sensors.cloud_field(recipe.seed, date, y, x) - np.float32(threshold)

    def _nodata(self, rows: Ints, cols: Ints, date: int) -> Mask:
        recipe = self.recipe
        down, across = (rows + 0.5) / recipe.height, (cols + 0.5) / recipe.width
        return sensors.beyond_swath(key_of(recipe.seed, "nodata", date), down, across, recipe.nodata_share)


def ground_at(recipe: SceneRecipe, rows: Ints, cols: Ints, y: Metres, x: Metres, *, date: int) -> Ground:
    """The truth at rows and columns (pixel numbers and metres) on one date."""
    seed, mix = recipe.seed, _region_mixture(recipe)
    bend = [fractal(key_of(seed, "bend", axis), y, x, 700, octaves=2) for axis in "yx"]
    bent_y, bent_x = y.astype(np.float32)[:, None] + 45 * bend[0], x.astype(np.float32) + 45 * bend[1]
    codes, parcel, along, across = _farmland(seed, y, x, bent_y, bent_x, mix)

    river, half_width = _rivers(seed, y, x)
    height = sensors.elevation(seed, y, x)
    woods = fractal(key_of(seed, "woods"), y, x, 1500, octaves=6, roughness=0.63)
    wooded = woods + (height - 260) * np.float32(0.004) > 0.6 + mix[4]
    wooded |= (river < half_width + 55) & (woods > -0.3)
    codes[wooded] = FOREST

    town, road = _towns_and_roads(seed, y, x, bent_y, bent_x, mix[5])
    built = town + fractal(key_of(seed, "town rim"), y, x, 420, octaves=3) * np.float32(0.2) < 1
    codes[built] = BUILT
    codes = _change(recipe, codes, parcel, date)
    lakes = fractal(key_of(seed, "lakes"), y, x, 900, octaves=3) > 2.45
    codes[(river < half_width) | lakes] = WATER
    codes[road] = ROAD
    return Ground(rows, cols, y, x, codes, parcel, along, across)


def _rivers(seed: int, y: Metres, x: Metres) -> tuple[Floats, Floats]:
    """Distance and half width of the nearest river or stream; streams run across the rivers and fade out."""
    river = sensors.river_distance(seed, y, x)
    half_width = np.clip(42 + 16 * smooth(key_of(seed, "river width"), y, x, 900), 16, 90)
    line = (x + 0.25 * y[:, None]).astype(np.float32)
    line += fractal(key_of(seed, "stream bend"), y, x, 1900, octaves=4, roughness=0.42) * np.float32(560)
    line = line / np.float32(_STREAM_M)
    stream = np.abs(line - np.rint(line)) * np.float32(_STREAM_M)
    thin = np.clip(10 + 7 * smooth(key_of(seed, "stream width"), y, x, 1300), 0, 14).astype(np.float32)
    nearer = stream - thin < river - half_width
    return np.where(nearer, stream, river), np.where(nearer, thin, half_width)


def _cells(y: Metres, x: Metres, cell_m: float, reach_m: float) -> tuple[Ints, Ints]:
    """Numbers of the cells of a square lattice that reach into the window, row by row."""
    first_y, last_y = (int((v) // cell_m) for v in (y[0] - reach_m, y[-1] + reach_m))
    first_x, last_x = (int((v) // cell_m) for v in (x[0] - reach_m, x[-1] + reach_m))
    i, j = np.mgrid[first_y : last_y + 1, first_x : last_x + 1]
    return i.ravel(), j.ravel()


def part_of(y: Metres, x: Metres, top: float, bottom: float, left: float, right: float) -> tuple[slice, slice]:
    """The part of the window between limits in metres."""
    rows, cols = np.searchsorted(y, (top, bottom)), np.searchsorted(x, (left, right))
    return slice(*rows.tolist()), slice(*cols.tolist())


def _farmland(
    seed: int, y: Metres, x: Metres, bent_y: Floats, bent_x: Floats, mix: npt.NDArray[np.float64]
) -> tuple[Codes, Bits, Floats, Floats]:
    """codes, parcel bits, metres along and across parcels (H, W) of a world that is all fields.

    Blocks are the nearest of points, one in each lattice cell; each block has a direction and a size of parcels.
    """
    reach = _BLOCK_M + 250  # 250: more than the world bends
    i, j = _cells(y, x, _BLOCK_M, reach + _BLOCK_M / 2)
    top, left = i * _BLOCK_M, (j + i % 2 / 2) * _BLOCK_M  # laid like bricks, so that no long lines run north
    block = draw(key_of(seed, "block"), i, j)
    own = draw(block, np.array([1]))
    # Within the middle 60 % of each cell the nearest point always lies in one of the 3 x 3 cells around.
    seed_y = (top + (0.2 + 0.6 * uniform(block)) * _BLOCK_M).astype(np.float32)
    seed_x = (left + (0.2 + 0.6 * uniform(own)) * _BLOCK_M).astype(np.float32)
    nearest = np.full(bent_y.shape, np.inf, np.float32)
    which = np.zeros(bent_y.shape, np.int64)
    for n in range(len(i)):
        at = part_of(y, x, top[n] - reach, top[n] + _BLOCK_M + reach, left[n] - reach, left[n] + _BLOCK_M + reach)
        distance = (bent_y[at] - seed_y[n]) ** 2 + (bent_x[at] - seed_x[n]) ** 2
        closer = distance < nearest[at]
        np.copyto(nearest[at], distance, where=closer)
        which[at][closer] = n

    t = 2 * uniform(draw(block, np.array([2]))) - 1  # tangent of half the angle: sine and cosine without trigonometry
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    more = draw(block, np.array([3]))
    depth, length = 130 + 110 * uniform(more), 210 + 260 * uniform(draw(more, np.array([1])))
    dy, dx = bent_y - seed_y[which], bent_x - seed_x[which]
    along, across = dx * cosine[which] + dy * sine[which], dy * cosine[which] - dx * sine[which]
    row = _uneven_floor(across / depth[which], block[which])
    strip = draw(block[which], row)
    parcel = draw(strip, _uneven_floor(along / length[which] + uniform(strip), strip))

    kind = np.searchsorted(np.cumsum(mix[:4])[:3], uniform(draw(block, np.array([4]))))
    limits = _FARMING[kind].astype(np.float32)
    use = sum((uniform(parcel) >= limits[:, n][which]).astype(np.int64) for n in range(3))
    return np.array([CROP, GRASS, BARE, ORCHARD], np.uint8)[use], parcel, along, across


def _uneven_floor(value: Floats, key: Bits) -> Ints:
    """Cell numbers on a line whose cells begin up to 0.4 late."""
    cell = np.floor(value)
    late = uniform(draw(key ^ np.uint64(0x5555), cell.astype(np.int64))) * np.float32(0.4)
    return np.asarray(cell.astype(np.int64) - (value - cell < late))


def _towns_and_roads(
    seed: int, y: Metres, x: Metres, bent_y: Floats, bent_x: Floats, grown: float
) -> tuple[Floats, Mask]:
    """Distance to the nearest town in town radii, and roads (True), which join each town to its neighbours."""
    bend = smooth(key_of(seed, "road bend"), y, x, 700)
    road_y, road_x = bent_y + bend * 60, bent_x - bend * 60
    reach = 500.0
    i, j = _cells(y, x, _TOWN_M, _TOWN_M + reach)
    town, road = np.full(bent_y.shape, 9, np.float32), np.zeros(bent_y.shape, bool)

    def node(i: Ints, j: Ints) -> tuple[Floats, Floats]:
        bits = draw(key_of(seed, "town"), i, j)
        down, right = uniform(bits), uniform(draw(bits, np.array([1])))
        places = ((i + 0.15 + 0.7 * down) * _TOWN_M, (j + 0.15 + 0.7 * right) * _TOWN_M)
        return places[0].astype(np.float32), places[1].astype(np.float32)

    bits = draw(draw(key_of(seed, "town"), i, j), np.array([2]))
    size = uniform(bits)
    radius = np.where(normal(bits) > -0.7, (170 + 560 * size * size) * (1 + grown), 1)
    here_y, here_x = node(i, j)
    for n in range(len(i)):
        top, left = i[n] * _TOWN_M, j[n] * _TOWN_M
        at = part_of(y, x, top - reach, top + _TOWN_M + reach, left - reach, left + _TOWN_M + reach)
        distance = np.sqrt((bent_y[at] - here_y[n]) ** 2 + (bent_x[at] - here_x[n]) ** 2) / np.float32(radius[n])
        np.minimum(town[at], distance, out=town[at])
    for step_y, step_x in ((0, 1), (1, 0)):
        there_y, there_x = node(i + step_y, j + step_x)
        traffic = uniform(draw(bits, np.array([3 + step_y])))
        for n in np.flatnonzero(traffic < 0.85).tolist():
            top, left = i[n] * _TOWN_M - reach, j[n] * _TOWN_M - reach
            tall, wide = (_TOWN_M * (1 + step) + 2 * reach for step in (step_y, step_x))
            at = part_of(y, x, top, top + tall, left, left + wide)
            along_y, along_x = there_y[n] - here_y[n], there_x[n] - here_x[n]
            dy, dx = road_y[at] - here_y[n], road_x[at] - here_x[n]
            t = np.clip((dy * along_y + dx * along_x) / (along_y**2 + along_x**2), 0, 1)
            road[at] |= (dy - t * along_y) ** 2 + (dx - t * along_x) ** 2 < (9 + 4 * traffic[n]) ** 2
    return town, road


def _change(recipe: SceneRecipe, codes: Codes, parcel: Bits, date: int) -> Codes:
    """Codes (H, W) on a date: from each date to the next, parcels drawn by chance change class as a whole."""
    for step in range(1, date + 1):
        bits = draw(parcel, np.array([key_of(recipe.seed, "change", step) >> 1]))
        chosen = uniform(bits) < recipe.change_share / _CHANGEABLE
        codes = np.where(chosen, _CHANGES[(bits & np.uint64(1)).astype(np.int64), codes], codes).astype(np.uint8)
    return codes


def _region_mixture(recipe: SceneRecipe) -> npt.NDArray[np.float64]:
    """Shares of the four kinds of farm blocks, shift of the forest threshold, growth of towns."""
    random = np.random.default_rng(key_of(recipe.region, "mixture"))
    kinds = _BLOCK_KINDS * (1 + recipe.region_shift * random.uniform(-0.6, 0.6, 4))
    rest = recipe.region_shift * random.choice([-1.0, 1.0], 2) * random.uniform([0.2, 0.1], [0.5, 0.3])
    return np.concatenate([kinds / kinds.sum(), rest])


@dataclass(frozen=True)
class File:
    """One raster to write: its grid, numbers and how a window of it is made."""

    name: str
    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    nodata: float | None
    read: Callable[[Window], npt.NDArray[Any]]


def _files(scene: SimulatedScene, *, optical: bool, sar: bool, dem: bool) -> Iterator[File]:
    """The rasters of a scene in the order of writing."""
    for date in range(scene.recipe.num_dates):
        end = f"_date{date + 1}" if scene.recipe.num_dates > 1 else ""

        def on(read: Callable[..., npt.NDArray[Any]], date: int = date) -> Callable[[Window], npt.NDArray[Any]]:
            return lambda window: read(window, date=date)

        if optical:
            yield File(f"image{end}", scene.grid, BANDS, "uint16", 0, on(scene.optical))
            if scene.recipe.cloud_share:
                yield File(f"clouds{end}", scene.grid, ("cloud",), "uint8", None, on(scene.cloud_mask))
        if sar:
            yield File(f"sar{end}", scene.grid, ("vv", "vh"), "float32", float("nan"), on(scene.sar))
        yield File(f"labels{end}", scene.label_grid, ("class",), "uint8", 0, on(scene.labels))
        yield File(f"truth{end}", scene.label_grid, ("class",), "uint8", 0, on(scene.truth))
    if dem:
        yield File("dem", scene.grid, ("elevation",), "float32", float("nan"), scene.dem)


def write_scene(
    recipe: SceneRecipe,
    folder: str | Path,
    *,
    block_px: int = 1024,
    overwrite: bool = False,
    optical: bool = True,
    sar: bool = False,
    dem: bool = False,
) -> dict[str, Path]:
    """Write a scene as GeoTIFFs, legend.yaml and scene.json (the recipe); returns the paths by name without suffix.

    Names end in _date1, _date2, ... where there are several dates. Memory holds one block of block_px x block_px,
    whatever the scene's size. Raises OutputError before any work when a file exists.
    """
    folder, scene = Path(folder), SimulatedScene(recipe)
    files = list(_files(scene, optical=optical, sar=sar, dem=dem))
    paths = {file.name: folder / f"{file.name}.tif" for file in files}
    paths |= {"legend": folder / "legend.yaml", "scene": folder / "scene.json"}
    for path in paths.values():
        claim(path, overwrite=overwrite)
    write_rasters(files, paths, block_px=block_px, overwrite=overwrite)
    write_text(paths["legend"], yaml.safe_dump(LEGEND.to_dict(), sort_keys=False))
    write_text(paths["scene"], json.dumps(asdict(recipe), indent=2) + "\n")
    return paths


def write_rasters(files: Iterable[File], paths: Mapping[str, Path], *, block_px: int, overwrite: bool) -> None:
    """Write each raster to the path of its name, block by block; raises OutputError."""
    for file in files:
        with RasterWriter(
            paths[file.name], file.grid, bands=file.bands, dtype=file.dtype, nodata=file.nodata, overwrite=overwrite
        ) as writer:
            for window in partition(file.grid.window, block_px, block_px):
                writer.write(window, file.read(window).astype(file.dtype, copy=False))
