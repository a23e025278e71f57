"""Sentinel-2 in ESA's SAFE format, level 1C or 2A, as a folder or zip: bands, offsets and date from its metadata.

    S2B_MSIL2A_20230710T103629_N0509_R008_T32UNE_20230710T134600.SAFE/
        MTD_MSIL2A.xml
        GRANULE/L2A_T32UNE_A033.../IMG_DATA/R10m/T32UNE_20230710T103629_B02_10m.jp2     level 1C: IMG_DATA/*_B02.jp2

reflectance = (number + RADIO_ADD_OFFSET or BOA_ADD_OFFSET of the band) / QUANTIFICATION_VALUE; products before
processing baseline 04.00 have no offsets. Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, issue 14.9.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from covermap.core.errors import DataError
from covermap.core.sensors import find_sensor
from covermap.geo.granule import ARCHIVES, Granule, GranuleBand, Package, number_of, only, parse_xml, require_day

_TOP = re.compile(r"^(?:[^/]+/)?MTD_MSI(L1C|L2A)\.xml$")
_FILE = re.compile(
    r"GRANULE/([^/]+)/IMG_DATA/(?:R\d0m/)?(?:L2A_)?T(\d\d[A-Z]{3})_\d{8}T\d{6}_(B\d[\dA]|SCL)(?:_(\d0)m)?\.(?:jp2|tif)$"
)
_MASK = re.compile(r"GRANULE/[^/]+/QI_DATA/MSK_CLASSI_B00\.(?:jp2|tif)$")
"""The clouds of level 1C, since baseline 04.00; before, they are polygons (MSK_CLOUDS_B00.gml), which are not read."""
_OFFSETS_SINCE = (4, 0)
# The metadata number the bands in the order of the instrument: 7 is B08, 8 is B8A.
_NATIVE = {band.native: band for band in find_sensor("sentinel2").bands}


def is_safe(path: Path) -> bool:
    """Whether a path is a SAFE folder, its MTD_MSIL*.xml, or a zip that is named as one or holds one."""
    if path.is_dir():
        return any(_TOP.match(found.name) for found in path.glob("MTD_MSI*.xml"))
    if path.suffix.lower() == ".zip":
        return path.is_file() and any(map(_TOP.match, Package.open(path).names))
    return bool(_TOP.match(path.name)) and path.is_file()


def read_safe(path: Path) -> Granule:
    """What a SAFE folder or zip holds, each band at its native pixel size where it is there; raises DataError."""
    root = path if path.is_dir() or path.suffix.lower() in ARCHIVES else path.parent
    package = Package.open(root)
    top = only([name for name in package.names if _TOP.match(name)], "files MTD_MSIL1C.xml or MTD_MSIL2A.xml", root)
    level = top[-7:-4]
    where = f"{top} in {root}"
    about = parse_xml(package.text(top), where=where)
    matches = [(name, m) for name in package.names if (m := _FILE.search(name))]
    tiles = sorted({m[1] for _, m in matches})
    only(tiles, "granules with band files (GRANULE/*/IMG_DATA/T*_B*.jp2)", root)
    chosen: dict[str, tuple[int, str]] = {}
    for name, m in matches:
        gsd_m = int(m[4]) if m[4] else int(_NATIVE[m[3]].gsd_m)
        wanted = _NATIVE[m[3]].gsd_m if m[3] in _NATIVE else 20
        if gsd_m < wanted:
            continue  # B01 is also delivered at 20 m: interpolated
        if m[3] in chosen and chosen[m[3]][0] == gsd_m:
            raise DataError(f"{root} holds {m[3]} twice: {chosen[m[3]][1]} and {name}", fix="keep one of them")
        chosen[m[3]] = min(chosen.get(m[3], (gsd_m, name)), (gsd_m, name))
    scaling = _scaling(about, level, [native for native in _NATIVE if native in chosen], where)
    bands = [
        GranuleBand(band.name, package.path(chosen[native][1]), *scaling[native])
        for native, band in _NATIVE.items()
        if native in chosen
    ]
    masks = [chosen["SCL"][1]] if "SCL" in chosen else [name for name in package.names if _MASK.search(name)]
    clouds = package.path(masks[0]) if masks else None
    date = require_day(_text(about, "PRODUCT_START_TIME", where)[:10], f"{where}: PRODUCT_START_TIME")
    return Granule(root.name, "sentinel2", level, matches[0][1][2], date, tuple(bands), clouds, package.path(top))


def _scaling(
    about: ElementTree.Element, level: str, bands: Sequence[str], where: str
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """{band: (gain, add)} of the bands that are there; raises DataError where the metadata does not say it."""
    names = {"L1C": ("QUANTIFICATION_VALUE",), "L2A": ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")}
    divisor = number_of(
        next((text for name in names[level] for text in _texts(about, name)), ""), f"{where}: {names[level][0]}"
    )
    if divisor <= 0:
        raise DataError(f"{where}: {names[level][0]} is {divisor:g}", fix="download it again")
    tag = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    offsets = {
        element.get("band_id", ""): number_of(element.text or "", f"{where}: {tag}")
        for element in _elements(about, tag)
    }
    number = {native: str(i) for i, native in enumerate(_NATIVE)}
    baseline = _text(about, "PROCESSING_BASELINE", where)
    numbers = re.fullmatch(r"(\d\d)\.(\d\d)", baseline)
    if numbers is None:
        raise DataError(f"{where}: PROCESSING_BASELINE {baseline!r} is no version", fix="download it again")
    if (int(numbers[1]), int(numbers[2])) >= _OFFSETS_SINCE or offsets:
        lacking = [native for native in bands if number[native] not in offsets]
        if lacking:
            raise DataError(
                f"{where}: baseline {baseline} has offsets, but {tag} is missing for {', '.join(lacking)}",
                fix="download it again",
            )
    return {native: (1 / divisor, offsets.get(number[native], 0.0) / divisor) for native in bands}


def _elements(about: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """All elements of a name, whatever their namespace."""
    return [element for element in about.iter() if element.tag.rpartition("}")[2] == name]


def _texts(about: ElementTree.Element, name: str) -> list[str]:
    return [(element.text or "").strip() for element in _elements(about, name)]


def _text(about: ElementTree.Element, name: str, where: str) -> str:
    found = _texts(about, name)
    if not found:
        raise DataError(f"{where} does not say {name}", fix="download it again")
    return found[0]
