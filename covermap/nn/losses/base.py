"""What every loss is: a sum, and the mass that it is divided by."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE

Takes = Literal["classes", "numbers", "presence", "order", "transitions"]


class Loss(nn.Module):
    """forward(prediction, target) -> sum of losses; mass(target) -> what to divide it by, 0 where nothing is known.

    Keeping them apart lets the training loop divide once for all batches of an accumulation, so that 4 batches of 2
    equal one of 8: both only ever add up over windows. Computed in float32 at least, whatever comes in.

    takes: what the target is. transitions: see losses/transitions.py.
    classes: label (B, *space) int64 with IGNORE, for logits (B, K, *space); order: the
    same for classes in order and K - 1 logits; numbers and presence: float like the prediction (B, C, *space), NaN
    where it is not known. space is (H, W), or () for chips. Losses of classes and order are made with class_weights
    (K,) first. weighted: whether these have an effect.
    """

    takes: ClassVar[Takes] = "classes"
    weighted: bool = False


class PixelLoss(Loss):
    """Sum over labelled pixels of w_y cost(-log p_y); the mass is the sum of w_y."""

    weighted = True
    weight: Tensor

    def __init__(self, class_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", class_weights)

    def weight_of(self, label: Tensor) -> Tensor:
        """label (B, *space) -> the weight of each pixel's class, 0 where it is ignored."""
        return functional.pad(self.weight, (0, IGNORE + 1 - len(self.weight)))[label]

    def cost(self, nll: Tensor) -> Tensor:
        """-log p_y of each pixel -> its loss; finite at 0, which ignored pixels have."""
        return nll

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, K, *space), label (B, *space) int64 with IGNORE -> sum of losses."""
        nll = functional.cross_entropy(precise(logits), label, ignore_index=IGNORE, reduction="none")
        return (self.weight_of(label).to(nll.dtype) * self.cost(nll)).sum()

    def mass(self, label: Tensor) -> Tensor:
        """Sum of the weights of labelled pixels."""
        return self.weight_of(label).sum()


class KnownLoss(Loss):
    """Sum of the costs of numbers where the target is known; the mass is how many are."""

    takes: ClassVar[Takes] = "numbers"

    def cost(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Numbers (B, C, *space) -> their losses; what it gives where the target is NaN does not count."""
        raise NotImplementedError

    def costs(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each number, 0 where it is not known, and where it is; raises ConfigError for different shapes."""
        if prediction.shape != target.shape:  # one would be stretched to fit the other, silently
            shapes = f"the network gives {tuple(prediction.shape)}, the target is {tuple(target.shape)}"
            raise ConfigError(f"train.loss: {shapes}", fix="use a network with one number for each of the target")
        known, x = ~target.isnan(), precise(prediction)
        costs = self.cost(torch.where(known, x, 0), target.to(x.dtype))
        return torch.where(known, costs, 0), known

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target (B, C, *space) float, NaN in the target where it is not known -> sum of losses."""
        return self.costs(prediction, target)[0].sum()

    def mass(self, target: Tensor) -> Tensor:
        """How many numbers are known."""
        return (~target.isnan()).sum()


def precise(x: Tensor) -> Tensor:
    """As float32, or float64 where it is that already: half precision overflows in sums and exponentials."""
    return x if x.dtype == torch.float64 else x.float()


def from_zero(name: str, value: float, *, above: bool = False) -> float:
    """The value; raises ValueError where it is negative (with above: or 0), or no finite number."""
    if not 0 <= value < float("inf") or (above and value == 0):
        raise ValueError(f"{name} {value:g} is not a number {'above' if above else 'from'} 0")
    return value
