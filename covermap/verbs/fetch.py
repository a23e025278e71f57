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

    only: patterns of their names. on_progress counts megabytes. Returns {what, page, licence, files, bytes,
    missing_bytes, free_bytes, unpacked}. Raises DataError (host), OutputError (no space, another file is there).
    """
    offer, folder = find_offer(what), Path(folder)
    chosen = [file for file in offer.files if not only or any(_matches(file.name, pattern) for pattern in only)]
    if not chosen:
        names = ", ".join(file.name for file in offer.files[:5])
        raise DataError(f"none of the {len(offer.files)} files is like {' or '.join(only)}", fix=f"there are {names}")
    places = {inside(folder, file.name): file for file in chosen}
    if len(places) < len(chosen) or folder.resolve() in places:
        raise DataError(f"{what} offers two files of one name, or one without", fix="fetch them in a browser")
    here = {path: not overwrite and path.is_file() for path in places}
    rows = [_row(path, file, here[path]) for path, file in places.items()]
    existing = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    found: dict[str, Any] = {
        "what": what, "page": offer.page, "licence": offer.licence, "files": rows,
        "bytes": sum(file.num_bytes or 0 for file in chosen), "missing_bytes": sum(row["missing"] for row in rows),
        "free_bytes": shutil.disk_usage(existing).free, "unpacked": 0,
    }  # fmt: skip
    if not wanted:
        return found
    if found["missing_bytes"] > found["free_bytes"]:
        raise OutputError(
            f"{found['missing_bytes']:,} bytes are needed in {folder}, {found['free_bytes']:,} are free",
            fix="free some space, or take some of the files: --only PATTERN",
        )
    _fetch(places, here, on_progress)
    for row in rows:
        row["state"], row["missing"] = "here", 0
    archives = [path for path in places if unpacked and path.name.lower().endswith(ENDINGS)]
    return found | {"missing_bytes": 0, "unpacked": sum(unpack(path, path.parent) for path in archives)}


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(PurePosixPath(name).name, pattern)


def _row(path: Path, file: Remote, here: bool) -> dict[str, Any]:
    """A file of the list; raises OutputError where another one has its name."""
    have, size = (size_of(path) if here else size_of(part_of(path))), file.num_bytes
    if here and size not in (None, have):
        raise OutputError(
            f"{path} has {have:,} bytes, the host's {file.name} {size:,}", fix="move it away, or add --overwrite"
        )
    missing = 0 if here else max(0, (size or 0) - have)
    state = "here" if here else f"{have:,} bytes are here" if have else ""
    return {"file": file.name, "bytes": size, "checksum": file.checksum, "state": state, "missing": missing}


def _fetch(places: dict[Path, Remote], here: dict[Path, bool], on_progress: Tick) -> None:
    total = sum(file.num_bytes or 0 for file in places.values()) >> 20
    before = 0

    def tick(done: int) -> None:
        on_progress((before + done) >> 20, total)

    for path, file in places.items():
        if not here[path]:
            download(file, path, on_bytes=tick)
        before += size_of(path)
        tick(0)
