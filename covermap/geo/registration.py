"""Change that a shift of one map against the other explains: each class stood beside it on the other date.

A boundary between a and b that is read one pixel off shows a change a -> b along it. By that shift the pixel's class
after lies on one side of it before, and its class before on the opposite side after. A real change that is no larger
than the shift cannot be told from it; the rim of a larger one can: it touches pixels of the same change that no shift
explains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.geo.patches import Index

MOST_PX = 5
_Mask = npt.NDArray[np.bool_]


def halo(tolerance_px: int) -> int:
    """Pixels around a window that its outcome depends on. Raises ConfigError."""
    if not 1 <= tolerance_px <= MOST_PX:
        raise ConfigError(
            f"a tolerance of {tolerance_px} px is not known",
            fix=f"give 1 to {MOST_PX}, usually 1; register images again that lie further off",
        )
    return 2 * tolerance_px


def misregistered(before: Index, after: Index, tolerance_px: int) -> _Mask:
    """Class indices (H + 2 h, W + 2 h) of both dates, h = halo(tolerance_px) -> change that a shift explains (H, W).

    A shift of up to tolerance_px along rows and columns each, any at each pixel. Kept as real are pixels within
    tolerance_px steps of a change of the same classes that no shift explains. IGNORE changes nothing.
    """
    reach = halo(tolerance_px) - tolerance_px
    one, other = _inner(before, tolerance_px), _inner(after, tolerance_px)
    changed = (one != other) & (one != IGNORE) & (other != IGNORE)
    explained = np.zeros(one.shape, bool)
    if changed.any():
        moved = list(_shifts(before, tolerance_px)), list(_shifts(after, tolerance_px))[::-1]
        for there, opposite in zip(*moved, strict=True):
            explained |= (there == other) & (opposite == one)
        explained &= changed
    if not explained.any():
        return _inner(explained, reach)
    pair = one.astype(np.uint16) << 8 | other
    real = changed & ~explained
    for _ in range(reach):
        real, pair, explained = _grown(real, pair, explained), _inner(pair, 1), _inner(explained, 1)
    return np.asarray(explained & ~real)


def _grown(real: _Mask, pair: npt.NDArray[np.uint16], explained: _Mask) -> _Mask:
    """What is real, and explained pixels beside a real one of the same pair; without one pixel on every side."""
    wanted = _inner(pair, 1)
    found = np.zeros(wanted.shape, bool)
    for is_real, of in zip(_shifts(real, 1), _shifts(pair, 1), strict=True):
        found |= is_real & (of == wanted)
    return np.asarray(_inner(real, 1) | (found & _inner(explained, 1)))


def _shifts(values: npt.NDArray[Any], px: int) -> Iterator[npt.NDArray[Any]]:
    """Views without px on every side, moved by up to px in each direction; in reversed order by the opposite shifts."""
    height, width = values.shape[0] - 2 * px, values.shape[1] - 2 * px
    for row in range(2 * px + 1):
        for col in range(2 * px + 1):
            yield values[row : row + height, col : col + width]


def _inner(values: npt.NDArray[Any], px: int) -> npt.NDArray[Any]:
    return values[px : values.shape[0] - px, px : values.shape[1] - px]
