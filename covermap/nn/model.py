"""Model = backbone + neck + decoder: `Backbone(Batch) -> Features`, `Decoder(Features, size) -> logits (B, K, H, W)`.

batch -> padded to whole patches -> (a date at a time) -> backbone -> dates merged -> neck -> decoder -> cut to size
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError, CovermapError, DataError, suggest
from covermap.core.legend import IGNORE
from covermap.core.registry import find
from covermap.core.types import Batch, Features, InputSpec, Statistic
from covermap.nn.dates import MergeDates, fold_dates, one_date, unfold_dates
from covermap.nn.necks import make_neck
from covermap.nn.published import Channel
from covermap.nn.weights import Report


class Backbone(nn.Module, ABC):
    """Turns a batch into feature maps; `channels[i]` and `strides[i]` (px) describe map i, finest first.

    dates: one (it gets a batch of one date), each (it gets all dates and gives maps (B, T, C, h, w)), all (it gets all
    dates and gives one set of maps). max_dates: as many as it can take. multiple: height and width of a batch must be
    multiples of it. local: whether windows may be larger in prediction than in training at no loss; attention over a
    whole window is not. fuses: whether it keeps sensors apart, so that some may be absent.
    optional: sensors that a batch may lack, as long as one is there. unused: sensors of which no band reaches the
    network. notes: sentences about what was done with the bands. report: what became of the published weights.
    statistics: {sensor: {band: statistic}} of the images that the published weights were trained on.
    uses: of dates and location, what changes the features.
    """

    dates: ClassVar[Literal["one", "each", "all"]] = "all"
    max_dates: ClassVar[int] = 1000
    local: ClassVar[bool] = True
    fuses: ClassVar[bool] = False
    channels: tuple[int, ...]
    strides: tuple[float, ...]
    notes: tuple[str, ...] = ()
    report: Report | None = None
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
        neck: nn.Module | None = None,
        pixel: PixelExpert | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.merge, self.neck, self.decoder, self.pixel = backbone, merge, neck, decoder, pixel
        self.spec, self.frozen = spec, False
        self.still: tuple[str, ...] = ()

    def forward(
        self, batch: Batch, encoded: Features | None = None, *, own_loss: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, K, H, W) of a batch of windows (B, T, C, H, W) for each sensor; with own_loss the decoder's loss.

        encoded: what `encode` made of the batch (padded to `multiple`), where that is known already.
        """
        height, width = batch.valid.shape[-2:]
        padded = pad_to_multiple(batch, self.backbone.multiple)
        features = self.features(padded, encoded)
        if own_loss:
            assert batch.label is not None
            bottom, right = padded.valid.shape[-2] - height, padded.valid.shape[-1] - width
            return self.decoder.own_loss(features, functional.pad(batch.label, (0, right, 0, bottom), value=IGNORE))
        logits: Tensor = self.decoder(features, (int(padded.valid.shape[-2]), int(padded.valid.shape[-1])))
        logits = logits[..., :height, :width]
        return logits if self.pixel is None else self._join(logits, self.pixel(stack_inputs(batch)))

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
        return features

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


def build_model(
    spec: InputSpec,
    num_classes: int,
    *,
    backbone: str | Callable[..., Backbone] = "unet",
    decoder: str = "unet",
    backbone_options: Mapping[str, Any] | None = None,
    decoder_options: Mapping[str, Any] | None = None,
    dates: str | None = None,
    neck: str = "auto",
    pixel_width: int = 0,
    weights: str | Path | None = None,
) -> Model:
    """A model by the names of its parts. weights: a published file that the backbone starts from.

    neck: auto, pyramid, interpolate or none, between a backbone of one stride and a decoder that needs several.

    dates: how the features of several dates become one (mean, max, concat, difference, attention; default: mean).
    pixel_width > 0 adds a PixelExpert. Raises ConfigError for unknown names and settings without effect.
    """
    encoder = make_backbone(backbone, spec, backbone_options, weights=weights)
    merge = _merge(encoder, spec, dates, backbone)
    channels = tuple(c * merge.factor for c in encoder.channels) if merge else encoder.channels
    kind, pair = find("decoder", decoder), f"{getattr(backbone, '__name__', backbone)} with {decoder}"
    between = make_neck(neck, channels, encoder.strides, pyramid=kind.pyramid, min_maps=kind.min_maps, pair=pair)
    inputs = (between.channels, between.strides) if between else (channels, encoder.strides)
    head = make_part("decoder", decoder, decoder_options, *inputs, num_classes)
    if between:
        between.keep(head.uses(len(between.strides)))
    if pixel_width and any(entry.optional for entry in spec.sensors):
        raise ConfigError("model.pixel_width needs every sensor in every window", fix="set it to 0")
    pixel = PixelExpert(spec, num_classes, width=pixel_width) if pixel_width else None
    return Model(encoder, head, spec, merge=merge, neck=between, pixel=pixel)


def make_backbone(
    name: str | Callable[..., Backbone],
    spec: InputSpec,
    options: Mapping[str, Any] | None = None,
    *,
    weights: str | Path | None = None,
) -> Backbone:
    """A backbone by name for an input spec, with published weights or random ones.

    Raises ConfigError, BandError, DataError for too many dates, ModelError for weights that do not fit.
    """
    kind = find("backbone", name)
    if spec.num_dates > kind.max_dates and kind.dates != "one":
        raise DataError(
            f"the data has {spec.num_dates} dates, {name} takes at most {kind.max_dates}",
            fix="leave dates out, or use a backbone that takes one at a time: covermap models list",
        )
    # With weights to come, parameters take no memory and no time to fill with random numbers.
    with init_empty_weights(include_buffers=False) if weights else nullcontext():
        encoder: Backbone = make_part("backbone", name, options, spec.one_date() if kind.dates == "one" else spec)
    if weights:
        encoder.report = encoder.load(weights)
        empty = [key for key, value in encoder.named_parameters() if value.is_meta]
        assert not empty, f"{name}: load() left {empty[:3]} without values"
    encoder.trim()
    return encoder


def _merge(encoder: Backbone, spec: InputSpec, dates: str | None, name: object) -> MergeDates | None:
    if spec.num_dates > 1 and encoder.dates != "all":
        return MergeDates(dates or "mean", spec.num_dates, encoder.channels)
    if dates is not None:
        why = "the data has one date" if spec.num_dates == 1 else f"{name} joins the dates itself"
        raise ConfigError(f"model.dates: {dates} has no effect: {why}", fix="leave it out")
    return None


def make_part(kind: str, name: str | Callable[..., Any], options: Mapping[str, Any] | None, *arguments: Any) -> Any:
    """A registered backbone, decoder or loss with the config's options; raises ConfigError when they do not fit."""
    maker = find(kind, name)
    try:
        return maker(*arguments, **(options or {}))
    except CovermapError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
        unknown = next((option for option in options or {} if f"keyword argument '{option}'" in str(error)), None)
        if unknown:
            fix = suggest(unknown, _options_of(maker))
            raise ConfigError(f"{kind} {name} has no option {unknown!r}", fix=fix) from error
        section = "train" if kind == "loss" else "model"
        raise ConfigError(f"{kind} {name}: {error}", fix=f"check {section}.{kind}_options") from error


def _options_of(maker: Callable[..., Any]) -> set[str]:
    """Arguments with a default, of a class and of those that it passes the rest on to."""
    kind = getattr(maker, "kind", maker)
    makers = inspect.getmro(kind)[:-1] if inspect.isclass(kind) else [kind]
    arguments = [argument for each in makers for argument in inspect.signature(each).parameters.values()]
    return {each.name for each in arguments if each.default is not each.empty} - set(getattr(maker, "sizes", ()))
