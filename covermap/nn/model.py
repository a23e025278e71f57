"""Model = backbone + decoder: `Backbone(Batch) -> Features`, `Decoder(Features, size) -> logits (B, K, H, W)`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.registry import find
from covermap.core.types import Batch, Features, InputSpec


class Backbone(nn.Module, ABC):
    """Turns a batch into feature maps; `channels[i]` and `strides[i]` describe map i, finest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @abstractmethod
    def forward(self, batch: Batch) -> Features:
        """Batch whose height and width are multiples of the largest stride -> Features."""


class Decoder(nn.Module, ABC):
    """Turns feature maps into logits (B, K, H, W) of a given size."""

    @abstractmethod
    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features -> logits (B, K, *size)."""


class Model(nn.Module):
    """A network for one input spec and one number of classes; any height and width are taken."""

    def __init__(self, backbone: Backbone, decoder: Decoder, spec: InputSpec, pixel: PixelExpert | None = None) -> None:
        super().__init__()
        self.backbone, self.decoder, self.spec, self.pixel = backbone, decoder, spec, pixel

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, K, H, W) of a batch of windows (B, T, C, H, W) for each sensor."""
        height, width = batch.valid.shape[-2:]
        padded = pad_to_multiple(batch, self.backbone.strides[-1])
        features = self.backbone(padded)
        logits: Tensor = self.decoder(features, (int(padded.valid.shape[-2]), int(padded.valid.shape[-1])))
        logits = logits[..., :height, :width]
        return logits if self.pixel is None else self._join(logits, self.pixel(stack_inputs(batch)))

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


def build_model(
    spec: InputSpec,
    num_classes: int,
    *,
    backbone: str = "unet",
    decoder: str = "unet",
    backbone_options: Mapping[str, Any] | None = None,
    decoder_options: Mapping[str, Any] | None = None,
    pixel_width: int = 0,
) -> Model:
    """A model by the names of its parts; pixel_width > 0 adds a PixelExpert. Raises ConfigError for unknown names."""
    encoder = make_part("backbone", backbone, backbone_options, spec)
    head = make_part("decoder", decoder, decoder_options, encoder.channels, encoder.strides, num_classes)
    pixel = PixelExpert(spec, num_classes, width=pixel_width) if pixel_width else None
    return Model(encoder, head, spec, pixel)


def make_part(kind: str, name: str, options: Mapping[str, Any] | None, *arguments: Any) -> Any:
    """A registered backbone, decoder or loss with the config's options; raises ConfigError when they do not fit."""
    maker = find(kind, name)
    try:
        return maker(*arguments, **(options or {}))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        section = "train" if kind == "loss" else "model"
        raise ConfigError(f"{kind} {name}: {error}", fix=f"check {section}.{kind}_options") from error
