"""Layout of Presto's fuel moisture series: chips of one pixel, three dates, with the Dynamic World class of the last.

The published arrays become a GeoTIFF for each series and a table (`prepare`); the layout reads these. The classes are
MODEL-MADE (Dynamic World): a score is agreement with another network. A place is a site; parts are by site.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from covermap.core.config import ImageConfig
from covermap.data.source import SceneFiles, Source, numbered

S1 = ("VV", "VH")
S2 = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
TERRAIN = ("elevation", "slope")
BANDS = (*(f"{band}_{t}" for t in range(3) for band in (*S1, *S2)), *TERRAIN)
NAMES = ("water", "trees", "grass", "flooded vegetation", "crops", "shrub", "built", "bare", "snow")
SIDE_DEG = 1e-4
"""Side of a pixel, about 10 m."""


def prepare(arrays: Path, out: Path, *, val_sites: float = 0.15, seed: int = 0) -> Path:
    """Write OUT/series/NUMBER.tif and OUT/series.csv; test: the authors' own sites, val: drawn from the others."""
    numbers = np.load(arrays / "s1_s2_era5_srtm.npy")
    latlon, months, classes, site, is_test = (
        np.load(arrays / f"{name}.npy") for name in ("latlon", "month", "dynamic_world", "site", "is_test")
    )
    others = np.unique(site[is_test == 0])
    val = np.random.default_rng(seed).choice(others, round(val_sites * len(others)), replace=False)
    (out / "series").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, series in enumerate(numbers):
        stack = np.concatenate([*series[:, : len(S1) + len(S2)], series[0, 15:17]]).astype("float32")
        corner = from_origin(latlon[i, 1] - SIDE_DEG / 2, latlon[i, 0] + SIDE_DEG / 2, SIDE_DEG, SIDE_DEG)
        profile = {"driver": "GTiff", "height": 1, "width": 1, "count": len(BANDS), "dtype": "float32",
                   "crs": "EPSG:4326", "transform": corner}  # fmt: skip
        with rasterio.open(out / "series" / f"{i}.tif", "w", **profile) as file:
            file.write(stack[:, None, None])
            file.descriptions = BANDS
        part = "test" if is_test[i] else "val" if site[i] in val else "train"
        rows.append((i, site[i], part, int(classes[i, -1]), *months[i].tolist()))
    with open(out / "series.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("number", "site", "part", "class", "month0", "month1", "month2"), *rows])
    return out


class FuelMoisture(Source):
    """A scene for each series; three dates of Sentinel-1 and Sentinel-2, elevation and slope."""

    legend = numbered("dynamic_world", NAMES, first=0, nodata=255)

    def scenes(self) -> list[SceneFiles]:
        with open(self.root / "series.csv", newline="", encoding="utf-8") as file:
            return [self._scene(row) for row in csv.DictReader(file)]

    def _scene(self, row: dict[str, str]) -> SceneFiles:
        path = str(self.root / "series" / f"{row['number']}.tif")
        images, year, before = [], 2016, -1
        for t in range(3):
            month = int(row[f"month{t}"])
            year += month < before  # the year is not published; only the month counts
            before = month
            date = f"{year}-{month + 1:02d}-{5 + 10 * t:02d}"
            images += [_image(path, "sentinel1", S1, t, date), _image(path, "sentinel2", S2, t, date)]
        images.append(_image(path, "dem", TERRAIN, None, None))
        code = int(row["class"])
        return SceneFiles(row["number"], tuple(images), part=row["part"], place=row["site"], chip_class=code)

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        raise NotImplementedError("made of the published arrays by prepare()")


def _image(path: str, sensor: str, bands: Sequence[str], t: int | None, date: str | None) -> ImageConfig:
    """One sensor's bands of one date; the other bands of the file get names without a meaning."""
    wanted = {band if t is None else f"{band}_{t}": band for band in bands}
    names = [wanted.get(name, f"layer{i}") for i, name in enumerate(BANDS)]
    given = {"scale": 1e-4, "offset": 0} if sensor == "sentinel2" else {}
    return ImageConfig(path=path, sensor=sensor, bands=names, use=list(bands), date=date, **given)
