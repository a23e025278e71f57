"""UPerNet: pyramid pooling on the coarsest map, a feature pyramid, all levels joined (Xiao et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import LenientNorm, conv_norm, enlarge
from covermap.nn.model import Decoder


@register("decoder", "upernet")
class UPerNetDecoder(Decoder):
    """pools: cells along a side of the coarsest map whose means are taken; width: of all levels.

    align_corners: how levels are enlarged; only for models that were trained so elsewhere.
    """

    pyramid = True

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
        self.bottleneck = _norm_relu(channels[-1] + len(pools) * width, width, 3)
        self.laterals = nn.ModuleList(_norm_relu(c, width, 1) for c in channels[:-1])
        self.smooth = nn.ModuleList(_norm_relu(width, width, 3) for _ in channels[:-1])
        self.fuse = _norm_relu(len(channels) * width, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        coarse = features.maps[-1]
        shape = (coarse.shape[-2], coarse.shape[-1])
        levels = [self.bottleneck(torch.cat([coarse, *(self._grow(pool(coarse), shape) for pool in self.pools)], 1))]
        for x, lateral in zip(reversed(features.maps[:-1]), reversed(self.laterals), strict=True):
            levels.insert(0, lateral(x) + self._grow(levels[0], (x.shape[-2], x.shape[-1])))
        smoothed = [smooth(x) for smooth, x in zip(self.smooth, levels[:-1], strict=True)]
        finest = (smoothed[0].shape[-2], smoothed[0].shape[-1])
        joined = torch.cat([self._grow(x, finest) for x in (*smoothed, levels[-1])], 1)
        return enlarge(self.classify(self.dropout(self.fuse(joined))), size)

    def _grow(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return enlarge(x, size, align_corners=self.align_corners)


def _norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*conv_norm(inputs, outputs, kernel=kernel), nn.ReLU(inplace=True))


def _lenient(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), LenientNorm(outputs), nn.ReLU(inplace=True)]
