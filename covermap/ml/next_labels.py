"""Which chips to label next: spread over what there is, where a model is in doubt, or far from what is labelled.

    stratified    as many clusters of the embeddings as chips are wanted, drawn from so that with the pilot each has its
                  share
    uncertainty   those that a model of the pilot knows least of
    diversity     the farthest from all that is labelled or chosen, again and again (Sener & Savarese 2018)
    mixed         half stratified, then the most doubtful of what is left, in turn

Ground counts too: while others are left no chip beside another chosen or labelled one is taken, and no scene has more
than twice its share. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, suggest
from covermap.ml.probes import one_hot
from covermap.ml.ridge import Floats, RidgePath, Values

Ints = npt.NDArray[np.intp]
Singles = npt.NDArray[np.float32]
STRATEGIES = ("stratified", "uncertainty", "diversity", "mixed")
NEED_PILOT = ("uncertainty", "mixed")
_AT_ONCE = 8192
_LEARNT_FROM = 20_000
"""Chips that clusters are found by; all are told one."""
_ROUNDS = 25
_TEMPERATURES = np.geomspace(0.02, 2, 25)


def require_strategy(name: str) -> None:
    """Raise ConfigError for a strategy that does not exist."""
    if name not in STRATEGIES:
        raise ConfigError(f"there is no strategy {name!r}", fix=suggest(name, STRATEGIES))


def unit_vectors(values: Values) -> Singles:
    """Values (N, d) about their mean, at length 1."""
    about = np.asarray(values - values.mean(0, dtype=np.float64), np.float32)
    return np.asarray(about / np.maximum(np.linalg.norm(about, axis=1, keepdims=True), 1e-12))


def clusters(units: Singles, count: int, seed: int = 0) -> Ints:
    """Cluster (N,) of each unit vector (N, d), by k-means from k-means++ (Arthur & Vassilvitskii 2007)."""
    random = np.random.default_rng([seed, 1])
    known = units[np.sort(random.permutation(len(units))[:_LEARNT_FROM])]
    centres = known[_first_centres(known, min(count, len(known)), random)]
    for _ in range(_ROUNDS):
        told = _nearest(known, centres)
        there, first, size = np.unique(np.sort(told), return_index=True, return_counts=True)
        moved = centres.copy()
        moved[there] = np.add.reduceat(known[np.argsort(told, kind="stable")], first) / size[:, None]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.unique(_nearest(units, centres), return_inverse=True)[1].reshape(-1)


def _first_centres(known: Singles, count: int, random: np.random.Generator) -> list[int]:
    chosen = [int(random.integers(len(known)))]
    away = _square(known, known[chosen[0]])
    while len(chosen) < count and away.sum() > 0:
        chosen.append(int(np.searchsorted(np.cumsum(away), random.random() * away.sum())))
        away = np.minimum(away, _square(known, known[chosen[-1]]))
    return chosen


def _square(units: Singles, one: Singles) -> Floats:
    """Square distances (N,) of unit vectors to one."""
    return np.asarray(np.maximum(0.0, 1 + one.astype(np.float64) @ one - 2 * (units @ one).astype(np.float64)))


def _nearest(units: Singles, centres: Singles) -> Ints:
    half = 0.5 * (centres**2).sum(1)
    parts = [(half - units[i : i + _AT_ONCE] @ centres.T).argmin(1) for i in range(0, len(units), _AT_ONCE)]
    return np.concatenate(parts)


def doubts_of_classes(values: Values, classes: Ints, num_classes: int, new: Values) -> tuple[Floats, Floats]:
    """How little a ridge probe of chips (n, d) knows of new ones: 1 - margin of probabilities (M,), and those (M, K).

    Scores become probabilities by a softmax, whose temperature makes the labels likeliest when each is left out.
    """
    sides = one_hot(classes, num_classes)
    path = RidgePath.of(values, sides)
    penalties = path.choose()
    left_out = np.stack([path.left_out(float(p))[:, i] for i, p in enumerate(penalties)], 1)
    scores = sides - left_out
    likely = [
        float(np.log(_softmax(scores / t)[np.arange(len(classes)), classes] + 1e-12).sum()) for t in _TEMPERATURES
    ]
    shares = _softmax(path.fit(penalties).predict(new) / _TEMPERATURES[int(np.argmax(likely))])
    two = np.partition(shares, -2, axis=1)[:, -2:]
    return 1 - (two[:, 1] - two[:, 0]), shares


def doubts_of_numbers(values: Values, numbers: Floats, new: Values) -> tuple[Floats, Floats]:
    """Standard deviation (M,) of what a ridge probe tells of new chips, all targets together, and what it tells (M, T).

    Variance: leverage x'(G + l I)^-1 x times that of the errors of chips left out, each in units of its target's own.
    """
    path = RidgePath.of(values, numbers)
    penalties = path.choose()
    about = np.asarray(new - path.mean_values, np.float64)
    variance = np.zeros(len(new))
    inside = about @ (path.right / np.sqrt(np.maximum(path.eigenvalues, 1e-300)))
    outside = np.maximum(0, (about**2).sum(1) - (inside**2).sum(1))
    for i, penalty in enumerate(penalties):
        leverage = (inside**2) @ (1 / (path.eigenvalues + penalty)) + outside / penalty
        spread = max(float(path.targets[:, i].var()), 1e-300)
        variance += leverage * float((path.left_out(float(penalty))[:, i] ** 2).mean()) / spread
    return np.sqrt(variance), path.fit(penalties).predict(new)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


class Field:
    """The candidates that may still be taken: first those beside no other, then those of scenes with room, then any.

    ground (N, 3): scene, row and column, row -1 where not known; free (N,) bool: the candidates; the others are
    labelled.
    """

    def __init__(self, ground: npt.NDArray[np.int64], free: npt.NDArray[np.bool_], budget: int) -> None:
        self.ground, self.free, self.chosen = ground, free.copy(), list[int]()
        self.beside, self.full = np.zeros(len(ground), bool), np.zeros(len(ground), bool)
        self.at: dict[tuple[int, int, int], list[int]] = {}
        for i, (scene, row, col) in enumerate(ground.tolist()):
            if row >= 0:
                self.at.setdefault((scene, row, col), []).append(i)
        there = np.bincount(ground[free, 0], minlength=int(ground[:, 0].max()) + 1)
        self.room = np.maximum(1, np.ceil(2 * budget * there / max(1, there.sum())))
        for i in np.flatnonzero(~free).tolist():
            self._block(i)

    def _block(self, i: int) -> None:
        scene, row, col = self.ground[i].tolist()
        if row >= 0:
            for down, right in product((-1, 0, 1), repeat=2):
                self.beside[self.at.get((scene, row + down, col + right), [])] = True

    def take(self, i: int) -> None:
        """Choose a candidate."""
        self.chosen.append(i)
        self.free[i] = False
        self._block(i)
        scene = int(self.ground[i, 0])
        self.room[scene] -= 1
        if self.room[scene] <= 0:
            self.full |= self.ground[:, 0] == scene

    def open_among(self, few: Ints | slice = slice(None)) -> npt.NDArray[np.bool_]:
        """Which of a few may be taken, by the strictest rule that leaves one."""
        free, beside, full = self.free[few], self.beside[few], self.full[few]
        for allowed in (free & ~beside & ~full, free & ~beside, free):
            if allowed.any():
                return np.asarray(allowed)
        return np.asarray(free)


class Chosen(NamedTuple):
    """order (B,): candidates, the first to label first; reasons (B,); stratum (N,) of all, -1 where none was made."""

    order: Ints
    reasons: tuple[str, ...]
    stratum: Ints


def choose(
    strategy: str,
    values: Values,
    ground: npt.NDArray[np.int64],
    labelled: npt.NDArray[np.bool_],
    budget: int,
    *,
    doubts: Floats | None = None,
    seed: int = 0,
) -> Chosen:
    """Choose chips of values (N, d) on ground (N, 3), none twice and none that is labelled (N,).

    doubts (N,): for uncertainty and mixed. Raises ConfigError for an unknown strategy, DataError where doubts are
    missing, or fewer chips are left than the budget.
    """
    require_strategy(strategy)
    if not 1 <= budget <= (left := int((~labelled).sum())):
        raise DataError(f"{budget:,} chips are to be chosen, {left:,} are not labelled", fix=f"give 1 to {left:,}")
    if doubts is None and strategy in NEED_PILOT:
        raise DataError(f"strategy {strategy} asks where a model is in doubt, and nothing is labelled",
                        fix="give stratified or diversity")  # fmt: skip
    field, units = Field(ground, ~labelled, budget), unit_vectors(values)
    stratum = np.full(len(values), -1, np.intp)
    drawn = {"stratified": budget, "mixed": (budget + 1) // 2}.get(strategy, 0)
    if drawn:
        stratum = clusters(units, budget, seed)
        _draw(field, stratum, labelled, drawn, seed)
    if strategy == "diversity":
        _farthest(field, units, labelled, budget)
    elif doubts is not None:
        _doubtful(field, doubts, budget - drawn)
    order = np.array(field.chosen, np.intp)
    kinds = ["stratum"] * drawn + [{"diversity": "far"}.get(strategy, "doubt")] * (budget - drawn)
    if strategy == "mixed":  # so that a person who stops early has done some of both
        turn = np.argsort(np.concatenate([2 * np.arange(drawn), 2 * np.arange(budget - drawn) + 1]))
        order, kinds = order[turn], [kinds[i] for i in turn]
    return Chosen(order, tuple(kinds), stratum)


def _draw(field: Field, stratum: Ints, labelled: npt.NDArray[np.bool_], budget: int, seed: int) -> None:
    """Take chips at random in each stratum (N,) until it has its share of the labelled and the chosen."""
    random = np.random.default_rng([seed, 2])
    for one in _turns(field, stratum, labelled, budget):
        members = np.flatnonzero(stratum == one)
        allowed = members[field.open_among(members)]
        field.take(int(allowed[random.integers(len(allowed))]))


def _doubtful(field: Field, doubts: Floats, budget: int) -> None:
    """Take the most doubtful."""
    for _ in range(budget):
        allowed = np.flatnonzero(field.open_among())
        field.take(int(allowed[np.argmax(doubts[allowed])]))


def _farthest(field: Field, units: Singles, labelled: npt.NDArray[np.bool_], budget: int) -> None:
    """Take the unit vector (N, d) that is farthest from all labelled and chosen ones, again and again."""
    away = np.full(len(units), np.inf)
    near = np.flatnonzero(labelled)
    if not len(near):  # the first: the most usual chip
        near = np.array([int(np.argmin(_square(units, units.mean(0, dtype=np.float64).astype(np.float32))))])
        field.take(int(near[0]))
        budget -= 1
    for i in near.tolist():
        away = np.minimum(away, _square(units, units[i]))
    for _ in range(budget):
        allowed = np.flatnonzero(field.open_among())
        i = int(allowed[np.argmax(away[allowed])])
        field.take(i)
        away = np.minimum(away, _square(units, units[i]))


def _turns(field: Field, stratum: Ints, labelled: npt.NDArray[np.bool_], budget: int) -> Iterator[int]:
    """The stratum that is to have the next chip: the one that lacks most of its share of all chips, if any is left."""
    size = np.bincount(stratum).astype(np.float64)
    has = np.bincount(stratum[labelled], minlength=len(size)).astype(np.float64)
    left = np.bincount(stratum[field.free], minlength=len(size))
    share = size / size.sum() * (has.sum() + budget)
    for _ in range(budget):
        # One in each comes first.
        lack = np.where(left > 0, share - has + (has == 0) * share.max(), -np.inf)
        one = int(lack.argmax())
        has[one] += 1
        left[one] -= 1
        yield one
