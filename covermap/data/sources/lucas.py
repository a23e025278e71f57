"""LUCAS Italy: chips of Sentinel-2 around survey points, one land-cover stratum for each chip.

    chips_LC_class.csv with Point_ID, STR18 (1 to 10)      1/ ... 10/ or 00/ ... 09/ or no folders: POINT_ID.tif

Six bands, reflectance from 0 to 1: blue, green, red, narrow near infrared, two short-wave infrared.
"""

from __future__ import annotations

import csv
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.source import SceneFiles, Source, by_stem, list_files, natural, read_table, require_pairs

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
TABLE = "chips_LC_class.csv"


@register("source", "lucas")
class Lucas(Source):
    """A scene for each chip, with the class of the whole chip from the table."""

    legend = "lucas_italy"
    licence = "LUCAS: free reuse with attribution (Eurostat)"
    url = "https://ec.europa.eu/eurostat/web/lucas"

    def scenes(self) -> list[SceneFiles]:
        strata = self._strata()
        folders = sorted(
            (p for p in self.root.iterdir() if p.is_dir() and p.name.isdigit()), key=lambda p: natural(p.name)
        )
        chips = by_stem(path for folder in folders or [self.root] for path in list_files(folder, (".tif", ".tiff")))
        require_pairs(
            chips, dict.fromkeys(strata, self.root / TABLE), first_name="chips", second_name="rows of the table"
        )
        return [
            SceneFiles(point, (_image(chips[point]),), chip_class=strata[point]) for point in sorted(chips, key=natural)
        ]

    def _strata(self) -> dict[str, int]:
        """{point: code}; raises DataError for a table without its columns, double points or other codes."""
        path = self.root / TABLE
        if not path.is_file():
            raise DataError(f"{self.root} has no {TABLE}", fix="it is part of the data set; columns Point_ID, STR18")
        strata: dict[str, int] = {}
        for row in read_table(path, "Point_ID", "STR18"):
            point, code = row["Point_ID"].strip(), row["STR18"].strip()
            if point in strata:
                raise DataError(f"{path} has the point {point} twice", fix="keep one row for each point")
            if not code.isdigit() or not 1 <= int(code) <= 10:
                raise DataError(f"{path}: STR18 of {point} is {code!r}", fix="strata are the numbers 1 to 10")
            strata[point] = int(code)
        return strata

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        rows: list[tuple[str, int]] = []
        for code in range(1, 11):
            for number in range(3):
                point = f"{44_000_000 + 100 * code + number}"
                codes = miniature.patches([code], 32, 32, seed=seed)
                picture = miniature.picture(codes, 6, seed=seed + number, low=0, high=0.5, dtype="float32")
                place = (400_000 + 2000 * len(rows), 4_600_000)
                miniature.write(root / str(code) / f"{point}.tif", picture, origin=place, epsg=32632)
                rows.append((point, code))
        with open(root / TABLE, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("Point_ID", "STR18"), *rows])


def _image(path: Path) -> ImageConfig:
    return ImageConfig(path=str(path), sensor="hls", bands=list(BANDS), scale=1.0)
