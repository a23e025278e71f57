"""Simple models on embeddings, from nothing to a forest: what an encoder is worth is told beside all of them.

    constant   the mean, or the most frequent class, of the training samples
    raw        ridge on raw statistics of the bands (mean and deviation): what is to be beaten
    knn        20 nearest by cosine, weighted by exp(similarity / 0.07)
    ridge      penalty of each target by leaving each sample out; the default
    ols        least squares without a penalty: a curiosity, at its worst where samples are as many as features
    logistic   classes only; penalty by five folds
    forest     random forest
    prequential  ridge, each chip told from those labelled before it: a learning curve that no test chip is needed for

Targets are numbers (N, T), or classes, whose answers are scores of K classes: the highest counts. Features of raw, of
logistic and of ols are standardised by the training samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, suggest
from covermap.ml.forest import fit_forest, fit_numbers
from covermap.ml.ridge import Floats, RidgePath, Values, fit_least_squares, require_samples

PREQUENTIAL = "prequential"
PROBES = ("constant", "raw", "knn", "ridge", "ols", "logistic", "forest", PREQUENTIAL)
ONLY_CLASSES, ONLY_NUMBERS = ("logistic",), (PREQUENTIAL,)
NEIGHBOURS, TEMPERATURE = 20, 0.07
_AT_ONCE = 2048
Answers = Callable[[Values], Floats]
"""Values (M, d) -> numbers (M, T), or scores of classes (M, K)."""


@dataclass(frozen=True)
class Fitted:
    """A probe that was fitted; penalties (T,) where it has any."""

    name: str
    answers: Answers
    penalties: Floats | None = None


def fit_probe(
    name: str, values: Values, targets: npt.NDArray[Any], *, num_classes: int | None = None, seed: int = 0
) -> Fitted:
    """Fit a probe to values (N, d); targets: numbers (N, T), or with num_classes class indices (N,).

    Raises ConfigError for an unknown name and for one that does not go with numbers, DataError for too few samples.
    """
    require_probe(name, classes=num_classes is not None)
    sides = np.asarray(targets, np.float64) if num_classes is None else one_hot(targets, num_classes)
    require_samples(values, sides)
    if name == "constant":
        mean = sides.mean(0)
        return Fitted(name, lambda new: np.broadcast_to(mean, (len(new), len(mean))))
    if name == "knn":
        return Fitted(name, _neighbours(values, sides))
    if name == "ridge":
        return _ridge(name, values, sides)
    if name == "forest":
        return Fitted(name, _forest(values, targets, num_classes, seed))
    mean, spread = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    spread[spread < 1e-9 * np.maximum(1, np.abs(mean))] = 1

    def scaled(new: Values) -> Floats:
        return np.asarray((new - mean) / spread)

    if name == "raw":
        found = _ridge(name, scaled(values), sides)
    elif name == "ols":
        found = Fitted(name, fit_least_squares(scaled(values), sides).predict)
    else:
        found = _logistic(scaled(values), targets, num_classes or 0, seed)
    inner = found.answers
    return Fitted(name, lambda new: inner(scaled(new)), found.penalties)


def require_probe(name: str, *, classes: bool) -> None:
    """Raise ConfigError for a probe that does not exist, or that does not go with numbers, or with classes."""
    if name not in PROBES:
        raise ConfigError(f"there is no probe {name!r}", fix=suggest(name, PROBES))
    if name in ONLY_CLASSES and not classes:
        raise ConfigError(f"probe {name} tells classes, the targets are numbers", fix="leave it out")
    if name in ONLY_NUMBERS and classes:
        raise ConfigError(f"probe {name} tells numbers, the targets are classes", fix="leave it out")


def one_hot(classes: npt.NDArray[Any], num_classes: int) -> Floats:
    """Class indices (N,) -> (N, K)."""
    return np.asarray(np.eye(num_classes)[np.asarray(classes, np.intp)])


def _ridge(name: str, values: Values, sides: Floats) -> Fitted:
    path = RidgePath.of(values, sides)
    penalties = path.choose()
    return Fitted(name, path.fit(penalties).predict, penalties)


def _neighbours(values: Values, sides: Floats) -> Answers:
    def unit(given: Values) -> npt.NDArray[np.float32]:
        length = np.linalg.norm(given, axis=1, keepdims=True)
        return np.asarray(given / np.maximum(length, 1e-12), np.float32)

    known, count = unit(values), min(NEIGHBOURS, len(values))

    def answers(new: Values) -> Floats:
        found = np.empty((len(new), sides.shape[1]))
        for start in range(0, len(new), _AT_ONCE):
            alike = unit(new[start : start + _AT_ONCE]) @ known.T
            near = np.argpartition(-alike, count - 1, axis=1)[:, :count]
            near.sort(axis=1)  # of equals the first: not what the search left
            weights = np.exp((np.take_along_axis(alike, near, 1).astype(np.float64) - 1) / TEMPERATURE)
            found[start : start + _AT_ONCE] = np.einsum("mk,mkt->mt", weights, sides[near]) / weights.sum(1)[:, None]
        return found

    return answers


def _forest(values: Values, targets: npt.NDArray[Any], num_classes: int | None, seed: int) -> Answers:
    x = np.asarray(values, np.float32)
    if num_classes is None:
        forest = fit_numbers(x, np.asarray(targets, np.float32), trees=100, seed=seed, jobs=1)
    else:
        forest = fit_forest(x, np.asarray(targets, np.uint8), num_classes=num_classes, trees=100, seed=seed, jobs=1)
    return lambda new: forest.probabilities(np.asarray(new, np.float32)).astype(np.float64)


def _logistic(values: Floats, classes: npt.NDArray[Any], num_classes: int, seed: int) -> Fitted:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    held, counts = np.unique(classes, return_counts=True)
    if len(held) < 2:
        raise DataError("all labelled samples are of one class", fix="label a second class, or leave logistic out")
    strengths = 10.0 ** np.arange(-4, 3)
    folds = min(5, int(counts.min()))
    best = 1.0
    if folds >= 2:
        parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(values, classes))
        hits = [
            np.mean([
                LogisticRegression(C=c, max_iter=300).fit(values[a], classes[a]).score(values[b], classes[b])
                for a, b in parts
            ])
            for c in strengths
        ]  # fmt: skip
        best = float(strengths[int(np.argmax(hits))])
    model = LogisticRegression(C=best, max_iter=1000).fit(values, classes)

    def answers(new: Values) -> Floats:
        found = np.zeros((len(new), num_classes))
        found[:, model.classes_.astype(np.intp)] = model.predict_proba(new)
        return found

    return Fitted("logistic", answers, np.full(num_classes, 1 / best))
