"""Where the maps of several runs disagree: a share for each pair, and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.run import Run
from covermap.geo import pictures
from covermap.geo.raster import grid_of, open_dataset
from covermap.report.study_page import Section

SIDE_PX = 700
"""Longer side of what is looked at: evenly taken pixels of the whole map."""
_SHADES = ("#eef1f3", "#f0b36b", "#b8402a", "#5c1a4a")
"""One class for all, two, three, four or more."""


def maps_apart(runs: Mapping[str, Run]) -> list[Section]:
    """Of runs that have a map of the same ground: pairs with the share that differs; nothing where there are not two.

    Of several scenes the first one that two have is looked at.
    """
    maps = _same_ground(runs)
    if len(maps) < 2:
        return []
    grid = grid_of(open_dataset(str(next(iter(maps.values())))))
    read = {name: pictures.read_overview(pictures.map_raster(path, grid), SIDE_PX) for name, path in maps.items()}
    known = np.logical_and.reduce([valid for _, valid in read.values()])
    if not known.any():
        return []
    codes = {name: values[0] for name, (values, _) in read.items()}
    pairs = [(a, b, float((codes[a] != codes[b])[known].mean())) for a, b in combinations(codes, 2)]
    rows = [[a, b, f"{100 * share:.1f} %"] for a, b, share in sorted(pairs, key=lambda pair: -pair[2])]
    number = _num_classes(np.stack(list(codes.values())))
    alike = float((number == 1)[known].mean())
    text = (
        f"All agree on {100 * alike:.1f} % of the ground that all mapped ({known.sum():,} pixels looked at, evenly "
        "spread). Where they differ at most one is right; where they agree all may be wrong."
    )
    file = next(iter(maps.values())).name
    caption = f"{file}: pale where all give one class; " + (
        "orange where they differ." if len(codes) == 2 else "orange two, red three, dark four or more."
    )
    return [Section("Where the maps differ", text, ["", "and", "differ on"], rows, 2, _picture(number, known), caption,
                    f"Overview of where the maps differ: {100 * (1 - alike):.1f} % of the ground")]  # fmt: skip


def _same_ground(runs: Mapping[str, Run]) -> dict[str, Path]:
    """A map of each run, all of one scene and on one grid."""
    every = {name: [run.path("map.tif"), *sorted(run.folder.glob("maps/*.tif"))] for name, run in runs.items()}
    names = dict.fromkeys(path.name for paths in every.values() for path in paths if path.is_file())
    for file in names:
        found = {name: path for name, paths in every.items() for path in paths if path.name == file and path.is_file()}
        grids = [grid_of(open_dataset(str(path))) for path in found.values()]
        whole = all(open_dataset(str(path)).dtypes[0].startswith("uint") for path in found.values())
        if len(found) > 1 and whole and all(grids[0].is_same(grid) for grid in grids):
            return found
    return {}


def _num_classes(codes: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """(N, H, W) -> (H, W): how many different codes there are."""
    ordered = np.sort(codes, axis=0)
    return np.asarray(1 + (ordered[1:] != ordered[:-1]).sum(0))


def _picture(number: npt.NDArray[np.intp], known: npt.NDArray[np.bool_]) -> str:
    table = np.array([pictures.rgb_of(colour) for colour in _SHADES], np.uint8)
    grey = np.array(pictures.rgb_of(pictures.EMPTY_COLOUR), np.uint8)
    shown = table[np.minimum(number, len(_SHADES)) - 1]
    return pictures.png_uri(np.where(known[..., None], shown, grey))
