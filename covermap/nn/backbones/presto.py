"""Presto (Tseng et al. 2023): a small transformer over the time series of single pixels; any group may be absent.

Layout of the published file (under encoder.): eo_patch_embed.GROUP, dw_embed, latlon_embed, channel_embed, pos_embed,
month_embed, blocks.{i}.(norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2), norm. The decoder is not used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from covermap.nn.backbones.vit import BlockShape, Trunk
from covermap.nn.weights import Layout

GROUPS = {
    "S1": 2, "S2_RGB": 3, "S2_Red_Edge": 3, "S2_NIR_10m": 1, "S2_NIR_20m": 1, "S2_SWIR": 2, "ERA5": 2, "SRTM": 2,
    "NDVI": 1,
}  # fmt: skip
"""Groups of bands and their number, in the order of the published channel codes."""
LAYOUT = Layout(
    prefixes=("encoder.",),
    rename=(
        (r"^eo_patch_embed\.", "embed."),
        (r"^dw_embed\.", "land_cover_embed."),
        (r"^latlon_embed\.", "location_embed."),
        (r"^pos_embed$", "date_code"),
        (r"^(month|channel)_embed\.weight$", r"\1_code"),
        (r"^(blocks|norm)\.", r"trunk.\1."),
    ),
)
WIDTH, DEPTH, HEADS, MAX_DATES = 128, 2, 8, 24


class PrestoEncoder(nn.Module):
    """The encoder alone: {group: (N, T, C)} -> (N, 128), the mean of all tokens, normed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.ModuleDict({name: nn.Linear(count, WIDTH) for name, count in GROUPS.items()})
        self.land_cover_embed = nn.Embedding(10, WIDTH)
        self.location_embed = nn.Linear(3, WIDTH)
        self.channel_code = nn.Parameter(torch.zeros(len(GROUPS) + 1, WIDTH // 4))
        self.month_code = nn.Parameter(torch.zeros(12, WIDTH // 4), requires_grad=False)
        self.date_code = nn.Parameter(torch.zeros(1, MAX_DATES, WIDTH // 2), requires_grad=False)
        self.trunk = Trunk(BlockShape(WIDTH, HEADS, 4 * WIDTH, eps=1e-5), DEPTH)

    def forward(
        self, groups: Mapping[str, Tensor], *, months: Tensor, location: Tensor, land_cover: Tensor | None = None
    ) -> Tensor:
        """months (N, T) 0-11; location (N, 2): latitude, longitude; land_cover (N, T): Dynamic World 0-8.

        Elevation and slope (group SRTM) are one token for all dates, of the first.
        """
        months_of, dates_of = self.month_code[months], self.date_code[:, : months.shape[1]].expand(len(months), -1, -1)
        tokens = [self.location_embed(unit_sphere(location))[:, None]]
        for number, name in enumerate(GROUPS):
            if name not in groups:
                continue
            x = self.embed[name](groups[name])
            code = self.channel_code[number].expand(*months.shape, -1)
            if name == "SRTM":
                zeros = torch.zeros_like
                tokens.append(x[:, :1] + torch.cat([zeros(months_of), code, zeros(dates_of)], -1)[:, :1])
            else:
                tokens.append(x + torch.cat([months_of, code, dates_of], -1))
        if land_cover is not None:
            code = self.channel_code[len(GROUPS)].expand(*months.shape, -1)
            tokens.append(self.land_cover_embed(land_cover) + torch.cat([months_of, code, dates_of], -1))
        x = torch.cat(tokens, 1)
        for block in self.trunk.blocks:
            x = block(x)
        out: Tensor = self.trunk.norm(x.mean(1))
        return out


def unit_sphere(location: Tensor) -> Tensor:
    """(N, 2) latitude and longitude in degrees -> (N, 3) x, y, z."""
    lat, lon = torch.deg2rad(location).unbind(1)
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], 1)
