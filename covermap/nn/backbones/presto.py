"""Presto (Tseng et al. 2023): a small transformer over the time series of single pixels; any group may be absent.

Layout of the published file (under encoder.): eo_patch_embed.GROUP, dw_embed, latlon_embed, channel_embed, pos_embed,
month_embed, blocks.{i}.(norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2), norm. The decoder is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import BlockShape, Trunk, attention_mask
from covermap.nn.coordinates import locations, months, unit_sphere
from covermap.nn.groups import BANDS, MODALITIES, GroupedBackbone
from covermap.nn.published import Published, Variant
from covermap.nn.weights import Layout, Report, load

GROUPS = {
    "S1": 2, "S2_RGB": 3, "S2_Red_Edge": 3, "S2_NIR_10m": 1, "S2_NIR_20m": 1, "S2_SWIR": 2, "ERA5": 2, "SRTM": 2,
    "NDVI": 1,
}  # fmt: skip
"""Groups of bands and their number, in the order of the published channel codes."""


def layout(groups: Iterable[str] = GROUPS, *, land_cover: bool = True) -> Layout:
    """The published layout as far as the given groups need it."""
    unused = [name for name in GROUPS if name not in groups]
    return Layout(
        prefixes=("encoder.",),
        ignore=(*(rf"eo_patch_embed\.{name}\." for name in unused), *(() if land_cover else (r"dw_embed\.",))),
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

    def __init__(self, groups: Iterable[str] = GROUPS, *, land_cover: bool = True) -> None:
        super().__init__()
        self.embed = nn.ModuleDict({name: nn.Linear(GROUPS[name], WIDTH) for name in groups})
        if land_cover:
            self.land_cover_embed = nn.Embedding(10, WIDTH)
        self.location_embed = nn.Linear(3, WIDTH)
        self.channel_code = nn.Parameter(torch.zeros(len(GROUPS) + 1, WIDTH // 4))
        self.month_code = nn.Parameter(torch.zeros(12, WIDTH // 4), requires_grad=False)
        self.date_code = nn.Parameter(torch.zeros(1, MAX_DATES, WIDTH // 2), requires_grad=False)
        self.trunk = Trunk(BlockShape(WIDTH, HEADS, 4 * WIDTH, eps=1e-5), DEPTH)

    def forward(
        self,
        groups: Mapping[str, Tensor],
        *,
        months: Tensor,
        location: Tensor,
        land_cover: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """months (N, T) 0-11, -1 unknown; location (N, 2): latitude, longitude, NaN unknown.

        land_cover (N, T): Dynamic World 0-8. seen (N, T): dates that hold data, at least one of each pixel.
        Elevation and slope (group SRTM) are one token for all dates, of the first.
        """
        months_of = self.month_code[months.clamp(min=0)] * (months >= 0)[..., None]
        dates_of = self.date_code[:, : months.shape[1]].expand(len(months), -1, -1)
        tokens = [self.location_embed(unit_sphere(location.nan_to_num()))[:, None]]
        masks = [~location.isnan().any(1, keepdim=True)]
        whole = torch.ones_like(months, dtype=torch.bool) if seen is None else seen
        for number, name in enumerate(GROUPS):
            if name not in groups:
                continue
            x = self.embed[name](groups[name])
            code = self.channel_code[number].expand(*months.shape, -1)
            if name == "SRTM":
                zeros = torch.zeros_like
                tokens.append(x[:, :1] + torch.cat([zeros(months_of), code, zeros(dates_of)], -1)[:, :1])
                masks.append(torch.ones_like(whole[:, :1]))
            else:
                tokens.append(x + torch.cat([months_of, code, dates_of], -1))
                masks.append(whole)
        if land_cover is not None:
            code = self.channel_code[len(GROUPS)].expand(*months.shape, -1)
            tokens.append(self.land_cover_embed(land_cover) + torch.cat([months_of, code, dates_of], -1))
            masks.append(whole)
        x, mask = torch.cat(tokens, 1), torch.cat(masks, 1)
        looked_at = attention_mask(mask)
        for block in self.trunk.blocks:
            x = block(x, looked_at)
        share = mask[..., None] / mask.sum(1)[:, None, None]
        out: Tensor = self.trunk.norm((x * share).sum(1))
        return out


class PrestoBackbone(GroupedBackbone):
    """The series of each pixel by itself: one map of stride 1. Pixels go through in chunks, so memory stays bounded."""

    dates = "all"
    max_dates = MAX_DATES

    def __init__(self, spec: InputSpec, published: Published, *, extra_bands: str = "drop") -> None:
        super().__init__(spec, published, extra_bands=extra_bands)
        known = {modality.name: modality for modality in published.modalities}
        at = {band: modality.statistics(i) for modality in known.values() for i, band in enumerate(modality.bands)}
        self._form = {
            name: [(at[band], FORM[band]) for band in BANDS[name]] for name in self.groups.names if name != "NDVI"
        }
        self.encoder = PrestoEncoder(self.groups.names, land_cover=False)
        self.channels, self.strides = (WIDTH,), (1,)

    def forward(self, batch: Batch) -> Features:
        """-> one map (B, 128, H, W)."""
        num, dates, height, width = batch.valid.shape
        pixels = {
            name: self._formed(name, x).permute(0, 3, 4, 1, 2).flatten(0, 2) for name, x in self.groups(batch).items()
        }
        seen = batch.valid.permute(0, 2, 3, 1).flatten(0, 2)
        seen = seen | ~seen.any(1, keepdim=True)
        months_ = months(batch)[:, None].expand(-1, height * width, -1).flatten(0, 1)
        places = locations(batch)[:, None].expand(-1, height * width, -1).flatten(0, 1)
        step = max(1, CHUNK_TOKENS // (dates * len(pixels) + 1))
        parts = [slice(i, i + step) for i in range(0, len(seen), step)]
        out = torch.cat(
            [self._chunk({k: x[at] for k, x in pixels.items()}, months_[at], places[at], seen[at]) for at in parts]
        )
        return Features((out.view(num, height, width, -1).permute(0, 3, 1, 2).contiguous(),), self.strides)

    def _chunk(self, pixels: dict[str, Tensor], months_: Tensor, places: Tensor, seen: Tensor) -> Tensor:
        def run(pixels: dict[str, Tensor], months_: Tensor, places: Tensor, seen: Tensor) -> Tensor:
            out: Tensor = self.encoder(pixels, months=months_, location=places, seen=seen)
            return out

        if not torch.is_grad_enabled():
            return run(pixels, months_, places, seen)
        found: Tensor = checkpoint(run, pixels, months_, places, seen, use_reentrant=False)
        return found

    def _formed(self, name: str, x: Tensor) -> Tensor:
        """Standard scores (B, T, C, H, W) -> (value + add) / divisor of the published model."""
        if name == "NDVI":
            return x
        parts = [
            (x[:, :, i] * std + mean + add) / divisor
            for i, ((mean, std), (add, divisor)) in enumerate(self._form[name])
        ]
        return torch.stack(parts, 2)

    def load(self, path: str | Path) -> Report:
        """The published weights of the groups in use."""
        return load(self.encoder, path, layout(self.encoder.embed, land_cover=False))


CHUNK_TOKENS = 32768
"""Tokens that go through together: some 0.4 GB, and 1 GB in training."""
FORM = {
    **dict.fromkeys(("vv", "vh"), (25.0, 25.0)), "elevation": (0.0, 2000.0), "slope": (0.0, 50.0),
    **dict.fromkeys((b for bands in list(BANDS.values())[1:6] for b in bands), (0.0, 1.0)),
}  # fmt: skip
"""Added to, then divides, a physical value (reflectance, dB, m, degrees)."""
register("backbone", "presto")(
    Variant(
        PrestoBackbone,
        Published(
            "Presto: small transformer on the time series of single pixels, any sensor absent (NASA Harvest)",
            repo="nasaharvest/presto",
            file="default_model.pt",
            licence="MIT",
            modalities=MODALITIES,
            gsd_m=10,
            sha256="559c9d76f525bdf2dd3774da8b1e7f1510769b73baacac12e9e4d8d5c67fbe65",
            uses=("dates", "location"),
        ),
    )
)
