"""Results in order, workers that die, and errors that come back from them."""

from __future__ import annotations

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
