"""SECOND: aerial pictures of Chinese towns on two dates, land cover where it changed (Yang et al. 2022).

    {train,test}/im1/00003.png  im2/00003.png  label1/00003.png  label2/00003.png

512 px RGB without a place. Labels are colours, one picture for each date; white is what did not change, and there the
land cover is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import Colour, LabelFile
from covermap.data.source import SceneFiles, Source, by_stem, list_files, natural, require_pairs, rgb

COLOURS: dict[Colour, int] = {
    (255, 255, 255): 0, (0, 0, 255): 1, (128, 128, 128): 2, (0, 128, 0): 3, (0, 255, 0): 4, (128, 0, 0): 5,
    (255, 0, 0): 6,
}  # fmt: skip
CLASSES = {1: "water", 2: "ground", 3: "low vegetation", 4: "tree", 5: "building", 6: "playground"}


@register("source", "second")
class Second(Source):
    """A scene of two dates for each pair, with the classes of the second as its own; `class:1`, `class:2` are both."""

    legend: str | Mapping[Any, Any] | None = {"name": "second", "nodata": 0, "classes": [
        {"code": code, "name": CLASSES[code], "colour": "#{:02x}{:02x}{:02x}".format(*rgb)}
        for rgb, code in COLOURS.items() if code
    ]}  # fmt: skip
    licence: ClassVar[str] = "academic use only"
    url: ClassVar[str] = "https://captain-whu.github.io/SCD"

    def scenes(self) -> list[SceneFiles]:
        parts = [part for part in ("train", "val", "test") if (self.root / part / "im1").is_dir()]
        if not parts:
            raise DataError(f"{self.root} has no train/im1 and no test/im1", fix="give the data set's folder")
        return [files for part in parts for files in self._pairs(part)]

    def _pairs(self, part: str) -> list[SceneFiles]:
        folder = self.root / part
        names = ("im1", "im2", "label1", "label2")
        first, second, label1, label2 = (by_stem(list_files(folder / name, (".png",))) for name in names)
        for others, what in ((second, "one in im2"), (label1, "one in label1"), (label2, "one in label2")):
            require_pairs(first, others, first_name="pictures in im1", second_name=what)
        found = []
        for stem in sorted(first, key=natural):
            before, after = (LabelFile(str(each[stem]), colours=COLOURS) for each in (label1, label2))
            images = tuple(rgb(each[stem]) for each in (first, second))
            change = LabelFile(before.path, colours={colour: 2 if code else 1 for colour, code in COLOURS.items()})
            labels = {"class": after, "class:1": before, "class:2": after, "change": change}
            found.append(SceneFiles(f"{part}_{stem}", images, labels, part))
        return found

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        table = np.zeros((7, 3), np.uint8)
        for colour, code in COLOURS.items():
            table[code] = colour
        for part in ("train", "test"):
            for number in (3, 12):
                before = miniature.patches(range(1, 7), 64, 64, seed=seed + number)
                after = miniature.changed(before, range(1, 7), seed=seed + number, share=0.5)
                for date, codes in ((1, before), (2, after)):
                    picture = miniature.picture(codes, 3, seed=number, low=0, high=255, dtype="uint8")
                    miniature.write(root / part / f"im{date}" / f"{number:05d}.png", picture, origin=None)
                    seen = np.where(before != after, codes, 0)
                    colours = table[seen].transpose(2, 0, 1)
                    miniature.write(root / part / f"label{date}" / f"{number:05d}.png", colours, origin=None)
