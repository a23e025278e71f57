"""DynamicEarthNet: daily Planet mosaics at 3 m of 75 places, land cover of each month (Toker et al. 2022).

    train.txt, val.txt, test.txt: lines  PLANET_FOLDER LABEL_FILE YYYY-MM  below the root
    PLANET_FOLDER/YYYY-MM-DD.tif: blue, green, red, near infrared; LABEL_FILE: seven bands of 0 or 255

The label belongs to the first day of its month. Snow is hardly ever there and is not scored, as in the paper.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import ImageConfig
from covermap.core.errors import DataError
from covermap.core.parsing import read_text
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import PARTS, SceneFiles, Source, inside, is_series, numbered

CLASSES = ("impervious surface", "agriculture", "forest", "wetland", "soil", "water", "snow")


@register("source", "dynamicearthnet")
class DynamicEarthNet(Source):
    """A scene for each place and month, the picture of the month's first day; `dates: series`: one of all months."""

    legend = numbered("dynamicearthnet", CLASSES[:6], ignore=[7])
    licence = "labels CC BY-SA 4.0, images Planet"
    url = "https://mediatum.ub.tum.de/1650201"

    def __init__(self, root: str | Path, *, dates: str = "single") -> None:
        super().__init__(root)
        self.series = is_series(dates)

    def scenes(self) -> list[SceneFiles]:
        tables = [(part, self.root / f"{part}.txt") for part in PARTS if (self.root / f"{part}.txt").is_file()]
        if not tables:
            raise DataError(f"{self.root} has no train.txt, val.txt or test.txt", fix="they are part of the data set")
        found = [
            self._scene(part, path, line)
            for part, path in tables
            for line in read_text(path, fix="restore the data set's list").splitlines()
            if line
        ]
        double = [files.name for files in found if [other.name for other in found].count(files.name) > 1]
        if double:
            raise DataError(f"{double[0]} is listed twice", fix="keep one line for each place and month")
        return _joined(found) if self.series else found

    def _scene(self, part: str, table: Path, line: str) -> SceneFiles:
        fields = line.split()
        if len(fields) != 3:
            raise DataError(f"{table}: {line!r} is not FOLDER LABEL YYYY-MM", fix="restore the data set's list")
        folder, label = inside(self.root, fields[0]), inside(self.root, fields[1])
        image = folder / f"{fields[2]}-01.tif"
        for path in (image, label):
            if not path.is_file():
                raise DataError(f"{table} names {path.name}, but there is no {path}", fix="restore the missing file")
        bands = ["blue", "green", "red", "nir"]
        picture = ImageConfig(path=str(image), sensor="planetscope", bands=bands, date=f"{fields[2]}-01")
        labels = {"class": LabelFile(str(label), one_hot=tuple(range(1, 8)))}
        place = folder.relative_to(self.root.resolve()).as_posix().replace("/", "_")
        return SceneFiles(f"{place}_{fields[2]}", (picture,), labels, part, place)

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for part, place, easting in (("train", "1311_3077_13", 300_000), ("test", "2006_3280_13", 500_000)):
            lines = []
            for month in ("2018-01", "2018-02"):
                codes = miniature.patches(range(1, 8), 64, 64, seed=seed + int(month[-1]))
                where: dict[str, Any] = {"gsd_m": 3, "origin": (easting, 4_000_000)}
                picture = miniature.picture(codes, 4, seed=seed, low=100, high=4000, dtype="uint16")
                miniature.write(root / "planet" / place / f"{month}-01.tif", picture, **where)
                bands = np.stack([255 * (codes == code) for code in range(1, 8)]).astype("uint8")
                miniature.write(root / "labels" / place / f"{month}.tif", bands, **where)
                lines.append(f"planet/{place} labels/{place}/{month}.tif {month}")
            (root / f"{part}.txt").write_text("\n".join(lines) + "\n")


def _joined(months: list[SceneFiles]) -> list[SceneFiles]:
    """A scene for each place, of all its months in order."""
    found = []
    for place in dict.fromkeys(files.place for files in months):
        mine = sorted((files for files in months if files.place == place), key=lambda files: str(files.images[0].date))
        if len(parts := {files.part for files in mine}) > 1:
            raise DataError(f"{place} is in the parts {', '.join(sorted(map(str, parts)))}", fix="keep it in one list")
        labels = {f"class:{files.images[0].date}": files.labels["class"] for files in mine}
        images = tuple(image for files in mine for image in files.images)
        found.append(
            replace(mine[-1], name=str(place), images=images, labels=labels | {"class": mine[-1].labels["class"]})
        )
    return found
