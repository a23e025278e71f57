"""`fetch`: what a host offers of a data set, and if asked for the files; nothing else downloads data."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from covermap.core.download import Remote, download, part_of, size_of
from covermap.core.errors import DataError, OutputError
from covermap.core.progress import Tick, unseen
from covermap.data.hosts import find_offer
from covermap.data.source import inside
from covermap.data.unpack import ENDINGS, unpack


def fetch(
    what: str,
    folder: str | Path,
    *,
    wanted: bool = False,
    only: Sequence[str] = (),
    unpacked: bool = False,
    overwrite: bool = False,
    on_progress: Tick = unseen,
) -> dict[str, Any]:
    """List the files of `what` (see data.hosts), and with `wanted` fetch them into a folder.

    only: patterns of their names. on_progress counts megabytes. Returns {what, page, licence, files, bytes, missing,
    free, unpacked}, sizes in bytes. Raises DataError (host), OutputError (no space, another file is there).
    """
    offer, folder = find_offer(what), Path(folder)
    chosen = [file for file in offer.files if not only or any(_matches(file.name, pattern) for pattern in only)]
    if not chosen:
        names = ", ".join(file.name for file in offer.files[:5])
        fix = f"there are {names}" if names else f"are its files open to all? {offer.page}"
        raise DataError(f"{what}: none of {len(offer.files)} files is like {' or '.join(only) or '*'}", fix=fix)
    places = {inside(folder, file.name): file for file in chosen}
    if len(places) < len(chosen) or folder.resolve() in places:
        raise DataError(f"{what} offers two files of one name, or one without", fix="fetch them in a browser")
    existing = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    total, free = sum(file.num_bytes or 0 for file in chosen), shutil.disk_usage(existing).free
    missing = total - sum(_have(path, file, overwrite) for path, file in places.items())
    if wanted and missing > free:
        raise OutputError(
            f"{missing:,} bytes are needed in {folder}, {free:,} are free",
            fix="free some space, or take some of the files: --only PATTERN",
        )
    before = count = 0

    def tick(done: int) -> None:
        on_progress((before + done) >> 20, total >> 20)

    for path, file in places.items() if wanted else ():
        if overwrite or not path.is_file():
            download(file, path, on_bytes=tick)
        before += size_of(path)
    for path in places if wanted and unpacked else ():
        count += unpack(path, path.parent) if path.name.lower().endswith(ENDINGS) else 0
    files = [
        {"file": file.name, "bytes": file.num_bytes, "checksum": file.checksum, "here": _have(path, file, False)}
        for path, file in places.items()
    ]
    return {
        "what": what, "page": offer.page, "licence": offer.licence, "files": files, "bytes": total,
        "missing": 0 if wanted else missing, "free": free, "unpacked": count,
    }  # fmt: skip


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(PurePosixPath(name).name, pattern)


def _have(path: Path, file: Remote, overwrite: bool) -> int:
    """Bytes of a file that are here; raises OutputError where another one has its name."""
    if overwrite or not path.is_file():
        return size_of(part_of(path))
    if file.num_bytes not in (None, size_of(path)):
        raise OutputError(
            f"{path} has {size_of(path):,} bytes, the host's {file.name} {file.num_bytes:,}",
            fix="move it away, or add --overwrite",
        )
    return size_of(path)
