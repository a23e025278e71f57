"""Scene: aligned rasters of one place (by sensor and date) with its labels, all on one Grid, read by windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.config import DataConfig, ImageConfig, expand
from covermap.core.errors import BandError, ConfigError, DataError, GridError
from covermap.core.legend import IGNORE, Legend
from covermap.core.sensors import find_sensor
from covermap.core.types import Sample
from covermap.data.labels import RasterLabels, open_labels
from covermap.geo.grid import Grid, Window
from covermap.geo.raster import Raster, is_remote, open_raster, stack_dates
from covermap.geo.rasterize import VectorLabels

S2_OFFSET = 1000
"""Sentinel-2 products since processing baseline 04.00 (25 January 2022) hold reflectance x 1e4 + 1000 (ESA)."""


S2_DARKEST = 950
"""Smallest number that products with the offset hold: the atmospheric correction of L2A undershoots 0 a little."""


@dataclass
class Scene:
    """One place: `rasters[sensor]` share `grid`; `added[sensor]` is added to every number of that sensor."""

    name: str
    grid: Grid
    rasters: Mapping[str, Raster]
    labels: RasterLabels | VectorLabels | None = None
    labels_path: str | None = None
    added: Mapping[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def legend(self) -> Legend | None:
        return self.labels.legend if self.labels else None

    @property
    def paths(self) -> list[str]:
        """All files that the scene reads."""
        found = [path for raster in self.rasters.values() for path in raster.paths]
        return [*found, self.labels_path] if self.labels_path else found

    def read(self, window: Window, *, labels: bool = False) -> Sample:
        """Values of all sensors, the pixels valid in all of them, and labels when asked; windows may reach outside."""
        image: dict[str, npt.NDArray[np.generic]] = {}
        masks = []
        for sensor, raster in self.rasters.items():
            values, valid = raster.read(window)
            if self.added.get(sensor):
                values = values.astype(np.float32) + self.added[sensor]
            image[sensor] = values
            masks.append(valid)
        # Sensors may have different numbers of dates: a pixel counts where every sensor has seen it once.
        valid = np.logical_and.reduce([m.any(0) for m in masks])[None]
        if len({m.shape[0] for m in masks}) == 1:
            valid = np.logical_and.reduce(masks)
        index = self.read_labels(window) if labels else None
        dates = next(iter(self.rasters.values())).dates
        key = f"{self.name}:{window.row},{window.col}"
        return Sample(image, valid, index, dates, self.grid.lat_lon(window), key)

    def read_labels(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class indices (H, W), IGNORE where unknown, also outside of the scene."""
        if self.labels is None:
            return np.full((window.height, window.width), IGNORE, np.uint8)
        return self.labels.read(window)


def open_scenes(config: DataConfig, *, labels: bool = True) -> list[Scene]:
    """The scenes that a config describes; patterns are paired by file stem, never by order. Raises on any mismatch."""
    files = _scene_files(config)
    label_paths = _label_paths(config, list(files)) if labels and config.labels else {}
    scenes = [_open_scene(name, sources, label_paths.get(name), config) for name, sources in files.items()]
    return [_in_order_of(scenes[0], scene) for scene in scenes]


def scene_images(config: DataConfig, name: str) -> list[ImageConfig]:
    """The image sources of one scene, their patterns replaced by its files."""
    return [image.model_copy(update={"path": path}) for image, path in _scene_files(config)[name]]


def _scene_files(config: DataConfig) -> dict[str, list[tuple[ImageConfig, str | list[str]]]]:
    """For each scene its image sources with their files. One file each: one scene, whatever the files are called."""
    found = [_by_stem(image) for image in config.images]
    if all(len(files) == 1 for files in found):
        sources = [(image, next(iter(files.values()))) for image, files in zip(config.images, found, strict=True)]
        return {next(iter(found[0])): sources}
    for image, files in zip(config.images[1:], found[1:], strict=True):
        _require_same_stems(list(found[0]), list(files), f"{config.images[0].path}", f"{image.path}")
    return {
        stem: [(image, files[stem]) for image, files in zip(config.images, found, strict=True)] for stem in found[0]
    }


def _by_stem(image: ImageConfig) -> dict[str, str | list[str]]:
    if isinstance(image.path, list):
        return {Path(image.path[0]).stem: image.path}
    files = expand(image.path)
    found: dict[str, str | list[str]] = {Path(file).stem: file for file in files}
    if len(found) < len(files):
        raise DataError(
            f"{image.path}: {len(files)} files have only {len(found)} different names",
            fix="give each scene its own name",
        )
    return found


def _label_paths(config: DataConfig, stems: Sequence[str]) -> dict[str, str]:
    assert config.labels is not None
    files = expand(config.labels)
    if "*" not in config.labels:
        return dict.fromkeys(stems, files[0])
    found = {Path(file).stem: file for file in files}
    _require_same_stems(stems, list(found), "the images", config.labels)
    return found


def _require_same_stems(first: Sequence[str], second: Sequence[str], first_name: str, second_name: str) -> None:
    lone = sorted(set(first) ^ set(second))
    if lone:
        raise DataError(
            f"{first_name} ({len(first)} files) and {second_name} ({len(second)} files) do not pair by name: "
            f"{', '.join(lone[:5])}{' ...' if len(lone) > 5 else ''} stand alone",
            fix="give both files of a pair the same name, or narrow the pattern",
        )


def _open_scene(
    name: str, sources: Sequence[tuple[ImageConfig, str | list[str]]], label_path: str | None, config: DataConfig
) -> Scene:
    by_sensor: dict[str, list[Raster]] = {}
    added: dict[str, float] = {}
    notes: list[str] = []
    for image, path in sources:
        raster = _open_image(image, path)
        key = image.sensor or "image"
        offset = _file_offset(image, raster, notes)
        if added.setdefault(key, offset) != offset:
            raise ConfigError(
                f"{raster.name}: dates of {key} have different offsets", fix="prepare them to one scale first"
            )
        by_sensor.setdefault(key, []).append(raster)
    stacked = {key: stack_dates(rasters) if len(rasters) > 1 else rasters[0] for key, rasters in by_sensor.items()}
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
    labels = open_labels(label_path, grid=grid, config=config, image_name=image_name) if label_path else None
    offsets = {key: offset for key, offset in added.items() if offset}
    notes += labels.notes if labels else []
    return Scene(name, grid, stacked, labels, label_path, offsets, notes)


def _open_image(image: ImageConfig, path: str | list[str]) -> Raster:
    sensor = find_sensor(image.sensor) if image.sensor else None
    raster = open_raster(
        path, sensor=sensor, bands=image.bands, gsd_m=image.gsd_m, nodata=image.nodata, date=image.date
    )
    return raster.select(image.use, sensor=sensor) if image.use else raster


def _file_offset(image: ImageConfig, raster: Raster, notes: list[str]) -> float:
    if image.offset != "auto":
        return 0.0  # the user's own offset is applied with the scale, not here
    if image.sensor != "sentinel2" or np.dtype(raster.dtype).kind == "f" or is_remote(raster.paths[0]):
        return 0.0
    found = sentinel2_offset(raster)
    if found:
        notes.append(
            f"{raster.name}: no number is below {S2_DARKEST}, so the +{S2_OFFSET} of baseline 04.00 is taken off"
        )
    return -float(found)


def sentinel2_offset(raster: Raster, *, probes: int = 16, side: int = 256) -> int:
    """1000 when no valid pixel of spread windows is darker than the offset allows; otherwise 0."""
    rows = np.linspace(0, max(0, raster.grid.height - side), int(np.sqrt(probes))).astype(int)
    cols = np.linspace(0, max(0, raster.grid.width - side), int(np.sqrt(probes))).astype(int)
    seen = False
    for row in np.unique(rows):
        for col in np.unique(cols):
            window = Window(int(row), int(col), side, side).intersect(raster.grid.window)
            values, valid = raster.read(window)
            good = valid[:, None] & (values > 0)
            if good.any():
                seen = True
                if values[good].min() < S2_DARKEST:
                    return 0
    return S2_OFFSET if seen else 0


def _in_order_of(first: Scene, scene: Scene) -> Scene:
    """The scene with its bands in the first one's order; raises BandError where they are not the same."""
    for sensor, raster in first.rasters.items():
        other = scene.rasters[sensor]
        if set(other.bands) != set(raster.bands) or len(other.sources) != len(raster.sources):
            raise BandError(
                f"scene {scene.name} has {', '.join(other.bands)}, {first.name} has {', '.join(raster.bands)}",
                fix="give every scene the same bands and dates, or name them with use: [...]",
            )
    return replace(scene, rasters={key: scene.rasters[key].select(r.bands) for key, r in first.rasters.items()})
