"""CropHarvest: twelve months of Sentinel-1, Sentinel-2 and weather, with elevation and slope, in one file for a place.

    [eo_data/]INDEX-DATASET_FIRST_LAST.tif, for example 98-togo_2019-02-06_2020-02-01.tif

Bands are named VV, VH, B1 ... B12, temperature_2m, total_precipitation; with _1 to _11 for the later months; then
elevation and slope. A month is 30 days from FIRST on; the twelfth ends at LAST.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.source import SceneFiles, Source, by_stem, list_files
from covermap.geo.layers import read_layers

SENSORS = {
    "sentinel1": ("VV", "VH"),
    "sentinel2": ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"),
    "era5": ("temperature_2m", "total_precipitation"),
    "dem": ("elevation", "slope"),
}
MONTH_DAYS = 30
_NAME = re.compile(r"^(\d+-[\w-]+)_(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)$")


@register("source", "cropharvest")
class CropHarvest(Source):
    """A scene of twelve dates for each file. sensors: of sentinel1, sentinel2, era5 and dem."""

    licence = "CC BY-SA 4.0"
    url = "https://github.com/nasaharvest/cropharvest"
    records = ("zenodo:7257688",)

    def __init__(self, root: str | Path, *, sensors: Sequence[str] = tuple(SENSORS)) -> None:
        super().__init__(root)
        odd = [name for name in sensors if name not in SENSORS]
        if odd or not sensors or isinstance(sensors, str):
            raise ConfigError(f"data.options.sensors: {odd or sensors!r} is not known", fix=f"of {', '.join(SENSORS)}")
        self.sensors = tuple(sensors)

    def scenes(self) -> list[SceneFiles]:
        folder = self.root / "eo_data"
        files = by_stem(list_files(folder if folder.is_dir() else self.root, (".tif", ".tiff")))
        return [self._scene(path) for path in files.values()]

    def _scene(self, path: Path) -> SceneFiles:
        match = _NAME.match(path.stem)
        if match is None:
            raise DataError(
                f"{path} is not named like 98-togo_2019-02-06_2020-02-01.tif", fix="is it the data set's own?"
            )
        first, last = (datetime.date.fromisoformat(day) for day in match.groups()[1:])
        months, rest = divmod((last - first).days, MONTH_DAYS)
        if rest or not months:
            raise DataError(
                f"{path}: {first} to {last} are no months of {MONTH_DAYS} days", fix="check the file's name"
            )
        names = read_layers(str(path)).names
        images = []
        for sensor in self.sensors:
            for month in range(1 if sensor == "dem" else months):
                images.append(_image(path, names, sensor, month, first))
        return SceneFiles(match[1], tuple(images))

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        names = [
            f"{band}_{month}" if month else band
            for month in range(12)
            for sensor in ("sentinel1", "sentinel2", "era5")
            for band in SENSORS[sensor]
        ]
        names += SENSORS["dem"]
        for i in range(2):
            codes = miniature.patches((1, 2, 3), 24, 24, seed=seed + i)
            values = miniature.picture(codes, len(names), seed=seed + i, low=1, high=3000, dtype="float64")
            path = root / "eo_data" / f"{9 + i}-togo_2019-02-06_2020-02-01.tif"
            miniature.write(path, values, origin=(300_000 + 1000 * i, 850_000), bands=names)


def _image(path: Path, names: Sequence[str], sensor: str, month: int, first: datetime.date) -> ImageConfig:
    """One sensor's bands of one month, by their names in the file; raises DataError for a missing one."""
    ending = f"_{month}" if month else ""
    wanted = {f"{band}{ending}": band for band in SENSORS[sensor]}
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise DataError(f"{path} has no band {', '.join(lacking)}", fix="is it the data set's own file?")
    start = first + datetime.timedelta(days=MONTH_DAYS * month)
    date = f"{start}/{start + datetime.timedelta(days=MONTH_DAYS - 1)}"
    bands = [wanted.get(name, f"layer{i}") for i, name in enumerate(names)]
    return ImageConfig(
        path=str(path), sensor=sensor, bands=bands, use=list(wanted.values()), date=None if sensor == "dem" else date
    )
