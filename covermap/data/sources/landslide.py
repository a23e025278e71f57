"""Landslide cubes: stacks of radar and terrain around an event, with a mask of landslides (Boehm et al. 2022).

    landslides-NAME/chips_128x128/CHIP.npz     arr_0 (C, H, W)
    CHIP.metadata.json or CHIP.metadata.pkl    variables, bounds, crs

Variables: TS::vh::20180801 (a date), TP::los.rdr_0::20180801_20180813 (a pair), ST::dem (static). A .pkl runs code when
it is read, so it is read only with `pickle: true`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.parsing import as_written
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, list_files, numbered
from covermap.geo.cube import read_metadata

EVENTS = {
    "hokkaido": ("2018-09-05", "2018-09-07"), "kaikoura": ("2016-11-13", "2016-11-14"),
    "indonesia": ("2022-02-24", "2022-02-25"),
}  # fmt: skip
"""Last day before and first day after the published events."""


@register("source", "landslide")
class Landslide(Source):
    """A scene of two dates for each chip: the last radar image before the event and the first after it.

    event: [day before, day after]; default: that of the published data set of this name. variables: of each date.
    quantity: what the radar's numbers are, power or amplitude, to be taken in dB. pickle: read metadata that can run
    code.
    """

    legend = numbered("landslide", ("no landslide", "landslide"), first=0, nodata=None)
    licence = "see the Zenodo record"
    url = "https://zenodo.org/records/7248056"
    records = ("zenodo:7248056",)

    def __init__(
        self,
        root: str | Path,
        *,
        event: Sequence[str] | None = None,
        variables: Sequence[str] = ("vv", "vh"),
        quantity: Literal["power", "amplitude"] | None = None,
        pickle: bool = False,
    ) -> None:
        super().__init__(root)
        if event is not None and (isinstance(event, str) or len(event) != 2):
            raise ConfigError(f"data.options.event: {event!r} is no pair of days", fix="['2018-09-05', '2018-09-07']")
        if quantity not in (None, "power", "amplitude"):
            raise ConfigError(f"data.options.quantity: {quantity!r} is not known", fix="power or amplitude")
        self.event, self.variables, self.quantity, self.pickle = event, tuple(variables), quantity, pickle

    def scenes(self) -> list[SceneFiles]:
        folders = sorted(self.root.glob("landslides-*/chips_*"))
        if not folders:
            raise DataError(f"{self.root} has no folder landslides-NAME/chips_128x128", fix="give data.root")
        return [self._scene(path) for folder in folders for path in list_files(folder, (".npz",))]

    def _scene(self, path: Path) -> SceneFiles:
        name = path.parent.parent.name.removeprefix("landslides-")
        if self.event is None and name not in EVENTS:
            raise ConfigError(f"the days of the event {name} are not known", fix="data.options.event: [before, after]")
        before, after = self.event or EVENTS[name]
        layers = self._layers(path)
        dates = sorted({_day(layer) for layer in layers if layer.startswith("TS::")})
        earlier, later = [d for d in dates if d <= before], [d for d in dates if d >= after]
        if not earlier or not later:
            raise DataError(f"{path} has no date before {before} or none after {after}", fix="check data.options.event")
        images = tuple(self._image(path, layers, day) for day in (earlier[-1], later[0]))
        if "ST::landslides" not in layers:
            raise DataError(f"{path} has no layer ST::landslides", fix="is it a chip of this data set?")
        label = LabelFile(str(path), band=layers.index("ST::landslides") + 1)
        return SceneFiles(f"{name}_{path.stem}", images, {"class": label}, place=name)

    def _layers(self, path: Path) -> list[str]:
        about = read_metadata(path)
        side = path.with_name(path.stem + ".metadata.pkl")
        if not about and side.is_file():
            if not self.pickle:
                raise DataError(
                    f"{side} is a pickle, which can run code when it is read",
                    fix="if you trust its source: data.options.pickle: true; or write CHIP.metadata.json",
                )
            about = pickle.loads(side.read_bytes())
        if not about.get("variables"):
            raise DataError(f"{path} has no metadata with its variables", fix=f"restore {side.name}")
        with as_written(side, fix="restore it"):
            return [str(layer) for layer in about["variables"]]

    def _image(self, path: Path, layers: list[str], day: str) -> ImageConfig:
        """The wanted layers of a day by their names; all others get names that nobody asks for."""
        wanted = {f"TS::{name}::{day.replace('-', '')}": name for name in self.variables}
        lacking = [layer for layer in wanted if layer not in layers]
        if lacking:
            raise DataError(f"{path} has no layer {', '.join(lacking)}", fix="check data.options.variables")
        bands = [wanted.get(layer, f"layer{i}") for i, layer in enumerate(layers)]
        return ImageConfig(
            path=str(path), sensor="sentinel1", bands=bands, use=list(self.variables), date=day, quantity=self.quantity
        )

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        hokkaido = ("20180801", "20180825", "20180910", "20180918")
        kaikoura = ("20161001", "20161108", "20161115", "20161202")
        for name, days, crs in (("hokkaido", hokkaido, "EPSG:32654"), ("kaikoura", kaikoura, "EPSG:32759")):
            layers = [f"TS::{band}::{day}" for day in days for band in ("vv", "vh")]
            layers += [f"TP::los.rdr_0::{days[0]}_{days[1]}", "ST::dem", "ST::landslides"]
            folder = root / f"landslides-{name}" / "chips_128x128"
            folder.mkdir(parents=True, exist_ok=True)
            for number in (2, 10):
                mask = miniature.patches((0, 0, 0, 1), 32, 32, seed=seed + number)
                values = miniature.picture(mask, len(layers) - 1, seed=number, low=0.01, high=0.5, dtype="float32")
                cube = np.concatenate([values, mask[None].astype("float32")])
                np.savez_compressed(folder / f"chip_{number}.npz", cube)
                bounds = [600_000 + 1000 * number, 4_700_000, 600_320 + 1000 * number, 4_700_320]
                about = {"variables": layers, "bounds": bounds, "crs": crs, "chip_id": number}
                (folder / f"chip_{number}.metadata.json").write_text(json.dumps(about))


def _day(layer: str) -> str:
    """`TS::vh::20180801` -> 2018-08-01."""
    parts = layer.split("::")
    if len(parts) < 3:
        raise DataError(f"the layer {layer[:99]!r} names no day", fix="TS::vh::20180801, as in the published metadata")
    return f"{parts[2][:4]}-{parts[2][4:6]}-{parts[2][6:]}"
