"""What a file is by its first bytes, and that reading it stays on this disk: a raster may name others, also on the web.

Nobody looks through a folder before viewing it, so what lies in one is not trusted: only formats that are known are
opened, and a VRT only where all that it names are such files too, in a viewed folder within that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rasterio.io import DatasetReader

from covermap.core.errors import DataError

OFFLINE: dict[str, Any] = {
    # Of drivers only what is not registered yet can be left out; requests of the others end at a port of this machine.
    "GDAL_SKIP": "WMS WMTS WCS HTTP OGCAPI EEDA EEDAI PLMOSAIC DAAS STACIT STACTA NGW",
    "GDAL_HTTP_PROXY": "127.0.0.1:9",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none", "GDAL_HTTP_CONNECTTIMEOUT": "1", "GDAL_HTTP_TIMEOUT": "1",
    "GDAL_HTTP_MAX_RETRY": "0",
}  # fmt: skip
"""Options of GDAL with which nothing is asked of a network."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OTHERS = (b"\0\0\0\x0cjP  ", b"\xffO\xffQ", b"EHFA_HEADER_TAG\0")
"""JPEG 2000 and ERDAS Imagine."""
_SQLITE = b"SQLite format 3\0"
_HEAD = 4096
_MOST_XML = 8 << 20
_MOST_DEEP = 5
_BESIDE = (".ovr", ".OVR", ".msk", ".MSK")
_NAMES = ("sourcefilename", "sourcedataset")
"""GDAL reads names of elements without their case, and takes attributes for elements."""
_ELSEWHERE = ("/vsi", "<gdal_", "wms:", "overview_file")
_FREE_TEXT = ("mdi", "description", "category", "srs")
"""Where an address is but words."""


def files_of(path: Path, inside: Path | None = None, deep: int = 0) -> tuple[Path, ...]:
    """All files that reading a raster reads but itself; raises DataError where it is of no known format, or leads away.

    inside: the folder that none of them may lie out of, of a raster that was found in one.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}", fix="check its rights") from error
    found: list[Path] = []
    if not head.startswith(_TIFF):
        if b"<VRTDataset" in head:
            found = _named(path, inside)
        elif not head.startswith(_OTHERS) and not _is_other(path, head, named=inside is None and not deep):
            raise DataError(f"{path.name} is no raster that can be read: no GeoTIFF, JPEG 2000, Imagine file or VRT")
    if b"overview_file" in _text(path.with_name(f"{path.name}.aux.xml")).lower():
        raise _leads_away(path, "its .aux.xml names overviews elsewhere")
    found += [beside for end in _BESIDE if (beside := path.with_name(path.name + end)).is_file()]
    if deep > _MOST_DEEP:
        raise _leads_away(path, "it names files that name files, and so on")
    return tuple(dict.fromkeys(each for one in found for each in (one, *files_of(one, inside, deep + 1))))


def _is_other(path: Path, head: bytes, *, named: bool) -> bool:
    """Whether it is pixels of ENVI, or a file of any format that the user has named, and no text that names others."""
    if not named and not _text(path.with_suffix(".hdr")).startswith(b"ENVI"):
        return False
    return not any(word in head.lower() for word in (b"<gdal", b"<wms", b"<ogr", b"http", b"/vsi"))


def require_local(dataset: DatasetReader, path: Path) -> None:
    """Raise DataError for a raster whose own tags name overviews elsewhere."""
    if dataset.tags(ns="OVERVIEWS"):
        raise _leads_away(path, "it names overviews elsewhere")


def require_sample(path: Path) -> None:
    """Raise DataError for a .gpkg that is none: what else it is could name other files."""
    with open(path, "rb") as file:
        if path.suffix.lower() == ".gpkg" and file.read(len(_SQLITE)) != _SQLITE:
            raise DataError(f"{path.name} is no GeoPackage")


def _named(path: Path, inside: Path | None) -> list[Path]:
    """The files that a VRT names; raises DataError."""
    text = _text(path)
    if len(text) > _MOST_XML:
        raise DataError(f"{path.name} is a VRT of more than {_MOST_XML >> 20} MB", fix="make a GeoTIFF of it")
    if b"<!" in text:
        raise _leads_away(path, "it holds comments or entities")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path.name} is a VRT that cannot be read: {error}") from error
    found = []
    for one in root.iter():
        kind = one.tag.rpartition("}")[2].lower()
        given = {name.rpartition("}")[2].lower(): value for name, value in one.attrib.items()}
        words = " ".join((one.text or "", one.tail or "", *given.values())).lower()
        if word := next((each for each in (*_ELSEWHERE, "://") if each in words), None):
            if word != "://" or kind not in _FREE_TEXT:
                raise _leads_away(path, f"{word} stands in it")
        if set(_NAMES) & set(given):
            raise _leads_away(path, "it names files in attributes")
        if kind in _NAMES:
            found.append(_source(path, (one.text or "").strip(), given.get("relativetovrt", "0"), inside))
    return found


def _source(path: Path, name: str, relative: str, inside: Path | None) -> Path:
    source = path.parent / name if relative == "1" else Path(name)
    if relative not in ("0", "1") or not source.is_file():
        raise DataError(f"{path.name} names {name[:80]!r}, which is no file here", fix="give what it was made of")
    if inside and not source.resolve().is_relative_to(inside.resolve()):
        raise _leads_away(path, f"it names {source.name}, which lies out of {inside.resolve().name}")
    return source


def _leads_away(path: Path, why: str) -> DataError:
    return DataError(f"{path.name} leads away from its folder or this disk: {why}", fix="make a GeoTIFF of it")


def _text(path: Path) -> bytes:
    """Up to a byte more than is allowed; nothing where there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_XML + 1)
    except OSError:
        return b""
