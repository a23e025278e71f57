"""The contracting half of a U-Net, from scratch, for any number of bands (Ronneberger et al. 2015, residual blocks)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.layers import Residual, conv_block
from covermap.nn.model import Backbone, stack_inputs


@register("backbone", "unet")
class UNetEncoder(Backbone):
    """Maps at strides 1, 2, 4, ...: one level for each width; dates and sensors are stacked as channels."""

    def __init__(self, spec: InputSpec, *, widths: Sequence[int] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        if isinstance(widths, str) or len(widths) < 2 or not all(isinstance(w, int) and w > 0 for w in widths):
            raise ConfigError(
                f"unet widths {list(widths)} do not make a U-Net", fix="give two or more, e.g. [16, 32, 64]"
            )
        self.channels = tuple(widths)
        self.strides = tuple(2**i for i in range(len(widths)))
        self.stem = conv_block(spec.num_channels, widths[0])
        self.levels = nn.ModuleList(
            nn.Sequential(Residual(a, b, stride=2), Residual(b, b)) for a, b in pairwise(widths)
        )

    def forward(self, batch: Batch) -> Features:
        """Batch of (B, T, C, H, W) for each sensor -> maps (B, widths[i], H / 2**i, W / 2**i)."""
        x = stack_inputs(batch).contiguous(memory_format=torch.channels_last)
        maps = [self.stem(x)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return Features(tuple(maps), self.strides)
