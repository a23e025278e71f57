"""One confusion matrix, accumulated over a whole split, and every score that follows from it.

Rows are reference, columns prediction. A class without a reference pixel is absent: its scores are NaN and it is left
out of the means, whose number of classes is given. Definitions: Congalton and Green (2019); IoU as in PASCAL VOC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE


class Confusion:
    """Counts of (reference, prediction) pairs for K classes; pixels with reference IGNORE are not counted."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def add(self, reference: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8]) -> None:
        """Count pixels of two arrays of class indices of one shape; predictions hold no IGNORE."""
        k = len(self.counts)
        known = reference != IGNORE
        pairs = reference[known].astype(np.intp) * k + prediction[known]
        self.counts += np.bincount(pairs, minlength=k * k).reshape(k, k)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def per_class(self) -> dict[str, npt.NDArray[np.float64]]:
        """iou, f1, users (precision), producers (recall) and reference pixels, each (K,); NaN where absent.

        A present class that is never predicted has user's accuracy NaN (nothing to judge) and IoU, F1, recall 0.
        """
        c = self.counts.astype(np.float64)
        hit, reference, predicted = np.diag(c), c.sum(1), c.sum(0)
        absent = reference == 0

        def ratio(top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            value = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
            return np.where(absent, np.nan, value)

        return {
            "iou": ratio(hit, reference + predicted - hit),
            "f1": ratio(2 * hit, reference + predicted),
            "users": ratio(hit, predicted),
            "producers": ratio(hit, reference),
            "reference_px": reference,
        }

    def scores(self) -> dict[str, Any]:
        """oa, miou, macro_f1, macro_recall, macro_precision, weighted_iou, kappa, num_present, num_pixels."""
        c = self.counts.astype(np.float64)
        total = c.sum()
        each = self.per_class()
        present = c.sum(1) > 0
        if total == 0:
            nothing = dict.fromkeys(_MEANS, float("nan"))
            return {**nothing, "num_present": 0, "num_pixels": 0}
        oa = np.diag(c).sum() / total
        chance = (c.sum(0) * c.sum(1)).sum() / total**2
        weights = c.sum(1)[present] / total
        return {
            "oa": float(oa),
            "miou": float(np.mean(each["iou"][present])),
            "macro_f1": float(np.mean(each["f1"][present])),
            "macro_recall": float(np.mean(each["producers"][present])),
            "macro_precision": float(np.mean(np.nan_to_num(each["users"][present]))),
            "weighted_iou": float((each["iou"][present] * weights).sum()),
            "kappa": float((oa - chance) / (1 - chance)) if chance < 1 else float("nan"),
            "num_present": int(present.sum()),
            "num_pixels": int(total),
        }

    def table(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each class with its name and `per_class` scores."""
        each = self.per_class()
        return [{"class": n, **{key: float(v[i]) for key, v in each.items()}} for i, n in enumerate(names)]


_MEANS = ("oa", "miou", "macro_f1", "macro_recall", "macro_precision", "weighted_iou", "kappa")
