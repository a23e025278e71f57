"""Targets: the numbers that a window is to be told by: of a raster, or the share of each class; one way for all.

    config or layout -> TargetConfig -> Scene.read(window, target=True) -> Sample.target -> Batch.target

float32 (C, H, W) on the window's pixels or coarser ones, or (C,) for a window as a whole; NaN where it is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from affine import Affine

from covermap.core.errors import ConfigError, GridError
from covermap.core.legend import IGNORE
from covermap.core.target_config import TargetConfig
from covermap.core.task import SHARE
from covermap.data.labels import Labels
from covermap.geo.classes import class_shares
from covermap.geo.grid import Grid, Window
from covermap.geo.raster import Raster, open_dataset, open_raster
from covermap.geo.resize import read_resized


@dataclass(frozen=True)
class Target:
    """The target of a scene on `grid`: bands with what is made of their numbers, or labels whose shares it is.

    size: the config that says on which pixels it is given. names, units (empty: not known): of its channels.
    """

    grid: Grid
    size: TargetConfig
    bands: tuple[tuple[Raster, TargetConfig], ...] = ()
    labels: Labels | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.labels.legend.names if self.labels else tuple(raster.bands[0] for raster, _ in self.bands)

    @property
    def units(self) -> tuple[str, ...]:
        return (SHARE,) * len(self.names) if self.labels else tuple(config.unit or "" for _, config in self.bands)

    @property
    def turns(self) -> bool:
        """Whether a window may be scaled and turned with its target: numbers of its own pixels, and no amounts."""
        coarse = self.size.factor or self.size.size_px or self.size.per_chip
        return not coarse and all(config.resampling == "mean" for _, config in self.bands)

    def grid_of(self, window: Window) -> Grid:
        """The target's own pixels over a window: `size_px` of them, `factor` times as large, or those of the scene.

        They are counted from the window's corner, so windows at multiples of a whole factor show those of the scene.
        """
        here = self.grid.window_grid(window)
        if self.size.factor:
            return here.coarsen(self.size.factor)
        side = 1 if self.size.per_chip else self.size.size_px
        height, width = (side, side) if side else (window.height, window.width)
        fit = Affine.scale(window.width / width, window.height / height)
        return Grid(here.crs, here.transform * fit, height, width)

    def read(self, window: Window) -> npt.NDArray[np.float32]:
        """(C, h, w), or (C,) with per_chip; NaN where nothing is known."""
        onto = self.grid_of(window)
        if self.labels:
            found = [read_resized(self._shares, self.grid, onto, "mean", name="labels")]
        else:
            found = [_read_band(raster, onto, config) for raster, config in self.bands]
        numbers = np.concatenate(found).astype(np.float32)
        return numbers[:, 0, 0] if self.size.per_chip else numbers

    def known(self, window: Window) -> npt.NDArray[np.bool_]:
        """Pixels (H, W) where any of it is."""
        if self.labels:
            return np.asarray(self.labels.read(window) != IGNORE)
        own = replace(self, size=TargetConfig())
        return np.asarray(np.isfinite(own.read(window)).any(0))

    def _shares(self, window: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Each class as 0 and 1."""
        assert self.labels is not None
        index = self.labels.read(window)
        shares = class_shares(index, 1, len(self.labels.legend))
        return shares, np.broadcast_to(index != IGNORE, shares.shape)


def _read_band(raster: Raster, onto: Grid, config: TargetConfig) -> npt.NDArray[np.float64]:
    """(1, h, w), from the file's numbers to the target's unit."""

    def read(window: Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        values, valid = raster.read(window)
        numbers = values[0].astype(np.float64)
        for code, meant in config.replace.items():
            numbers[values[0] == code] = np.nan if meant is None else meant
        return numbers * config.scale + config.offset, valid & np.isfinite(numbers)

    return read_resized(read, raster.grid, onto, config.resampling, name=raster.name)


def open_target(
    configs: Sequence[TargetConfig], size: TargetConfig | None, grid: Grid, labels: Labels | None, *, where: str
) -> Target | None:
    """The target of a scene; raises ConfigError (shares without labels), GridError (another place), BandError."""
    if size and size.shares:
        if labels is None:
            raise ConfigError("data.target.shares are of classes, but there are no labels", fix="set data.labels")
        return Target(grid, size, labels=labels)
    found = []
    for config in configs:
        assert config.path is not None
        names = config.bands
        if names is None and config.variable is None:
            said = open_dataset(config.path).descriptions
            names = ["target"] if said in ((None,), ("bands",)) else None
        raster = open_raster(config.path, bands=names, nodata=config.nodata, variable=config.variable, clouds="none")
        placed = None not in (raster.grid.crs, grid.crs) and grid.overlap(raster.grid) > 0
        if not placed and not raster.grid.is_same(grid):
            raise GridError(
                f"{raster.name} ({raster.grid.describe()}) cannot be brought to {where} ({grid.describe()})",
                fix="both need a CRS and common ground: covermap info TARGET IMAGE",
            )
        found += [(raster.select([band]), config) for band in config.use or raster.bands]
    return Target(grid, size or TargetConfig(), tuple(found)) if found else None
