"""Model = backbone + neck + decoder: `Backbone(Batch) -> Features`, `Decoder(Features, size) -> logits (B, K, H, W)`.

batch -> padded to whole patches -> (a date at a time) -> backbone -> dates merged -> neck -> decoder -> cut to size,
or pooled to one answer of a window
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.types import Batch, Features, InputSpec, Statistic
from covermap.nn.dates import MergeDates, fold_dates, one_date, unfold_dates
from covermap.nn.necks import Neck
from covermap.nn.published import Channel
from covermap.nn.weights import Report

if TYPE_CHECKING:
    from covermap.nn.heads import Pool
    from covermap.nn.hybrid import Extra


class Backbone(nn.Module, ABC):
    """Turns a batch into feature maps; `channels[i]` and `strides[i]` (px) describe map i, finest first.

    dates: one (it gets a batch of one date), each (it gets all dates and gives maps (B, T, C, h, w)), all (it gets all
    dates and gives one set of maps). max_dates: as many as it can take. multiple: height and width of a batch must be
    multiples of it. local: whether windows may be larger in prediction than in training at no loss; attention over a
    whole window is not. fuses: whether it keeps sensors apart, so that some may be absent.
    optional: sensors that a batch may lack, as long as one is there. unused: sensors of which no band reaches the
    network. notes: sentences about what was done with the bands. reports: what became of the published weights.
    statistics: {sensor: {band: statistic}} of the images that the published weights were trained on.
    uses: of dates and location, what changes the features.
    """

    dates: Literal["one", "each", "all"] = "all"
    max_dates: int = 1000
    local: bool = True
    fuses: bool = False
    channels: tuple[int, ...]
    strides: tuple[float, ...]
    notes: tuple[str, ...] = ()
    reports: Sequence[Report] = ()
    statistics: Mapping[str, Mapping[str, Statistic]] = MappingProxyType({})
    uses: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()

    @property
    def multiple(self) -> int:
        """Height and width of a batch must be multiples of it."""
        return int(self.strides[-1])

    @abstractmethod
    def forward(self, batch: Batch) -> Features:
        """Batch whose height and width are multiples of `multiple` -> Features."""

    def load(self, path: str | Path) -> Report:
        """Fill it with published weights; raises ModelError where they do not fit, ConfigError where there are none."""
        raise ConfigError(
            f"{path}: this backbone knows no published weights", fix="leave model.weights out to train from scratch"
        )

    def trim(self) -> None:
        """Take out what no map passes through; called once, after weights were loaded."""


class Decoder(nn.Module, ABC):
    """Turns feature maps into logits (B, K, H, W) of a given size.

    pyramid: whether it needs maps of different strides; a backbone of one stride then gets a neck. min_maps: how many.
    has_own_loss: whether it is trained by more than its logits, by `own_loss`; train.loss has no effect then.
    miniature: options that make a large one small enough to be checked in seconds.
    """

    pyramid: ClassVar[bool] = False
    min_maps: ClassVar[int] = 1
    has_own_loss: ClassVar[bool] = False
    miniature: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def uses(self, num_maps: int) -> Sequence[int]:
        """Positions of the maps that it reads, of `num_maps`."""
        return range(num_maps)

    def own_loss(self, features: Features, label: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of losses over windows, and the number of windows with a label."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of its own")

    @abstractmethod
    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features -> logits (B, K, *size)."""


class Model(nn.Module):
    """A network for one input spec and one number of classes; any height and width are taken."""

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        spec: InputSpec,
        *,
        merge: MergeDates | None = None,
        neck: Neck | None = None,
        pixel: PixelExpert | None = None,
        extra: Extra | None = None,
        pool: Pool | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.merge, self.neck, self.extra = backbone, merge, neck, extra
        self.decoder, self.pixel, self.pool = decoder, pixel, pool
        self.spec, self.frozen = spec, False
        self.still: tuple[str, ...] = ()

    def forward(
        self, batch: Batch, encoded: Features | None = None, *, own_loss: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, K, H, W) of a batch of windows (B, T, C, H, W) for each sensor; with own_loss the decoder's loss.

        With a pool (B, K): one answer of each window.
        encoded: what `encode` made of the batch (padded to `multiple`), where that is known already.
        """
        height, width = batch.valid.shape[-2:]
        padded = pad_to_multiple(batch, self.multiple)
        features = self.features(padded, encoded)
        if own_loss:
            assert batch.label is not None
            bottom, right = padded.valid.shape[-2] - height, padded.valid.shape[-1] - width
            return self.decoder.own_loss(features, functional.pad(batch.label, (0, right, 0, bottom), value=IGNORE))
        if self.pool is not None:
            finest = features.maps[0].shape
            pooled: Tensor = self.pool(self.decoder(features, (int(finest[-2]), int(finest[-1]))), padded.valid)
            return pooled
        logits: Tensor = self.decoder(features, (int(padded.valid.shape[-2]), int(padded.valid.shape[-1])))
        logits = logits[..., :height, :width]
        return logits if self.pixel is None else self._join(logits, self.pixel(stack_inputs(batch)))

    @property
    def multiple(self) -> int:
        """Height and width of what the parts get are multiples of it, in px."""
        return self.backbone.multiple if self.extra is None else math.lcm(self.backbone.multiple, self.extra.multiple)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps that the decoder gets."""
        if self.neck is not None:
            return tuple(self.neck.channels)
        return tuple(c * (self.merge.factor if self.merge else 1) for c in self.backbone.channels)

    @property
    def strides(self) -> tuple[float, ...]:
        """Of the maps that the decoder gets, in px."""
        return self.backbone.strides if self.neck is None else self.neck.strides

    @property
    def local(self) -> bool:
        """Whether windows may be larger in prediction than in training at no loss."""
        return self.backbone.local and (self.extra is None or self.extra.network.local)

    @property
    def uses(self) -> tuple[str, ...]:
        """Of dates and location, what changes the features."""
        return tuple(dict.fromkeys((*self.backbone.uses, *(self.extra.network.uses if self.extra else ()))))

    @property
    def optional(self) -> frozenset[str]:
        """Sensors that a batch may lack; the expert on single pixels needs all."""
        if self.pixel is not None:
            return frozenset()
        return self.backbone.optional - (self.extra.required if self.extra else frozenset())

    @property
    def unused(self) -> frozenset[str]:
        """Sensors of which nothing reaches the network."""
        if self.pixel is not None:
            return frozenset()
        return self.backbone.unused - (self.extra.sensors if self.extra else frozenset())

    def encode(self, batch: Batch) -> Features:
        """What the backbone makes of a batch: maps (B, C, h, w), or (B, T, C, h, w) where it keeps dates apart."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Features = self.backbone(fold_dates(batch) if self.backbone.dates == "one" else batch)
        return unfold_dates(features, batch.valid.shape[1]) if self.backbone.dates == "one" else features

    def features(self, batch: Batch, encoded: Features | None = None) -> Features:
        """What the decoder gets from a batch that is already a multiple of the backbone's `multiple` in size."""
        features = self.encode(batch) if encoded is None else encoded
        if self.backbone.dates != "all":
            features = self.merge(features, batch.valid) if self.merge is not None else one_date(features)
        if self.neck is not None:
            features = self.neck(features)
        return features if self.extra is None else self.extra(features, batch)

    def freeze(self) -> None:
        """Keep the backbone as it is: no gradients, and its buffers (running means of norms) do not move either."""
        self.backbone.requires_grad_(False)
        self.hold()

    def hold(self) -> None:
        """Keep every part without a trainable parameter in evaluation mode, so that its buffers do not move either."""
        self.frozen = not any(p.requires_grad for p in self.backbone.parameters())
        still: list[str] = []
        for name, module in self.named_modules():
            own = [p.requires_grad for p in module.parameters()]
            if name and own and not any(own) and not name.startswith(tuple(f"{other}." for other in still)):
                still.append(name)
        self.still = tuple(still)
        self.train(self.training)

    def train(self, mode: bool = True) -> Model:
        super().train(mode)
        for name in self.still:
            self.get_submodule(name).eval()
        return self

    def _join(self, context: Tensor, pixel: Tensor) -> Tensor:
        """Add the logits of both experts; in training a third of the windows sees only one, a third only the other.

        Each then has to be right by itself, so that the pixel's own bands still count where the surroundings mislead.
        """
        if not self.training:
            return context + pixel
        choice = torch.rand(len(context), 1, 1, 1, device=context.device)
        return context * (choice > 1 / 3) + pixel * (choice < 2 / 3)


class PixelExpert(nn.Module):
    """Logits from the bands of each single pixel: three 1 x 1 convolutions."""

    def __init__(self, spec: InputSpec, num_classes: int, *, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(spec.num_channels, width, 1), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1), nn.ReLU(inplace=True),
            nn.Conv2d(width, num_classes, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W)."""
        out: Tensor = self.layers(x)
        return out


def pad_to_multiple(batch: Batch, multiple: int) -> Batch:
    """Grow a batch at the lower right, by repeating its last row and column, to a multiple of `multiple` px."""
    height, width = batch.valid.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return batch

    def grow(x: Tensor) -> Tensor:
        flat = x.flatten(0, -4) if x.dim() > 4 else x
        return functional.pad(flat, (0, right, 0, bottom), mode="replicate").reshape(
            *x.shape[:-2], height + bottom, width + right
        )

    valid = functional.pad(batch.valid, (0, right, 0, bottom))
    return Batch({key: grow(x) for key, x in batch.image.items()}, valid, None, batch.dates, batch.location, batch.keys)


def stack_inputs(batch: Batch) -> Tensor:
    """All sensors and dates as channels: (B, T * C of all sensors, H, W)."""
    return torch.cat([x.flatten(1, 2) for x in batch.image.values()], 1)


def stack_by_date(batch: Batch, channels: Sequence[Channel]) -> Tensor:
    """Chosen bands of all sensors: (B, T, C, H, W); a sensor of one date goes with each date of the others."""
    num = batch.valid.shape[1]
    parts = [batch.image[c.sensor][:, :, c.position].expand(-1, num, -1, -1) for c in channels]
    return torch.stack(parts, 2)
