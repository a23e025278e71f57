"""Losses of numbers, such as heights or shares: squares, amounts, Huber's, roots."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from covermap.core.registry import register
from covermap.nn.losses.base import KnownLoss, from_zero


@register("loss", "mse")
class MSE(KnownLoss):
    """Mean of squared errors."""

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square()


@register("loss", "mae")
class MAE(KnownLoss):
    """Mean of absolute errors."""

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs()


@register("loss", "huber")
class Huber(KnownLoss):
    """Half the squared error up to delta, from there on a straight line (Huber 1964); delta in the target's units."""

    def __init__(self, *, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = from_zero("delta", delta, above=True)

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        return functional.huber_loss(prediction, target, reduction="none", delta=self.delta)


@register("loss", "rmse")
class RMSE(MSE):
    """Mean over windows of each one's root of the mean squared error, so that it does not depend on the batches."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, C, *space) float, NaN in the target where it is not known -> sum over windows."""
        squares, known = (each.flatten(1).sum(1) for each in self.costs(prediction, target))
        # The root has no slope at 0.
        return ((squares / known.clamp_min(1)).clamp_min(1e-20).sqrt() * (known > 0)).sum()

    def mass(self, target: Tensor) -> Tensor:
        """Number of windows with a known number."""
        return (~target.isnan()).flatten(1).any(1).sum()
