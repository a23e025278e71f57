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

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import ConfigError, ModelError
from covermap.core.legend import LandClass, Legend
from covermap.core.output import claim, require_no_input
from covermap.core.progress import Tick, unseen
from covermap.core.train_config import PredictConfig
from covermap.data.event_index import EventIndex
from covermap.data.scene import open_scenes
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.products import finish_cog, finish_map, layer_beside, names_beside, small_cache
from covermap.geo.writer import RasterWriter
from covermap.hub import model_folder
from covermap.metrics.threshold import Threshold, two_groups
from covermap.models import read_card
from covermap.verbs.layer import Layer, write_layer
from covermap.verbs.predict import predict
from covermap.verbs.rank import Ranking, rank

COLOURS = {"flood": "#2b6cb0", "landslide": "#b5651d", "damage": "#c0392b"}
_BINS = 1024
_PROBE_PX = 1024


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
    before: Sequence[ImageConfig], after: Sequence[ImageConfig], out: str | Path, *, kind: str = "flood",
    dem: str | None = None, model: str | Path | None = None, threshold: float | None = None, looks_px: int = 5,
    side_px: int = 128, settings: PredictConfig | None = None, overwrite: bool = False, on_progress: Tick = unseen,
) -> Event:  # fmt: skip
    """Map what an event changed and rank the places; dates of a side may be several, all dates are of one sensor.

    kind: flood, landslide or damage. dem: elevation, which rules out slopes. model: of a hazard, trained on as many
    dates. threshold: of the index, instead of the one that is found. side_px: of a place. Memory: some blocks.
    Raises ConfigError, BandError, GridError, DataError, ModelError, OutputError.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{out} does not end in .tif", fix="maps are GeoTIFFs: give a name such as map.tif")
    if not before or not after:
        raise ConfigError("an event has two sides", fix="name an image before it and one after it")
    if side_px < 1:
        raise ConfigError(f"{side_px} px is no side of a place", fix="give 1 or more, for example 128")
    table = names_beside(out)["areas"].with_name("places.csv" if out.stem == "map" else f"{out.stem}.places.csv")
    for path in (table, table.with_suffix(".geojson")):
        claim(path, overwrite=overwrite)
    images = [*before, *after, *([ImageConfig(path=dem, sensor="dem")] if dem else [])]
    if model is not None:
        if threshold is not None:
            raise ConfigError("a threshold of the index has no effect with a model", fix="leave one of them out")
        name, files, notes = _by_model(model, images, out, settings, overwrite, on_progress)
    else:
        name, files, notes = _by_index(images, len(before), out, kind, threshold, looks_px, overwrite, on_progress)
    ranking = rank(out, table, classes=[name], side_px=side_px, overwrite=overwrite)
    return _told(out, files, name, ranking, notes)


def _told(out: Path, files: Sequence[Path], name: str, ranking: Ranking, notes: Sequence[str]) -> Event:
    mapped = sum(row["area_ha"] for row in ranking.rows)
    return Event(out, (*files, *ranking.files), name, mapped, ranking.rows, ranking.num_places, tuple(notes))


def _by_model(
    model: str | Path, images: Sequence[ImageConfig], out: Path, settings: PredictConfig | None, overwrite: bool,
    on_progress: Tick,
) -> tuple[str, Sequence[Path], Sequence[str]]:  # fmt: skip
    """The map of a hazard's model; the name of its class, files, notes."""
    card = read_card(model_folder(model))
    task, taken = card.task, {entry.sensor for entry in card.spec.sensors}
    if task.positive is None:
        raise ModelError(
            f"{model} was trained for {task.name}, an event needs a map of a hazard",
            fix="train it with task: hazard; a model of chips ranks them itself: predict MODEL IMAGE chips.csv",
        )
    if "dem" in {image.sensor for image in images} - taken:
        raise ConfigError(f"{model} does not take elevation", fix="leave --dem out, or train it with a dem")
    done = predict(model, images, out, settings=settings, overwrite=overwrite, on_progress=on_progress)
    return task.legend.names[task.positive], done.files, done.notes


def _by_index(
    images: Sequence[ImageConfig], num_before: int, out: Path, kind: str, threshold: float | None, looks_px: int,
    overwrite: bool, on_progress: Tick,
) -> tuple[str, Sequence[Path], Sequence[str]]:  # fmt: skip
    """The map of an index of change, cut at a threshold; the name of its class, files, notes."""
    scene = open_scenes(DataConfig(image=list(images)), labels=False)[0]
    index = EventIndex(scene, num_before, kind, looks_px)
    layer = layer_beside(out, "change")
    require_no_input([out, layer, *names_beside(out).values()], scene.files)
    for path in (out, layer):
        claim(path, overwrite=overwrite)
    plain, codes = (out.with_name(f".{out.stem}.{part}.tif") for part in ("change", "plain"))
    try:
        write_layer(_layer(index), plain, overwrite=True, on_progress=on_progress)
        found = Threshold(threshold, 0) if threshold is not None else _threshold(plain, scene.grid)
        legend = Legend(kind, (LandClass(1, f"no {kind}", "#e8e8e0"), LandClass(2, kind, COLOURS[kind])), nodata=0)
        _cut(plain, codes, scene.grid, legend, found.value)
        date = next((day for day in scene.dates[num_before:] if day), None)
        summary = finish_map(codes, out, legend, date=date, derived_from=scene.paths, overwrite=True)
        finish_cog(plain, layer, nodata=float("nan"), description=index.unit, overwrite=True)
    finally:
        for path in (plain, codes):
            path.unlink(missing_ok=True)
    return kind, (*summary.files, layer), (*scene.notes, _how(index, found, threshold), *summary.notes)


def _how(index: EventIndex, found: Threshold, given: float | None) -> str:
    """Where the map comes from, in a sentence."""
    if given is not None:
        where = "as given"
    elif found.num_places:
        where = f"where {found.num_places} places part into two groups"
    else:
        where = "far from the usual: no place parts into two groups, so most of what is mapped may be noise"
    return f"made without a model: {index.unit}, from {found.value:.3g} on ({where})"


def _layer(index: EventIndex) -> Layer:
    def read(window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        values = index.read(window)
        return values[None], np.array([np.isnan(values).sum()])

    return Layer(index.scene.grid, [index.unit], "float32", float("nan"), read, lambda counts: [])


def _threshold(plain: Path, grid: Grid) -> Threshold:
    """From histograms of places, over the range that a thinned reading shows."""
    with rasterio.open(plain) as dataset:
        shape = min(_PROBE_PX, grid.height), min(_PROBE_PX, grid.width)
        seen = dataset.read(1, out_shape=shape)
        seen = seen[np.isfinite(seen)]
        low, high = np.quantile(seen, [0.0005, 0.9995]) if seen.size else (0.0, 1.0)
        edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
        counts = [
            np.histogram(np.clip(values[np.isfinite(values)], edges[0], edges[-1]), edges)[0]
            for place in partition(grid.window, 128, 128)
            for values in [dataset.read(1, window=place.rasterio)]
        ]
    return two_groups(np.array(counts), edges)


def _cut(plain: Path, out: Path, grid: Grid, legend: Legend, threshold: float) -> None:
    """Class codes from the index."""
    how: dict[str, Any] = {"bands": ["class"], "dtype": legend.map_dtype, "nodata": legend.map_nodata}
    with rasterio.open(plain) as dataset, RasterWriter(out, grid, **how, overwrite=True) as writer:
        for window in partition(grid.window, 1024, 1024):
            values = dataset.read(1, window=window.rasterio)
            hit = np.where(values >= threshold, 2, 1)
            writer.write(window, np.where(np.isnan(values), legend.map_nodata, hit).astype(legend.map_dtype)[None])
