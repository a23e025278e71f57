"""Writing so that nothing is lost: an output appears whole under its name or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import tempfile
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
        clear_left(path)
        raise OutputError(f"{path} exists already", fix="choose another name or add --overwrite")
    if dry_run:
        return path
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "read-only")
        tempfile.TemporaryFile(dir=path.parent).close()  # without a name, so that a kill leaves none
    return path


def claim_with(path: Path, beside: Iterable[Path], *, overwrite: bool = False) -> None:
    """Claim a file and those beside it, which may be there where a call for `path` was killed; raises OutputError."""
    begun = any(_is_left(folder) for folder in _scratches(path))
    claim(path, overwrite=overwrite)
    for each in beside:
        claim(each, overwrite=overwrite or begun)


LOCK = ".lock"
_SCRATCH = ".scratch"
_own: set[Path] = set()
"""Working folders of this process."""
_held: set[tuple[str, int]] = set()
"""Folders that are held, and by which thread: a study's cell holds the run's folder, and so does the run itself."""


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn the system's reasons for a failed write (full, read-only, no such folder) into OutputError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError | SafetensorError) and not _is_of_a_writer(error):
            raise
        # GDAL and safetensors give no error number, at best the system's sentence.
        text = str(error).removesuffix(" See previous exception for details.")
        number, free = error.errno if isinstance(error, OSError) else None, _free(Path(path))
        full = number in _FULL or (number is None and free < 1 << 20)
        if full or "No space left" in text or "File too large" in text:
            raise OutputError(
                f"{path}: the disk is full ({free / 1e6:,.1f} MB are free)",
                fix="free some space and run the same command again",
            ) from error
        if number in _DENIED:
            raise OutputError(
                f"{path} cannot be written: the folder is read-only", fix="choose another output folder"
            ) from error
        if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise OutputError(
                f"{path} cannot be written: {os.strerror(number)}", fix="choose another output name"
            ) from error
        raise OutputError(
            f"{path} cannot be written: {text}", fix=f"check the folder and the free space ({free / 1e6:,.1f} MB)"
        ) from error


def _is_of_a_writer(error: Exception) -> bool:
    """Whether GDAL, or torch's writer of checkpoints, failed: errors that are none of the system's."""
    of_torch = isinstance(error, RuntimeError) and any(word in str(error) for word in ("inline_container", "iostream"))
    return of_torch or type(error).__module__.startswith("rasterio.")


def require_room(path: Path) -> None:
    """Raise OSError where a disk has nothing left after a file was written to it, so that it is hardly whole."""
    if _free(path) < 1 << 12:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _free(path: Path) -> int:
    """Bytes that are free where a file was to be written."""
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def replacing(path: Path | str, *, shared: bool = False, lasting: bool = True) -> Iterator[Path]:
    """Give a name beside `path` to write to; it takes the place of `path` only when the block ends without error.

    shared: others may be writing the same file, so that the name is one of its own. lasting: the file is on the disk
    before it takes the place, and stays there if the machine stops; what a call needs for itself alone need not be.
    """
    path = Path(path)
    own = f".{uuid.uuid4().hex[:8]}" if shared else ""
    partial = path.with_name(f".{_short(path.stem)}{own}.partial{path.suffix}")
    before = path.with_name(f".{_short(path.stem)}.before{path.suffix}")
    try:
        with writing(path):
            for left in (partial, before):  # of a call that was killed
                if left.is_dir():
                    shutil.rmtree(left)
            yield partial
            if lasting:
                _onto_disk(partial)
            if path.is_dir() and not partial.is_file():
                os.replace(path, before)  # no moment at which half of a folder stands under its name
            os.replace(partial, path)
    finally:
        for left in (partial, before):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            elif left.exists():
                left.unlink()


def _onto_disk(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())


def _short(name: str) -> str:
    """A name that can be longer by some letters; systems allow 255 bytes."""
    return name if len(os.fsencode(name)) <= 200 else hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()


@contextlib.contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """A folder for what a call needs on its way to `beside`; those that killed calls left there go first.

    Raises OutputError where another process has one for the same output.
    """
    with writing(beside):
        name = Path(tempfile.mkdtemp(dir=beside.parent, prefix=f".{_short(beside.name)}.{os.getpid()}-")).name
    made = beside.parent / name  # as it is found again: from Python 3.12 on mkdtemp makes paths absolute
    folder = made.with_name(made.name + _SCRATCH)
    _own.add(folder)
    try:
        with _held_alone(made):
            os.replace(made, folder)  # it is held before others take it for one that was left
            clear_left(beside)
            if any(_is_held(other) for other in _scratches(beside) if other not in _own):
                raise OutputError(f"another call is at work on {beside}", fix="wait until it is done")
            yield folder
    finally:
        _own.discard(folder)
        for each in (made, folder):
            shutil.rmtree(each, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder, which is gone from its name at once: what a kill leaves is cleared by the next call for it."""
    away = folder.with_name(f".{_short(folder.stem)}.{os.getpid()}-{uuid.uuid4().hex[:8]}{_SCRATCH}")
    with contextlib.suppress(OSError):
        os.replace(folder, away)
        shutil.rmtree(away, ignore_errors=True)


def clear_left(path: Path) -> None:
    """Remove folders that killed calls left beside `path`."""
    for folder in _scratches(path):
        if _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in _scratches(path, end=""):  # killed before it was called so
        with contextlib.suppress(OSError):
            folder.rmdir()


def _scratches(path: Path, end: str = _SCRATCH) -> list[Path]:
    return list(path.parent.glob(f".{glob.escape(_short(path.name))}.[0-9]*-????????{end}"))


def _is_left(folder: Path) -> bool:
    with contextlib.suppress(OSError), _held_alone(folder) as free:
        return free is True
    return False


def _is_held(folder: Path) -> bool:
    with contextlib.suppress(OSError), _held_alone(folder) as free:
        return free is False
    return False


@contextlib.contextmanager
def _held_alone(folder: Path) -> Iterator[bool | None]:
    """Lock a folder; False where somebody has it, None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        yield None
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    except OSError:  # the file system has no locks
        yield None
    else:
        yield True
    finally:
        os.close(opened)


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
