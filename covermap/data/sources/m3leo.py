"""M3LEO: chips of 448 x 448 px in large regions, a folder for each data set, joined by the chips' identifiers.

    AOI/AOI_partitions_aschips_HASH_splits_60bands_angle09_60-20-20.csv      identifier, split (train, val, test)
    AOI/AOI_partitions_aschips_HASH/DATASET-YEAR/IDENTIFIER.tif or .nc       s1grd, s1grdm, s2rgbm, gssic, gunw, srtmdem
                                    esaworldcover-2020/IDENTIFIER.tif        labels
                                    biomass-2020, ghsbuilts-2020, modis44b006veg, srtmdem    targets

A chip that some data set lacks, or whose file is damaged, is left out and named in the notes; nothing stands in for it.
"""

from __future__ import annotations

import csv
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_section
from covermap.core.errors import ConfigError, DataError, suggest
from covermap.core.registry import register
from covermap.core.target_config import TargetConfig
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.sar import (
    MONTHS,
    SEASONAL,
    SEASONS,
    Coherence,
    Interferograms,
    MonthlyBackscatter,
    SeasonalBackscatter,
    by_name,
)
from covermap.data.source import SceneFiles, Source, by_stem, inside, list_files, read_parts, tell_audit
from covermap.geo.layers import read_layers

COLOURS = tuple(f"{month:02d}_{colour}" for month in MONTHS for colour in ("red", "green", "blue"))
AOIS = ("china", "conus", "europe", "middleeast", "pakin", "southamerica")
LEGENDS = {"esaworldcover": "esa_worldcover"}
TARGETS: dict[str, dict[str, Any]] = {
    "biomass": {"variable": "agb", "bands": ["agb"], "unit": "Mg/ha"},
    # Square metres in each pixel, so the sum is kept.
    "ghsbuilts": {"bands": ["built_surface"], "unit": "m2", "resampling": "sum"},
    # Water (200) has no trees; 253 is fill.
    "modis44b006veg": {"use": ["Percent_Tree_Cover_2020"], "unit": "%", "replace": {200: 0, 253: None}},
    "srtmdem": {"bands": ["elevation"], "unit": "m"},
}
"""What the folders of continuous targets hold."""


class Product(Protocol):
    """What a data set's files hold: its settings in, the images of one chip out."""

    def images(self, path: Path, year: str) -> list[ImageConfig]: ...


@dataclass(frozen=True)
class MonthlyColour:
    """Sentinel-2 medians of red, green and blue, 8 bit; each month is a date."""

    months: Sequence[int] = MONTHS

    def __post_init__(self) -> None:
        if isinstance(self.months, str) or not self.months or set(self.months) - set(MONTHS):
            raise ConfigError(f"months: {self.months!r} are no months", fix="months: [3, 6, 9, 12]")

    def images(self, path: Path, year: str) -> list[ImageConfig]:
        names = read_layers(str(path)).named(COLOURS, where=str(path))
        colours = ("red", "green", "blue")
        dates = [
            (f"{year}-{month:02d}" if year else None, {f"{month:02d}_{colour}": colour for colour in colours})
            for month in self.months
        ]
        return by_name(path, names, dates, use=list(colours), sensor="rgb")


@dataclass(frozen=True)
class Elevation:
    """SRTM elevation in metres."""

    def images(self, path: Path, year: str) -> list[ImageConfig]:
        read_layers(str(path))
        return [ImageConfig(path=str(path), sensor="dem", bands=["elevation"])]


PRODUCTS: dict[str, type[Product]] = {
    "s1grd": SeasonalBackscatter, "s1grdm": MonthlyBackscatter, "s2rgbm": MonthlyColour, "gssic": Coherence,
    "gunw": Interferograms, "srtmdem": Elevation,
}  # fmt: skip


@register("source", "m3leo")
class M3leo(Source):
    """A scene for each chip that all data sets have, region by region in the order of its table.

    inputs: {folder: settings of its product}. labels: folder of a class raster, or None. aois: regions, default all.
    targets: {folder: settings as of data.target}: biomass-2020, ghsbuilts-2020, modis44b006veg, srtmdem.
    splits: pattern of the tables' names, where a region has several.
    """

    licence = "see the data set's page for each of its parts"
    url = "https://huggingface.co/M3LEO"
    records = tuple(f"hf:M3LEO-miniset/{aoi}" for aoi in AOIS)

    def __init__(
        self,
        root: str | Path,
        *,
        inputs: Mapping[str, Mapping[str, Any]] | None = None,
        labels: str | None = "esaworldcover-2020",
        aois: Sequence[str] | None = None,
        splits: str = "*",
        targets: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> None:
        super().__init__(root)
        inputs = {"s1grd-2020": {}} if inputs is None else inputs
        if not isinstance(inputs, Mapping) or not inputs:
            raise ConfigError(f"data.options.inputs: {inputs!r} names no data set", fix="inputs: {s1grd-2020: {}}")
        self.products = {folder: _product(folder, settings) for folder, settings in inputs.items()}
        self.targets = {folder: _target(folder, settings) for folder, settings in (targets or {}).items()}
        self.labels, self.aois, self.splits = labels, aois, splits
        self.legend = LEGENDS.get(labels.split("-")[0]) if labels else None

    def scenes(self) -> list[SceneFiles]:
        tables = self._tables()
        found = [files for aoi, table in tables.items() for files in self._region(aoi, table)]
        if not found:
            said = "; ".join(self.notes[:3]) or "the tables are empty"
            raise DataError(f"no chip of {self.root} has all data sets: {said}", fix="check data.options.inputs")
        return found

    def _tables(self) -> dict[str, Path]:
        """{region: its table}; raises DataError where there is none or more than one."""
        self.notes.clear()
        paths = [path for path in self.root.glob("*/*_splits_*.csv") if not path.name.startswith(".")]
        found: dict[str, Path] = {}
        for path in sorted(path for path in paths if fnmatch.fnmatch(path.name, self.splits)):
            if path.parent.name in found:
                raise DataError(
                    f"{path.parent} has several tables of splits: {found[path.parent.name].name}, {path.name}",
                    fix="choose one: data.options.splits: '*angle09*'",
                )
            found[path.parent.name] = path
        for aoi in self.aois or ():
            if aoi not in found:
                raise DataError(f"{self.root} has no region {aoi} with a table of splits", fix=suggest(aoi, found))
        if not found:
            raise DataError(f"{self.root} has no AOI/AOI_partitions_aschips_HASH_splits_*.csv", fix="give data.root")
        return {aoi: table for aoi, table in found.items() if self.aois is None or aoi in self.aois}

    def _region(self, aoi: str, table: Path) -> list[SceneFiles]:
        parts = read_parts(table)
        folder = table.parent / table.name.partition("_splits_")[0]
        sets = [*self.products, *([self.labels] if self.labels else []), *self.targets]
        files = {name: by_stem(list_files(inside(folder, name), (".tif", ".nc"))) for name in sets}
        for chip in parts:
            inside(folder, chip)
        for name, chips in files.items():
            self._note(aoi, f"chips of the table that {name} lacks", [chip for chip in parts if chip not in chips])
            self._note(aoi, f"files of {name} that the table does not name", [c for c in chips if c not in parts])
        found, damaged = [], []
        for chip, part in parts.items():
            if any(chip not in chips for chips in files.values()):
                continue
            try:
                found.append(self._scene(aoi, chip, part, {name: chips[chip] for name, chips in files.items()}))
            except DataError as error:
                damaged.append(f"{chip} ({error.message})")
        self._note(aoi, "chips that cannot be used", damaged, kind="unreadable")
        return found

    def _scene(self, aoi: str, chip: str, part: str, files: Mapping[str, Path]) -> SceneFiles:
        images: list[ImageConfig] = []
        for folder, product in self.products.items():
            more = product.images(files[folder], _year(folder))
            if more[0].sensor in {image.sensor for image in images}:
                raise ConfigError(
                    f"data.options.inputs: {folder} and another data set both give {more[0].sensor}",
                    fix="name one data set for each sensor",
                )
            images += more
        labels = {}
        if self.labels:
            read_layers(str(files[self.labels]))
            labels["class"] = LabelFile(str(files[self.labels]))
        for folder, target in self.targets.items():
            read_layers(str(files[folder]), target.variable)
        targets = tuple(t.model_copy(update={"path": str(files[folder])}) for folder, t in self.targets.items())
        return SceneFiles(f"{aoi}_{chip}", tuple(images), labels, part, targets=targets)

    def _note(self, aoi: str, what: str, chips: Sequence[str], *, kind: str = "no partner") -> None:
        if chips:
            listed = ", ".join(chips[:5]) + (" ..." if len(chips) > 5 else "")
            self.notes.append(f"{aoi}: left out {len(chips)} {what}: {listed}")
            tell_audit(kind, self.notes[-1])

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        for number, (aoi, hashed) in enumerate((("europe", "3c1f"), ("pakin", "0f26"))):
            name = f"{aoi}_partitions_aschips_{hashed}"
            chips = [f"{seed + 16 * number + i:013x}" for i in range(1, 5)]
            (root / aoi).mkdir(parents=True, exist_ok=True)
            with open(root / aoi / f"{name}_splits_60bands_angle09_60-20-20.csv", "w", newline="") as file:
                rows = zip(chips, ("train", "train", "val", "test"), strict=True)
                csv.writer(file).writerows([("identifier", "split"), *rows])
            for i, chip in enumerate(chips):
                where: dict[str, Any] = {"origin": (400_000 + 700 * i, 4_600_000), "epsg": 32631 + number}
                codes = miniature.patches((10, 30, 40, 50, 80), 64, 64, seed=seed + 10 * number + i)
                draw: dict[str, Any] = {"seed": seed + i, "low": -2500, "high": 0, "dtype": "int16"}
                miniature.write(root / aoi / name / "esaworldcover-2020" / f"{chip}.tif", codes, nodata=0, **where)
                layers = miniature.picture(codes, 16, **draw)
                miniature.write(root / aoi / name / "s1grd-2020" / f"{chip}.tif", layers, bands=SEASONAL, **where)
                fine = miniature.picture(codes[::8, ::8], 16, seed=i, low=0, high=1, dtype="float32")
                along: dict[str, Sequence[Any]] = {"season": SEASONS, "deltadays": (12, 24, 36, 48)}
                target = root / aoi / name / "gssic-2020" / f"{chip}.nc"
                miniature.write_variable(target, fine, "coherence", along, gsd_m=80, **where)
                _write_more(root / aoi / name, chip, codes, where, seed=seed + i)


def _write_more(folder: Path, chip: str, codes: miniature.Codes, where: dict[str, Any], *, seed: int) -> None:
    """Colours, elevation and continuous targets of a chip of the miniature; trees are those of code 10."""
    colours = miniature.picture(codes, len(COLOURS), seed=seed, low=0, high=255, dtype="uint8")
    miniature.write(folder / "s2rgbm-2020" / f"{chip}.tif", colours, bands=COLOURS, **where)
    ground = miniature.picture(codes, 1, seed=seed, low=0, high=900, dtype="int16")
    miniature.write(folder / "srtmdem" / f"{chip}.tif", ground, bands=["elevation"], **where)
    wooded = (codes == 10).reshape(8, 8, 8, 8).mean((1, 3))[None]
    coarse: dict[str, Any] = {**where, "gsd_m": 80}
    cover = ["Percent_Tree_Cover_2020"]
    miniature.write(folder / "modis44b006veg" / f"{chip}.tif", (100 * wooded).astype("uint8"), bands=cover, **coarse)
    built = (codes == 50).reshape(8, 8, 8, 8).mean((1, 3))[None]
    miniature.write(folder / "ghsbuilts-2020" / f"{chip}.tif", (6400 * built).astype("uint16"), **coarse)
    target = folder / "biomass-2020" / f"{chip}.nc"
    miniature.write_variable(target, (200 * wooded).astype("float32"), "agb", {"time": (2020,)}, **coarse)


def _product(folder: str, settings: Mapping[str, Any] | None) -> Product:
    kind = folder.split("-")[0]
    if kind not in PRODUCTS:
        raise ConfigError(f"data.options.inputs: {folder} is no known data set", fix=suggest(kind, PRODUCTS))
    try:
        return PRODUCTS[kind](**(settings or {}))
    except TypeError as error:
        known = ", ".join(PRODUCTS[kind].__dataclass_fields__)  # type: ignore[attr-defined]
        raise ConfigError(f"data.options.inputs.{folder}: {error}", fix=f"its settings: {known or 'none'}") from error


def _target(folder: str, settings: Mapping[str, Any] | None) -> TargetConfig:
    kind = folder.split("-")[0]
    if kind not in TARGETS:
        raise ConfigError(f"data.options.targets: {folder} is no known target", fix=suggest(kind, TARGETS))
    raw = {**TARGETS[kind], **(settings or {}), "path": folder}
    return parse_section(TargetConfig, raw, where=f"data.options.targets.{folder}")


def _year(folder: str) -> str:
    """`s1grd-2020` -> 2020; empty for a folder without a year."""
    match = re.search(r"-(\d{4})$", folder)
    return match[1] if match else ""
