"""Workers that die, and errors that come back from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from covermap.core.engine import over_processes, over_ray
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
