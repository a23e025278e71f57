"""What recall of rare classes costs in accuracy: the curve of decisions argmax (log p - tau log prior) over tau.

tau 0 is the usual decision, tau 1 that of equal priors: logit adjustment (Menon et al. 2021, eq. 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.metrics.confusion import Confusion


class Tradeoff(NamedTuple):
    """A decision and its scores."""

    tau: float
    accuracy: float
    macro_recall: float


def tradeoff(
    log_posterior: npt.NDArray[np.floating[Any]],
    reference: npt.NDArray[np.integer[Any]],
    prior: npt.ArrayLike,
    taus: Iterable[float],
) -> list[Tradeoff]:
    """A row for each tau; log_posterior (N, K), reference (N,) class indices or IGNORE, prior (K,) positive."""
    shift = np.log(np.asarray(prior, np.float64))
    rows = []
    for tau in taus:
        found = Confusion(len(shift))
        found.add(reference.astype(np.uint8), (log_posterior - tau * shift).argmax(1).astype(np.uint8))
        scores = found.scores()
        rows.append(Tradeoff(float(tau), scores["oa"], scores["macro_recall"]))
    return rows


def best_within(rows: Sequence[Tradeoff], loss: float) -> Tradeoff:
    """The row of most macro recall that loses at most `loss` of the first row's accuracy."""
    return max((row for row in rows if row.accuracy >= rows[0].accuracy - loss), key=lambda row: row.macro_recall)


def expected_tradeoff(
    log_posterior: npt.NDArray[np.floating[Any]], prior: npt.ArrayLike, taus: Iterable[float]
) -> list[Tradeoff]:
    """As `tradeoff`, of posteriors (N, K) that are right, without labels: what the decisions are expected to score.

    Classes of prior 0 are not shifted and not counted. Labels of a few hundred chips say little on classes with five of
    them; probabilities say a little of every chip.
    """
    share = np.asarray(prior, np.float64)
    there, shift = share > 0, np.log(np.where(share > 0, share, 1))
    p = np.exp(log_posterior - np.logaddexp.reduce(log_posterior, 1, keepdims=True))
    rows = []
    for tau in taus:
        chosen = (log_posterior - tau * shift).argmax(1)
        hit = p[np.arange(len(p)), chosen]
        recall = np.bincount(chosen, hit, len(shift)) / np.maximum(p.sum(0), 1e-12)
        rows.append(Tradeoff(float(tau), float(hit.mean()), float(recall[there].mean())))
    return rows
