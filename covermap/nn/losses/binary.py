"""Losses of yes or no: classes that are present each by themselves, thresholds between classes in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.registry import register
from covermap.nn.losses.base import KnownLoss, PixelLoss, from_zero, precise


@register("loss", "binary_cross_entropy")
class BinaryCrossEntropy(KnownLoss):
    """Mean over known labels of -v t (1 - p)^gamma log p - (1 - t) p^gamma log(1 - p), p being each one's sigmoid.

    v: positive_weights, the factor of each class where it is present, or one for all. gamma above 0 makes it focal (Lin
    et al. 2017). Targets between 0 and 1 are shares of both terms.
    """

    takes = "presence"
    weight: Tensor

    def __init__(self, *, positive_weights: Sequence[float] | None = None, gamma: float = 0.0) -> None:
        super().__init__()
        self.gamma = from_zero("gamma", gamma)
        weights = torch.tensor([1.0] if positive_weights is None else positive_weights, dtype=torch.float32)
        if weights.ndim != 1 or not (weights.isfinite() & (weights >= 0)).all():
            raise ValueError(f"positive_weights {positive_weights} is not a list of numbers from 0")
        self.register_buffer("weight", weights)

    def cost(self, logits: Tensor, target: Tensor) -> Tensor:
        if len(self.weight) not in (1, logits.shape[1]):
            given = f"{len(self.weight)} positive_weights for {logits.shape[1]} classes"
            raise ConfigError(f"train.loss_options: {given}", fix="give one for each class")
        weight = self.weight.to(logits.dtype).reshape(-1, *[1] * (logits.ndim - 2))
        absent, present = functional.softplus(logits), functional.softplus(-logits)  # -log(1 - p), -log p
        # The powers by their logarithms: they keep a slope where p is 0 or 1.
        loss = weight * target * present * (-self.gamma * absent).exp()
        return loss + (1 - target) * absent * (-self.gamma * present).exp()


@register("loss", "ordinal")
class Ordinal(PixelLoss):
    """Sum over labelled pixels of w_y sum_k BCE(P(class > k), y > k) over K - 1 thresholds, mass: the sum of w_y.

    Frank and Hall 2001; as one network's loss Cao et al. 2020 (CORAL, eq. 4). Being far off costs more than being a
    neighbour.
    """

    takes = "order"

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, K - 1, *space) of P(class > k), label (B, *space) int64 with IGNORE -> sum of losses."""
        x, number = precise(logits), len(self.weight) - 1
        if x.shape[1] != number:
            raise ConfigError(f"train.loss: ordinal takes {number} logits, got {x.shape[1]}", fix="classes - 1 of them")
        k = torch.arange(number, device=label.device).reshape(1, -1, *[1] * (label.ndim - 1))
        loss = functional.binary_cross_entropy_with_logits(x, (label[:, None] > k).to(x.dtype), reduction="none")
        return (loss.sum(1) * self.weight_of(label).to(x.dtype)).sum()


def class_probabilities(logits: Tensor) -> Tensor:
    """logits (B, K - 1, *space) of P(class > k) -> probabilities (B, K, *space): none below 0, their sum 1.

    The thresholds are learnt apart and may cross; P(class > k) is then taken as the smallest up to k.
    """
    above = precise(logits).sigmoid().cummin(1).values
    return torch.cat([1 - above[:, :1], above[:, :-1] - above[:, 1:], above[:, -1:]], 1)
