"""What methods ask of a batch: enough windows, the sensors they need, and nothing that gives the answer away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from covermap.core.errors import ConfigError, DataError
from covermap.core.types import Batch
from covermap.nn.model import Backbone
from covermap.nn.ssl.gather import gather_flags, world


def seen_by(encoder: Backbone, batch: Batch, inputs: Sequence[str]) -> Batch:
    """The batch's inputs alone, without dates and places: by these, views of one window would be found unseen.

    Raises DataError for an input that is in no window, of any process, and that the encoder cannot do without.
    """
    anywhere = gather_flags(torch.stack(list(presence(batch, inputs).values()), 1)).any(0).tolist()
    missing = [name for name, there in zip(inputs, anywhere, strict=True) if not there]
    needed = [name for name in missing if name not in encoder.optional]
    if needed or len(missing) == len(inputs):
        raise DataError(
            f"no window of the batch holds {', '.join(needed or missing)}, which the encoder is to see",
            fix="leave the sensor out of inputs, or give images of it",
        )
    image = {name: x for name, x in batch.image.items() if name in inputs}
    return replace(batch, image=image, dates=(), location=None, label=None, target=None, keys=())


def presence(batch: Batch, sensors: Sequence[str]) -> dict[str, Tensor]:
    """{sensor: (B,) bool}: windows that have it; one that is 0 throughout, or not in the batch, is missing."""
    none = torch.zeros(len(batch), dtype=torch.bool, device=batch.valid.device)
    return {name: (batch.image[name] != 0).flatten(1).any(1) if name in batch.image else none for name in sensors}


def require_windows(batch: Batch, method: str) -> None:
    """Contrast needs something to be different from; raises ConfigError."""
    if len(batch) * world() < 2:
        raise ConfigError(
            f"a batch of one window was given to {method}, which tells windows from each other and needs two or more",
            fix="train: {batch_size: 32}; more is better",
        )
