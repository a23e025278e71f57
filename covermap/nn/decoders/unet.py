"""The expanding half of a U-Net with real skip connections (Ronneberger et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import conv_block, enlarge
from covermap.nn.model import Decoder


@register("decoder", "unet")
class UNetDecoder(Decoder):
    """From the coarsest map up: upsample, join the next finer map, two convolutions; then a 1 x 1 classifier.

    widths: channels after each join, finest first; default: those of the finer maps, at most 256. last: channels of
    two further convolutions on the finest size; 0: none. interpolation: bilinear or nearest.
    """

    pyramid = True

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        widths: Sequence[int] | None = None,
        last: int = 0,
        interpolation: str = "bilinear",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if widths and len(widths) != len(channels) - 1:
            raise ConfigError(
                f"unet decoder widths {list(widths)} do not go with {len(channels)} levels",
                fix=f"give {len(channels) - 1} numbers",
            )
        widths = tuple(widths) if widths else tuple(min(c, 256) for c in channels[:-1])
        below = [*widths[1:], channels[-1]]
        self.joins = nn.ModuleList(
            conv_block(b + skip, w) for b, skip, w in zip(below, channels[:-1], widths, strict=True)
        )
        self.last = conv_block(widths[0], last) if last else None
        self.resize: dict[str, Any] = {"mode": interpolation}
        if interpolation != "nearest":
            self.resize["align_corners"] = False
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(last or widths[0], num_classes, 1)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        x = features.maps[-1]
        for skip, join in zip(reversed(features.maps[:-1]), reversed(self.joins), strict=True):
            x = functional.interpolate(x, size=skip.shape[-2:], **self.resize)
            x = join(torch.cat([x, skip], 1))
        if self.last is not None:
            x = self.last(x)
        return enlarge(self.classify(self.dropout(x)), size)
