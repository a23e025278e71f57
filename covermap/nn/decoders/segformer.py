"""SegFormer's decoder: every map through one linear layer, all joined (Xie et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import enlarge
from covermap.nn.model import Decoder


@register("decoder", "segformer")
class SegformerDecoder(Decoder):
    """Each map is brought to `width` channels and the finest map's size; a 1 x 1 convolution joins them."""

    pyramid = True

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width = width
        self.levels = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Dropout2d(dropout))
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size).

        Both linear layers of a map are applied as one, before it is enlarged: the order makes no difference to the
        result, but to the time.
        """
        # Coarsest first is the order of the published weights.
        shares = torch.split(self.fuse.weight.flatten(1), self.width, 1)[::-1]
        parts = []
        for x, level, share in zip(features.maps, self.levels, shares, strict=True):
            assert isinstance(level, nn.Conv2d)
            assert level.bias is not None
            kernel = (share @ level.weight.flatten(1))[..., None, None]
            parts.append(enlarge(functional.conv2d(x, kernel, share @ level.bias), features.maps[0]))
        return enlarge(self.classify(self.norm(torch.stack(parts).sum(0))), size)
