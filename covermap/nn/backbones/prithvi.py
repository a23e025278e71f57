"""Prithvi-EO 1.0 and 2.0 (Jakubik et al. 2023, Szwarcman et al. 2024): a ViT over space and time.

Layout of the published files: encoder.cls_token, encoder.pos_embed, encoder.patch_embed.proj (Conv3d),
encoder.blocks.{i}.(norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2), encoder.norm; files with TL also hold
encoder.temporal_embed_enc.scale and encoder.location_embed_enc.scale. The decoder is not used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from covermap.nn.backbones.vit import BlockShape, Trunk, resize_table, sincos_1d
from covermap.nn.weights import Layout

LAYOUT = Layout(
    prefixes=("model.encoder.", "encoder.", ""),
    ignore=(r"decoder", r"mask_token$"),
    rename=(
        (r"^_timm_module\.", ""),
        (r"^patch_embed\.proj\.", "patch_embed."),
        (r"^(temporal|location)_embed_enc\.scale$", r"\1_scale"),
        (r"^(blocks|norm)\.", r"trunk.\1."),
    ),
    tables=("pos_embed",),
)


class PrithviEncoder(nn.Module):
    """The encoder alone: (B, C, T, H, W) -> tokens (B, 1 + T h w, D) after each of the given blocks.

    size_px: the side that the position table was made for. coords: whether date and location codes exist (TL).
    """

    pos_embed: Tensor

    def __init__(
        self, *, width: int, depth: int, heads: int, patch_px: int = 16, size_px: int = 224, num_frames: int = 4,
        num_bands: int = 6, coords: bool = False, eps: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch_px, self.base, self.num_frames, self.width = patch_px, size_px // patch_px, num_frames, width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", position_table(width, num_frames, self.base, self.base))
        self.patch_embed = nn.Conv3d(num_bands, width, (1, patch_px, patch_px), (1, patch_px, patch_px))
        self.trunk = Trunk(BlockShape(width, heads, 4 * width, eps=eps), depth)
        self.temporal_scale = nn.Parameter(torch.ones(1)) if coords else None
        self.location_scale = nn.Parameter(torch.ones(1)) if coords else None

    def forward(
        self,
        x: Tensor,
        layers: Sequence[int],
        *,
        temporal: Tensor | None = None,
        location: Tensor | None = None,
    ) -> list[Tensor]:
        """temporal (B, T, 2): year, day of year 1-366; location (B, 2): latitude, longitude; NaN where not known."""
        tokens = self.patch_embed(x)
        batch, _, frames, height, width = tokens.shape
        tokens = tokens.flatten(2).transpose(1, 2)
        table = self._positions(frames, height, width).to(tokens)
        tokens = tokens + table[1:]
        if self.temporal_scale is not None and temporal is not None:
            code = _coordinate_code(temporal.reshape(-1, 2), self.width).view(batch, frames, -1).to(tokens)
            tokens = tokens + self.temporal_scale * code.repeat_interleave(height * width, 1)
        if self.location_scale is not None and location is not None:
            tokens = tokens + self.location_scale * _coordinate_code(location, self.width)[:, None].to(tokens)
        first = (self.cls_token + table[:1]).expand(batch, -1, -1)
        found: list[Tensor] = self.trunk(torch.cat([first, tokens], 1), layers)
        return found

    def _positions(self, frames: int, height: int, width: int) -> Tensor:
        """(1 + T h w, D): the table of the base grid, each frame interpolated to the grid of this input."""
        base = self.pos_embed if frames == self.num_frames else position_table(self.width, frames, self.base, self.base)
        grid = base[0, 1:].view(frames, self.base, self.base, self.width).float()
        sized = torch.stack([resize_table(frame, (height, width), align_corners=True) for frame in grid])
        return torch.cat([base[0, :1].float(), sized.reshape(-1, self.width)])


def position_table(width: int, frames: int, rows: int, cols: int) -> Tensor:
    """(1, 1 + T h w, D) float32: sines and cosines of column (6/16 of the width), row (6/16) and frame (4/16)."""
    across, along = width // 16 * 6, width // 16 * 4
    col = sincos_1d(torch.arange(cols), across).repeat(frames * rows, 1)
    row = sincos_1d(torch.arange(rows), across).repeat_interleave(cols, 0).repeat(frames, 1)
    frame = sincos_1d(torch.arange(frames), along).repeat_interleave(rows * cols, 0)
    table = torch.cat([col, row, frame], 1).float()
    return torch.cat([torch.zeros(1, width), table])[None]


def _coordinate_code(pairs: Tensor, width: int) -> Tensor:
    """(N, 2) -> (N, D): half of the width for each number, sines and cosines of the raw value; 0 where it is NaN."""
    code = torch.cat([sincos_1d(pairs[:, i].nan_to_num(), width // 2) for i in (0, 1)], 1)
    return torch.where(pairs.isnan().any(1, keepdim=True), torch.zeros_like(code), code)
