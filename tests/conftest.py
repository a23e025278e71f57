"""Fixtures that many tests share: small rasters with known values, and the real data where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; the test is skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, the folder of real data")
    return SHARED


@pytest.fixture
def write_tif(tmp_path):
    """write_tif(name, array (C, H, W) or (H, W), ...) -> path of a GeoTIFF at 10 m in EPSG:32631."""

    def write(
        name, array, *, bands=None, nodata=None, crs="EPSG:32631", origin=(500_000, 5_000_000), gsd=10.0, **extra
    ):
        array = np.asarray(array)
        array = array[None] if array.ndim == 2 else array
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = array.shape
        profile = {
            "driver": "GTiff",
            "count": count,
            "height": height,
            "width": width,
            "dtype": array.dtype,
            "crs": crs,
        }
        transform = from_origin(*origin, gsd, gsd)
        with rasterio.open(path, "w", **profile, transform=transform, nodata=nodata, **extra) as dataset:
            dataset.write(array)
            for i, name_ in enumerate(bands or (), 1):
                dataset.set_band_description(i, name_)
        return str(path)

    return write
