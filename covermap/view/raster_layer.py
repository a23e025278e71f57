"""One raster as a layer: what kind of thing it is, what its values mean, and what the page is told of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from covermap.core.errors import CovermapError, DataError, LabelError, UnreadableError
from covermap.core.legend import Legend
from covermap.core.sensors import SENSORS, Sensor, common_name
from covermap.geo.change_product import FROM_TO
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, spread
from covermap.geo.legend_files import class_names
from covermap.geo.pictures import COMPOSITES, CONFIDENCE_COLOURS, DISTANCES
from covermap.geo.products import LAYERS
from covermap.geo.raster import grid_of, valid_pixels
from covermap.report.layers import MEANING
from covermap.view.classes import Shown, are_made_up, changes_of_map, classes_of_map, table_of
from covermap.view.dates import date_of
from covermap.view.local_files import files_of, require_local

Kind = Literal["change", "classes", "number", "probabilities", "image"]
STRETCHES = (0, 1, 2, 5)
"""Percent of the darkest and of the brightest pixels that are cut off."""
_VALUES = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""viridis, for numbers of which nothing else is known."""
_FEW = 64
_LOOK_PX = 256
_CODE_WORDS = {"class", "classes", "land_cover", "landcover", "label", "labels", "lc", "lulc", "code", "codes", "map"}
_PRESET_NAMES = {
    COMPOSITES[0]: "natural colours",
    COMPOSITES[1]: "false colour (vegetation red)",
    COMPOSITES[2]: "false colour (vegetation red)",
    COMPOSITES[3]: "false colour (short-wave infrared)",
    COMPOSITES[4]: "false colour (short-wave infrared)",
}


@dataclass(frozen=True)
class Scale:
    """What a number is: its unit, the values of the ends of the ramp, the ramp, one sentence; says: of what."""

    unit: str
    low: float
    high: float
    colours: tuple[str, ...]
    words: str
    says: str = ""


@dataclass
class RasterLayer:
    """A raster that is shown. indexes: its bands (from 1) without alpha. of: id of the map that it belongs to,
    of a change those before and after. made_up: its overviews hold classes that it has not.
    """  # fmt: skip

    path: Path
    kind: Kind
    grid: Grid
    version: str
    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    nodata: float | None
    dtype: str
    overviews: bool
    sources: tuple[Path, ...] = ()
    classes: tuple[Shown, ...] = ()
    scale: Scale | None = None
    unknown_px: int = 0
    id: str = ""
    of: str | list[str] | None = None
    date: str | None = None
    made_up: bool = False
    presets: tuple[tuple[str, tuple[str, ...]], ...] = ()
    _limits: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def on_disk(self) -> str:
        """The version of the file as it is now, with those that it is made of; raises DataError where one is gone."""
        return version_of(self.path, *self.sources)

    @cached_property
    def table(self) -> npt.NDArray[np.uint16]:
        """(65536,) code -> index of its class."""
        return table_of(self.classes)

    @cached_property
    def byte_table(self) -> npt.NDArray[np.uint8]:
        """The same in 8 bit, 255 for none: of at most 254 classes."""
        return np.minimum(self.table, 255).astype(np.uint8)

    def limits(self, dataset: DatasetReader, band: str, percent: int) -> tuple[float, float]:
        """Between what values a band is stretched; looked up once, in an overview or in places spread evenly."""
        with self._lock:
            if band not in self._limits:
                self._limits[band] = self._percentiles(dataset, self.indexes[self.bands.index(band)])
        low, high = self._limits[band][:, STRETCHES.index(percent)]
        if percent == 0 and self.dtype == "uint8":
            return 0.0, 255.0
        return float(low), float(high) if high > low else float(low) + 1.0

    def _percentiles(self, dataset: DatasetReader, index: int) -> npt.NDArray[np.float64]:
        known = _looked_at(dataset, index, self.nodata)
        if not known.size:
            return np.tile([[0.0], [1.0]], len(STRETCHES))
        return np.array([np.percentile(known, STRETCHES), np.percentile(known, [100 - cut for cut in STRETCHES])])

    def to_dict(self) -> dict[str, Any]:
        """As the page needs it, but for the place."""
        one: dict[str, Any] = {"id": self.id, "kind": self.kind, "name": self.name, "version": self.version}
        one |= {"of": self.of, "date": self.date}
        if self.kind == "image":
            presets = [{"name": name, "bands": list(bands)} for name, bands in self.presets]
            return one | {"bands": list(self.bands), "presets": presets, "stretches": list(STRETCHES)}
        if self.scale:
            one |= {"unit": self.scale.unit, "low": self.scale.low, "high": self.scale.high}
            one |= {"colours": list(self.scale.colours), "words": self.scale.words, "says": self.scale.says}
        if self.kind == "probabilities":
            one["classes"] = [{"name": band, "colour": ""} for band in self.bands]
        elif self.classes:
            areas = [each.hectares for each in self.classes]
            known = [area for area in areas if area is not None]
            one["classes"] = [each.to_dict() for each in self.classes]
            one["hectares"] = round(sum(known), 4) if len(known) == len(areas) else None
            one |= {"unknown_pixels": self.unknown_px} if self.unknown_px else {}
        return one


def version_of(*paths: Path) -> str:
    """Changes whenever one of some files does; raises DataError where one is gone."""
    found = []
    for path in paths:
        try:
            now = path.stat()
        except OSError as error:
            raise DataError(f"{path.name} is gone", fix="put it back, or start covermap view again") from error
        found.append(f"{now.st_mtime_ns:x}-{now.st_size:x}")
    return found[0] if len(found) == 1 else f"{found[0]}-{sha256(' '.join(found[1:]).encode()).hexdigest()[:12]}"


def read_layer(
    path: Path, *, legends: Sequence[Legend] = (), layer: str | None = None, sensor: str | None = None,
    bands: Sequence[str] | None = None, as_codes: bool = False, inside: Path | None = None,
) -> RasterLayer:  # fmt: skip
    """Open a raster and find out what it shows; raises CovermapError with the reason where it cannot be shown.

    legends: what codes may mean where the file does not say so. layer: which of LAYERS of a map it is. sensor, bands:
    what a config says of an image. as_codes: it holds labels. inside: the folder in which it was found.
    """
    sources = files_of(path, inside)
    version = version_of(path, *sources)
    try:
        with rasterio.open(path) as dataset:
            require_local(dataset, path)
            if not dataset.count:
                raise DataError(f"{path.name} holds no band: name one of its variables")
            if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
                raise DataError(f"{path.name} holds complex numbers")
            found = _described(dataset, path, version, sensor, bands)
            kind = _kind(dataset, found, layer, as_codes)
            found.kind, found.sources, found.date = kind, sources, date_of(path, dataset.tags())
            _explain(found, dataset, kind, layer, legends)
            found.made_up = kind in ("change", "classes") and are_made_up(dataset, found.classes, found.unknown_px)
            found.overviews = found.overviews and not (found.made_up and max(dataset.shape) > 2048)
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{path.name} is no raster that can be read: {error.__cause__ or error}") from error
    return found


def _explain(
    found: RasterLayer, dataset: DatasetReader, kind: Kind, layer: str | None, legends: Sequence[Legend]
) -> None:
    """Add what belongs to the kind."""
    if kind == "change":
        found.classes, found.unknown_px = changes_of_map(found.path)
    elif kind == "classes":
        found.classes, found.unknown_px = classes_of_map(found.path, legends)
    elif kind in ("number", "probabilities"):
        found.scale = _scale(dataset, found, layer)
    else:
        found.presets = _presets(found.bands)


def _described(
    dataset: DatasetReader, path: Path, version: str, sensor: str | None, bands: Sequence[str] | None
) -> RasterLayer:
    indexes = tuple(i for i, kind in enumerate(dataset.colorinterp, 1) if kind != ColorInterp.alpha)
    if len({dataset.dtypes[i - 1] for i in indexes}) != 1:
        dtype = np.result_type(*(dataset.dtypes[i - 1] for i in indexes)).name
    else:
        dtype = dataset.dtypes[indexes[0] - 1]
    names = _band_names(dataset, indexes, sensor, bands)
    overviews = bool(dataset.overviews(indexes[0])) or max(dataset.shape) <= 2048
    return RasterLayer(
        path, "image", grid_of(dataset), version, names, indexes, dataset.nodata, str(dtype), overviews
    )  # fmt: skip


def _band_names(
    dataset: DatasetReader, indexes: Sequence[int], sensor: str | None, bands: Sequence[str] | None
) -> tuple[str, ...]:
    """Common names; of bands without any their number."""
    known = SENSORS.get(sensor or "")
    given = list(bands or ())
    if len(given) != len(indexes):
        given = [dataset.descriptions[i - 1] or "" for i in indexes]
    interp = [dataset.colorinterp[i - 1].name for i in indexes]
    if not any(given) and interp[:3] == ["red", "green", "blue"]:
        given = [name if name in ("red", "green", "blue") else "" for name in interp]
    if not any(given) and known and len(known.bands) == len(indexes):
        given = list(known.band_names)
    known = known or _sensor_of(given)
    found: list[str] = []
    for number, name in enumerate(given, 1):
        common = common_name(name, known).replace(",", " ") if name else f"band {number}"
        found.append(common if common not in found else f"{common} ({number})")
    return tuple(found)


def _sensor_of(names: Sequence[str]) -> Sensor | None:
    """The sensor that alone knows all names, or one of several to which they mean the same: B2 is blue or green."""
    meant = {
        tuple(sensor.common_name(name) for name in names): sensor
        for sensor in SENSORS.values()
        if all(sensor.common_name(name) for name in names)
    }
    return next(iter(meant.values())) if len(meant) == 1 else None


def _kind(dataset: DatasetReader, found: RasterLayer, layer: str | None, as_codes: bool) -> Kind:
    tags = dataset.tags()
    if FROM_TO in tags and len(found.indexes) == 1:
        return "change"
    if layer == "probs":
        return "probabilities"
    if layer == "sets":
        raise LabelError(f"{found.name} holds a bit for each class: look at set_size instead")
    if layer and layer not in ("before", "after"):
        return "number"
    if len(found.indexes) > 1:
        return "image"
    if "COVERMAP_LEGEND" in tags or as_codes or layer:
        return "classes"
    if np.dtype(found.dtype).kind == "f":
        return "number"
    if dataset.colorinterp[0] == ColorInterp.palette or class_names(found.path):
        return "classes"
    known = _looked_at(dataset, 1, found.nodata)
    few = len(np.unique(known)) <= _FEW and (not known.size or known.max() >= 0)
    return (
        "classes" if few or {*found.bands[0].replace(" ", "_").split("_"), found.bands[0]} & _CODE_WORDS else "number"
    )


def _looked_at(dataset: DatasetReader, index: int, nodata: float | None) -> npt.NDArray[Any]:
    """Valid values (N,) of a band: of its overview, or of 16 places of a large raster without any."""
    height, width = dataset.shape
    if dataset.overviews(index) or max(height, width) <= 4 * _LOOK_PX:
        step = max(1.0, max(height, width) / (2 * _LOOK_PX))
        shape = (1, max(1, round(height / step)), max(1, round(width / step)))
        parts = [(dataset.read([index], out_shape=shape), dataset.read_masks(index, out_shape=shape[1:]))]
    else:
        windows = [window.rasterio for window in spread(grid_of(dataset), _LOOK_PX)]
        parts = [(dataset.read([index], window=w), dataset.read_masks(index, window=w)) for w in windows]
    return np.concatenate([v[0][valid_pixels(v, nodata) & (mask > 0)] for v, mask in parts])


def _scale(dataset: DatasetReader, found: RasterLayer, layer: str | None) -> Scale:
    sure = tuple(CONFIDENCE_COLOURS)
    unsure = sure[::-1]
    if layer == "confidence":
        return Scale("%", 0, 100, sure, f"{MEANING['confidence']}.")
    if layer == "entropy":
        return Scale("%", 0, 100, unsure, f"{LAYERS['entropy']}: 0 where one class only is named.")
    if layer in ("change", "probability"):
        return Scale("%", 0, 100, unsure, f"{MEANING['change']}.")
    if layer == "applicability":
        words = f"{MEANING['applicability']}, in percent of the usual: above 100 it is unlike them."
        return Scale("%", 0, 200, tuple(DISTANCES.values()), words, "of the usual distance from the training data")
    if layer == "probs":
        return Scale("%", 0, 100, ("#ffffff", "#08306b"), f"{LAYERS['probs']}.")
    known = _looked_at(dataset, found.indexes[0], found.nodata)
    if not known.size:
        raise DataError(f"{found.name} holds no value: all of it is nodata")
    known = known.astype(np.float64) * dataset.scales[found.indexes[0] - 1] + dataset.offsets[found.indexes[0] - 1]
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    if layer == "set_size":
        return Scale("classes", 1, max(2.0, float(known.max())), unsure, f"{LAYERS['set_size']}.")
    if not high > low:
        low, high = float(known.min()), float(known.max())
    high = high if high > low else low + 1.0
    unit = dataset.units[found.indexes[0] - 1] or ""
    words = f"{found.bands[0]}: colours run from the 1st to the 99th percentile of the values."
    return Scale(unit, _rounded(low), _rounded(high, up=True), _VALUES, words)


def _rounded(value: float, *, up: bool = False) -> float:
    """To three digits, away from the middle."""
    if not value:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return float(f"{(math.ceil if up else math.floor)(value / step) * step:.6g}")


def _presets(bands: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Combinations of bands by name; without any the first three, and radar as it is usually shown."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for three in COMPOSITES:
        if set(three) <= set(bands) and _PRESET_NAMES[three] not in dict(found):
            found.append((_PRESET_NAMES[three], three))
    for one, other in (("vv", "vh"), ("hh", "hv")):
        if {one, other} <= set(bands):
            found.append((f"radar ({one}, {other}, {one})", (one, other, one)))
    if not found and len(bands) >= 3:
        found.append((", ".join(bands[:3]), tuple(bands[:3])))
    return (*found, *((f"{band} (grey)", (band,)) for band in bands[: 1 if found else 4]))


def problem_of(error: Exception) -> str:
    """One line that says why a file is not shown."""
    if isinstance(error, CovermapError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
