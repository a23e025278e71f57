"""One backbone, two dates: what became what, and whether it changed.

batch of two dates -> folded -> backbone -> neck -> features of each date -+-> semantic decoder, the same for both dates
                                                                          +-> compared -> change decoder

Nothing in it knows which date is the first, so exchanging the dates exchanges the classes and leaves the change as it
is: by construction, not by training. Three ways to compare features: their difference without its sign, both orders of
putting them side by side, averaged, or their difference after each date has looked at the other (cross attention).
Shared encoder with semantic and change heads: Daudt et al. (2019), doi:10.1016/j.cviu.2019.07.003; Ding et al. (2022),
doi:10.1109/TGRS.2022.3154390.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError, suggest
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.dates import fold_dates, one_date, unfold_dates
from covermap.nn.model import Backbone, Decoder, Model, PixelExpert, pad_to_multiple, stack_inputs
from covermap.nn.necks import Neck

COMPARISONS = ("difference", "concat", "cross_attention")
_KEYS_PX = 16
"""Side of the grid that keys of cross attention are pooled to: 256 places, however large a window is."""


class Siamese(Model):
    """A network for two dates: logits (B, 2, H, W) of unchanged and changed.

    With a semantic decoder (B, 2 K + 2, H, W): K classes before, K after, then those two.
    """

    def __init__(
        self, backbone: Backbone, decoder: Decoder, spec: InputSpec, *, compare: Compare,
        semantic: Decoder | None = None, neck: Neck | None = None, pixel: PixelExpert | None = None,
        semantic_pixel: PixelExpert | None = None,
    ) -> None:  # fmt: skip
        super().__init__(backbone, decoder, spec, neck=neck, pixel=pixel)
        self.compare, self.semantic, self.semantic_pixel = compare, semantic, semantic_pixel

    def forward(
        self, batch: Batch, encoded: Features | None = None, *, own_loss: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits of a batch of windows of two dates; encoded: what `encode` made of it."""
        height, width = batch.valid.shape[-2:]
        padded = pad_to_multiple(batch, self.multiple)
        size = int(padded.valid.shape[-2]), int(padded.valid.shape[-1])
        folded = self.features(padded, encoded)
        pairs = [unfold_dates(Features((x,), folded.strides[:1]), 2).maps[0] for x in folded.maps]
        orders = self.compare([pair[:, 0] for pair in pairs], [pair[:, 1] for pair in pairs])
        found = [self.decoder(Features(tuple(maps), folded.strides), size) for maps in orders]
        change: Tensor = (found[0] if len(found) == 1 else (found[0] + found[1]) / 2)[..., :height, :width]
        if self.pixel is not None:
            change = self._join(change, self.pixel(_differences(batch)))
        if self.semantic is None:
            return change
        classes: Tensor = self.semantic(folded, size)[..., :height, :width]
        if self.semantic_pixel is not None:
            classes = self._join(classes, self.semantic_pixel(stack_inputs(fold_dates(batch))))
        both = classes.reshape(len(change), -1, height, width)  # (2 B, K) -> (B, 2 K): dates follow each other
        return torch.cat([both, change], 1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps of one date."""
        return tuple(self.neck.channels) if self.neck is not None else self.backbone.channels

    def encode(self, batch: Batch) -> Features:
        """What the backbone makes of each date by itself: maps (B, 2, C, h, w)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Features = self.backbone(fold_dates(batch))
        features = one_date(features) if self.backbone.dates == "each" else features
        return unfold_dates(features, batch.valid.shape[1])

    def features(self, batch: Batch, encoded: Features | None = None) -> Features:
        """What the decoders get, the dates as further windows: maps (2 B, C, h, w)."""
        features = self.encode(batch) if encoded is None else encoded
        folded = Features(tuple(x.flatten(0, 1) for x in features.maps), features.strides)
        return folded if self.neck is None else self.neck(folded)


def _differences(batch: Batch) -> Tensor:
    """Each band's change without its sign, (B, C, H, W)."""
    num = batch.valid.shape[1]
    return torch.cat([(x.expand(-1, num, -1, -1, -1)[:, 1] - x[:, 0]).abs() for x in batch.image.values()], 1)


class Compare(nn.Module):
    """Features of two dates -> what the change decoder gets, once, or once for each order of the dates.

    concat has twice a date's channels. Exchanging the dates gives the same, or the two orders exchanged.
    """

    def __init__(self, method: str, channels: Sequence[int], reads: Sequence[int]) -> None:
        super().__init__()
        if method not in COMPARISONS:
            raise ConfigError(f"model.dates: {method!r} does not compare two dates", fix=suggest(method, COMPARISONS))
        self.method = method
        looks = [CrossAttention(c) if i in reads else nn.Identity() for i, c in enumerate(channels)]
        self.looks = nn.ModuleList(looks) if method == "cross_attention" else None

    def forward(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> list[list[Tensor]]:
        """Maps (B, C, h, w) of each date -> one or two lists of maps."""
        if self.method == "concat":
            orders = (before, after), (after, before)
            return [[torch.cat(pair, 1) for pair in zip(*order, strict=True)] for order in orders]
        if self.looks is not None:
            seen = [
                (look(a, b), look(b, a)) if isinstance(look, CrossAttention) else (a, b)
                for look, a, b in zip(self.looks, before, after, strict=True)
            ]
        else:
            seen = list(zip(before, after, strict=True))
        return [[(b - a).abs() for a, b in seen]]


class CrossAttention(nn.Module):
    """A date's features plus what they find in the other date, by attention over a grid of the other's places."""

    def __init__(self, channels: int, *, width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // (2 * width)) if channels % max(1, channels // (2 * width)) == 0 else 1
        self.norm = nn.GroupNorm(1, channels)
        self.ask, self.offer = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, 2 * channels, 1)
        self.bring = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """(B, C, h, w) each -> (B, C, h, w)."""
        height, width = x.shape[-2:]
        small = min(_KEYS_PX, height), min(_KEYS_PX, width)
        asked = self._split(self.ask(self.norm(x)))
        keys, values = self.offer(functional.adaptive_avg_pool2d(self.norm(other), small)).chunk(2, 1)
        found = functional.scaled_dot_product_attention(asked, self._split(keys), self._split(values))
        joined: Tensor = self.bring(found.transpose(-1, -2).reshape(x.shape))
        return x + joined

    def _split(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, heads, h w, C / heads)."""
        return x.reshape(len(x), self.heads, -1, x.shape[-2] * x.shape[-1]).transpose(-1, -2)


def pixel_experts(spec: InputSpec, num_classes: int, *, width: int, semantic: bool) -> tuple[PixelExpert, Any]:
    """The experts on single pixels: on the differences of bands, and on a date's own where classes are asked."""
    date = replace(spec.one_date(), uses=())
    return PixelExpert(date, 2, width=width), PixelExpert(date, num_classes, width=width) if semantic else None
