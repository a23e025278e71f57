"""A change map as users expect it: codes of transitions with names, colours, attribute table and STAC item.

The attribute table and the styles hold what occurs, for of 254 classes there are 64,263 codes. The tag
COVERMAP_FROM_TO holds the legend of the classes, by which every code can be read; COVERMAP_LEGEND makes the map one of
classes like any other, for sampling and assessment: all transitions where these are at most 254, else those that occur.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.from_to import NODATA, UNCHANGED, UNCHANGED_COLOUR, FromTo
from covermap.core.legend import LandClass, Legend
from covermap.geo.products import CodeTable, finish_codes

BINARY = Legend(
    "binary_change", (LandClass(1, "unchanged", UNCHANGED_COLOUR), LandClass(2, "changed", "#d7191c")), nodata=0
)
"""Numbered as maps of events are."""
UNASKED = BINARY.names[0], BINARY.names[1]
"""What the classes are called where nothing is asked: with a question what is left is not all unchanged."""
_MOST = 254
FROM_TO = "COVERMAP_FROM_TO"
"""Tag with the legend of a change map's classes, as JSON."""


def finish_change(
    plain: Path, out: Path, pixels: npt.NDArray[np.int64], hectares: npt.NDArray[np.float64], codes_of: FromTo,
    content: str, *, compared: Mapping[str, float], num_nodata: int, binary: bool,
    date: str | None, derived_from: Sequence[str], tables: Mapping[str, Path], rules: Mapping[str, Any],
    layers: Mapping[str, Path], answers: tuple[str, str] = UNASKED,
) -> tuple[Path, ...]:  # fmt: skip
    """Turn a plain raster of codes (or of BINARY), which is used up, into the change map `out`; gives all files.

    pixels, hectares (K, K): of the transitions in it. compared: pixels and area_ha of all that was compared. content:
    SHA-256 of the codes. tables, layers: CSV files and rasters that are written already. answers: what the rest is
    called and, in a map of BINARY, what is shown.
    """
    changed = int(pixels.sum()), float(hectares.sum())
    rest = int(compared["pixels"]) - changed[0], max(0.0, compared["area_ha"] - changed[1])
    found = [each for each in codes_of.transitions() if pixels[codes_of.pair(each.code)]]
    if binary:
        named = zip(BINARY.classes, answers, strict=True)
        classes = tuple(replace(each, name=name) for each, name in named)
        legend: Legend | None = replace(BINARY, classes=classes)
        table = CodeTable(
            classes, BINARY.map_nodata, "uint8", (rest[0], changed[0]), (rest[1], changed[1]), num_nodata,
            content, band="change", title="Change",
        )  # fmt: skip
    else:
        at = [codes_of.pair(each.code) for each in found]
        classes = _classes(found, answers[0])
        table = CodeTable(
            classes, NODATA, "uint16", (rest[0], *(int(pixels[ab]) for ab in at)),
            (rest[1], *(float(hectares[ab]) for ab in at)), num_nodata, content,
            {"From": ["", *(t.before.name for t in found)], "To": ["", *(t.after.name for t in found)]},
            "change", "Transitions between classes",
        )  # fmt: skip
        every = _classes(codes_of.transitions(), answers[0]) if codes_of.num_codes <= _MOST else classes
        name = f"{codes_of.legend.name}_change"
        legend = Legend(name, every, nodata=NODATA) if len(every) <= _MOST else None
    tags = {FROM_TO: json.dumps(codes_of.legend.to_dict()), "COVERMAP_CHANGE": json.dumps(dict(rules))}
    tags |= {"COVERMAP_LEGEND": json.dumps(legend.to_dict())} if legend else {}
    files, _ = finish_codes(
        plain, out, table, date=date, derived_from=derived_from, layers=layers, tables=tables, tags=tags, spend=True
    )
    return files


def _classes(transitions: Sequence[Any], rest: str) -> tuple[LandClass, ...]:
    named = (LandClass(each.code, each.name, each.colour) for each in transitions)
    return LandClass(UNCHANGED, rest, UNCHANGED_COLOUR), *named
