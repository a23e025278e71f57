"""Labels of a scene: a raster of class codes, polygons or points; all give class indices by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from covermap.core.config import DataConfig
from covermap.core.engine import cores, map_unordered
from covermap.core.errors import GridError, LabelError, UnreadableError
from covermap.core.legend import IGNORE, PALETTE, LandClass, Legend, histogram, load_legend
from covermap.data.label_file import LabelFile
from covermap.geo.classes import count_classes, rare_class_weights, read_classes
from covermap.geo.damage import naming_file
from covermap.geo.grid import Grid, Window, partition, require_same_crs
from covermap.geo.legend_files import class_names
from covermap.geo.raster import grid_of, open_dataset, read_plain
from covermap.geo.rasterize import VectorLabels, infer_vector_legend

VECTOR_SUFFIXES = (".gpkg", ".geojson", ".json", ".shp", ".csv", ".parquet", ".fgb")


@dataclass
class RasterLabels:
    """A raster of class codes on the scene's grid, or brought onto it by `align`."""

    file: LabelFile
    grid: Grid
    legend: Legend
    align: str
    nodata: float | None
    unknown: str
    notes: list[str]

    @property
    def path(self) -> str:
        return self.file.path

    @cached_property
    def source(self) -> str:
        return self.file.source

    @staticmethod
    def open(file: LabelFile, *, grid: Grid, legend: Legend, config: DataConfig, image_name: str) -> RasterLabels:
        """Check the place of a label raster; raises GridError when it needs aligning and nobody asked for it."""
        path = file.path
        dataset = open_codes(file.source) if file.is_plain else open_dataset(file.source)
        mine = _grid_of(file, dataset, grid)
        nodata = config.label_nodata if config.label_nodata is not None else dataset.nodata
        if file.codes is not None:  # what its numbers mean is known, whatever the file says of one of them
            nodata = None if dataset.nodata in file.codes else dataset.nodata
        elif nodata is not None and np.isfinite(nodata) and nodata in legend.codes:
            name = legend.names[legend.codes.index(int(nodata))]
            raise LabelError(
                f"{path}: code {int(nodata)} is both the file's nodata and the class {name!r}",
                fix="if it is a class, set data.label_nodata: -1; if it means unlabelled, take it out of the legend",
            )
        if mine.crs is not None and grid.crs is not None and grid.overlap(mine) == 0:
            raise GridError(
                f"{path} ({mine.describe()}) does not overlap {image_name} ({grid.describe()})",
                fix="check the CRS of both: covermap info LABELS IMAGE",
            )
        if not mine.is_same(grid):
            if config.align == "none":
                require_same_crs(grid, mine, image_name=image_name, other_name=path)
                raise GridError(
                    f"{path} is {mine.describe()}, {image_name} is {grid.describe()}: their pixels differ",
                    fix="set data.align: mode, or: covermap prepare LABELS OUT.tif --like IMAGE --resampling mode",
                )
            if (mine.crs is None or grid.crs is None) and not mine.has_extent_of(grid):
                raise GridError(
                    f"{path} or {image_name} has no CRS and their corners differ: they cannot be aligned",
                    fix="give both their CRS: gdal_edit.py -a_srs EPSG:...",
                )
            if not file.is_plain:
                raise GridError(
                    f"{path} is {mine.describe()}, {image_name} is {grid.describe()}: only plain codes can be aligned",
                    fix="use labels on the image's own grid",
                )
        return RasterLabels(file, grid, legend, config.align, nodata, config.unknown_codes, [])

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class indices (H, W) uint8, IGNORE for nodata and outside; raises LabelError for unknown codes."""
        dataset = open_dataset(self.source)
        if _grid_of(self.file, dataset, self.grid).is_same(self.grid):
            codes, valid = self.file.read(dataset, window, self.nodata)
            filled = np.where(valid, codes, self.legend.codes[0])
            index = self.legend.encode(filled, unknown=self.unknown, where=self.path)
            return np.where(valid, index, np.uint8(255))
        return read_classes(
            self.source, self.grid, self.legend, window=window, method=self.align, weights=self._weights,
            nodata=self.nodata, unknown=self.unknown,
        )  # fmt: skip

    @cached_property
    def _weights(self) -> list[float] | None:
        """Rare classes count for more in weighted_mode; one pass over the file finds which are rare."""
        if self.align != "weighted_mode":
            return None
        counts = count_classes(self.source, self.grid, self.legend, nodata=self.nodata, unknown=self.unknown)
        return rare_class_weights(counts)


def _grid_of(file: LabelFile, dataset: DatasetReader, image: Grid) -> Grid:
    """A label raster's grid: the image's, where it has no place of its own and as many pixels."""
    own = grid_of(dataset)
    same = file.placeless and own.crs is None and (own.height, own.width) == (image.height, image.width)
    return image if same else own


@dataclass(frozen=True)
class ChipLabels:
    """One class (its index) for all pixels of a chip."""

    grid: Grid
    legend: Legend
    index: int
    notes: tuple[str, ...] = ()

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """The class index (H, W) uint8, IGNORE outside of the chip."""
        index = np.full((window.height, window.width), IGNORE, np.uint8)
        inside = window.intersect(self.grid.window)
        if not inside.is_empty:
            index[inside.within(window).slices] = self.index
        return index


@dataclass(frozen=True)
class ChipClasses:
    """Codes of all classes that occur in a chip."""

    legend: Legend
    codes: tuple[int, ...]


class Labels(Protocol):
    """Where which class is: of pixels, polygons, a chip, or just where something is known."""

    @property
    def grid(self) -> Grid: ...

    @property
    def legend(self) -> Legend: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class indices (H, W), IGNORE where unknown and outside."""


def open_codes(path: str) -> DatasetReader:
    """A raster of one band (beside an alpha band) of class codes; raises LabelError for a picture."""
    dataset = open_dataset(path)
    with naming_file(path):
        bands = [i for i, kind in enumerate(dataset.colorinterp, 1) if kind != ColorInterp.alpha]
    if bands != [1]:
        raise LabelError(
            f"{path} has {len(bands)} bands; labels are one band of class codes",
            fix="give the band of codes alone: gdal_translate -b 1 LABELS OUT.tif (colours of a picture are no codes)",
        )
    return dataset


def is_vector(path: str) -> bool:
    """Whether a label path holds polygons or points rather than pixels."""
    return Path(path).suffix.lower() in VECTOR_SUFFIXES


def open_labels(
    file: LabelFile, *, grid: Grid, config: DataConfig, legend: Legend, image_name: str
) -> RasterLabels | VectorLabels:
    """Labels on a scene's grid."""
    if is_vector(file.path):
        field = config.field or file.field
        return VectorLabels.open(
            file.path, field=field, grid=grid, legend=legend, point_px=config.point_px, layer=config.layer,
            epsg=config.epsg,
        )  # fmt: skip
    return RasterLabels.open(file, grid=grid, legend=legend, config=config, image_name=image_name)


def find_legend(config: DataConfig, paths: Sequence[str], *, own: str | Mapping[Any, Any] | None = None) -> Legend:
    """One legend for all label files: the config's, the layout's own, or what is in any file; merged as it says."""
    vector = [is_vector(path) for path in paths]
    if paths and not any(vector) and config.field is not None:
        raise LabelError(f"data.field goes with polygons or points, {paths[0]} is a raster", fix="remove data.field")
    stated = config.legend if config.legend is not None else own
    if stated is not None:
        legend = load_legend(stated)
    elif not paths:
        raise LabelError("the chips have class codes, but no legend", fix="set data.legend: {code: name, ...}")
    elif all(vector):
        legend = infer_vector_legend(paths, config.field, layer=config.layer, epsg=config.epsg)
    else:
        legend = Legend.union(_infer_legends(paths, config.label_nodata))
    return legend.merge(config.merge) if config.merge else legend


def _infer_legends(paths: Sequence[str], nodata: int | None) -> list[Legend]:
    """The legends of label rasters; one that cannot be read has none, unless none of them can."""
    found, lost = [], []
    for path in paths:
        try:
            found.append(infer_legend(path, nodata=nodata))
        except UnreadableError as error:
            lost.append(error)
    if not found:
        raise lost[0]
    return found


def infer_legend(path: str, *, nodata: int | None = None, every: int = 1) -> Legend:
    """A legend of the codes found in a label raster, with the file's own names and colours where it has them.

    Reads the file once, block by block; or only one of `every` blocks, which may miss codes. Raises LabelError when the
    codes are not whole numbers or too many.
    """
    dataset = open_codes(path)
    empty = nodata if nodata is not None else dataset.nodata
    codes: set[float] = set()

    def codes_in(block: Window) -> set[float]:
        values, valid = read_plain(open_dataset(path), [1], block, empty)
        seen = values[0] if valid.all() else values[0][valid]
        return set((np.flatnonzero(histogram(seen)) if seen.dtype == np.uint8 else np.unique(seen)).tolist())

    blocks = list(partition(Window(0, 0, dataset.height, dataset.width), 1024, 4096))
    for found in map_unordered(codes_in, blocks[:: every if len(blocks) >= 4 * every else 1], workers=cores()):
        codes |= found
        if len(codes) > 254:
            raise LabelError(
                f"{path} holds more than 254 different values", fix="is it a class raster? give data.legend"
            )
    odd = sorted(c for c in codes if c != int(c) or not 0 <= c < 65535)
    if odd:
        raise LabelError(
            f"{path} holds values that are no class codes, such as {odd[0]:g}",
            fix="codes are whole numbers from 0; if it means unlabelled, set data.label_nodata to it",
        )
    if not codes:
        raise LabelError(f"{path} holds no labelled pixel", fix="check its nodata value")
    names = class_names(path)
    colours = _colours(dataset)
    classes = tuple(
        LandClass(
            code=int(code),
            name=names.get(int(code), f"class {int(code)}"),
            colour=colours.get(int(code), PALETTE[i % len(PALETTE)]),
        )
        for i, code in enumerate(sorted(codes))
    )
    free = int(empty) if empty is not None and empty >= 0 and np.isfinite(empty) and empty not in codes else None
    return Legend(Path(path).stem, classes, nodata=free)


def _colours(dataset: Any) -> dict[int, str]:
    try:
        table = dataset.colormap(1)
    except ValueError:  # rasterio's way to say that there is none
        return {}
    return {code: "#{:02x}{:02x}{:02x}".format(*rgba[:3]) for code, rgba in table.items()}
