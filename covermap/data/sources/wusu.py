"""WUSU / OpenWUSU512: Gaofen-2 of Wuhan at 1 m, three years, land cover and change (Shi et al. 2023).

    {train,test}/{HS,JA}/imgs/HS15_12.tif  class/HS15_12.tif  change/BCD/HS1516_12.tif  change/SCD/HS1516_12.tif

City, two digits of the year, tile. Four bands, blue green red near infrared, 8 bit, without a place. Tiles of one split
overlap by half, so they are kept together; train and test are halves of the scenes, and count their tiles alike.
"""

from __future__ import annotations

import re
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, by_stem, is_series, list_files, require_pairs

CITIES, YEARS = ("HS", "JA"), ("15", "16", "18")
DATES = {
    ("HS", "15"): "2015-04-22", ("HS", "16"): "2016-09-01", ("HS", "18"): "2018-11-23",
    ("JA", "15"): "2015-04-22", ("JA", "16"): "2016-12-08", ("JA", "18"): "2018-11-23",
}  # fmt: skip
CODES = (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12)
"""5 does not occur."""
_OR_SINGLE = "restore it, or use data.options.dates: single"
_NAME = re.compile(r"^(HS|JA)(15|16|18)_(\d+)$")


@register("source", "wusu")
class Wusu(Source):
    """A scene for each tile and year, or with `dates: series` for each tile, with all three years.

    merged: the ten classes of the variant in which buildings and water bodies are one class each.
    """

    legend = "wusu"
    licence = "ODbL, and academic use only"
    url = "https://github.com/AngieNikki/openWUSU"

    def __init__(self, root: str | Path, *, dates: str = "single", merged: bool = False) -> None:
        super().__init__(root)
        self.series, self.legend = is_series(dates), "wusu_merged" if merged else "wusu"

    def scenes(self) -> list[SceneFiles]:
        found: list[SceneFiles] = []
        for part in [p for p in ("train", "val", "test") if (self.root / p).is_dir()]:
            for city in [c for c in CITIES if (self.root / part / c).is_dir()]:
                found += self._series(part, city) if self.series else self._single(part, city)
        if not found:
            raise DataError(f"{self.root} has no folder train/HS, train/JA, test/HS or test/JA", fix="give data.root")
        return found

    def _pairs(self, part: str, city: str) -> tuple[dict[str, Path], dict[str, Path]]:
        folder = self.root / part / city
        images, classes = (by_stem(list_files(folder / name, (".tif",))) for name in ("imgs", "class"))
        odd = [path for path in (*images.values(), *classes.values()) if not _NAME.match(path.stem)]
        if odd:
            raise DataError(f"{odd[0]} is not named like {city}15_12.tif", fix="restore the data set's names")
        require_pairs(images, classes, first_name="images", second_name="class masks")
        return images, classes

    def _single(self, part: str, city: str) -> list[SceneFiles]:
        images, classes = self._pairs(part, city)
        return [
            SceneFiles(
                f"{part}_{stem}", (_image(path),), {"class": LabelFile(str(classes[stem]))}, part, f"{part} {city}"
            )
            for stem, path in images.items()
        ]

    def _series(self, part: str, city: str) -> list[SceneFiles]:
        images, classes = self._pairs(part, city)
        tiles = dict.fromkeys(stem.split("_")[1] for stem in images)
        lacking = [f"{city}{year}_{tile}" for tile in tiles for year in YEARS if f"{city}{year}_{tile}" not in images]
        if lacking:
            raise DataError(
                f"{part}/{city} has no {', '.join(lacking[:5])}.tif", fix="restore it, or use dates: single"
            )
        changes = {
            kind: by_stem(list_files(self.root / part / city / "change" / kind, (".tif",))) for kind in ("BCD", "SCD")
        }
        require_pairs(changes["BCD"], changes["SCD"], first_name="BCD masks", second_name="SCD masks")
        scenes = []
        for tile in tiles:
            labels = {f"class:20{year}": LabelFile(str(classes[f"{city}{year}_{tile}"])) for year in YEARS}
            labels["class"] = labels["class:2018"]
            for pair in ("1516", "1618"):
                name = f"{city}{pair}_{tile}"
                if name not in changes["BCD"]:
                    raise DataError(
                        f"{part}/{city}/change/BCD has no {name}.tif", fix="restore it, or use dates: single"
                    )
                years = f"20{pair[:2]}-20{pair[2:]}"
                labels[f"change:{years}"] = LabelFile(str(changes["BCD"][name]), codes={0: 1, 1: 2})
                labels[f"scd:{years}"] = LabelFile(str(changes["SCD"][name]))
            series = tuple(_image(images[f"{city}{year}_{tile}"]) for year in YEARS)
            scenes.append(SceneFiles(f"{part}_{city}_{tile}", series, labels, part, f"{part} {city}"))
        return scenes

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for part in ("train", "test"):
            for city in CITIES:
                for tile in (2, 10):
                    _write_tile(root / part / city, city, tile, seed)


def _write_tile(folder: Path, city: str, tile: int, seed: int) -> None:
    before = miniature.patches(CODES, 64, 64, seed=seed + tile)
    for number, year in enumerate(YEARS):
        codes = miniature.changed(before, CODES, seed=seed + number) if number else before
        picture = miniature.picture(codes, 4, seed=number, low=0, high=255, dtype="uint8")
        miniature.write(folder / "imgs" / f"{city}{year}_{tile}.tif", picture, origin=None)
        miniature.write(folder / "class" / f"{city}{year}_{tile}.tif", codes, origin=None)
        if number:
            name, differs = f"{city}{YEARS[number - 1]}{year}_{tile}.tif", codes != before
            miniature.write(folder / "change" / "BCD" / name, differs.astype("uint8"), origin=None)
            miniature.write(folder / "change" / "SCD" / name, codes * differs, origin=None)
        before = codes


def _image(path: Path) -> ImageConfig:
    match = _NAME.match(path.stem)
    assert match
    bands = ["blue", "green", "red", "nir"]
    return ImageConfig(path=str(path), sensor="gaofen2", bands=bands, date=DATES[match[1], match[2]])
