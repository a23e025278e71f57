"""Vision transformers from scratch on our own blocks, for all bands of the data (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import BlockShape, PatchBackbone, Trunk, embed_patches, sincos_1d, token_map
from covermap.nn.model import stack_inputs


class PlainViT(PatchBackbone):
    """Maps of chosen blocks at the stride of a patch; positions are sines and cosines, for a grid of any size."""

    dates = "one"
    width: ClassVar[int]
    depth: ClassVar[int] = 12
    heads: ClassVar[int]

    def __init__(self, spec: InputSpec, *, patch_px: int = 16, layers: Sequence[int] | None = None) -> None:
        super().__init__()
        if not isinstance(patch_px, int) or patch_px < 1:
            raise ConfigError(f"patch_px: {patch_px} is no size of a patch", fix="give whole pixels, e.g. 16")
        self.announce(layers, depth=self.depth, width=self.width, patch_px=patch_px)
        self.patch_embed = nn.Conv2d(spec.num_channels, self.width, patch_px, patch_px)
        self.trunk = Trunk(BlockShape(self.width, self.heads, 4 * self.width), self.depth)

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, D, H / p, W / p), one for each layer."""
        x = stack_inputs(batch)
        grid = (x.shape[2] // self.multiple, x.shape[3] // self.multiple)
        tokens = embed_patches(x, self.patch_embed.weight, self.patch_embed.bias)
        tokens = tokens + positions(grid, self.width).to(x)
        return Features(tuple(token_map(each, grid) for each in self.trunk(tokens, self.layers)), self.strides)


def positions(grid: tuple[int, int], width: int) -> Tensor:
    """(h w, D): half of the width codes the row, half the column."""
    row = sincos_1d(torch.arange(grid[0]), width // 2).repeat_interleave(grid[1], 0)
    col = sincos_1d(torch.arange(grid[1]), width // 2).repeat(grid[0], 1)
    return torch.cat([row, col], 1)


@register("backbone", "vit_tiny")
class ViTTiny(PlainViT):
    """ViT-Ti from scratch: 12 blocks of width 192."""

    width, heads = 192, 3


@register("backbone", "vit_small")
class ViTSmall(PlainViT):
    """ViT-S from scratch: 12 blocks of width 384."""

    width, heads = 384, 6


@register("backbone", "vit_base")
class ViTBase(PlainViT):
    """ViT-B from scratch: 12 blocks of width 768."""

    width, heads = 768, 12


@register("backbone", "vit_large")
class ViTLarge(PlainViT):
    """ViT-L from scratch: 24 blocks of width 1024."""

    width, depth, heads = 1024, 24, 16
