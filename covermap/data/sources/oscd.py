"""OSCD: Sentinel-2 L1C of cities on two dates, and where they changed (Caye Daudt et al. 2018).

    CITY/imgs_1/*_B01.tif ... *_B12.tif   CITY/imgs_2/   CITY/dates.txt     in a folder of images
    CITY/cm/CITY-cm.tif (1 unchanged, 2 changed)  or  CITY/cm/cm.png (0, 255)     in a folder of labels

Thirteen bands at 10, 20 and 60 m; the change mask lies on the grid of the first date's 10 m bands and says no CRS.
"""

from __future__ import annotations

import re
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.errors import DataError
from covermap.core.parsing import read_text
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, list_files, natural

BANDS_M = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
TEST = ("brasilia", "chongqing", "dubai", "lasvegas", "milano", "montpellier", "norcia", "rio", "saclay_w", "valencia")
"""Cities of the published test part."""


@register("source", "oscd")
class Oscd(Source):
    """A scene of two dates for each city; the change mask is its label `change`.

    images, labels: folders below the root that hold the cities; default: those that are there.
    """

    licence = "images Copernicus; masks CC BY-NC-SA 4.0: no commercial use"
    url = "https://rcdaudt.github.io/oscd"

    def __init__(self, root: str | Path, *, images: str | None = None, labels: str | None = None) -> None:
        super().__init__(root)
        self.images = self.root / images if images else self._holding("imgs_1")
        self.labels = self.root / labels if labels else self._holding("cm")

    def _holding(self, name: str) -> Path | None:
        """The folder whose cities have a folder `name`."""
        found = {path.parent.parent for path in sorted(self.root.glob(f"**/{name}"))}
        return min(found) if found else None

    def scenes(self) -> list[SceneFiles]:
        cities = sorted((self.images or self.root).glob("*/imgs_1"), key=lambda path: natural(path.parent.name))
        if not cities:
            raise DataError(
                f"{self.root} has no folder CITY/imgs_1", fix="give the data set's folder, or options.images"
            )
        return [self._scene(first.parent) for first in cities]

    def _scene(self, city: Path) -> SceneFiles:
        dates = _dates(city / "dates.txt")
        images = tuple(
            ImageConfig(path=_bands(city / f"imgs_{number}"), sensor="sentinel2", date=dates[number - 1])
            for number in (1, 2)
        )
        part = "test" if city.name in TEST else "train"
        return SceneFiles(city.name, images, self._masks(city.name), part, city.name)

    def _masks(self, city: str) -> dict[str, LabelFile]:
        folder = (self.labels or self.root) / city / "cm"
        found = [path for path in (folder / f"{city}-cm.tif", folder / "cm.png") if path.is_file()]
        if not found:
            self.notes.append(f"{city} has no change mask")
            return {}
        codes = {0: 1, 255: 2} if found[0].suffix == ".png" else {1: 1, 2: 2}
        return {"change": LabelFile(str(found[0]), codes=codes, placeless=True)}

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for city in ("bordeaux", "norcia"):
            before = miniature.patches(range(5), 96, 96, seed=seed, cell_px=12)
            after = miniature.changed(before, range(5), seed=seed + 1, cell_px=12)
            for number, codes in ((1, before), (2, after)):
                picture = miniature.picture(codes, 13, seed=number, low=200, high=4000, dtype="uint16")
                for i, (band, gsd) in enumerate(BANDS_M.items()):
                    step = gsd // 10
                    path = root / "images" / city / f"imgs_{number}" / f"S2A_{city}_{band}.tif"
                    miniature.write(path, picture[i, ::step, ::step], gsd_m=gsd)
            mask = 1 + (before != after).astype("uint8")
            miniature.write(root / "labels" / city / "cm" / f"{city}-cm.tif", mask, origin=None)
            (root / "images" / city / "dates.txt").write_text("date_1: 20150704\ndate_2: 20180211\n")


def _bands(folder: Path) -> list[str]:
    """The thirteen files in the sensor's order; raises DataError naming those that are missing or double."""
    found: dict[str, list[Path]] = {band: [] for band in BANDS_M}
    for path in list_files(folder, (".tif", ".jp2")):
        match = re.search(r"(B\d[\dA])(?!\d)", path.stem)
        if match and match[1] in found:
            found[match[1]].append(path)
    lacking = [band for band, files in found.items() if len(files) != 1]
    if lacking:
        raise DataError(f"{folder} has not one file of each band: {', '.join(lacking)}", fix="restore the data set")
    return [str(files[0]) for files in found.values()]


def _dates(path: Path) -> tuple[str, str]:
    """First and second date of `date_1: 20150704`; raises DataError."""
    text = read_text(path, fix="restore the data set's dates.txt") if path.is_file() else ""
    found = dict(re.findall(r"date_([12]):\s*(\d{8})", text))
    if len(found) != 2:
        raise DataError(f"{path} does not name date_1 and date_2", fix="restore the data set's dates.txt")
    first, second = (f"{found[n][:4]}-{found[n][4:6]}-{found[n][6:]}" for n in "12")
    return first, second
