"""TerraMesh: co-registered tiles of 224 x 224 px: Sentinel-2 in two levels, Sentinel-1, elevation and land cover.

    S2L1C/TILE.tif (13 bands)  S2L2A/TILE.tif (12: no B10)  S1RTC/TILE.tif (VV, VH in dB)  DEM/TILE.tif  LULC/TILE.tif

A tile has one name in all folders. Land cover is that of Esri and Impact Observatory with codes from 0 (nothing) to 9.
Some files hold Sentinel-2's +1000; it is found in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, by_stem, list_files, natural, numbered, require_pairs

L1C = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
BANDS = {
    "S2L1C": ("sentinel2", L1C), "S2L2A": ("sentinel2", [band for band in L1C if band != "B10"]),
    "S1RTC": ("sentinel1", ["VV", "VH"]), "DEM": ("dem", ["elevation"]),
}  # fmt: skip
CLASSES = ("water", "trees", "flooded vegetation", "crops", "built area", "bare ground", "snow and ice", "clouds",
           "rangeland")  # fmt: skip


@register("source", "terramesh")
class TerraMesh(Source):
    """A scene for each tile. inputs: folders of images, one level of Sentinel-2 at most; labels: whether LULC is."""

    legend = numbered("terramesh", CLASSES)
    licence = "CC BY-SA 4.0"
    url = "https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh"
    records = ("hf:ibm-esa-geospatial/TerraMesh",)

    def __init__(
        self, root: str | Path, *, inputs: Sequence[str] = ("S2L2A", "S1RTC", "DEM"), labels: bool = True
    ) -> None:
        super().__init__(root)
        odd = [name for name in inputs if name not in BANDS]
        if odd or not inputs or isinstance(inputs, str):
            raise ConfigError(f"data.options.inputs: {odd or inputs!r} is not known", fix=f"of {', '.join(BANDS)}")
        sensors = [BANDS[name][0] for name in inputs]
        if len(set(sensors)) < len(sensors):
            raise ConfigError(f"data.options.inputs: {', '.join(inputs)} name a sensor twice", fix="choose one level")
        self.inputs, self.labels = tuple(inputs), labels

    def scenes(self) -> list[SceneFiles]:
        folders = [*self.inputs, *(["LULC"] if self.labels else [])]
        files = {name: by_stem(list_files(self.root / name, (".tif", ".tiff"))) for name in folders}
        first = self.inputs[0]
        for name in folders[1:]:
            require_pairs(files[first], files[name], first_name=f"{first} tiles", second_name=f"{name} tiles")
        return [
            SceneFiles(
                tile,
                tuple(
                    ImageConfig(path=str(files[name][tile]), sensor=BANDS[name][0], bands=BANDS[name][1])
                    for name in self.inputs
                ),
                {"class": LabelFile(str(files["LULC"][tile]))} if self.labels else {},
                place="_".join(tile.split("_")[:2]),
            )
            for tile in sorted(files[first], key=natural)
        ]

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for i, tile in enumerate(("282D_485L_3_3", "38D_378R_2_3", "38D_378R_2_10")):
            where: dict[str, Any] = {"origin": (617_300 + 3000 * i, 9_625_100), "epsg": 32736}
            codes = miniature.patches((1, 2, 4, 5, 9), 64, 64, seed=seed + i)
            miniature.write(root / "LULC" / f"{tile}.tif", codes, **where)
            for folder, (_, bands) in BANDS.items():
                low, high = (100, 5000) if folder.startswith("S2") else (-25, 0) if folder == "S1RTC" else (0, 900)
                kind = "float32" if folder == "S1RTC" else "int16"
                values = miniature.picture(codes, len(bands), seed=seed + i, low=low, high=high, dtype=kind)
                miniature.write(root / folder / f"{tile}.tif", values, **where)
