"""Small landscapes for miniature data sets: class codes in patches, and pictures that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.transform import from_origin

Codes = npt.NDArray[np.uint8]


def patches(codes: Sequence[int], height: int, width: int, *, seed: int, cell_px: int = 8) -> Codes:
    """A map (H, W) of square cells, each of one of the codes; every code occurs where there are cells enough."""
    rng = np.random.default_rng(seed)
    rows, cols = -(-height // cell_px), -(-width // cell_px)
    drawn = np.resize(np.asarray(codes, np.uint8), rows * cols)
    rng.shuffle(drawn)
    return np.kron(drawn.reshape(rows, cols), np.ones((cell_px, cell_px), np.uint8))[:height, :width]


def changed(codes: Codes, choice: Sequence[int], *, seed: int, share: float = 0.2, cell_px: int = 8) -> Codes:
    """The same map later: a share of the cells has another code."""
    rng = np.random.default_rng(seed)
    rows, cols = -(-codes.shape[0] // cell_px), -(-codes.shape[1] // cell_px)
    grow = np.ones((cell_px, cell_px), np.uint8)
    hit = np.kron((rng.random((rows, cols)) < share).astype(np.uint8), grow)[: codes.shape[0], : codes.shape[1]]
    new = np.kron(rng.choice(np.asarray(choice, np.uint8), (rows, cols)), grow)[: codes.shape[0], : codes.shape[1]]
    return np.where(hit > 0, new, codes).astype(np.uint8)


def picture(codes: Codes, num_bands: int, *, seed: int, low: float, high: float, dtype: str) -> npt.NDArray[Any]:
    """(C, H, W): each code has a level of its own in each band, with noise; between low and high."""
    rng = np.random.default_rng(seed)
    levels = np.random.default_rng(7).uniform(0.15, 0.85, (256, num_bands))
    values = levels[codes].transpose(2, 0, 1) + rng.normal(0, 0.04, (num_bands, *codes.shape))
    return (low + np.clip(values, 0, 1) * (high - low)).astype(dtype)


def write(
    path: Path,
    values: npt.NDArray[Any],
    *,
    gsd_m: float = 10.0,
    origin: tuple[float, float] | None = (400_000, 4_600_000),
    epsg: int | None = 32631,
    bands: Sequence[str] = (),
    nodata: float | None = None,
) -> None:
    """Write (C, H, W) or (H, W) as GeoTIFF, or PNG by the ending; origin None: without a place."""
    values = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        "driver": "PNG" if path.suffix == ".png" else "GTiff", "count": len(values), "height": values.shape[1],
        "width": values.shape[2], "dtype": values.dtype, "nodata": nodata,
    }  # fmt: skip
    if origin is not None:
        profile["transform"] = from_origin(*origin, gsd_m, gsd_m)
        profile["crs"] = f"EPSG:{epsg}" if epsg else None
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
        for i, name in enumerate(bands, 1):
            file.set_band_description(i, name)
    for side in path.parent.glob(path.name + ".aux.xml"):
        side.unlink()


def write_variable(
    path: Path,
    values: npt.NDArray[Any],
    variable: str,
    along: Mapping[str, Sequence[Any]],
    *,
    gsd_m: float = 10.0,
    origin: tuple[float, float] = (400_000, 4_600_000),
    epsg: int = 32631,
) -> None:
    """Write (C, H, W) as a variable of a netCDF file; along: {dimension: its values}, whose last runs fastest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"height": values.shape[1], "width": values.shape[2], "count": len(values), "dtype": values.dtype}
    tags = {"NETCDF_DIM_EXTRA": f"{{{','.join(along)}}}"}
    for name, places in along.items():
        kind = 12 if isinstance(places[0], str) else 4  # netCDF's numbers of its types: string, int
        tags[f"NETCDF_DIM_{name}_DEF"] = f"{{{len(places)},{kind}}}"
        tags[f"NETCDF_DIM_{name}_VALUES"] = f"{{{','.join(map(str, places))}}}"
    with MemoryFile() as memory:
        place = {"transform": from_origin(*origin, gsd_m, gsd_m), "crs": f"EPSG:{epsg}"}
        with memory.open(driver="GTiff", **profile, **place) as file:
            file.write(values)
            file.update_tags(**tags)
            file.update_tags(1, NETCDF_VARNAME=variable)
        copy(memory.name, path, driver="netCDF", FORMAT="NC4")
