"""Galileo nano, tiny, base (Tseng et al. 2025): one ViT over groups of bands, dates and places, any of them absent.

Layout of the published files: space_time_embed.GROUP.proj, space_embed.GROUP.proj, time_embed, static_embed,
*_channel_embed, pos_embed, month_embed.weight, blocks.{i}.(norm1 attn.q attn.k attn.v attn.proj norm2 mlp.fc1 mlp.fc2),
norm. Weather, night lights, land-cover and population inputs are not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import BlockShape, TokenBackbone, Trunk, attention_mask, embed_patches
from covermap.nn.coordinates import locations, months, unit_sphere
from covermap.nn.groups import MODALITIES, GroupedBackbone
from covermap.nn.published import Published, Variant
from covermap.nn.tokens import Group, Tokens, lay_out, patches_there
from covermap.nn.weights import Layout, Report, Tensors, load

SPACE_TIME = {"S1": 2, "S2_RGB": 3, "S2_Red_Edge": 3, "S2_NIR_10m": 1, "S2_NIR_20m": 1, "S2_SWIR": 2, "NDVI": 1}
"""Groups that have a value for each place and date, in the order of the published channel codes."""
PATCH_PX, MAX_DATES = 8, 24
BASE_GSD_M = 10.0


def _fused(tensors: Tensors) -> Tensors:
    """Separate q, k and v become one projection; the infix `.backbone` of older files goes."""
    found = {name.replace(".backbone", ""): tensor for name, tensor in tensors.items()}
    for name in [name for name in found if ".attn.q." in name]:
        parts = [found.pop(name.replace(".q.", f".{letter}.")) for letter in "qkv"]
        found[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return found


def layout(groups: Iterable[str] = SPACE_TIME, *, elevation: bool = True) -> Layout:
    """The published layout as far as the given groups need it."""
    unused = [name for name in SPACE_TIME if name not in groups]
    return Layout(
        ignore=(
            r"time_embed\.", r"t_channel_embed$", r"static_embed\.(LS|DW_static|WC_static)\.",
            r"space_embed\.(DW|WC)\." if elevation else r"space_embed\.|sp_channel_embed$",
            *(rf"space_time_embed\.{name}\." for name in unused),
        ),
        rename=(
            (r"^space_time_embed\.(\w+)\.proj\.", r"embed.\1."),
            (r"^space_embed\.SRTM\.proj\.", "elevation_embed."),
            (r"^static_embed\.location\.", "location_embed."),
            (r"^s_t_channel_embed$", "channel_code"),
            (r"^sp_channel_embed$", "elevation_code"),
            (r"^st_channel_embed$", "location_code"),
            (r"^pos_embed$", "date_code"),
            (r"^month_embed\.weight$", "month_code"),
            (r"^(blocks|norm)\.", r"trunk.\1."),
        ),
        convert=_fused,
    )  # fmt: skip


class GalileoEncoder(nn.Module):
    """The encoder alone: {group: (B, T, C, H, W)} -> {group: (B, T, h, w, D)} after each of the given blocks."""

    def __init__(
        self, groups: Iterable[str] = SPACE_TIME, *, width: int, depth: int, heads: int, elevation: bool = True
    ) -> None:
        super().__init__()
        quarter = width // 4
        self.embed = nn.ModuleDict({name: nn.Conv2d(SPACE_TIME[name], width, PATCH_PX, PATCH_PX) for name in groups})
        if elevation:
            self.elevation_embed = nn.Conv2d(2, width, PATCH_PX, PATCH_PX)
            self.elevation_code = nn.Parameter(torch.zeros(3, quarter))
        self.location_embed = nn.Linear(3, width)
        self.channel_code = nn.Parameter(torch.zeros(len(SPACE_TIME), quarter))
        self.location_code = nn.Parameter(torch.zeros(4, quarter))
        self.date_code = nn.Parameter(torch.zeros(MAX_DATES, quarter))
        self.month_code = nn.Parameter(torch.zeros(12, quarter), requires_grad=False)
        self.trunk = Trunk(BlockShape(width, heads, 4 * width, eps=1e-5), depth)

    def forward(
        self,
        groups: Mapping[str, Tensor],
        layers: Sequence[int],
        *,
        months: Tensor,
        patch_px: int = PATCH_PX,
        gsd_m: float = BASE_GSD_M,
        elevation: Tensor | None = None,
        location: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> list[dict[str, Tensor]]:
        """months (B, T) 0-11, -1 unknown; elevation (B, 2, H, W): height and slope; location (B, 3) on the unit sphere.

        A location of NaN has no token. seen (B, T, h, w): the patches that hold data; others are not looked at.
        Absent groups cost nothing.
        """
        first = next(iter(groups.values()))
        batch, dates = first.shape[:2]
        rows, cols = first.shape[-2] // patch_px, first.shape[-1] // patch_px
        tokens = self.patches(groups, months=months, patch_px=patch_px, gsd_m=gsd_m, elevation=elevation)
        masks = [
            each.new_ones(each.shape[:2], dtype=torch.bool) if seen is None or i >= len(groups) else seen.flatten(1)
            for i, each in enumerate(tokens)
        ]
        if location is not None:
            token, known = self.location_token(location)
            tokens.append(token)
            masks.append(known)
        mask = torch.cat(masks, 1)
        outputs = self.trunk(torch.cat(tokens, 1), layers, mask=attention_mask(mask))
        shape = (batch, len(groups), dates, rows, cols, -1)
        length = len(groups) * dates * rows * cols
        split = [out[:, :length].reshape(shape).unbind(1) for out in outputs]
        return [dict(zip(groups, parts, strict=True)) for parts in split]

    def patches(
        self, groups: Mapping[str, Tensor], *, months: Tensor, patch_px: int, gsd_m: float, elevation: Tensor | None
    ) -> list[Tensor]:
        """Tokens of each group (B, T h w, D), and of elevation (B, h w, D) where it is given."""
        first = next(iter(groups.values()))
        batch, dates = first.shape[:2]
        rows, cols = first.shape[-2] // patch_px, first.shape[-1] // patch_px
        place = position_table(rows, cols, self.date_code.shape[1], patch_px * gsd_m / BASE_GSD_M).to(first)
        tokens = []
        for name, x in groups.items():
            patches = self._patches(self.embed[name], x.flatten(0, 1), patch_px)
            patches = patches.view(batch, dates, rows * cols, -1)
            patches = patches + self._codes(list(SPACE_TIME).index(name), months, place)
            tokens.append(patches.flatten(1, 2))
        if elevation is not None:
            patches = self._patches(self.elevation_embed, elevation, patch_px)
            empty = place.new_zeros(place.shape[0], 2 * place.shape[1])
            tokens.append(patches + torch.cat([self.elevation_code[:1].expand(len(place), -1), empty, place], 1))
        return tokens

    def location_token(self, location: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3) -> its token (B, 1, D), and whether it is known (B, 1)."""
        quarter = self.location_code.shape[1]
        code = functional.pad(self.location_code[1], (0, 3 * quarter))
        token = (self.location_embed(location.nan_to_num()) + code)[:, None]
        return token, ~location.isnan().any(1, keepdim=True)

    def _patches(self, layer: nn.Module, x: Tensor, patch_px: int) -> Tensor:
        assert isinstance(layer, nn.Conv2d)
        return embed_patches(x, resize_kernel(layer.weight, patch_px), layer.bias)

    def _codes(self, group: int, months: Tensor, place: Tensor) -> Tensor:
        """(B, T, h w, D): a quarter each for the group, the number of the date, the month and the place."""
        batch, dates = months.shape
        size = (batch, dates, len(place), -1)
        parts = (
            self.channel_code[group].expand(size),
            self.date_code[:dates, None].expand(size),
            (self.month_code[months.clamp(min=0)] * (months >= 0)[..., None])[:, :, None].expand(size),
            place.expand(size),
        )
        return torch.cat(parts, -1)


def position_table(rows: int, cols: int, width: int, scale: float) -> Tensor:
    """(h w, D / 4) float64: sines and cosines of column, then row, in units of 10 m.

    The frequencies are 10000^(-i / (2 d)) for i < d / 2 and d = D / 8, as published (the exponent stays below 1 / 4).
    """
    half = width // 2
    omega = 10000.0 ** (-torch.arange(half // 2, dtype=torch.float64) / half / 2)
    codes = []
    for positions in (torch.arange(cols).repeat(rows), torch.arange(rows).repeat_interleave(cols)):
        angle = scale * positions[:, None] * omega
        codes += [angle.sin(), angle.cos()]
    return torch.cat(codes, 1)


def resize_kernel(kernel: Tensor, patch_px: int) -> Tensor:
    """A kernel (D, C, 8, 8) for another patch size, by the pseudo-inverse of resizing (FlexiViT, Beyer et al. 2023)."""
    if kernel.shape[-1] == patch_px:
        return kernel
    matrix = _resizing(kernel.shape[-1], patch_px).to(kernel)
    return (kernel.flatten(2) @ matrix.T).reshape(*kernel.shape[:2], patch_px, patch_px)


@lru_cache(maxsize=16)
def _resizing(old_px: int, new_px: int) -> Tensor:
    """(new_px^2, old_px^2): from a kernel of the old size to one of the new."""
    with torch.inference_mode(False), torch.no_grad():  # it is kept, and used in training too
        return _pseudo_inverse(old_px, new_px)


def _pseudo_inverse(old_px: int, new_px: int) -> Tensor:
    basis = torch.eye(old_px**2).view(1, -1, old_px, old_px)
    resized = functional.interpolate(basis, (new_px, new_px), mode="bicubic", antialias=True)
    inverse: Tensor = torch.linalg.pinv(resized[0].flatten(1).double())
    return inverse.float()


class GalileoBackbone(GroupedBackbone, TokenBackbone):
    """All dates (24 at most) and sensors go through together; maps for each date, the mean of the groups present.

    patch_px: 1 to 8; a smaller patch gives a finer map and costs with the square of the number of patches.
    """

    dates = "each"
    max_dates = MAX_DATES

    def __init__(
        self,
        spec: InputSpec,
        published: Published,
        *,
        patch_px: int = 4,
        layers: Sequence[int] | None = None,
        extra_bands: str = "drop",
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__(spec, published, extra_bands=extra_bands)
        if not isinstance(patch_px, int) or not 1 <= patch_px <= PATCH_PX:
            raise ConfigError(f"patch_px {patch_px} is not possible", fix=f"1 to {PATCH_PX}")
        self.patch_px, self.gsd_m = patch_px, spec.gsd_m or published.gsd_m
        names = [name for name in SPACE_TIME if name in self.groups.names] or ["S2_RGB"]
        self.elevation = "SRTM" in self.groups.names
        self.encoder = GalileoEncoder(names, width=width, depth=depth, heads=heads, elevation=self.elevation)
        self.announce(layers, depth=depth, width=width, patch_px=patch_px)
        bands = self.groups.bands
        self.token_groups = tuple(
            Group(name, bands(name), self.groups.sensors_of(name))
            for name in (*names, *(["SRTM"] if self.elevation else []))
        )

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, T, D, H / p, W / p), one for each layer."""
        groups, elevation = self._inputs(batch)
        seen = functional.max_pool2d(batch.valid.float(), self.patch_px) > 0
        seen |= ~seen.flatten(1).any(1)[:, None, None, None]  # attention has to look at something
        outputs = self.encoder(
            groups, self.layers, months=months(batch), patch_px=self.patch_px, gsd_m=self.gsd_m, seen=seen,
            elevation=elevation, location=unit_sphere(locations(batch)),
        )  # fmt: skip
        maps = (torch.stack(list(out.values())).mean(0).permute(0, 1, 4, 2, 3) for out in outputs)
        return Features(tuple(maps), self.strides)

    def _inputs(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        """Groups as the encoder takes them (B, T, C, H, W), and elevation (B, 2, H, W) where the batch has it."""
        groups = {name: x if name == "NDVI" else x / 4 + 0.5 for name, x in self.groups(batch).items()}
        elevation = groups.pop("SRTM", None)
        if not groups:  # elevation alone: the first group counts as its mean everywhere
            name = next(iter(self.encoder.embed))
            shape = (*batch.valid.shape[:2], SPACE_TIME[name], *batch.valid.shape[2:])
            groups = {name: torch.full(shape, 0.5, device=batch.valid.device)}
        return groups, None if elevation is None else elevation[:, 0]

    def tokenise(self, batch: Batch) -> Tokens:
        """NDVI has tokens, but no bands of its own unless the data has it as one."""
        groups, elevation = self._inputs(batch)
        px, dates = self.patch_px, batch.valid.shape[1]
        grid = (batch.valid.shape[-2] // px, batch.valid.shape[-1] // px)
        parts = self.encoder.patches(
            groups, months=months(batch), patch_px=px, gsd_m=self.gsd_m, elevation=elevation
        )  # fmt: skip
        number = {group.name: i for i, group in enumerate(self.token_groups)}
        names = [*groups, *([] if elevation is None else ["SRTM"])]
        there = [
            patches_there(batch, self.token_groups[number[name]].sensors, px, 1 if name == "SRTM" else dates)
            for name in names
        ]
        extra, known = self.encoder.location_token(unit_sphere(locations(batch)))
        numbered = [(number[name], part) for name, part in zip(names, parts, strict=True)]
        static = tuple(name == "SRTM" for name in names)
        return lay_out(numbered, there, grid, static=static, extra=extra, extra_there=known)

    def load(self, path: str | Path) -> Report:
        """Published weights of the groups in use."""
        return load(self.encoder, path, layout(self.encoder.embed, elevation=self.elevation))


for _size, _sizes, _sum in (
    (
        "nano",
        {"width": 128, "depth": 4, "heads": 8},
        "eab6acacf527886a508a555bc24efe4b4a2cf91b162e84cd1c4a1807e942180c",
    ),
    ("tiny", {"width": 192, "depth": 12, "heads": 3}, ""),
    ("base", {"width": 768, "depth": 12, "heads": 12}, ""),
):
    register("backbone", f"galileo_{_size}")(
        Variant(
            GalileoBackbone,
            Published(
                f"Galileo {_size}: ViT over sensors, dates and places, any of them absent (NASA Harvest, Ai2)",
                repo="nasaharvest/galileo",
                file=f"models/{_size}/encoder.pt",
                licence="MIT",
                modalities=MODALITIES,
                gsd_m=BASE_GSD_M,
                sha256=_sum,
                uses=("dates", "location"),
            ),
            _sizes,
        )
    )
