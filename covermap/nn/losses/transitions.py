"""Losses of what became what: classes of both dates, whether they changed, and that the two go together.

prediction (B, 2 K + 2, H, W): logits of K classes before, K after, unchanged and changed. target (B, 3, H, W): class
before, class after, 0 or 1 of change, NaN where not known; each counts where it is known, so labels of changed places
alone are enough.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from covermap.core.legend import IGNORE
from covermap.core.registry import register
from covermap.nn.losses.base import Loss, Takes, precise
from covermap.nn.losses.regions import Dice


class TransitionLoss(Loss):
    """Mean over what is known of a part of the target."""

    takes: ClassVar[Takes] = "transitions"

    def mass(self, target: Tensor) -> Tensor:
        """How many pixels tell whether they changed."""
        return (~target[:, 2].isnan()).sum()


@register("loss", "semantic")
class Semantic(TransitionLoss):
    """Cross entropy of the classes of both dates, over all that are known."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Sum over both dates."""
        k, logits = (prediction.shape[1] - 2) // 2, precise(prediction)
        parts = zip((logits[:, :k], logits[:, k : 2 * k]), target.unbind(1), strict=False)
        costs = [functional.cross_entropy(x, label(y), ignore_index=IGNORE, reduction="sum") for x, y in parts]
        return costs[0] + costs[1]

    def mass(self, target: Tensor) -> Tensor:
        """Known classes of both dates."""
        return (~target[:, :2].isnan()).sum()


@register("loss", "change")
class Change(TransitionLoss):
    """Cross entropy of unchanged against changed; weight: of changed pixels, beside 1 of the others."""

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 < weight < float("inf"):
            raise ValueError(f"weight {weight:g} is not a number above 0")
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Sum over pixels."""
        logits = precise(prediction[:, -2:])
        weight = logits.new_tensor([1.0, self.weight])
        return functional.cross_entropy(logits, label(target[:, 2]), weight, ignore_index=IGNORE, reduction="sum")

    def mass(self, target: Tensor) -> Tensor:
        """Sum of the weights."""
        changed = target[:, 2]
        return (changed == 0).sum() + self.weight * (changed == 1).sum()


@register("loss", "change_dice")
class ChangeDice(TransitionLoss):
    """Dice loss of changed pixels (see dice), which counts a rare change as much as a frequent one."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = Dice(torch.ones(2), classes=[1], absent="count")

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Sum over windows."""
        found: Tensor = self.dice(prediction[:, -2:], label(target[:, 2]))
        return found

    def mass(self, target: Tensor) -> Tensor:
        """Windows with something known."""
        return self.dice.mass(label(target[:, 2]))


@register("loss", "consistency")
class Consistency(TransitionLoss):
    """-log of the probability, by the classes of both dates alone, of what the mask says: changed or not.

    That a pixel keeps its class has the probability sum_k p(k before) p(k after). So both semantic answers learn from
    the mask also where no class is known, and cannot say another thing than the change.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Sum over pixels."""
        k, logits = (prediction.shape[1] - 2) // 2, precise(prediction)
        both = logits[:, :k].log_softmax(1) + logits[:, k : 2 * k].log_softmax(1)
        same = both.logsumexp(1).clamp(max=-1e-6)
        changed = target[:, 2]
        cost = torch.where(changed == 1, -torch.log(-torch.expm1(same)), -same)
        return torch.where(changed.isnan(), 0.0, cost).sum()


def label(values: Tensor) -> Tensor:
    """Numbers with NaN (B, H, W) -> class indices int64 with IGNORE."""
    return torch.where(values.isnan(), torch.full_like(values, IGNORE), values).long()
