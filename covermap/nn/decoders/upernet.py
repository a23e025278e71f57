"""UPerNet: pyramid pooling on the coarsest map, a feature pyramid, all levels joined (Xiao et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import LenientNorm, conv_relu, enlarge
from covermap.nn.model import Decoder


@register("decoder", "upernet")
class UPerNetDecoder(Decoder):
    """pools: cells along a side of the coarsest map whose means are taken; width: of all levels.

    align_corners: how levels are enlarged; only for models that were trained so elsewhere.
    """

    pyramid = True
    miniature = MappingProxyType({"width": 32})

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        pools: Sequence[int] = (1, 2, 3, 6),
        align_corners: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), *_lenient(channels[-1], width)) for cells in pools
        )
        self.bottleneck = conv_relu(channels[-1] + len(pools) * width, width)
        self.laterals = nn.ModuleList(conv_relu(c, width, kernel=1) for c in channels[:-1])
        self.smooth = nn.ModuleList(conv_relu(width, width) for _ in channels[:-1])
        self.fuse = conv_relu(len(channels) * width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        coarse = features.maps[-1]
        levels = [self.bottleneck(torch.cat([coarse, *(self._grow(pool(coarse), coarse) for pool in self.pools)], 1))]
        for x, lateral in zip(reversed(features.maps[:-1]), reversed(self.laterals), strict=True):
            levels.insert(0, lateral(x) + self._grow(levels[0], x))
        smoothed = [smooth(x) for smooth, x in zip(self.smooth, levels[:-1], strict=True)]
        joined = torch.cat([self._grow(x, smoothed[0]) for x in (*smoothed, levels[-1])], 1)
        return enlarge(self.classify(self.dropout(self.fuse(joined))), size)

    def _grow(self, x: Tensor, to: Tensor) -> Tensor:
        return enlarge(x, to, align_corners=self.align_corners)


def _lenient(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), LenientNorm(outputs), nn.ReLU(inplace=True)]
