"""Transposed convolutions on the last map: the plain fully convolutional decoder (Long, Shelhamer and Darrell 2015)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import ChannelNorm, enlarge
from covermap.nn.model import Decoder


@register("decoder", "fcn")
class FcnDecoder(Decoder):
    """Steps that double the last map's size: a transposed convolution, a 3 x 3 one, layer norm, GELU; a classifier.

    steps: default as many as bring the map to a stride of 2 px, at most 4.
    """

    miniature = MappingProxyType({"width": 32})

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        steps: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if steps is None:
            steps = min(4, max(0, math.ceil(math.log2(strides[-1])) - 1))
        inputs = [channels[-1], *[width] * max(0, steps - 1)]
        self.steps = nn.ModuleList(_double(count, width) for count in inputs[:steps])
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width if steps else channels[-1], num_classes, 1)

    def uses(self, num_maps: int) -> Sequence[int]:
        """The last."""
        return (num_maps - 1,)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """The last map (B, C, H / S, W / S) -> logits (B, K, *size)."""
        x = features.maps[-1]
        for step in self.steps:
            x = step(x)
        return enlarge(self.classify(self.dropout(x)), size)


def _double(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, width, 2, 2),
        nn.Conv2d(width, width, 3, padding=1),
        ChannelNorm(width, eps=1e-6),
        nn.GELU(),
    )
