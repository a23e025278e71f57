"""Zip and tar archives into a folder: nothing leads out of it, no links, no more than the disk holds."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from covermap.core.errors import DataError, OutputError
from covermap.core.output import replacing
from covermap.data.source import inside

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_GROWTH = 200
"""Unpacked to packed size: rasters and their masks stay far below, archives made to fill a disk lie above."""


def unpack(archive: Path, folder: Path) -> int:
    """Unpack into a folder, leaving files of the same size alone; gives the number of files.

    Raises DataError for an archive that is damaged, far too large, or holds links or names that lead out.
    """
    most = MAX_GROWTH * archive.stat().st_size + (1 << 20)
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as pack:
                entries = [
                    (i.filename, i.file_size, "folder" if i.is_dir() else _kind(i.external_attr >> 16))
                    for i in pack.infolist()
                ]
                return _write(archive, entries, pack.open, folder, most)
        with tarfile.open(archive) as tape:
            members = [(m.name, m.size, "folder" if m.isdir() else "file" if m.isreg() else "link") for m in tape]
            return _write(archive, members, tape.extractfile, folder, most)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}", fix="fetch it again with --overwrite") from error


def _kind(mode: int) -> str:
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "link"


def _write(
    archive: Path,
    entries: Sequence[tuple[str, int, str]],
    read: Callable[[str], IO[bytes] | Any],
    folder: Path,
    most: int,
) -> int:
    files = [(name, inside(folder, name), size) for name, size, kind in entries if kind == "file"]
    links = [name for name, _, kind in entries if kind == "link"]
    if links:
        raise DataError(f"{archive} holds links or devices: {', '.join(links[:3])}", fix="unpack it by hand")
    needed, free = sum(size for _, _, size in files), shutil.disk_usage(folder).free
    if needed > most:
        raise DataError(
            f"{archive} would grow to {needed:,} bytes, more than {MAX_GROWTH} times its size", fix="unpack it by hand"
        )
    if needed > free:
        raise OutputError(f"{archive} needs {needed:,} bytes, {free:,} are free", fix="free some space")
    for name, path, size in files:
        if not (path.is_file() and path.stat().st_size == size):
            with replacing(path) as partial:
                path.parent.mkdir(parents=True, exist_ok=True)
                with read(name) as packed, open(partial, "wb") as file:
                    shutil.copyfileobj(packed, file)
    return len(files)
