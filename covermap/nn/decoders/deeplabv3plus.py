"""DeepLabV3+: atrous convolutions on a coarse map, joined with a fine one (Chen et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import conv_relu, enlarge, nearest_stride
from covermap.nn.model import Decoder


@register("decoder", "deeplabv3plus")
class DeepLabV3Plus(Decoder):
    """Atrous spatial pyramid pooling on the last map, two convolutions with that whose stride is nearest to 4 px.

    The last map even where another is nearer to the paper's 16 px: it alone has seen all of the backbone's blocks.

    rates: of the atrous convolutions, for a stride of 16 px; other strides get rates of the same reach on the ground.
    """

    pyramid = True
    miniature = MappingProxyType({"width": 32, "low": 16})

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        low: int = 48,
        rates: Sequence[int] = (6, 12, 18),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        deep = channels[-1]
        self.fine = nearest_stride(strides[:-1], 4) if len(strides) > 1 else 0
        reach = [max(1, round(rate * 16 / strides[-1])) for rate in rates]
        around = [conv_relu(deep, width, dilation=rate) for rate in reach]
        self.atrous = nn.ModuleList([conv_relu(deep, width, kernel=1), *around])
        # One number for the whole window has no variance in a batch of one: no norm here.
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, width, 1), nn.ReLU(inplace=True))
        self.project = nn.Sequential(conv_relu((len(reach) + 2) * width, width, kernel=1), nn.Dropout2d(dropout))
        self.low = conv_relu(channels[self.fine], low, kernel=1)
        self.refine = nn.Sequential(conv_relu(width + low, width), conv_relu(width, width))
        self.classify = nn.Conv2d(width, num_classes, 1)

    def uses(self, num_maps: int) -> Sequence[int]:
        """The fine and the last map."""
        return sorted({self.fine, num_maps - 1})

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        deep, fine = features.maps[-1], features.maps[self.fine]
        parts = [layer(deep) for layer in self.atrous]
        parts.append(self.whole(deep).expand(-1, -1, *deep.shape[-2:]))
        x = self.project(torch.cat(parts, 1))
        return enlarge(self.classify(self.refine(torch.cat([enlarge(x, fine), self.low(fine)], 1))), size)
