"""Whether probabilities can be believed: reliability table, ECE, Brier score, likelihood; the temperature to mend it.

Guo et al. (2017): confidence is the highest probability; the expected calibration error is the mean distance of
accuracy and confidence over bins of equal width, weighted by their pixels. Brier (1950): summed over classes, 0 to 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.core.legend import IGNORE
from covermap.metrics.confusion import ratio, same_shape

_LEAST = 1e-7  # a probability of 0 counts as this in the likelihood
FEWEST_LABELS = 50
TEMPERATURES = (0.05, 20.0)


class Calibration:
    """Accumulates probabilities (K, ...) with class indices of the same pixels; IGNORE is not counted."""

    def __init__(self, num_bins: int = 15) -> None:
        self._bins = np.zeros((3, num_bins))  # pixels, sum of confidence, hits
        self._brier = self._nll = 0.0

    def add(self, probability: npt.NDArray[np.floating], reference: npt.NDArray[np.integer]) -> None:
        """Count pixels; raises DataError where probabilities do not sum to 1 or a reference is no class."""
        same_shape(reference, probability[0])
        known = reference != IGNORE
        p, label = probability[:, known], reference[known].astype(np.intp)
        if not (np.abs(p.sum(0) - 1) < 1e-2).all() or p.min(initial=0) < 0:
            fix = "apply the softmax; the reference is 255 where there is no prediction"
            raise DataError("the probabilities of a pixel are NaN, negative or do not sum to 1", fix=fix)
        if label.min(initial=0) < 0 or label.max(initial=0) >= len(p):
            raise DataError(f"the reference holds values that are no class of {len(p)}", fix="encode it first")
        chosen = p[label, np.arange(label.size)]
        confidence, count = p.max(0), self._bins.shape[1]
        at = np.minimum((confidence * count).astype(np.intp), count - 1)
        self._bins += [np.bincount(at, w, count) for w in (None, confidence, p.argmax(0) == label)]
        self._brier += float((np.einsum("kn,kn->n", p, p) - 2 * chosen + 1).sum(dtype=np.float64))
        self._nll -= float(np.log(np.maximum(chosen, _LEAST)).sum(dtype=np.float64))

    def merge(self, other: Calibration) -> None:
        """Add the pixels of another one with as many bins."""
        same_shape(self._bins, other._bins)
        self._bins += other._bins
        self._brier, self._nll = self._brier + other._brier, self._nll + other._nll

    def scores(self) -> dict[str, float | int]:
        """ece, mce (the worst bin), brier, nll, mean confidence and accuracy; NaN where nothing was counted."""
        pixels, confidence, hits = self._bins
        total = pixels.sum()
        gaps = np.abs(confidence - hits)
        return {
            "ece": float(ratio(gaps.sum(), total)),
            "mce": float(np.max(ratio(gaps, pixels)[pixels > 0])) if total else float("nan"),
            "brier": float(ratio(self._brier, total)),
            "nll": float(ratio(self._nll, total)),
            "confidence": float(ratio(confidence.sum(), total)),
            "accuracy": float(ratio(hits.sum(), total)),
            "num_pixels": int(total),
        }

    def table(self) -> list[dict[str, float | int]]:
        """A row for each bin: from, to, mean confidence, accuracy, pixels."""
        pixels, confidence, hits = self._bins
        edges = np.linspace(0, 1, len(pixels) + 1)
        columns = zip(edges, edges[1:], ratio(confidence, pixels), ratio(hits, pixels), pixels, strict=False)
        return [
            {"from": float(a), "to": float(b), "confidence": float(c), "accuracy": float(h), "num_pixels": int(n)}
            for a, b, c, h, n in columns
        ]


def fit_sets(probability: npt.NDArray[np.floating], label: npt.NDArray[np.integer], coverage: float) -> float:
    """The probability from which on a class is in the set, so that sets hold the right class in a share of `coverage`.

    probability (N, K), label (N,). Split conformal prediction with the score 1 - p of the right class (Sadinle et al.
    2019, least ambiguous sets): on data that are exchangeable with these, coverage is at least as stated on average.
    Raises DataError for fewer than `FEWEST_LABELS` labels.
    """
    known = label != IGNORE
    p, label = probability[known], label[known].astype(np.intp)
    if len(label) < FEWEST_LABELS:
        raise DataError(f"{len(label)} labels are too few to fit sets", fix=f"give at least {FEWEST_LABELS}")
    right = np.sort(p[np.arange(len(label)), label])
    # The k-th largest score of n is the k-th smallest p from the other end; beyond the last, every class is in.
    left_out = len(right) - int(np.ceil((len(right) + 1) * coverage))
    return float(right[left_out]) if left_out >= 0 else 0.0


def fit_temperature(logits: npt.NDArray[np.floating], label: npt.NDArray[np.integer]) -> float:
    """The T for which softmax(logits / T) has the highest likelihood; logits or log-probabilities (N, K), labels (N,).

    The likelihood is concave in 1/T, so its slope is bisected. T lies in `TEMPERATURES`, whose ends mean that labels
    are all hit, or no better than chance. Raises DataError for fewer than `FEWEST_LABELS` labels.
    """
    known = label != IGNORE
    z, label = np.asarray(logits[known], np.float64), label[known].astype(np.intp)
    if len(label) < FEWEST_LABELS:
        raise DataError(f"{len(label)} labels are too few to fit a temperature", fix=f"give at least {FEWEST_LABELS}")
    z = np.maximum(z - z.max(1, keepdims=True), -1e4)  # the log-probability of 0 is minus infinity
    if np.isnan(z).any() or label.min() < 0 or label.max() >= z.shape[1]:
        raise DataError("logits hold NaN, or a label is no class", fix="give (N, K) logits and labels 0 to K - 1")
    hit = z[np.arange(len(label)), label].mean()
    low, high = np.log(1 / TEMPERATURES[1]), np.log(1 / TEMPERATURES[0])
    for _ in range(30):
        middle = (low + high) / 2
        weight = np.exp(z * np.exp(middle))
        too_sure = ((weight * z).sum(1) / weight.sum(1)).mean() > hit
        low, high = (low, middle) if too_sure else (middle, high)
    return float(np.exp(-(low + high) / 2))
