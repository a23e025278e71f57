"""HLS v2.0 tiles with Esri / Impact Observatory yearly land cover as labels.

    HLS.S30.T31TCG.2018123T105031.v2.0.B02.tif ...   HLS.L30.T31TCG.2018129T103512.v2.0.B02.tif ...   in any folder
    HLS.S30.T31TCG.2018123T105031.v2.0.Fmask.tif     where it is cloudy, if it is there
    31T_20180101-20190101.tif                        land cover at 10 m of one UTM zone and one year

Of S30 the bands B02 B03 B04 B8A B11 B12 are taken, of L30 B02 B03 B04 B05 B06 B07: the six that both have. Reflectance
times 1e4, -9999 where there is nothing; labels are brought to 30 m by data.align.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, by_place, is_series

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
FILES = {"S30": ("B02", "B03", "B04", "B8A", "B11", "B12"), "L30": ("B02", "B03", "B04", "B05", "B06", "B07")}
_NAME = re.compile(r"^HLS\.(S30|L30)\.T(\d\d[A-Z])([A-Z]{2})\.(\d{4})(\d{3})T\d{6}\.v2\.0\.(B\w\w|Fmask)$")
_LABEL = re.compile(r"^(\d\d[A-Z])_(\d{4})0101-(\d{4})0101$")

Granules = dict[str, dict[str, dict[str, Path]]]


@register("source", "hls")
class Hls(Source):
    """dates: single (a scene for each tile and date) or series (a scene for each tile with all its dates).

    clouds: auto (the Fmask of each date masks them) or none.
    """

    legend = "esri_io"
    licence = "HLS: no restriction (NASA); labels CC BY 4.0 (Esri, Impact Observatory)"
    url = "https://lpdaac.usgs.gov/products/hlss30v002"

    def __init__(self, root: str | Path, *, dates: str = "single", clouds: str = "auto") -> None:
        super().__init__(root)
        if clouds not in ("auto", "none"):
            raise ConfigError(f"data.options.clouds: {clouds!r} is not known", fix="auto or none")
        self.series, self.clouds = is_series(dates), clouds

    def scenes(self) -> list[SceneFiles]:
        granules = self._granules()
        bare = sum("Fmask" not in files for dates in granules.values() for files in dates.values())
        self.notes = [f"{bare} products have no Fmask: their clouds are not masked"] if bare else []
        images = [
            (tile, _image(files, tile, date, self.clouds))
            for tile, dates in granules.items()
            for date, files in dates.items()
        ]
        return by_place(images, self._label, series=self.series)

    def _granules(self) -> Granules:
        """{tile: {date: {band: path}}}, in order; raises DataError where there is none or one twice."""
        found: Granules = {}
        for path in sorted(self.root.rglob("HLS.*.tif")):
            match = _NAME.match(path.stem)
            if match is None or match[6] not in (*FILES[match[1]], "Fmask"):
                continue
            day = datetime.date(int(match[4]), 1, 1) + datetime.timedelta(days=int(match[5]) - 1)
            bands = found.setdefault(match[2] + match[3], {}).setdefault(day.isoformat(), {})
            name = BANDS[FILES[match[1]].index(match[6])] if match[6] != "Fmask" else "Fmask"
            if name in bands:
                raise DataError(
                    f"{bands[name]} and {path} are one band of one day", fix="keep one product for each day"
                )
            bands[name] = path
        if not found:
            raise DataError(f"{self.root} has no HLS.S30.T*.B02.tif or HLS.L30.T*.B02.tif", fix="give data.root")
        return {tile: dict(sorted(dates.items())) for tile, dates in sorted(found.items())}

    def _label(self, tile: str, images: Sequence[ImageConfig]) -> dict[str, LabelFile]:
        """The map of the tile's zone and the year of its last date; raises DataError."""
        year = int(str(images[-1].date)[:4])
        for path in sorted(self.root.rglob("*_*0101-*0101.tif")):
            match = _LABEL.match(path.stem)
            if match and match[1] == tile[:3] and int(match[2]) <= year < int(match[3]):
                return {"class": LabelFile(str(path))}
        raise DataError(
            f"there is no land-cover map {tile[:3]}_{year}0101-{year + 1}0101.tif for the tile {tile}",
            fix="add it to the data set's folder",
        )

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        codes = (1, 2, 4, 5, 7, 8, 9, 11)
        for zone, square, epsg in (("31T", "CG", 32631), ("33U", "UP", 32633)):
            fine = miniature.patches(codes, 288, 288, seed=seed + epsg, cell_px=24)
            where: dict[str, Any] = {"origin": (400_000, 4_600_000), "epsg": epsg}
            for product, day in (("S30", 123), ("L30", 217)):
                picture = miniature.picture(fine[1::3, 1::3], 6, seed=day, low=100, high=5000, dtype="int16")
                for band, values in zip(FILES[product], picture, strict=True):
                    name = f"HLS.{product}.T{zone}{square}.2018{day}T105031.v2.0.{band}.tif"
                    miniature.write(root / "hls" / name, values, gsd_m=30, nodata=-9999, **where)
                cloudy = np.full((96, 96), 192, np.uint8)  # much aerosol
                cloudy[:10, :10] = 2
                miniature.write(root / "hls" / name.replace(band, "Fmask"), cloudy, gsd_m=30, nodata=255, **where)
            miniature.write(root / "labels" / f"{zone}_20180101-20190101.tif", fine, nodata=0, **where)


def _image(files: Mapping[str, Path], tile: str, date: str, clouds: str) -> ImageConfig:
    lacking = [band for band in BANDS if band not in files]
    if lacking:
        raise DataError(f"the tile {tile} of {date} lacks {', '.join(lacking)}", fix="download its missing bands")
    return ImageConfig(
        path=[str(files[band]) for band in BANDS], sensor="hls", bands=list(BANDS), date=date, nodata=-9999,
        clouds=clouds if clouds == "none" else str(files.get("Fmask", "auto")),
    )  # fmt: skip
