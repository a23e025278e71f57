"""Generated data that both sides read: chips with labels, and a scene; run by our Python, read by anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine
from rasterio.crs import CRS

from covermap.data.simulate import LEGEND, SceneRecipe, SimulatedScene
from covermap.geo.grid import Grid, Window

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
"""As Prithvi names them."""


def _write(path: Path, values: Any, grid: Any, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = values if values.ndim == 3 else values[None]
    profile = {
        "driver": "GTiff", "height": values.shape[1], "width": values.shape[2], "count": len(values),
        "dtype": values.dtype.name, "crs": grid.crs, "transform": grid.transform, "compress": "deflate", **more,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
        if len(values) == len(BANDS):
            for number, name in enumerate(BANDS, 1):
                file.set_band_description(number, name)


def _grid(height: int, width: int) -> Grid:
    """Pixels of 30 m, as Prithvi expects them, whatever the landscape was made at."""
    return Grid(CRS.from_epsg(32631), Affine(30, 0, 4e5, 0, -30, 5e6), height, width)


def chips(folder: Path, *, train: int, val: int, side: int, seed: int = 7) -> None:
    """images/NAME.tif (6 bands, uint16), labels/NAME.tif (codes 1 to 8, 0 nodata), train.txt and val.txt.

    Chips of val lie in a half of the landscape of their own.
    """
    across = 8
    rows = -(-(train + val) // across)
    scene = SimulatedScene(SceneRecipe(height=rows * side, width=across * side, seed=seed))
    whole, names = _grid(rows * side, across * side), []
    for number in range(train + val):
        window = Window(number // across * side, number % across * side, side, side)
        name = f"chip_{number:04d}"
        grid = whole.window_grid(window)
        _write(folder / "images" / f"{name}.tif", scene.optical(window), grid)
        _write(folder / "labels" / f"{name}.tif", scene.truth(window), grid, nodata=0)
        names.append(name)
    (folder / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[train:]) + "\n")


def scene(image: Path, labels: Path | None, side: int, *, seed: int = 1, block: int = 512) -> None:
    """A scene that repeats a generated one of 1024 px, six bands of uint16, deflate, in blocks."""
    made = SimulatedScene(SceneRecipe(height=1024, width=1024, seed=seed))
    whole = Window(0, 0, 1024, 1024)
    repeat = -(-side // 1024)
    tiled = {"tiled": True, "blockxsize": block, "blockysize": block, "BIGTIFF": "IF_SAFER"}
    grid = _grid(side, side)
    pixels = np.tile(made.optical(whole), (1, repeat, repeat))[:, :side, :side]
    _write(image, pixels, grid, nodata=0, **tiled)
    if labels:
        _write(labels, np.tile(made.truth(whole), (repeat, repeat))[:side, :side], grid, nodata=0, **tiled)


def legend(path: Path) -> None:
    """The classes of the generated landscape, as config and import take them."""
    classes = [{"code": each.code, "name": each.name, "colour": each.colour} for each in LEGEND.classes]
    path.write_text(yaml.safe_dump({"name": "simulated", "title": "simulated", "nodata": 0, "classes": classes}))
