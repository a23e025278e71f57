"""Clay v1 and v1.5 (Clay Foundation): a ViT whose first layer is made from the bands' wavelengths.

Layout of the published files (under model.encoder.): cls_token, patch_embedding.(fclayer weight_generator),
transformer.layers.{i}.0.(norm to_qkv to_out), .1.net.(0 1 3), transformer.norm. Decoder and teacher are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import BandError
from covermap.core.registry import register
from covermap.core.sensors import SENSORS
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import BlockShape, TokenBackbone, Trunk, embed_patches, token_map
from covermap.nn.coordinates import locations, week_codes
from covermap.nn.model import stack_by_date
from covermap.nn.published import Channel, Modality, Published, Variant, match, statistics, unit_notes
from covermap.nn.tokens import Group, Tokens, lay_out, patches_there
from covermap.nn.weights import Layout, Report, load

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
PATCH_PX = 8
META_WIDTH = 8
"""Sines and cosines of week, hour, latitude and longitude."""


class ClayEncoder(nn.Module):
    """The encoder alone: (B, C, H, W) and wavelengths (C,) in micrometres -> tokens (B, 1 + h w, D)."""

    def __init__(self, *, width: int, depth: int, heads: int, patch_px: int = PATCH_PX) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embedding = WaveEmbedding(width, patch_px)
        shape = BlockShape(width, heads, 4 * width, qkv_bias=False, proj_bias=False, eps=1e-5)
        self.trunk = Trunk(shape, depth)

    def forward(self, x: Tensor, waves: Tensor, layers: Sequence[int], *, gsd_m: float, meta: Tensor) -> list[Tensor]:
        """meta (B, 8): sine and cosine of week, hour, latitude, longitude; zeros where they are not known."""
        found: list[Tensor] = self.trunk(self.embed(x, waves, gsd_m=gsd_m, meta=meta), layers)
        return found

    def embed(self, x: Tensor, waves: Tensor, *, gsd_m: float, meta: Tensor) -> Tensor:
        """(B, 1 + h w, D) before the first block, the class token first."""
        tokens = self.patch_embedding(x, waves)
        height, width = (side // self.patch_embedding.patch_px for side in x.shape[-2:])
        table = position_table(height, width, tokens.shape[-1] - META_WIDTH, gsd_m).to(tokens)
        place = table.expand(len(x), -1, -1)
        tokens = tokens + torch.cat([place, meta[:, None].expand(-1, height * width, -1)], 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)


class WaveEmbedding(nn.Module):
    """Kernels of the first layer for any bands: each from its wavelength by a small transformer."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.width, self.patch_px = width, patch_px
        self.fclayer = nn.ModuleDict({name: nn.Linear(WAVE_WIDTH, WAVE_WIDTH) for name in ("l1", "l2")})
        self.weight_generator = WeightGenerator(patch_px**2 * width, width)

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        """(B, C, H, W), (C,) -> (B, h w, D)."""
        code = sincos_1d_of_waves(waves).to(x)
        code = code + functional.gelu(self.fclayer["l2"](functional.gelu(self.fclayer["l1"](code))))
        weight, bias = self.weight_generator(code)
        kernel = weight.view(len(waves), self.width, self.patch_px, self.patch_px).transpose(0, 1)
        # 0.02 as in the published code, which trained with it; the bias goes without.
        return embed_patches(x, kernel * 0.02, bias)


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


class ClayBackbone(TokenBackbone):
    """One date at a time; any bands whose wavelength is known. Date, hour and place are passed where they are known."""

    dates = "one"
    has_class_token = True

    def __init__(
        self,
        spec: InputSpec,
        published: Published,
        *,
        layers: Sequence[int] | None = None,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.bands = match(spec, published.modalities)
        waves = [_wavelength(channel) for channel in self.bands]
        lost = [channel.band for channel, wave in zip(self.bands, waves, strict=True) if not wave]
        if lost:
            raise BandError(
                f"Clay needs a wavelength for each band, {', '.join(lost)} has none",
                fix="leave it out (data.use), or use a model that takes it: covermap models list",
            )
        self.register_buffer("waves", torch.tensor(waves), persistent=False)
        self.uses, self.statistics = published.uses, statistics(self.bands, published.modalities)
        self.notes = unit_notes(self.bands, published.modalities)
        self.gsd_m = spec.gsd_m or published.gsd_m
        self.encoder = ClayEncoder(width=width, depth=depth, heads=heads, patch_px=PATCH_PX)
        self.announce(layers, depth=depth, width=width, patch_px=PATCH_PX)
        sensors = tuple(entry.sensor for entry in spec.sensors)
        self.token_groups = (Group("+".join(sensors), tuple((c.sensor, c.position) for c in self.bands), sensors),)

    waves: Tensor

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, D, H / 8, W / 8), one for each layer."""
        grid = (batch.valid.shape[-2] // PATCH_PX, batch.valid.shape[-1] // PATCH_PX)
        found = self.encoder.trunk(self._embed(batch), self.layers)
        return Features(tuple(token_map(t, grid, skip=1) for t in found), self.strides)

    def tokenise(self, batch: Batch) -> Tokens:
        grid = (batch.valid.shape[-2] // PATCH_PX, batch.valid.shape[-1] // PATCH_PX)
        tokens, there = self._embed(batch), patches_there(batch, self.token_groups[0].sensors, PATCH_PX, 1)
        return lay_out([(0, tokens[:, 1:])], [there], grid, extra=tokens[:, :1])

    def _embed(self, batch: Batch) -> Tensor:
        """All tokens (B, 1 + h w, D), the class token first."""
        x = stack_by_date(batch, self.bands)[:, 0]
        place = torch.deg2rad(locations(batch))
        place = torch.stack([place[:, 0].sin(), place[:, 0].cos(), place[:, 1].sin(), place[:, 1].cos()], 1)
        meta = torch.cat([week_codes(batch), place.nan_to_num()], 1).to(x)
        return self.encoder.embed(x, self.waves, gsd_m=self.gsd_m, meta=meta)

    def load(self, path: str | Path) -> Report:
        """Published weights; they make the kernels of any bands."""
        return load(self.encoder, path, LAYOUT)


def _wavelength(channel: Channel) -> float:
    """In micrometres: the published one of a known band, else the sensor's; 0 where there is none."""
    if channel.source is not None:
        return WAVES[channel.modality][channel.source]
    sensor = SENSORS.get(channel.sensor)
    return next((b.wavelength_nm / 1000 for b in (sensor.bands if sensor else ()) if b.name == channel.band), 0.0)


_LANDSAT = ("red", "green", "blue", "nir_narrow", "swir1", "swir2")
MODALITIES = (
    Modality(
        "sentinel-2-l2a",
        ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir_narrow", "swir1", "swir2"),
        (1105, 1355, 1552, 1887, 2422, 2630, 2743, 2785, 2388, 1835),
        (1809, 1757, 1888, 1870, 1732, 1697, 1742, 1648, 1470, 1379),
        sensors=("sentinel2",),
    ),
    Modality(
        "landsat-c2l2-sr", _LANDSAT, (13705, 13310, 12474, 17801, 14615, 12701), (9578, 9408, 10144, 8277, 5300, 4522),
        scale=2.75e-5, offset=-0.2, sensors=("landsat5", "landsat7", "landsat8", "hls"),
    ),
    Modality(
        "naip", ("red", "green", "blue", "nir"), (110.16, 115.41, 98.15, 139.04), (47.23, 39.82, 35.43, 49.86),
        scale=1 / 255, unit="8-bit brightness", sensors=("naip", "gaofen2"),
    ),
    Modality(
        "linz", ("red", "green", "blue"), (89.96, 99.46, 89.51), (41.83, 36.96, 31.45), scale=1 / 255,
        unit="8-bit brightness", sensors=("rgb",),
    ),
    Modality(
        "sentinel-1-rtc", ("vv", "vh"), (-12.113, -18.673), (8.314, 8.017), scale=1, unit="dB", sensors=("sentinel1",)
    ),
)  # fmt: skip
"""Clay's configs/metadata.yaml; Landsat numbers are Collection-2 level-2 counts; radar in dB."""
WAVES = {
    "sentinel-2-l2a": (0.493, 0.56, 0.665, 0.704, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19),
    "landsat-c2l2-sr": (0.65, 0.56, 0.48, 0.86, 1.6, 2.2),
    "naip": (0.65, 0.56, 0.48, 0.842),
    "linz": (0.635, 0.555, 0.465),
    "sentinel-1-rtc": (3.5, 4.0),
}

for _name, _repo, _file, _sizes in (
    ("clay_v1", "made-with-clay/Clay-legacy", "v1/clay-v1-base.ckpt", {"width": 768, "depth": 12, "heads": 12}),
    ("clay_v15", "made-with-clay/Clay", "v1.5/clay-v1.5.ckpt", {"width": 1024, "depth": 24, "heads": 16}),
):
    register("backbone", _name)(
        Variant(
            ClayBackbone,
            Published(
                f"Clay {'v1 base' if _name == 'clay_v1' else 'v1.5 large'}: ViT for any bands by wavelength",
                repo=_repo,
                file=_file,
                licence="Apache-2.0",
                modalities=MODALITIES,
                gsd_m=10,
                uses=("dates", "location"),
            ),
            _sizes,
        )
    )
