"""Run one function over many items: in this process, or in worker processes; results come as they finish.

Items are small (window numbers, never pixels). Each worker is set up once by `setup(*arguments)`, whose result is
given to every call, so that a model is loaded once per process.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from covermap.core.errors import CovermapError

Item = TypeVar("Item")
_state: Any = None
_failure: Exception | None = None


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard(items: Sequence[Item], spec: str) -> list[Item]:
    """Every n-th item from the i-th on, for `i/n` with i from 1 to n; raises CovermapError."""
    number, slash, total = spec.partition("/")
    if not slash or not number.isdigit() or not total.isdigit() or not 1 <= int(number) <= int(total):
        raise CovermapError(
            f"--shard {spec!r} is not of the form i/n", fix="give for example --shard 1/4 ... --shard 4/4"
        )
    return list(items[int(number) - 1 :: int(total)])


def map_unordered(
    function: Callable[[Any, Item], Any],
    items: Iterable[Item],
    *,
    setup: Callable[..., Any],
    arguments: tuple[Any, ...] = (),
    workers: int = 1,
) -> Iterator[Any]:
    """Yield function(setup(*arguments), item) for all items in any order.

    workers 1 stays in this process. Processes are spawned, not forked: torch's and GDAL's threads do not survive a
    fork. An error in a worker ends the whole and is raised here; a worker that dies gives CovermapError.
    """
    todo = list(items)
    if workers <= 1 or len(todo) <= 1:
        state = setup(*arguments) if todo else None
        for item in todo:
            yield function(state, item)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(todo)), context, initializer=_start, initargs=(setup, arguments))
    try:
        waiting = {pool.submit(_call, function, item) for item in todo[: 2 * workers]}
        rest = iter(todo[2 * workers :])
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                waiting |= {pool.submit(_call, function, item) for item in itertools.islice(rest, 1)}
    except BrokenProcessPool as error:
        raise CovermapError(
            "a worker process died (out of memory, or killed)",
            fix="run the same command again: finished blocks are kept; with less memory add --workers 1",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(setup: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _state, _failure
    try:
        _state = setup(*arguments)
    except Exception as error:
        _failure = error  # raised by the first call: raised here, it would only be known as a broken pool


def _call(function: Callable[[Any, Item], Any], item: Item) -> Any:
    if _failure is not None:
        raise _failure
    return function(_state, item)
