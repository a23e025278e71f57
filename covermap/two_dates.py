"""A model of one date asked for two: what became what, by the classes of each date alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ModelError
from covermap.core.task import Task
from covermap.core.types import Batch
from covermap.data.scene import Scene
from covermap.models import LandModel


class TwoDates(LandModel):
    """Answers (B, 2 K + 2, H, W) of a model of classes: K of each date, and the probability that they are the same.

    The dates count as independent, so P(change) = 1 - sum_k p1(k) p2(k).
    """

    kind = "two dates"

    def __init__(self, model: LandModel, scenes: Sequence[Scene]) -> None:
        """scenes: of two dates, which say of which sensors there are two."""
        if model.task.kind.takes != "classes" or model.task.kind.chips or model.spec.num_dates > 1:
            raise ModelError(
                f"a model of {model.task.name} does not map one date", fix="train it with task: segmentation"
            )
        counts = {key: len(raster.sources) for key, raster in scenes[0].rasters.items()}
        sensors = tuple(replace(entry, num_dates=counts[entry.sensor]) for entry in model.spec.sensors)
        super().__init__(replace(model.spec, sensors=sensors), Task("semantic_change", model.legend), model.facts)
        self.model = model

    @property
    def sees_neighbours(self) -> bool:
        return self.model.sees_neighbours

    def answers(self, batch: Batch) -> npt.NDArray[np.float32]:
        from covermap.nn.dates import fold_dates

        found = self.model.answers(fold_dates(batch))  # dates follow each other
        pair = found.reshape(len(found) // 2, 2, *found.shape[1:])
        same = (pair[:, 0] * pair[:, 1]).sum(1, keepdims=True)
        return np.concatenate([pair[:, 0], pair[:, 1], same, 1 - same], 1)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self.model.arrays()
