"""What is known of changes before a pixel is looked at: how often each class becomes each other one.

A classifier's probabilities p1, p2 of two dates hold its own shares of classes twice. Under a prior P(a, b) of pairs

    P(a, b | both images)  ~  p1(a) p2(b) R(a, b),    R(a, b) = P(a, b) / (before(a) after(b)),

where before and after are the shares that the probabilities hold already (Bayes, images independent given the classes).
With equal shares R is the matrix of transitions T(b | a) but for a factor: argmax log p1(a) + log p2(b) + log T(b | a).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.legend import Legend
from covermap.core.parsing import parse_rows, parse_yaml

STEPS = 200
"""Shares of a layer of probabilities are whole steps of 1 / STEPS, 255 is nodata."""
NO_SHARE = 255
ZERO, LEAST = 4e-4, 1e-6
"""What a layer's 0, all below 1 / 400, stands for, and the least of floats. Where a calibrated model is right in nine
of ten pixels, probabilities that are rounded to 0 have a mean of 3e-4 to 5e-4 (normal classes, 5 to 11 of them)."""
MOST_PX = 1 << 18
UNSEEN = 1e-4
"""Share that is spread over all pairs of classes where areas tell what happens."""
TOTAL = "total"
HELD_BEFORE, HELD_AFTER = "held before", "held after"
"""Column and row of the shares that probabilities hold, of a prior as `csv` writes it."""
_ROUNDS, _STILL = 500, 1e-6
Floats = npt.NDArray[np.float64]
Shares = npt.NDArray[Any]
"""Probabilities of K classes on one date, (K, ...): uint8 as layers hold them, or floats, NaN where unknown."""
_Rows = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class TransitionPrior:
    """P(a, b) of the classes of two dates (K, K), sum 1; before, after (K,): the shares that probabilities hold."""

    joint: Floats
    before: Floats
    after: Floats

    def __post_init__(self) -> None:
        k = len(self.joint)
        if self.joint.shape != (k, k) or self.before.shape != (k,) or self.after.shape != (k,):
            raise ConfigError(f"a prior of transitions {self.joint.shape} is not square", fix="give (K, K) and (K,)")
        if not (np.isfinite(self.joint).all() and (self.joint >= 0).all() and self.joint.trace() > 0):
            raise ConfigError(
                "a prior of transitions holds negative numbers or NaN, or lets no class stay", fix="correct the matrix"
            )
        if not (np.minimum(self.before, self.after) > 0).all():
            raise ConfigError("a share of a class is 0, negative or NaN", fix="give each class a share above 0")

    @property
    def weights(self) -> Floats:
        """R (K, K): by how much a pair is more likely than of independent dates."""
        return np.asarray(self.joint / np.outer(self.before, self.after))

    @property
    def table(self) -> Floats:
        """T(b | a) (K, K): rows sum to 1; those of classes that never come are 0."""
        return np.asarray(self.joint / np.maximum(self.joint.sum(1, keepdims=True), np.finfo(np.float64).tiny))

    @property
    def changed(self) -> float:
        """The share of pixels that change."""
        return float(1 - self.joint.trace())

    @property
    def surest(self) -> float:
        """The highest probability of a change that 8-bit layers can give: their 0 stands for ZERO."""
        k, weights = len(self.joint), self.weights
        sure = np.where(np.eye(k, dtype=bool), 1.0, ZERO)  # a row for each class that is all that a layer shows
        stays = (sure * np.diag(weights)) @ sure
        total = sure @ weights @ sure
        found = np.where(np.eye(k, dtype=bool) | (self.joint == 0), 0, 1 - stays / np.maximum(total, 1e-300))
        return float(found.max())

    @staticmethod
    def persistence(share: float, shares: npt.ArrayLike) -> TransitionPrior:
        """A class stays with this probability overall, and becomes others by their shares (K,).

        The shares are those of both dates: P = s diag(shares) + (1 - s) shares x shares. Raises ConfigError.
        """
        of = _shares(shares)
        least = float((of**2).sum())
        if not least <= share < 1:
            raise ConfigError(
                f"a share of {share:g} that stays cannot be: by chance {least:.3g} would, and 1 means no change",
                fix="give for example 0.95",
            )
        stays = (share - least) / (1 - least) if least < 1 else 1.0
        return TransitionPrior(stays * np.diag(of) + (1 - stays) * np.outer(of, of), of, of)

    @staticmethod
    def given(table: npt.ArrayLike, shares: npt.ArrayLike | None = None) -> TransitionPrior:
        """From rows T(b | a) (K, K), in shares or percent, and the classes' shares before (K,), default equal.

        With equal shares the probabilities are taken to favour no class on either date. Raises ConfigError.
        """
        rows = np.asarray(table, np.float64)
        total = rows.sum(1) if rows.ndim == 2 and len(rows) == rows.shape[1] else np.zeros(1)
        whole = 100.0 if (np.abs(total - 100) <= 0.5).all() else 1.0
        if (off := np.flatnonzero(~(np.abs(total / whole - 1) <= 0.005))).size:
            raise ConfigError(
                f"row {off[0] + 1} of the matrix of transitions {rows.shape} sums to {total[off[0]]:.4g}",
                fix="each row says what becomes of a class: its numbers sum to 1, or to 100 percent",
            )
        before = _shares(np.ones(len(rows)) if shares is None else shares)
        joint = before[:, None] * (rows / total[:, None])
        return TransitionPrior(joint, before, before if shares is None else _shares(joint.sum(0)))

    @staticmethod
    def of_areas(areas: npt.ArrayLike) -> TransitionPrior:
        """From hectares or pixels of each pair of classes (K, K), as change between labels or maps gives them.

        The probabilities are taken to hold the classes' shares of either date. A ten-thousandth is spread over all
        pairs, so that what the labels did not show is rare, not impossible. Raises ConfigError.
        """
        table = np.asarray(areas, np.float64)
        if table.ndim != 2 or len(table) != table.shape[-1] or not ((table >= 0).all() and table.sum() > 0):
            raise ConfigError(f"areas of transitions {table.shape} hold nothing, or less", fix="give (K, K) from 0")
        joint = (table / table.sum() + UNSEEN / table.size) / (1 + UNSEEN)
        return TransitionPrior(joint, joint.sum(1), joint.sum(0))

    @staticmethod
    def read(path: str | Path, legend: Legend) -> TransitionPrior:
        """A matrix by class names: CSV with the classes after in its first row, or YAML {before: {after: share}}.

        Every class has a row; pairs that are missing never happen. A CSV with a row and a column of totals holds areas
        (matrix.csv of change, see of_areas), one with HELD_BEFORE and HELD_AFTER a whole prior (see csv). Raises
        ConfigError, LabelError (unknown names).
        """
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"there is no file {path}", fix="name the table of transitions, or leave --prior out")
        try:
            text = path.read_text(encoding="utf-8-sig")
            rows = _yaml_rows(text) if path.suffix.lower() in (".yaml", ".yml") else _csv_rows(text)
            kind, rows, held = _without_extra(rows, legend)
            table, before, after = np.zeros((len(legend), len(legend))), *np.zeros((2, len(legend)))
            seen = [legend.index_of(name) for name, _ in rows]
            for a, (_, row) in zip(seen, rows, strict=True):
                for name, value in row.items():
                    table[a, legend.index_of(name)] = float(value)
            for shares, each in zip((before, after), held, strict=True):
                for name, value in each.items():
                    shares[legend.index_of(name)] = float(value)
        except LabelError as error:
            if by_number := [name for name, _ in rows if re.fullmatch(r"class \d+", name)]:
                raise LabelError(
                    f"{path} knows classes by number only ({by_number[0]}): the maps that it is of do not say what "
                    f"their codes mean, here classes are {', '.join(legend.names[:5])}",
                    fix="make it again with their legend: covermap change A B OUT.tif --legend FILE.yaml",
                ) from error
            raise
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} holds no matrix of transitions: {error}",
                fix="write a CSV table with class names in its first row and column, or YAML {forest: {crop: 0.02}}",
            ) from error
        if lost := [name for i, name in enumerate(legend.names) if seen.count(i) != 1]:
            raise ConfigError(
                f"{path} has not one row for each class of {legend.name}: {', '.join(lost[:5])}", fix="give each one"
            )
        if kind != HELD_AFTER:
            return TransitionPrior.of_areas(table) if kind else TransitionPrior.given(table)
        if off := [total for total in (table.sum(), before.sum(), after.sum()) if not abs(total - 1) <= 1e-6]:
            raise ConfigError(
                f"{path}: shares of pairs, or shares held of classes, sum to {off[0]:.7g}", fix="let each sum to 1"
            )
        return TransitionPrior(table, before, after)

    @staticmethod
    def estimate(
        blocks: Iterable[tuple[Shares, Shares]], *, forbidden: npt.NDArray[np.bool_] | None = None, most: int = MOST_PX
    ) -> TransitionPrior:
        """The most likely shares of pairs, by EM from calibrated probabilities of both dates, block by block.

        Of at most `most` pixels, drawn at random with equal chances; `forbidden` (K, K) stay 0. One more pixel that
        half stays and half is anything keeps what was never seen from being impossible. As Saerens et al. (2002, Neural
        Computation 14) for one date; the likelihood has one maximum. Raises DataError where nothing is known.
        """
        p1, p2 = _drawn(blocks, most)
        n, k = p1.shape
        unseen = (np.eye(k) / k + np.full((k, k), 1 / k**2)) / 2
        if forbidden is not None:
            unseen = np.where(forbidden, 0.0, unseen)
        before, after = (_with_one(p.mean(0), n) for p in (p1, p2))
        joint, base = unseen / unseen.sum(), np.outer(before, after)
        for _ in range(_ROUNDS):
            weights = joint / base
            total = np.einsum("nk,nk->n", p1 @ weights, p2)
            found = weights * (p1.T @ (p2 / total[:, None])) + unseen
            found /= found.sum()
            still = np.abs(found - joint).max() < _STILL
            joint = found
            if still:
                break
        return TransitionPrior(joint, before, after)

    def without(self, forbidden: npt.NDArray[np.bool_]) -> TransitionPrior:
        """The same with pairs (K, K) that never happen."""
        joint = np.where(forbidden, 0.0, self.joint)
        return TransitionPrior(joint / joint.sum(), self.before, self.after)

    def csv(self, legend: Legend) -> str:
        """P(a, b) as `read` takes it, the shares that probabilities hold in the last column and row."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["before", *legend.names, HELD_BEFORE])
        for name, row, held in zip(legend.names, self.joint, self.before, strict=True):
            writer.writerow([name, *(f"{value:.12g}" for value in (*row, held))])
        writer.writerow([HELD_AFTER, *(f"{value:.12g}" for value in self.after), ""])
        return out.getvalue()


def forbidden_pairs(pairs: Sequence[str], legend: Legend) -> npt.NDArray[np.bool_]:
    """`built-up > forest`, `water > *`: pairs that never happen, as (K, K); * is every other. Raises ConfigError."""
    found = np.zeros((len(legend), len(legend)), bool)
    for text in pairs:
        before, arrow, after = (part.strip() for part in text.partition(">"))
        if not (arrow and before and after) or before == after:
            raise ConfigError(f"{text!r} is no change", fix="write BEFORE > AFTER, for example 'built-up > forest'")
        rows, columns = (slice(None) if name == "*" else legend.index_of(name) for name in (before, after))
        found[rows, columns] = True
    np.fill_diagonal(found, False)
    return found


def probabilities(shares: Shares, unknown: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Shares (K, N) -> probabilities (K, N) above 0, and where they are known (N,); elsewhere `unknown` (K,).

    The prior's own shares as `unknown` say nothing for or against any class.
    """
    if shares.dtype == np.uint8:
        known = shares[0] != NO_SHARE
        found = np.maximum(shares, ZERO * STEPS, dtype=np.float64)
        found *= 1 / STEPS
    else:
        known = ~np.isnan(shares).any(0)
        found = np.maximum(shares, LEAST, dtype=np.float64)
    if not known.all():
        found = np.where(known, found, unknown[:, None])
    return found, known


def _shares(of: npt.ArrayLike) -> Floats:
    """(K,) with a sum of 1, none below 1e-6: a class that is not there yet may come."""
    found = np.asarray(of, np.float64)
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise ConfigError(f"{found.tolist()} are no shares of classes", fix="give numbers of 0 and more")
    found = np.maximum(found / found.sum(), 1e-6)
    return np.asarray(found / found.sum())


def _with_one(shares: Floats, count: int) -> Floats:
    """Shares (K,) of pixels with one more that is spread over all classes: none is 0."""
    found = (shares * count + 1 / len(shares)) / (count + 1)
    return np.asarray(found / found.sum())


def _drawn(blocks: Iterable[tuple[Shares, Shares]], most: int) -> tuple[Floats, Floats]:
    """Pixels (n, K) of both dates: those with the least of random numbers, one each."""
    random = np.random.default_rng(0)
    keys, kept = np.empty(0), None  # kept: (n, 2, K)
    for one, other in blocks:
        k = len(one)
        pair = [np.asarray(p).reshape(k, -1) for p in (one, other)]
        known = np.logical_and(*(probabilities(p, np.zeros(k))[1] for p in pair))
        fresh = random.random(known.size)
        at = np.flatnonzero(known & (fresh < (keys.max() if len(keys) == most else 1)))
        part = np.stack([p[:, at].T for p in pair], axis=1)
        keys = np.concatenate([keys, fresh[at]])
        kept = part if kept is None else np.concatenate([kept, part])
        if len(keys) > most:
            least = np.argpartition(keys, most)[:most]
            keys, kept = keys[least], kept[least]
    if kept is None or not len(kept):
        raise DataError("no pixel has probabilities on both dates", fix="check nodata and the place of both")
    dates = [kept[:, 0].T, kept[:, 1].T]
    p1, p2 = (probabilities(shares, np.zeros(1))[0].T for shares in dates)
    return p1 / p1.sum(1, keepdims=True), p2 / p2.sum(1, keepdims=True)


def _csv_rows(text: str) -> _Rows:
    header, *rows = [row for row in parse_rows(text) if any(row)]
    return [(row[0], dict(zip(header[1:], row[1:], strict=True))) for row in rows]


def _without_extra(rows: _Rows, legend: Legend) -> tuple[str | None, _Rows, tuple[dict[str, Any], dict[str, Any]]]:
    """Which last row beside those of classes there is, TOTAL or HELD_AFTER; rows and columns of classes; shares held
    before and after, of HELD_AFTER.
    """
    kind = rows[-1][0] if rows else None
    column = {TOTAL: TOTAL, HELD_AFTER: HELD_BEFORE}.get(kind or "")
    if column is None or kind in legend.names:
        return None, rows, ({}, {})
    *rows, (_, last) = rows
    held = {name: row.get(column) for name, row in rows}, {k: v for k, v in last.items() if k != column}
    rows = [(name, {k: v for k, v in row.items() if k != column}) for name, row in rows]
    return kind, rows, held if kind == HELD_AFTER else ({}, {})


def _yaml_rows(text: str) -> _Rows:
    raw = parse_yaml(text)
    if not isinstance(raw, Mapping):
        raise ValueError("it is no mapping")
    return [(str(before), {str(after): value for after, value in row.items()}) for before, row in raw.items()]
