"""`info`: what is in a raster or vector file, as far as it matters for mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import BandError, DataError
from covermap.core.sensors import common_name, find_sensor
from covermap.data.labels import is_vector
from covermap.data.scene import S2_DARKEST
from covermap.geo.grid import Window
from covermap.geo.legend_files import class_names
from covermap.geo.raster import Raster, grid_of, open_dataset, open_raster
from covermap.geo.vector import describe_vector

MAX_CLASSES = 64


def info(path: str, *, sensor: str | None = None) -> dict[str, Any]:
    """Facts about one file or folder: plain values, and lists of rows for tables. Raises DataError."""
    if is_vector(path):
        if not Path(path).is_file():
            raise DataError(f"there is no file {path}", fix="check the path")
        return {"file": path, "kind": "vector", **describe_vector(path)}
    known = find_sensor(sensor) if sensor else None
    try:
        raster = open_raster(path, sensor=known)
    except BandError as error:
        if Path(path).is_dir():
            raise
        dataset = open_dataset(path)
        raster = open_raster(path, bands=[f"band {i}" for i in dataset.indexes])
        return _describe(path, raster) | {"note": f"bands have no names; {error.fix}"}
    return _describe(path, raster)


def _describe(path: str, raster: Raster) -> dict[str, Any]:
    dataset = open_dataset(raster.paths[0])
    grid = raster.grid
    values, valid = _probe(raster)
    location = grid.lat_lon()
    out: dict[str, Any] = {
        "file": path,
        "kind": "raster",
        "driver": dataset.driver if len(raster.paths) == 1 else f"{len(raster.paths)} files",
        "size": f"{grid.height} rows x {grid.width} columns",
        "crs": grid.crs.to_string() if grid.crs else "none",
        "pixel": f"{grid.gsd_m:.6g} m",
        "bounds": [round(float(v), 6) for v in grid.bounds].__str__(),
        "centre": f"{location[0]:.4f}, {location[1]:.4f} (latitude, longitude)" if location else None,
        "type": raster.dtype,
        "nodata": raster.nodata if raster.nodata is not None else dataset.nodata,
        "valid": f"{valid.mean():.1%} of the pixels looked at",
    }
    out["hint"] = _offset_hint(raster, values, valid)
    classes = _classes(raster, values, valid, dataset)
    if not classes:
        out["bands"] = [
            _band(i, n, s, raster, values[i], valid)
            for i, (n, s) in enumerate(zip(raster.bands, raster.sources[0], strict=True))
        ]
    out["classes"] = classes
    return {key: value for key, value in out.items() if value is not None}


def _probe(raster: Raster, side: int = 512) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values (C, N) and validity (N,) of up to nine spread windows."""
    rows = np.unique(np.linspace(0, max(0, raster.grid.height - side), 3).astype(int))
    cols = np.unique(np.linspace(0, max(0, raster.grid.width - side), 3).astype(int))
    parts, masks = [], []
    for row in rows:
        for col in cols:
            window = Window(int(row), int(col), side, side).intersect(raster.grid.window)
            values, valid = raster.read(window)
            parts.append(values[0].reshape(len(raster.bands), -1))
            masks.append(valid[0].ravel())
    return np.concatenate(parts, 1), np.concatenate(masks)


def _band(
    index: int, name: str, source: Any, raster: Raster, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    good = values[valid]
    low, middle, high = np.percentile(good, (2, 50, 98)).tolist() if len(good) else (float("nan"),) * 3
    native = grid_of(open_dataset(source.path)).gsd_m
    return {
        "no": index + 1,
        "band": common_name(name),
        "pixel_m": round(native, 3),
        "p2": low,
        "median": middle,
        "p98": high,
    }


def _offset_hint(raster: Raster, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> str | None:
    """Twelve or thirteen whole-number bands that never fall below 1000 look like Sentinel-2 with the +1000 offset."""
    good = values[:, valid]
    optical = len({"blue", "green", "red", "nir", "swir1"} & set(raster.bands)) >= 4 or len(raster.bands) in (12, 13)
    if (
        optical
        and good.size
        and np.dtype(raster.dtype).kind in "iu"
        and good[good > 0].size
        and good[good > 0].min() >= S2_DARKEST
    ):
        return f"no value below {S2_DARKEST}: Sentinel-2 since baseline 04.00? Sensor sentinel2 takes the offset off"
    return None


def _classes(
    raster: Raster, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], dataset: Any
) -> list[dict[str, Any]]:
    if len(raster.bands) != 1 or np.dtype(raster.dtype).kind not in "iu":
        return []
    codes, counts = np.unique(values[0][valid], return_counts=True)
    if len(codes) > MAX_CLASSES:
        return []
    names = class_names(raster.paths[0])
    share = counts / max(1, counts.sum())
    return [
        {"code": int(c), "name": names.get(c, ""), "share": float(s)}
        for c, s in zip(codes.tolist(), share.tolist(), strict=True)
    ]
