"""Sentinel-2 products of level 1C or 2A as ESA delivers them: SAFE folders and zips in one folder.

    S2B_MSIL2A_20230710T103629_N0509_R008_T32UNE_20230710T134600.SAFE/   ... .SAFE.zip or .zip

Bands, dates, offsets and the scaling come from the products' metadata (geo/safe.py); the scene classification of level
2A says where it is cloudy. Products of one MGRS tile are the dates of one scene.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin

from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.core.sensors import find_sensor
from covermap.data import miniature
from covermap.data.granules import Delivered, GranuleSource
from covermap.geo.safe import is_safe, read_safe

_META = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>{date}T10:36:29.024Z</PRODUCT_START_TIME>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info><Product_Image_Characteristics>
<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
</QUANTIFICATION_VALUES_LIST>{offsets}</Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>
"""


@register("source", "safe")
class Safe(GranuleSource):
    """A scene for each MGRS tile with all its dates; options as in GranuleSource."""

    licence = "Copernicus Sentinel data: free and open, name the source"
    url = "https://dataspace.copernicus.eu"

    def products(self) -> list[Delivered]:
        folders = [path for path in sorted(self.root.rglob("*.SAFE")) if path.is_dir() and is_safe(path)]
        zips = sorted(path for path in self.root.rglob("*.zip") if not path.name.startswith("."))
        kept = [path for path in zips if is_safe(path)]
        if len(kept) < len(zips):
            self.notes.append(f"{len(zips) - len(kept)} of {len(zips)} zips hold no Sentinel-2 product")
        own = [self.root] if is_safe(self.root) else []
        if not own + folders + kept:
            raise DataError(
                f"{self.root} has no S2*_MSIL1C_*.SAFE or S2*_MSIL2A_*.SAFE", fix="give the folder they are in"
            )
        return [(path, read_safe(path)) for path in own or folders + kept]

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for number, tile in enumerate(("32UNE", "32UPE")):
            codes = miniature.patches(range(5), 120, 120, seed=seed + number, cell_px=12)
            for date, baseline in (("2021-07-10", "03.01"), ("2023-07-10", "05.09")):
                folder = _write_product(root, tile, date, baseline, codes, 600_000 + 100_000 * number)
                if number:
                    shutil.make_archive(str(folder), "zip", root, folder.name)
                    shutil.rmtree(folder)


def _write_product(
    root: Path, tile: str, date: str, baseline: str, codes: npt.NDArray[np.uint8], left: int
) -> Path:  # fmt: skip
    """A level 2A product of 120 x 120 px at 10 m, a corner of it cloudy."""
    day, added = date.replace("-", ""), 1000 if baseline >= "04.00" else 0
    stamp = f"{day}T103629"
    folder = root / f"S2B_MSIL2A_{stamp}_N{baseline.replace('.', '')}_R008_T{tile}_{day}T134600.SAFE"
    images = folder / "GRANULE" / f"L2A_T{tile}_A033133_{stamp}" / "IMG_DATA"
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">-{added}</BOA_ADD_OFFSET>' for i in range(13) if added)
    listed = f"<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST>" if added else ""
    folder.mkdir(parents=True)
    (folder / "MTD_MSIL2A.xml").write_text(_META.format(date=date, baseline=baseline, offsets=listed))
    bands = [band for band in find_sensor("sentinel2").bands if band.name != "cirrus"]  # 2A has none
    picture = miniature.picture(codes, len(bands), seed=int(day), low=100, high=5000, dtype="uint16") + added
    classes = np.full((60, 60), 4, np.uint8)
    classes[:20, :20] = 9
    for band, values in zip(bands, picture, strict=True):
        step = int(band.gsd_m) // 10
        path = images / f"R{band.gsd_m:g}m" / f"T{tile}_{stamp}_{band.native}_{band.gsd_m:g}m.jp2"
        _write_jp2(path, values[::step, ::step], left, band.gsd_m)
    _write_jp2(images / "R20m" / f"T{tile}_{stamp}_SCL_20m.jp2", classes, left, 20)
    return folder


def _write_jp2(path: Path, values: npt.NDArray[Any], left: int, gsd_m: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", count=1, height=height, width=width, dtype=values.dtype, crs="EPSG:32632",
        transform=from_origin(left, 5_700_000, gsd_m, gsd_m), QUALITY="100", REVERSIBLE="YES",
    ) as file:  # fmt: skip
        file.write(values, 1)
