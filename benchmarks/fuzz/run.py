"""Mutated files read in a process of its own, with a limit on memory and a clock beside it; what came of each.

A file may be read, or refused with an error of covermap, which the command line prints as `error: ... fix: ...`.
Findings are all else: an error that the command line would call a bug, a process that died, more than 10 s, and more
than 2 GB beyond what the process has when it begins.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.files import Case, cases
from benchmarks.fuzz.mutate import mutated

SECONDS, BYTES = 10.0, 2 << 30
LONGEST = 20_000
"""Characters of a message that a person is still expected to look at."""
_RENEWED = 2000
"""Files that one process reads: what GDAL and others keep would else count as their memory."""
_IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where mutated files lie: a disk would be waited for."""
_NOBODY_ASKS = 99
_OUT_OF_MEMORY = (
    "out of memory",
    "cannot allocate",
    "can't allocate",
    "unable to allocate",
    "bad_alloc",
    "not enough memory",
)


@dataclass
class Outcome:
    """What came of one file: read, refused, or a finding (bug, memory, slow, died), with where and what."""

    kind: str
    number: int
    what: str
    where: str = ""
    text: str = ""


@dataclass
class Tally:
    """Counts of a kind of files, its findings, and how often each error of covermap was met."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Outcome] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, one: Outcome) -> None:
        """Count an outcome."""
        self.counts[one.what] += 1
        if one.what == "refused":
            self.refusals[one.where] += 1
        elif one.what != "read":
            self.findings.append(one)


def mutation(found: Sequence[Case], folder: Path, seed: int, number: int) -> tuple[Case, str, bytes]:
    """The case, file and bytes of a mutation: the same for the same seed and number."""
    random = Random(f"{seed} {found[0].kind} {number}")
    one = found[number % len(found)]
    file = one.changed[number // len(found) % len(one.changed)]
    return one, file, mutated(one.form(file), (folder / one.kind / one.name / file).read_bytes(), random)


def place(one: Case, file: str, data: bytes, folder: Path, to: Path) -> None:
    """A copy of a case's folder in which one file is another."""
    shutil.copytree(folder / one.kind / one.name, to)
    (to / file).write_bytes(data)


def fuzz(kinds: Sequence[str], num: int, *, seed: int = 0, first: int = 0, say: Any = None) -> list[Tally]:
    """Read `num` mutated files of each kind; `say` is told the tally of each when it is complete."""
    tallies = []
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder:
        worker = Worker(kinds, Path(folder), seed)
        for kind in kinds:
            tally, start = Tally(kind), time.perf_counter()
            for number in range(first, first + num):
                tally.add(worker.read(kind, number))
            tally.seconds = time.perf_counter() - start
            tallies.append(tally)
            if say:
                say(tally)
        worker.stop()
    return tallies


class Worker:
    """A process that has imported all and read the valid files, and forks another that reads mutated ones.

    The other is forked again where it died, was killed, or has read many files.
    """

    def __init__(self, kinds: Sequence[str], folder: Path, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, kinds, folder, seed), daemon=True)
        self.process.start()
        theirs.close()
        self.reader, _ = self.pipe.recv()

    def read(self, kind: str, number: int) -> Outcome:
        """What came of one mutation."""
        self.pipe.send((kind, number))
        slow = False
        while True:
            if not self.pipe.poll(SECONDS):
                slow = True
                os.kill(self.reader, signal.SIGKILL)
            found = self.pipe.recv()
            if isinstance(found, Outcome):
                return found
            self.reader, code = found
            if slow:
                return Outcome(kind, number, "slow", f"{SECONDS:g} s")
            if code:
                return Outcome(kind, number, "died", f"signal or exit code {code}")

    def stop(self) -> None:
        """End the processes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.reader, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def _work(pipe: Connection, kinds: Sequence[str], folder: Path, seed: int) -> None:
    """Prepare, then fork readers; sends the number of each new one, with how the one before ended where it died."""
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)  # what GDAL says of each broken file
    warnings.simplefilter("ignore")
    found = {kind: prepared(kind, folder) for kind in kinds}
    code = 0
    while True:
        reader = os.fork()
        if not reader:
            pipe.send((os.getpid(), code))
            _limit(BYTES)
            with contextlib.suppress(EOFError):  # nobody asks any more
                for _ in range(_RENEWED):
                    kind, number = pipe.recv()
                    pipe.send(_read(found[kind], folder, seed, number))
                os._exit(0)
            os._exit(_NOBODY_ASKS)
        _, status = os.waitpid(reader, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == _NOBODY_ASKS:
            return


def prepared(kind: str, folder: Path) -> list[Case]:
    """The cases of a kind, each read once as it is: what is needed is imported, and valid files are read."""
    found = cases(kind, folder)
    for number, one in enumerate(found):
        shutil.copytree(folder / kind / one.name, folder / f"valid{number}")
        one.read(folder / f"valid{number}")
        shutil.rmtree(folder / f"valid{number}")
    return found


def _limit(more: int) -> None:
    """Let the address space grow by so many bytes beyond what it is."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))


def _read(found: Sequence[Case], folder: Path, seed: int, number: int) -> Outcome:
    one, file, data = mutation(found, folder, seed, number)
    to = folder / f"{one.kind}{number}"
    place(one, file, data, folder, to)
    try:
        outcome = outcome_of(one, to, number)
    finally:
        shutil.rmtree(to, ignore_errors=True)
    outcome.where = f"{one.name}/{file}: {outcome.where}" if outcome.what not in ("read", "refused") else outcome.where
    return outcome


def outcome_of(one: Case, root: Path, number: int = 0) -> Outcome:
    """Read a folder and judge what came of it as the command line would."""
    from covermap.core.errors import CovermapError, OutOfMemory

    try:
        one.read(root)
        return Outcome(one.kind, number, "read")
    except BaseException as error:  # also what libraries in other languages raise when they panic
        chain, each = [], error
        while each is not None and len(chain) < 20:
            chain.append(each)
            each = each.__cause__ or each.__context__
        text = "".join(traceback.format_exception(error))[-3000:]
        said = "\n".join(str(each)[:100_000].lower() for each in chain)
        if any(isinstance(each, MemoryError | OutOfMemory) for each in chain) or any(w in said for w in _OUT_OF_MEMORY):
            return Outcome(one.kind, number, "memory", _place_of(error), text)
        if not isinstance(error, CovermapError):
            return Outcome(one.kind, number, "bug", _place_of(error), text)
        if len(str(error)) > LONGEST:
            return Outcome(
                one.kind, number, "bug", f"a message of {len(str(error)):,} characters, {_place_of(error)}", text
            )
        if not error.fix:
            return Outcome(one.kind, number, "refused", f"{type(error).__name__} without fix")
        return Outcome(one.kind, number, "refused", type(error).__name__)


def _place_of(error: BaseException) -> str:
    """The error's type and the last line of covermap that it went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/covermap/" in f.filename]
    at = f"{frames[-1].filename.rpartition('/covermap/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {at}"
