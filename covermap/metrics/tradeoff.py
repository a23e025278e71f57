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
