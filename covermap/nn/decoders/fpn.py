"""Feature pyramid with a semantic branch (Lin et al. 2017; Kirillov et al. 2019, Panoptic FPN)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import enlarge
from covermap.nn.model import Decoder


@register("decoder", "fpn")
class FpnDecoder(Decoder):
    """From the coarsest map up each map adds what lies below; each sum is enlarged by convolutions, and all are added.

    width: of the pyramid. head: of the branch that classifies.
    """

    pyramid = True
    miniature = MappingProxyType({"width": 64, "head": 32})

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        head: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        steps = [max(0, round(math.log2(stride / strides[0]))) for stride in strides]
        self.branches = nn.ModuleList(_branch(width, head, count) for count in steps)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(head, num_classes, 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        above: Tensor | None = None
        total: Tensor | None = None
        for x, lateral, branch in zip(
            reversed(features.maps), reversed(self.laterals), reversed(self.branches), strict=True
        ):
            above = lateral(x) if above is None else lateral(x) + functional.interpolate(above, size=x.shape[-2:])
            grown = enlarge(branch(above), features.maps[0])
            total = grown if total is None else total + grown
        assert total is not None
        return enlarge(self.classify(self.dropout(total)), size)


def _branch(width: int, head: int, steps: int) -> nn.Sequential:
    """Convolutions with a doubling of the size between them, as many as lead to the finest map."""
    layers: list[nn.Module] = []
    for number in range(max(1, steps)):
        layers.append(nn.Conv2d(head if number else width, head, 3, padding=1, bias=False))
        layers += [nn.GroupNorm(math.gcd(32, head), head), nn.ReLU(inplace=True)]
        if steps:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
