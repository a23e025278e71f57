"""Recall against accuracy, on a case done by hand."""

from __future__ import annotations

import numpy as np

from covermap.metrics.tradeoff import best_within, tradeoff


def test_tradeoff_of_a_case_done_by_hand():
    posterior = np.log([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.3, 0.7]])
    reference = np.array([0, 0, 1, 1])
    rows = tradeoff(posterior, reference, [0.8, 0.2], [0, 1])
    assert rows == [(0.0, 0.75, 0.75), (1.0, 0.75, 0.75)]  # the third is won, the second is lost
    assert best_within(rows, 0.0) == rows[0]
    assert tradeoff(posterior, np.array([0, 255, 1, 1]), [0.8, 0.2], [1])[0].accuracy == 1
