"""What each class loses on a coarser grid: its share of the labelled pixels before, and after by each method."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from covermap.core.legend import Legend


@dataclass(frozen=True)
class ClassLoss:
    """A class's pixels and share of all labelled pixels before, and {method: share} after; shares from 0 to 1."""

    code: int
    name: str
    pixels: int
    share: float
    after: Mapping[str, float]

    @property
    def loss(self) -> str:
        """The methods that lose the class, or more than half of it."""
        said = [f"{method}: lost" for method, share in self.after.items() if self.pixels and share == 0]
        said += [f"{method}: more than half" for method, share in self.after.items() if 0 < share < self.share / 2]
        return ", ".join(said)

    def row(self) -> dict[str, object]:
        """Plain values, by the columns of the table."""
        return {
            "code": self.code, "class": self.name, "pixels": self.pixels, "share": self.share, **self.after,
            "loss": self.loss,
        }  # fmt: skip


def class_losses(
    legend: Legend, before: npt.NDArray[np.int64], after: Mapping[str, npt.NDArray[np.int64]]
) -> list[ClassLoss]:
    """One entry for each class, from pixels per class (K,) before and by each method after."""
    shares = {method: pixels / max(1, pixels.sum()) for method, pixels in after.items()}
    return [
        ClassLoss(
            c.code, c.name, int(before[k]), float(before[k] / max(1, before.sum())),
            {method: float(share[k]) for method, share in shares.items()},
        )
        for k, c in enumerate(legend.classes)
    ]  # fmt: skip


def as_csv(losses: Sequence[ClassLoss]) -> str:
    """The table as it stands beside the labels."""
    text = io.StringIO()
    rows = [loss.row() for loss in losses]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
