"""Prithvi-EO 1.0 and 2.0 (Jakubik et al. 2023, Szwarcman et al. 2024): a ViT over space and time.

Layout of the published files: encoder.cls_token, encoder.pos_embed, encoder.patch_embed.proj (Conv3d),
encoder.blocks.{i}.(norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2), encoder.norm; files with TL also hold
encoder.temporal_embed_enc.scale and encoder.location_embed_enc.scale. The decoder is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import (
    BlockShape,
    TokenBackbone,
    Trunk,
    embed_patches,
    resize_table,
    sincos_1d,
    token_map,
)
from covermap.nn.coordinates import day_codes, locations
from covermap.nn.model import stack_by_date
from covermap.nn.published import Modality, Published, Variant, match, select, statistics, unit_notes
from covermap.nn.tokens import Group, Tokens, lay_out, patches_there
from covermap.nn.weights import Layout, Report, Tensors, adapt_bands, load


def _flat_kernel(tensors: Tensors) -> Tensors:
    """The published kernel has one frame in depth."""
    name = next((name for name in tensors if name.endswith("patch_embed.proj.weight")), "")
    return {**tensors, name: tensors[name].squeeze(2)} if name else tensors


LAYOUT = Layout(
    prefixes=("model.encoder.", "encoder.", ""),
    ignore=(r"decoder", r"mask_token$"),
    rename=(
        (r"^_timm_module\.", ""),
        (r"^patch_embed\.proj\.", "patch_embed."),
        (r"^(temporal|location)_embed_enc\.scale$", r"\1_scale"),
        (r"^(blocks|norm)\.", r"trunk.\1."),
    ),
    convert=_flat_kernel,
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
        self.patch_embed = nn.Conv2d(num_bands, width, patch_px, patch_px)
        self.trunk = Trunk(BlockShape(width, heads, 4 * width, eps=eps), depth)
        self.temporal_scale = nn.Parameter(torch.ones(1)) if coords else None
        self.location_scale = nn.Parameter(torch.ones(1)) if coords else None

    def forward(
        self, x: Tensor, layers: Sequence[int], *, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> list[Tensor]:
        """temporal (B, T, 2): year, day of year 1-366; location (B, 2): latitude, longitude; NaN where not known."""
        first, tokens = self.embed(x, temporal=temporal, location=location)
        found: list[Tensor] = self.trunk(torch.cat([first, tokens], 1), layers)
        return found

    def embed(
        self, x: Tensor, *, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Before the first block: the class token (B, 1, D) and those of patches (B, T h w, D)."""
        batch, _, frames = x.shape[:3]
        height, width = x.shape[3] // self.patch_px, x.shape[4] // self.patch_px
        layer = self.patch_embed
        tokens = embed_patches(x.transpose(1, 2).flatten(0, 1), layer.weight, layer.bias)
        tokens = tokens.view(batch, frames * height * width, self.width)
        table = self._positions(frames, height, width).to(tokens)
        tokens = tokens + table[1:]
        codes = coordinate_codes(
            temporal, location, self.temporal_scale, self.location_scale, self.width, height * width
        )
        for code in codes:
            tokens = tokens + code.to(tokens)
        return (self.cls_token + table[:1]).expand(batch, -1, -1), tokens

    def _positions(self, frames: int, height: int, width: int) -> Tensor:
        """(1 + T h w, D): the table of the base grid, each frame interpolated to the grid of this input."""
        return sized_table(self.pos_embed, self.num_frames, self.base, (frames, height, width))


def sized_table(table: Tensor, num_frames: int, base: int, size: tuple[int, int, int]) -> Tensor:
    """A table (1, 1 + frames base^2, D) -> (1 + T h w, D) float32: anew for other frames, interpolated to the grid."""
    frames, height, width = size
    table = table if frames == num_frames else position_table(table.shape[-1], frames, base, base).to(table.device)
    grid = table[0, 1:].view(frames, base, base, -1).float()
    sized = torch.stack([resize_table(frame, (height, width), align_corners=True) for frame in grid])
    return torch.cat([table[0, :1].float(), sized.reshape(-1, table.shape[-1])])


def coordinate_codes(
    temporal: Tensor | None, location: Tensor | None, temporal_scale: Tensor | None, location_scale: Tensor | None,
    width: int, cells: int,
) -> list[Tensor]:  # fmt: skip
    """What TL models add to patches of `cells` places, as far as it is known: (B, T cells, D) and (B, 1, D)."""
    codes = []
    if temporal_scale is not None and temporal is not None:
        code = _coordinate_code(temporal.reshape(-1, 2), width).view(*temporal.shape[:2], -1).to(temporal_scale)
        codes.append(temporal_scale * code.repeat_interleave(cells, 1))
    if location_scale is not None and location is not None:
        codes.append(location_scale * _coordinate_code(location, width)[:, None].to(location_scale))
    return codes


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


class PrithviBackbone(TokenBackbone):
    """All dates go through together; maps for each date at one stride. TL models also take date and location."""

    dates = "each"
    has_class_token = True

    def __init__(
        self,
        spec: InputSpec,
        published: Published,
        *,
        layers: Sequence[int] | None = None,
        extra_bands: str = "mean",
        missing_bands: str = "drop",
        depth: int,
        width: int,
        eps: float = 1e-6,
        **sizes: Any,
    ) -> None:
        super().__init__()
        found = match(spec, published.modalities)
        self.selection = select(found, published.modalities[0], extra=extra_bands, missing=missing_bands)
        self.notes, self.uses = (*self.selection.notes, *unit_notes(found, published.modalities)), published.uses
        self.statistics = statistics(found, published.modalities)
        self.unused = self.selection.without(spec)
        self.encoder = PrithviEncoder(
            width=width, depth=depth, num_bands=len(self.selection.channels), eps=eps, **sizes
        )  # fmt: skip
        self.announce(layers, depth=depth, width=width, patch_px=self.encoder.patch_px)
        bands = tuple((channel.sensor, channel.position) for channel in self.selection.channels)
        self.token_groups = (Group("HLS", bands, tuple(dict.fromkeys(sensor for sensor, _ in bands))),)

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, T, D, H / p, W / p), one for each layer."""
        x = stack_by_date(batch, self.selection.channels).transpose(1, 2)
        num_dates, grid = x.shape[2], (x.shape[3] // self.encoder.patch_px, x.shape[4] // self.encoder.patch_px)
        tokens = self.encoder(x, self.layers, temporal=day_codes(batch), location=locations(batch))
        maps = (token_map(t, (num_dates * grid[0], grid[1]), skip=1) for t in tokens)
        by_date = (x.view(len(x), -1, num_dates, *grid).transpose(1, 2) for x in maps)
        return Features(tuple(by_date), self.strides)

    def tokenise(self, batch: Batch) -> Tokens:
        x = stack_by_date(batch, self.selection.channels).transpose(1, 2)
        grid = (x.shape[3] // self.encoder.patch_px, x.shape[4] // self.encoder.patch_px)
        first, tokens = self.encoder.embed(x, temporal=day_codes(batch), location=locations(batch))
        there = patches_there(batch, self.token_groups[0].sensors, self.encoder.patch_px, x.shape[2])
        return lay_out([(0, tokens)], [there], grid, extra=first)

    def load(self, path: str | Path) -> Report:
        """Published weights, the first layer brought to the bands of the data."""
        change = partial(adapt_bands, selection=self.selection)
        return load(self.encoder, path, LAYOUT, adapt={"patch_embed.weight": change})


_BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
_V1 = Modality(
    "HLS", _BANDS, (775.2, 1080.9, 1228.6, 2497.2, 2204.2, 1610.8), (1281.5, 1270.0, 1399.5, 1368.3, 1291.7, 1154.5)
)
_V2 = Modality("HLS", _BANDS, (1087, 1342, 1433, 2734, 1958, 1363), (2248, 2179, 2178, 1850, 1242, 1049))
_SIZES = {
    "tiny": {"width": 192, "depth": 12, "heads": 3, "num_frames": 1},
    "100": {"width": 768, "depth": 12, "heads": 12},
    "300": {"width": 1024, "depth": 24, "heads": 16},
    "600": {"width": 1280, "depth": 32, "heads": 16, "patch_px": 14},
}


def _v2(size: str, *, coords: bool) -> Variant:
    name = {"tiny": "tiny"}.get(size, f"{size}M") + ("-TL" if coords else "")
    unpublished = size in ("tiny", "100") and not coords
    published = Published(
        f"Prithvi-EO-2.0 {name.replace('-TL', ' with dates and locations')}: ViT on HLS time series (IBM, NASA)",
        repo="" if unpublished else f"ibm-nasa-geospatial/Prithvi-EO-2.0-{name}",
        file="" if unpublished else f"Prithvi_EO_V2_{name.replace('-', '_')}.pt",
        licence="Apache-2.0",
        modalities=(_V2,),
        gsd_m=30,
        uses=("dates", "location") if coords else (),
    )
    return Variant(PrithviBackbone, published, {**_SIZES[size], "coords": coords})


register("backbone", "prithvi_eo_v1_100")(
    Variant(
        PrithviBackbone,
        Published(
            "Prithvi-EO-1.0 100M: ViT on HLS time series of the USA (IBM, NASA)",
            repo="ibm-nasa-geospatial/Prithvi-EO-1.0-100M",
            file="Prithvi_EO_V1_100M.pt",
            licence="Apache-2.0",
            modalities=(_V1,),
            gsd_m=30,
        ),
        {**_SIZES["100"], "num_frames": 3},
    )
)
for _size in _SIZES:
    register("backbone", f"prithvi_eo_v2_{_size}")(_v2(_size, coords=False))
    register("backbone", f"prithvi_eo_v2_{_size}_tl")(_v2(_size, coords=True))
