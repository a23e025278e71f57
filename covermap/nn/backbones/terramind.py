"""TerraMind v1 (Jakubik et al. 2025): one ViT over the tokens of any set of modalities.

Layout of the published files: encoder_embeddings.untok_NAME@224.(mod_emb pos_emb proj.weight), encoder.{i}.(norm1
attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2 mlp.fc3), encoder_norm. Decoders, token embeddings, coordinates: not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from covermap.nn.backbones.vit import BlockShape, Trunk, resize_table, sincos_1d
from covermap.nn.weights import Layout, Tensors

PATCH_PX, BASE = 16, 14
PUBLISHED = {
    "S2L2A": "untok_sen2l2a@224", "S2L1C": "untok_sen2l1c@224", "RGB": "untok_sen2rgb@224",
    "S1GRD": "untok_sen1grd@224", "S1RTC": "untok_sen1rtc@224", "DEM": "untok_dem@224",
}  # fmt: skip
"""Names of the modalities in the published files."""


def layout(modalities: Iterable[str]) -> Layout:
    """The published layout as far as the given modalities need it."""
    unused = [name for key, name in PUBLISHED.items() if key not in modalities]
    return Layout(
        prefixes=("model.encoder.", ""),
        ignore=(
            r"decoder", r"mask_token$", r"encoder_embeddings\.(tok_|coords|caption)",
            *(rf"encoder_embeddings\.{re.escape(name)}\." for name in unused),
        ),
        rename=(
            *((rf"^encoder_embeddings\.{re.escape(PUBLISHED[key])}\.", f"embeddings.{key}.") for key in modalities),
            (r"^encoder\.", "trunk.blocks."),
            (r"^encoder_norm\.", "trunk.norm."),
        ),
        convert=_kernels,
        tables=tuple(f"embeddings.{key}.pos_emb" for key in modalities),
    )  # fmt: skip


def _kernels(tensors: Tensors) -> Tensors:
    """Projections of patches laid out as (row, column, band) become kernels of a convolution."""
    return {
        name: tensor.reshape(len(tensor), PATCH_PX, PATCH_PX, -1).permute(0, 3, 1, 2).contiguous()
        if name.startswith("encoder_embeddings.") and name.endswith(".proj.weight")
        else tensor
        for name, tensor in tensors.items()
    }


class TerraMindEncoder(nn.Module):
    """The encoder alone: {modality: (B, C, H, W)} -> tokens (B, sum of h w, D) after each of the given blocks.

    modalities: number of channels by name, in the order in which their tokens are joined.
    """

    def __init__(
        self, modalities: Mapping[str, int], *, width: int, depth: int, heads: int, gated: bool, eps: float = 1e-6
    ) -> None:
        super().__init__()
        hidden = int(2 * 4 * width / 3) if gated else 4 * width
        shape = BlockShape(
            width, heads, hidden, qkv_bias=not gated, proj_bias=not gated, mlp_bias=not gated, gated=gated, eps=eps
        )
        self.embeddings = nn.ModuleDict({name: Embedding(count, width) for name, count in modalities.items()})
        self.trunk = Trunk(shape, depth)

    def forward(self, images: Mapping[str, Tensor], layers: Sequence[int]) -> list[Tensor]:
        """Modalities that are not given simply have no tokens."""
        tokens = torch.cat([self.embeddings[name](x) for name, x in images.items()], 1)
        found: list[Tensor] = self.trunk(tokens, layers)
        return found


class Embedding(nn.Module):
    """Patches of one modality as tokens: projection, a code of the modality, a code of the place."""

    pos_emb: Tensor

    def __init__(self, num_bands: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(num_bands, width, PATCH_PX, PATCH_PX, bias=False)
        self.mod_emb = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_emb", position_table(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, h w, D)."""
        patches = self.proj(x)
        size = (patches.shape[-2], patches.shape[-1])
        table = resize_table(self.pos_emb.view(BASE, BASE, -1), size, align_corners=False)
        tokens: Tensor = patches.flatten(2).transpose(1, 2) + self.mod_emb + table.reshape(1, size[0] * size[1], -1)
        return tokens


def position_table(width: int) -> Tensor:
    """(1, 196, D) float32 in the form of MoCo v3 (Chen et al. 2021): sines and cosines of row, then of column."""
    col = sincos_1d(torch.arange(BASE), width // 2).repeat(BASE, 1)
    row = sincos_1d(torch.arange(BASE), width // 2).repeat_interleave(BASE, 0)
    return torch.cat([row, col], 1).float()[None]
