"""Products as their agencies deliver them: which reader knows a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from covermap.core.errors import DataError
from covermap.geo.granule import ARCHIVES, Granule
from covermap.geo.landsat import is_landsat, read_landsat
from covermap.geo.safe import is_safe, read_safe


def find_granule(path: str | Path | Sequence[str | Path]) -> Granule | None:
    """The Sentinel-2 or Landsat product at a path, None for plain rasters.

    Raises DataError for one that is damaged, for an archive that is neither, and for a folder of several products.
    """
    if not isinstance(path, str | Path) or not Path(path).exists():
        return None
    place = Path(path)
    if is_safe(place):
        return read_safe(place)
    if is_landsat(place):
        return read_landsat(place)
    if place.suffix.lower() in ARCHIVES:
        raise DataError(
            f"{path} holds neither a Sentinel-2 nor a Landsat product", fix="unpack it and give the rasters"
        )
    inside = sorted(found.name for found in place.glob("*.SAFE*")) if place.is_dir() else []
    if inside:
        raise DataError(
            f"{path} is a folder of {len(inside)} products: {', '.join(inside[:3])}",
            fix="give one of them, or all with data.source: safe and data.root",
        )
    return None
