"""Where the numbers of one band lie, and what makes values of them: gain and offset, radar power in dB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Quantity = Literal["power", "amplitude"]
"""What radar numbers are: in dB power counts 10 log10, amplitude 20 log10."""
LOWEST_DB = -50.0
"""What a number of 0 becomes in dB: well below the noise of any sensor (Sentinel-1: -22 dB)."""


@dataclass(frozen=True)
class BandSource:
    """Where one band of one date lies: file and 1-based band number; value = number in the file * gain + add.

    quantity: of radar, whose values then become dB. minus: what is subtracted from it.
    """

    path: str
    index: int
    gain: float = 1.0
    add: float = 0.0
    minus: BandSource | None = None
    quantity: Quantity | None = None

    @property
    def parts(self) -> tuple[BandSource, ...]:
        """The bands to read: one, or both sides of a difference."""
        return (self,) if self.minus is None else (self, *self.minus.parts)

    def rescaled(self, gain: float, add: float) -> BandSource:
        """The same with every value * gain + add; of a difference both sides, so that only the gain is left."""
        minus = self.minus and self.minus.rescaled(gain, add)
        return replace(self, gain=self.gain * gain, add=self.add * gain + add, minus=minus)

    def in_decibel(self, quantity: Quantity | None) -> BandSource:
        """The same in dB; of a difference both sides, which makes it the ratio of them."""
        return replace(self, quantity=quantity, minus=self.minus and self.minus.in_decibel(quantity))


def calibrated(values: npt.NDArray[Any], sources: Sequence[BandSource]) -> npt.NDArray[Any]:
    """Numbers in the files (C, H, W) -> values, float32 where that changes them; dB are at least LOWEST_DB."""
    if all((s.gain, s.add, s.quantity) == (1.0, 0.0, None) for s in sources):
        return values
    gain, add = (np.array(x, np.float32)[:, None, None] for x in zip(*((s.gain, s.add) for s in sources), strict=True))
    found = np.asarray(values.astype(np.float32) * gain + add)
    for layer, source in zip(found, sources, strict=True):
        if source.quantity:
            factor = 10 if source.quantity == "power" else 20
            layer[:] = factor * np.log10(np.maximum(layer, np.float32(10 ** (LOWEST_DB / factor))))
    return found
