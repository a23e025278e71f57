"""Hi-UCD mini: aerial pictures of Tallinn at 0.1 m, 2017 to 2019, land cover of two, change (Tian et al. 2020).

    {train,val,test}/image/{2017,2018,2019}/NAME.png     {train,val}/mask/2018_2019/NAME.png     (test has no masks)

A mask has three bands: class of the first year 0 to 9, class of the second, change (0 unlabelled, 1 no, 2 yes); class 0
is unlabelled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import PARTS, SceneFiles, Source, by_stem, list_files, natural, numbered, require_pairs, rgb

CLASSES = ("water", "grass", "building", "greenhouse", "road", "bridge", "other", "bare land", "woodland")


@register("source", "hiucd")
class HiUcd(Source):
    """A scene of two years for each picture that has a mask of them, the classes of the later year as its own."""

    legend = numbered("hiucd", CLASSES)
    licence = "academic use only"
    url = "https://github.com/Daisy-7/Hi-UCD-S"

    def scenes(self) -> list[SceneFiles]:
        parts = [part for part in PARTS if (self.root / part / "image").is_dir()]
        if not parts:
            raise DataError(
                f"{self.root} has no train/image, val/image or test/image", fix="give the data set's folder"
            )
        return [files for part in parts for files in self._part(part)]

    def _part(self, part: str) -> list[SceneFiles]:
        folder = self.root / part
        found = []
        pairs = sorted(path for path in (folder / "mask").glob("*_*") if path.is_dir())
        for pair in pairs:
            years = pair.name.split("_")
            first, second = (by_stem(list_files(folder / "image" / year, (".png",))) for year in years)
            masks = by_stem(list_files(pair, (".png",)))
            require_pairs(first, masks, first_name=f"pictures of {years[0]}", second_name=f"a mask in {pair.name}")
            require_pairs(first, second, first_name=f"pictures of {years[0]}", second_name=f"one of {years[1]}")
            for stem in sorted(first, key=natural):
                path, codes = str(masks[stem]), {code: code for code in range(10)}
                labels = {f"class:{year}": LabelFile(path, band=i, codes=codes) for i, year in enumerate(years, 1)}
                labels |= {
                    "class": labels[f"class:{years[1]}"],
                    "change": LabelFile(path, band=3, codes={0: 0, 1: 1, 2: 2}),
                }
                images = tuple(rgb(each[stem], year) for each, year in zip((first, second), years, strict=True))
                found.append(SceneFiles(f"{part}_{pair.name}_{stem}", images, labels, part, f"{part} {stem}"))
        if not pairs:
            self.notes.append(f"{part} has no masks: it is left out")
        return found

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for part in ("train", "val"):
            for number in (2, 10):
                before = miniature.patches(range(1, 10), 64, 64, seed=seed + number)
                after = miniature.changed(before, range(1, 10), seed=seed + number)
                for year, codes in (("2018", before), ("2019", after)):
                    picture = miniature.picture(codes, 3, seed=number, low=0, high=255, dtype="uint8")
                    miniature.write(root / part / "image" / year / f"{number}.png", picture, origin=None)
                mask = np.stack([before, after, 1 + (before != after)]).astype("uint8")
                miniature.write(root / part / "mask" / "2018_2019" / f"{number}.png", mask, origin=None)
