"""Results in order, workers that die, and errors that come back from them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from covermap.core.engine import map_ordered, over_processes, over_ray
from covermap.core.errors import CovermapError, DataError
from tests.workers import die_always, die_once, refuse


@pytest.mark.parametrize("engine", [over_processes, pytest.param(over_ray, marks=pytest.mark.slow)])
def test_the_work_of_a_worker_that_dies_is_done_by_another(tmp_path, engine, monkeypatch):
    if engine is over_ray:
        pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    found = dict(engine(die_once, [(str(tmp_path), n) for n in range(8)], workers=2))
    assert {number: value for (_, number), value in found.items()} == {n: 10 * n for n in range(8)}
    assert (tmp_path / "dead").exists()
    with pytest.raises(DataError, match="is no number") as caught:
        list(engine(refuse, [1, 2], workers=2))
    assert caught.value.fix
    with pytest.raises(CovermapError, match="died"):
        list(engine(die_always, [1, 2], workers=2))


@pytest.mark.skipif(os.name == "nt", reason="looks whether a process is alive as POSIX does")
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    call = "from covermap.core.engine import over_processes; from tests.workers import stay; "
    call += f"list(over_processes(stay, [{str(tmp_path)!r}] * 2, workers=2))"
    main = subprocess.Popen([sys.executable, "-c", call], cwd=Path(__file__).parents[2])
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert main.poll() is None
        time.sleep(0.05)
    main.kill()
    main.wait()
    assert wait_until(lambda: not any(is_alive(pid) for pid in workers))


def wait_until(true, seconds=60):
    """Whether something becomes true in some time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # one that ended and that nobody asked for is no more at work
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_their_items(workers: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 * (item % 3 == 0))
        return item * item

    assert list(map_ordered(slow_first, range(20), workers=workers)) == [n * n for n in range(20)]


def test_an_error_ends_it() -> None:
    def fail(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    with pytest.raises(ValueError, match="five"):
        list(map_ordered(fail, range(9), workers=3))
