"""How notebooks show a raster: a small picture and what is known of it. Nothing is kept, nothing fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from covermap.core import notebook
from covermap.geo.pictures import png_uri
from covermap.geo.plot import date_of
from covermap.geo.raster import Raster, is_remote, open_dataset, open_raster
from covermap.geo.shown import Shown, shown

SIDE_PX = 512
MOST_PX = 1 << 28
"""Pixels of a band that are decoded for a picture of a display: a larger file needs overviews."""
_CHIPS = 24
_FILES = 6
_BANDS = 24


def raster_html(raster: Raster) -> str:
    """A picture of at most SIDE_PX beside size, bands, CRS, pixel size, dates, nodata and files."""
    found: list[Shown] = []

    def picture() -> str:
        require_cheap(raster)
        found.append(shown(raster, SIDE_PX))
        return as_image(found[0], found[0].title)

    side = notebook.attempt(picture, "picture")
    chips = found[0].most(_CHIPS) if found else []
    if found and found[0].scale:
        low, high = found[0].ends
        chips = [(found[0].scale[0], f"{low:g}"), (found[0].scale[-1], f"{high:g}")]
    title = notebook.attempt(lambda: raster.name, "name")
    return notebook.attempt(lambda: notebook.card(title, _facts(raster), picture=side, chips=chips), "display")


def thumbnail(path: Path, side_px: int = 256) -> str:
    """A picture of a file, such as a map, as HTML, or why there is none."""

    def make() -> str:
        raster = open_raster(path)
        require_cheap(raster)
        return as_image(shown(raster, side_px), path.name)

    return notebook.attempt(make, "picture")


def as_image(found: Shown, title: str) -> str:
    """A picture as HTML; small ones are shown larger by whole pixels."""
    height, width = found.picture.shape[:2]
    times = max(1, SIDE_PX // 2 // max(height, width))
    return notebook.image(png_uri(found.picture), width=width * times, height=height * times, title=title)


def require_cheap(raster: Raster) -> None:
    """Raise ValueError where a picture would take long: a large file without overviews has to be read whole."""
    for path in {part.path for source in raster.sources[0] for part in source.parts}:
        dataset = open_dataset(path)
        step = max(dataset.height, dataset.width) / SIDE_PX
        factor = max((f for f in dataset.overviews(1) if f <= step), default=1)
        if dataset.height * dataset.width / factor**2 > (MOST_PX >> 4 if is_remote(path) else MOST_PX):
            raise ValueError(
                f"{dataset.height:,} x {dataset.width:,} px without overviews would have to be read whole; .plot() "
                "does that, or make overviews: gdaladdo FILE"
            )


def _facts(raster: Raster) -> list[tuple[str, str]]:
    grid, crs = raster.grid, raster.grid.crs
    size = f"{grid.width:,} x {grid.height:,} px"
    unit = "m" if crs is not None else "px"
    if crs is not None:
        size += f", {grid.width * grid.gsd_m / 1000:,.4g} x {grid.height * grid.gsd_m / 1000:,.4g} km"
    dates = [date_of(raster, n) or "not known" for n in range(len(raster.dates))]
    bands = ", ".join(raster.bands[:_BANDS]) + (f", ... ({len(raster.bands)} in all)" * (len(raster.bands) > _BANDS))
    nodata = {_number(raster.nodata if raster.nodata is not None else open_dataset(path).nodata)
              for path in raster.paths[:_FILES]}  # fmt: skip
    return [
        ("size", size),
        ("bands" if len(raster.bands) > 1 else "band", f"{bands} ({raster.dtype})"),
        ("CRS", "none" if crs is None else _crs_name(raster)),
        ("GSD", f"{grid.gsd_m:.6g} {unit}"),
        ("dates" if len(dates) > 1 else "date", ", ".join(dates)),
        ("nodata", ", ".join(sorted(nodata))),
        ("clouds", "masked" if any(raster.clouds) else ""),
        ("files" if len(raster.paths) > 1 else "file", ", ".join(raster.paths[:_FILES])
         + (f", ... ({len(raster.paths)} in all)" if len(raster.paths) > _FILES else "")),
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "none" if value is None else "NaN" if np.isnan(value) else f"{value:g}"


def _crs_name(raster: Raster) -> str:
    from pyproj import CRS

    crs = raster.grid.crs
    name, authority = CRS.from_user_input(crs).name, crs.to_authority() if crs else None
    return f"{':'.join(authority)}, {name}" if authority else name
