"""Raster: bands of one or many files and dates on one Grid, read by windows.

`Raster.read(window) -> values (T, C, H, W), valid (T, H, W)`. Nothing is read before that. Bands may come from one
file, from a folder of single-band files, from a VRT or from http, or from a Sentinel-2 or Landsat product as it was
delivered; those that lie on another grid are brought onto the raster's grid by `align` as they are read. A band called
`vv-vh` is the difference of two others.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import DatasetReader

from covermap.core.config import CloudConfig
from covermap.core.errors import BandError, DataError, GridError, UnreadableError
from covermap.core.sensors import Sensor, band_in_file_name, common_name, find_sensor, name_bands, pick_bands
from covermap.geo.align import read_bands, read_onto
from covermap.geo.band_source import BandSource, Quantity, calibrated
from covermap.geo.clouds import CloudMask, find_mask
from covermap.geo.cube import open_cube, open_patch_array
from covermap.geo.damage import GDAL_ERRORS, naming_file, read_whole_head
from covermap.geo.delivered import find_granule
from covermap.geo.granule import Granule, archive_of
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
_grids: weakref.WeakKeyDictionary[DatasetReader, Grid] = weakref.WeakKeyDictionary()


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
    try:
        key = (path, 0.0 if is_remote(path) else os.stat(file).st_mtime)
    except OSError as error:
        raise DataError(
            f"there is no file {file}", fix="check the path; paths in a config count from its folder"
        ) from error
    if key in store:
        store.move_to_end(key)
        return store[key]
    try:
        with rasterio.Env(**(_REMOTE if is_remote(path) else _LOCAL)):
            opener = {".npz": open_cube, ".npy": open_patch_array}.get(Path(file).suffix, rasterio.open)
            dataset = opener(path)
            _masked[dataset] = read_whole_head(dataset)
    except GDAL_ERRORS as error:
        raise UnreadableError(
            f"{file} is not a raster that can be read: {error}", fix="check it with: gdalinfo " + file
        ) from error
    if dataset.count == 0:
        listed = ", ".join(name.rpartition(":")[2] for name in dataset.subdatasets[:5])
        raise DataError(f"{file} holds no bands, only the variables {listed}", fix="name one: variable: NAME")
    store[key] = dataset
    while len(store) > _MAX_OPEN:
        store.popitem(last=False)[1].close()
    return dataset


def grid_of(dataset: DatasetReader) -> Grid:
    """The grid of an open dataset."""
    if dataset not in _grids:
        _grids[dataset] = Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)
    return _grids[dataset]


@dataclass(frozen=True)
class Raster:
    """Bands on one grid; `sources[t][c]` says where band c of date t lies.

    masked: whether an alpha band in the files says where they hold something; not where it is one of the bands.
    clouds: for each date what says where it is cloudy, if anything does; or nothing.
    """

    grid: Grid
    bands: tuple[str, ...]
    sources: tuple[tuple[BandSource, ...], ...]
    dtype: str
    nodata: float | None = None
    resampling: str = "bilinear"
    dates: tuple[str | None, ...] = (None,)
    masked: bool = True
    clouds: tuple[CloudMask | None, ...] = ()

    @property
    def name(self) -> str:
        return Path(own_file(self.sources[0][0].path)).name

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file once, in order of use, those that tell where it is cloudy last."""
        return tuple(dict.fromkeys((*self._image_paths, *(mask.path for mask in self.clouds if mask))))

    @property
    def _image_paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.path for date in self.sources for s in date for part in s.parts))

    @property
    def differences(self) -> tuple[bool, ...]:
        """Of each band, whether it is the difference of two others: an offset of the file is not in it."""
        return tuple(source.minus is not None for source in self.sources[0])

    def read(self, window: Window | None = None) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """values (T, C, H, W) in `dtype`, valid (T, H, W): False for nodata, NaN, inf, clouds, outside of the files.

        The window may reach beyond the grid. Raises DataError naming the file when a part of it is damaged.
        """
        window = window or self.grid.window
        if len(self.sources) == 1 and len(self.paths) == 1 and not any(self.differences):
            part, good = self._read_file(self.paths[0], [s.index for s in self.sources[0]], window)
            return calibrated(part, self.sources[0]).astype(self.dtype, copy=False)[None], good[None]
        shape = (len(self.sources), len(self.bands), window.height, window.width)
        values = np.zeros(shape, self.dtype)
        valid = np.ones((shape[0], *shape[2:]), bool)
        for t, date in enumerate(self.sources):
            parts = [(c, i, part) for c, source in enumerate(date) for i, part in enumerate(source.parts)]
            for path in dict.fromkeys(part.path for _, _, part in parts):
                mine = [(c, i, part) for c, i, part in parts if part.path == path]
                layers, good = self._read_file(path, [part.index for _, _, part in mine], window)
                layers = calibrated(layers, [part for _, _, part in mine])
                for layer, (c, i, _) in zip(layers, mine, strict=True):
                    if date[c].minus is None:
                        values[t, c] = layer
                    else:
                        values[t, c] += (-1 if i else 1) * layer.astype(self.dtype)
                valid[t] &= good
            mask = self.clouds[t] if self.clouds else None
            if mask:
                codes, known = self._read_file(mask.path, mask.indexes, window, codes=True)
                valid[t] &= known & mask.clear(codes)
        return values, valid

    def _read_file(
        self, path: str, indexes: list[int], window: Window, *, codes: bool = False
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        dataset = open_dataset(path)
        nodata = self.nodata if self.nodata is not None and not codes else dataset.nodata
        resampling = "nearest" if codes else self.resampling
        if grid_of(dataset).is_same(self.grid):
            return read_plain(dataset, indexes, window, nodata, masked=self.masked)
        with _naming_damage(path, window):
            return read_onto(dataset, indexes, self.grid.window_grid(window), nodata=nodata, resampling=resampling)

    def of_date(self, number: int) -> Raster:
        """One of the dates alone, with its own cloud mask."""
        at = slice(number, number + 1)
        return replace(self, sources=self.sources[at], dates=self.dates[at], clouds=self.clouds[at])

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
        for path in self._image_paths:
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
            found.append(replace(self, grid=grid_of(dataset), bands=bands, sources=(sources,), dtype=dtype, clouds=()))
        return found

    def rescaled(self, gain: float, add: float) -> Raster:
        """The same with every value * gain + add."""
        if (gain, add) == (1.0, 0.0):
            return self
        sources = tuple(tuple(source.rescaled(gain, add) for source in date) for date in self.sources)
        return replace(self, sources=sources, dtype="float32")

    def in_decibel(self, quantity: Quantity | None) -> Raster:
        """The same with radar power or amplitude in dB; None: as it is. Nodata is judged before."""
        sources = tuple(tuple(source.in_decibel(quantity) for source in date) for date in self.sources)
        return replace(self, sources=sources, dtype="float32")

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw it in matplotlib axes; bands=, stretch=, legend=, date=, title= as in geo.plot.plot_raster."""
        from covermap.geo.plot import plot_raster

        return plot_raster(self, ax, **options)

    def _repr_html_(self) -> str:
        from covermap.geo.notebook import raster_html

        return raster_html(self)


@contextlib.contextmanager
def _naming_damage(path: str, window: Window) -> Iterator[None]:
    """Turn what GDAL says of a damaged block into UnreadableError."""
    try:
        yield
    except GDAL_ERRORS as error:
        which = f"{own_file(path)} or a file beside it" if is_mosaic(path) else path
        raise UnreadableError(
            f"{which} is damaged near row {window.row}, column {window.col}: {error}",
            fix="copy it again from its source, or leave it out: covermap check CONFIG --audit --out FOLDER finds all",
        ) from error


def read_plain(
    dataset: DatasetReader, indexes: Sequence[int], window: Window, nodata: float | None, *, masked: bool = True
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """values (C, H, W), valid (H, W) of a window on the dataset's grid; 0, False outside. Raises UnreadableError."""
    inside = window.intersect(Window(0, 0, dataset.height, dataset.width))
    if inside == window:
        with _naming_damage(dataset.name, window):
            values = read_bands(dataset, indexes, window.rasterio)
            good = valid_pixels(values, nodata)
            return values, good & _mask(dataset, window) if masked else good
    kind = np.result_type(*(dataset.dtypes[i - 1] for i in indexes))
    values = np.zeros((len(indexes), window.height, window.width), kind)
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
    clouds: str | CloudConfig = "auto",
) -> Raster:
    """Open a file, a folder of single-band files or a list of files as one Raster of one date.

    bands: names in file order, needed when the files do not name them. The grid is that of the finest band, or has
    pixels of `gsd_m` metres. Products as delivered (SAFE, Landsat Collection 2) are read by their metadata: values are
    reflectance in the sensor's numbers (times 1e4). variable: of netCDF files, one or several whose bands follow each
    other. tiles: the files lie side by side and make one image. bounds: the part left, bottom, right, top, in whole
    pixels. clouds: as in ImageConfig. Raises DataError, BandError (nameless or double bands), GridError (files apart).
    """
    granule = find_granule(path)
    mask = find_mask(clouds, granule)
    if granule:
        if bands is not None or nodata is not None:
            raise BandError(f"{path}: the product names its bands and nodata itself", fix="leave bands and nodata out")
        found = _open_granule(granule, sensor or find_sensor(granule.sensor), gsd_m, date)
        return replace(found, clouds=(mask,) if mask else ())
    files = _list_files(path)
    if variable is not None:
        variables = [variable] if isinstance(variable, str) else variable
        files = [address(file, name) for file in files for name in variables]
    if tiles:
        files = [mosaic(files)]
    elif bounds is not None:
        files = [part_of(file, bounds) for file in files]
    datasets = [open_dataset(file) for file in files]
    every = [(BandSource(f, i), alpha) for f, d in zip(files, datasets, strict=True) for i, alpha in _alpha_of(d)]
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
    dtype = np.result_type(*(dtype for d in datasets for dtype in d.dtypes))
    exact = all(grid_of(d).is_same(grid) for d in datasets)
    kind = dtype.name if exact else _resampled_dtype(dtype)
    masked = not (named and any(alpha for _, alpha in every))
    return Raster(
        grid, names, (tuple(sources),), kind, nodata, dates=(date,), masked=masked, clouds=(mask,) if mask else ()
    )


def _open_granule(granule: Granule, sensor: Sensor, gsd_m: float | None, date: str | None) -> Raster:
    """All bands of a product, in the sensor's numbers for reflectance."""
    if sensor.unit != "reflectance":
        raise BandError(f"{granule.name} holds reflectance, {sensor.name} is {sensor.unit}", fix="name its sensor")
    files = [band.path for band in granule.bands]
    datasets = [open_dataset(file) for file in files]
    grid = _common_grid(files, datasets, gsd_m)
    sources = tuple(
        BandSource(b.path, 1, round(b.gain / sensor.scale, 9), round(b.add / sensor.scale, 9)) for b in granule.bands
    )
    plain = all(grid_of(d).is_same(grid) for d in datasets) and all((s.gain, s.add) == (1.0, 0.0) for s in sources)
    kind = np.result_type(*(d.dtypes[0] for d in datasets)).name if plain else "float32"
    names = tuple(band.name for band in granule.bands)
    return Raster(grid, names, (sources,), kind, 0, dates=(date or granule.date,))


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
                fix="give every date the same bands; if only their names differ, name them (bands, --bands)",
            )
    ordered = [r.on(first.grid).select(first.bands) for r in rasters]
    dtype = np.result_type(*(r.dtype for r in ordered)).name
    return replace(
        first,
        sources=tuple(s for r in ordered for s in r.sources),
        dates=tuple(d for r in rasters for d in r.dates),
        clouds=tuple(m for r in ordered for m in r.clouds or (None,) * len(r.sources)),
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


def bands_by_file(folder: str | Path, sensor: Sensor | None = None) -> dict[str, tuple[str, ...]]:
    """{file: its bands} of a folder's rasters, as they are called there; an empty name where a file has none.

    What cannot be read has no band.
    """
    found: dict[str, tuple[str, ...]] = {}
    files = _list_files(folder)
    for file in files:
        try:
            dataset = open_dataset(file)
            names = _names_of(file, dataset, sensor, several=len(files) > 1)
            found[file] = tuple(common_name(name, sensor) for name in names)
        except BandError:
            found[file] = ("",) * sum(not alpha for _, alpha in _alpha_of(dataset))
        except DataError:
            found[file] = ()
    return found


def files_behind(path: str) -> list[str]:
    """All local files that a raster's pixels come from: itself, its archive, side files, and the sources of a VRT."""
    if is_remote(path):
        return [archive] if (archive := archive_of(path)) else []
    with naming_file(path):
        found, others = [own_file(path)], open_dataset(path).files
    for name in others:
        if name not in found and Path(name).is_file():
            found += files_behind(name) if name.lower().endswith(".vrt") else [name]
    return list(dict.fromkeys(found))


def _alpha_of(dataset: DatasetReader) -> list[tuple[int, bool]]:
    """Each band's number and whether it is alpha; asked once, for a file's properties are made anew of all bands."""
    with naming_file(dataset.name):
        kinds = zip(dataset.indexes, dataset.colorinterp, strict=True)
    return [(i, bool(kind == rasterio.enums.ColorInterp.alpha)) for i, kind in kinds]


def _names_in(files: Sequence[str], datasets: Sequence[DatasetReader], sensor: Sensor | None) -> list[str]:
    """Band names from descriptions, or from file names where every file has one band; raises BandError."""
    several = len(files) > 1
    return [n for f, d in zip(files, datasets, strict=True) for n in _names_of(f, d, sensor, several=several)]


def _names_of(file: str, dataset: DatasetReader, sensor: Sensor | None, *, several: bool) -> list[str]:
    """The names of one file's bands; several: whether it has others beside it. Raises BandError."""
    wanted, every = [i for i, alpha in _alpha_of(dataset) if not alpha], dataset.descriptions
    described = [every[i - 1] for i in wanted]
    if several and len(wanted) == 1:
        return [band_in_file_name(Path(own_file(file)).stem, sensor)]
    if all(described) and (len(wanted) > 1 or described[0] != "bands"):
        return [str(d) for d in described]
    kinds = dataset.colorinterp
    if [kinds[i - 1].name for i in wanted] == ["red", "green", "blue"]:
        return ["red", "green", "blue"]
    if sensor and len(wanted) == len(sensor.bands):
        return list(sensor.band_names)
    raise BandError(
        f"{own_file(file)} has {len(wanted)} bands without names"
        + (f", {sensor.name} has {len(sensor.bands)}" if sensor else ""),
        fix="name them in file order: bands: [blue, green, red, nir, ...] (option --bands)",
    )


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
