"""A small network on the features of each place, without a look at its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import conv_norm, enlarge
from covermap.nn.model import Decoder


@register("decoder", "mlp")
class MlpDecoder(Decoder):
    """`depth` layers of `width` on all maps, enlarged to the finest and joined; a 1 x 1 classifier.

    The first layer acts on each map before it is enlarged, which gives the same sum in a fraction of the time.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        steps: list[nn.Module] = [nn.BatchNorm2d(width), nn.GELU()]
        for _ in range(depth - 1):
            steps += [conv_norm(width, width, kernel=1), nn.GELU()]
        self.layers = nn.Sequential(*steps, nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        parts = [enlarge(level(x), features.maps[0]) for level, x in zip(self.levels, features.maps, strict=True)]
        return enlarge(self.layers(torch.stack(parts).sum(0)), size)
