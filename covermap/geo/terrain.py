"""Slope and aspect of elevation by Horn (1981), Hill shading and the reflectance map, Proc. IEEE 69 (1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, GridError, suggest
from covermap.geo.grid import Grid, Window

TERRAIN = ("slope", "aspect")


def require_terrain(names: list[str], grid: Grid) -> None:
    """Raise ConfigError for layers that there are not, GridError for elevation on a turned grid."""
    if odd := [name for name in names if name not in TERRAIN]:
        raise ConfigError(f"there is no terrain layer {odd[0]!r}", fix=suggest(odd[0], TERRAIN))
    if grid.transform.b or grid.transform.d:
        raise GridError("the rows of the elevation do not run from west to east", fix="give a grid: --like IMAGE")


def terrain(
    elevation: npt.NDArray[np.floating], valid: npt.NDArray[np.bool_], grid: Grid, window: Window
) -> dict[str, npt.NDArray[np.float32]]:
    """Elevation in metres (H + 2, W + 2) around a window of a grid -> slope and aspect (H, W) in degrees.

    Aspect is where the slope faces: 0 north, 90 east; NaN where it is flat. Both are NaN where one of the 3 x 3 pixels
    is not valid. Pixels are measured in metres on the ground, those in degrees and in Mercator row by row.
    """
    z = np.where(valid, elevation, np.nan).astype(np.float64)
    across, down = z[:-2] + 2 * z[1:-1] + z[2:], z[:, :-2] + 2 * z[:, 1:-1] + z[:, 2:]
    width_m, height_m = (np.array(size)[:, None] for size in grid.row_sizes_m(window.row, window.height))
    east = (across[:, 2:] - across[:, :-2]) / (8 * width_m * np.sign(grid.transform.a))
    north = (down[2:] - down[:-2]) / (8 * height_m * np.sign(grid.transform.e))
    north = np.where(np.isnan(z[1:-1, 1:-1]), np.nan, north)  # the pixel itself has no weight
    slope = np.degrees(np.arctan(np.hypot(east, north)))
    aspect = np.where(slope > 0, np.degrees(np.arctan2(-east, -north)) % 360, np.nan)
    return {"slope": slope.astype(np.float32), "aspect": aspect.astype(np.float32)}
