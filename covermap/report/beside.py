"""Looks at a network that lie in a run or beside it: an embedding space as points (`space`), and attention maps.

Beside: in a folder next to the run's, where the file names the run as what made it. What lies in the run is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.parsing import read_csv, read_json
from covermap.geo import pictures
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid
from covermap.geo.pictures import overview_shape
from covermap.geo.raster import grid_of, open_dataset
from covermap.report.space_figures import Groups, attention_heads, clouds, region_colours
from covermap.report.space_page import CAUTION
from covermap.report.study_page import Section

MOST = 2
"""Looks of each kind that are shown."""
_POINTS, _HEADS, _SIDE_PX = 3000, 5, 320
_NAMED = "*attention*.tif"  # a folder may hold very many maps, which are not opened
_TOP = 0.1
Ground = Mapping[str, tuple[Grid, pictures.Picture]]
"""Overviews of scenes, by name, with their grids."""


def looks_of(folder: Path, name: str, colours: Mapping[str, str], ground: Ground | None = None) -> list[Section]:
    """Sections on the spaces and the attention of a run; none where nobody has looked. name: that of the run."""
    spaces = [_space(path, found, colours) for path, found in _spaces(folder, name)][:MOST]
    maps = [_attention(path, ground or {}) for path in _attentions(folder, name)][:MOST]
    return [one for one in (*spaces, *maps) if one.figure]


def _spaces(folder: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted({*folder.glob("*/space.json"), *folder.parent.glob("*/space.json")}):
        found = read_json(path, fix="make it again, or delete it: covermap space")
        own = folder in path.parents or found.get("encoder", {}).get("weights") == f"trained: {name}"
        if own and path.with_name("points.csv").is_file():
            yield path.parent, found


def _attentions(folder: Path, name: str) -> Iterator[Path]:
    for path in sorted({*folder.glob(_NAMED), *folder.glob(f"*/{_NAMED}"), *folder.parent.glob(_NAMED)}):
        try:
            tags = open_dataset(str(path)).tags()
        except GDAL_ERRORS:
            continue  # no matter of this section
        made_of = tags.get("COVERMAP_WEIGHTS") == f"trained: {name}"
        if "COVERMAP_QUERY" in tags and (folder in path.parents or made_of):
            yield path


def _space(folder: Path, found: Mapping[str, Any], colours: Mapping[str, str]) -> Section:
    """Chips by two principal components (or UMAP), by region and by class."""
    rows = read_csv(folder / "points.csv", fix="make it again, or delete it: covermap space")
    kind = "UMAP" if rows and rows[0].get("umap1") else "principal components"
    keys = ("umap1", "umap2") if kind == "UMAP" else ("pc1", "pc2")
    rows = [row for row in rows if row.get(keys[0]) and row.get(keys[1])]
    if len(rows) < 2:
        return Section("")
    every, rng = len(rows), np.random.default_rng(0)
    rows = [rows[i] for i in rng.permutation(every)[:_POINTS]]
    points = np.array([[float(row[key]) for key in keys] for row in rows])
    names = [key for key in found["regions"] if any(row["region"] == key for row in rows)]
    panels = [_groups(f"by {found['by']}", [row["region"] for row in rows], names, region_colours(len(names)), "")]
    classes = [key for key in dict.fromkeys([*colours, *(row["class"] for row in rows)]) if key]
    if any(row["class"] for row in rows):
        shown = [colours.get(key, "#999999") for key in classes]
        panels.append(_groups("by class", [row["class"] for row in rows], classes, shown, "no majority"))
    shares = [*found["variance"], 0.0, 0.0]
    axes = ("UMAP 1", "UMAP 2") if kind == "UMAP" else tuple(
        f"component {i + 1} ({shares[i]:.0%} of the variance)" for i in range(2)
    )  # fmt: skip
    caption = (
        f"{len(rows):,} of {every:,} chips ({found['encoder'].get('weights', 'encoder not told')}). {CAUTION[kind]}"
    )
    caption += " " + " ".join(found["sentences"][:1])
    text = " ".join(f"{doubt.rstrip('.')}." for doubt in found["doubts"])
    return Section("Chips in the space of features", text, figure=clouds(points, panels, (axes[0], axes[1])),
                   caption=caption, alt=f"Scatter of chips by {kind}, coloured {_listed(panels)}")  # fmt: skip


def _listed(panels: Sequence[Groups]) -> str:
    return " and ".join(panel.title for panel in panels)


def _groups(title: str, told: Sequence[str], names: Sequence[str], colours: Sequence[str], none: str) -> Groups:
    number = {name: i for i, name in enumerate(names)}
    return Groups(title, np.array([number.get(one, -1) for one in told], np.intp), names, colours, none)


def _attention(path: Path, ground: Ground) -> Section:
    """Heads of the last block over the whole ground, beside the image where its scene is known."""
    dataset = open_dataset(str(path))
    grid, names = grid_of(dataset), [name or f"band {i}" for i, name in enumerate(dataset.descriptions, 1)]
    last = names[-1].rsplit("_head", 1)[0]
    chosen = [i for i, name in enumerate(names) if name.rsplit("_head", 1)[0] == last][:_HEADS]
    height, width = overview_shape(grid, _SIDE_PX)
    heads = {names[i]: _decimated(dataset, i + 1, height, width) for i in chosen}
    heads = {name: values for name, values in heads.items() if np.isfinite(values).any()}
    if not heads:
        return Section("")
    image = next((picture for place, picture in ground.values() if place.is_same(grid)), None)
    told = [f"{name.replace('_', ' ')} {100 * _held(values):.0f} %" for name, values in heads.items()]
    tags = dataset.tags()
    text = (
        "Share of its attention that each head gives to the tenth of the places that it looks at most (10 % would be "
        f"even): {', '.join(told)}."
    )
    caption = (
        f"{path.name}: {tags.get('COVERMAP_VALUES', 'attention')}, query: {tags['COVERMAP_QUERY']}; 1 "
        "where all places get the same. Attention says where values were taken from, not why the answer is what it is; "
        "edges of windows show."
    )
    return Section("Attention", text, figure=attention_heads(heads, image), caption=caption,
                   alt=f"Attention maps of {', '.join(heads)}")  # fmt: skip


def _decimated(dataset: Any, band: int, height: int, width: int) -> npt.NDArray[np.float64]:
    return np.asarray(dataset.read(band, out_shape=(height, width)), np.float64)


def _held(values: npt.NDArray[np.float64]) -> float:
    """Share of the sum that the largest tenth of the values holds."""
    known = np.sort(values[np.isfinite(values)])[::-1]
    return float(known[: max(1, round(_TOP * len(known)))].sum() / max(known.sum(), 1e-12))
