"""Image cubes as the R package sits keeps them, with samples as points: Mato Grosso, MODIS MOD13Q1 vegetation indices.

    mod13q1/TERRA_MODIS_012010_NDVI_2013-09-14.jp2 ...     SATELLITE_SENSOR_TILE_BAND_DATE, x 1e4, -3000 is nothing
    samples_*.csv                                          id, longitude, latitude, start_date, end_date, label

The scene is a tile with all its dates. Every date must have every band.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, list_files, numbered

CLASSES = ("Cerrado", "Fallow_Cotton", "Forest", "Pasture", "Soy_Corn", "Soy_Cotton", "Soy_Fallow", "Soy_Millet",
           "Soy_Sunflower")  # fmt: skip
_NAME = re.compile(r"^\w+_MODIS_(\w+)_([A-Z0-9]+)_(\d{4}-\d\d-\d\d)$")


@register("source", "matogrosso")
class MatoGrosso(Source):
    """A scene for each tile. bands: of each date, by name; default: all."""

    legend = numbered("matogrosso", CLASSES)
    licence = "GPL-2 (package sits); MODIS: no restriction (NASA)"
    url = "https://github.com/e-sensing/sits"

    def __init__(self, root: str | Path, *, bands: Sequence[str] | None = None) -> None:
        super().__init__(root)
        if isinstance(bands, str) or bands == []:
            raise ConfigError(f"data.options.bands: {bands!r} is no list of bands", fix="bands: [NDVI]")
        self.bands = bands

    def scenes(self) -> list[SceneFiles]:
        tables = sorted(path for path in self.root.glob("samples*.csv") if not path.name.startswith("."))
        if len(tables) != 1:
            raise DataError(f"{self.root} has {len(tables)} tables samples*.csv", fix="keep the one to train on")
        label = LabelFile(str(tables[0]), field="label")
        found: list[SceneFiles] = []
        for tile, dates in self._tiles().items():
            images = tuple(self._image(tile, date, files) for date, files in dates.items())
            found.append(SceneFiles(tile, images, {"class": label}, place=tile))
        return found

    def _tiles(self) -> dict[str, dict[str, dict[str, Path]]]:
        """{tile: {date: {band: file}}}, in order; raises DataError for other names and a band twice."""
        folder = self.root / "mod13q1"
        found: dict[str, dict[str, dict[str, Path]]] = {}
        for path in list_files(folder, (".jp2", ".tif")):
            match = _NAME.match(path.stem)
            if match is None:
                raise DataError(f"{path} is not named like TERRA_MODIS_012010_NDVI_2013-09-14.jp2", fix="move it away")
            bands = found.setdefault(match[1], {}).setdefault(match[3], {})
            if match[2] in bands:
                raise DataError(f"{path} and {bands[match[2]]} are one band of one day", fix="keep one of them")
            bands[match[2]] = path
        return {tile: dict(sorted(dates.items())) for tile, dates in sorted(found.items())}

    def _image(self, tile: str, date: str, files: Mapping[str, Path]) -> ImageConfig:
        wanted = list(self.bands or sorted(files))
        lacking = [band for band in wanted if band not in files]
        if lacking:
            raise DataError(f"tile {tile} of {date} has no {', '.join(lacking)}", fix="restore the missing files")
        return ImageConfig(
            path=[str(files[band]) for band in wanted], bands=wanted, date=date, scale=1e-4, nodata=-3000
        )

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        codes = miniature.patches((1, 2, 3), 48, 48, seed=seed, cell_px=12)
        picture = miniature.picture(codes, 3, seed=seed, low=1000, high=9000, dtype="int16")
        for date, values in zip(("2013-09-14", "2013-10-16", "2013-11-17"), picture, strict=True):
            path = root / "mod13q1" / f"TERRA_MODIS_012010_NDVI_{date}.tif"
            miniature.write(path, values, gsd_m=250, origin=(620_000, 8_700_000), epsg=32721)
        lines = ["id,longitude,latitude,start_date,end_date,label"]
        for i, name in enumerate(("Cerrado", "Forest", "Soy_Corn"), 1):
            point = f"{-55.87 + 0.01 * i:.5f},{-11.78 - 0.01 * i:.5f}"
            lines.append(f"{i},{point},2013-09-14,2014-08-29,{name}")
        (root / "samples_sinop_crop.csv").write_text("\n".join(lines) + "\n")
