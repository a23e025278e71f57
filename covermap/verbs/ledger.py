"""A work folder whose files are the ledger: parts of a job that are finished, so that a killed one goes on.

OUT.work/job.json   what is being made; a changed one is refused
OUT.work/KEY.SUFFIX a finished part; it appears whole or not at all
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from covermap import __version__
from covermap.core.engine import map_unordered
from covermap.core.errors import OutputError
from covermap.core.output import LOCK, at_work, discard, replacing, writing
from covermap.core.parsing import parse_json
from covermap.core.progress import Tick

Item = TypeVar("Item")


class Ledger:
    """The work folder of one output. made_of: sentences by name; when one differs, the job is another."""

    def __init__(self, out: Path, suffix: str, made_of: Mapping[str, object]) -> None:
        self.folder = out.with_name(out.name + ".work")
        self._suffix = suffix
        self._made_of = {key: hashlib.sha256(repr(value).encode()).hexdigest() for key, value in made_of.items()}
        self._made_of["version"] = __version__

    @contextmanager
    def at_work(self, *, overwrite: bool) -> Iterator[None]:
        """Hold the folder, made new or gone on with; raises OutputError for one of another job, or in use."""
        existed = self.folder.exists()
        with at_work(self.folder, alone=True):
            if existed and not self._is_same():
                if not overwrite and any(not path.name.startswith(".") for path in self.folder.iterdir()):
                    raise OutputError(
                        f"{self.folder} holds an interrupted call with other {self._other()}",
                        fix="repeat that call to finish it, or start again with --overwrite",
                    )
                self._clear()
            with replacing(self.folder / "job.json") as partial:
                partial.write_text(json.dumps(self._made_of, indent=2), encoding="utf-8")
            try:
                yield
            except BaseException:
                if not any(self.folder.glob(f"[!.]*.{self._suffix}")):
                    self.drop()
                raise
        self.drop()

    def drop(self) -> None:
        """Clear the folder away."""
        with writing(self.folder):
            discard(self.folder)

    def path(self, key: object) -> Path:
        """Where a finished part lies."""
        return self.folder / f"{key}.{self._suffix}"

    def is_done(self, key: object) -> bool:
        """Whether a part is there."""
        return self.path(key).exists()

    def _record(self) -> dict[str, Any]:
        try:
            return dict(parse_json((self.folder / "job.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _is_same(self) -> bool:
        return self._record() == self._made_of

    def _other(self) -> str:
        before = self._record()
        odd = sorted(k for k in before.keys() | self._made_of.keys() if before.get(k) != self._made_of.get(k))
        return ", ".join(odd)

    def _clear(self) -> None:
        with writing(self.folder):
            for path in self.folder.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def clear_finished(out: Path) -> None:
    """Clear the work folder of a call that was killed when `out` stood in place already: nothing in it is newer."""
    folder = out.with_name(out.name + ".work")
    if not (out.is_file() and folder.is_dir()):
        return
    newest = max((path.stat().st_mtime for path in folder.iterdir() if path.name != LOCK), default=0)
    if newest <= out.stat().st_mtime:
        with suppress(OutputError), at_work(folder, alone=True):  # another call may be at it
            discard(folder)


def work_off(
    compute: Callable[[Item], object], items: Sequence[Item], *, total: int, workers: int, on_progress: Tick
) -> None:  # fmt: skip
    """Call compute(item) for all, in threads; total: with those that were there before.

    One thread of torch for each worker: the same sums in the same order for any number of workers.
    """
    threads, stop = torch.get_num_threads(), threading.Event()
    done = total - len(items)
    on_progress(done, total)
    torch.set_num_threads(1)
    try:
        for _ in map_unordered(lambda item: stop.is_set() or compute(item), items, workers=workers, stop=stop.set):
            done += 1
            on_progress(done, total)
    finally:
        torch.set_num_threads(threads)


def state_of(files: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name, size and time of change of local files: what tells whether they are those of the call before."""
    found = []
    for file in dict.fromkeys(files):
        path = Path(file)
        if path.exists():
            found.append((file, path.stat().st_size, path.stat().st_mtime_ns))
    return found
