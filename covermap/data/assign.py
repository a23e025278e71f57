"""Which block goes to which part, fold or budget, by the classes that it holds: arrays in, choices out.

`counts` are labelled pixels (rows: blocks, columns: classes). Every choice is a function of the counts and the seed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from covermap.data.split import PARTS

Counts = npt.NDArray[np.int64]

TRIALS = 256
"""Random assignments of blocks that are tried; the one with the most even classes is kept."""


def assign(counts: Counts, fractions: dict[str, float], *, trials: int = TRIALS, seed: int = 0) -> list[str]:
    """Give each block a part so that every part holds its share of every class.

    Of `trials` random orders the one is kept whose class shares are nearest to the fractions, and in which the
    fewest classes are missing from a part (missing from train counts most).
    """
    best, best_cost = np.ones(len(counts), np.int64), np.inf
    total = counts.sum()
    if not fractions or not total:
        return [PARTS[part] for part in best]
    sizes = counts.sum(1)
    filled = np.flatnonzero(sizes > 0)
    rng = np.random.default_rng(seed)
    share = (counts / np.maximum(counts.sum(0), 1))[:, counts.sum(0) > 0]
    for _ in range(trials):
        order = rng.permutation(filled)
        mass = np.cumsum(sizes[order]) / total
        # A block goes where its middle falls, so that a part is neither empty nor too large on average.
        middle = mass - sizes[order] / total / 2
        parts = np.ones(len(counts), np.int64)
        start = 0.0
        for part, wanted in fractions.items():
            parts[order[(middle >= start) & (middle < start + wanted)]] = PARTS.index(part)
            start += wanted
        cost = _cost(parts, share, fractions)
        if cost < best_cost:
            best, best_cost = parts, cost
    _fill_empty(best, sizes, fractions)
    return [PARTS[part] for part in best]


def _cost(parts: npt.NDArray[np.int64], share: npt.NDArray[np.float64], fractions: dict[str, float]) -> float:
    """How far the parts' shares of each class are from the fractions, and which classes they lack."""
    cost = 0.0
    for part, wanted in {"train": 1 - sum(fractions.values()), **fractions}.items():
        held = share[parts == PARTS.index(part)].sum(0)
        lacking = float((held == 0).sum()) * (20 if part == "train" else 5) * (wanted > 0)
        cost += float(np.abs(held - wanted).sum()) + lacking
    return cost


def _fill_empty(parts: npt.NDArray[np.int64], sizes: Counts, fractions: dict[str, float]) -> None:
    """Of few large blocks, none may have fallen into a part: it gets the one from train nearest to its share."""
    for part, wanted in fractions.items():
        train = np.flatnonzero((parts == 1) & (sizes > 0))
        if not (parts == PARTS.index(part)).any() and len(train) > 1:
            nearest = np.abs(sizes[train] / sizes.sum() - wanted)
            parts[train[int(np.argmin(nearest))]] = PARTS.index(part)


def assign_folds(counts: Counts, folds: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """The fold (0 to folds - 1) of each block (or region), folds of nearly equal size and classes.

    The largest come first; each goes where the classes that it holds are rarest so far.
    """
    share = counts / np.maximum(counts.sum(0), 1)
    share = np.column_stack([share, counts.sum(1) / max(1, counts.sum())])
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]
    held = np.zeros((folds, share.shape[1]))
    number = np.zeros(folds, np.int64)
    found = np.empty(len(counts), np.int64)
    for block in order.tolist():
        full = held @ share[block]
        # Blocks without labels are spread by number.
        fold = int(np.lexsort((number, full))[0])
        found[block] = fold
        held[fold] += share[block]
        number[fold] += 1
    return found


def nested(counts: Counts, budget: float, *, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which blocks (or objects) a share `budget` of them keeps, class by class; those without labels are kept.

    A block counts for the class of which it holds the largest share. Each class keeps one at least. For one seed,
    what a budget keeps is kept by every larger one.
    """
    keep = counts.sum(1) == 0
    share = counts / np.maximum(counts.sum(0), 1)
    stratum = np.where(keep, -1, share.argmax(1))
    order = np.random.default_rng([seed, 12]).permutation(len(counts))
    for number in range(counts.shape[1]):
        members = order[stratum[order] == number]
        keep[members[: max(1, int(budget * len(members) + 0.5))]] = True
    return np.asarray(keep)
