"""Scores of change between two dates: one joint histogram of what is and what is said, from which all of them follow.

A pixel has a class on each date and is changed or not; a mask may say so beside the classes, or the classes alone do.
Both sides of a comparison are brought to states, and states are counted in pairs:

    a K + b   changed from class a to class b         K^2   changed, classes not known
    the same + K^2 + 1   not changed; of two classes a and b that differ it contradicts itself

The field publishes scores of semantic change by two tables, which give different numbers under the same names, so the
convention is always stated:

    dates_stacked   (K + 1)^2, two entries for each pixel, one for each date: its class where changed, else 0
                    (Bi-SRNet, SCanNet, GSTM-SCD, open-cd)
    from_to         (K^2 + 1)^2, one entry: the pair of classes where changed, else 0 (SECOND's own, torchange, MambaCD)

Separated kappa: Yang et al. (2022), doi:10.1109/TGRS.2021.3113912. SCS: Toker et al. (2022), DynamicEarthNet.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE
from covermap.metrics.confusion import pair_counts, ratio, same_shape

Convention: TypeAlias = Literal["dates_stacked", "from_to"]
CONVENTIONS: tuple[Convention, ...] = ("dates_stacked", "from_to")
Counts: TypeAlias = npt.NDArray[Any]
MOST_CLASSES = 50
"""Classes whose joint histogram (200 MB) can be held."""
_BLOCK = 1 << 18


class Pair(NamedTuple):
    """Class indices of both dates, of one shape, IGNORE where not known; changed: a mask (0, 1, IGNORE), if there is.

    Without a mask a pixel is changed where its classes differ, and not known where one of them is not.
    """

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    changed: npt.NDArray[Any] | None = None

    def cut(self, at: Any) -> Pair:
        """Some of its pixels."""
        return Pair(self.before[at], self.after[at], None if self.changed is None else self.changed[at])

    def flat(self) -> Pair:
        """Its pixels in a row."""
        changed = None if self.changed is None else self.changed.reshape(-1)
        return Pair(self.before.reshape(-1), self.after.reshape(-1), changed)


class _Part(NamedTuple):
    """Counts of some states of the reference (rows) and of the prediction (cols)."""

    rows: npt.NDArray[np.intp]
    cols: npt.NDArray[np.intp]
    table: Counts


class JointCounter:
    """Counts of (reference, prediction) pairs of states for K classes, (S, S) with S = 2 K^2 + 2.

    Pixels of which the reference tells nothing are not counted. Raises LabelError for more classes than can be held.
    """

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= MOST_CLASSES:
            raise LabelError(
                f"scores of change between {num_classes} classes would need a table that no memory holds",
                fix=f"merge classes until there are {MOST_CLASSES} at most",
            )
        self.num_classes = num_classes
        self.states = States(num_classes)
        self.counts = np.zeros((self.states.number,) * 2, np.int64)

    def add(self, reference: Pair, prediction: Pair) -> None:
        """Count pixels; all arrays are of one shape, of any.

        Raises LabelError, and counts nothing, where shapes differ, a value is no class, or the prediction of a counted
        pixel is not known.
        """
        for array in (*reference[1:], *prediction):
            if array is not None:
                same_shape(reference[0], array)
        reference, prediction = reference.flat(), prediction.flat()
        small, parts, unanswered = self.states.dtype == np.uint8, list[_Part](), 0
        for start in range(0, reference.before.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            truth, said = (self.states.of(pair.cut(block)) for pair in (reference, prediction))
            part, lost = (self._of_few if small else self._of_many)(truth, said)
            if small and parts:  # all of one size: a sum takes no more than the first
                parts[0].table[:] += part.table
            else:
                parts.append(part)
            unanswered += lost
        if unanswered:
            raise LabelError(
                f"the prediction is not known at {unanswered:,} counted pixels",
                fix="set the reference to 255 where the map has no value, or encode the map with its legend",
            )
        for part in parts:
            self.counts[np.ix_(part.rows, part.cols)] += part.table

    def _of_few(self, truth: npt.NDArray[Any], said: npt.NDArray[Any]) -> tuple[_Part, int]:
        """Counts of a block of states that are bytes, and how many pixels of it the prediction does not tell."""
        number, table = self.states.number, pair_counts(truth, said)
        every = np.arange(number)
        return _Part(every, every, table[:number, :number]), int(table[:number, number:].sum())

    def _of_many(self, truth: npt.NDArray[Any], said: npt.NDArray[Any]) -> tuple[_Part, int]:
        """The same of more states: a block holds few of them, and those alone are counted."""
        number, known = self.states.number, truth != self.states.unknown
        truth, said = truth[known], said[known]
        told = said != self.states.unknown
        (rows, row), (cols, col) = (_present(side[told], number) for side in (truth, said))
        keys = row[truth[told]] * len(cols) + col[said[told]]
        table = np.bincount(keys, minlength=len(rows) * len(cols)).reshape(len(rows), len(cols))
        return _Part(rows, cols, table), int((~told).sum())

    def merge(self, other: JointCounter) -> None:
        """Add the counts of another one of as many classes."""
        same_shape(self.counts, other.counts)
        self.counts += other.counts

    @property
    def total(self) -> int:
        """Counted pixels."""
        return int(self.counts.sum())

    def margins(self, convention: Convention) -> Counts:
        """(3, M): agreement, prediction and reference of each row of a convention's table.

        Row 0 is no change; the last is change of which the prediction tells no classes, which is never right. Pixels
        that the reference calls changed without telling its classes are left out. Margins add up over parts of a scene,
        and all published scores follow from them.
        """
        counts = self.counts.copy()
        counts[self.states.bare] = 0
        groups, size = _groups(self.states, self.num_classes, convention)
        found = np.zeros((3, size), np.int64)
        for group in groups:
            same = counts * (group[:, None] == group)
            for row, sums in zip(found, (same.sum(1), counts.sum(0), counts.sum(1)), strict=True):
                row += np.bincount(group, weights=sums, minlength=size).astype(np.int64)
        return found

    def semantic(self, convention: Convention) -> dict[str, float]:
        """Scores of semantic change by a convention; see `semantic_scores`."""
        return {key: float(value) for key, value in semantic_scores(self.margins(convention)).items()}

    def binary(self) -> dict[str, float]:
        """Scores of change against no change; see `binary_scores`."""
        return {key: float(value) for key, value in binary_scores(self.binary_counts()).items()}

    def binary_counts(self) -> Counts:
        """(2, 2): rows reference, columns prediction, unchanged first."""
        changed = self.states.changed.astype(np.intp)
        return _grouped(self.counts, changed, changed, 2)

    def classes(self, date: int) -> Counts:
        """Confusion (K, K) of date 0 or 1, rows reference, of pixels whose class the reference tells."""
        groups = (self.states.before, self.states.after)[date]
        known = groups >= 0
        k = self.num_classes
        return _grouped(self.counts * known[:, None] * known, np.maximum(groups, 0), np.maximum(groups, 0), k)

    def transitions(self, side: Literal["reference", "prediction"] = "prediction") -> Counts:
        """Pixels (K, K) by class before (rows) and after, of those whose classes a side tells; by its classes alone."""
        sums = self.counts.sum(0 if side == "prediction" else 1)
        known, k = self.states.before >= 0, self.num_classes
        keys = self.states.before[known] * k + self.states.after[known]
        return np.bincount(keys, weights=sums[known], minlength=k * k).astype(np.int64).reshape(k, k)

    def contradictions(self) -> dict[str, int]:
        """Pixels of each side whose mask and classes contradict each other: changed of one class, unchanged of two."""
        s = self.states
        two = (s.before >= 0) & (s.before != s.after)
        one = (s.before >= 0) & (s.before == s.after)
        found = {}
        for side, sums in (("reference", self.counts.sum(1)), ("prediction", self.counts.sum(0))):
            found[f"{side}_changed_of_one_class"] = int(sums[s.changed & one].sum())
            found[f"{side}_unchanged_of_two_classes"] = int(sums[~s.changed & two].sum())
        return found

    def errors(self) -> dict[str, float]:
        """Where a score is lost, as shares of counted pixels: missed and false change, wrong class before, after, both.

        Wrong classes are of pixels that are rightly called changed and whose classes both sides tell.
        """
        s, counts, total = self.states, self.counts, max(self.total, 1)
        both = counts[np.ix_(s.changed, s.changed)].copy()
        before, after = s.before[s.changed], s.after[s.changed]
        both[before < 0] = both[:, before < 0] = 0
        wrong = before[:, None] != before, after[:, None] != after
        found = {
            "missed": counts[np.ix_(s.changed, ~s.changed)].sum(),
            "false": counts[np.ix_(~s.changed, s.changed)].sum(),
            "wrong_before": both[wrong[0] & ~wrong[1]].sum(),
            "wrong_after": both[wrong[1] & ~wrong[0]].sum(),
            "wrong_both": both[wrong[0] & wrong[1]].sum(),
        }
        return {key: float(value / total) for key, value in found.items()}

    def change_segmentation(self) -> dict[str, float]:
        """BC, SC and SCS of DynamicEarthNet; see `change_segmentation_scores`."""
        return change_segmentation_scores(self.binary_counts(), self.classes_where_changed())

    def classes_where_changed(self) -> Counts:
        """Confusion (K, K) of the later classes, rows reference, of pixels that the reference calls changed."""
        s = self.states
        here, told = s.changed & (s.after >= 0), s.after >= 0
        counts = self.counts * here[:, None] * told
        return _grouped(counts, np.maximum(s.after, 0), np.maximum(s.after, 0), self.num_classes)


class States:
    """The states of K classes: before, after (S,) class indices, -1 where not known; changed (S,)."""

    def __init__(self, num_classes: int) -> None:
        k = self._k = num_classes
        self.bare = k * k  # changed, classes not known
        self.number = 2 * (self.bare + 1)
        self.dtype = np.uint8 if self.number < 256 else np.uint16
        self.unknown = int(np.iinfo(self.dtype).max)
        a, b = (v.ravel() for v in np.divmod(np.arange(k * k), k))
        self.before, self.after = (np.tile(np.append(side, -1), 2) for side in (a, b))
        self.changed = np.arange(self.number) <= self.bare
        self._tables = self._make_tables()

    def _make_tables(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """States of 256 before + after, (65536,) each: where no mask tells, and where it says changed."""
        k, index = self._k, np.arange(256)
        known = (index < k)[:, None] & (index < k)
        changed = np.where(known, index[:, None] * k + index, self.bare)
        alone = np.where(index[:, None] == index, changed + self.bare + 1, changed)
        first, second = (np.where(known, alone, self.unknown), changed)
        return first.ravel().astype(self.dtype), second.ravel().astype(self.dtype)

    def of(self, pair: Pair) -> npt.NDArray[Any]:
        """States (N,) of flat arrays, `unknown` where nothing is told; raises LabelError for what is no class."""
        before, after = (_as_bytes(values) for values in pair[:2])
        if before.max(initial=0) >= self._k or after.max(initial=0) >= self._k:
            self._require_classes(before, after)
        keys = before.astype(np.uint16)
        keys <<= 8
        keys |= after
        if pair.changed is None:
            return self._tables[0].take(keys)
        mask, found = _as_bytes(pair.changed), self._tables[1].take(keys)
        found += (mask == 0) * self.dtype(self.bare + 1)
        if mask.max(initial=0) > 1:
            if (odd := (mask > 1) & (mask != IGNORE)).any():
                raise LabelError(
                    f"the mask of change holds {int(mask[odd][0])}", fix="0 is unchanged, 1 changed, 255 not known"
                )
            found[mask == IGNORE] = self.unknown
        return found

    def _require_classes(self, *sides: npt.NDArray[np.uint8]) -> None:
        for side in sides:
            if (odd := (side >= self._k) & (side != IGNORE)).any():
                raise LabelError(
                    f"there is a class index {int(side[odd][0])}, but there are {self._k} classes",
                    fix="encode both dates with one legend; what is not known is 255",
                )


def _groups(states: States, k: int, convention: Convention) -> tuple[list[npt.NDArray[np.intp]], int]:
    """Row of a convention's table for each state, an array for each entry of a pixel; and how many rows there are."""
    if convention == "dates_stacked":
        groups, size = [np.where(states.changed, side + 1, 0) for side in (states.before, states.after)], k + 2
    elif convention == "from_to":
        groups, size = [np.where(states.changed, states.before * k + states.after + 1, 0)], k * k + 2
    else:
        raise LabelError(f"there is no convention {convention!r}", fix=f"use {' or '.join(CONVENTIONS)}")
    for group in groups:
        group[states.bare] = size - 1
    return groups, size


class Margins:
    """Margins of all conventions and counts of change of small parts of a scene, without a joint histogram of each."""

    def __init__(self, num_classes: int) -> None:
        self.states = States(num_classes)
        self._groups = {c: _groups(self.states, num_classes, c) for c in CONVENTIONS}

    def of(self, truth: npt.NDArray[Any], said: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """States of a part, of the reference and of the prediction -> (3, M) by convention, then (2, 2), in a row.

        Pixels of which the reference tells nothing are not counted; the prediction is known of all others.
        """
        known = truth != self.states.unknown
        truth, said = truth[known], said[known]
        told = truth != self.states.bare
        found = []
        for groups, size in self._groups.values():
            rows = np.zeros((3, size), np.int64)
            for group in groups:
                there, mine = group[truth[told]], group[said[told]]
                for row, values in zip(rows, (there[there == mine], mine, there), strict=True):
                    row += np.bincount(values, minlength=size)
            found.append(rows.ravel())
        changed = self.states.changed.astype(np.intp)
        found.append(np.bincount(2 * changed[truth] + changed[said], minlength=4))
        return np.concatenate(found)


def semantic_scores(margins: Counts) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of margins (..., 3, M), each (...), from 0 to 1 (SeK from -1); NaN where undefined, as without any change.

    oa, iou_unchanged, iou_changed, miou (their mean), sek (separated kappa), score (0.3 miou + 0.7 sek), precision,
    recall and fscd (of changed pixels with the right class, or pair of classes).
    """
    same, said, there = np.moveaxis(np.asarray(margins, np.float64), -2, 0)
    total, still = said.sum(-1), same[..., 0]
    either = total - still
    iou_unchanged = ratio(still, said[..., 0] + there[..., 0] - still)
    iou_changed = ratio(total - said[..., 0] - there[..., 0] + still, either)
    # The table without its largest cell: what both call unchanged says nothing of how change is told.
    rho = ratio(same[..., 1:].sum(-1), either)
    chance = (said[..., 1:] * there[..., 1:]).sum(-1) + (said[..., 0] - still) * (there[..., 0] - still)
    eta = ratio(chance, either**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa = np.where(eta < 1, (rho - eta) / (1 - eta), np.nan)
        sek = kappa * np.exp(iou_changed - 1)
    precision, recall = (ratio(same[..., 1:].sum(-1), side[..., 1:].sum(-1)) for side in (said, there))
    miou = (iou_unchanged + iou_changed) / 2
    return {
        "oa": ratio(same.sum(-1), total), "iou_unchanged": iou_unchanged, "iou_changed": iou_changed, "miou": miou,
        "sek": sek, "score": 0.3 * miou + 0.7 * sek, "precision": precision, "recall": recall,
        "fscd": ratio(2 * same[..., 1:].sum(-1), said[..., 1:].sum(-1) + there[..., 1:].sum(-1)),
    }  # fmt: skip


def binary_scores(counts: Counts) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of change of counts (..., 2, 2), rows reference, unchanged first; each (...), NaN where undefined."""
    c = np.asarray(counts, np.float64)
    hit, missed, false, right = c[..., 1, 1], c[..., 1, 0], c[..., 0, 1], c[..., 0, 0]
    total = c.sum((-1, -2))
    chance = (hit + missed) * (hit + false) + (right + missed) * (right + false)
    return {
        "oa": ratio(hit + right, total), "precision": ratio(hit, hit + false), "recall": ratio(hit, hit + missed),
        "f1": ratio(2 * hit, 2 * hit + missed + false), "iou": ratio(hit, hit + missed + false),
        "kappa": ratio((hit + right) * total - chance, total**2 - chance),
    }  # fmt: skip


def change_segmentation_scores(binary: Counts, classes: Counts) -> dict[str, float]:
    """BC: IoU of change. SC: mean IoU of the later classes where the reference changed. SCS: the mean of both.

    binary (2, 2), classes (K, K), rows reference. Classes that the reference lacks there are left out of the mean; NaN
    where nothing changed.
    """
    hit, reference, predicted = np.diagonal(classes), classes.sum(1), classes.sum(0)
    each = ratio(hit, reference + predicted - hit)[reference > 0]
    bc = float(binary_scores(binary)["iou"])
    sc = float(each.mean()) if len(each) else float("nan")
    return {"bc": bc, "sc": sc, "scs": (bc + sc) / 2}


def _grouped(counts: Counts, rows: Counts, cols: Counts, size: int) -> Counts:
    """Counts (S, S) summed by group of state: (size, size)."""
    at = np.nonzero(counts)
    keys = rows[at[0]] * size + cols[at[1]]
    return np.bincount(keys, weights=counts[at], minlength=size * size).astype(np.int64).reshape(size, size)


def _present(side: npt.NDArray[Any], number: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """The states that occur, and for each state its place among them."""
    there = np.flatnonzero(np.bincount(side, minlength=number))
    place = np.zeros(number, np.int32)
    place[there] = np.arange(len(there))
    return there, place


def _as_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    found = np.asarray(values).astype(np.uint8, copy=False)
    if found is not values and (found != values).any():
        raise LabelError("what is scored holds values that are no class indices", fix="encode it with its legend")
    return found
