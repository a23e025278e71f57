"""Gains, losses, net change and swap by hand."""

from __future__ import annotations

import numpy as np

from covermap.metrics.transition_matrix import class_changes


def test_by_hand() -> None:
    found = class_changes(np.array([[50, 10, 0], [4, 30, 1], [0, 0, 5]]))
    assert found["gain"].tolist() == [4, 10, 1]
    assert found["loss"].tolist() == [10, 5, 0]
    assert found["net"].tolist() == [-6, 5, 1]
    assert found["swap"].tolist() == [8, 10, 0]
    assert found["total"].tolist() == [14, 15, 1]
    assert found["persistence"].tolist() == [50, 30, 5]
    assert (found["before"] + found["gain"] - found["loss"] == found["after"]).all()
    assert (np.abs(found["net"]) + found["swap"] == found["total"]).all()
