"""Raster: bands of one or many files and dates on one Grid, read by windows; and the block writer.

`Raster.read(window) -> values (T, C, H, W), valid (T, H, W)`. Nothing is read before that. Bands may come from one
file, from a folder of single-band files, from a VRT or from http; those that lie on another grid are brought onto the
raster's grid by `align` as they are read. A band called `vv-vh` is the difference of two others.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from covermap.core.errors import BandError, DataError, GridError
from covermap.core.output import claim, replacing
from covermap.core.sensors import Sensor, common_name, name_bands, pick_bands
from covermap.geo.align import read_onto
from covermap.geo.cube import open_cube, open_patch_array
from covermap.geo.grid import Grid, Window
from covermap.geo.mosaic import first_file, is_mosaic, mosaic, part_of
from covermap.geo.netcdf import address, file_of

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".hdr", ".bil", ".nc", ".asc", ".png")
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_MAX_RETRY": "3", "GDAL_HTTP_TIMEOUT": "30"}
_LOCAL = {"GTIFF_VIRTUAL_MEM_IO": "YES"}
"""Uncompressed GeoTIFFs are mapped into memory: random windows come twice as fast."""
_MAX_OPEN = 64
_local = threading.local()
_masked: weakref.WeakKeyDictionary[DatasetReader, bool] = weakref.WeakKeyDictionary()
"""Whether an open dataset has a mask or alpha band."""


def is_remote(path: str) -> bool:
    """Whether a path is read over the network or through one of GDAL's virtual file systems."""
    return path.startswith(("http://", "https://", "s3://", "/vsi"))


def own_file(path: str) -> str:
    """The file that a path means: that of a netCDF variable, the first one of a mosaic, else the path itself."""
    return first_file(path) if is_mosaic(path) else file_of(path)


def open_dataset(path: str) -> DatasetReader:
    """An open dataset from this thread's and process's own store (a handle never crosses a fork); raises DataError."""
    if getattr(_local, "pid", None) != os.getpid():
        # Handles that were opened before a fork share the parent's file position: forget, do not close them.
        _local.pid, _local.store, _local.inherited = os.getpid(), OrderedDict(), getattr(_local, "store", None)
    store: OrderedDict[tuple[str, float], DatasetReader] = _local.store
    file = own_file(path)
    if not is_remote(path) and not Path(file).exists():
        raise DataError(f"there is no file {file}", fix="check the path; paths in a config count from its folder")
    key = (path, 0.0 if is_remote(path) else os.stat(file).st_mtime)
    if key in store:
        store.move_to_end(key)
        return store[key]
    try:
        with rasterio.Env(**(_REMOTE if is_remote(path) else _LOCAL)), place_may_be_unknown():
            opener = {".npz": open_cube, ".npy": open_patch_array}.get(Path(file).suffix, rasterio.open)
            dataset = opener(path)
    except (RasterioError, OSError) as error:
        raise DataError(
            f"{file} is not a raster that can be read: {error}", fix="check it with: gdalinfo " + file
        ) from error
    if dataset.count == 0:
        listed = ", ".join(name.rpartition(":")[2] for name in dataset.subdatasets[:5])
        raise DataError(f"{file} holds no bands, only the variables {listed}", fix="name one: variable: NAME")
    store[key] = dataset
    _masked[dataset] = rasterio.enums.MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    while len(store) > _MAX_OPEN:
        store.popitem(last=False)[1].close()
    return dataset


@contextlib.contextmanager
def place_may_be_unknown() -> Iterator[None]:
    """Files without georeference are fine here (benchmark tiles); where a place is needed, that is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def grid_of(dataset: DatasetReader) -> Grid:
    """The grid of an open dataset."""
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


@dataclass(frozen=True)
class BandSource:
    """Where one band of one date lies: file and 1-based band number; `minus`: what is subtracted from it."""

    path: str
    index: int
    minus: BandSource | None = None

    @property
    def parts(self) -> tuple[BandSource, ...]:
        """The bands to read: one, or both sides of a difference."""
        return (self,) if self.minus is None else (self, *self.minus.parts)


@dataclass(frozen=True)
class Raster:
    """Bands on one grid; `sources[t][c]` says where band c of date t lies.

    masked: whether an alpha band in the files says where they hold something; not where it is one of the bands.
    """

    grid: Grid
    bands: tuple[str, ...]
    sources: tuple[tuple[BandSource, ...], ...]
    dtype: str
    nodata: float | None = None
    resampling: str = "bilinear"
    dates: tuple[str | None, ...] = (None,)
    masked: bool = True

    @property
    def name(self) -> str:
        return Path(own_file(self.sources[0][0].path)).name

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file once, in order of use."""
        return tuple(dict.fromkeys(part.path for date in self.sources for s in date for part in s.parts))

    @property
    def differences(self) -> tuple[bool, ...]:
        """Of each band, whether it is the difference of two others: an offset of the file is not in it."""
        return tuple(source.minus is not None for source in self.sources[0])

    def read(self, window: Window | None = None) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """values (T, C, H, W) in `dtype`, valid (T, H, W): False for nodata, NaN, inf and outside of the files.

        The window may reach beyond the grid. Raises DataError naming the file when a part of it is damaged.
        """
        window = window or self.grid.window
        if len(self.sources) == 1 and len(self.paths) == 1 and not any(self.differences):
            part, good = self._read_file(self.paths[0], [s.index for s in self.sources[0]], window)
            return part.astype(self.dtype, copy=False)[None], good[None]
        shape = (len(self.sources), len(self.bands), window.height, window.width)
        values = np.zeros(shape, self.dtype)
        valid = np.ones((shape[0], *shape[2:]), bool)
        for t, date in enumerate(self.sources):
            parts = [(c, i, part) for c, source in enumerate(date) for i, part in enumerate(source.parts)]
            for path in dict.fromkeys(part.path for _, _, part in parts):
                mine = [(c, i, part.index) for c, i, part in parts if part.path == path]
                layers, good = self._read_file(path, [index for _, _, index in mine], window)
                for layer, (c, i, _) in zip(layers, mine, strict=True):
                    if date[c].minus is None:
                        values[t, c] = layer
                    else:
                        values[t, c] += (-1 if i else 1) * layer.astype(self.dtype)
                valid[t] &= good
        return values, valid

    def _read_file(
        self, path: str, indexes: list[int], window: Window
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        dataset = open_dataset(path)
        nodata = self.nodata if self.nodata is not None else dataset.nodata
        try:
            if grid_of(dataset).is_same(self.grid):
                return read_plain(dataset, indexes, window, nodata, masked=self.masked)
            return read_onto(dataset, indexes, self.grid.window_grid(window), nodata=nodata, resampling=self.resampling)
        except (RasterioError, OSError) as error:
            which = f"{own_file(path)} or a file beside it" if is_mosaic(path) else path
            raise DataError(
                f"{which} is damaged near row {window.row}, column {window.col}: {error}",
                fix="copy it again from its source",
            ) from error

    def select(self, bands: Sequence[str], *, sensor: Sensor | None = None) -> Raster:
        """Only the named bands, in the given order, also differences `a-b` of two of them; raises BandError."""
        full = self.with_differences(bands, sensor=sensor)
        at = pick_bands(full.bands, bands, where=self.name, sensor=sensor)
        names = tuple(full.bands[i] for i in at)
        return replace(full, bands=names, sources=tuple(tuple(date[i] for i in at) for date in full.sources))

    def with_differences(self, wanted: Sequence[str], *, sensor: Sensor | None = None) -> Raster:
        """The raster with those wanted bands `a-b` that it lacks, but can take from two of its own, in float32."""
        found = self
        for name in (common_name(one, sensor) for one in wanted):
            pair = [common_name(side, sensor) for side in name.split("-")]
            if name in found.bands or len(pair) != 2 or not set(pair) <= set(self.bands):
                continue
            one, other = (self.bands.index(side) for side in pair)
            added = tuple((*date, replace(date[one], minus=date[other])) for date in found.sources)
            kind = np.result_type(found.dtype, np.float32).name
            found = replace(found, bands=(*found.bands, name), sources=added, dtype=kind)
        return found

    def on(self, grid: Grid, *, resampling: str = "bilinear") -> Raster:
        """The same bands read on another grid; whole numbers become float32 unless the nearest is taken."""
        exact = resampling in ("nearest", "mode") or grid.is_same(self.grid)
        return replace(
            self, grid=grid, resampling=resampling, dtype=self.dtype if exact else _resampled_dtype(self.dtype)
        )

    def by_file(self) -> list[Raster]:
        """One raster for each file, on the file's own grid and with its own type."""
        found = []
        for path in self.paths:
            dataset = open_dataset(path)
            mine = [
                (band, replace(part, minus=None))
                for date in self.sources
                for band, source in zip(self.bands, date, strict=True)
                for part in source.parts
                if part.path == path
            ]
            dtype = np.result_type(*(dataset.dtypes[source.index - 1] for _, source in mine)).name
            bands, sources = zip(*mine, strict=True)
            found.append(replace(self, grid=grid_of(dataset), bands=bands, sources=(sources,), dtype=dtype))
        return found


def read_plain(
    dataset: DatasetReader, indexes: Sequence[int], window: Window, nodata: float | None, *, masked: bool = True
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """values (C, H, W), valid (H, W) of a window on the dataset's own grid; 0 and False outside of it."""
    inside = window.intersect(Window(0, 0, dataset.height, dataset.width))
    if inside == window:
        values = dataset.read(list(indexes), window=window.rasterio)
        good = valid_pixels(values, nodata)
        return values, good & _mask(dataset, window) if masked else good
    values = np.zeros(
        (len(indexes), window.height, window.width), np.result_type(*(dataset.dtypes[i - 1] for i in indexes))
    )
    valid = np.zeros((window.height, window.width), bool)
    if not inside.is_empty:
        rows, cols = inside.within(window).slices
        values[:, rows, cols], valid[rows, cols] = read_plain(dataset, indexes, inside, nodata, masked=masked)
    return values, valid


def valid_pixels(values: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    """(C, H, W) -> (H, W): True where every band holds a finite number that is not nodata."""
    floating = values.dtype.kind == "f"
    good = np.isfinite(values).all(0) if floating else np.ones(values.shape[1:], bool)
    if nodata is None or np.isnan(nodata) or not (floating or float(nodata).is_integer()):
        return good
    # Beside a fraction numpy would compare whole numbers as float64.
    empty = nodata if floating else int(nodata)
    for band in values:
        good &= band != empty
    return good


def _mask(dataset: DatasetReader, window: Window) -> npt.NDArray[np.bool_] | np.bool_:
    """A mask or alpha band of the file, where it has one."""
    if _masked.get(dataset, True):  # asking the dataset each time would cost more than reading a small window
        return np.asarray(dataset.dataset_mask(window=window.rasterio) > 0)
    return np.bool_(True)


def open_raster(
    path: str | Path | Sequence[str | Path],
    *,
    sensor: Sensor | None = None,
    bands: Sequence[str] | None = None,
    gsd_m: float | None = None,
    nodata: float | None = None,
    date: str | None = None,
    variable: str | Sequence[str] | None = None,
    tiles: bool = False,
    bounds: tuple[float, float, float, float] | None = None,
) -> Raster:
    """Open a file, a folder of single-band files or a list of files as one Raster of one date.

    bands: names in file order, needed when the files do not name them. The grid is that of the finest band, or has
    pixels of `gsd_m` metres. variable: of netCDF files, one or several whose bands follow each other.
    tiles: the files lie side by side and make one image. bounds: the part left, bottom, right, top, in whole pixels.
    Raises DataError, BandError (nameless or double bands) and GridError (files apart).
    """
    files = _list_files(path)
    if variable is not None:
        variables = [variable] if isinstance(variable, str) else variable
        files = [address(file, name) for file in files for name in variables]
    if tiles:
        files = [mosaic(files)]
    elif bounds is not None:
        files = [part_of(file, bounds) for file in files]
    datasets = [open_dataset(file) for file in files]
    every = [(BandSource(f, i), _is_alpha(d, i)) for f, d in zip(files, datasets, strict=True) for i in d.indexes]
    # Many writers call the fourth of four 8-bit bands alpha; who names it knows better.
    named = bands is not None and len(bands) == len(every)
    sources = [source for source, alpha in every if named or not alpha]
    where = str(path) if isinstance(path, str | Path) else own_file(files[0])
    names = name_bands(bands or _names_in(files, datasets, sensor), sensor=sensor, where=where)
    if len(names) != len(sources):
        raise BandError(
            f"{where} has {len(sources)} bands, but {len(names)} names were given",
            fix="name every band once, in file order",
        )
    grid = _common_grid(files, datasets, gsd_m)
    dtype = np.result_type(*(d.dtypes[i] for d in datasets for i in range(d.count)))
    exact = all(grid_of(d).is_same(grid) for d in datasets)
    kind = dtype.name if exact else _resampled_dtype(dtype)
    masked = not (named and any(alpha for _, alpha in every))
    return Raster(grid, names, (tuple(sources),), kind, nodata, dates=(date,), masked=masked)


def _resampled_dtype(dtype: npt.DTypeLike) -> str:
    """Resampled numbers are no longer whole."""
    return "float32" if np.dtype(dtype).kind in "iu" else np.dtype(dtype).name


def stack_dates(rasters: Sequence[Raster]) -> Raster:
    """Rasters of several dates with the same bands as one; later ones are read on the first one's grid.

    Raises BandError (other bands) and GridError (another place).
    """
    first = rasters[0]
    for other in rasters[1:]:
        if not first.grid.is_same(other.grid) and first.grid.overlap(other.grid) == 0:
            raise GridError(
                f"{other.name} ({other.grid.describe()}) does not overlap {first.name} ({first.grid.describe()})",
                fix="give dates of one place; several places are scenes: a pattern with *",
            )
        if set(other.bands) != set(first.bands):
            raise BandError(
                f"{other.name} has bands {', '.join(other.bands)}, {first.name} has {', '.join(first.bands)}",
                fix="give every date the same bands",
            )
    ordered = [r.on(first.grid).select(first.bands) for r in rasters]
    dtype = np.result_type(*(r.dtype for r in ordered)).name
    return replace(
        first,
        sources=tuple(s for r in ordered for s in r.sources),
        dates=tuple(d for r in rasters for d in r.dates),
        dtype=dtype,
    )


def _list_files(path: str | Path | Sequence[str | Path]) -> list[str]:
    if not isinstance(path, str | Path):
        return [file for one in path for file in _list_files(one)]
    if is_remote(str(path)) or not Path(path).is_dir():
        return [str(path)]
    files = sorted(p for p in Path(path).iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise DataError(f"the folder {path} holds no raster", fix="files must end in " + ", ".join(SUFFIXES))
    return [str(p) for p in files]


def files_behind(path: str) -> list[str]:
    """All local files that a raster's pixels come from: itself, its side files, and the sources of a VRT."""
    if is_remote(path):
        return []
    found = [own_file(path)]
    for name in open_dataset(path).files:
        if name not in found and Path(name).is_file():
            found += files_behind(name) if name.lower().endswith(".vrt") else [name]
    return list(dict.fromkeys(found))


def _is_alpha(dataset: DatasetReader, index: int) -> bool:
    return bool(dataset.colorinterp[index - 1] == rasterio.enums.ColorInterp.alpha)


def _names_in(files: Sequence[str], datasets: Sequence[DatasetReader], sensor: Sensor | None) -> list[str]:
    """Band names from descriptions, or from file names where every file has one band; raises BandError."""
    names: list[str] = []
    for file, dataset in zip(files, datasets, strict=True):
        wanted = [i for i in dataset.indexes if not _is_alpha(dataset, i)]
        described = [dataset.descriptions[i - 1] for i in wanted]
        if len(datasets) > 1 and len(wanted) == 1:
            names.append(band_in_file_name(Path(own_file(file)).stem, sensor))
        elif all(described) and (len(wanted) > 1 or described[0] != "bands"):
            names += [str(d) for d in described]
        elif [dataset.colorinterp[i - 1].name for i in wanted] == ["red", "green", "blue"]:
            names += ["red", "green", "blue"]
        elif sensor and len(wanted) == len(sensor.bands):
            names += list(sensor.band_names)
        else:
            raise BandError(
                f"{own_file(file)} has {len(wanted)} bands without names"
                + (f", {sensor.name} has {len(sensor.bands)}" if sensor else ""),
                fix="name them in file order: bands: [blue, green, red, nir, ...] (option --bands)",
            )
    return names


def band_in_file_name(stem: str, sensor: Sensor | None) -> str:
    """`T32_20200101_B8A_20m` -> the band that one of its parts names; the last such part, else the whole stem."""
    parts = [p for p in re.split(r"[_\-.\s]+", stem) if p]
    for part in reversed(parts):
        if re.fullmatch(r"\d+m?", part):
            continue
        name = common_name(part, sensor)
        if name != part.lower() or (sensor and name in sensor.band_names):
            return part
    return parts[-1] if len(parts) > 1 else stem


def _common_grid(files: Sequence[str], datasets: Sequence[DatasetReader], gsd_m: float | None) -> Grid:
    grids = [grid_of(d) for d in datasets]
    finest = min(grids, key=lambda g: g.gsd_m)
    for file, grid in zip(files, grids, strict=True):
        if not grid.same_crs(finest):
            raise GridError(
                f"{file} is {grid.describe()}, {files[0]} is {grids[0].describe()}",
                fix="bring all files of one image to one CRS",
            )
        if finest.overlap(grid) < 0.5:
            raise GridError(
                f"{file} covers only {finest.overlap(grid):.0%} of the image",
                fix="leave it out or give it as a scene of its own",
            )
    return finest if gsd_m is None else finest.coarsen(gsd_m / finest.gsd_m)


class RasterWriter:
    """Write a tiled GeoTIFF window by window; the file appears under its name only when all went well.

    Memory: GDAL's block cache. Raises OutputError (exists, read-only, full).
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        *,
        bands: Sequence[str],
        dtype: str,
        nodata: float | None = None,
        overwrite: bool = False,
        tags: dict[str, str] | None = None,
        compress: str = "deflate",
        block_px: int = 512,
        scale: float = 1.0,
    ) -> None:
        self.path = claim(path, overwrite=overwrite)
        self._replacing = replacing(self.path)
        self._bands, self._tags, self._scale = list(bands), tags or {}, scale
        side = min(block_px, 16 * max(1, min(grid.height, grid.width) // 16))
        self._profile = {
            "driver": "GTiff",
            "height": grid.height,
            "width": grid.width,
            "count": len(bands),
            "dtype": dtype,
            "crs": grid.crs,
            "transform": grid.transform,
            "nodata": nodata,
            "tiled": True,
            "blockxsize": side,
            "blockysize": side,
            "compress": compress,
            "bigtiff": "IF_SAFER",
            "interleave": "pixel" if len(bands) < 20 else "band",
        }
        if compress == "deflate":
            self._profile["predictor"] = 2 if np.dtype(dtype).kind in "iu" else 3

    def __enter__(self) -> RasterWriter:
        self._partial = self._replacing.__enter__()
        with place_may_be_unknown():
            self._dataset = rasterio.open(self._partial, "w", **self._profile)
        self._dataset.update_tags(**self._tags)
        for i, name in enumerate(self._bands, 1):
            self._dataset.set_band_description(i, name)
        if self._scale != 1:
            self._dataset.scales = (self._scale,) * len(self._bands)
        return self

    def write(self, window: Window, values: npt.NDArray[Any]) -> None:
        """Write values (C, H, W) or (H, W) at a window."""
        values = values[None] if values.ndim == 2 else values
        self._dataset.write(values, window=window.rasterio)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._dataset.close()
            except BaseException as failed:
                self._replacing.__exit__(type(failed), failed, failed.__traceback__)
                raise
        else:
            self._dataset.close()
        self._replacing.__exit__(kind, error, trace)
