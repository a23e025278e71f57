"""Run one function over many items in threads: results come as they finish.

Threads, not processes: the work is done by torch, numpy and GDAL, which let go of Python's lock, and so the model, its
memory and the start of the program are shared.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from covermap.core.errors import CovermapError

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def map_ordered(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int = 1) -> Iterator[Result]:
    """`map_unordered` in the order of the items: sums of its results are the same each time."""
    early: dict[int, Result] = {}
    given = 0
    for number, result in map_unordered(lambda i: (i, function(items[i])), range(len(items)), workers=workers):
        early[number] = result
        while given in early:
            yield early.pop(given)
            given += 1


def map_unordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 1,
    stop: Callable[[], Any] = lambda: None,
) -> Iterator[Result]:
    """Yield function(item) for all items in any order; workers 1 stays in this thread.

    An error ends the whole and is raised here. When it ends early, `stop` is called, to tell functions at work to give
    up, and they are waited for.
    """
    todo = list(items)
    if workers <= 1 or len(todo) <= 1:
        yield from map(function, todo)
        return
    pool = ThreadPoolExecutor(min(workers, len(todo)))
    try:
        rest = iter(todo)
        waiting = {pool.submit(function, item) for item in itertools.islice(rest, workers)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                waiting |= {pool.submit(function, item) for item in itertools.islice(rest, 1)}
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
