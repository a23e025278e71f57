"""Scene: aligned rasters of one place (by sensor and date) with its labels, all on one Grid, read by windows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, GridError
from covermap.core.legend import IGNORE, Legend
from covermap.core.sensors import find_sensor
from covermap.core.types import Sample
from covermap.data.labels import ChipLabels, RasterLabels, find_legend, is_vector, open_labels
from covermap.data.source import Found, SceneFiles, find_scenes
from covermap.geo.grid import Grid, Window, similar_gsd
from covermap.geo.raster import Raster, files_behind, open_raster, stack_dates
from covermap.geo.rasterize import VectorLabels

S2_OFFSET = 1000
"""Sentinel-2 products since processing baseline 04.00 (25 January 2022) hold reflectance x 1e4 + 1000 (ESA)."""


S2_DARKEST = 950
"""Smallest number that products with the offset hold: the atmospheric correction of L2A undershoots 0 a little."""


@dataclass
class Scene:
    """One place: `rasters[sensor]` share `grid`; `added[sensor][t]` is added to that sensor's numbers of date t.

    images: where the rasters come from. part, place: what the data set's layout says of it (see SceneFiles).
    """

    name: str
    grid: Grid
    rasters: Mapping[str, Raster]
    labels: RasterLabels | VectorLabels | ChipLabels | None = None
    labels_path: str | None = None
    added: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    images: tuple[ImageConfig, ...] = ()
    part: str | None = None
    place: str | None = None

    @property
    def legend(self) -> Legend | None:
        return self.labels.legend if self.labels else None

    @property
    def paths(self) -> list[str]:
        """All files that the scene reads, by the names they were given."""
        found = [path for raster in self.rasters.values() for path in raster.paths]
        return [*found, self.labels_path] if self.labels_path else found

    @property
    def files(self) -> list[str]:
        """All local files that the scene's pixels and labels come from."""
        found = [file for raster in self.rasters.values() for path in raster.paths for file in files_behind(path)]
        if self.labels_path:
            found += [self.labels_path] if is_vector(self.labels_path) else files_behind(self.labels_path)
        return list(dict.fromkeys(found))

    def read(self, window: Window, *, labels: bool = False) -> Sample:
        """Values of all sensors, the pixels valid in all of them, and labels when asked; windows may reach outside."""
        image: dict[str, npt.NDArray[np.generic]] = {}
        masks = []
        for sensor, raster in self.rasters.items():
            values, valid = raster.read(window)
            if any(self.added.get(sensor, ())):
                values = values.astype(np.float32) + np.asarray(self.added[sensor], np.float32)[:, None, None, None]
            image[sensor] = values
            masks.append(valid)
        # A sensor of one date (elevation) counts for every date of the others.
        valid = masks[0] if len(masks) == 1 else np.logical_and.reduce(np.broadcast_arrays(*masks))
        index = self.read_labels(window) if labels else None
        key = f"{self.name}:{window.row},{window.col}"
        bands = {sensor: raster.bands for sensor, raster in self.rasters.items()}
        return Sample(image, valid, index, self.dates, self.grid.lat_lon(window), key, bands)

    @property
    def dates(self) -> tuple[str | None, ...]:
        """Dates of the sensor that has the most; of equals, the one that knows most of them."""
        found = [raster.dates for raster in self.rasters.values()]
        return max(found, key=lambda dates: (len(dates), sum(date is not None for date in dates)))

    def read_labels(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class indices (H, W), IGNORE where unknown, also outside of the scene."""
        if self.labels is None:
            return np.full((window.height, window.width), IGNORE, np.uint8)
        return self.labels.read(window)


def unknown_coordinates(scenes: Sequence[Scene], uses: Sequence[str]) -> list[str]:
    """Notes on dates and places that a model takes into account (`dates`, `location`), but that are not known."""
    undated = sum(any(date is None for date in scene.dates) for scene in scenes)
    placeless = sum(scene.grid.lat_lon(scene.grid.window) is None for scene in scenes)
    return [
        f"{count} of {len(scenes)} scenes have no {what}: the model's code of it is left at 0 there"
        for what, count, key in (("date", undated, "dates"), ("location", placeless, "location"))
        if key in uses and count
    ]


def open_scenes(config: DataConfig, *, labels: bool = True) -> list[Scene]:
    """The scenes that a config describes; files are paired by name, never by order. Raises on any mismatch."""
    return open_found(find_scenes(config), config, labels=labels)


def open_found(found: Found, config: DataConfig, *, labels: bool = True) -> list[Scene]:
    """The scenes of a layout; the config says how labels are read and aligned."""
    paths = [files.labels["class"].path for files in found.scenes if "class" in files.labels] if labels else []
    chips = sum(files.chip_class is not None for files in found.scenes) if labels else 0
    legend = find_legend(config, list(dict.fromkeys(paths)), own=found.legend) if paths or chips else None
    scenes = [_open_scene(files, config, legend) for files in found.scenes]
    if chips:
        scenes[0].notes.append(f"{chips:,} chips have one class each, which counts for all of their pixels")
    return [_in_order_of(scenes[0], scene) for scene in scenes]


def _open_scene(files: SceneFiles, config: DataConfig, legend: Legend | None) -> Scene:
    by_sensor: dict[str, list[ImageConfig]] = {}
    for image in files.images:
        by_sensor.setdefault(image.sensor or "image", []).append(image)
    stacked: dict[str, Raster] = {}
    added: dict[str, tuple[float, ...]] = {}
    notes: list[str] = []
    for key, dates in by_sensor.items():
        _require_one_scale(key, dates)
        opened = [_open_image(image, notes) for image in dates]
        stacked[key] = stack_dates([raster for raster, _ in opened])
        added[key] = tuple(offset for _, offset in opened)
    counts = {key: len(raster.sources) for key, raster in stacked.items()}
    if len(set(counts.values()) - {1}) > 1:
        listed = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise ConfigError(f"sensors have different numbers of dates: {listed}", fix="give as many of each, or one")
    grid = min((raster.grid for raster in stacked.values()), key=lambda g: g.gsd_m)
    for key, raster in stacked.items():
        if not raster.grid.is_same(grid):
            if grid.overlap(raster.grid) == 0:
                raise GridError(
                    f"{raster.name} does not overlap {key} ({grid.describe()})", fix="check both with covermap info"
                )
            stacked[key] = raster.on(grid)
            notes.append(f"{raster.name} is brought from {raster.grid.describe()} to {grid.describe()}")
    image_name = next(iter(stacked.values())).name
    labels: RasterLabels | VectorLabels | ChipLabels | None = None
    target = files.labels.get("class")
    if legend and files.chip_class is not None:
        index = legend.encode(np.array([files.chip_class]), unknown=config.unknown_codes, where=files.name)
        labels, target = ChipLabels(grid, legend, int(index[0])), None
    if target and legend:
        labels = open_labels(target, grid=grid, config=config, legend=legend, image_name=image_name)
    notes += labels.notes if labels else []
    path = target.path if target and labels else None
    return Scene(
        files.name, grid, stacked, labels, path, added, notes, files.images, files.part, files.place
    )  # fmt: skip


def _require_one_scale(key: str, images: Sequence[ImageConfig]) -> None:
    """Dates of one sensor share one scaling; only the offset that is found by itself may differ."""
    for what in ("scale", "offset", "nodata"):
        values = list(dict.fromkeys(getattr(image, what) for image in images))
        if len(values) > 1:
            raise ConfigError(
                f"the dates of {key} have different values of {what}: {', '.join(map(str, values))}",
                fix="bring them to one scale and nodata first, or name them as different sensors",
            )


def _open_image(image: ImageConfig, notes: list[str]) -> tuple[Raster, float]:
    """The bands to use, and what is to be added to their numbers."""
    sensor = find_sensor(image.sensor) if image.sensor else None
    raster = open_raster(
        image.path, sensor=sensor, bands=image.bands, gsd_m=image.gsd_m, nodata=image.nodata, date=image.date
    )
    # The user's own offset is applied with the scale, not here. All bands are asked, also those that are not used.
    added = float(-sentinel2_offset(raster)) if image.offset == "auto" and image.sensor == "sentinel2" else 0.0
    if added:
        notes.append(
            f"{raster.name}: no number is below {S2_DARKEST}, so the +{S2_OFFSET} of baseline 04.00 is taken off"
        )
    return raster.select(image.use, sensor=sensor) if image.use else raster, added


def sentinel2_offset(raster: Raster, *, probes: int = 16, side: int = 256) -> int:
    """1000 when the files hold whole numbers and none in spread windows is darker than the offset allows; else 0.

    The files are read as they are, so the bands in use and the working pixel size change nothing.
    """
    seen = False
    for file in raster.by_file():
        if np.dtype(file.dtype).kind == "f":
            return 0
        rows = np.linspace(0, max(0, file.grid.height - side), int(np.sqrt(probes))).astype(int)
        cols = np.linspace(0, max(0, file.grid.width - side), int(np.sqrt(probes))).astype(int)
        for row, col in itertools.product(np.unique(rows).tolist(), np.unique(cols).tolist()):
            values, valid = file.read(Window(row, col, side, side).intersect(file.grid.window))
            good = valid[:, None] & (values > 0)
            if good.any():
                seen = True
                if values[good].min() < S2_DARKEST:
                    return 0
    return S2_OFFSET if seen else 0


def _in_order_of(first: Scene, scene: Scene) -> Scene:
    """The scene with its bands in the first one's order; raises BandError or GridError where they do not match."""
    if not similar_gsd(scene.grid.gsd_m, first.grid.gsd_m):
        raise GridError(
            f"scene {scene.name} has pixels of {scene.grid.gsd_m:.4g} m, {first.name} of {first.grid.gsd_m:.4g} m",
            fix=f"work at one pixel size: gsd_m: {max(scene.grid.gsd_m, first.grid.gsd_m):.4g} in the image's entry",
        )
    for sensor, raster in first.rasters.items():
        other = scene.rasters[sensor]
        if set(other.bands) != set(raster.bands) or len(other.sources) != len(raster.sources):
            raise BandError(
                f"scene {scene.name} has {', '.join(other.bands)}, {first.name} has {', '.join(raster.bands)}",
                fix="give every scene the same bands and dates, or name them with use: [...]",
            )
    return replace(scene, rasters={key: scene.rasters[key].select(r.bands) for key, r in first.rasters.items()})
