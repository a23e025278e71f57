"""What a model of semantic change says of a pixel: by its own word on change, and the classes that go with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.uint8]


class Said(NamedTuple):
    """Class indices of both dates (H, W), which differ exactly where it changed, and the probability of change."""

    before: Index
    after: Index
    probability: Floats


def gated(answers: Floats, *, threshold: float = 0.5) -> Said:
    """Answers (2 K + 2, *space), probabilities of classes before and after, unchanged and changed -> Said.

    Where change is as probable as the threshold, the likeliest two classes that differ; elsewhere the likeliest class
    for both dates. So the classes never contradict the change. Exchanging the dates exchanges the classes, but for
    exact ties: of dates alike that changed nothing tells which class was first.
    """
    k = (len(answers) - 2) // 2
    before, after, probability = answers[:k], answers[k : 2 * k], answers[-1]
    (one, top_one, next_one, second_one), (other, top_other, next_other, second_other) = map(_two_best, (before, after))
    clash = one == other
    # Of one favourite for both dates one gives way to its runner-up: where that costs less.
    keep_one = clash & (top_one * second_other > second_one * top_other)
    keep_other = clash & ~keep_one
    one, other = np.where(keep_other, next_one, one), np.where(keep_one, next_other, other)
    changed = probability >= threshold if k > 1 else np.zeros(probability.shape, bool)
    stays = (before * after).argmax(0).astype(np.uint8)
    return Said(np.where(changed, one, stays), np.where(changed, other, stays), probability)


def _two_best(shares: Floats) -> tuple[Index, Floats, Index, Floats]:
    """The most probable class (H, W) with its probability, and the second (of one class alone: itself with 0)."""
    best, second = np.zeros(shares.shape[1:], np.uint8), np.zeros(shares.shape[1:], np.uint8)
    top, below = shares[0].copy(), np.zeros_like(shares[0])
    for k, share in enumerate(shares[1:], 1):
        above, between = share > top, (share > below) & (share <= top)
        if k == 1:
            between = ~above
        second = np.where(above, best, np.where(between, np.uint8(k), second))
        below = np.where(above, top, np.where(between, share, below))
        best, top = np.where(above, np.uint8(k), best), np.where(above, share, top)
    return best, top, second, below
