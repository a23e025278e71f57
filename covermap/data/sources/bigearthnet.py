"""BigEarthNet: chips of 1.2 km with Sentinel-2 bands at 10, 20 and 60 m, Sentinel-1, and all CORINE classes in each.

    PATCH/PATCH_B01.tif ... PATCH_B12.tif, PATCH_labels_metadata.json     S2A_MSIL2A_20170617T113321_36_85
    PATCH/PATCH_VV.tif, PATCH_VH.tif, PATCH_labels_metadata.json          S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39

in any folder below the root. The metadata lists the classes by name, and a Sentinel-1 patch's Sentinel-2 partner.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.legend import load_legend
from covermap.core.parsing import parse_json
from covermap.core.registry import register
from covermap.data import miniature
from covermap.data.source import SceneFiles, Source, natural

OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
RADAR = ("VV", "VH")
SPELLINGS = {
    "transitional woodland/shrub": 324, "peatbogs": 412, "bare rock": 332, "natural grassland": 321,
}  # fmt: skip
"""Names that the data set spells otherwise than CORINE does."""
_OPTICAL = re.compile(r"^S2[AB]_MSIL2A_(\d{4})(\d\d)(\d\d)T\d+_\w+$")
_RADAR = re.compile(r"^S1[AB]_IW_GRDH_1SDV_(\d{4})(\d\d)(\d\d)T\d+_\w+$")


@register("source", "bigearthnet")
class BigEarthNet(Source):
    """A scene for each patch with its classes as codes of CORINE (`chip_classes`).

    sensors: sentinel2, sentinel1, or both (patches that have a partner).
    """

    legend = "corine"
    licence = "CDLA-Permissive-1.0"
    url = "https://bigearth.net"
    records = ("zenodo:12687186",)

    def __init__(self, root: str | Path, *, sensors: str = "sentinel2") -> None:
        super().__init__(root)
        if sensors not in ("sentinel2", "sentinel1", "both"):
            raise ConfigError(f"data.options.sensors: {sensors!r} is not known", fix="sentinel2, sentinel1 or both")
        self.sensors = sensors

    def scenes(self) -> list[SceneFiles]:
        self.notes.clear()
        optical, radar = self._patches(_OPTICAL), self._patches(_RADAR)
        if self.sensors == "sentinel2":
            found = [self._scene(path, (path,)) for path in optical.values()]
        elif self.sensors == "sentinel1":
            found = [self._scene(path, (path,)) for path in radar.values()]
        else:
            partners: dict[str, Path] = {}
            for path in radar.values():
                name = _read_about(path).get("corresponding_s2_patch", "")
                if name in partners:
                    raise DataError(f"{partners[name].name} and {path.name} both go with {name}", fix="keep one")
                partners[name] = path
            found = [self._scene(path, (path, partners[name])) for name, path in optical.items() if name in partners]
            alone = len(optical) + len(radar) - 2 * len(found)
            if alone:
                self.notes.append(f"left out {alone} patches without a partner of the other sensor")
        if not found:
            what = "pair of S2A_MSIL2A_* and S1A_IW_GRDH_*" if self.sensors == "both" else self.sensors
            raise DataError(f"{self.root} has no patches: {what}", fix="check data.root and data.options.sensors")
        return found

    def _patches(self, pattern: re.Pattern[str]) -> dict[str, Path]:
        """{patch: folder} in natural order; raises DataError for one that is there twice."""
        found: dict[str, Path] = {}
        for path in (path for path in self.root.rglob("S[12]*") if path.is_dir() and pattern.match(path.name)):
            if path.name in found:
                raise DataError(f"{path} and {found[path.name]} are one patch", fix="keep one of them")
            found[path.name] = path
        return dict(sorted(found.items(), key=lambda item: natural(item[0])))

    def _scene(self, first: Path, patches: tuple[Path, ...]) -> SceneFiles:
        about = _read_about(first)
        names = about.get("labels")
        if not isinstance(names, list) or not names:
            raise DataError(f"{first} lists no labels", fix=f"restore {first.name}_labels_metadata.json")
        classes = tuple(sorted({self._code(str(name), first) for name in names}))
        return SceneFiles(first.name, tuple(_image(path) for path in patches), chip_classes=classes)

    def _code(self, name: str, where: Path) -> int:
        code = self._codes.get(name.lower())
        if code is None:
            raise DataError(f"{where} has the label {name!r}, no class of CORINE", fix="is it the data set's own file?")
        return code

    @cached_property
    def _codes(self) -> dict[str, int]:
        legend = load_legend("corine")
        own = dict(zip((name.lower() for name in legend.names), legend.codes, strict=True))
        return own | SPELLINGS

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        sides = {"B01": 60, "B09": 60, **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20)}
        classes = ("Coniferous forest", "Transitional woodland/shrub", "Sea and ocean")
        for i in range(3):
            where: dict[str, Any] = {"origin": (551_580 + 1200 * i, 6_743_640), "epsg": 32635}
            codes = miniature.patches(range(1, 4), 120, 120, seed=seed + i, cell_px=12)
            optical, radar = f"S2B_MSIL2A_20170924T093019_43_{i}", f"S1A_IW_GRDH_1SDV_20170925T165043_35VUP_43_{i}"
            picture = miniature.picture(codes, 12, seed=seed + i, low=100, high=5000, dtype="uint16")
            for band, values in zip(OPTICAL, picture, strict=True):
                step = sides.get(band, 10) // 10
                path = root / "BigEarthNet-v1.0" / optical / f"{optical}_{band}.tif"
                miniature.write(path, values[::step, ::step], gsd_m=10.0 * step, **where)
            about: dict[str, Any] = {"labels": list(classes[: i + 1])}
            path.with_name(f"{optical}_labels_metadata.json").write_text(json.dumps(about))
            for band, values in zip(
                RADAR, miniature.picture(codes, 2, seed=i, low=-25, high=0, dtype="float32"), strict=True
            ):
                path = root / "BigEarthNet-S1-v1.0" / radar / f"{radar}_{band}.tif"
                miniature.write(path, values, **where)
            about["corresponding_s2_patch"] = optical
            path.with_name(f"{radar}_labels_metadata.json").write_text(json.dumps(about))


def _read_about(path: Path) -> dict[str, Any]:
    """A patch's metadata; raises DataError."""
    side = path / f"{path.name}_labels_metadata.json"
    try:
        found = parse_json(side.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{side} cannot be read ({error})", fix="restore it: it holds the patch's labels") from error
    if not isinstance(found, dict):
        raise DataError(f"{side} holds no description of a patch", fix="restore it")
    return found


def _image(path: Path) -> ImageConfig:
    optical = _OPTICAL.match(path.name)
    match, bands = (optical, OPTICAL) if optical else (_RADAR.match(path.name), RADAR)
    assert match is not None
    files = [path / f"{path.name}_{band}.tif" for band in bands]
    lacking = [file.name for file in files if not file.is_file()]
    if lacking:
        raise DataError(f"{path} lacks {', '.join(lacking)}", fix="restore the missing files")
    sensor = "sentinel2" if optical else "sentinel1"
    return ImageConfig(
        path=[str(file) for file in files], sensor=sensor, bands=list(bands), date="-".join(match.groups())
    )
