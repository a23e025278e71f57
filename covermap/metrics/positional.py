"""Positional patterns: how much of what cells of chips say follows from where in the chip they lie.

    share = between-position sum of squares / total sum of squares, over N chips of P cells with D numbers each

It is eta squared of a one-way analysis of variance with the position as the factor, all D numbers together. Cells that
know nothing of their position share (P - 1) / (N P - 1) in the mean. Sums are kept about the means of the positions and
merged as in Chan, Golub and LeVeque (1983), so that they do not cancel and come in any pieces.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

MANY = 1 << 18
"""Numbers P D above which nothing is counted: their means would outweigh the embeddings."""
ONE_CELL = "a chip is one cell"
MIXED = "chips are of different sizes"
LARGE = "a chip has too many cells to keep the mean of each"
FEW = "fewer than two chips are valid everywhere"
EARLIER = "the run was begun by an earlier version"


@dataclass
class PositionalSums:
    """Means (P, D) of `count` chips at each position of `grid` (h, w), and the sum of squares `within` positions.

    why: what stands against counting, empty where nothing does.
    """

    grid: tuple[int, int] | None = None
    count: int = 0
    means: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    within: float = 0.0
    why: str = ""

    def add(self, cells: npt.NDArray[np.float32], valid: npt.NDArray[np.floating[Any]]) -> None:
        """Add chips (B, D, h, w) whose cells are all valid, of valid shares (B, h, w)."""
        size, grid = cells.shape[1], (int(cells.shape[2]), int(cells.shape[3]))
        positions = grid[0] * grid[1]
        part = PositionalSums(grid, why=ONE_CELL if positions < 2 else LARGE if positions * size > MANY else "")
        whole = np.asarray(valid).reshape(len(cells), -1).min(1) > 1 - 1e-6
        if not part.why and whole.any():
            kept = cells[whole].reshape(int(whole.sum()), size, positions).transpose(0, 2, 1).astype(np.float64)
            part.count, part.means = len(kept), kept.mean(0)
            part.within = float(((kept - part.means) ** 2).sum())
        self.merge(part)

    def merge(self, other: PositionalSums) -> None:
        """Add the chips of another one."""
        mixed = self.grid is not None and other.grid is not None and self.grid != other.grid
        self.why = self.why or other.why or (MIXED if mixed else "")
        self.grid = self.grid or other.grid
        if self.why:
            self.count, self.means, self.within = 0, np.zeros((0, 0)), 0.0
        elif not self.count:
            self.count, self.means, self.within = other.count, other.means, other.within
        elif other.count:
            total, apart = self.count + other.count, other.means - self.means
            self.within += other.within + float((apart**2).sum()) * self.count * other.count / total
            self.means = self.means + apart * (other.count / total)
            self.count = total

    def facts(self) -> dict[str, Any]:
        """share, expected (of cells that know nothing of their position), cells (h, w) and chips; or why not."""
        why = self.why or (FEW if self.count < 2 else "")
        if why:
            return {"share": None, "why": why}
        between = self.count * float(((self.means - self.means.mean(0)) ** 2).sum())
        total, positions = between + self.within, len(self.means)
        if not total > 0:
            return {"share": None, "why": "cells are constant"}
        expected = (positions - 1) / (self.count * positions - 1)
        return {"share": between / total, "expected": expected, "cells": list(self.grid or ()), "chips": self.count}

    def to_text(self) -> str:
        """As it is kept beside a finished part of the work."""
        means = base64.b64encode(np.ascontiguousarray(self.means, "<f8").tobytes()).decode("ascii")
        said = {"grid": self.grid, "count": self.count, "within": self.within, "why": self.why}
        return json.dumps({**said, "shape": self.means.shape, "means": means})

    @staticmethod
    def from_text(text: str | bytes | None) -> PositionalSums:
        """What `to_text` wrote; None: nothing was kept."""
        if text is None:
            return PositionalSums(why=EARLIER)
        said = json.loads(text)
        means = np.frombuffer(base64.b64decode(said["means"]), "<f8").reshape(said["shape"]).astype(np.float64)
        grid = tuple(said["grid"]) if said["grid"] else None
        return PositionalSums(grid, said["count"], means, said["within"], said["why"])


def positional_sentence(facts: dict[str, Any] | None) -> str:
    """What `facts` say, in words; empty where nothing was counted."""
    if not facts or facts.get("share") is None:
        return ""
    return (
        f"{facts['share']:.1%} of the variance of cells follows from their position within the chip "
        f"({facts['expected']:.2%} by chance; {facts['chips']:,} chips of {' x '.join(map(str, facts['cells']))} cells)"
    )
