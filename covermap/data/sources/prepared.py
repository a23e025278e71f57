"""Prepared data: the folder that `covermap prepare CONFIG FOLDER` wrote (see data/store.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.parsing import as_written
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, inside
from covermap.data.store import MANIFEST, read_manifest, write_store


@register("source", "prepared")
class Prepared(Source):
    """The scenes or tiles of the folder, with the parts and places that their first layout gave them."""

    licence = "that of the data it was made from"
    url = ""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self._manifest = read_manifest(self.root)
        with as_written(self.root / MANIFEST, fix="prepare the data again"):
            legend = self._manifest["legend"]
            self.legend = None if legend is None else dict(legend)
            self.notes += [str(note) for note in self._manifest["notes"]]

    def scenes(self) -> list[SceneFiles]:
        with as_written(self.root / MANIFEST, fix="prepare the data again"):
            return [self._scene(row) for row in self._manifest["scenes"]]

    def _scene(self, row: Mapping[str, Any]) -> SceneFiles:
        if not isinstance(row["name"], str):
            raise TypeError("a name that is no text")
        images = tuple(
            ImageConfig(**{**image, "path": str(inside(self.root, image["path"]))}) for image in row["images"]
        )
        labels = {
            name: LabelFile(path if Path(path).is_absolute() else str(inside(self.root, path)))
            for name, path in row["labels"].items()
        }
        facts = {key: row[key] for key in ("part", "place", "chip_class")}
        return SceneFiles(row["name"], images, labels, **facts, chip_classes=tuple(row["chip_classes"]))

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        first = root.with_name(root.name + "_first")
        codes = miniature.patches(range(1, 4), 96, 128, seed=seed)
        picture = miniature.picture(codes, 4, seed=seed, low=200, high=4000, dtype="uint16")
        miniature.write(first / "image.tif", picture, bands=("blue", "green", "red", "nir"), nodata=0)
        miniature.write(first / "labels.tif", codes, nodata=0)
        config = DataConfig(image=str(first / "image.tif"), labels=str(first / "labels.tif"), sensor="planetscope")
        write_store(config, root)
