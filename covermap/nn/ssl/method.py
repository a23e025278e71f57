"""What all ways of learning without labels share: a backbone, losses by name, and what happens between steps.

A method is one module: its encoder is what is kept, the rest (heads, decoders, teachers) serves only to learn it.
Everything random about a window follows from the window's own seed, so that how windows are shared out among
processes changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from covermap.core.types import Batch
from covermap.nn.embedding import vectors
from covermap.nn.model import Backbone


class Method(nn.Module, ABC):
    """A way to learn without labels.

    encoder: what is kept. inputs: the sensors that it sees; a batch may hold others, which are only predicted.
    """

    encoder: Backbone
    inputs: tuple[str, ...]

    @abstractmethod
    def forward(self, batch: Batch, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Normalised windows of one size and a seed for each -> scalars: `loss`, and each of its terms by name.

        Terms stand as they are, before their weights. With several processes `loss` is this one's share, so that the
        mean over processes of equal batches is the loss of all windows together.
        """

    def before_step(self, progress: float) -> None:
        """Called before each optimiser step; progress: of the whole training, from 0 to 1."""

    def after_step(self, progress: float) -> None:
        """Called after each optimiser step, such as for a teacher that follows."""

    def embed(self, batch: Batch) -> Tensor:
        """Windows -> vectors (B, D) of the encoder, for monitors and probes."""
        image = {name: x for name, x in batch.image.items() if name in self.inputs}
        return vectors(self.encoder, replace(batch, image=image))

    @property
    def floors(self) -> Mapping[str, float]:
        """Terms below whose floor the method has collapsed, such as a teacher's entropy."""
        return {}


def generators(seeds: Sequence[int], purpose: int) -> list[np.random.Generator]:
    """A generator for each window; what is drawn for one purpose does not move what is drawn for another."""
    return [np.random.default_rng([seed, purpose]) for seed in seeds]
