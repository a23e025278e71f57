"""`prepare`: an image or labels on one grid, as one GeoTIFF, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from covermap.core.config import DataConfig
from covermap.core.errors import ConfigError, GridError
from covermap.core.legend import IGNORE, Legend, load_legend
from covermap.core.output import claim
from covermap.core.sensors import find_sensor
from covermap.data.labels import RasterLabels, infer_legend, is_vector
from covermap.geo.grid import Grid, partition
from covermap.geo.raster import Raster, RasterWriter, grid_of, open_dataset, open_raster
from covermap.geo.rasterize import VectorLabels

CATEGORICAL = ("mode", "nearest", "weighted_mode")
CONTINUOUS = ("bilinear", "nearest", "cubic", "average")
BLOCK_PX = 2048


def prepare(
    source: str,
    out: str | Path,
    *,
    like: str | None = None,
    gsd_m: float | None = None,
    resampling: str = "bilinear",
    field: str | None = None,
    legend: str | None = None,
    sensor: str | None = None,
    bands: Sequence[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write `source` on the grid of `like`, or on its own at `gsd_m`; returns sentences about the result.

    Polygons, points and whole-number rasters resampled by mode are labels; the rest are images. Memory: a block.
    """
    if not dry_run:
        claim(out, overwrite=overwrite)
    if is_vector(source):
        if not like or not field:
            raise ConfigError(f"{source} holds polygons or points", fix="add --like IMAGE and --field CLASS_FIELD")
        grid = open_raster(like, bands=_any_names(like)).grid
        labels = VectorLabels.open(source, field=field, grid=grid, legend=load_legend(legend) if legend else None)
        return _write_labels(labels, labels.legend, grid, Path(out), overwrite, dry_run, on_progress, labels.notes)
    if resampling in ("mode", "weighted_mode") or legend:
        return _prepare_label_raster(
            source, Path(out), like, gsd_m, resampling, legend, overwrite, dry_run, on_progress
        )
    if resampling not in CONTINUOUS:
        raise ConfigError(
            f"--resampling {resampling} is not known", fix=f"use one of {', '.join({*CONTINUOUS, *CATEGORICAL})}"
        )
    raster = open_raster(source, sensor=find_sensor(sensor) if sensor else None, bands=bands or _any_names(source))
    grid = _target(raster.grid, like, gsd_m)
    if raster.grid.overlap(grid) == 0:
        raise GridError(f"{source} does not overlap {like}", fix="check the CRS of both: covermap info SOURCE LIKE")
    return _write_image(raster.on(grid, resampling=resampling), Path(out), overwrite, dry_run, on_progress)


def _any_names(path: str) -> list[str] | None:
    """Names for a file whose bands have none: copying needs no meaning."""
    if Path(path).is_dir():
        return None
    dataset = open_dataset(path)
    return None if all(dataset.descriptions) else [f"band{i}" for i in dataset.indexes]


def _target(own: Grid, like: str | None, gsd_m: float | None) -> Grid:
    if like:
        return open_raster(like, bands=_any_names(like)).grid
    return own.coarsen(gsd_m / own.gsd_m) if gsd_m else own


def _prepare_label_raster(
    source: str,
    out: Path,
    like: str | None,
    gsd_m: float | None,
    method: str,
    legend: str | None,
    overwrite: bool,
    dry_run: bool,
    on_progress: Callable[[int, int], None],
) -> list[str]:
    if method not in CATEGORICAL:
        method = "mode"
    known = load_legend(legend) if legend else infer_legend(source)
    grid = _target(grid_of(open_dataset(source)), like, gsd_m)
    config = DataConfig(image=source, labels=source, align=method)
    labels = RasterLabels.open(source, grid=grid, legend=known, config=config, image_name=like or out.name)
    return _write_labels(labels, known, grid, out, overwrite, dry_run, on_progress, labels.notes)


def _write_labels(
    labels: RasterLabels | VectorLabels,
    legend: Legend,
    grid: Grid,
    out: Path,
    overwrite: bool,
    dry_run: bool,
    on_progress: Callable[[int, int], None],
    notes: Sequence[str],
) -> list[str]:
    told = [f"{out}: {grid.describe()}, {len(legend)} classes", *(f"note: {note}" for note in notes)]
    if dry_run:
        return told
    blocks = list(partition(grid.window, BLOCK_PX, BLOCK_PX))
    counts = np.zeros(256, np.int64)
    with RasterWriter(
        out, grid, bands=["label"], dtype=legend.map_dtype, nodata=legend.map_nodata, overwrite=overwrite
    ) as writer:
        for done, block in enumerate(blocks):
            on_progress(done, len(blocks))
            index = labels.read(block)
            counts += np.bincount(index.ravel(), minlength=256)
            writer.write(block, legend.decode(index))
        on_progress(len(blocks), len(blocks))
    told += [f"  {c.code} {c.name}: {counts[i]:,} px" for i, c in enumerate(legend.classes)]
    return [*told, f"  unlabelled: {counts[IGNORE]:,} px"]


def _write_image(
    raster: Raster, out: Path, overwrite: bool, dry_run: bool, on_progress: Callable[[int, int], None]
) -> list[str]:
    told = [f"{out}: {raster.grid.describe()}, {', '.join(raster.bands)}"]
    if dry_run:
        return told
    nodata = raster.nodata if raster.nodata is not None else open_dataset(raster.paths[0]).nodata
    fill = nodata if nodata is not None else (float("nan") if np.dtype(raster.dtype).kind == "f" else 0)
    blocks = list(partition(raster.grid.window, BLOCK_PX, BLOCK_PX))
    invalid = 0
    with RasterWriter(
        out, raster.grid, bands=raster.bands, dtype=raster.dtype, nodata=fill, overwrite=overwrite
    ) as writer:
        for done, block in enumerate(blocks):
            on_progress(done, len(blocks))
            values, valid = raster.read(block)
            if np.dtype(raster.dtype).kind in "iu":
                values = np.rint(values)
            invalid += int((~valid[0]).sum())
            writer.write(block, np.where(valid[0], values[0], fill).astype(raster.dtype))
        on_progress(len(blocks), len(blocks))
    return [*told, f"  not valid: {invalid / (raster.grid.height * raster.grid.width):.1%}"]
