"""TerraMind v1 (Jakubik et al. 2025): one ViT over the tokens of any set of modalities.

Layout of the published files: encoder_embeddings.untok_NAME@224.(mod_emb pos_emb proj.weight), encoder.{i}.(norm1
attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2 mlp.fc3), encoder_norm. Decoders, token embeddings, coordinates: not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError
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
from covermap.nn.model import stack_by_date
from covermap.nn.published import (
    Modality,
    Published,
    Selection,
    Variant,
    leave_out,
    match,
    select,
    statistics,
    unit_notes,
)
from covermap.nn.tokens import Group, Tokens, lay_out, patches_there
from covermap.nn.weights import Layout, Report, Tensors, adapt_bands, load

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
        parts = [self.embeddings[name](x) for name, x in images.items()]
        tokens = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
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
        patches = embed_patches(x, self.proj.weight, None)
        size = (x.shape[-2] // PATCH_PX, x.shape[-1] // PATCH_PX)
        table = resize_table(self.pos_emb.view(BASE, BASE, -1), size, align_corners=False)
        code = self.mod_emb + table.reshape(1, size[0] * size[1], -1)
        return patches + code


def position_table(width: int) -> Tensor:
    """(1, 196, D) float32 in the form of MoCo v3 (Chen et al. 2021): sines and cosines of row, then of column."""
    col = sincos_1d(torch.arange(BASE), width // 2).repeat(BASE, 1)
    row = sincos_1d(torch.arange(BASE), width // 2).repeat_interleave(BASE, 0)
    return torch.cat([row, col], 1).float()[None]


class TerraMindBackbone(TokenBackbone):
    """One date at a time; every sensor is a modality with tokens of its own, and any of them may be absent.

    modalities: {sensor: modality} where the choice by bands is not right, such as {sentinel1: S1RTC}. merge: how the
    features of the modalities become one (mean or max of those that are there, or concat, zeros for absent ones).
    """

    dates = "one"
    fuses = True

    def __init__(
        self,
        spec: InputSpec,
        published: Published,
        *,
        modalities: Mapping[str, str] | None = None,
        merge: str = "mean",
        layers: Sequence[int] | None = None,
        extra_bands: str = "mean",
        missing_bands: str = "drop",
        width: int,
        depth: int,
        heads: int,
        gated: bool,
    ) -> None:
        super().__init__()
        if merge not in ("mean", "max", "concat"):
            raise ConfigError(f"merge: {merge} is not known", fix="mean, max or concat")
        found = match(spec, published.modalities, wanted=modalities)
        by_name = {modality.name: modality for modality in published.modalities}
        self.selections: dict[str, Selection] = {}
        for name in dict.fromkeys(c.modality for c in found if c.modality):
            mine = [channel for channel in found if channel.modality == name]
            self.selections[name] = select(mine, by_name[name], extra=extra_bands, missing=missing_bands, owner=name)
        lost = [channel for channel in found if not channel.modality]
        self.notes = (
            *leave_out(lost, "error" if extra_bands == "error" else "drop"),
            *(note for selection in self.selections.values() for note in selection.notes),
            *unit_notes(found, published.modalities),
        )
        if merge != "mean" and len(self.selections) == 1:
            raise ConfigError(f"merge: {merge} has no effect on one modality", fix="leave it out")
        owners = {name: {c.sensor for c in selection.channels} for name, selection in self.selections.items()}
        self.unused = frozenset(e.sensor for e in spec.sensors) - set().union(*owners.values())
        # A modality that two sensors share needs both.
        self.optional = frozenset(next(iter(sensors)) for sensors in owners.values() if len(sensors) == 1)
        self.statistics = statistics(found, published.modalities)
        self.merge = merge
        counts = {name: len(selection.channels) for name, selection in self.selections.items()}
        self.encoder = TerraMindEncoder(counts, width=width, depth=depth, heads=heads, gated=gated)
        times = len(counts) if merge == "concat" else 1
        self.announce(layers, depth=depth, width=width * times, patch_px=PATCH_PX)
        self.token_groups = tuple(
            Group(name, tuple((c.sensor, c.position) for c in selection.channels), tuple(owners[name]))
            for name, selection in self.selections.items()
        )

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, 1, D, H / 16, W / 16), one for each layer; D times the number of modalities with concat."""
        images = self._images(batch)
        grid = (batch.valid.shape[-2] // PATCH_PX, batch.valid.shape[-1] // PATCH_PX)
        tokens = self.encoder(images, self.layers)
        return Features(tuple(self._merged(each, tuple(images), grid) for each in tokens), self.strides)

    def _images(self, batch: Batch) -> dict[str, Tensor]:
        """{modality: (B, C, H, W)} of those that the batch has."""
        return {
            name: stack_by_date(batch, selection.channels)[:, 0]
            for name, selection in self.selections.items()
            if selection.channels[0].sensor in batch.image
        }

    def tokenise(self, batch: Batch) -> Tokens:
        images, number = self._images(batch), {group.name: i for i, group in enumerate(self.token_groups)}
        grid = (batch.valid.shape[-2] // PATCH_PX, batch.valid.shape[-1] // PATCH_PX)
        parts = [(number[name], self.encoder.embeddings[name](x)) for name, x in images.items()]
        there = [patches_there(batch, self.token_groups[i].sensors, PATCH_PX, 1) for i, _ in parts]
        return lay_out(parts, there, grid)

    def _merged(self, tokens: Tensor, names: Sequence[str], grid: tuple[int, int]) -> Tensor:
        parts = [token_map(part, grid) for part in tokens.chunk(len(names), 1)]
        if self.merge == "concat":
            given = dict(zip(names, parts, strict=True))
            return torch.cat([given.get(name, torch.zeros_like(parts[0])) for name in self.selections], 1)
        if len(parts) == 1:
            return parts[0]
        stacked = torch.stack(parts)
        return stacked.amax(0) if self.merge == "max" else stacked.mean(0)

    def load(self, path: str | Path) -> Report:
        """Published weights of the modalities in use, their first layers brought to the bands of the data."""
        changes = {
            f"embeddings.{name}.proj.weight": partial(adapt_bands, selection=selection)
            for name, selection in self.selections.items()
        }
        return load(self.encoder, path, layout(self.selections), adapt=changes)


_S2 = (
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir_narrow", "water_vapour",
    "swir1", "swir2",
)  # fmt: skip
MODALITIES = (
    Modality(
        "S2L2A", _S2,
        (1390.458, 1503.317, 1718.197, 1853.910, 2199.100, 2779.975, 2987.011, 3083.234, 3132.220, 3162.988, 2424.884,
         1857.648),
        (2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926, 1820.257, 1871.918, 1753.829, 1797.379, 1434.261,
         1334.311),
        sensors=("sentinel2",),
    ),
    Modality(
        "S2L1C", (*_S2[:10], "cirrus", *_S2[10:]),
        (2357.089, 2137.385, 2018.788, 2082.986, 2295.651, 2854.537, 3122.849, 3040.560, 3306.481, 1473.847, 506.070,
         2472.825, 1838.929),
        (1624.683, 1675.806, 1557.708, 1833.702, 1823.738, 1733.977, 1732.131, 1679.732, 1727.260, 1024.687, 442.165,
         1331.411, 1160.419),
        sensors=("sentinel2",),
    ),
    Modality(
        "RGB", ("red", "green", "blue"), (87.271, 80.931, 66.667), (58.767, 47.663, 42.631), scale=1 / 255,
        unit="8-bit brightness", sensors=("rgb", "naip"),
    ),
    Modality("S1GRD", ("vv", "vh"), (-12.599, -20.293), (5.195, 5.890), scale=1, unit="dB", sensors=("sentinel1",)),
    Modality("S1RTC", ("vv", "vh"), (-10.930, -17.329), (4.391, 4.459), scale=1, unit="dB", sensors=("sentinel1",)),
    Modality("DEM", ("elevation",), (670.665,), (951.272,), scale=1, unit="m", sensors=("dem",)),
)  # fmt: skip
"""Statistics of the published pre-training set, TerraMesh."""

for _size, _sizes in {
    "tiny": {"width": 192, "depth": 12, "heads": 3, "gated": False},
    "small": {"width": 384, "depth": 12, "heads": 6, "gated": False},
    "base": {"width": 768, "depth": 12, "heads": 12, "gated": True},
    "large": {"width": 1024, "depth": 24, "heads": 16, "gated": True},
}.items():
    register("backbone", f"terramind_v1_{_size}")(
        Variant(
            TerraMindBackbone,
            Published(
                f"TerraMind v1 {_size}: ViT on optical, radar, elevation, any of them absent (IBM, ESA)",
                repo=f"ibm-esa-geospatial/TerraMind-1.0-{_size}",
                file=f"TerraMind_v1_{_size}.pt",
                licence="Apache-2.0",
                modalities=MODALITIES,
                gsd_m=10,
            ),
            _sizes,
        )
    )
