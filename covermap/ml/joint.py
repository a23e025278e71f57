"""The classes of two or more dates decided together, from probabilities of each and a prior of transitions.

Probabilities are those of layers (uint8) or floats, see ml.transitions; where a date is unknown it says nothing, and
its class is IGNORE. All is computed in float64 from blocks that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.core.legend import IGNORE
from covermap.ml.likeliest import highest
from covermap.ml.transitions import Floats, Shares, TransitionPrior, probabilities

_BLOCK = 1 << 13
_Bytes = npt.NDArray[np.uint8]
_Known = npt.NDArray[np.bool_]


class Pair(NamedTuple):
    """Class indices of both dates and the probability of a change, each (H, W); IGNORE, NaN where unknown."""

    before: _Bytes
    after: _Bytes
    change: npt.NDArray[np.float32]


class Series(NamedTuple):
    """The most probable sequence (T, H, W), the probability of a change in each step (T - 1, H, W), of classes.

    overall (H, W): the probability that the last class is not the first.
    """

    classes: _Bytes
    change: npt.NDArray[np.float32]
    overall: npt.NDArray[np.float32]
    posterior: npt.NDArray[np.float32]
    """(T, K, H, W): the class of each date given all dates."""


def change_probability(p1: Shares, p2: Shares) -> npt.NDArray[np.float32]:
    """P(change) = 1 - sum_c p1(c) p2(c) of independent dates: (K, H, W) twice -> (H, W), NaN where unknown."""
    flat, shape = _flat([p1, p2])
    out = np.empty(flat[0].shape[1], np.float32)
    for part in _parts(out.size):
        (a, b), known = _evidence([p[:, part] for p in flat], [np.ones(len(p1))] * 2)
        same = np.einsum("kn,kn->n", a, b) / (a.sum(0) * b.sum(0))
        out[part] = np.where(known.all(0), 1 - same, np.nan)
    return out.reshape(shape)


def decide_pair(p1: Shares, p2: Shares, prior: TransitionPrior) -> Pair:
    """The pair (a, b) with the highest p1(a) p2(b) R(a, b) of each pixel; (K, H, W) twice -> (H, W).

    Of equal pairs one that stays wins, then the lowest a, then b. change: P(a != b) under the same prior, so that a
    pixel may have changed more likely than not though no single change is likelier than that it stayed. Raises
    DataError.
    """
    flat, shape = _flat([p1, p2])
    _require(prior, len(p1))
    before, after = (np.empty(flat[0].shape[1], np.uint8) for _ in range(2))
    change, weights = np.empty(before.size, np.float32), prior.weights
    stay = np.diag(weights)[:, None]
    for part in _parts(before.size):
        (a, b), known = _evidence([p[:, part] for p in flat], [prior.before, prior.after])
        total = np.einsum("kn,kn->n", weights.T @ a, b)
        same = a * b
        same *= stay
        (one, top), kept = highest(same), same.sum(0)
        other = one.copy()
        # All changes together bound each of them: the search of all pairs is left for where they outweigh staying.
        open_ = np.flatnonzero(top < (total - kept) + 1e-9 * total)
        if open_.size:
            one[open_], other[open_] = _best_pair(a[:, open_], b[:, open_], weights, one[open_], top[open_])
        one[~known[0]], other[~known[1]] = IGNORE, IGNORE
        before[part], after[part] = one, other
        change[part] = np.where(known.all(0), np.clip(1 - kept / total, 0, 1), np.nan)
    return Pair(before.reshape(shape), after.reshape(shape), change.reshape(shape))


def decide_series(dates: Sequence[Shares], prior: TransitionPrior | Sequence[TransitionPrior]) -> Series:
    """Two or more dates (T times (K, H, W)) as a chain: one prior for all steps, or one for each.

    The sequence with the highest probability (Viterbi), of equals one that stays; posteriors of each date and of a
    change in each step (forward-backward). A date that is unknown is passed over with two steps; a step from or to it
    has no probability of change (NaN). Two dates are decide_pair's. Raises DataError.
    """
    steps = [prior] * (len(dates) - 1) if isinstance(prior, TransitionPrior) else list(prior)
    if len(dates) < 2 or len(steps) != len(dates) - 1:
        raise DataError(f"{len(dates)} dates and {len(steps)} steps do not make a series", fix="give two dates or more")
    flat, shape = _flat(dates)
    k, count, size = len(flat[0]), len(flat), flat[0].shape[1]
    for step in steps:
        _require(step, k)
    held = [steps[0].before, *(step.after for step in steps)]
    tables = [steps[0].joint, *(step.table for step in steps[1:])]
    classes, change = np.empty((count, size), np.uint8), np.empty((count - 1, size), np.float32)
    overall, posterior = np.empty(size, np.float32), np.empty((count, k, size), np.float32)
    for part in _parts(size):
        shares, known = _evidence([p[:, part] for p in flat], held)
        evidence = [p / of[:, None] for p, of in zip(shares, held, strict=True)]
        found, change[:, part] = _forward_backward(evidence, tables)
        overall[part] = np.where(known[0] & known[-1], _overall(evidence, tables, change[:, part].sum(0)), np.nan)
        change[:, part][~(known[:-1] & known[1:])] = np.nan
        posterior[:, :, part] = np.where(known[:, None], found, np.nan)
        classes[:, part] = np.where(known, _most_probable(evidence, tables), IGNORE)
    if count == 2:
        pair = decide_pair(dates[0], dates[1], steps[0])  # of equal pairs the same one, whatever the rounding
        classes = np.stack([pair.before.reshape(-1), pair.after.reshape(-1)])
    return Series(
        classes.reshape(count, *shape), change.reshape(-1, *shape), overall.reshape(shape),
        posterior.reshape(count, k, *shape),
    )  # fmt: skip


def _best_pair(a: Floats, b: Floats, weights: Floats, one: _Bytes, best: Floats) -> tuple[_Bytes, _Bytes]:
    """The best of all pairs (n,) of (K, n) twice; one, best: the best that stays, and its value."""
    other = one.copy()
    for row, of in enumerate(weights):
        column, top = highest(b * of[:, None])
        top *= a[row]
        better = top > best
        for found, value in ((best, top), (one, row), (other, column)):
            np.copyto(found, value, where=better, casting="unsafe")
    return one, other


def _forward_backward(evidence: Sequence[Floats], tables: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Posteriors (T, K, n), probabilities of a change (T - 1, n); the first table holds the first date's shares too."""
    forward = [evidence[0]]
    for table, seen in zip(tables, evidence[1:], strict=True):
        forward.append(_scaled((table.T @ forward[-1]) * seen))
    back, posterior, change = np.ones_like(evidence[0]), [forward[-1] / forward[-1].sum(0)], []
    for step in range(len(tables) - 1, -1, -1):
        ahead = evidence[step + 1] * back
        onward = tables[step] @ ahead
        both = forward[step] * onward
        total = both.sum(0)
        stays = np.einsum("kn,kn,k->n", forward[step], ahead, np.diag(tables[step]))
        change.append(np.clip(1 - stays / total, 0, 1))
        posterior.append(both / total)
        back = _scaled(onward)
    return np.stack(posterior[::-1]), np.stack(change[::-1])


def _overall(evidence: Sequence[Floats], tables: Sequence[Floats], most: Floats) -> Floats:
    """P(first class != last class) (n,). most: of all steps together, no less than it; taken itself below a thousandth,
    as for most pixels, for the exact sum takes a chain for each class.
    """
    found = most.copy()
    if len(tables) == 1 or not (at := np.flatnonzero(most > 1e-3)).size:
        return found
    same, total = np.zeros(at.size), np.zeros(at.size)
    seen = [_scaled(each[:, at]) for each in evidence]
    for c, first in enumerate(seen[0]):
        state = tables[0][c][:, None] * (first * seen[1])
        for table, each in zip(tables[1:], seen[2:], strict=True):
            state = (table.T @ state) * each
        same += state[c]
        total += state.sum(0)
    found[at] = np.clip(1 - same / total, 0, 1)
    return found


def _most_probable(evidence: Sequence[Floats], tables: Sequence[Floats]) -> _Bytes:
    """The most probable sequence (T, n); all that change together bound each of them, as for pairs."""
    total, stays = evidence[0], evidence[0]
    for table, seen in zip(tables, evidence[1:], strict=True):
        scale = total.max(0)  # long series would run out of small numbers
        total, stays = (table.T @ total) * (seen / scale), stays * (np.diag(table)[:, None] * (seen / scale))
    one, top = highest(stays)
    path = np.repeat(one[None], len(evidence), axis=0)
    open_ = np.flatnonzero(top < (1 + 1e-9) * total.sum(0) - stays.sum(0))
    if open_.size:
        path[:, open_] = _viterbi([seen[:, open_] for seen in evidence], tables)
    return path


def _viterbi(evidence: Sequence[Floats], tables: Sequence[Floats]) -> _Bytes:
    """The most probable sequence (T, n) by search."""
    best, came = evidence[0], []
    for table, seen in zip(tables, evidence[1:], strict=True):
        onward, back = np.empty_like(seen), np.empty(seen.shape, np.uint8)
        for b in range(len(table)):
            from_, top = highest(best * table[:, b, None])
            np.copyto(from_, b, where=best[b] * table[b, b] == top)
            onward[b], back[b] = top, from_
        best = onward * seen
        best /= best.max(0)
        came.append(back)
    path = [highest(best)[0]]
    for back in reversed(came):
        path.append(np.take_along_axis(back, path[-1][None].astype(np.intp), axis=0)[0])
    return np.stack(path[::-1])


def _scaled(values: Floats) -> Floats:
    """(K, n) with a highest of 1: long series would run out of small numbers."""
    return np.asarray(values / values.max(0))


def _flat(dates: Sequence[Shares]) -> tuple[list[Shares], tuple[int, ...]]:
    """Each date as (K, N), and the shape of one class; raises DataError where dates differ."""
    arrays = [np.asarray(p) for p in dates]
    if any(p.shape != arrays[0].shape or p.ndim < 2 for p in arrays):
        raise DataError(
            f"probabilities of dates differ in shape: {[p.shape for p in arrays]}", fix="give one legend and window"
        )
    return [p.reshape(len(p), -1) for p in arrays], arrays[0].shape[1:]


def _require(prior: TransitionPrior, num_classes: int) -> None:
    if len(prior.joint) != num_classes:
        raise DataError(
            f"a prior of {len(prior.joint)} classes, {num_classes} layers", fix="use the legend of the maps"
        )


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _evidence(dates: Sequence[Shares], unknown: Sequence[Floats]) -> tuple[list[Floats], _Known]:
    """Probabilities (K, n) of each date, and where they are known (T, n)."""
    found = [probabilities(p, of) for p, of in zip(dates, unknown, strict=True)]
    return [p for p, _ in found], np.stack([known for _, known in found])
