"""Granule: one acquisition as its agency delivers it, with what its metadata says; and the package that it comes in.

folder, .zip or .tar -> Package (names, texts, paths for GDAL) -> safe.py, landsat.py -> Granule -> raster.open_raster
"""

from __future__ import annotations

import datetime
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from covermap.core.errors import DataError
from covermap.geo.damage import naming_archive

ARCHIVES = {".zip": "/vsizip/", ".tar": "/vsitar/"}
MAX_TEXT_BYTES = 1 << 25


@dataclass(frozen=True)
class GranuleBand:
    """A band by its common name: reflectance = number in the file * gain + add."""

    name: str
    path: str
    gain: float
    add: float


@dataclass(frozen=True)
class Granule:
    """Bands, date (YYYY-MM-DD) and place of an acquisition; 0 is nodata in its files.

    level: L1C, L2A, L1TP, L2SP, ... tile: MGRS tile, or WRS-2 path and row. clouds: the file that classifies its
    pixels, where it has one. about: the metadata file that all this was read from.
    """

    name: str
    sensor: str
    level: str
    tile: str
    date: str
    bands: tuple[GranuleBand, ...]
    clouds: str | None
    about: str


@dataclass(frozen=True)
class Package:
    """The files of a delivery: a folder, or a .zip or .tar that is read in place.

    names: relative, with /, sorted.
    """

    root: Path
    names: tuple[str, ...]

    @staticmethod
    def open(root: Path) -> Package:
        """List a folder or an archive, without what systems leave behind; raises DataError for a damaged one."""
        if root.is_dir():
            found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        else:
            found = _members(root)
        kept = [name for name in found if not any(p.startswith(".") or p == "__MACOSX" for p in name.split("/"))]
        return Package(root, tuple(sorted(kept)))

    def path(self, name: str) -> str:
        """The path that GDAL opens; raises DataError where a link leads out of the folder."""
        if not self.root.is_dir():
            return f"{ARCHIVES[self.root.suffix.lower()]}{{{self.root.resolve()}}}/{name}"
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"{path} leads out of {self.root}", fix="put the file itself there instead of the link")
        return str(path)

    def text(self, name: str) -> bytes:
        """The content of a metadata file; raises DataError where it is far too large or cannot be read."""
        with naming_archive(f"{name} in {self.root} cannot be read", fix="download it again"):
            content = self._read(name)
        if len(content) > MAX_TEXT_BYTES:
            raise DataError(
                f"{name} in {self.root} is larger than {MAX_TEXT_BYTES >> 20} MiB, metadata never is",
                fix="download it again",
            )
        return content

    def _read(self, name: str) -> bytes:
        if self.root.is_dir():
            with open(self.path(name), "rb") as plain:
                return plain.read(MAX_TEXT_BYTES + 1)
        if self.root.suffix.lower() == ".zip":
            with zipfile.ZipFile(self.root) as archive, archive.open(name) as packed:
                return packed.read(MAX_TEXT_BYTES + 1)
        with tarfile.open(self.root, "r:") as tape:
            member = tape.extractfile(name)
            return member.read(MAX_TEXT_BYTES + 1) if member else b""


def _members(path: Path) -> list[str]:
    """Plain files in an archive; raises DataError."""
    with naming_archive(f"{path} is no archive that can be read", fix="download it again"):
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                return [info.filename for info in archive.infolist() if not info.is_dir()]
        with tarfile.open(path, "r:") as tape:
            return [member.name.removeprefix("./") for member in tape.getmembers() if member.isfile()]


class _WithoutDoctype(ElementTree.TreeBuilder):
    """A document type can define entities that grow without limit or name other files; metadata has none."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise DataError(f"the XML declares a document type ({name})", fix="metadata of satellite products has none")


def parse_xml(text: bytes, *, where: str) -> ElementTree.Element:
    """The root element; raises DataError for XML that is damaged or declares a document type."""
    try:
        return ElementTree.fromstring(text, ElementTree.XMLParser(target=_WithoutDoctype()))
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # also of encodings that there are none of
        raise DataError(f"{where} is no XML that can be read: {error}", fix="download it again") from error
    except DataError as error:
        raise DataError(f"{where}: {error.message}", fix=error.fix) from error


def only(found: list[str], what: str, where: Path) -> str:
    """The single one of the names found; raises DataError where there is none or several."""
    if len(found) != 1:
        listed = f": {', '.join(found[:4])}" if found else ""
        raise DataError(f"{where} holds {len(found)} {what}{listed}", fix="give one delivery, complete and by itself")
    return found[0]


def require_day(text: str, what: str) -> str:
    """A date YYYY-MM-DD as it is; raises DataError."""
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise DataError(f"{what} {text!r} is no date", fix="download it again") from error


def number_of(text: str, what: str) -> float:
    """A number of the metadata; raises DataError."""
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{what} is {text!r}, a number is needed", fix="download it again") from error


def archive_of(path: str) -> str | None:
    """The archive that a path for GDAL leads into."""
    for prefix in ARCHIVES.values():
        if path.startswith(prefix + "{"):
            return path.removeprefix(prefix + "{").rpartition("}/")[0]
    return None
