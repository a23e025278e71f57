"""Scene: aligned rasters of one place (by sensor and date) with its labels, all on one Grid, read by windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, CovermapError, GridError, UnreadableError
from covermap.core.legend import IGNORE, Legend
from covermap.core.sensors import find_sensor
from covermap.core.types import OwnStatistics, Sample
from covermap.data.indices import Channels, choose, refuse
from covermap.data.labels import ChipClasses, ChipLabels, Labels, find_legend, is_vector, open_labels
from covermap.data.source import Found, Refuse, SceneFiles, find_scenes
from covermap.data.target import Target, open_target
from covermap.data.transitions import Changed, chosen_labels, open_transitions
from covermap.geo.band_source import LOWEST_DB, Quantity
from covermap.geo.delivered import find_granule
from covermap.geo.grid import Grid, Window, similar_gsd, spread
from covermap.geo.raster import Raster, files_behind, open_dataset, open_raster, own_file, stack_dates

S2_OFFSET = 1000
"""Sentinel-2 products since processing baseline 04.00 (25 January 2022) hold reflectance x 1e4 + 1000 (ESA)."""


S2_DARKEST = 950
"""Smallest number that products with the offset hold: the atmospheric correction of L2A undershoots 0 a little."""


@dataclass
class Scene:
    """One place: `rasters[sensor]` share `grid`; `added[sensor][t]` is added to that sensor's numbers of date t.

    channels: of sensors with indices, what is made of their rasters' bands. images: where the rasters come from.
    part, place: what the data set's layout says of it (see SceneFiles). statistics: its own, for models that are
    normalised by them (data.stats.with_own_statistics). target: numbers to be learnt. chip_classes: all that occur.
    """

    name: str
    grid: Grid
    rasters: Mapping[str, Raster]
    labels: Labels | None = None
    labels_path: str | None = None
    added: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    images: tuple[ImageConfig, ...] = ()
    part: str | None = None
    place: str | None = None
    channels: Mapping[str, Channels] = field(default_factory=dict)
    statistics: OwnStatistics = field(default_factory=dict)
    target: Target | None = None
    chip_classes: ChipClasses | None = None
    more_labels: tuple[str, ...] = ()
    """Further label files, as those of two dates."""

    @property
    def bands(self) -> dict[str, tuple[str, ...]]:
        """Names of the channels of each sensor: bands of its files, and indices made of them."""
        return {
            sensor: self.channels[sensor].names if sensor in self.channels else raster.bands
            for sensor, raster in self.rasters.items()
        }

    @property
    def legend(self) -> Legend | None:
        return self.labels.legend if self.labels else None

    @property
    def paths(self) -> list[str]:
        """All files that the scene reads, by the names they were given."""
        found = [own_file(path) for raster in self.rasters.values() for path in raster.paths]
        return [*found, *filter(None, [self.labels_path]), *self.more_labels]

    @property
    def files(self) -> list[str]:
        """All local files that the scene's pixels, labels and targets come from."""
        rasters = [*self.rasters.values(), *(raster for raster, _ in (self.target.bands if self.target else ()))]
        found = [file for raster in rasters for path in raster.paths for file in files_behind(path)]
        for path in (*filter(None, [self.labels_path]), *self.more_labels):
            found += [path] if is_vector(path) else files_behind(path)
        return list(dict.fromkeys(found))

    def read(self, window: Window, *, labels: bool = False, target: bool = False) -> Sample:
        """Values of all sensors, the pixels valid in all of them, and labels and target when asked.

        Windows may reach outside.
        """
        image: dict[str, npt.NDArray[np.generic]] = {}
        masks = []
        for sensor, raster in self.rasters.items():
            values, valid = raster.read(window)
            if any(self.added.get(sensor, ())):
                shift = np.outer(self.added[sensor], np.logical_not(raster.differences)).astype(np.float32)
                values = values.astype(np.float32) + shift[:, :, None, None]
            made = self.channels.get(sensor)
            image[sensor] = made.of(values, raster.bands) if made else values
            masks.append(valid)
        # A sensor of one date (elevation) counts for every date of the others.
        valid = masks[0] if len(masks) == 1 else np.logical_and.reduce(np.broadcast_arrays(*masks))
        index = self.read_labels(window) if labels else None
        key = f"{self.name}:{window.row},{window.col}"
        place = self.grid.lat_lon(window)
        numbers = self.target.read(window) if target and self.target else None
        return Sample(image, valid, index, self.dates, place, key, self.bands, self.statistics, numbers)

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
    placeless = sum(scene.grid.crs is None for scene in scenes)
    return [
        f"{count} of {len(scenes)} scenes have no {what}: the model's code of it is left at 0 there"
        for what, count, key in (("date", undated, "dates"), ("location", placeless, "location"))
        if key in uses and count
    ]


def open_scenes(config: DataConfig, *, labels: bool = True) -> list[Scene]:
    """The scenes that a config describes; files are paired by name, never by order. Raises on any mismatch."""
    return open_found(find_scenes(config), config, labels=labels)


def open_found(found: Found, config: DataConfig, *, labels: bool = True, refuse: Refuse | None = None) -> list[Scene]:
    """The scenes of a layout; the config says how labels are read and aligned.

    Of several scenes those whose files cannot be read are left out and named in the notes; nothing stands in for them.
    refuse: takes whatever is wrong with a scene, which is then left out.
    """
    found = chosen_labels(found, config) if labels else found
    paths = [
        files.labels[key].path
        for files in found.scenes for key in ("class", "before", "after") if key in files.labels and labels
    ]  # fmt: skip
    chips = sum(files.chip_class is not None for files in found.scenes) if labels else 0
    several = labels and any(files.chip_classes for files in found.scenes)
    needed = paths or chips or several
    legend = find_legend(config, list(dict.fromkeys(paths)), own=found.legend) if needed else None
    scenes: list[Scene] = []
    lost: list[CovermapError] = []
    for files in found.scenes:
        try:
            scene = _open_scene(files if labels else replace(files, labels={}), config, legend)
            scenes.append(_in_order_of(scenes[0] if scenes else scene, scene))
        except CovermapError as error:
            if refuse is not None:
                kind = "unreadable" if isinstance(error, UnreadableError) else "does not fit"
                refuse(kind, error, [str(image.path) for image in files.images], [files.name])
            elif not isinstance(error, UnreadableError):
                raise
            lost.append(error)
    if not scenes:
        raise lost[0]
    scenes[0].notes[:0] = found.notes  # what the layout left out, said once
    if lost and refuse is None:
        listed = "; ".join(error.message for error in lost[:5]) + (" ..." if len(lost) > 5 else "")
        scenes[0].notes.append(f"left out {len(lost)} of {len(found.scenes)} scenes that cannot be read: {listed}")
    if chips:
        scenes[0].notes.append(f"{chips:,} chips have one class each, which counts for all of their pixels")
    return scenes


def _open_scene(files: SceneFiles, config: DataConfig, legend: Legend | None) -> Scene:
    by_sensor: dict[str, list[ImageConfig]] = {}
    images = tuple(map(_described, files.images))
    for image in images:
        by_sensor.setdefault(image.sensor or "image", []).append(image)
    stacked: dict[str, Raster] = {}
    added: dict[str, tuple[float, ...]] = {}
    channels: dict[str, Channels] = {}
    there: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    for key, dates in by_sensor.items():
        _require_one_scale(key, dates)
        opened = [_open_image(image, config.indices, notes) for image in dates]
        stacked[key] = stack_dates([one.raster for one in opened])
        added[key] = tuple(one.added for one in opened)
        there[key] = opened[0].bands
        if opened[0].channels:
            channels[key] = opened[0].channels
    for index in config.indices:
        if not any(index in made.indices for made in channels.values()):
            refuse(index, there)
    counts = {key: len(raster.sources) for key, raster in stacked.items()}
    if len(set(counts.values()) - {1}) > 1:
        listed = ", ".join(f"{key} {count}" for key, count in counts.items())
        raise ConfigError(f"sensors have different numbers of dates: {listed}", fix="give as many of each, or one")
    # Of equals the first, whatever rounding says.
    grid = min((raster.grid for raster in stacked.values()), key=lambda g: round(g.gsd_m, 6))
    if config.gsd_m:
        finer = {key for key, raster in stacked.items() if raster.grid is grid or raster.grid.gsd_m < config.gsd_m}
        images = tuple(
            image.model_copy(update={"gsd_m": config.gsd_m}) if (image.sensor or "image") in finer else image
            for image in images
        )
        grid = grid.coarsen(config.gsd_m / grid.gsd_m)
    for key, raster in stacked.items():
        if not raster.grid.is_same(grid):
            if grid.overlap(raster.grid) == 0:
                raise GridError(
                    f"{raster.name} does not overlap {key} ({grid.describe()})", fix="check both with covermap info"
                )
            stacked[key] = raster.on(grid)
            notes.append(f"{raster.name} is brought from {raster.grid.describe()} to {grid.describe()}")
    image_name = next(iter(stacked.values())).name
    labels: Labels | None = None
    classes = files.labels.get("class")
    if legend and files.chip_class is not None:
        code = legend.encode(np.array([files.chip_class]), unknown=config.unknown_codes, where=files.name)
        labels, classes = ChipLabels(grid, legend, int(code[0])), None
    if classes and legend:
        labels = open_labels(classes, grid=grid, config=config, legend=legend, image_name=image_name)
    path = classes.path if classes and labels else None
    more: tuple[str, ...] = ()
    numbers = open_target(files.targets, config.target, grid, labels, where=image_name)
    if config.label in ("change", "dates") and files.labels:
        pair = open_transitions(files, grid=grid, config=config, legend=legend, image_name=image_name)
        labels, numbers = Changed(pair), pair if config.label == "dates" else None
        more = tuple(dict.fromkeys(file.path for file in files.labels.values()))
    notes += labels.notes if labels else []
    return Scene(
        files.name, grid, stacked, labels, path, added, notes, images, files.part, files.place, channels,
        target=numbers, chip_classes=_chip_classes(files, config, legend), more_labels=more,
    )  # fmt: skip


def _chip_classes(files: SceneFiles, config: DataConfig, legend: Legend | None) -> ChipClasses | None:
    """All classes that occur in a chip, where the layout lists them."""
    if legend is None or not files.chip_classes:
        return None
    codes = legend.encode(np.array(files.chip_classes), unknown=config.unknown_codes, where=files.name)
    return ChipClasses(legend, tuple(legend.codes[i] for i in sorted(set(codes.tolist()) - {IGNORE})))


def _described(image: ImageConfig) -> ImageConfig:
    """An image of a product as delivered, with the sensor and date that its metadata says; others as they are.

    Raises ConfigError for a scaling of one's own: the metadata has it.
    """
    granule = find_granule(image.path)
    if granule is None:
        return image
    if image.scale is not None or image.offset not in ("auto", 0):
        raise ConfigError(
            f"{granule.name}: scale and offset are in its metadata, {image.scale} and {image.offset} were given",
            fix="leave both out",
        )
    if image.date is not None and image.date[:10] != granule.date:
        raise ConfigError(f"{granule.name} is of {granule.date}, {image.date} was given", fix="leave the date out")
    return image.model_copy(update={"sensor": image.sensor or granule.sensor, "date": granule.date})


def _require_one_scale(key: str, images: Sequence[ImageConfig]) -> None:
    """Dates of one sensor share one scaling; only the offset that is found by itself may differ."""
    for what in ("scale", "offset", "nodata", "quantity"):
        values = list(dict.fromkeys(getattr(image, what) for image in images))
        if len(values) > 1:
            raise ConfigError(
                f"the dates of {key} have different values of {what}: {', '.join(map(str, values))}",
                fix="bring them to one scale and nodata first, or name them as different sensors",
            )


class _Opened(NamedTuple):
    """The bands to read, what is to be added to their numbers, all bands of the file, and what is made of them."""

    raster: Raster
    added: float
    bands: tuple[str, ...]
    channels: Channels | None


def _open_image(image: ImageConfig, indices: Sequence[str], notes: list[str]) -> _Opened:
    sensor = find_sensor(image.sensor) if image.sensor else None
    raster = open_raster(
        image.path, sensor=sensor, bands=image.bands, gsd_m=image.gsd_m, nodata=image.nodata, date=image.date,
        variable=image.variable, tiles=image.tiles, bounds=image.bounds, clouds=image.clouds,
    )  # fmt: skip
    notes += _cloud_notes(raster)
    if image.cloud_path == "auto" and not any(raster.clouds) and find_granule(image.path):
        notes.append(f"{raster.name}: no mask of its clouds is read (level 1C before baseline 04.00 has polygons)")
    # The user's own offset is applied with the scale, not here. All bands are asked, also those that are not used.
    asked = image.offset == "auto" and image.sensor == "sentinel2" and find_granule(image.path) is None
    added = float(-sentinel2_offset(raster)) if asked else 0.0
    if added:
        notes.append(
            f"{raster.name}: no number is below {S2_DARKEST}, so the +{S2_OFFSET} of baseline 04.00 is taken off"
        )
    if image.quantity and sensor and sensor.unit != "dB":
        raise ConfigError(
            f"{raster.name}: quantity {image.quantity} is of radar, not of {sensor.name}", fix="leave quantity out"
        )
    if image.quantity:
        raster = _in_decibel(raster, image.quantity, notes)
    used = raster.select(image.use, sensor=sensor) if image.use else raster
    if any(used.differences) and image.offset not in ("auto", 0.0):
        raise ConfigError(
            f"offset {image.offset:g} would be added to differences of bands of {raster.name}, where it cancels",
            fix="leave out the offset, or the difference in use",
        )
    made = choose(indices, image, raster.bands)
    if not made:
        return _Opened(used, added, raster.bands, None)
    if double := [index for index in made if index in used.bands]:
        raise BandError(
            f"{raster.name} has a band {double[0]} of its own",
            fix=f"leave {double[0]} out of data.indices, or name the bands to use without it: use: [...]",
        )
    channels = Channels((*used.bands, *made), made, *scaling(image))
    return _Opened(raster.select(channels.to_read(raster.bands)), added, raster.bands, channels)


def _in_decibel(raster: Raster, quantity: Quantity, notes: list[str]) -> Raster:
    """The raster in dB; raises BandError where more than a tenth is below 0, so that it probably is already."""
    grid = raster.grid
    side = min(grid.height, grid.width, 512)
    values, valid = raster.read(Window((grid.height - side) // 2, (grid.width - side) // 2, side, side))
    seen = values[:, :, valid.all(0)]
    if seen.size and (seen < 0).mean() > 0.1:
        raise BandError(
            f"{raster.name} is said to hold radar {quantity}, but {(seen < 0).mean():.0%} of its numbers are below 0",
            fix="if it is in dB already, leave quantity out",
        )
    if seen.size and (share := float((seen <= 0).mean())):
        what = f"{share:.2g} of its numbers (in the middle) are 0 or below and count as {LOWEST_DB:g} dB"
        notes.append(f"{raster.name}: {what}; if nothing was seen there, set nodata: 0")
    return raster.in_decibel(quantity)


def scaling(image: ImageConfig) -> tuple[float, float]:
    """Scale and offset from file number to physical value, what `auto` takes off the numbers left aside."""
    scale = image.scale if image.scale is not None else (find_sensor(image.sensor).scale if image.sensor else 1.0)
    return scale, 0.0 if image.offset == "auto" else image.offset


def _cloud_notes(raster: Raster, side: int = 512) -> list[str]:
    """What share of an image its cloud mask takes away, by pixels spread over it."""
    notes = []
    for mask in filter(None, raster.clouds):
        dataset = open_dataset(mask.path)
        shape = min(side, dataset.height), min(side, dataset.width)
        codes = dataset.read(mask.indexes, out_shape=(len(mask.indexes), *shape))
        filled = replace(mask, kinds=()).clear(codes) if mask.specification != "mask" else np.ones(shape, bool)
        share = 1 - mask.clear(codes)[filled].mean() if filled.any() else 0.0
        notes.append(f"{Path(mask.path).name}: about {share:.0%} is masked as {', '.join(mask.kinds)}")
    return notes


def sentinel2_offset(raster: Raster, *, side: int = 256) -> int:
    """1000 when the files hold whole numbers and none in spread windows is darker than the offset allows; else 0.

    The files are read as they are, so the bands in use and the working pixel size change nothing.
    """
    seen = False
    for file in raster.by_file():
        if np.dtype(file.dtype).kind == "f":
            return 0
        for window in spread(file.grid, side):
            values, valid = file.read(window)
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
    for sensor, bands in first.bands.items():
        other = scene.bands[sensor]
        if set(other) != set(bands) or len(scene.rasters[sensor].sources) != len(first.rasters[sensor].sources):
            raise BandError(
                f"scene {scene.name} has {', '.join(other)}, {first.name} has {', '.join(bands)}",
                fix="give every scene the same bands and dates, or name them with use: [...]",
            )
    targets = [", ".join(one.target.names) if one.target else "none" for one in (first, scene)]
    if targets[0] != targets[1]:
        raise BandError(
            f"scene {scene.name} has the targets {targets[1]}, {first.name} has {targets[0]}",
            fix="give every scene the same: data.target.bands and use",
        )
    rasters = {key: scene.rasters[key].select(r.bands) for key, r in first.rasters.items()}
    channels = {key: replace(made, names=first.bands[key]) for key, made in scene.channels.items()}
    return replace(scene, rasters=rasters, channels=channels)
