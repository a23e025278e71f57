"""Vision transformers from scratch on our own blocks, for all bands of the data (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import BlockShape, TokenBackbone, Trunk, embed_patches, sincos_1d, token_map
from covermap.nn.model import stack_inputs
from covermap.nn.tokens import Group, Tokens, lay_out, patches_there


class PlainViT(TokenBackbone):
    """Maps of chosen blocks at the stride of a patch; positions are sines and cosines, for a grid of any size.

    class_token: one more token, of the window as a whole; it is no part of the maps.
    """

    dates = "one"
    width: ClassVar[int]
    depth: ClassVar[int] = 12
    heads: ClassVar[int]

    def __init__(
        self, spec: InputSpec, *, patch_px: int = 16, layers: Sequence[int] | None = None, class_token: bool = False
    ) -> None:
        super().__init__()
        require_patch(patch_px)
        self.announce(layers, depth=self.depth, width=self.width, patch_px=patch_px)
        self.patch_embed = nn.Conv2d(spec.num_channels, self.width, patch_px, patch_px)
        self.trunk = Trunk(BlockShape(self.width, self.heads, 4 * self.width), self.depth)
        self.cls_token = new_token(self.width) if class_token else None
        self.has_class_token = class_token
        sensors = tuple(entry.sensor for entry in spec.sensors)
        bands = tuple((entry.sensor, i) for entry in spec.sensors for i in range(len(entry.bands)))
        self.token_groups = (Group("+".join(sensors), bands, sensors),)

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, D, H / p, W / p), one for each layer."""
        tokens, grid = self._embed(batch)
        skip = int(self.has_class_token)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        found = self.trunk(tokens, self.layers)
        return Features(tuple(token_map(each, grid, skip=skip) for each in found), self.strides)

    def tokenise(self, batch: Batch) -> Tokens:
        tokens, grid = self._embed(batch)
        there = patches_there(batch, self.token_groups[0].sensors, self.multiple, 1)
        extra = None if self.cls_token is None else self.cls_token.expand(len(tokens), -1, -1)
        return lay_out([(0, tokens)], [there], grid, extra=extra)

    def _embed(self, batch: Batch) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, h w, D) with their places, and the grid."""
        x = stack_inputs(batch)
        grid = (x.shape[2] // self.multiple, x.shape[3] // self.multiple)
        tokens = embed_patches(x, self.patch_embed.weight, self.patch_embed.bias)
        return tokens + positions(grid, self.width).to(x), grid


def require_patch(patch_px: object) -> None:
    """Raise ConfigError for what is no side of a patch."""
    if not isinstance(patch_px, int) or patch_px < 1:
        raise ConfigError(f"patch_px: {patch_px} is no size of a patch", fix="give whole pixels, e.g. 16")


def new_token(width: int) -> nn.Parameter:
    """(1, 1, D), as linear layers start."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))


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
