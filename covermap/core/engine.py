"""Run one function over many items, in threads, processes or a Ray cluster: results come as they finish.

Threads are the usual choice: the work is done by torch, numpy and GDAL, which let go of Python's lock, and so the
model, its memory and the start of the program are shared (docs/decisions/0006). Processes do not share their fate: one
that dies is replaced. Ray is for more than one machine. Functions for these two are named ones of a module, items can
be pickled, and doing an item twice must do no harm.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from covermap.core.errors import CovermapError, MissingExtra

Engine = Literal["threads", "serial", "processes", "ray"]
_DEATHS = 3
"""Workers that may die one after the other, without any item being finished between."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard(items: Sequence[Item], spec: str) -> list[Item]:
    """Every n-th item from the i-th on, for `i/n` with i from 1 to n; raises CovermapError."""
    number, slash, total = spec.partition("/")
    if not slash or not number.isdecimal() or not total.isdecimal() or not 1 <= int(number) <= int(total):
        raise CovermapError(
            f"--shard {spec!r} is not of the form i/n", fix="give for example --shard 1/4 ... --shard 4/4"
        )
    return list(items[int(number) - 1 :: int(total)])


def map_ordered(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int = 1) -> Iterator[Result]:
    """`map_unordered` in the order of the items: sums of its results are the same each time.

    Workers go on while the results are used: of every worker one is at work and one may be waiting.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(min(workers, len(items)))
    try:
        rest = iter(items)
        waiting = deque(pool.submit(function, item) for item in itertools.islice(rest, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(rest, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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


def over_processes(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in any order, computed in processes of their own.

    A process that dies is replaced and its items are done again; the third death without an item between ends the
    whole with CovermapError.
    """
    todo, deaths = dict(enumerate(items)), 0
    while todo:
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=spawn, initializer=_end_with_parent)
        try:
            # Not all at once: what is waiting is lost when a process dies.
            rest = iter(list(todo.items()))
            at_work = {pool.submit(function, item): number for number, item in itertools.islice(rest, workers)}
            while at_work:
                done, _ = wait(at_work, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    yield todo.pop(at_work.pop(future)), result
                    deaths = 0
                    at_work |= {pool.submit(function, item): number for number, item in itertools.islice(rest, 1)}
        except BrokenProcessPool as error:
            deaths += 1
            if deaths >= _DEATHS:
                raise CovermapError(
                    f"{deaths} worker processes died one after the other, the last at work on one of {len(todo)} items",
                    fix="most often the machine ran out of memory: lower the number of workers, or give smaller blocks",
                ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Workers of a pool that was killed would wait for its next item for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_after(parent.join)


def end_after(wait: Callable[[], object]) -> None:
    """End this process at once, as a kill would, when `wait`, called in a thread of its own, returns."""

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def over_ray(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None
) -> Iterator[tuple[Item, Result]]:
    """As `over_processes`, on the Ray cluster of RAY_ADDRESS, or one of this machine; raises MissingExtra.

    workers: items at work at once; default: one for each processor of the cluster. Ray itself does the items of a
    worker or machine that dies again, three times each.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "--engine ray") from error
    started = not ray.is_initialized()
    if started:
        own = None if os.environ.get("RAY_ADDRESS") else workers
        ray.init(num_cpus=own, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    remote = ray.remote(max_retries=_DEATHS, num_cpus=1)(function)
    try:
        rest = iter(items)
        resources: Any = ray.cluster_resources  # without types
        most = workers or max(1, int(resources().get("CPU", 1)))
        at_work = {remote.remote(item): item for item in itertools.islice(rest, most)}
        while at_work:
            done, _ = ray.wait(list(at_work), num_returns=1)
            for reference in done:
                yield at_work.pop(reference), _ray_result(ray, reference)
                at_work |= {remote.remote(item): item for item in itertools.islice(rest, 1)}
    finally:
        if started:
            ray.shutdown()


def _ray_result(ray: Any, reference: Any) -> Any:
    """The result of a finished task; errors of its function as they were raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, CovermapError) else error from error
    except ray.exceptions.RayError as error:
        raise CovermapError(
            f"a worker of the Ray cluster died at its work ({type(error).__name__})",
            fix="most often a machine ran out of memory: lower the number of workers, or give smaller blocks",
        ) from error
