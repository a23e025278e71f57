"""Items: the scenes of a list of STAC items for a trained model, read by the code of the training source `stac`.

path of a list -> Stac.items -> StacImage -> ImageConfig with the model's bands -> {scene: its images}
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from operator import itemgetter

from covermap.core.config import CloudConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, DataError
from covermap.core.sensors import find_sensor
from covermap.core.types import InputSpec, SensorInput
from covermap.data.indices import INDICES, sources
from covermap.data.source import SceneFiles, by_place
from covermap.data.sources.stac import Stac, image_of
from covermap.geo.stac import StacImage


def scenes_for(spec: InputSpec, image: ImageConfig) -> tuple[dict[str, tuple[ImageConfig, ...]], list[str]]:
    """{scene: its images} of the STAC items that an image's path names, with a model's bands, by name; and notes.

    A scene is an item, called as it; for a model of several dates a tile with all its items, as in training. Raises
    DataError, BandError for items of another sensor, without a band of the model, or with one name.
    """
    path = str(image.path)
    if image.bands or image.date or image.variable or image.tiles:
        raise ConfigError(f"{path}: STAC items name their bands and dates", fix="leave bands and date out")
    source = Stac(path, sensor=image.sensor, limit=sys.maxsize)
    found = source.items()
    entry = _entry_of(spec, found, path)
    images = [(one.name, one.tile, _with_own(image, image_of(one, _bands_for(entry, one)))) for one in found]
    if entry.num_dates > 1:
        tiles = by_place(((tile, own) for _, tile, own in images), lambda *_: {}, series=True)
        _require_dates(tiles, entry, path)
        images_of = [(files.name, files.images) for files in tiles]
    else:
        images_of = [(name, (own,)) for name, _, own in images]
    scenes = {_file_name(name): own for name, own in sorted(images_of, key=itemgetter(0))}
    if len(scenes) < len(images_of):
        names = [_file_name(name) for name, _ in images_of]
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has several items called {double}", fix="keep one: each map is called as its item")
    return scenes, source.notes


def _entry_of(spec: InputSpec, items: Sequence[StacImage], path: str) -> SensorInput:
    """What the model takes of the one sensor that all items are of; raises BandError."""
    kinds = {image.sensor: image for image in items}
    entries = {entry.sensor: entry for entry in spec.sensors}
    if len(kinds) > 1:
        listed = ", ".join(f"{image.name} is of {sensor}" for sensor, image in kinds.items())
        raise BandError(f"{path} has items of several sensors: {listed}", fix="give the items of one sensor")
    ((sensor, image),) = kinds.items()
    if sensor in entries:
        return entries[sensor]
    if "image" in entries:
        raise BandError(
            f"{image.name} is {find_sensor(sensor).unit} of {sensor}; the model was trained without a sensor, so its "
            "unit is not known", fix=f"train it again with data.sensor: {sensor}",
        )  # fmt: skip
    raise BandError(
        f"the item {image.name} is of {sensor}; the model takes {', '.join(entries)}",
        fix=f"give items of it, or, if the bands are the same: --sensor {next(iter(entries))}",
    )


def _bands_for(entry: SensorInput, image: StacImage) -> list[str]:
    """The bands to read of an item: the model's, both sides of differences, and those that indices are made of."""
    wanted: list[str] = []
    for band in entry.bands:
        if band in entry.indices:
            wanted += sources(band, list(image.files)) or (INDICES[band].bands if band in INDICES else (band,))
        else:
            wanted += [band] if band in image.files or "-" not in band else band.split("-")
    names = list(dict.fromkeys(wanted))
    there = [name for name in names if name in image.files]
    return there if entry.optional and there else names


def _with_own(given: ImageConfig, item: ImageConfig) -> ImageConfig:
    """The item's image with what the user says of it, and its scaling written out, so that a model of another fits."""
    clouds = given.clouds
    if given.cloud_path == "auto":
        clouds = item.clouds
        if isinstance(given.clouds, CloudConfig) and isinstance(clouds, CloudConfig):
            clouds = clouds.model_copy(update={"kinds": given.clouds.kinds})
    scale = find_sensor(str(item.sensor)).scale if item.scale is None else item.scale
    more = {"clouds": clouds, "scale": scale, "gsd_m": given.gsd_m, "nodata": given.nodata, "bounds": given.bounds}
    return item.model_copy(update=more)


def _require_dates(tiles: Sequence[SceneFiles], entry: SensorInput, path: str) -> None:
    for files in tiles:
        if len(files.images) != entry.num_dates:
            raise DataError(
                f"{path} has {len(files.images)} items of the tile {files.name}; the model takes {entry.num_dates} "
                f"dates of {entry.sensor}", fix="keep as many items of each tile as the model takes dates",
            )  # fmt: skip


def _file_name(name: str) -> str:
    """An item's name as that of a file: without what leads to another folder."""
    return re.sub(r'[/\\:*?"<>|\s]', "_", name)
