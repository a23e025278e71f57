"""Scores of yes and no: a hazard's probability, pooled over a whole set and counted by chip; chips of several classes.

Rankings need every threshold. Positives and negatives are counted in bins of the probability, its float32 value cut to
14 significant bits: memory is bounded, and scores equal those of scikit-learn on probabilities cut like this exactly,
on the probabilities themselves within 1e-4. Precision, recall, F1 and IoU at `threshold` are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError, LabelError
from covermap.core.legend import IGNORE
from covermap.metrics.confusion import ratio, same_shape

_SHIFT = 10  # of float32's 24 significant bits, 14 stay
_LOWEST = int(np.float32(2.0**-40).view(np.uint32)) >> _SHIFT  # what is lower counts as 0
_BINS = (int(np.float32(1).view(np.uint32)) >> _SHIFT) - _LOWEST + 1
_TP, _FP, _FN, _KNOWN = range(4)


class BinaryScores:
    """Accumulates probabilities (any shape, float) and references (same shape; 1, 0 or IGNORE), chip by chip."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._ranks = np.zeros((2, _BINS), np.int64)  # negatives, positives
        self._pixels = np.zeros(4, np.int64)
        self._chips: dict[str, tuple[npt.NDArray[np.int64], float]] = {}  # pixels, highest probability

    def add(self, probability: npt.NDArray[Any], reference: npt.NDArray[Any], *, chip: str | None = None) -> None:
        """Count pixels; parts of a chip may come one after the other under its name.

        Raises DataError for probabilities of counted pixels that are NaN or not in 0 to 1, LabelError for references.
        """
        same_shape(reference, probability)
        known = reference != IGNORE
        p, positive = probability[known].astype(np.float32), reference[known]
        if positive.size and not ((positive == 0) | (positive == 1)).all():
            raise LabelError("a reference of a hazard holds other values than 0, 1 and 255", fix="encode it first")
        if p.size and not (p.min() >= 0 and p.max() <= 1):  # also where NaN
            fix = "give probabilities, not logits; the reference is 255 where there is no prediction"
            raise DataError("probabilities hold NaN or values outside 0 to 1", fix=fix)
        positive = positive.astype(bool)
        np.add.at(self._ranks.reshape(-1), _bins(p) + positive * _BINS, 1)
        predicted = p >= self.threshold
        tp, says, is_ = (int(np.count_nonzero(v)) for v in (predicted & positive, predicted, positive))
        pixels = np.array([tp, says - tp, is_ - tp, p.size])
        self._pixels += pixels
        if chip is not None:
            self._add_chip(chip, pixels, float(p.max(initial=0)))

    def merge(self, other: BinaryScores) -> None:
        """Add what another one has counted at the same threshold."""
        if self.threshold != other.threshold:
            raise DataError(f"thresholds {self.threshold} and {other.threshold} differ", fix="score both at one")
        self._ranks += other._ranks
        self._pixels += other._pixels
        for chip, (pixels, highest) in other._chips.items():
            self._add_chip(chip, pixels, highest)

    def _add_chip(self, chip: str, pixels: npt.NDArray[np.int64], highest: float) -> None:
        before = self._chips.get(chip, (np.zeros(4, np.int64), 0.0))
        self._chips[chip] = (before[0] + pixels, max(before[1], highest))

    def best_threshold(self) -> tuple[float, float]:
        """The threshold with the highest F1 of this set, and that F1 (`probability >= threshold` is positive).

        Find it on one set and apply it to another: on the set where it was found its F1 is too high.
        """
        negatives, positives = self._ranks[:, ::-1].cumsum(1)
        f1 = ratio(2 * positives, (positives + negatives + positives[-1]) * (positives[-1] > 0))
        if np.isnan(f1[0]):
            return float("nan"), float("nan")
        best = _BINS - 1 - int(np.argmax(f1))
        lowest = float(np.uint32(best + _LOWEST << _SHIFT).view(np.float32)) if best else 0.0
        return lowest, float(f1.max())

    def scores(self) -> dict[str, float | int]:
        """auc, auprc, at the threshold precision, recall, f1, iou; counts by chip. NaN where `reasons` says why."""
        tp, fp, fn, known = (int(v) for v in self._pixels)
        any_positive = tp + fn > 0
        best, best_f1 = self.best_threshold()
        return {
            "auc": auc(*self._ranks),
            "auprc": average_precision(*self._ranks),
            "precision": float(ratio(tp, (tp + fp) * any_positive)),
            "recall": float(ratio(tp, tp + fn)),
            "f1": float(ratio(2 * tp, (2 * tp + fp + fn) * any_positive)),
            "iou": float(ratio(tp, (tp + fp + fn) * any_positive)),
            "threshold": self.threshold,
            "best_threshold": best,
            "best_f1": best_f1,
            "num_pixels": known,
            "num_positive": tp + fn,
            "num_predicted": tp + fp,
            **self._by_chip(),
        }

    def _by_chip(self) -> dict[str, float | int]:
        known = [chip for chip in self._chips.values() if chip[0][_KNOWN]]
        pixels, highest = np.array([c[0] for c in known], np.int64).reshape(-1, 4), np.array([c[1] for c in known])
        error, positive = pixels[:, _FP] - pixels[:, _FN], pixels[:, _TP] + pixels[:, _FN] > 0
        found: dict[str, float | int] = {"num_chips": len(known), "num_positive_chips": int(positive.sum())}
        for which, chosen in (("positive_chips", positive), ("negative_chips", ~positive)):
            for what, of in (("count_error", error[chosen]), ("count_abs_error", np.abs(error[chosen]))):
                found[f"{what}_mean_{which}"] = float(of.mean()) if of.size else float("nan")
                found[f"{what}_median_{which}"] = float(np.median(of)) if of.size else float("nan")
        false = pixels[~positive, _FP]
        found["false_positive_px_negative_chips"] = int(false.sum())
        found["false_alarm_share_negative_chips"] = float(ratio((false > 0).sum(), false.size))
        found["chip_auc"] = auc(*ranks(highest, positive))
        return found

    def reasons(self) -> dict[str, str]:
        """Why a score of `scores` is NaN, by its name."""
        found = self.scores()
        pooled = f"no {'negative' if found['num_positive'] else 'positive'} in the scored split"
        special = {"chip_auc": "the scored split needs chips with and chips without a positive"}
        special |= {"precision": "nothing is predicted positive"} if found["num_positive"] else {}
        for side in ("positive", "negative"):
            special |= {name: f"no {side} chip in the scored split" for name in found if name.endswith(f"{side}_chips")}
        return {name: special.get(name, pooled) for name, value in found.items() if value != value}

    def chips(self) -> list[dict[str, Any]]:
        """A row for each chip: reference and predicted pixels, signed count error, false positives, highest."""
        return [
            {"chip": chip, "num_pixels": int(known), "reference_px": int(tp + fn), "predicted_px": int(tp + fp),
             "count_error": int(fp - fn), "false_positive_px": int(fp), "highest": highest}
            for chip, ((tp, fp, fn, known), highest) in self._chips.items()
        ]  # fmt: skip


class MultiLabelScores:
    """Scores of chips that hold several classes: keeps probabilities (N, K) and references (N, K; 1, 0 or IGNORE).

    A class without a positive chip is absent: it is NaN, left out of the means, and counted.
    """

    def __init__(self, num_classes: int, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._probability = np.empty((0, num_classes), np.float32)
        self._reference = np.empty((0, num_classes), np.uint8)

    def add(self, probability: npt.NDArray[Any], reference: npt.NDArray[Any]) -> None:
        """Add chips; raises DataError for shapes, probabilities or references that do not fit."""
        same_shape(reference, probability)
        if probability.shape[1:] != self._probability.shape[1:]:
            raise DataError(f"{probability.shape} is not (chips, classes of the legend)", fix="use the labels' legend")
        known = reference != IGNORE
        if not np.isin(reference[known], (0, 1)).all() or not ((probability >= 0) & (probability <= 1))[known].all():
            raise DataError("references are not 0, 1, 255 or probabilities not in 0 to 1", fix="apply the sigmoid")
        self._probability = np.concatenate([self._probability, probability.astype(np.float32)])
        self._reference = np.concatenate([self._reference, reference.astype(np.uint8)])

    def merge(self, other: MultiLabelScores) -> None:
        """Add the chips of another one."""
        self.add(other._probability, other._reference)

    def per_class(self) -> dict[str, npt.NDArray[np.float64]]:
        """average_precision, f1, precision, recall and positive chips, each (K,); NaN where absent.

        Average precision is NaN too where no chip lacks the class. A class that is never predicted has precision NaN
        and F1, recall 0.
        """
        tp, says, positives = self._counts()
        columns = zip(self._probability.T, self._reference.T, strict=True)
        each = [average_precision(*ranks(p[r != IGNORE], r[r != IGNORE] == 1)) for p, r in columns]
        mixed = (self._reference == 0).any(0)  # any order of positives alone is a right one
        return {
            "average_precision": np.where(mixed, each, np.nan),
            "f1": ratio(2 * tp, (says + positives) * (positives > 0)),
            "precision": ratio(tp, says * (positives > 0)),
            "recall": ratio(tp, positives),
            "positives": positives.astype(np.float64),
        }

    def scores(self) -> dict[str, float | int]:
        """map (mean average precision), macro_f1, micro_f1 of classes that have one; numbers of classes and chips."""
        each, present = self.per_class(), self._counts()[2] > 0
        ranked = each["average_precision"][np.isfinite(each["average_precision"])]
        tp, says, positives = (v[present].sum() for v in self._counts())
        return {
            "map": float(ratio(ranked.sum(), len(ranked))),
            "macro_f1": float(ratio(each["f1"][present].sum(), present.sum())),
            "micro_f1": float(ratio(2 * tp, says + positives)),
            "threshold": self.threshold,
            "num_present": int(present.sum()),
            "num_absent": int((~present).sum()),
            "num_chips": len(self._reference),
        }

    def _counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        positive = self._reference == 1
        says = (self._probability >= self.threshold) & (self._reference != IGNORE)
        return (says & positive).sum(0), says.sum(0), positive.sum(0)


def auc(negatives: npt.NDArray[Any], positives: npt.NDArray[Any]) -> float:
    """Area under the ROC curve from counts by rising rank: a tie counts half; NaN without positives or negatives."""
    below = np.cumsum(negatives) - negatives / 2
    return float(ratio((positives * below).sum(), float(positives.sum()) * float(negatives.sum())))


def average_precision(negatives: npt.NDArray[Any], positives: npt.NDArray[Any]) -> float:
    """Sum of precision x gain in recall over falling ranks, as scikit-learn defines it; NaN without positives."""
    hits, alarms = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    precision = np.nan_to_num(ratio(hits, hits + alarms))
    return float(ratio((precision * positives[::-1]).sum(), positives.sum()))


def ranks(score: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Counts (2, R) of negatives and positives at each of the R different scores, rising."""
    values, at = np.unique(score, return_inverse=True)
    return np.stack([np.bincount(at[positive == side], minlength=len(values)) for side in (False, True)])


def _bins(p: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    # Floats that are not negative rank like their bits; + 0 makes +0.0 of -0.0, whose bits rank last.
    bits = (p + np.float32(0)).view(np.uint32) >> np.uint32(_SHIFT)
    return np.asarray(np.maximum(bits, np.uint32(_LOWEST)).astype(np.intp) - _LOWEST)
