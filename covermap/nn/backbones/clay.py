"""Clay v1 and v1.5 (Clay Foundation): a ViT whose first layer is made from the bands' wavelengths.

Layout of the published files (under model.encoder.): cls_token, patch_embedding.(fclayer weight_generator),
transformer.layers.{i}.0.(norm to_qkv to_out), .1.net.(0 1 3), transformer.norm. Decoder and teacher are not used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.nn.backbones.vit import BlockShape, Trunk
from covermap.nn.weights import Layout

LAYOUT = Layout(
    prefixes=("model.encoder.",),
    rename=(
        (r"^transformer\.layers\.(\d+)\.0\.norm\.", r"trunk.blocks.\1.norm1."),
        (r"^transformer\.layers\.(\d+)\.0\.to_qkv\.", r"trunk.blocks.\1.attn.qkv."),
        (r"^transformer\.layers\.(\d+)\.0\.to_out\.", r"trunk.blocks.\1.attn.proj."),
        (r"^transformer\.layers\.(\d+)\.1\.net\.0\.", r"trunk.blocks.\1.norm2."),
        (r"^transformer\.layers\.(\d+)\.1\.net\.1\.", r"trunk.blocks.\1.mlp.fc1."),
        (r"^transformer\.layers\.(\d+)\.1\.net\.3\.", r"trunk.blocks.\1.mlp.fc2."),
        (r"^transformer\.norm\.", "trunk.norm."),
    ),
)
WAVE_WIDTH = 128
META_WIDTH = 8
"""Sines and cosines of week, hour, latitude and longitude."""


class ClayEncoder(nn.Module):
    """The encoder alone: (B, C, H, W) and wavelengths (C,) in micrometres -> tokens (B, 1 + h w, D)."""

    def __init__(self, *, width: int, depth: int, heads: int, patch_px: int = 8) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embedding = WaveEmbedding(width, patch_px)
        shape = BlockShape(width, heads, 4 * width, qkv_bias=False, proj_bias=False, eps=1e-5)
        self.trunk = Trunk(shape, depth)

    def forward(self, x: Tensor, waves: Tensor, layers: Sequence[int], *, gsd_m: float, meta: Tensor) -> list[Tensor]:
        """meta (B, 8): sine and cosine of week, hour, latitude, longitude; zeros where they are not known."""
        patches = self.patch_embedding(x, waves)
        height, width = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        table = position_table(height, width, tokens.shape[-1] - META_WIDTH, gsd_m).to(tokens)
        place = table.expand(len(x), -1, -1)
        tokens = tokens + torch.cat([place, meta[:, None].expand(-1, height * width, -1)], 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        found: list[Tensor] = self.trunk(tokens, layers)
        return found


class WaveEmbedding(nn.Module):
    """Kernels of the first layer for any bands: each from its wavelength by a small transformer."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.width, self.patch_px = width, patch_px
        self.fclayer = nn.ModuleDict({name: nn.Linear(WAVE_WIDTH, WAVE_WIDTH) for name in ("l1", "l2")})
        self.weight_generator = WeightGenerator(patch_px**2 * width, width)

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        """(B, C, H, W), (C,) -> (B, D, h, w)."""
        code = sincos_1d_of_waves(waves).to(x)
        code = code + functional.gelu(self.fclayer["l2"](functional.gelu(self.fclayer["l1"](code))))
        weight, bias = self.weight_generator(code)
        kernel = weight.view(len(waves), self.width, self.patch_px, self.patch_px).transpose(0, 1)
        # 0.02 as in the published code, which trained with it; the bias goes without.
        return functional.conv2d(x, kernel * 0.02, bias, stride=self.patch_px)


class WeightGenerator(nn.Module):
    """Codes of wavelengths (C, 128) -> kernels (C, outputs) and a bias (D,)."""

    def __init__(self, num_outputs: int, width: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WAVE_WIDTH, 4, activation="gelu", dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc_weight = nn.Linear(WAVE_WIDTH, num_outputs)
        self.fc_bias = nn.Linear(WAVE_WIDTH, width)
        self.weight_tokens = nn.Parameter(torch.zeros(128, WAVE_WIDTH))
        self.bias_token = nn.Parameter(torch.zeros(1, WAVE_WIDTH))

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(C, 128) -> (C, outputs), (D,)."""
        out = self.encoder(torch.cat([self.weight_tokens, code, self.bias_token])[None])[0]
        first = len(self.weight_tokens)
        return self.fc_weight(out[first:-1] + code), self.fc_bias(out[-1])


def sincos_1d_of_waves(waves: Tensor) -> Tensor:
    """(C,) -> (C, 128): raw micrometres, frequencies 10000^(-k / 63)."""
    half = WAVE_WIDTH // 2
    angle = waves[:, None].double() * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], 1)


def position_table(rows: int, cols: int, width: int, gsd_m: float) -> Tensor:
    """(h w, D) float64. All frequencies are close to the pixel size, as published: the exponent stays below 2 / D."""
    quarter = width // 4
    omega = gsd_m * 10000.0 ** (-2 * torch.arange(quarter, dtype=torch.float64) / (quarter - 1) / width)
    row = torch.arange(rows).repeat_interleave(cols)[:, None] * omega
    col = torch.arange(cols).repeat(rows)[:, None] * omega
    return torch.cat([col.sin(), col.cos(), row.sin(), row.cos()], 1)
