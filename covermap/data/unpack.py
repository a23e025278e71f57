"""Zip and tar archives into a folder: nothing leads out of it, no links, no more than the disk holds."""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from covermap.core.errors import DataError, OutputError
from covermap.core.output import replacing
from covermap.data.source import inside
from covermap.geo.damage import naming_archive

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_GROWTH = 200
"""Unpacked to packed size: rasters and their masks stay far below, archives made to fill a disk lie above."""


def unpack(archive: Path, folder: Path) -> int:
    """Unpack into a folder, leaving files of the same size alone; gives the number of files.

    Raises DataError for an archive that is damaged, far too large, or holds links or names that lead out; OutputError.
    """
    with naming_archive(f"{archive} cannot be unpacked", fix="fetch it again with --overwrite"):
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as pack:
                kinds = [
                    (i, i.is_dir(), stat.S_IFMT(i.external_attr >> 16) in (0, stat.S_IFREG)) for i in pack.infolist()
                ]
                files = [(i.filename, i.file_size, plain) for i, is_folder, plain in kinds if not is_folder]
                return _write(archive, files, pack.open, folder)
        with tarfile.open(archive) as tape:
            files = [(member.name, member.size, member.isreg()) for member in tape if not member.isdir()]
            return _write(archive, files, tape.extractfile, folder)


def _write(
    archive: Path, files: Sequence[tuple[str, int, bool]], read: Callable[[str], IO[bytes] | None], folder: Path
) -> int:
    places = {inside(folder, name): (name, size) for name, size, _ in files}
    needed, free = sum(size for _, size, _ in files), shutil.disk_usage(folder).free
    links = [name for name, _, plain in files if not plain]
    if links or needed > MAX_GROWTH * archive.stat().st_size + (1 << 20):
        odd = f"holds links or devices: {', '.join(links[:3])}" if links else f"would grow to {needed:,} bytes"
        raise DataError(f"{archive} {odd}", fix="look into it, and unpack it by hand")
    if needed > free:
        raise OutputError(f"{archive} needs {needed:,} bytes, {free:,} are free", fix="free some space")
    for path, (name, size) in places.items():
        if not (path.is_file() and path.stat().st_size == size):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial, read(name) or io.BytesIO() as packed, open(partial, "wb") as file:
                shutil.copyfileobj(packed, file)
    return len(files)
