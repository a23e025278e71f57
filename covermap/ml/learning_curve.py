"""What accuracy more labels will bring, told from the labels that there are: held-out scores by size, and their curve.

Chips of a pilot are held out fold by fold; what is left is learnt from in parts of rising size, whole blocks of ground
first, as further labels would come. To the mean scores score(n) = a - b n^-c is fitted, with c from 0.2 to 1 (Hestness
et al. 2017, arXiv 1712.00409). A few noisy points tell no single curve: all of a grid are averaged, each by how well it
fits and by a prior that is flat in c and in the logarithm of 1 - a, the share that no number of labels will mend.

A pilot may be easier or harder than the ground it stands for. Of classes, how sure a model is tells how often it is
right on the pilot, by a logistic fit, and so how many errors more or fewer are to be expected on all candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.ml.probes import Answers, fit_probe
from covermap.ml.ridge import Floats, Values

Ints = npt.NDArray[np.intp]
SHARES = (0.45, 0.6, 0.8, 1.0)
"""Parts of the train chips of a fold: smaller ones, on the steep of a curve, say too little of what comes after."""
EXPONENTS = np.linspace(0.2, 1, 17)
LEAST = 10
"""Chips from which a curve can be told at all."""
_LIMITS = 193
_FLOOR = 1e-3
"""Least error that a limit is looked for at."""
_JITTER = {"classes": 1.0, "numbers": 0.2}
"""How far points lie off their curve, in standard errors of the score; points of R2 share most of their error."""
_DRAWS = 400
_MOST_TIMES = 2.0
"""Errors on candidates are at most so many times those on the pilot, or as much fewer."""


@dataclass(frozen=True)
class HeldOut:
    """Scores of n chips when they are held out, by size of what is learnt from.

    sizes (S,): mean number of chips. worth (S, n), NaN where a chip was never held out: 1 for a class that is right,
    0 for a wrong one; for numbers 1 - squared error / variance. Their mean over chips is accuracy, or R2 of all targets
    together. blocks (n,): blocks of ground from 0 on. margins (n,), elsewhere (M,): between the two highest scores of
    classes, of chips held out and of candidates; None of numbers.
    """

    sizes: Floats
    worth: Floats
    blocks: Ints
    classes: bool = True
    margins: Floats | None = None
    elsewhere: Floats | None = None

    def scores(self, draws: int = 0, seed: int = 0) -> Floats:
        """Mean scores (S,) on the candidates, or (draws, S) with blocks weighed at random.

        Weights are those of the Bayesian bootstrap (Rubin 1981), with Jeffreys' half a chip of worth 0 and half of 1:
        a pilot without an error is no proof that there is none.
        """
        known = np.isfinite(self.worth).all(0)
        worth, block = self.worth[:, known], np.unique(self.blocks[known], return_inverse=True)[1].reshape(-1)
        count = int(block.max()) + 1
        random = np.random.default_rng(seed)
        times = random.standard_exponential((draws or 1, count)) if draws else np.ones((1, count))
        prior = random.gamma(0.5, size=(draws, 2)) if draws else np.zeros((1, 2))
        weights = times[:, block]
        found = (weights @ worth.T + prior[:, :1]) / (weights.sum(1) + prior.sum(1))[:, None]
        weights = weights / weights.sum(1, keepdims=True)
        if self.margins is not None and self.elsewhere is not None:
            error = np.maximum(1 - found[:, -1], 1e-9)
            ratio = (1 - _right_elsewhere(self.margins[known], worth[-1], weights, self.elsewhere)) / error
            found = 1 - (1 - found) * np.clip(ratio, 1 / _MOST_TIMES, _MOST_TIMES)[:, None]
        return np.asarray(found if draws else found[0])


def _right_elsewhere(margins: Floats, right: Floats, weights: Floats, elsewhere: Floats) -> Floats:
    """Share (B,) of candidates (M,) that is expected to be right: logistic fits to chips (n,) with weights (B, n)."""
    features, beta = np.stack([np.ones_like(margins), margins]), np.zeros((len(weights), 2))
    for _ in range(12):
        told = 1 / (1 + np.exp(-np.clip(beta @ features, -30, 30)))
        slope = (weights * (right - told)) @ features.T - 1e-4 * beta
        curve = np.einsum("bn,in,jn->bij", weights * told * (1 - told), features, features) + 1e-4 * np.eye(2)
        beta += np.clip(np.linalg.solve(curve, slope[:, :, None])[:, :, 0], -4, 4)
    logits = beta[:, :1] + beta[:, 1:] * elsewhere
    return np.asarray((1 / (1 + np.exp(-np.clip(logits, -30, 30)))).mean(1))


def hold_out(
    values: Values,
    targets: npt.NDArray[Any],
    splits: Sequence[tuple[Ints, Ints]],
    blocks: Ints,
    *,
    num_classes: int | None = None,
    candidates: Values | None = None,
    seed: int = 0,
) -> HeldOut:
    """Learn from rising parts of the train chips of each split (train, held out), and score what it holds out.

    values (n, d); targets: class indices (n,) with num_classes, or numbers (n, T); candidates (M, d): some hundred
    drawn from all ground that scores are to be told of. Raises DataError for fewer than
    LEAST chips, targets that are all alike, and splits that leave nothing to learn from.
    """
    require_pilot(targets, classes=num_classes is not None)
    random = np.random.default_rng(seed)
    most = float(np.mean([len(train) for train, _ in splits])) if len(splits) else 0.0
    wanted = np.unique(np.maximum(3, np.round(np.array(SHARES) * most)).astype(np.intp))
    worth, times, used = np.zeros((len(wanted), len(values))), np.zeros(len(values)), []
    margins, elsewhere = np.zeros(len(values)), np.zeros(0 if candidates is None else len(candidates))
    for train, held in splits:
        if len(train) < 3 or not len(held):
            continue
        turn = random.permutation(int(blocks.max()) + 1)[blocks[train]]
        order = train[np.lexsort((random.random(len(train)), turn))]
        for i, size in enumerate(wanted):
            told = _learn(values, targets, order[:size], num_classes)
            worth[i, held] += _worth(told(values[held]), targets, held, num_classes)
        if num_classes is not None and candidates is not None:
            margins[held] += _margins(told(values[held]))
            elsewhere += _margins(told(candidates))
        times[held] += 1
        used.append(np.minimum(wanted, len(order)))
    if not used:
        raise DataError(
            "the labelled chips lie so near each other that none can be held out", fix="label chips farther apart"
        )
    often = np.where(times, times, np.nan)
    found = HeldOut(np.mean(used, axis=0), worth / often, blocks, num_classes is not None)
    if num_classes is None or candidates is None:
        return found
    return replace(found, margins=margins / often, elsewhere=elsewhere / len(used))


def require_pilot(targets: npt.NDArray[Any], *, classes: bool) -> None:
    """Raise DataError for targets (n,) or (n, T) that are too few, or all the same."""
    if len(targets) < LEAST:
        raise DataError(
            f"{len(targets)} chips are labelled: what more labels will bring cannot be told from fewer than {LEAST}",
            fix=f"label {LEAST - len(targets)} more, better 40 in all",
        )
    if not (np.ptp(targets.astype(np.float64), axis=0) > 0).any():
        what = "of one class" if classes else "of one value"
        raise DataError(f"all {len(targets)} labelled chips are {what}", fix="label chips that differ from them")


def _learn(values: Values, targets: npt.NDArray[Any], of: Ints, num_classes: int | None) -> Answers:
    if num_classes is None:
        return fit_probe("ridge", values[of], targets[of]).answers
    one = len(np.unique(targets[of])) < 2  # nothing to tell apart: what a constant says
    return fit_probe("constant" if one else "ridge", values[of], targets[of], num_classes=num_classes).answers


def _worth(told: Floats, targets: npt.NDArray[Any], held: Ints, num_classes: int | None) -> Floats:
    """Worth (m,) of what is told of the chips held out."""
    if num_classes is not None:
        return np.asarray(told.argmax(1) == targets[held], np.float64)
    errors = (told - targets[held]) ** 2
    return np.asarray(1 - errors.sum(1) / targets.var(0, ddof=1).sum())


def _margins(scores: Floats) -> Floats:
    """How far the highest score of classes (m, K) lies above the next one (m,)."""
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


@dataclass(frozen=True)
class Curve:
    """Curves limit - drop n^-exponent, all (G,), and the weights of each, 1 in all. best: a, b, c of the nearest."""

    limits: Floats
    drops: Floats
    exponents: Floats
    weights: Floats
    best: tuple[float, float, float]

    def at(self, size: float) -> float:
        """The score to be expected from so many labels."""
        return float(self.weights @ self.each_at(size))

    def each_at(self, size: float) -> Floats:
        """Scores (G,) of all curves."""
        return np.asarray(self.limits - self.drops * size**-self.exponents)

    @property
    def limit(self) -> float:
        """The score that the curve promises for labels without end."""
        return float(self.weights @ self.limits)

    def size_for(self, score: float, most: float = 1e6) -> float:
        """The least number of labels that is expected to reach a score; inf beyond `most`."""
        if self.at(most) < score:
            return float("inf")
        low, high = 1.0, most
        while high - low > 0.5:
            middle = (low + high) / 2
            low, high = (low, middle) if self.at(middle) >= score else (middle, high)
        return float(np.ceil(high))


def fit_curve(sizes: Floats, scores: Floats, spread: float) -> Curve:
    """Average the curves of a grid by their fit to scores (S,) at sizes (S,); spread: standard error of a point.

    Limits lie between the last score and 1; larger sizes weigh more. Drops, by least squares, are never negative.
    """
    last = min(float(scores[-1]), 1 - _FLOOR)
    limits = 1 - np.geomspace(1 - last, _FLOOR, _LIMITS)
    x = sizes[None, :] ** -EXPONENTS[:, None]
    weight = sizes / sizes.mean()
    above = limits[:, None] - scores[None, :]
    drops = np.maximum(0, (above * weight) @ x.T / (weight * x**2).sum(1))
    errors = scores - (limits[:, None, None] - drops[:, :, None] * x)
    square = (weight * errors**2).sum(2)
    fits = np.exp(-(square - square.min()) / (2 * max(spread, 1e-9) ** 2))
    grid = np.broadcast_arrays(limits[:, None], drops, EXPONENTS[None, :], fits / fits.sum())
    a, b, c, weights = (np.ravel(one) for one in grid)
    return Curve(a, b, c, weights, _nearest(x, scores, weight))


def _nearest(x: Floats, scores: Floats, weight: Floats) -> tuple[float, float, float]:
    """a, b, c by weighted least squares over sizes^-c (C, S), a at most 1 and b at least 0."""
    share = weight / weight.sum()
    mean, level = x @ share, float(scores @ share)
    about = x - mean[:, None]
    b = np.maximum(0, -((about * (scores - level)) @ share) / ((about**2) @ share))
    a = level + b * mean
    b = np.where(a > 1, (x * (1 - scores)) @ share / ((x**2) @ share), b)
    a = np.minimum(a, 1)
    i = int((((scores - a[:, None] + b[:, None] * x) ** 2) @ share).argmin())
    return float(a[i]), float(b[i]), float(EXPONENTS[i])


@dataclass(frozen=True)
class Expected:
    """A score with its 95 % interval, which held 82 to 86 % of scores when it was tried out (benchmarks/planner.py)."""

    score: float
    low: float
    high: float


def curve_of(held: HeldOut) -> Curve:
    """The curve of what was held out."""
    return fit_curve(held.sizes, held.scores(), _spread(held, held.scores(_DRAWS)))


def expect(held: HeldOut, size: int, *, seed: int = 0) -> Expected:
    """The score to be expected from so many labels of the same kind.

    Interval: over draws of blocks of ground, for repeats share the chips, and of each draw's curves one by its weight.
    """
    drawn = held.scores(_DRAWS, seed)
    spread, random, found = _spread(held, drawn), np.random.default_rng([seed, 1]), np.empty(len(drawn))
    for i, scores in enumerate(drawn):
        curve = fit_curve(held.sizes, scores, spread)
        chosen = min(int(np.searchsorted(np.cumsum(curve.weights), random.random())), len(curve.weights) - 1)
        found[i] = curve.each_at(size)[chosen]
    value = fit_curve(held.sizes, held.scores(), spread).at(size)
    low, high = np.quantile(found, [0.025, 0.975])
    return Expected(value, min(float(low), value), max(float(high), value))


def _spread(held: HeldOut, drawn: Floats) -> float:
    """How far points lie off their curve."""
    return max(_JITTER["classes" if held.classes else "numbers"] * float(drawn[:, -1].std()), 1e-3)
