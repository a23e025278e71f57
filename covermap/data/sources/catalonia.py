"""Catalonia: Sentinel-2 mosaics of April and August at 10 m, land cover of the ICGC at 1 m.

    S2_CAT_201804_UTM_WGS84_31N_10m.tif  S2_CAT_201808_UTM_WGS84_31N_10m.tif  LC_2018_UTM_WGS84_31N_1m_12_Classes.tif

Ten bands, reflectance times 1e4; labels ten times finer, 0 outside of the border.
"""

from __future__ import annotations

import re
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, list_files

BANDS = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir_narrow", "swir1", "swir2")
_IMAGE = re.compile(r"^S2_CAT_(\d{4})(\d{2})_")
_LABELS = re.compile(r"^LC_\d{4}_.*Classes$")


@register("source", "catalonia")
class Catalonia(Source):
    """dates: series (one scene of all months), single (a scene for each month), or a month that is for testing only:
    `test: 8` trains on the other months.
    """

    legend = "catalonia"
    licence = "labels CC BY 4.0 (ICGC), images Copernicus"
    url = "https://www.icgc.cat"

    def __init__(self, root: str | Path, *, dates: str = "series", test: int | None = None) -> None:
        super().__init__(root)
        if dates not in ("single", "series") or (test is not None and dates == "series"):
            raise ConfigError(
                "data.options.dates is series or single; test goes with single", fix="dates: single, test: 8"
            )
        self.series, self.test = dates == "series", test

    def scenes(self) -> list[SceneFiles]:
        files = list_files(self.root, (".tif",))
        images = {f"{m[1]}-{m[2]}": path for path in files if (m := _IMAGE.match(path.name))}
        labels = [path for path in files if _LABELS.match(path.stem)]
        if not images or len(labels) != 1:
            raise DataError(
                f"{self.root} has {len(images)} mosaics S2_CAT_YYYYMM_* and {len(labels)} maps LC_YYYY_*Classes",
                fix="one map and at least one mosaic are needed",
            )
        months = [int(date[5:]) for date in images]
        if self.test is not None and self.test not in months:
            have = ", ".join(images)
            raise ConfigError(f"data.options.test: there is no mosaic of month {self.test}", fix=f"there are {have}")
        found = {date: _image(path, date) for date, path in images.items()}
        target = {"class": LabelFile(str(labels[0]))}
        if self.series:
            # One scene needs no place: all tiles of it (prepare --tile) would be of that one, and none held out.
            return [SceneFiles("catalonia", tuple(found.values()), target)]
        return [
            SceneFiles(f"catalonia_{date}", (image,), target, self._part(date), "catalonia")
            for date, image in found.items()
        ]

    def _part(self, date: str) -> str | None:
        return None if self.test is None else "test" if int(date[5:]) == self.test else "train"

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        fine = miniature.patches(range(1, 13), 960, 1280, seed=seed, cell_px=80)
        fine[:60] = 0
        coarse = fine[5::10, 5::10]
        for month in (4, 8):
            picture = miniature.picture(coarse, 10, seed=month, low=100, high=5000, dtype="uint16")
            picture[:, coarse == 0] = 0
            miniature.write(root / f"S2_CAT_2018{month:02d}_UTM_WGS84_31N_10m.tif", picture)
        miniature.write(root / "LC_2018_UTM_WGS84_31N_1m_12_Classes.tif", fine, gsd_m=1, nodata=0)


def _image(path: Path, date: str) -> ImageConfig:
    return ImageConfig(path=str(path), sensor="sentinel2", bands=list(BANDS), date=date, nodata=0)
