"""Fixtures that many tests share: small rasters with known values, and the real data where it is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import settings
from rasterio.transform import from_origin

from covermap.cli import main

# Deadlines are timing assertions: a busy machine would fail them.
settings.register_profile("covermap", deadline=None)
settings.load_profile("covermap")

# One process runs many commands: none may set the precision of products for the tests after it.
os.environ["COVERMAP_WIDE_PRODUCTS"] = "0"

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


def landscape(height=96, width=128, seed=0):
    """codes (H, W) of stripes and blocks of three classes, and a (3, H, W) uint16 image that shows them with noise."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    codes = 1 + ((rows // 12 + cols // 16) % 3)
    means = np.array([[500, 900, 2500], [400, 600, 300], [1500, 1800, 2000]])
    image = means[codes - 1].transpose(2, 0, 1) + rng.normal(0, 150, (3, height, width))
    return codes.astype("uint8"), np.clip(image, 1, 9000).astype("uint16")


@pytest.fixture
def tiny(write_tif):
    """Config (plain values) of a scene of 96 x 128 px with three classes; a network learns it in seconds."""
    codes, image = landscape()
    return {
        "name": "tiny",
        "output": str(Path(write_tif("image.tif", image, bands=["green", "red", "nir"], nodata=0)).parent / "runs"),
        "data": {
            "image": write_tif("image.tif", image, bands=["green", "red", "nir"], nodata=0),
            "labels": write_tif("labels.tif", codes, nodata=0),
            "legend": {1: "field", 2: "water", 3: "town"},
        },
        "split": {"block_px": 16, "buffer_px": 2},
        "model": {"backbone_options": {"widths": [8, 16]}},
        "baseline": {"trees": 10, "samples": 2000},
        "train": {"epochs": 3, "steps_per_epoch": 6, "batch_size": 4, "size_px": 32, "lr": 0.01},
        "predict": {"size_px": 32, "workers": 1},
    }


@pytest.fixture
def covermap(monkeypatch, capsys):
    """covermap(*arguments) -> (exit code, stdout, stderr), in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["covermap", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return end.value.code or 0, out, err

    return run
