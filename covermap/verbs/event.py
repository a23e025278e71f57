"""`event`: images before and after -> what was hit, and the places to look at first.

    OUT.tif             map of two classes, with the side files of every map
    OUT_change.tif      without a model: the index that the map was cut from
    OUT.places.csv      squares of the scene, the one that holds most on top; also as OUT.places.geojson

With a model of two sides the map is the model's (verbs/predict.py). Without one it is an index of change, cut where it
parts into two groups: what can be had within minutes and without labels, and what a model has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.config import DataConfig, ImageConfig, parse_date
from covermap.core.errors import ConfigError, DataError, ModelError, suggest
from covermap.core.legend import LandClass, Legend
from covermap.core.output import claim, require_no_input
from covermap.core.progress import Tick, unseen
from covermap.core.train_config import PredictConfig
from covermap.data.event_index import EventIndex
from covermap.data.scene import open_scenes
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.products import finish_cog, finish_map, layer_beside, names_beside, small_cache
from covermap.geo.raster import open_raster
from covermap.geo.writer import RasterWriter
from covermap.hub import model_folder
from covermap.metrics.threshold import Threshold, of_all, two_groups
from covermap.models import read_card
from covermap.verbs.layer import BLOCK_PX, Layer, write_layer
from covermap.verbs.predict import predict
from covermap.verbs.rank import rank, require_side

COLOURS = {"flood": "#2b6cb0", "landslide": "#b5651d", "damage": "#c0392b", "change": "#8e44ad"}
CUTS = ("auto", "otsu", "kmeans", "places")
"""Otsu's of all pixels where it lies beyond the body of them, else far from the usual; Otsu's, which is the best that
k-means of two groups of numbers can come to, so both names mean it; of chosen places."""
_BINS = 256
_PROBE_PX = 1024
_PLACE_PX = 128
"""Side of the places that the threshold is taken from."""
_BLOCK_BYTES = 1 << 28


@dataclass(frozen=True)
class Event:
    """What was written, hectares of the class that was looked for, and how it was found."""

    path: Path
    files: tuple[Path, ...]
    name: str
    mapped_ha: float
    places: list[dict[str, Any]]
    num_places: int
    notes: tuple[str, ...]


@small_cache()
def event(
    before: Sequence[ImageConfig], after: Sequence[ImageConfig], out: str | Path, *, kind: str | None = None,
    method: str | None = None, cut: str | None = None, dem: str | None = None, model: str | Path | None = None,
    threshold: float | None = None, looks_px: int | None = None, side_px: int = 128,
    settings: PredictConfig | None = None, overwrite: bool = False, on_progress: Tick = unseen,
) -> Event:  # fmt: skip
    """Map what an event changed and rank the places; dates of a side may be several, all dates are of one sensor.

    kind: flood (default), landslide, damage or change, whose method is irmad (default), mad or cva. dem: elevation,
    which rules out slopes. model: of a hazard, trained on as many dates. threshold: of the index, instead of the one
    that is found, by cut (of CUTS; default places, of change auto). looks_px: side of the square of radar pixels that
    are averaged, default 5. side_px: of a place. Memory: some blocks, a histogram of
    each place, and a million pixels for mad and irmad.
    Raises ConfigError, BandError, GridError, DataError, ModelError, OutputError.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{out} does not end in .tif", fix="maps are GeoTIFFs: give a name such as map.tif")
    require_side(side_px)
    _require_sides(before, after)
    table = names_beside(out)["areas"].with_name("places.csv" if out.stem == "map" else f"{out.stem}.places.csv")
    others = [layer_beside(out, key) for key in (("change",) if model else ("confidence", "probs"))]
    for path in (table, table.with_suffix(".geojson"), *others):
        claim(path, overwrite=overwrite)
    images = [*before, *after]
    if model is not None:
        given = {"kind": kind, "index": method, "cut": cut, "threshold": threshold, "looks": looks_px}
        if idle := [key for key, value in given.items() if value is not None]:
            raise ConfigError(
                f"{idle[0]} is of an index of change, it has no effect with a model", fix="leave one of them out"
            )
        name, files, notes = _by_model(model, images, dem, out, settings, overwrite, on_progress)
    else:
        index = _open(images, len(before), dem, kind or "flood", method, looks_px)
        name, files, notes = _by_index(index, out, threshold, cut, overwrite, on_progress)
    for path in others:
        path.unlink(missing_ok=True)  # of an earlier map of this name
    ranking = rank(out, table, classes=[name], side_px=side_px, overwrite=overwrite)
    mapped_ha = sum(row["area_ha"] for row in ranking.rows)
    return Event(out, (*files, *ranking.files), name, mapped_ha, ranking.rows, ranking.num_places, tuple(notes))


def _require_sides(before: Sequence[ImageConfig], after: Sequence[ImageConfig]) -> None:
    """Raise ConfigError where a side is missing, an image is on both, or the dates are in the wrong order."""
    if not before or not after:
        raise ConfigError("an event has two sides", fix="name an image before it and one after it")
    if both := {str(image.path) for image in before} & {str(image.path) for image in after}:
        raise ConfigError(f"{min(both)} is on both sides of the event", fix="name another image after it")
    known = [[parse_date(image.date) for image in side if image.date] for side in (before, after)]
    if all(known) and (last := max(known[0]))[0] > (first := min(known[1]))[1]:
        raise ConfigError(
            f"{last[0]:%Y-%m-%d} is before the event, {first[0]:%Y-%m-%d} after it", fix="exchange the sides"
        )


def _open(
    images: Sequence[ImageConfig], num_before: int, dem: str | None, kind: str, method: str | None, looks: int | None
) -> EventIndex:
    """The index of the images, on the first one's grid; a DEM is brought onto it."""
    if several := [image.path for image in images if "*" in str(image.path)]:
        raise ConfigError(f"{several[0]} is a pattern", fix="give an entry for each date")
    scene = open_scenes(DataConfig(image=list(images)), labels=False)[0]
    heights = open_raster(dem, bands=["elevation"]).on(scene.grid) if dem else None
    index = EventIndex(scene, num_before, kind, 5 if looks is None else looks, heights, method)
    if looks is not None and not index.is_radar:
        raise ConfigError("looks are of radar, these are optical images", fix="leave them out")
    return index


def _by_model(
    model: str | Path, images: Sequence[ImageConfig], dem: str | None, out: Path, settings: PredictConfig | None,
    overwrite: bool, on_progress: Tick,
) -> tuple[str, Sequence[Path], Sequence[str]]:  # fmt: skip
    """The map of a hazard's model; the name of its class, files, notes."""
    card = read_card(model_folder(model))
    if card.task.positive is None:
        raise ModelError(
            f"{model} was trained for {card.task.name}, an event needs a map of a hazard",
            fix="train it with task: hazard or change; of chips: predict MODEL IMAGE chips.csv; what became what: "
            "covermap change --model MODEL BEFORE AFTER OUT.tif",
        )
    if dem and "dem" not in {entry.sensor for entry in card.spec.sensors}:
        raise ConfigError(f"{model} does not take elevation", fix="leave --dem out, or train it with a dem")
    shown = [*images, *([ImageConfig(path=dem, sensor="dem")] if dem else [])]
    done = predict(model, shown, out, settings=settings, overwrite=overwrite, on_progress=on_progress)
    return card.task.legend.names[card.task.positive], done.files, done.notes


def _by_index(
    index: EventIndex, out: Path, threshold: float | None, cut: str | None, overwrite: bool, on_progress: Tick
) -> tuple[str, Sequence[Path], Sequence[str]]:
    """The map of an index of change, cut at a threshold; the name of its class, files, notes."""
    if threshold is not None and not np.isfinite(threshold):
        raise ConfigError(f"{threshold:g} is no threshold", fix="give a number, or leave it to be found")
    if cut is not None and (threshold is not None or cut not in CUTS):
        if threshold is not None:
            raise ConfigError("both a threshold and a way to find it are given", fix="leave --threshold or --cut out")
        raise ConfigError(f"there is no cut {cut!r}", fix=suggest(cut, CUTS))
    cut = cut or ("auto" if index.kind == "change" else "places")
    scene, kind, layer = index.scene, index.kind, layer_beside(out, "change")
    require_no_input([out, layer, *names_beside(out).values()], [*scene.files, *(index.dem.paths if index.dem else ())])
    for path in (out, layer):
        claim(path, overwrite=overwrite)
    change, shown, codes = (out.with_name(f".{out.stem}.{part}.tif") for part in ("change", "shown", "plain"))
    try:
        counts = write_layer(_layer(index), change, overwrite=True, on_progress=on_progress)
        found = Threshold(threshold, 0) if threshold is not None else _threshold(change, scene.grid, cut)
        legend = Legend(kind, (LandClass(1, f"no {kind}", "#e8e8e0"), LandClass(2, kind, COLOURS[kind])), nodata=0)
        _cut(change, codes, shown, index, legend, found.value)
        date = next((day for day in scene.dates[index.num_before :] if day), None)
        finish_cog(shown, layer, nodata=float("nan"), description=index.unit, overwrite=True)
        summary = finish_map(
            codes, out, legend, date=date, derived_from=scene.paths, layers={"change": layer}, overwrite=True
        )
    finally:
        for path in (change, shown, codes):
            path.unlink(missing_ok=True)
    size = scene.grid.height * scene.grid.width
    unseen_px = [f"{counts[0] / size:.0%} of the map is nodata: an image or the elevation holds nothing there"]
    notes = (*scene.notes, *(unseen_px if counts[0] > 0.005 * size else ()), _how(index, found, threshold, cut))
    return kind, (*summary.files, layer), (*notes, *summary.notes)


def _how(index: EventIndex, found: Threshold, given: float | None, cut: str) -> str:
    """Where the map comes from, in a sentence."""
    if given is not None:
        where = "as given"
    elif found.num_places and cut != "places":
        where = "where all pixels part into two groups"
    elif found.num_places:
        where = f"where {found.num_places} places part into two groups"
    else:
        none = "no place parts" if cut == "places" else "pixels do not part"
        where = f"far from the usual: {none} into two groups, so most of what is mapped may be noise"
    made = index.unit
    if index.how == "irmad":
        rest = "came to rest" if index.mad.still else "did not come to rest"
        made += f" ({index.mad.rounds} rounds, correlations {rest})"
    return f"made without a model: {made}, from {found.value:.3g} on ({where})"


def _layer(index: EventIndex) -> Layer:
    """The index block by block; of many dates and bands the blocks are smaller."""

    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        values = index.read(window)
        return values[None], np.array([np.isnan(values).sum()])

    numbers = len(index.scene.dates) * len(index.bands)
    side = int(np.sqrt(_BLOCK_BYTES / (48 * numbers))) // 128 * 128
    return Layer(
        index.scene.grid, [index.unit], "float32", float("nan"), read, lambda counts: [],
        block_px=min(BLOCK_PX, max(128, side)),
    )  # fmt: skip


def _threshold(change: Path, grid: Grid, cut: str) -> Threshold:
    """From histograms of places, or of them all, over the range that a thinned reading shows."""
    with rasterio.open(change) as dataset:
        shape = min(_PROBE_PX, grid.height), min(_PROBE_PX, grid.width)
        seen = dataset.read(1, out_shape=shape)
        steep = bool(np.isneginf(seen).any())
        seen = seen[np.isfinite(seen)].astype(np.float64)
        low, high = np.quantile(seen, [0.0005, 0.9995]) if seen.size else (0.0, 1.0)
        edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
        places = list(partition(grid.window, _PLACE_PX, _PLACE_PX))
        counts = np.zeros((len(places), _BINS), np.uint16)
        for row, place in zip(counts, places, strict=True):
            values = dataset.read(1, window=place.rasterio)
            row[:] = np.histogram(np.clip(values[np.isfinite(values)], edges[0], edges[-1]), edges)[0]
    if steep and not counts.any():
        raise DataError(
            "the slopes of the elevation rule the event out everywhere",
            fix="is the elevation of this place, in metres, and --kind the right one? Or leave --dem out",
        )
    return two_groups(counts, edges) if cut == "places" else of_all(counts, edges, beyond_body=cut == "auto")


def _cut(change: Path, codes: Path, shown: Path, index: EventIndex, legend: Legend, threshold: float) -> None:
    """Class codes from the index, and the index to be shown: NaN also where slopes rule out."""
    grid = index.scene.grid
    how: dict[str, Any] = {"bands": ["class"], "dtype": legend.map_dtype, "nodata": legend.map_nodata}
    look: dict[str, Any] = {"bands": [index.unit], "dtype": "float32", "nodata": float("nan")}
    with (
        rasterio.open(change) as dataset,
        RasterWriter(codes, grid, **how, overwrite=True) as classes,
        RasterWriter(shown, grid, **look, overwrite=True) as layer,
    ):
        for window in partition(grid.window, 1024, 1024):
            values = dataset.read(1, window=window.rasterio)
            hit = np.where(values >= np.float64(threshold), 2, 1)
            classes.write(window, np.where(np.isnan(values), legend.map_nodata, hit).astype(legend.map_dtype)[None])
            layer.write(window, np.where(np.isinf(values), np.float32(np.nan), values)[None])
