"""Landsat Collection 2, level 1 or 2, of Landsat 4 to 9, as a folder or tar: bands, scaling and date from its MTL file.

    LC09_L2SP_193024_20230710_20230712_02_T1_MTL.txt  (or .json, .xml)
    LC09_L2SP_193024_20230710_20230712_02_T1_SR_B4.TIF     level 1: ..._B4.TIF     ..._QA_PIXEL.TIF

Surface reflectance = number * REFLECTANCE_MULT_BAND_n + REFLECTANCE_ADD_BAND_n; at level 1 that is divided by the sine
of the sun's elevation at the scene's centre. USGS Collection 2 guides LSDS-1618 (Landsat 4-7), LSDS-1619 (Landsat 8-9).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from covermap.core.errors import DataError
from covermap.core.parsing import parse_json
from covermap.core.sensors import find_sensor
from covermap.geo.granule import ARCHIVES, Granule, GranuleBand, Package, number_of, only, parse_xml, require_day

_MTL = re.compile(r"^(?:[^/]+/)?([A-Z]{2}\d\d_[^/]+)_MTL\.(txt|json|xml)$", re.IGNORECASE)
_SENSORS = {"LT04": "landsat5", "LT05": "landsat5", "LE07": "landsat7", "LC08": "landsat8", "LO08": "landsat8",
            "LC09": "landsat8", "LO09": "landsat8"}  # fmt: skip
# A level 2 file says the scaling of level 1 too, under the same names.
_GROUPS = {"1": "LEVEL1_RADIOMETRIC_RESCALING", "2": "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"}

Groups = Mapping[str, Mapping[str, str]]


def is_landsat(path: Path) -> bool:
    """Whether a path is a Landsat folder or tar with an MTL file, or that file."""
    if path.is_dir():
        return any(_MTL.match(found.name) for found in path.glob("*_MTL.*"))
    if path.suffix.lower() == ".tar":
        return path.is_file() and any(map(_MTL.match, Package.open(path).names))
    return bool(_MTL.match(path.name)) and path.is_file()


def read_landsat(path: Path) -> Granule:
    """What a folder, a tar or an MTL file holds; raises DataError."""
    whole = path.is_dir() or path.suffix.lower() in ARCHIVES
    package = Package.open(path if whole else path.parent)
    found = [(name, m) for name in package.names if (m := _MTL.match(name))]
    ids = sorted({m[1] for _, m in found if whole or m[1] == product_of(path)})
    product = only(ids, "Landsat products (*_MTL.txt)", path)
    top = min((name for name, m in found if m[1] == product), key=lambda name: name.lower().endswith(".xml"))
    where = f"{top} in {package.root}"
    groups = parse_mtl(package.text(top), top, where=where)
    if groups.get("PRODUCT_CONTENTS", {}).get("COLLECTION_NUMBER", "").lstrip("0") != "2":
        raise DataError(f"{where}: this is not Collection 2", fix="download the product of Collection 2")
    sensor = _SENSORS.get(product[:4].upper())
    if sensor is None:
        raise DataError(f"{where}: {product[:4]} has no reflectance bands that are known", fix="Landsat 4 to 9, no MSS")
    level = _value(groups, "PRODUCT_CONTENTS", "PROCESSING_LEVEL", where)
    files = {name.rpartition("/")[2].lower(): name for name in package.names}
    stem = product.lower() + ("_sr" if level[1:2] == "2" else "")
    bands = []
    for band in find_sensor(sensor).bands:
        name = files.get(f"{stem}_{band.native.lower()}.tif")
        if name:
            gain, add = _scaling(groups, level, band.native[1:], where)
            bands.append(GranuleBand(band.name, package.path(name), gain, add))
    if not bands:
        raise DataError(f"{package.root} holds no {product}_*B4.TIF", fix="download the bands to the same folder")
    clouds = files.get(f"{product.lower()}_qa_pixel.tif")
    tile = "".join(f"{_number(groups, 'IMAGE_ATTRIBUTES', key, where):03.0f}" for key in ("WRS_PATH", "WRS_ROW"))
    date = _value(groups, "IMAGE_ATTRIBUTES", "DATE_ACQUIRED", where)
    day = require_day(date, f"{where}: DATE_ACQUIRED")
    mask = package.path(clouds) if clouds else None
    return Granule(product, sensor, level, tile, day, tuple(bands), mask, package.path(top))


def product_of(path: Path) -> str:
    """The product that an MTL file is of, by its name; nothing for other files."""
    match = _MTL.match(path.name)
    return match[1] if match else ""


def _scaling(groups: Groups, level: str, number: str, where: str) -> tuple[float, float]:
    """(gain, add) of a band's numbers to reflectance; raises DataError where the metadata does not say it."""
    group = _GROUPS.get(level[1:2], _GROUPS["1"])
    gain, add = (_number(groups, group, f"REFLECTANCE_{what}_BAND_{number}", where) for what in ("MULT", "ADD"))
    if level[1:2] != "1":
        return gain, add
    elevation = _number(groups, "IMAGE_ATTRIBUTES", "SUN_ELEVATION", where)
    if not 0 < elevation <= 90:
        raise DataError(f"{where}: the sun's elevation is {elevation:g} degrees", fix="take an image of the day")
    sine = math.sin(math.radians(elevation))
    return gain / sine, add / sine


def _value(groups: Groups, group: str, key: str, where: str) -> str:
    value = groups.get(group, {}).get(key)
    if value is None:
        raise DataError(f"{where} does not say {key} in {group}", fix="download it again")
    return value


def _number(groups: Groups, group: str, key: str, where: str) -> float:
    return number_of(_value(groups, group, key, where), f"{where}: {key}")


def parse_mtl(content: bytes, name: str, *, where: str) -> dict[str, dict[str, str]]:
    """{group: {key: value}} of an MTL file in any of its three forms, told by its name; raises DataError."""
    if name.lower().endswith(".xml"):
        return {group.tag: {e.tag: (e.text or "").strip() for e in group} for group in parse_xml(content, where=where)}
    text = content.decode("utf-8", errors="replace")
    if name.lower().endswith(".json"):
        try:
            raw = parse_json(text)["LANDSAT_METADATA_FILE"]
            return {group: {key: str(value) for key, value in entries.items()} for group, entries in raw.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is no Landsat metadata ({error})", fix="download it again") from error
    groups: dict[str, dict[str, str]] = {}
    group = ""
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            group = value
        elif equals and key != "END_GROUP":
            groups.setdefault(group, {})[key] = value.strip('"')
    return groups
