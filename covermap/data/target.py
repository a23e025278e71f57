"""Targets: the numbers that a window is to be told by: of a raster, or the share of each class; one way for all.

    config or layout -> TargetConfig -> Scene.read(window, target=True) -> Sample.target -> Batch.target

float32 (C, H, W) on the window's pixels or coarser ones, or (C,) for a window as a whole; NaN where it is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine

from covermap.core.config import TargetConfig
from covermap.core.errors import ConfigError, GridError
from covermap.core.legend import IGNORE
from covermap.data.labels import ChipLabels, RasterLabels
from covermap.geo.classes import class_shares
from covermap.geo.grid import Grid, Window
from covermap.geo.raster import Raster, open_dataset, open_raster
from covermap.geo.rasterize import VectorLabels
from covermap.geo.resize import read_resized

Labels = RasterLabels | VectorLabels | ChipLabels


@dataclass(frozen=True)
class Target:
    """The target of a scene: rasters of numbers with what is made of them, or labels whose shares it is.

    grid: of the scene. size: the config that says on which pixels it is given. names, units: of its channels.
    """

    grid: Grid
    size: TargetConfig
    rasters: tuple[tuple[Raster, TargetConfig], ...] = ()
    labels: Labels | None = None

    @property
    def names(self) -> tuple[str, ...]:
        shared = self.labels.legend.names if self.labels else ()
        return (*(band for raster, _ in self.rasters for band in raster.bands), *shared)

    @property
    def units(self) -> tuple[str, ...]:
        """Of each channel, empty where nobody says."""
        known = (config.unit or "" for raster, config in self.rasters for _ in raster.bands)
        return (*known, *(["share"] * len(self.labels.legend) if self.labels else []))

    @property
    def turns(self) -> bool:
        """Whether a window may be scaled and turned with its target: numbers of its own pixels, and no amounts."""
        coarse = self.size.factor or self.size.size_px or self.size.per_chip
        return not coarse and all(config.resampling == "mean" for _, config in self.rasters)

    def grid_of(self, window: Window) -> Grid:
        """The target's own pixels over a window: `size_px` of them, `factor` times as large, or those of the scene."""
        if self.size.factor:
            # Counted from the window's corner: windows at multiples of a whole factor show the pixels of the scene.
            return self.grid.window_grid(window).coarsen(self.size.factor)
        side = 1 if self.size.per_chip else self.size.size_px
        height, width = (side, side) if side else (window.height, window.width)
        fit = Affine.scale(window.width / width, window.height / height)
        return Grid(self.grid.crs, self.grid.window_grid(window).transform * fit, height, width)

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(C, h, w), or (C,) with per_chip; NaN where nothing is known."""
        onto = self.grid_of(window)
        if self.labels:
            found = [read_resized(self._shares, self.grid, onto, "mean", name="labels")]
        else:
            found = [_numbers(raster.select([band]), onto, c) for raster, c in self.rasters for band in raster.bands]
        numbers = np.concatenate(found).astype(np.float32)
        return numbers[:, 0, 0] if self.size.per_chip else numbers

    def _shares(self, window: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Each class as 0 and 1."""
        assert self.labels is not None
        index = self.labels.read(window)
        shares = class_shares(index, 1, len(self.labels.legend))
        return shares, np.broadcast_to(index != IGNORE, shares.shape)


def _numbers(raster: Raster, onto: Grid, config: TargetConfig) -> npt.NDArray[np.float64]:
    """(1, h, w): one band, from file numbers to the target's unit."""

    def read(window: Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        values, valid = raster.read(window)
        known, numbers = valid[0][None].copy(), values[0].astype(np.float64)
        for code, meant in config.replace.items():
            at = values[0] == code
            known &= ~at if meant is None else True
            numbers[at] = 0 if meant is None else meant
        return numbers * config.scale + config.offset, known

    return read_resized(read, raster.grid, onto, config.resampling, name=raster.name)


def open_target(
    configs: Sequence[TargetConfig], size: TargetConfig | None, grid: Grid, labels: Labels | None, *, where: str
) -> Target | None:
    """The target of a scene; raises ConfigError (shares without labels), GridError (another place), BandError."""
    if size and size.shares:
        if labels is None:
            raise ConfigError("data.target.shares are of classes, but there are no labels", fix="set data.labels")
        return Target(grid, size, labels=labels)
    rasters = []
    for config in configs:
        assert config.path is not None
        dataset = open_dataset(config.path) if config.variable is None else None
        lone = dataset is not None and dataset.count == 1 and not dataset.descriptions[0]
        bands = config.bands or (["target"] if lone else None)
        raster = open_raster(config.path, bands=bands, nodata=config.nodata, variable=config.variable, clouds="none")
        raster = raster.select(config.use) if config.use else raster
        placed = None not in (raster.grid.crs, grid.crs)
        if not raster.grid.is_same(grid) and (not placed or grid.overlap(raster.grid) == 0):
            raise GridError(
                f"{raster.name} ({raster.grid.describe()}) "
                + (f"does not overlap {where}" if placed else f"cannot be brought to {where}")
                + f" ({grid.describe()})",
                fix="check the CRS of both: covermap info TARGET IMAGE",
            )
        rasters.append((raster, config))
    return Target(grid, size or TargetConfig(), tuple(rasters)) if rasters else None
