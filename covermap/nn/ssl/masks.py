"""Which tokens a method sees, which it has to predict, and which it must not touch.

VISIBLE goes through the encoder. TARGET is hidden and predicted. TEACHER_ONLY is hidden, and what a teacher sees of it
is not asked for. MISSING holds no data: it is neither looked at nor ever a target.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, suggest
from covermap.nn.tokens import STATIC

VISIBLE, TARGET, TEACHER_ONLY, MISSING = range(4)
STRATEGIES = ("random", "block", "inverse_block", "tube", "dates", "sensors")
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Where:
    """What each of N tokens shows (nn/tokens.py), the same for all windows; grid: rows and columns of places."""

    group: _Ints
    date: _Ints
    row: _Ints
    col: _Ints
    grid: tuple[int, int]


@dataclass(frozen=True)
class Masker:
    """Draws the states of tokens.

    strategy: what is hidden together. random: single tokens. tube: single places, of all dates and sensors alike;
    block: places near each other; inverse_block: all but places near each other. dates: whole dates (what belongs to
    all dates stays visible). sensors: whole groups of bands.
    share: of n such units that hold data floor(share n) are hidden, but at least one, and one stays. A window with a
    single date or group is masked at random, one with a single token not at all.
    decode_only: groups that are always targets, before anything else; share is of the rest, of which one token stays.
    predicted: share of the hidden tokens that are targets (floor, at least one); the others are TEACHER_ONLY.
    """

    strategy: str = "random"
    share: float = 0.75
    decode_only: Collection[int] = ()
    predicted: float = 1.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy {self.strategy!r} is not known", fix=suggest(self.strategy, STRATEGIES))
        if not 0 < self.share < 1 or not 0 < self.predicted <= 1:
            raise ConfigError(
                f"a mask of {self.share:g}, of which {self.predicted:g} is predicted, leaves nothing to see or learn",
                fix="give a share above 0 and below 1, for example mask: 0.75",
            )

    def states(
        self, there: npt.NDArray[np.bool_], where: Where, generators: Sequence[np.random.Generator]
    ) -> npt.NDArray[np.int8]:
        """there (B, N), and a generator for each window -> (B, N) int8 of the four states."""
        return np.stack([self._one(mine, where, rng) for mine, rng in zip(there, generators, strict=True)])

    def _one(self, there: npt.NDArray[np.bool_], where: Where, rng: np.random.Generator) -> npt.NDArray[np.int8]:
        states = np.where(there, VISIBLE, MISSING).astype(np.int8)
        only = there & np.isin(where.group, list(self.decode_only))
        free = there & ~only
        hidden = self._hidden(free, where, rng)
        states[hidden] = TARGET
        if self.predicted < 1 and hidden.any():
            order = rng.permutation(np.flatnonzero(hidden))
            states[order[max(1, int(self.predicted * len(order))) :]] = TEACHER_ONLY
        if free.any():  # with nothing to see there is nothing to predict from
            states[only] = TARGET
        return states

    def _hidden(self, free: npt.NDArray[np.bool_], where: Where, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """(N,): which of the tokens that hold data are hidden. Numbers are drawn for all units, there or not, so that
        two windows with the same seed hide the same ones."""
        units, scores = self._units(where, rng)
        every = np.arange(len(free)), rng.random(len(free))
        found = units[free & (units != STATIC)]
        if len(np.unique(found)) < 2:
            units, scores = every
            found = units[free]
        known: _Ints = np.unique(found)
        if len(known) < 2:
            return np.zeros_like(free)
        count = count_hidden(len(known), self.share)
        lowest = known[np.argsort(scores[known], kind="stable")]
        chosen = lowest[len(known) - count :] if self.strategy == "inverse_block" else lowest[:count]
        return np.asarray(free & np.isin(units, chosen) & (units != STATIC))

    def _units(self, where: Where, rng: np.random.Generator) -> tuple[_Ints, npt.NDArray[Any]]:
        """The unit of each token, and a number for each unit; the lowest are hidden."""
        rows, cols = where.grid
        place = where.row * cols + where.col
        if self.strategy in ("block", "inverse_block"):
            return place, _from_a_centre(rows, cols, rng)
        if self.strategy == "tube":
            return place, rng.random(rows * cols)
        if self.strategy == "random":
            return np.arange(len(place)), rng.random(len(place))
        units = where.date if self.strategy == "dates" else where.group
        return units, rng.random(int(units.max(initial=0)) + 1)


def count_hidden(units: int, share: float) -> int:
    """floor(share units), at least one, and one less than all."""
    return min(max(1, int(share * units + 1e-9)), units - 1)


def _from_a_centre(rows: int, cols: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(h w,): how far each place is from one drawn, in a rectangle of a shape drawn too; ties are drawn."""
    centre = rng.random(2) * (rows, cols) - 0.5
    stretch = np.exp(rng.uniform(-0.5, 0.5))
    row, col = np.mgrid[:rows, :cols]
    apart = np.maximum(abs(row - centre[0]) * stretch, abs(col - centre[1]) / stretch)
    return np.asarray(apart + 1e-6 * rng.random((rows, cols)), np.float64).ravel()
