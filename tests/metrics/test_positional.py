"""How much of cells follows from their position: against the sums written out, in any pieces, and what has no answer."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.metrics import positional
from covermap.metrics.positional import PositionalSums, positional_sentence


def sums_of(cells, pieces=1, valid=None):
    valid = np.ones((len(cells), *cells.shape[2:])) if valid is None else valid
    total = PositionalSums()
    for part, here in zip(np.array_split(cells, pieces), np.array_split(valid, pieces), strict=True):
        one = PositionalSums()
        one.add(part, here)
        total.merge(PositionalSums.from_text(one.to_text().encode()))  # as it is kept with a unit
    return total


def by_loop(cells):
    n, _, h, w = cells.shape
    mean = cells.mean((0, 2, 3))
    between = sum(n * (cells[:, :, i, j].mean(0) - mean) ** 2 for i in range(h) for j in range(w)).sum()
    return between / ((cells - mean[:, None, None]) ** 2).sum()


def test_share_is_eta_squared_in_any_pieces():
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((60, 5, 3, 4)) + 0.7 * rng.standard_normal((5, 3, 4)) + 1000
    for pieces in (1, 7):
        found = sums_of(cells.astype(np.float32), pieces).facts()
        assert found["share"] == pytest.approx(by_loop(cells.astype(np.float32).astype(float)), rel=1e-9)
        assert (found["cells"], found["chips"]) == ([3, 4], 60)
    assert "60 chips of 3 x 4 cells" in positional_sentence(found)


def test_cells_that_know_nothing_share_what_is_expected():
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(200):
        found = sums_of(rng.standard_normal((6, 8, 2, 2)).astype(np.float32)).facts()
        shares.append(found["share"])
    assert found["expected"] == 3 / 23
    assert np.mean(shares) == pytest.approx(3 / 23, abs=4 * np.std(shares) / np.sqrt(200))


def test_pure_position_is_all_of_it():
    cells = np.broadcast_to(np.arange(12.0).reshape(1, 3, 2, 2), (5, 3, 2, 2)).astype(np.float32)
    assert sums_of(cells).facts()["share"] == 1


def test_chips_that_are_not_valid_everywhere_do_not_count():
    rng = np.random.default_rng(2)
    cells, valid = rng.standard_normal((10, 4, 2, 2)).astype(np.float32), np.ones((10, 2, 2))
    valid[3, 0, 1] = 0.5
    assert sums_of(cells, 2, valid).facts() == sums_of(np.delete(cells, 3, 0)).facts() | {
        "share": pytest.approx(sums_of(np.delete(cells, 3, 0)).facts()["share"], rel=1e-12)
    }


def test_where_nothing_can_be_told_it_is_said_why(monkeypatch):
    rng = np.random.default_rng(3)
    assert sums_of(rng.random((9, 4, 1, 1))).facts() == {"share": None, "why": positional.ONE_CELL}
    assert sums_of(rng.random((1, 4, 2, 2))).facts()["why"] == positional.FEW
    assert sums_of(np.ones((9, 4, 2, 2))).facts()["why"] == "cells are constant"
    mixed = sums_of(rng.random((5, 4, 2, 2)))
    mixed.merge(sums_of(rng.random((5, 4, 2, 3))))
    assert mixed.facts()["why"] == positional.MIXED
    mixed.merge(sums_of(rng.random((5, 4, 2, 2))))
    assert mixed.facts()["why"] == positional.MIXED
    old = sums_of(rng.random((5, 4, 2, 2)))
    old.merge(PositionalSums.from_text(None))
    assert old.facts()["why"] == positional.EARLIER
    monkeypatch.setattr(positional, "MANY", 15)
    assert sums_of(rng.random((5, 4, 2, 2))).facts()["why"] == positional.LARGE
    assert positional_sentence(old.facts()) == positional_sentence(None) == ""
