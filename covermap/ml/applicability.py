"""How far a place is from all that a model was trained on: its area of applicability.

After Meyer and Pebesma (2021, doi:10.1111/2041-210X.13650): the distance to the nearest training place, in units of
what is usual between places of the same kind that the model has not seen. Compared are means of the model's own input
over small cells, not its features: a network learns to leave out what does not help with its classes, and on generated
regions its features did not show a shift that the bands show plainly (benchmarks/applicability.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from covermap.core.errors import DataError, ModelError
from covermap.core.types import Batch, InputSpec

CELL_PX = 16
MAX_CELLS = 2048
USUAL = 0.95
"""Share of the held-out cells that count as usual."""
FEWEST = 40
"""Cells of which something can be said."""
_FEW_PX = CELL_PX * CELL_PX // 4
_NAMES = ("mean", "whiten", "cells", "bound")
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Applicability:
    """Cells (N, d) of the training data, after `(x - mean) @ whiten` of their D bands, and the usual distance."""

    mean: npt.NDArray[np.float32]
    whiten: npt.NDArray[np.float32]
    cells: npt.NDArray[np.float32]
    bound: float

    @staticmethod
    def fit(train: Floats, place: npt.NDArray[np.integer[Any]], held: Floats) -> Applicability:
        """Of cell means (N, D) of the train part, and (M, D) of a part held out, by which the bound is chosen.

        place (N,): where each lies; with few cells held out, those of each place are compared with all others instead.
        Raises DataError where there is too little to say what is usual.
        """
        if len(train) < FEWEST or (len(held) < FEWEST and len(np.unique(place)) < 2):
            raise DataError(
                f"no area of applicability: {len(train)} cells of {CELL_PX} px to learn from, {len(held)} held out",
                fix="give more labels",
            )
        mean, deviation = train.mean(0, dtype=np.float64), np.maximum(train.std(0, dtype=np.float64), 0.01)
        spread, axes = np.linalg.eigh(np.cov(((train - mean) / deviation).T).reshape(train.shape[1], -1))
        # Directions in which nothing varies would make noise of rounding count as much as land does.
        whiten = axes / deviation[:, None] / np.sqrt(spread + 1e-3)
        cells = (train - mean) @ whiten
        made = Applicability(mean.astype(np.float32), whiten.astype(np.float32), cells.astype(np.float32), 1.0)
        if len(held) >= FEWEST:
            distance = made.distances(held)
        else:
            own = place[:, None] == place[None]
            distance = np.sqrt(np.where(own, np.inf, _squared(made.cells, made.cells)).min(1))
        return Applicability(made.mean, made.whiten, made.cells, max(float(np.quantile(distance, USUAL)), 1e-6))

    def distances(self, means: Floats) -> npt.NDArray[np.float32]:
        """Cell means (M, D) -> (M,): distance to the nearest training cell, 1 at the bound of what is usual."""
        found = _squared(np.asarray((means - self.mean) @ self.whiten, np.float32), self.cells)
        return np.asarray(np.sqrt(found.min(1)) / np.float32(self.bound))

    def of_batch(self, batch: Batch, spec: InputSpec) -> npt.NDArray[np.float32]:
        """Distance of each pixel's cell (B, H, W); cells begin at each window's upper left corner."""
        size, found = batch.valid.shape[-2:], []
        for means in cell_means(batch, spec):  # one window at a time: the same sums whoever its neighbours are
            found.append(self.distances(means.reshape(-1, means.shape[-1])).reshape(means.shape[:2]))
        rows, cols = (np.minimum(np.arange(n) // CELL_PX, max(0, n // CELL_PX - 1)) for n in size)
        return np.asarray(np.stack(found)[:, rows[:, None], cols], np.float32)

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in _NAMES}
        save_file(arrays, path)

    @staticmethod
    def load(path: Path) -> Applicability:
        """Raises ModelError for a file that is not there, damaged or of something else."""
        if not path.is_file():
            raise ModelError(
                f"{path.parent} does not know what it was trained on: it has no {path.name}",
                fix="train it again with decision: {applicability: true}, or leave --applicability out",
            )
        try:
            mean, whiten, cells, bound = (load_file(path)[name] for name in _NAMES)
            if cells.ndim != 2 or whiten.shape != (len(mean), cells.shape[1]) or bound.size != 1:
                raise ValueError(f"shapes {mean.shape}, {whiten.shape}, {cells.shape} do not go together")
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ModelError(f"{path} is damaged ({error})", fix="copy the model again, or train it again") from error
        return Applicability(mean, whiten, cells, bound.item())


def cell_means(batch: Batch, spec: InputSpec) -> npt.NDArray[np.float32]:
    """Means over the valid pixels of each cell, of all sensors, dates and bands: (B, rows, columns, D).

    What is left over beside whole cells counts with the last one. Cells with few valid pixels are those of all around
    them. What a batch lacks counts as its mean, as for the network.
    """
    valid = batch.valid.numpy()
    parts = []
    for entry in spec.sensors:
        seen = np.asarray(valid if entry.num_dates == valid.shape[1] else valid.any(1, keepdims=True))
        count = _cell_sums(seen[:, :, None].astype(np.float32))
        if entry.sensor in batch.image:
            total = _with_neighbours(_cell_sums(batch.image[entry.sensor].numpy()), count)
        else:
            total = np.zeros((len(valid), entry.num_dates, len(entry.bands), *count.shape[-2:]), np.float32)
        means = total / np.maximum(_with_neighbours(count, count), 1)
        parts.append(means.reshape(len(valid), -1, *means.shape[-2:]))
    return np.moveaxis(np.concatenate(parts, 1), 1, -1)


def _cell_sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(..., H, W) -> (..., rows, columns)."""
    starts = [np.arange(0, max(1, n // CELL_PX)) * CELL_PX for n in values.shape[-2:]]
    return np.asarray(np.add.reduceat(np.add.reduceat(values, starts[0], axis=-2), starts[1], axis=-1))


def _with_neighbours(sums: npt.NDArray[np.float32], count: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sums of cells, of cells with few pixels those of the 3 x 3 around them."""
    if (count >= _FEW_PX).all():
        return sums
    wide = np.pad(sums, [(0, 0)] * (sums.ndim - 2) + [(1, 1), (1, 1)])
    height, width = sums.shape[-2:]
    around = np.add.reduce([wide[..., i : i + height, j : j + width] for i in range(3) for j in range(3)])
    return np.asarray(np.where(count < _FEW_PX, around, sums), np.float32)


def _squared(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Squared distances (N, M) between the rows of two arrays."""
    product = one @ other.T
    product *= -2
    product += (one * one).sum(1)[:, None]
    product += (other * other).sum(1)
    return np.asarray(np.maximum(product, 0, out=product), np.float32)
