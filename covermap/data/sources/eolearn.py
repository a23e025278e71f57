"""EOPatches of eo-learn: arrays of numbers in a folder for each place.

    PATCH/bbox.geojson  PATCH/timestamps.json
    PATCH/data/NAME.npy (T, H, W, C)  PATCH/data_timeless/NAME.npy (H, W, C)  PATCH/mask_timeless/LULC.npy  labels

The root is a patch, or holds patches. Older patches keep their dates in a pickle, which can run code when it is read:
that is done only with `pickle: true`. Masks of clouds are not applied.
"""

from __future__ import annotations

import datetime
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError, suggest
from covermap.core.parsing import parse_json
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, inside, natural, numbered
from covermap.geo.layers import read_layers

CLASSES = ("cultivated land", "forest", "grassland", "shrubland", "water", "wetland", "tundra", "artificial surface",
           "bare land", "snow and ice")  # fmt: skip


@register("source", "eolearn")
class EoLearn(Source):
    """A scene for each patch with all its dates, or those of `dates`.

    features: {array of data/: names of its bands}, one array for each sensor. sensors: {array: sensor}. timeless: the
    same for data_timeless/. labels: array of mask_timeless/, or None. dates: [first, last] day. pickle: read dates that
    can run code.
    """

    legend = numbered("eolearn", CLASSES)
    licence = "example patches: MIT (eo-learn), Copernicus; land use of Slovenia (RABA)"
    url = "https://github.com/sentinel-hub/eo-learn"

    def __init__(
        self,
        root: str | Path,
        *,
        features: Mapping[str, Sequence[str]] | None = None,
        timeless: Mapping[str, Sequence[str]] | None = None,
        sensors: Mapping[str, str] | None = None,
        labels: str | None = "LULC",
        dates: Sequence[str] | None = None,
        pickle: bool = False,
    ) -> None:
        super().__init__(root)
        self.features = {"NDVI": ["ndvi"]} if features is None else dict(features)
        self.timeless = dict(timeless or {})
        self.sensors, self.labels, self.pickle = dict(sensors or {}), labels, pickle
        names = [self.sensors.get(name) for name in (*self.features, *self.timeless)]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"data.options: {', '.join((*self.features, *self.timeless)) or 'no arrays'} need a sensor each",
                fix="features: {NDVI: [ndvi]}, timeless: {DEM: [elevation]}, sensors: {DEM: dem}",
            )
        if dates is not None and (isinstance(dates, str) or len(dates) != 2):
            raise ConfigError(f"data.options.dates: {dates!r} is no first and last day", fix="['2017-01-01', ...]")
        self.dates = dates

    def scenes(self) -> list[SceneFiles]:
        patches = [self.root] if (self.root / "bbox.geojson").is_file() else self._patches()
        return [self._scene(patch) for patch in patches]

    def _patches(self) -> list[Path]:
        found = [path.parent for path in self.root.glob("*/bbox.geojson")]
        old = [path.parent.name for path in self.root.glob("*/bbox.pkl")]
        if not found or old:
            raise DataError(
                f"{self.root}: {', '.join(old[:5]) or 'it'} has no bbox.geojson, which says where a patch lies",
                fix="patches of older versions: load and save them with eo-learn 1.5 or newer",
            )
        return sorted(found, key=lambda path: natural(path.name))

    def _scene(self, patch: Path) -> SceneFiles:
        times = self._times(patch)
        kept = [t for t, time in enumerate(times) if self.dates is None or self.dates[0] <= time[:10] <= self.dates[1]]
        if not kept:
            raise DataError(f"{patch} has no dates in {self.dates}", fix=f"it has {times[0]} to {times[-1]}")
        images = [
            image for name, bands in self.features.items() for image in self._series(patch, name, bands, times, kept)
        ]
        for name, bands in self.timeless.items():
            path = _array(patch, "data_timeless", name)
            images.append(ImageConfig(path=str(path), sensor=self.sensors.get(name), bands=list(bands)))
        labels = {"class": LabelFile(str(_array(patch, "mask_timeless", self.labels)))} if self.labels else {}
        return SceneFiles(patch.resolve().name, tuple(images), labels)

    def _series(
        self, patch: Path, name: str, bands: Sequence[str], times: Sequence[str], kept: Sequence[int]
    ) -> list[ImageConfig]:
        """An image for each wanted date of an array, whose bands stand date by date."""
        path = _array(patch, "data", name)
        count = len(read_layers(str(path)).names)
        if count != len(times) * len(bands):
            raise DataError(
                f"{path} holds {count} layers, not {len(times)} dates of {len(bands)} bands",
                fix="name every band once: data.options.features: {NAME: [...]}",
            )
        images = []
        for t in kept:
            first = t * len(bands)
            every = [bands[i - first] if first <= i < first + len(bands) else f"layer{i}" for i in range(count)]
            images.append(
                ImageConfig(path=str(path), sensor=self.sensors.get(name), bands=every, use=list(bands), date=times[t])
            )
        return images

    def _times(self, patch: Path) -> list[str]:
        """The moments of the patch's dates in ISO format; raises DataError."""
        path = patch / "timestamps.json"
        old = next((patch / name for name in ("timestamps.pkl", "timestamp.pkl") if (patch / name).is_file()), None)
        if path.is_file():
            old = None
        elif old is not None and not self.pickle:
            raise DataError(
                f"{old} is a pickle, which can run code when it is read",
                fix="if you trust its source: data.options.pickle: true; or write timestamps.json",
            )
        try:
            if old is None:
                times = [str(time) for time in parse_json(path.read_text(encoding="utf-8"))]
            else:
                times = [time.isoformat() for time in pickle.loads(old.read_bytes())]
            if not times:
                raise ValueError("it names none")
            for time in times:
                datetime.datetime.fromisoformat(time)
        except (OSError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            raise DataError(f"{path} holds no list of dates ({error})", fix="restore it") from error
        return times

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for i in range(2):
            patch, left, bottom = root / f"eopatch_{i}", 465_180 + 400 * i, 5_079_240
            ring = [[left, bottom], [left, bottom + 320], [left + 320, bottom + 320], [left + 320, bottom]]
            crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
            codes = miniature.patches((1, 2, 3), 32, 32, seed=seed + i)
            values = miniature.picture(codes, 4, seed=i, low=0, high=1, dtype="float32")
            for folder in ("data", "mask_timeless"):
                (patch / folder).mkdir(parents=True)
            np.save(patch / "data" / "NDVI.npy", values[..., None])
            np.save(patch / "mask_timeless" / "LULC.npy", codes[..., None].astype("uint16"))
            about = {"crs": crs, "type": "Polygon", "coordinates": [[*ring, ring[0]]]}
            (patch / "bbox.geojson").write_text(json.dumps(about))
            times = [f"2017-0{month}-11T10:00:08" for month in range(3, 7)]
            (patch / "timestamps.json").write_text(json.dumps(times))


def _array(patch: Path, folder: str, name: str) -> Path:
    path = inside(patch, f"{folder}/{name}.npy")
    if not path.is_file():
        there = [file.stem for file in (patch / folder).glob("*.npy") if not file.name.startswith(".")]
        raise DataError(f"{patch} has no {folder}/{name}.npy", fix=suggest(name, there))
    return path
