"""From-to codes: one number for each ordered pair of different classes, as change maps hold them.

K classes give K (K - 1) + 1 codes: 0 where the class stayed, and for a change of class a to class b (from 0)
1 + a (K - 1) + b - [b > a], so 11 classes have 111. 65535 is nodata: one of the dates has no class there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE, LandClass, Legend

UNCHANGED, NODATA = 0, 65535
UNCHANGED_COLOUR = "#f2f2ee"
CHANGE = Legend(
    "change", (LandClass(1, "unchanged", "#e8e8e0"), LandClass(2, "changed", "#c0392b")), nodata=0,
    title="What a mask of change says",
)  # fmt: skip
_OF_THE_NEW = 0.75
"""A change has mostly the colour of the class that came, tinted by the one that went."""
_BLOCK = 1 << 18  # pixels that stay in the processor's cache


class Transition(NamedTuple):
    """A change of one class to another, with its code and what a map shows of it."""

    code: int
    before: LandClass
    after: LandClass

    @property
    def name(self) -> str:
        return f"{self.before.name} > {self.after.name}"

    @property
    def colour(self) -> str:
        mixed = (
            round(_OF_THE_NEW * n + (1 - _OF_THE_NEW) * o) for o, n in zip(self.before.rgb, self.after.rgb, strict=True)
        )
        return "#{:02x}{:02x}{:02x}".format(*mixed)


@dataclass(frozen=True)
class FromTo:
    """Codes of the changes between the classes of one legend; any legend fits, as it has 254 classes at most."""

    legend: Legend

    @property
    def num_codes(self) -> int:
        """K (K - 1) + 1."""
        return len(self.legend) * (len(self.legend) - 1) + 1

    def code(self, before: int, after: int) -> int:
        """The code of a change from one class index to another; 0 for a class that stays."""
        return 0 if before == after else 1 + before * (len(self.legend) - 1) + after - (after > before)

    def pair(self, code: int) -> tuple[int, int]:
        """The class indices of a change; raises LabelError for what is no code of one."""
        if not 0 < code < self.num_codes:
            raise LabelError(
                f"{code} is no change between classes of legend {self.legend.name!r} (1 to {self.num_codes - 1} are)",
                fix="0 is unchanged, 65535 nodata; state the legend that the map was made with",
            )
        before, rest = divmod(code - 1, len(self.legend) - 1)
        return before, rest + (rest >= before)

    def transitions(self) -> list[Transition]:
        """All changes in the order of their codes."""
        pairs = (self.pair(code) for code in range(1, self.num_codes))
        classes = self.legend.classes
        return [Transition(code, classes[a], classes[b]) for code, (a, b) in enumerate(pairs, 1)]

    def encode(self, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """Class indices of two dates, of one shape, -> codes; NODATA where either is IGNORE."""
        codes, table = np.empty(before.shape, np.uint16), _code_table(len(self.legend))
        flat, one, other = codes.reshape(-1), before.reshape(-1), after.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            pair = one[part].astype(np.uint16)
            pair <<= 8
            pair |= other[part]
            table.take(pair, out=flat[part])
        return codes

    def of_pairs(self, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """(256, 256): codes of pairs of other indices, which the tables (256,) bring to those of the legend."""
        return self.encode(*np.broadcast_arrays(before[:, None], after[None]))

    def decode(self, codes: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Codes -> class indices of both dates; IGNORE on both where nothing changed or is known.

        Raises LabelError for numbers that are no codes.
        """
        table = np.full((65536, 2), IGNORE, np.uint8)
        for code in range(1, self.num_codes):
            table[code] = self.pair(code)
        codes = np.asarray(codes)
        odd = (codes >= self.num_codes) & (codes != NODATA)
        if odd.any():
            self.pair(int(codes[odd][0]))
        both = table[codes]
        return np.ascontiguousarray(both[..., 0]), np.ascontiguousarray(both[..., 1])


@lru_cache
def _code_table(k: int) -> npt.NDArray[np.uint16]:
    """(65536,) of k classes: 256 times the index before plus the one after -> code."""
    a, b = np.arange(k)[:, None], np.arange(k)[None]
    table = np.full((256, 256), NODATA, np.uint16)
    table[:k, :k] = np.where(a == b, UNCHANGED, 1 + a * (k - 1) + b - (b > a))
    return table.reshape(-1)
