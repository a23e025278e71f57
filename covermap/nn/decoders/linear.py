"""One linear layer on all features of a place: the plainest decoder, and the probe that tells how good features are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import enlarge
from covermap.nn.model import Decoder


@register("decoder", "linear")
class LinearDecoder(Decoder):
    """A norm and a 1 x 1 classifier on each map; their logits are enlarged and added.

    That equals one linear layer on all maps, enlarged and joined, at a fraction of the memory.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[float], num_classes: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.Dropout2d(dropout), nn.Conv2d(c, num_classes, 1)) for c in channels
        )

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        sums: dict[tuple[int, int], Tensor] = {}
        for level, x in zip(self.levels, features.maps, strict=True):
            logits = level(x)
            shape = (logits.shape[-2], logits.shape[-1])
            sums[shape] = sums[shape] + logits if shape in sums else logits
        return torch.stack([enlarge(part, size) for part in sums.values()]).sum(0)
