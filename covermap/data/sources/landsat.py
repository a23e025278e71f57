"""Landsat Collection 2 products of level 1 or 2 as USGS delivers them: folders and tars in one folder.

    LC09_L2SP_193024_20230710_20230712_02_T1_SR_B4.TIF ... _QA_PIXEL.TIF  _MTL.txt     LC09_L2SP_...tar

Bands, dates and the scaling come from the MTL files (geo/landsat.py), QA_PIXEL says where it is cloudy. Products of one
WRS-2 path and row are the dates of one scene.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.errors import DataError
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.granules import Delivered, GranuleSource
from covermap.geo.landsat import is_landsat, product_of, read_landsat

_META = """GROUP = LANDSAT_METADATA_FILE
  GROUP = PRODUCT_CONTENTS
    PROCESSING_LEVEL = "L2SP"
    COLLECTION_NUMBER = 02
  END_GROUP = PRODUCT_CONTENTS
  GROUP = IMAGE_ATTRIBUTES
    SPACECRAFT_ID = "LANDSAT_9"
    WRS_PATH = {path}
    WRS_ROW = {row}
    DATE_ACQUIRED = {date}
    SUN_ELEVATION = 56.10
  END_GROUP = IMAGE_ATTRIBUTES
  GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
{scaling}  END_GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
END_GROUP = LANDSAT_METADATA_FILE
END
"""


@register("source", "landsat")
class Landsat(GranuleSource):
    """A scene for each path and row with all its dates; options as in GranuleSource."""

    licence = "public domain (USGS)"
    url = "https://www.usgs.gov/landsat-missions/landsat-collection-2"

    def products(self) -> list[Delivered]:
        every = sorted(path for path in self.root.rglob("*_MTL.*") if is_landsat(path))
        # Of the three forms of a product's metadata one is enough.
        files = {(path.parent, product_of(path)): path for path in reversed(every) if not path.name.startswith(".")}
        tars = sorted(path for path in self.root.rglob("*.tar") if not path.name.startswith("."))
        kept = [path for path in tars if is_landsat(path)]
        if len(kept) < len(tars):
            self.notes.append(f"{len(tars) - len(kept)} of {len(tars)} tars hold no Landsat product")
        found = [*sorted(files.values()), *kept]
        if not found:
            raise DataError(f"{self.root} has no LC08_*_MTL.txt or the like", fix="give the folder they are in")
        return [(path, read_landsat(path)) for path in found]

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        scaling = "".join(
            f"    REFLECTANCE_MULT_BAND_{n} = 2.75e-05\n    REFLECTANCE_ADD_BAND_{n} = -0.2\n" for n in range(1, 8)
        )
        for number, row in enumerate(("024", "025")):
            codes = miniature.patches(range(5), 96, 96, seed=seed + number, cell_px=12)
            where: dict[str, Any] = {"gsd_m": 30, "origin": (400_000, 5_700_000 - 100_000 * number), "epsg": 32632}
            clear = np.full((96, 96), 21824, np.uint16)
            clear[:20, :20] = 22280  # cloud with high confidence
            for date in ("2023-07-10", "2023-08-11"):
                stem = f"LC09_L2SP_193{row}_{date.replace('-', '')}_20230820_02_T1"
                folder = root / stem
                picture = miniature.picture(codes, 7, seed=int(date[5:7]), low=8000, high=20000, dtype="uint16")
                for i, values in enumerate(picture, 1):
                    miniature.write(folder / f"{stem}_SR_B{i}.TIF", values, nodata=0, **where)
                miniature.write(folder / f"{stem}_QA_PIXEL.TIF", clear, nodata=1, **where)
                about = _META.format(path="193", row=row, date=date, scaling=scaling)
                (folder / f"{stem}_MTL.txt").write_text(about)
                if number:
                    _pack(folder)


def _pack(folder: Path) -> None:
    """Replace a folder by a tar of its files, without folders in it, as USGS does."""
    with tarfile.open(folder.with_name(folder.name + ".tar"), "w") as tape:
        for path in sorted(folder.iterdir()):
            tape.add(path, arcname=path.name)
            path.unlink()
    folder.rmdir()
