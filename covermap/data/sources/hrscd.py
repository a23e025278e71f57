"""HRSCD: aerial pictures of two French departments, 2006 and 2012, 0.5 m, land cover and change (Daudt et al. 2019).

    images_2006/2006/D14/14-2005-0415-6890-LA93.tif     images_2012/2012/D14/14-2012-0415-6890-LA93-0M50-E080.tif
    labels_land_cover_2006/2006/D14/   labels_land_cover_2012/2012/D14/   labels_change/change/D14/

Department, year of the flight and the corner in km make a name: pictures and masks are paired by department and corner.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from covermap.core.config import ImageConfig
from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, is_series, list_files, numbered, require_pairs

CLASSES = ("artificial surface", "agricultural area", "forest", "wetland", "water")
YEARS = ("2006", "2012")
_NAME = re.compile(r"^(\d\d)-\d{4}-(\d{4}-\d{4})")


@register("source", "hrscd")
class Hrscd(Source):
    """dates: series (a scene of both years for each place, with the classes of 2012) or single (one for each year)."""

    legend = numbered("hrscd", CLASSES)
    licence = "images: IGN, open licence Etalab; labels: CC BY-NC-SA 4.0, no commercial use"
    url = "https://rcdaudt.github.io/hrscd"

    def __init__(self, root: str | Path, *, dates: str = "series") -> None:
        super().__init__(root)
        self.series = is_series(dates)

    def scenes(self) -> list[SceneFiles]:
        images = {year: self._files(f"images_{year}/{year}") for year in YEARS}
        classes = {year: self._files(f"labels_land_cover_{year}/{year}") for year in YEARS}
        change = self._files("labels_change/change")
        require_pairs(images["2006"], images["2012"], first_name="pictures of 2006", second_name="one of 2012")
        for year in YEARS:
            require_pairs(images[year], classes[year], first_name=f"pictures of {year}", second_name="a land-cover map")
        require_pairs(images["2006"], change, first_name="pictures", second_name="a change mask")
        found = []
        for place in images["2006"]:
            both = [ImageConfig(path=str(images[year][place]), sensor="rgb", date=year) for year in YEARS]
            maps = {f"class:{year}": LabelFile(str(classes[year][place])) for year in YEARS}
            more = {**maps, "change": LabelFile(str(change[place]), codes={0: 1, 1: 2})}
            if self.series:
                found.append(SceneFiles(place, tuple(both), {"class": maps["class:2012"], **more}, place=place))
            else:
                found += [
                    SceneFiles(f"{place}_{image.date}", (image,), {"class": maps[f"class:{image.date}"]}, place=place)
                    for image in both
                ]
        return found

    def _files(self, folder: str) -> dict[str, Path]:
        """{department and corner: path}; raises DataError for odd or double names."""
        departments = sorted(path for path in (self.root / folder).glob("D*") if path.is_dir())
        if not departments:
            raise DataError(f"{self.root / folder} has no folder D14 or D35", fix="give the data set's folder")
        found: dict[str, Path] = {}
        for path in [path for department in departments for path in list_files(department, (".tif",))]:
            match = _NAME.match(path.stem)
            if match is None:
                raise DataError(f"{path} is not named like 14-2012-0415-6890-LA93.tif", fix="restore the names")
            key = f"D{match[1]}_{match[2]}"
            if key in found:
                raise DataError(f"{found[key]} and {path} show one place", fix="keep one of them")
            found[key] = path
        return found

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for number, (department, corner) in enumerate((("14", "0415-6890"), ("14", "0425-6890"), ("35", "0330-6790"))):
            east, north = (1000 * int(part) for part in corner.split("-"))
            before = miniature.patches(range(1, 6), 80, 80, seed=seed + number)
            after = miniature.changed(before, range(1, 6), seed=seed + number)
            place: dict[str, Any] = {"gsd_m": 0.5, "origin": (east, north), "epsg": 2154}
            for year, flown, codes in (("2006", "2005", before), ("2012", "2012", after)):
                name = f"{department}-{flown}-{corner}-LA93.tif"
                picture = miniature.picture(codes, 3, seed=number, low=0, high=255, dtype="uint8")
                miniature.write(root / f"images_{year}/{year}/D{department}/{name}", picture, **place)
                miniature.write(root / f"labels_land_cover_{year}/{year}/D{department}/{name}", codes, **place)
            mask = (before != after).astype("uint8")
            miniature.write(root / f"labels_change/change/D{department}/{name}", mask, **place)
