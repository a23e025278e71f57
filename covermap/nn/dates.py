"""Several dates through a network that takes one: fold them into the batch, unfold, and merge the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError, suggest
from covermap.core.types import Batch, Features

METHODS = ("mean", "max", "concat", "difference", "attention")


def fold_dates(batch: Batch) -> Batch:
    """Dates as further windows: images (B * T, 1, C, H, W); a sensor of one date goes with each date of the others."""
    num = batch.valid.shape[1]
    if num == 1:
        return batch
    image = {
        name: x.expand(-1, num, -1, -1, -1).flatten(0, 1).unsqueeze(1) for name, x in batch.image.items()
    }  # fmt: skip
    return replace(
        batch,
        image=image,
        valid=batch.valid.flatten(0, 1).unsqueeze(1),
        dates=tuple((date,) for dates in batch.dates for date in dates),
        location=None if batch.location is None else batch.location.repeat_interleave(num, 0),
        keys=(),
    )


def unfold_dates(features: Features, num_dates: int) -> Features:
    """Maps (B * T, C, h, w) -> (B, T, C, h, w)."""
    return Features(tuple(x.view(-1, num_dates, *x.shape[1:]) for x in features.maps), features.strides)


def one_date(features: Features) -> Features:
    """Maps (B, 1, C, h, w) -> (B, C, h, w)."""
    return Features(tuple(x[:, 0] for x in features.maps), features.strides)


class MergeDates(nn.Module):
    """Features of several dates become one: maps (B, T, C, h, w) -> (B, C * factor, h, w).

    mean, max and attention (weights learned for each place, softmax over dates) leave out dates where the image holds
    nothing; concat puts the dates side by side, difference what changed from each date to the next.
    """

    def __init__(self, method: str, num_dates: int, channels: Sequence[int]) -> None:
        super().__init__()
        if method not in METHODS:
            raise ConfigError(f"model.dates: {method!r} is not known", fix=suggest(method, METHODS))
        self.method = method
        self.factor = {"concat": num_dates, "difference": num_dates - 1}.get(method, 1)
        self.scores = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in channels) if method == "attention" else None

    def forward(self, features: Features, valid: Tensor) -> Features:
        """valid: (B, T, H, W)."""
        maps = []
        for i, x in enumerate(features.maps):
            if self.method == "concat":
                maps.append(x.flatten(1, 2))
            elif self.method == "difference":
                maps.append((x[:, 1:] - x[:, :-1]).flatten(1, 2))
            else:
                maps.append(self._reduce(i, x, _seen(valid, x)))
        return Features(tuple(maps), features.strides)

    def _reduce(self, level: int, x: Tensor, seen: Tensor) -> Tensor:
        if self.method == "max":
            return x.masked_fill(~seen, -torch.inf).amax(1)
        if self.scores is not None:
            score = self.scores[level](x.flatten(0, 1)).view(*x.shape[:2], 1, *x.shape[3:])
            weight: Tensor = score.masked_fill(~seen, -torch.inf).softmax(1)
            return (x * weight).sum(1)
        return (x * seen).sum(1) / seen.sum(1)


def _seen(valid: Tensor, x: Tensor) -> Tensor:
    """(B, T, 1, h, w) bool: dates that hold something at a place of the map; all of them where none does."""
    seen = functional.adaptive_max_pool2d(valid.float(), (x.shape[-2], x.shape[-1])) > 0
    return (seen | ~seen.any(1, keepdim=True)).unsqueeze(2)
