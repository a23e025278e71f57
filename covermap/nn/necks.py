"""Between backbone and decoder: maps of one stride become a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.types import Features
from covermap.nn.layers import conv_norm

WIDTH, LEVELS = 256, 4


class Neck(nn.Module):
    """Maps (B, C_i, H / p, W / p) of one stride -> four (B, channels[i], H / strides[i], W / strides[i])."""

    channels: tuple[int, ...]
    strides: tuple[float, ...]
    sources: Sequence[int] = range(LEVELS)
    levels: nn.ModuleList

    def keep(self, levels: Sequence[int]) -> None:
        """Take out what leads to other levels, which nothing reads: no gradient would reach it."""
        for i in set(range(LEVELS)) - set(levels):
            self.levels[i] = nn.Identity()

    def forward(self, features: Features) -> Features:
        """One map for each level; of those taken out whatever came in."""
        maps = tuple(level(features.maps[i]) for i, level in zip(self.sources, self.levels, strict=True))
        return Features(maps, self.strides)


class Pyramid(Neck):
    """Maps of one stride p, from early to late blocks, become four of strides p/4, p/2, p, 2p (p < 4: from 1 on).

    The finest comes from the earliest block; fewer than four maps are used again. Transposed convolutions go finer,
    pooling goes coarser (as in ViTDet, Li et al. 2022, and BEiT's UPerNet); each map is first brought to at most 256
    channels and normed, because the outputs of inner blocks are not.
    """

    def __init__(self, channels: Sequence[int], stride: int) -> None:
        super().__init__()
        finer = 2 if stride >= 4 else 1 if stride >= 2 else 0
        factors = [2.0 ** (finer - i) for i in range(LEVELS)]
        self.sources = [i * len(channels) // LEVELS for i in range(LEVELS)]
        self.channels = tuple(min(channels[source], WIDTH) for source in self.sources)
        self.strides = tuple(stride / factor for factor in factors)
        self.levels = nn.ModuleList(
            nn.Sequential(conv_norm(channels[source], width, kernel=1), *_resize(width, factor))
            for source, width, factor in zip(self.sources, self.channels, factors, strict=True)
        )


class Interpolated(Neck):
    """As Pyramid, but narrower where it is finer: C/4, C/2, C, C channels, norms only between transposed convolutions.

    The neck that most fine-tuned models of the field have (as in BEiT's UPerNet, Bao et al. 2021).
    """

    def __init__(self, channels: Sequence[int], stride: int) -> None:
        super().__init__()
        one, two, three, four = channels
        self.channels, self.strides = (one // 4, two // 2, three, four), (stride / 4, stride / 2, stride, stride * 2)
        first = [nn.ConvTranspose2d(one, one // 2, 2, 2), nn.BatchNorm2d(one // 2), nn.GELU()]
        self.levels = nn.ModuleList([
            nn.Sequential(*first, nn.ConvTranspose2d(one // 2, one // 4, 2, 2)),
            nn.ConvTranspose2d(two, two // 2, 2, 2), nn.Identity(), Shrink(2),
        ])  # fmt: skip


def make_neck(
    name: str, channels: Sequence[int], strides: Sequence[float], *, pyramid: bool, min_maps: int = 1, pair: str
) -> Neck | None:
    """The neck by name; auto: a Pyramid for a decoder that needs one and maps of one stride.

    pyramid, min_maps: of the decoder. pair: backbone and decoder in the words of a ConfigError where they do not fit.
    """
    one_stride = len(set(strides)) == 1
    if name == "none" and pyramid and one_stride:
        raise ConfigError(
            f"{pair}: the decoder needs maps of several strides, the backbone gives one, of {strides[0]:g} px",
            fix="use model.neck: auto or pyramid, or one of the decoders linear, mlp and fcn",
        )
    if name == "none" or (name == "auto" and not (one_stride and pyramid)):
        if len(channels) < min_maps:
            raise ConfigError(
                f"{pair}: the decoder reads {min_maps} maps or more, the backbone gives {len(channels)}",
                fix="use the decoder unet, or a backbone with more maps (unet: more backbone_options.widths)",
            )
        return None
    if not one_stride:
        raise ConfigError(
            f"{pair}: model.neck: {name} has no effect: the backbone gives a pyramid itself", fix="use neck: auto"
        )
    if name == "interpolate" and (len(channels) != LEVELS or strides[0] < 4):
        raise ConfigError(
            f"{pair}: model.neck: interpolate takes {LEVELS} maps of a stride from 4, not {len(channels)} of "
            f"{strides[0]:g}", fix="name as many layers in model.backbone_options.layers, or use neck: pyramid",
        )  # fmt: skip
    return (Interpolated if name == "interpolate" else Pyramid)(channels, int(strides[0]))


def _resize(width: int, factor: float) -> list[nn.Module]:
    if factor >= 1:
        steps: list[nn.Module] = []
        while factor > 1:
            steps += [nn.ConvTranspose2d(width, width, 2, 2), nn.GELU()]
            factor /= 2
        return steps
    return [Shrink(round(1 / factor))]


class Shrink(nn.Module):
    """The largest of each square of side `factor`; a last row or column that does not fill one counts."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / factor, w / factor), rounded up."""
        return functional.max_pool2d(x, self.factor, ceil_mode=True)
