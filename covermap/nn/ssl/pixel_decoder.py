"""From the tokens that were seen to the pixels of those that were hidden (He et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError
from covermap.core.types import Batch
from covermap.nn.backbones.plain_vit import new_token, positions
from covermap.nn.backbones.vit import BlockShape, Trunk, attention_mask, sincos_1d
from covermap.nn.tokens import Group, Tokens


@dataclass(frozen=True)
class Target:
    """Bands of one sensor that the tokens of a group show: their positions in the sensor."""

    group: int
    sensor: str
    positions: tuple[int, ...]

    @property
    def key(self) -> str:
        """Name of its head."""
        return f"{self.group}_{self.sensor}"


def targets_of(groups: Sequence[Group]) -> tuple[Target, ...]:
    """What there is to predict of each group; nothing of those whose bands are computed."""
    return tuple(
        Target(number, sensor, tuple(i for name, i in group.bands if name == sensor))
        for number, group in enumerate(groups)
        for sensor in dict.fromkeys(name for name, _ in group.bands)
    )


class PixelDecoder(nn.Module):
    """A light transformer over all tokens, hidden ones as one learnt token with the codes of place, date and group.

    It predicts all pixels of a patch, in the order row, column, band, by a layer for each target.
    """

    def __init__(
        self, inputs: int, groups: Sequence[Group], targets: Sequence[Target], *, patch_px: int, width: int, depth: int,
        heads: int, eps: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads or width % 4:
            raise ConfigError(
                f"method: a decoder of width {width} cannot have {heads} heads",
                fix="decoder_width: a multiple of 4 and of decoder_heads, such as 256 with 8",
            )
        self.embed = nn.Linear(inputs, width)
        self.mask_token = new_token(width)
        self.group_code = nn.Parameter(nn.init.trunc_normal_(torch.empty(len(groups), width), std=0.02))
        self.trunk = Trunk(BlockShape(width, heads, 4 * width, eps=eps), depth)
        self.apply(_initialise)
        self.heads = nn.ModuleDict({t.key: nn.Linear(width, patch_px**2 * len(t.positions)) for t in targets})
        for head in self.heads.values():  # at first the mean is predicted, about
            assert isinstance(head, nn.Linear)
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)

    def forward(
        self, seen: Tensor, extra: Tensor, at: Tensor, real: Tensor, tokens: Tokens, needed: Tensor, batch: Batch
    ) -> Tensor:
        """What the encoder made of k tokens and of the extra ones -> (B, N, W) for the heads.

        seen (B, k, D), at (B, k): their positions, real (B, k) bool: whether it is one, or padding. tokens: all N of
        them. needed (B, N) bool: those that were seen or are to be predicted; others are not looked at.
        """
        place = at[..., None].expand(-1, -1, self.mask_token.shape[2])
        x = self.mask_token.to(seen.dtype).expand(*needed.shape, -1)
        x = x.scatter(1, place, torch.where(real[..., None], self.embed(seen).to(x.dtype), x.gather(1, place)))
        x = x + self.codes(tokens, batch).to(x)
        first = self.embed(extra).to(x.dtype)
        there = torch.cat([tokens.extra_there, needed], 1)
        there = there | ~there.any(1, keepdim=True)
        out: Tensor = self.trunk(torch.cat([first, x], 1), [self.trunk.depth - 1], mask=attention_mask(there))[0]
        return out[:, extra.shape[1] :]

    def codes(self, tokens: Tokens, batch: Batch) -> Tensor:
        """(B or 1, N, W): where and when each token is, and what it shows."""
        width = self.mask_token.shape[2]
        place = positions(tokens.grid, width).to(self.group_code)[tokens.place[:1]]
        date = tokens.date[:1]
        dates = sincos_1d(torch.arange(int(date.max()) + 1 if date.numel() else 0), width).to(self.group_code)
        dates = torch.cat([dates, dates.new_zeros(1, width)])  # of STATIC, -1: the last
        return place + dates[date] + self.group_code[tokens.group[:1]]


def _initialise(module: nn.Module) -> None:
    """As the published masked autoencoders start (Glorot and Bengio 2010): narrow decoders learn sooner by it."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def patchify(x: Tensor, patch_px: int) -> Tensor:
    """(B, T, C, H, W) -> (B, T h w, p p C): numbers of a patch in the order row, column, band."""
    batch, dates, bands, height, width = x.shape
    rows, cols = height // patch_px, width // patch_px
    cut = x.reshape(batch, dates, bands, rows, patch_px, cols, patch_px).permute(0, 1, 3, 5, 4, 6, 2)
    return cut.reshape(batch, dates * rows * cols, patch_px**2 * bands)


def unpatchify(patches: Tensor, patch_px: int, shape: Sequence[int]) -> Tensor:
    """The inverse of patchify; shape: (B, T, C, H, W)."""
    batch, dates, bands, height, width = shape
    rows, cols = height // patch_px, width // patch_px
    cut = patches.reshape(batch, dates, rows, cols, patch_px, patch_px, bands).permute(0, 1, 6, 2, 4, 3, 5)
    return cut.reshape(batch, dates, bands, height, width)


def pixels(image: Mapping[str, Tensor], target: Target, dates: int) -> Tensor:
    """(B, T, C, H, W) of a target's bands for as many dates as its tokens have."""
    x = image[target.sensor][:, :, list(target.positions)]
    return x[:, :dates] if x.shape[1] >= dates else x.expand(-1, dates, -1, -1, -1)
