"""`prepare`: an image, several dates of it or labels on one grid, as one GeoTIFF, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import CloudConfig, DataConfig, ImageConfig, expand, parse_date, split_date
from covermap.core.errors import ConfigError, DataError, GridError, LabelError, OutputError
from covermap.core.legend import IGNORE, Legend, load_legend
from covermap.core.output import claim, write_text
from covermap.core.progress import Tick, unseen
from covermap.core.sensors import find_sensor
from covermap.data.label_file import LabelFile
from covermap.data.labels import RasterLabels, infer_legend, is_vector
from covermap.data.scene import Scene, open_scenes
from covermap.data.source import with_own_clouds
from covermap.geo.classes import BLOCK_PX as LABEL_BLOCK_PX
from covermap.geo.classes import METHODS, class_losses, count_classes, rare_class_weights, read_by_method
from covermap.geo.composite import composite as composite_of
from covermap.geo.composite import require_method
from covermap.geo.delivered import find_granule
from covermap.geo.density import PointDensity
from covermap.geo.grid import Grid, Window
from covermap.geo.legend_files import csv_text
from covermap.geo.products import small_cache
from covermap.geo.raster import Raster, files_behind, grid_of, open_dataset, open_raster
from covermap.geo.rasterize import VectorLabels
from covermap.geo.terrain import require_terrain
from covermap.geo.terrain import terrain as terrain_of
from covermap.verbs.layer import BLOCK_PX, Layer, write_layer

CONTINUOUS = ("bilinear", "nearest", "cubic", "average")
_DENSITIES = (0.1, 1.0, 5.0, 20.0)
"""Points per km2 from which on pixels are counted for the user."""
COMPOSITE_BYTES = 1 << 28
"""What a block of several dates may take, about; each core holds one."""


@dataclass(frozen=True)
class Outcome:
    """Sentences about the result, and what each class lost, where that was asked."""

    told: list[str]
    losses: Sequence[dict[str, Any]] = ()


@small_cache()
def prepare(
    source: str | Sequence[str], out: str | Path, *, like: str | None = None, gsd_m: float | None = None,
    resampling: str = "bilinear", field: str | None = None, layer: str | None = None, epsg: int | None = None,
    legend: str | None = None, sensor: str | None = None, bands: Sequence[str] | None = None, clouds: str = "auto",
    composite: str | None = None, dates: str | None = None, report_loss: bool = False,
    terrain: Sequence[str] | None = None, density_m: float | None = None, overwrite: bool = False,
    dry_run: bool = False, on_progress: Tick = unseen,
) -> Outcome:  # fmt: skip
    """Write `source` on the grid of `like`, or on its own at `gsd_m`; returns sentences about the result.

    Polygons, points and whole-number rasters resampled by mode are labels; the rest are images. composite: several
    sources (PATH, PATH@DATE, patterns) as one image by median, mean or max-ndvi over their valid pixels; dates: only
    those in the period first/last. report_loss: count what each method loses of the classes of a label raster, and
    write it beside the result as NAME.classes.csv. terrain: slope, aspect of elevation instead of itself. density_m:
    points per km2 by a kernel of this standard deviation in metres. Memory: a block a core. Raises ConfigError
    (options that do not go together), GridError (no overlap), OutputError (exists).
    """
    out = claim(out, overwrite=overwrite, dry_run=dry_run)
    sources = [source] if isinstance(source, str) else list(source)
    known = load_legend(legend) if legend else None
    if report_loss and (composite or field or dates):
        raise ConfigError("--report-loss counts the pixels of a label raster", fix="leave the other options out")
    if composite is not None:
        if known or field:
            raise ConfigError("--composite goes with images, not with labels", fix="leave --legend and --field out")
        chosen, left_out = _dated(sources, dates, sensor, bands, clouds)
        found = _composite(chosen, left_out, composite, like, gsd_m, resampling)
        return _finish(found, out, [*(str(image.path) for image in chosen), like], overwrite, dry_run, on_progress)
    if len(sources) > 1 or dates:
        raise ConfigError("several images or --dates need --composite", fix="say how: median, mean or max-ndvi")
    source = sources[0]
    if terrain and (known or field or report_loss):
        raise ConfigError("--terrain goes with elevation, not with labels", fix="leave the other options out")
    if density_m is not None:
        idle = known or field or terrain or report_loss or sensor or bands or resampling != "bilinear"
        if idle or not is_vector(source):
            raise ConfigError("--density takes points alone", fix="covermap prepare heads.csv density.tif --like IMAGE")
        found = _density(source, like, gsd_m, density_m, layer, epsg)
    elif is_vector(source):
        if not like or not field:
            raise ConfigError(f"{source} holds polygons or points", fix="add --like IMAGE and --field CLASS_FIELD")
        grid = _grid_of(like)
        labels = VectorLabels.open(source, field=field, grid=grid, legend=known, layer=layer, epsg=epsg)
        found = _label_layer(labels, labels.legend)
    elif resampling in ("mode", "weighted_mode") or known or report_loss:
        grid = _target(grid_of(open_dataset(source)), like, gsd_m)
        found = _label_raster(source, like or source, grid, known, resampling, report_loss)
    elif resampling in CONTINUOUS:
        bands = bands or (["elevation"] if terrain and not sensor else None)
        found = _image(source, like, gsd_m, resampling, sensor, bands, clouds, terrain)
    else:
        listed = ", ".join(dict.fromkeys((*CONTINUOUS, *METHODS)))
        raise ConfigError(f"--resampling {resampling} is not known", fix=f"use one of {listed}")
    return _finish(found, out, [source, like], overwrite, dry_run, on_progress)


def _finish(
    found: Layer, out: Path, inputs: Sequence[str | None], overwrite: bool, dry_run: bool, on_progress: Tick
) -> Outcome:
    """Write a layer unless it would replace an input; raises OutputError."""
    if out.resolve() in {Path(file).resolve() for path in inputs if path for file in _files(path)}:
        raise OutputError(f"{out} is an input of this call", fix="give the result another name")
    told = [f"{out}: {found.grid.describe()}, {', '.join(found.bands)}", *(f"note: {note}" for note in found.notes)]
    if dry_run:
        return Outcome(told)
    try:
        counts = write_layer(found, out, overwrite=overwrite, on_progress=on_progress)
    except LabelError:
        if found.again is None:
            raise
        found = found.again()
        counts = write_layer(found, out, overwrite=overwrite, on_progress=on_progress)
    told += found.describe(counts)
    losses = found.losses(counts)
    if losses:
        table = csv_text(list(losses[0]), [list(row.values()) for row in losses])
        told.append(f"losses: {write_text(out.with_suffix('.classes.csv'), table)}")
    return Outcome(told, losses)


def _files(path: str) -> list[str]:
    if is_vector(path):
        return [path]
    return [file for each in open_raster(path, bands=_any_names(path)).paths for file in files_behind(each)]


def _any_names(path: str) -> list[str] | None:
    """Names for a file whose bands have none: copying needs no meaning."""
    if Path(path).is_dir() or find_granule(path):
        return None
    dataset = open_dataset(path)
    named = all(dataset.descriptions) and dataset.descriptions != ("bands",)
    return None if named else [f"band{i}" for i in dataset.indexes]


def _grid_of(path: str) -> Grid:
    return open_raster(path, bands=_any_names(path)).grid


def _target(own: Grid, like: str | None, gsd_m: float | None) -> Grid:
    if gsd_m is not None and gsd_m <= 0:
        raise ConfigError(f"--gsd {gsd_m:g} is no pixel size", fix="give metres, for example --gsd 10")
    if like:
        return _grid_of(like)
    return own.coarsen(gsd_m / own.gsd_m) if gsd_m else own


def _label_raster(source: str, like: str, grid: Grid, legend: Legend | None, method: str, report_loss: bool) -> Layer:
    config = DataConfig(image=source, labels=source, align=method if method in METHODS else "mode")

    def layer(legend: Legend) -> Layer:
        labels = RasterLabels.open(LabelFile(source), grid=grid, legend=legend, config=config, image_name=like)
        found = replace(_label_layer(labels, legend), block_px=LABEL_BLOCK_PX)
        return _with_losses(found, labels, legend) if report_loss else found

    if legend or report_loss:
        return layer(legend or infer_legend(source))
    # Reading everything twice, first for its codes, would take nearly twice as long: a part mostly shows them all.
    return replace(layer(infer_legend(source, every=8)), again=lambda: layer(infer_legend(source)))


def _with_losses(layer: Layer, labels: RasterLabels, legend: Legend) -> Layer:
    """The same, counted before and by each method after: counts (method, 256)."""
    how: dict[str, Any] = {"nodata": labels.nodata, "unknown": labels.unknown}
    before = count_classes(labels.source, layer.grid, legend, **how)
    weights = rare_class_weights(before)

    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        found = read_by_method(labels.source, layer.grid, legend, window=window, weights=weights, **how)
        counts = [np.bincount(index.ravel(), minlength=256) for index in found.values()]
        return legend.decode(found[labels.align]), np.stack(counts)

    def losses(counts: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        return class_losses(legend, before, dict(zip(METHODS, counts[:, : len(legend)], strict=True)))

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        return layer.describe(counts[METHODS.index(labels.align)])

    return replace(layer, read=read, describe=describe, losses=losses)


def _label_layer(labels: RasterLabels | VectorLabels, legend: Legend) -> Layer:
    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        index = labels.read(window)
        return legend.decode(index), np.bincount(index.ravel(), minlength=256)

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        lines = [f"  {c.code} {c.name}: {counts[i]:,} px" for i, c in enumerate(legend.classes)]
        return [*lines, f"  unlabelled: {counts[IGNORE]:,} px"]

    return Layer(labels.grid, ["label"], legend.map_dtype, legend.map_nodata, read, describe, labels.notes)


def _image(
    source: str, like: str | None, gsd_m: float | None, resampling: str, sensor: str | None,
    bands: Sequence[str] | None, clouds: str, wanted: Sequence[str] | None = None,
) -> Layer:  # fmt: skip
    own = open_raster(
        source,
        sensor=find_sensor(sensor) if sensor else None,
        bands=bands or _any_names(source),
        clouds=CloudConfig.of(clouds),
    )
    grid = _target(own.grid, like, gsd_m)
    if own.grid.overlap(grid) == 0:
        raise GridError(f"{source} does not overlap {like}", fix="check the CRS of both: covermap info SOURCE LIKE")
    raster = own.on(grid, resampling=resampling)
    if wanted:
        return _terrain(raster, list(wanted))
    dtype = np.dtype(own.dtype)
    nodata = raster.nodata if raster.nodata is not None else open_dataset(raster.paths[0]).nodata
    if dtype.kind == "f" and find_granule(source):
        nodata = None  # 0 is nodata in the product's files, but reflectance in its values
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


def _terrain(raster: Raster, names: list[str]) -> Layer:
    """Slope, aspect, NaN where they are not known; each block is read with a margin of a pixel."""
    require_terrain(names, raster.grid)
    if len(raster.bands) > 1:
        raise ConfigError(f"{raster.name} has {len(raster.bands)} bands, elevation has one", fix="gdal_translate -b 1")

    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        values, valid = raster.read(window.pad(1))
        found = terrain_of(values[0, 0], valid[0], raster.grid, window)
        return np.stack([found[name] for name in names]), np.array([np.isnan(found["slope"]).sum()])

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        return [f"  not valid: {counts[0] / (raster.grid.height * raster.grid.width):.1%}; degrees, flat has no aspect"]

    return Layer(raster.grid, names, "float32", float("nan"), read, describe)


def _density(
    source: str, like: str | None, gsd_m: float | None, bandwidth_m: float, layer: str | None, epsg: int | None
) -> Layer:
    if not like:
        raise ConfigError(f"{source} holds points: on which grid?", fix="add --like IMAGE")
    grid = _grid_of(like)
    grid = grid.coarsen(gsd_m / grid.gsd_m) if gsd_m else grid
    points = PointDensity.open(source, grid=grid, bandwidth_m=bandwidth_m, layer=layer, epsg=epsg)

    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        values = points.read(window)
        shown = np.bincount(np.searchsorted(_DENSITIES, values.ravel(), side="right"), minlength=len(_DENSITIES) + 1)
        return values, shown

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        shares = [f"{share:.1%} from {low:g}" for low, share in zip(_DENSITIES, counts[1:] / counts.sum(), strict=True)]
        return [
            f"  {len(points.rows):,} points; points per km2: {counts[0] / counts.sum():.1%} less, " + ", ".join(shares)
        ]

    return Layer(grid, ["per_km2"], "float32", float("nan"), read, describe, points.notes)


def _dated(
    sources: Sequence[str], dates: str | None, sensor: str | None, bands: Sequence[str] | None, clouds: str
) -> tuple[list[ImageConfig], int]:
    """An entry for each image of the period, by date, and the number of the others; raises ConfigError, DataError."""
    if clouds not in ("auto", "none") and "*" not in clouds:
        raise ConfigError(
            "--composite takes --clouds auto, none or a pattern: each date has its own", fix="--clouds 'masks/*.tif'"
        )
    found = []
    for text in sources:
        pattern, said = split_date(text)
        for path in expand(pattern):
            granule = find_granule(path)
            date = said or (granule.date if granule else None)
            names = list(bands) if bands else None if sensor else _any_names(path)
            image = ImageConfig(path=path, sensor=sensor, bands=names, date=date, clouds=CloudConfig.of(clouds))
            found.append(with_own_clouds(image, Path(path).stem))
    nameless = [image.path for image in found if image.date is None]
    if dates is None:
        return sorted(found, key=lambda image: image.date or ""), 0
    if nameless:
        raise ConfigError(f"--dates {dates}: the date of {nameless[0]} is not known", fix=f"write {nameless[0]}@DATE")
    first, last = parse_date(dates)
    spans = [(parse_date(str(image.date)), image) for image in found]
    chosen = [image for (start, end), image in spans if first <= start and end <= last]
    if not chosen:
        listed = ", ".join(sorted(str(image.date) for image in found))
        raise DataError(f"none of the {len(found)} images is of {dates}: they are of {listed}", fix="widen --dates")
    return sorted(chosen, key=lambda image: str(image.date)), len(found) - len(chosen)


def _composite(
    images: Sequence[ImageConfig], left_out: int, method: str, like: str | None, gsd_m: float | None, resampling: str
) -> Layer:
    """All dates of one place as one image, in the numbers that a model is shown (offsets taken off)."""
    if resampling not in CONTINUOUS:
        raise ConfigError(f"--resampling {resampling} is not for images", fix=f"use one of {', '.join(CONTINUOUS)}")
    scene = open_scenes(DataConfig(image=list(images)), labels=False)[0]
    if len(scene.rasters) > 1:
        raise ConfigError(f"these are images of {', '.join(scene.rasters)}", fix="make a composite of each sensor")
    key, raster = next(iter(scene.rasters.items()))
    require_method(method, raster.bands)
    grid = _target(raster.grid, like, gsd_m)
    if raster.grid.overlap(grid) == 0:
        raise GridError(f"{raster.name} does not overlap {like}", fix="check the CRS of both: covermap info")
    on_grid = replace(scene, grid=grid, rasters={key: raster.on(grid, resampling=resampling)})
    layer = _composite_layer(on_grid, key, method)
    used = ", ".join(str(date) for date in scene.dates)
    notes = [*scene.notes, f"{method} of {len(images)} images: {used}"]
    if left_out:
        notes.append(f"{left_out} images are of other dates")
    return replace(layer, notes=notes)


def _composite_layer(scene: Scene, key: str, method: str) -> Layer:
    raster, grid = scene.rasters[key], scene.grid
    numbers = len(raster.sources) * len(raster.bands)
    side = int(np.sqrt(COMPOSITE_BYTES / (16 * numbers))) // 128 * 128

    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        sample = scene.read(window)
        values = composite_of(sample.image[key], sample.valid, raster.bands, method)
        return values, np.array([(~sample.valid.any(0)).sum(), sample.valid.sum()])

    def describe(counts: npt.NDArray[np.int64]) -> list[str]:
        pixels = grid.height * grid.width
        return [f"  not valid on any date: {counts[0] / pixels:.1%}; valid dates of a pixel: {counts[1] / pixels:.1f}"]

    block = min(BLOCK_PX, max(128, side))
    return Layer(grid, raster.bands, "float32", float("nan"), read, describe, block_px=block)
