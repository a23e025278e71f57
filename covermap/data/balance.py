"""Uneven classes: weights of the loss, cells drawn by their classes, copies of rare ones, balanced subsets.

Everything here counts labelled pixels of the train part alone: the split comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, suggest
from covermap.core.train_config import RareConfig

Counts = npt.NDArray[np.integer[Any]]
"""(N, K): labelled pixels of each class in each cell, block or chip; for chips of one class, 1 in its column."""


def class_weights(
    class_px: npt.NDArray[np.integer[Any]],
    method: str | Sequence[float],
    *,
    names: Sequence[str],
    beta: float | None = None,
) -> npt.NDArray[np.float32]:
    """(K,) weights of the loss; classes without a training pixel get 0.

    balanced is N / (K n_c) over present classes (as scikit-learn's), sqrt its square root, none is 1. inverse is
    1 / n_c and effective (1 - beta) / (1 - beta^n_c) (Cui et al. 2019, eq. 4), both with mean 1 over present classes;
    by default beta is 1 - 1 / mean n_c: rare classes as in inverse, common ones nearly alike. A list is taken as it
    is. Raises ConfigError for a list of the wrong length.
    """
    if not isinstance(method, str):
        if len(method) != len(class_px):
            raise ConfigError(
                f"train.class_weights has {len(method)} numbers for {len(class_px)} classes ({', '.join(names)})",
                fix="give one weight for each class in the legend's order",
            )
        return np.asarray(method, np.float32)
    present = class_px > 0
    count = class_px[present].astype(np.float64)
    if method in ("inverse", "effective"):
        if method == "effective":
            beta = 1 - 1 / max(count.mean(), 2) if beta is None else beta
            # beta^n by its logarithm: for many pixels 1 - beta^n would lose its digits.
            count = -np.expm1(count * np.log(beta)) if beta > 0 else np.ones_like(count)
        found = 1 / count / np.mean(1 / count)
    else:
        found = (count.sum() / (len(count) * count)) ** {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[method]
    weights = np.zeros(len(class_px), np.float32)
    weights[present] = found
    return weights


@dataclass(frozen=True)
class Sampling:
    """How often the cells of the train part are drawn; even: all alike.

    weights (N,): relative to each other. copies (N,): how often a cell counts in an epoch, 1 for most.
    """

    weights: npt.NDArray[np.float64]
    copies: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @cached_property
    def _ends(self) -> npt.NDArray[np.float64] | None:
        if (self.weights == self.weights[0]).all():
            return None
        ends = np.cumsum(self.weights)
        return np.asarray(ends / ends[-1])

    def draw(self, rng: np.random.Generator) -> int:
        """The number of a cell."""
        if self._ends is None:
            return int(rng.integers(len(self.weights)))
        return int(np.searchsorted(self._ends, rng.random(), side="right"))

    def order(self, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Numbers of `length` cells: each once in random order, and again; or drawn by their weights."""
        if self._ends is not None:
            return np.searchsorted(self._ends, rng.random(length), side="right")
        rounds = [rng.permutation(len(self.weights)) for _ in range(-(-length // len(self.weights)))]
        return np.concatenate(rounds)[:length]


def plan_sampling(
    cell_px: Counts, *, method: str = "uniform", rare: RareConfig | None = None, names: Sequence[str]
) -> Sampling:
    """What to draw from cells with these class counts (N, K).

    uniform: every cell alike. balanced: a class is drawn, all alike, then one of its pixels, and the cell around it.
    sqrt: the same with classes in proportion to the root of their pixels. Cells with more than a share of the rare
    classes count `copies` times more; each copy is placed and augmented anew. Raises ConfigError for unknown classes,
    or where no cell holds enough of any.
    """
    copies, notes = np.ones(len(cell_px), np.int64), []
    weights = np.ones(len(cell_px))
    if method != "uniform":
        totals = cell_px.sum(0, dtype=np.float64)
        wanted = np.where(totals > 0, totals ** {"balanced": 0.0, "sqrt": 0.5}[method], 0)
        weights = cell_px @ (wanted / wanted.sum() / np.maximum(totals, 1))
    if rare is not None:
        held = _share_of(rare, cell_px, names) > rare.share
        if not held.any():
            raise ConfigError(
                f"train.rare: no cell of the train part holds more than {rare.share:.0%} of {', '.join(rare.classes)}",
                fix="lower rare.share, or leave rare out",
            )
        copies[held] += rare.copies
        notes.append(
            f"{held.sum():,} of {len(held):,} cells hold more than {rare.share:.0%} of {', '.join(rare.classes)}: "
            f"they count {1 + rare.copies} times"
        )
    return Sampling(weights * copies, copies, tuple(notes))


def _share_of(rare: RareConfig, cell_px: Counts, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """(N,): the largest share that one of the rare classes has of a cell's labelled pixels."""
    for name in rare.classes:
        if name not in names:
            raise ConfigError(f"train.rare: there is no class {name!r}", fix=suggest(name, names))
    at = [names.index(name) for name in rare.classes]
    return np.asarray(cell_px[:, at].max(1) / np.maximum(cell_px.sum(1), 1))


def balanced_subset(counts: Counts, size: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Numbers, ascending, of `size` rows of counts (N, K) whose class sums are as even as greed makes them.

    Of all rows left, the one is taken that raises sum_k log(1 + n_k) most, n_k being the pixels of class k so far: a
    pixel of a class counts the less the more of the class is there. That sum is submodular, so a gain never grows, and
    only rows at the top of a heap of old gains are looked at again (Minoux 1978); the sum reached is at least 1 - 1/e
    of the largest (Nemhauser et al. 1978). Equal gains are decided by a seeded order, rows without a pixel come last.
    Time: N K log N in practice, N size K at worst. The result for a smaller size is a part of that for a larger.
    """
    if not 0 <= size <= len(counts):
        raise ConfigError(f"a subset of {size} of {len(counts)} is not possible", fix=f"0 to {len(counts)}")
    exact = counts.astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(counts))
    have = np.zeros(counts.shape[1])
    heap = [(-gain, int(place)) for place, gain in enumerate(np.log1p(exact[order]).sum(1))]
    heapq.heapify(heap)
    taken: list[int] = []
    while len(taken) < size:
        _, place = heap[0]
        gain = float(np.log1p(exact[order[place]] / (1 + have)).sum())
        # The other gains are upper bounds: whoever still leads with a new one is the best.
        heapq.heapreplace(heap, (-gain, place))
        if heap[0][1] == place:
            heapq.heappop(heap)
            have += exact[order[place]]
            taken.append(int(order[place]))
    return np.sort(np.array(taken, np.int64))
