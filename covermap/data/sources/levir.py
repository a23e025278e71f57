"""LEVIR-CD and LEVIR-CD+: aerial pictures of towns on two dates at 0.5 m, which buildings changed (Chen & Shi 2020).

    LEVIR-CD:   {train,val,test}/{A,B,label}/train_1.png, or all parts together in A/, B/, label/ as train_1.png ...
    LEVIR-CD+:  {train,test}/{A,B,label}/train_1.png

8-bit RGB without a place; masks are 0 or 255. The dates are not published.
"""

from __future__ import annotations

import re
from pathlib import Path

from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import PARTS, SceneFiles, Source, by_stem, list_files, natural, require_pairs, rgb


@register("source", "levir")
class Levir(Source):
    """A scene of two dates for each pair; the mask is its label `change`."""

    licence = "academic use only"
    url = "https://justchenhao.github.io/LEVIR"

    def scenes(self) -> list[SceneFiles]:
        folders = [(part, self.root / part) for part in PARTS if (self.root / part / "A").is_dir()]
        if not folders and (self.root / "A").is_dir():
            folders = [("", self.root)]
        if not folders:
            raise DataError(f"{self.root} has no folders A, B and label, nor train/A", fix="give the data set's folder")
        return [files for part, folder in folders for files in self._pairs(folder, part)]

    def _pairs(self, folder: Path, part: str) -> list[SceneFiles]:
        first, second, masks = (by_stem(list_files(folder / name, (".png",))) for name in ("A", "B", "label"))
        require_pairs(first, second, first_name="pictures in A", second_name="a picture in B")
        require_pairs(first, masks, first_name="pictures", second_name="a mask in label")
        return [
            SceneFiles(
                f"{part}_{stem}" if part and not stem.startswith(part) else stem,
                tuple(rgb(path) for path in (first[stem], second[stem])),
                {"change": LabelFile(str(masks[stem]), codes={0: 1, 255: 2})},
                part or _part(stem),
            )
            for stem in sorted(first, key=natural)
        ]

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for part in PARTS:
            for number in (1, 2, 10):
                before = miniature.patches(range(4), 64, 64, seed=seed + number)
                after = miniature.changed(before, range(4), seed=seed + number)
                for name, codes in (("A", before), ("B", after)):
                    picture = miniature.picture(codes, 3, seed=number, low=0, high=255, dtype="uint8")
                    miniature.write(root / part / name / f"{part}_{number}.png", picture, origin=None)
                mask = 255 * (before != after).astype("uint8")
                miniature.write(root / part / "label" / f"{part}_{number}.png", mask, origin=None)


def _part(stem: str) -> str:
    """The part that a name begins with, where all lie in one folder; raises DataError."""
    match = re.match(r"(train|val|test)[_\d]", stem)
    if match is None:
        raise DataError(f"{stem}.png is not named like train_1.png", fix="restore the data set's names")
    return match[1]
