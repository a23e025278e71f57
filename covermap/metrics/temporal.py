"""How much of a change is likely to be error: what maps of several dates say of each other, and what is to be expected.

All are counts of pixels, so that those of windows can be added.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError
from covermap.metrics.confusion import same_shape

_Mask = npt.NDArray[np.bool_]


class Violations(NamedTuple):
    """Pixels whose changes of three dates contradict each other, by rule, and how many are known."""

    appeared: int
    """No change from 1 to 2 nor 2 to 3, but from 1 to 3."""
    lost_first: int
    """Changed from 1 to 2, not from 2 to 3, nor from 1 to 3."""
    lost_second: int
    """Changed from 2 to 3, not from 1 to 2, nor from 1 to 3."""
    known: int

    @property
    def rate(self) -> float:
        """All three of the known pixels; NaN of none. Maps of classes have 0: their changes follow from them."""
        hits = self.appeared + self.lost_first + self.lost_second
        return hits / self.known if self.known else float("nan")

    def plus(self, other: Violations) -> Violations:
        """Those of two windows."""
        return Violations(*(a + b for a, b in zip(self, other, strict=True)))


class ExpectedErrors(NamedTuple):
    """Pixels, or hectares, that are expected to be changed falsely or missed by a map of change; all that are known."""

    false_change: float
    missed_change: float
    known: float

    def plus(self, other: ExpectedErrors) -> ExpectedErrors:
        """Those of two windows."""
        return ExpectedErrors(*(a + b for a, b in zip(self, other, strict=True)))


def violations(c12: _Mask, c23: _Mask, c13: _Mask, known: _Mask | None = None) -> Violations:
    """Changes (H, W) between dates 1, 2 and 3, each mapped on its own; known: where all of them are."""
    same_shape(c12, c23)
    same_shape(c12, c13)
    seen = np.ones(c12.shape, bool) if known is None else known
    rules = (~c12 & ~c23 & c13, c12 & ~c23 & ~c13, ~c12 & c23 & ~c13)
    appeared, lost_first, lost_second = (int((rule & seen).sum()) for rule in rules)
    return Violations(appeared, lost_first, lost_second, int(seen.sum()))


def expected_errors(
    changed: _Mask, probability: npt.NDArray[np.floating[Any]], row_areas: npt.ArrayLike = 1.0
) -> ExpectedErrors:
    """Of a map of change and P(change), both (H, W), NaN where unknown: as good as probabilities are calibrated.

    row_areas: of a pixel of each row (H,), which are then summed.
    """
    same_shape(changed, probability)
    known = ~np.isnan(probability)
    p = np.where(known, probability, 0).astype(np.float64)
    rows = np.broadcast_to(np.asarray(row_areas, np.float64), len(p))
    found = (np.where(changed & known, 1 - p, 0), np.where(changed, 0, p), known)
    return ExpectedErrors(*(float(part.sum(1) @ rows) for part in found))


def expected_false_share(first: float, second: float, num_classes: int) -> float:
    """The share of unchanged ground that two maps call changed, from their overall accuracies.

    1 - (a1 a2 + (1 - a1)(1 - a2) / (K - 1)): errors independent of each other and spread over the other classes. Errors
    that maps have in common, as of one model at one place, make it less. Raises ConfigError.
    """
    if not (0 <= first <= 1 and 0 <= second <= 1) or num_classes < 1:
        raise ConfigError(f"accuracies {first:g}, {second:g} are not in 0 to 1", fix="give shares, not percent")
    both_wrong = (1 - first) * (1 - second) / (num_classes - 1) if num_classes > 1 else 0.0
    return 1 - (first * second + both_wrong)
