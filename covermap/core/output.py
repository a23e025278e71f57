"""Writing so that nothing is lost: an output appears whole under its name or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from covermap.core.errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def claim(path: Path | str, *, overwrite: bool = False, dry_run: bool = False) -> Path:
    """Check before any work that `path` may be written, and make its folder (not in a dry run); raises OutputError."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", fix="choose another name or add --overwrite")
    if dry_run:
        return path
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "read-only")
        probe = path.parent / f".{path.name[:80]}.{os.getpid()}.probe"
        probe.touch()
        probe.unlink(missing_ok=True)  # another call may claim the same at the same time
    return path


LOCK = ".lock"
_held: set[tuple[str, int]] = set()
"""Folders that are held, and by which thread: a study's cell holds the run's folder, and so does the run itself."""


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn the system's reasons for a failed write (full, read-only, no such folder) into OutputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # GDAL and safetensors give no error number, at best the system's sentence.
        text = str(error).removesuffix(" See previous exception for details.")
        number = getattr(error, "errno", None)
        full = number in _FULL or (number is None and _is_full(Path(path)))
        if full or "No space left" in text or "File too large" in text:
            raise OutputError(
                f"{path}: the disk is full", fix="free some space and run the same command again"
            ) from error
        if number in _DENIED:
            raise OutputError(
                f"{path} cannot be written: the folder is read-only", fix="choose another output folder"
            ) from error
        if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise OutputError(
                f"{path} cannot be written: {os.strerror(number)}", fix="choose another output name"
            ) from error
        raise OutputError(f"{path} cannot be written: {text}", fix="check the folder and the free space") from error


def _is_full(path: Path) -> bool:
    """Whether the disk that a file was to be written to has less than a block of a raster left."""
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    return shutil.disk_usage(folder).free < 1 << 20


@contextlib.contextmanager
def replacing(path: Path | str, *, shared: bool = False, lasting: bool = True) -> Iterator[Path]:
    """Give a name beside `path` to write to; it takes the place of `path` only when the block ends without error.

    shared: others may be writing the same file, so that the name is one of its own. lasting: the file is on the disk
    before it takes the place, and stays there if the machine stops; what a call needs for itself alone need not be.
    """
    path = Path(path)
    own = f".{uuid.uuid4().hex[:8]}" if shared else ""
    partial = path.with_name(f".{path.stem}{own}.partial{path.suffix}")
    try:
        with writing(path):
            if partial.is_dir():  # of a call that was killed
                shutil.rmtree(partial)
            yield partial
            if partial.is_file() and lasting:
                with open(partial, "rb+") as file:
                    os.fsync(file.fileno())
            elif path.is_dir() and not partial.is_file():
                shutil.rmtree(path)
            os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif partial.exists():
            partial.unlink()


@contextlib.contextmanager
def at_work(folder: Path, *, alone: bool, again: bool = False) -> Iterator[None]:
    """Hold a folder, which is made, against other calls; raises OutputError where one is at work that may not be.

    alone: nobody else may be; otherwise only those that say the same. A process that dies lets go. Nothing is held
    where the system has no such locks. again: what this thread holds already it holds on.
    """
    mine = (str(folder.absolute()), threading.get_ident())
    if again and mine in _held:
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")  # noqa: SIM115 - closed below
    with file:
        try:
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another call is at work in {folder}", fix="wait until it is done") from error
        except (ImportError, OSError):
            pass
        _held.add(mine)
        try:
            yield
        finally:
            _held.discard(mine)


@contextlib.contextmanager
def only_with(*companions: Path) -> Iterator[None]:
    """Files that were written for one that now follows go again where that one fails."""
    try:
        yield
    except BaseException:
        for path in companions:
            path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def no_empty(*folders: Path) -> Iterator[None]:
    """Folders that were not there before go again, the inner ones first, where the block fails and they are empty."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def require_tif(path: Path) -> None:
    """Raise OutputError for a map that is not called as a GeoTIFF."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"{path} does not end in .tif", fix="maps are GeoTIFFs: give a name such as map.tif")


def require_no_input(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raise OutputError where a call would write over what it reads."""
    read = {Path(file).resolve() for file in inputs}
    if taken := [path for path in outputs if path.resolve() in read]:
        raise OutputError(
            f"{taken[0]} is an input of this call, or is kept for a file beside one", fix="give the output another name"
        )


def write_text(path: Path | str, text: str) -> Path:
    """Write a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(path)
