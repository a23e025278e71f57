"""Exports of Google Earth Engine: images that it splits into files when they are large.

    NAME.tif, or NAME-0000000000-0000000000.tif, NAME-0000000000-0000012544.tif ...     first row, first column

The files of one name are one scene, joined where they lie; bands keep the names of the export. NAME_labels.tif, if it
is there for any image, holds the class codes of NAME.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_section
from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, list_files, natural
from covermap.geo.mosaic import mosaic

_PART = re.compile(r"^(.+)-(\d{10})-(\d{10})$")


@register("source", "earth_engine")
class EarthEngine(Source):
    """A scene for each name in the folder.

    sensor, bands, nodata, date: of all images, as in an image's entry. use: bands by name, default all. labels: what is
    appended to a name for its labels.
    """

    licence = "that of the exported data"
    url = "https://developers.google.com/earth-engine/guides/exporting_images"

    def __init__(
        self,
        root: str | Path,
        *,
        sensor: str | None = None,
        bands: Sequence[str] | None = None,
        use: Sequence[str] | None = None,
        nodata: float | None = None,
        date: str | None = None,
        labels: str = "_labels",
    ) -> None:
        super().__init__(root)
        entry = {"sensor": sensor, "bands": bands, "use": use, "nodata": nodata, "date": date}
        self.entry, self.suffix = entry, labels

    def scenes(self) -> list[SceneFiles]:
        exports = self._exports()
        images = {name: files for name, files in exports.items() if not name.endswith(self.suffix)}
        labels = {name.removesuffix(self.suffix): files for name, files in exports.items() if name not in images}
        lone = [name for name in images if name not in labels] + [name for name in labels if name not in images]
        if labels and lone:
            raise DataError(
                f"images and labels do not pair: {', '.join(f'{name}.tif or {name}{self.suffix}.tif' for name in lone)}"
                " is not there",
                fix="restore the missing files, or move these away",
            )
        return [self._scene(name, files, labels.get(name)) for name, files in images.items()]

    def _exports(self) -> dict[str, list[Path]]:
        """{name: its files}, in natural order; raises DataError for a name that is there whole and in parts."""
        found: dict[str, list[Path]] = {}
        whole: set[str] = set()
        for path in list_files(self.root, (".tif", ".tiff")):
            match = _PART.match(path.stem)
            name = match[1] if match else path.stem
            whole |= set() if match else {name}
            found.setdefault(name, []).append(path)
            if name in whole and len(found[name]) > 1:
                raise DataError(
                    f"{found[name][0].name} and {path.name} are one image twice", fix="keep the whole file or its parts"
                )
        return dict(sorted(found.items(), key=lambda item: natural(item[0])))

    def _scene(self, name: str, files: Sequence[Path], labels: Sequence[Path] | None) -> SceneFiles:
        paths = [str(path) for path in files]
        if len(paths) > 1:
            mosaic(paths)  # what does not fit is said before anything is read
        raw = {"path": paths if len(paths) > 1 else paths[0], "tiles": len(paths) > 1, **self.entry}
        image = parse_section(ImageConfig, raw, where="data.options")
        if labels is not None and len(labels) > 1:
            raise DataError(
                f"the labels {labels[0].name} are split into {len(labels)} files",
                fix="join them into one file: gdal_merge.py -o NAME_labels.tif NAME_labels-*.tif",
            )
        return SceneFiles(name, (image,), {"class": LabelFile(str(labels[0]))} if labels else {})

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        bands = ["B2", "B3", "B4", "B8"]
        for i, name in enumerate(("north", "south")):
            codes = miniature.patches((1, 2, 3), 64, 80, seed=seed + i)
            values = miniature.picture(codes, 4, seed=seed + i, low=100, high=5000, dtype="uint16")
            left, top = 400_000, 4_600_000 - 2000 * i
            miniature.write(root / f"{name}_labels.tif", codes, origin=(left, top), nodata=0)
            for row in (0, 48):
                for col in (0, 48):
                    part = values[:, row : row + 48, col : col + 48]
                    path = root / f"{name}-{row:010d}-{col:010d}.tif"
                    miniature.write(path, part, origin=(left + 10 * col, top - 10 * row), bands=bands)
