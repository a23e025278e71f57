"""What a raster looks like: a picture of it as a whole, with the classes in it by colour and name, or a scale.

A file says itself what it is: classes by covermap's tag or a colour table, layers of a prediction by their band's name.
Everything else is an image, or one band as grey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp

from covermap.core.errors import BandError, ConfigError
from covermap.core.legend import LandClass, Legend, load_legend
from covermap.core.parsing import as_written, parse_json
from covermap.geo.legend_files import class_names, read_legend
from covermap.geo.pictures import (
    CONFIDENCE_COLOURS,
    DISTANCES,
    FARTHEST,
    Picture,
    bands_shown,
    ramp,
    read_overview,
    rgb_of,
    stretched,
)
from covermap.geo.raster import Raster, open_dataset, own_file

LegendLike = Legend | str | Path | Mapping[Any, Any]
Known = Mapping[int, LandClass | None]
UNKNOWN_COLOUR = "#ff00ff"
"""Of codes that the legend does not know: not to be overlooked."""
_LISTED = 8
_GREY = ("#000000", "#ffffff")
_OF_PERCENT = {
    "confidence": CONFIDENCE_COLOURS, "entropy": CONFIDENCE_COLOURS[::-1], "probability": CONFIDENCE_COLOURS[::-1],
}  # fmt: skip
"""Colours of whole percent, by the first word of the band's name."""


@dataclass(frozen=True)
class Shown:
    """picture (h, w, 4): red, green, blue, alpha; nothing where there are no data. title: what is shown.

    classes: colour, name and share of the pixels shown of those that occur, the largest first. scale: colours from
    `ends[0]` to `ends[1]`, for numbers.
    """

    picture: Picture
    title: str
    classes: Sequence[tuple[str, str, float]] = ()
    scale: Sequence[str] = ()
    ends: tuple[float, float] = (0.0, 1.0)

    def most(self, count: int) -> list[tuple[str, str]]:
        """Colours and names of the largest classes, with a last line for the others."""
        listed = [(colour, name) for colour, name, _ in self.classes[:count]]
        more = self.classes[count:]
        rest = sum(share for *_, share in more)
        return (
            [*listed, ("#808080", f"{len(more)} more, {'below 0.1%' if 0 < rest < 0.001 else f'{rest:.1%}'}")]
            if more
            else listed
        )


def shown(
    raster: Raster, side_px: int, *, bands: Sequence[str] | None = None, stretch: float = 2.0,
    legend: LegendLike | None = None, date: int = 0,
) -> Shown:  # fmt: skip
    """A raster on one of its dates, its longer side at most `side_px`.

    bands: one or three by name. stretch: percent that are cut off at both ends. legend: of codes, where the file does
    not say it, by name, file or value. Raises BandError, ConfigError, DataError, LabelError.
    """
    if not 0 <= stretch < 50:
        raise ConfigError(f"stretch {stretch:g} cuts everything off", fix="give percent from 0 to 49; 2 is usual")
    if not -len(raster.dates) <= date < len(raster.dates):
        raise ConfigError(f"{raster.name} has {len(raster.dates)} dates, not number {date}", fix="count them from 0")
    raster = raster.of_date(date % len(raster.dates))
    if bands is None and len(raster.bands) == 1:
        known = classes_of(raster, legend)
        if known is not None:
            return _of_classes(raster, side_px, known)
        if found := _of_layer(raster, side_px):
            return found
    elif legend is not None:
        raise BandError(f"{raster.name} has {len(raster.bands)} bands: a legend goes with one of codes",
                        fix="leave legend out, or select the band: raster.select([NAME])")  # fmt: skip
    chosen = [bands] if isinstance(bands, str) else bands
    return _of_bands(raster.select(chosen if chosen is not None else bands_shown(raster.bands)), side_px, stretch)


def _of_bands(raster: Raster, side_px: int, stretch: float) -> Shown:
    if len(raster.bands) not in (1, 3):
        raise BandError(f"{', '.join(raster.bands)}: a picture has one band or three", fix="name one or three bands")
    values, valid = read_overview(raster, side_px)
    known = values[:, valid].astype(np.float64)
    ends = (stretch, 100 - stretch)
    limits = np.percentile(known, ends, axis=1) if known.size else np.tile([[0.0], [1.0]], len(values))
    picture = _with_alpha(stretched(values, valid, limits), valid)
    if len(raster.bands) == 1:
        return Shown(picture, raster.bands[0], scale=_GREY, ends=(float(limits[0, 0]), float(limits[1, 0])))
    return Shown(picture, ", ".join(raster.bands))


def _of_layer(raster: Raster, side_px: int) -> Shown | None:
    """A layer that `predict` or `change` wrote, in its own colours; None for other bands."""
    name = raster.bands[0]
    if raster.dtype != "uint8" or not (name.startswith("distance from the training") or name.split()[0] in _OF_PERCENT):
        return None
    values, valid = read_overview(raster, side_px)
    if name.startswith("distance"):
        table, total = np.zeros((256, 3), np.uint8), max(1, int(valid.sum()))
        classes = []
        for (first, last), colour in DISTANCES.items():
            table[first : last + 1] = rgb_of(colour)
            share = float(((values[0] >= first) & (values[0] <= last) & valid).sum()) / total
            words = f"{first} to {last} %" if last < FARTHEST else f"above {first - 1} %"
            classes.append((colour, words, share))
        return Shown(_with_alpha(table[values[0]], valid), name, [one for one in classes if one[2]])
    colours = _OF_PERCENT[name.split()[0]]
    return Shown(_with_alpha(ramp(colours, 0, 100)[values[0]], valid), name, scale=colours, ends=(0, 100))


def _of_classes(raster: Raster, side_px: int, known: Known) -> Shown:
    values, valid = read_overview(raster, side_px)
    codes, index = np.unique(values[0], return_inverse=True)
    index = index.reshape(valid.shape)
    counts = np.bincount(index[valid], minlength=len(codes)).tolist()
    colours, pixels, strange = np.zeros((len(codes), 4), np.uint8), Counter[tuple[str, str]](), []
    for place, (code, count) in enumerate(zip(codes.tolist(), counts, strict=True)):
        if not count or (code in known and known[code] is None):
            continue
        one = known.get(code) or LandClass(0, "", UNKNOWN_COLOUR)
        strange += [] if one.name else [f"{code:g}"]
        pixels[one.colour, one.name] += count
        colours[place] = (*one.rgb, 255)
    picture = colours[index]
    picture[~valid] = 0
    listed = ", ".join(strange[:_LISTED]) + ", ..." * (len(strange) > _LISTED)
    classes = [
        (colour, name or f"not in the legend: {listed}", count / pixels.total())
        for (colour, name), count in pixels.most_common()
    ]
    return Shown(picture, raster.bands[0], classes)


def classes_of(raster: Raster, legend: LegendLike | None = None) -> Known | None:
    """The classes of a raster of one band by their code, None for codes that mean nothing; None where it has none.

    They are those of `legend`, else what covermap has written into the file, else its colour table with the names
    beside it.
    """
    source = raster.sources[0][0]
    if legend is None and source.minus is None and (source.gain, source.add) == (1.0, 0.0):
        dataset = open_dataset(source.path)
        if text := dataset.tags().get("COVERMAP_LEGEND"):
            with as_written(f"{raster.name} (tag COVERMAP_LEGEND)", fix="remove the tag: gdal_edit.py -unsetmd"):
                legend = Legend.from_dict(parse_json(text), where=raster.name)
        elif dataset.colorinterp[source.index - 1] == ColorInterp.palette:
            names, table = class_names(own_file(source.path)), dataset.colormap(source.index)
            return {
                code: LandClass(code, names.get(code, f"class {code}"), "#{:02x}{:02x}{:02x}".format(*rgba[:3]))
                for code, rgba in table.items()
                if rgba[3]
            }
    if legend is None:
        return None
    found = legend if isinstance(legend, Legend) else _read(legend)
    by_code = {one.code: one for one in found.classes}
    nothing = (*found.ignore, *(() if found.nodata is None else (found.nodata,)))
    return {**{old: by_code[new] for old, new in found.merged.items()}, **by_code, **dict.fromkeys(nothing)}


def _read(legend: str | Path | Mapping[Any, Any]) -> Legend:
    return load_legend(legend) if isinstance(legend, Mapping) else read_legend(legend)


def _with_alpha(picture: Picture, valid: npt.NDArray[np.bool_]) -> Picture:
    """(h, w, 3) -> (h, w, 4), nothing where not valid."""
    alpha = np.where(valid, np.uint8(255), np.uint8(0))[..., None]
    return np.concatenate([picture * (alpha > 0), alpha], -1).astype(np.uint8)
