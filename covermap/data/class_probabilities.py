"""The layer of class probabilities beside a map, as `predict --probabilities` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.crosswalk import Crosswalk
from covermap.core.errors import DataError, UnreadableError
from covermap.core.legend import IGNORE
from covermap.data.class_map import ClassMap
from covermap.geo.align import require_crs_on_both
from covermap.geo.classes import read_nearest
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, Window
from covermap.geo.products import layer_beside
from covermap.geo.raster import grid_of, open_dataset, read_plain

STEPS, UNKNOWN = 200, 255
"""Shares are whole steps of 1 / STEPS; UNKNOWN where there is no class."""


@dataclass(frozen=True)
class ClassProbabilities:
    """path: of the layer. bands: of each class of the map's legend, from 1. way: to the legend that is wanted."""

    path: Path
    bands: tuple[int, ...]
    grid: Grid
    way: Crosswalk

    def read(self, window: Window, grid: Grid | None = None) -> npt.NDArray[np.uint8]:
        """Shares (K, H, W) of the classes of `way`'s target on a window of its own grid, or of another by the nearest.

        Classes that become one are summed. UNKNOWN where those without a counterpart together are likelier than
        any that is left, which would make a class of ground that has none.
        """
        dataset = open_dataset(str(self.path))
        # Of four 8-bit bands GDAL calls the last one alpha.
        if grid is None or grid.is_same(self.grid):
            shares, known = read_plain(dataset, self.bands, window, UNKNOWN, masked=False)
        else:
            require_crs_on_both(self.grid.crs, grid.crs, str(self.path))
            shares, known = read_nearest(dataset, self.bands, grid, window, UNKNOWN, masked=False)
        table, k = self.way.table[: len(self.bands)], len(self.way.target)
        if not np.array_equal(table, np.arange(k)):
            sums = np.zeros((k, *shares.shape[1:]), np.uint16)
            lost = np.zeros(shares.shape[1:], np.uint16)
            for share, to in zip(shares, table.tolist(), strict=True):
                into = lost if to == IGNORE else sums[to]
                into += share
            best = sums.max(0)
            known = known & (best > 0) & (best >= lost)
            shares = np.minimum(sums, STEPS).astype(np.uint8)  # rounded up, shares sum to a little more
        shares[:, ~known] = UNKNOWN
        return shares


def open_probabilities(source: ClassMap, way: Crosswalk | None = None) -> ClassProbabilities:
    """The layer beside a map; raises DataError where there is none, or that of another map."""
    if len(source.files) > 1:
        raise DataError(
            f"{source.name} is a folder of maps: probabilities lie beside each, and are read one by one",
            fix="give one map, or go by classes alone (of smooth: --mode majority)",
        )
    path = layer_beside(Path(source.path), "probs")
    again = "write both again: covermap predict MODEL IMAGE MAP.tif --probabilities"
    if not path.is_file():
        raise DataError(f"there are no probabilities beside {source.path}: {path} is missing", fix=again)
    try:
        with rasterio.open(path) as dataset:
            grid, bands, model = grid_of(dataset), dataset.descriptions, dataset.tags().get("COVERMAP_MODEL")
            kinds, nodata = {*dataset.dtypes}, dataset.nodata
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{path} is not a raster that can be read: {error}", fix=again) from error
    if not grid.is_same(source.grid):
        raise DataError(
            f"{path} ({grid.describe()}) belongs to another map than {source.path} ({source.grid.describe()})",
            fix=again,
        )
    if sorted(map(str, bands)) != sorted(source.legend.names):
        raise DataError(
            f"{path} has probabilities of {', '.join(map(str, bands))}, {source.path} has the classes "
            + ", ".join(source.legend.names),
            fix=again,
        )
    if model != source.tags.get("COVERMAP_MODEL"):
        raise DataError(f"{path} is by another model than {source.path}", fix=again)
    if kinds != {"uint8"} or nodata != UNKNOWN:
        raise DataError(
            f"{path} holds {', '.join(sorted(kinds))}, nodata {nodata}: probabilities are 8-bit steps of 1 / {STEPS}, "
            f"nodata {UNKNOWN}",
            fix=again,
        )
    at = tuple(bands.index(name) + 1 for name in source.legend.names)
    return ClassProbabilities(path, at, grid, way or Crosswalk.identity(source.legend))
