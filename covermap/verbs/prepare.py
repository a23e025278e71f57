"""`prepare`: an image or labels on one grid, as one GeoTIFF, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import DataConfig
from covermap.core.engine import cores, map_unordered
from covermap.core.errors import ConfigError, GridError, OutputError
from covermap.core.legend import IGNORE, Legend, load_legend
from covermap.core.output import claim
from covermap.core.progress import Tick, unseen
from covermap.core.sensors import find_sensor
from covermap.data.label_file import LabelFile
from covermap.data.labels import RasterLabels, infer_legend, is_vector
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.products import small_cache
from covermap.geo.raster import RasterWriter, files_behind, grid_of, open_dataset, open_raster
from covermap.geo.rasterize import VectorLabels

CATEGORICAL = ("mode", "nearest", "weighted_mode")
CONTINUOUS = ("bilinear", "nearest", "cubic", "average")
BLOCK_PX = 1024


@dataclass(frozen=True)
class Layer:
    """What is to be written: `read(window)` gives values and counts, `describe(all counts)` the sentences on them."""

    grid: Grid
    bands: Sequence[str]
    dtype: str
    nodata: float
    read: Callable[[Window], tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]
    describe: Callable[[npt.NDArray[np.int64]], list[str]]
    notes: Sequence[str] = ()


@small_cache()
def prepare(
    source: str,
    out: str | Path,
    *,
    like: str | None = None,
    gsd_m: float | None = None,
    resampling: str = "bilinear",
    field: str | None = None,
    layer: str | None = None,
    epsg: int | None = None,
    legend: str | None = None,
    sensor: str | None = None,
    bands: Sequence[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: Tick = unseen,
) -> list[str]:
    """Write `source` on the grid of `like`, or on its own at `gsd_m`; returns sentences about the result.

    Polygons, points and whole-number rasters resampled by mode are labels; the rest are images. Memory: a block a core.
    Raises ConfigError (options that do not go together), GridError (no overlap), OutputError (exists, is an input).
    """
    out = claim(out, overwrite=overwrite, dry_run=dry_run)
    known = load_legend(legend) if legend else None
    if gsd_m is not None and gsd_m <= 0:
        raise ConfigError(f"--gsd {gsd_m:g} is no pixel size", fix="give metres, for example --gsd 10")
    if is_vector(source):
        if not like or not field:
            raise ConfigError(f"{source} holds polygons or points", fix="add --like IMAGE and --field CLASS_FIELD")
        grid = _grid_of(like)
        labels = VectorLabels.open(source, field=field, grid=grid, legend=known, layer=layer, epsg=epsg)
        found = _label_layer(labels, labels.legend)
    elif resampling in ("mode", "weighted_mode") or known:
        grid = _target(grid_of(open_dataset(source)), like, gsd_m)
        found = _label_raster(source, like or source, grid, known, resampling)
    elif resampling in CONTINUOUS:
        found = _image(source, like, gsd_m, resampling, sensor, bands)
    else:
        listed = ", ".join(dict.fromkeys((*CONTINUOUS, *CATEGORICAL)))
        raise ConfigError(f"--resampling {resampling} is not known", fix=f"use one of {listed}")
    if out.resolve() in {Path(file).resolve() for path in (source, like) if path for file in _files(path)}:
        raise OutputError(f"{out} is an input of this call", fix="give the result another name")
    told = [f"{out}: {found.grid.describe()}, {', '.join(found.bands)}", *(f"note: {note}" for note in found.notes)]
    return told if dry_run else told + _write(found, out, overwrite, on_progress)


def _files(path: str) -> list[str]:
    if is_vector(path):
        return [path]
    return [file for each in open_raster(path, bands=_any_names(path)).paths for file in files_behind(each)]


def _any_names(path: str) -> list[str] | None:
    """Names for a file whose bands have none: copying needs no meaning."""
    if Path(path).is_dir():
        return None
    dataset = open_dataset(path)
    return None if all(dataset.descriptions) else [f"band{i}" for i in dataset.indexes]


def _grid_of(path: str) -> Grid:
    return open_raster(path, bands=_any_names(path)).grid


def _target(own: Grid, like: str | None, gsd_m: float | None) -> Grid:
    if like:
        return _grid_of(like)
    return own.coarsen(gsd_m / own.gsd_m) if gsd_m else own


def _label_raster(source: str, like: str, grid: Grid, legend: Legend | None, method: str) -> Layer:
    legend = legend or infer_legend(source)
    config = DataConfig(image=source, labels=source, align=method if method in CATEGORICAL else "mode")
    return _label_layer(
        RasterLabels.open(LabelFile(source), grid=grid, legend=legend, config=config, image_name=like), legend
    )


def _label_layer(labels: RasterLabels | VectorLabels, legend: Legend) -> Layer:
    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        index = labels.read(window)
        return legend.decode(index), np.bincount(index.ravel(), minlength=256)

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        lines = [f"  {c.code} {c.name}: {counts[i]:,} px" for i, c in enumerate(legend.classes)]
        return [*lines, f"  unlabelled: {counts[IGNORE]:,} px"]

    return Layer(labels.grid, ["label"], legend.map_dtype, legend.map_nodata, read, describe, labels.notes)


def _image(
    source: str, like: str | None, gsd_m: float | None, resampling: str, sensor: str | None, bands: Sequence[str] | None
) -> Layer:
    own = open_raster(source, sensor=find_sensor(sensor) if sensor else None, bands=bands or _any_names(source))
    grid = _target(own.grid, like, gsd_m)
    if own.grid.overlap(grid) == 0:
        raise GridError(f"{source} does not overlap {like}", fix="check the CRS of both: covermap info SOURCE LIKE")
    raster = own.on(grid, resampling=resampling)
    dtype = np.dtype(own.dtype)
    nodata = raster.nodata if raster.nodata is not None else open_dataset(raster.paths[0]).nodata
    fill = nodata if nodata is not None else (float("nan") if dtype.kind == "f" else 0)

    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        values, valid = raster.read(window)
        if dtype.kind in "iu":
            # Cubic resampling overshoots: without the cut dark pixels would become the brightest.
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.where(valid[0], values[0], fill).astype(dtype), np.array([(~valid[0]).sum()])

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        return [f"  not valid: {counts[0] / (grid.height * grid.width):.1%}"]

    notes = [] if nodata is not None or dtype.kind == "f" else ["0 is nodata in the result: the source has no nodata"]
    return Layer(grid, raster.bands, dtype.name, fill, read, describe, notes)


def _write(layer: Layer, out: Path, overwrite: bool, on_progress: Tick) -> list[str]:
    """Blocks are read by all cores, and written in their order: the same call gives the same bytes."""
    blocks = list(partition(layer.grid.window, BLOCK_PX, BLOCK_PX))
    counts: Any = 0
    early: dict[int, npt.NDArray[Any]] = {}
    with RasterWriter(
        out, layer.grid, bands=layer.bands, dtype=layer.dtype, nodata=layer.nodata, overwrite=overwrite
    ) as writer:  # fmt: skip
        written = 0
        for number, (values, seen) in map_unordered(
            lambda number: (number, layer.read(blocks[number])), range(len(blocks)), workers=cores()
        ):
            early[number] = values
            counts = counts + seen
            while written in early:
                writer.write(blocks[written], early.pop(written))
                written += 1
                on_progress(written, len(blocks))
    return layer.describe(counts)
