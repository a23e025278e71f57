"""Vision transformers from scratch that keep sensors apart: a patch embedding for each, one trunk for all.

sensor -> patches of all its bands + code of the sensor + place + number of the date -> (own blocks ->) shared blocks ->
mean over the sensors that are there
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.plain_vit import new_token, positions, require_patch
from covermap.nn.backbones.vit import (
    Block,
    BlockShape,
    TokenBackbone,
    Trunk,
    attention_mask,
    embed_patches,
    sincos_1d,
)
from covermap.nn.tokens import Group, Tokens, holds_data, lay_out, patches_there


class SensorViT(TokenBackbone):
    """All dates and sensors go through together; maps for each date, the mean of the sensors that it has.

    A sensor that a batch lacks has no tokens; one that is zero everywhere in a window or on a date is not looked at
    there. own_blocks: how many of the first blocks each sensor has for itself; of all, there are separate towers.
    class_token: one more token, of the window as a whole; it is no part of the maps and only passes shared blocks.
    """

    dates = "each"
    fuses = True
    width: ClassVar[int]
    depth: ClassVar[int] = 12
    heads: ClassVar[int]

    def __init__(
        self, spec: InputSpec, *, patch_px: int = 16, layers: Sequence[int] | None = None, own_blocks: int = 0,
        class_token: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        require_patch(patch_px)
        if not isinstance(own_blocks, int) or not 0 <= own_blocks <= self.depth:
            raise ConfigError(
                f"own_blocks: {own_blocks} is not possible", fix=f"0 to {self.depth}, the blocks there are"
            )
        self.announce(layers, depth=self.depth, width=self.width, patch_px=patch_px)
        if class_token and own_blocks > self.layers[-1]:
            raise ConfigError("class_token has no effect without a shared block", fix="leave it out")
        self.sensors = tuple(entry.sensor for entry in spec.sensors)
        self.optional = frozenset(self.sensors)
        self.embed = nn.ModuleDict(
            {e.sensor: nn.Conv2d(len(e.bands), self.width, patch_px, patch_px) for e in spec.sensors}
        )
        self.code = nn.ParameterDict({name: new_token(self.width) for name in self.sensors})
        self.cls_token = new_token(self.width) if class_token else None
        self.has_class_token = class_token
        shape = BlockShape(self.width, self.heads, 4 * self.width)
        self.trunk = Trunk(shape, self.depth)
        for i in range(own_blocks):
            towers = Trunk(shape, len(self.sensors)).blocks
            self.trunk.blocks[i] = nn.ModuleDict(dict(zip(self.sensors, towers, strict=True)))
        self.token_groups = tuple(
            Group(e.sensor, tuple((e.sensor, i) for i in range(len(e.bands))), (e.sensor,)) for e in spec.sensors
        )

    def tokenise(self, batch: Batch) -> Tokens:
        px, dates = self.multiple, batch.valid.shape[1]
        grid = (batch.valid.shape[-2] // px, batch.valid.shape[-1] // px)
        place = positions(grid, self.width).to(batch.valid.device)
        parts, there, static = [], [], []
        for number, name in enumerate(self.sensors):
            if name not in batch.image:
                continue
            x, layer = batch.image[name], self.embed[name]
            assert isinstance(layer, nn.Conv2d)
            num = x.shape[1]
            patches = embed_patches(x.flatten(0, 1), layer.weight, layer.bias).view(len(x), num, len(place), -1)
            patches = patches + (place.to(patches) + self.code[name])
            if num > 1:
                patches = patches + sincos_1d(torch.arange(num), self.width)[:, None].to(patches)
            parts.append((number, patches.flatten(1, 2)))
            there.append(patches_there(batch, (name,), px, num))
            static.append(num < dates)
        extra = None if self.cls_token is None else self.cls_token.expand(len(batch), -1, -1)
        return lay_out(parts, there, grid, static=tuple(static), extra=extra)

    def contextualise(self, tokens: Tokens, layers: Sequence[int]) -> list[Tensor]:
        wanted, found = set(layers), {}
        skip = tokens.extra.shape[1]
        x, mask = torch.cat([tokens.extra, tokens.x], 1).contiguous(), attention_mask(tokens.seen)
        for index, block in enumerate(self.trunk.blocks):
            if index > max(wanted):
                break
            if isinstance(block, nn.ModuleDict):
                x = torch.cat([x[:, :skip], self._each_alone(block, x[:, skip:], tokens)], 1)
            else:
                x = block(x, mask)
            if index in wanted:
                found[index] = self.trunk.norm(x) if index == self.depth - 1 else x
        return [found[index] for index in layers]

    def _each_alone(self, blocks: nn.ModuleDict, x: Tensor, tokens: Tokens) -> Tensor:
        """Tokens (B, k, D) of each sensor through its own block; padding stays as it is."""
        out = x
        for number, name in enumerate(self.sensors):
            mine = (tokens.group == number) & tokens.there
            if not torch.compiler.is_compiling() and not bool(mine.any()):
                continue
            block, seen = blocks[name], mine | ~mine.any(1, keepdim=True)
            assert isinstance(block, Block)
            if torch.compiler.is_compiling():  # a recorded graph has no room for a number of tokens that varies
                out = torch.where(mine[..., None], block(x, attention_mask(seen)), out)
                continue
            at = torch.argsort((~mine).to(torch.uint8), dim=1, stable=True)[:, : int(mine.sum(1).max())]
            where = at[..., None].expand(-1, -1, x.shape[2])
            passed = block(x.gather(1, where), attention_mask(seen.gather(1, at)))
            out = out.scatter(1, where, torch.where(mine.gather(1, at)[..., None], passed, out.gather(1, where)))
        return out

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, T, D, H / p, W / p), one for each layer."""
        tokens, dates = self.tokenise(batch), batch.valid.shape[1]
        names = [name for name in self.sensors if name in batch.image]
        there = torch.stack([holds_data(batch, (name,), dates) for name in names])
        there = (there | ~there.any(0)).to(tokens.x.dtype)[..., None, None, None]  # (S, B, T, 1, 1, 1)
        share = there / there.sum(0)
        maps = []
        for out in self.contextualise(tokens, self.layers):
            sizes = [self._count(batch, name, tokens.grid) for name in names]
            parts = torch.split(out[:, tokens.extra.shape[1] :], sizes, 1)
            total: Tensor | int = 0
            for part, weight in zip(parts, share, strict=True):
                one = part.reshape(len(part), -1, *tokens.grid, self.width).permute(0, 1, 4, 2, 3)
                total = total + one * weight.to(one.dtype)
            assert isinstance(total, Tensor)
            maps.append(total)
        return Features(tuple(maps), self.strides)

    def _count(self, batch: Batch, name: str, grid: tuple[int, int]) -> int:
        return int(batch.image[name].shape[1]) * grid[0] * grid[1]


@register("backbone", "sensor_vit_nano")
class SensorViTNano(SensorViT):
    """4 blocks of width 96 for any sensors, each absent or not: for processors and tests."""

    width, depth, heads = 96, 4, 3


@register("backbone", "sensor_vit_tiny")
class SensorViTTiny(SensorViT):
    """12 blocks of width 192 for any sensors, each absent or not."""

    width, heads = 192, 3


@register("backbone", "sensor_vit_small")
class SensorViTSmall(SensorViT):
    """12 blocks of width 384 for any sensors, each absent or not."""

    width, heads = 384, 6
