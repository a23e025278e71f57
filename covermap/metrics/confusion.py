"""One confusion matrix, accumulated over a whole split, and every score that follows from it.

Rows are reference, columns prediction. A class without a reference pixel is absent: its scores are NaN and it is left
out of the means, whose number of classes is given. Definitions: Congalton and Green (2019); IoU as in PASCAL VOC; the
correlation of Matthews for many classes: Gorodkin (2004).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE, Legend, histogram

_Bytes: TypeAlias = npt.NDArray[np.uint8]
_BLOCK = 1 << 19  # pixels that stay in the processor's cache from one pass to the next
_OUTSIDE = 15  # column of a prediction that is no class, where pairs are packed into one byte


class Confusion:
    """Counts of (reference, prediction) pairs for K classes; pixels with reference IGNORE are not counted."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def add(self, reference: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> None:
        """Count pixels of two arrays of class indices, integer and of one shape, of any shape.

        Raises LabelError, and counts nothing, where shapes differ, a reference is neither a class nor IGNORE, or the
        prediction of a counted pixel is no class.
        """
        k = len(self.counts)
        reference, prediction = _as_bytes(reference, "reference"), _as_bytes(prediction, "prediction")
        if k < _OUTSIDE:
            rows = _packed(reference, prediction, lambda r, p: _pack(r, p, k))[1:]
        else:
            rows = pair_counts(reference, prediction)
        if rows[k:IGNORE].any():
            wrong = {i: n for i, n in enumerate(histogram(reference)[:IGNORE].tolist()) if n and i >= k}
            fix = "encode it with the legend of the model; unlabelled pixels are 255"
            raise LabelError(f"the reference holds values that are no class of {k}: {wrong} (value: pixels)", fix=fix)
        if outside := int(rows[:k, k:].sum()):
            fix = "set the reference to 255 where the map has no value, or encode the map with its legend"
            raise LabelError(f"the prediction is no class of {k} at {outside:,} counted pixels", fix=fix)
        self.counts += rows[:k, :k]

    def add_codes(self, reference: npt.NDArray[Any], prediction: npt.NDArray[Any], legend: Legend) -> None:
        """Count pixels of two arrays of raw codes; the legend's nodata and ignored codes in the reference are IGNORE.

        Raises LabelError like `add`, and for a code of the reference that the legend does not know.
        """
        k = len(self.counts)
        if k < _OUTSIDE and reference.dtype == prediction.dtype == np.uint8:
            index = np.frombuffer(legend.byte_table, np.uint8)
            row = (np.where(index == IGNORE, 0, np.minimum(index, 14) + 1) * 16).astype(np.uint8).tobytes()
            column = np.minimum(index, _OUTSIDE).tobytes()

            def pack(r: _Bytes, p: _Bytes) -> _Bytes:
                rows, columns = bytearray(r).translate(row), bytearray(p).translate(column)
                return np.frombuffer(rows, np.uint8) | np.frombuffer(columns, np.uint8)

            found = _packed(reference, prediction, pack)
            if not found[k + 1 :].any() and not found[1:, k:].any():
                self.counts += found[1 : k + 1, :k]
                return
        # Codes of other types; or something is wrong, and these say what.
        self.add(legend.encode(reference, where="the reference"), legend.encode(prediction, unknown="ignore"))

    def merge(self, other: Confusion) -> None:
        """Add the counts of another matrix of the same classes."""
        same_shape(self.counts, other.counts)
        self.counts += other.counts

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def per_class(self) -> dict[str, npt.NDArray[np.float64]]:
        """iou, f1 (Dice), users (precision), producers (recall) and reference pixels, each (K,); NaN where absent.

        A present class that is never predicted has user's accuracy NaN (nothing to judge) and IoU, F1, recall 0.
        """
        return per_class(self.counts)

    def scores(self) -> dict[str, Any]:
        """What `scores_of` gives, as numbers, with num_present, num_absent (classes) and num_pixels."""
        present = int((self.counts.sum(1) > 0).sum())
        numbers = {"num_present": present, "num_absent": len(self.counts) - present, "num_pixels": self.total}
        return {name: float(value) for name, value in scores_of(self.counts).items()} | numbers

    def table(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each class with its name and `per_class` scores."""
        each = self.per_class()
        return [{"class": n, **{key: float(v[i]) for key, v in each.items()}} for i, n in enumerate(names)]


def per_class(counts: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """`Confusion.per_class` of counts (..., K, K): each score (..., K)."""
    c = np.asarray(counts, np.float64)
    hit, reference, predicted = np.diagonal(c, axis1=-2, axis2=-1), c.sum(-1), c.sum(-2)
    present = reference > 0
    return {
        "iou": ratio(hit, present * (reference + predicted - hit)),
        "f1": ratio(2 * hit, present * (reference + predicted)),
        "users": ratio(hit, present * predicted),
        "producers": ratio(hit, reference),
        "reference_px": reference,
    }


def scores_of(counts: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of counts (..., K, K), each (...); NaN where undefined.

    oa (overall accuracy; also micro precision, recall and F1), miou, macro_f1, macro_recall (balanced accuracy),
    macro_precision, micro_iou, weighted_iou (by reference pixels), kappa, mcc (Matthews). Means are over the classes
    present; a class that is never predicted counts with precision 0.
    """
    c = np.asarray(counts, np.float64)
    hit, reference, predicted = np.trace(c, axis1=-2, axis2=-1), c.sum(-1), c.sum(-2)
    total, present, each = reference.sum(-1), reference > 0, per_class(c)
    macro = {name: ratio(np.nan_to_num(values).sum(-1), present.sum(-1)) for name, values in each.items()}
    above_chance = hit * total - (reference * predicted).sum(-1)
    pairs = (reference, predicted), (reference, reference), (predicted, predicted)
    both, of_reference, of_prediction = (total**2 - (a * b).sum(-1) for a, b in pairs)
    return {
        "oa": ratio(hit, total),
        "miou": macro["iou"],
        "macro_f1": macro["f1"],
        "macro_recall": macro["producers"],
        "balanced_accuracy": macro["producers"],
        "macro_precision": macro["users"],
        "micro_iou": ratio(hit, 2 * total - hit),
        "weighted_iou": ratio((np.nan_to_num(each["iou"]) * reference).sum(-1), total),
        "kappa": ratio(above_chance, both),
        "mcc": ratio(above_chance, np.sqrt(of_reference * of_prediction)),
    }


def merged(counts: npt.NDArray[Any], way: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Counts (..., K, K) in coarser classes; way (K, k) of 0 and 1 says which class becomes which."""
    return np.asarray(np.einsum("ia,...ij,jb->...ab", way, counts, way))


def ratio(top: npt.ArrayLike, bottom: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """top / bottom, NaN where bottom is not positive."""
    above, below = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0))


def same_shape(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> None:
    """Raise LabelError where shapes differ: numpy would repeat the smaller one."""
    if np.shape(a) != np.shape(b):
        fix = "give reference and prediction of one window, scores of one legend"
        raise LabelError(f"what is scored together differs in shape: {np.shape(a)} and {np.shape(b)}", fix=fix)


def _as_bytes(index: npt.NDArray[Any], what: str) -> _Bytes:
    found = np.asarray(index).astype(np.uint8, copy=False)
    if found is not index and (found != index).any():
        raise LabelError(f"the {what} holds values that are no class indices", fix="encode it with its legend")
    return found


def _blocks(reference: _Bytes, prediction: _Bytes) -> Iterator[tuple[_Bytes, _Bytes]]:
    same_shape(reference, prediction)
    flat, other = reference.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK], other[start : start + _BLOCK]


def _packed(reference: _Bytes, prediction: _Bytes, pack: Callable[[_Bytes, _Bytes], _Bytes]) -> npt.NDArray[np.int64]:
    """(16, 16) counts of pairs that `pack` makes one byte each: row x 16 + column; row 0 is IGNORE."""
    pairs = (pack(r, p) for r, p in _blocks(reference, prediction))
    return sum(map(histogram, pairs), np.zeros(256, np.int64)).reshape(16, 16)


def _pack(reference: _Bytes, prediction: _Bytes, k: int) -> _Bytes:
    """reference + 1, which makes 0 of IGNORE (255) without a look at any pixel, beside the prediction.

    A reference that is no class goes to the row behind the last one, such a prediction to the last column.
    """
    pairs = reference + np.uint8(1)
    if pairs.max(initial=0) > k:
        pairs = np.minimum(pairs, np.uint8(k + 1))
    if prediction.max(initial=0) >= k:
        prediction = np.where(prediction < k, prediction, np.uint8(_OUTSIDE))
    pairs *= np.uint8(16)
    pairs |= prediction
    return pairs


def pair_counts(reference: _Bytes, prediction: _Bytes) -> npt.NDArray[np.int64]:
    """(256, 256) counts of pairs of two arrays of bytes, of one shape."""
    table = np.zeros(1 << 16, np.int64)
    for r, p in _blocks(reference, prediction):
        table += np.bincount(r * np.uint16(256) + p, minlength=1 << 16)
    return table.reshape(256, 256)
