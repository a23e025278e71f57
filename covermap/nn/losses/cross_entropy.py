"""Cross entropy with class weights and ignored pixels, and costs of the true class's probability that bend it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from covermap.core.legend import IGNORE
from covermap.core.registry import register
from covermap.nn.losses.base import PixelLoss, from_zero, precise


@register("loss", "cross_entropy")
class CrossEntropy(PixelLoss):
    """Sum over labelled pixels of -w_y log p_y; `mass` is the sum of w_y to divide it by.

    label_smoothing: share of the target that goes to all classes alike, each with its own weight (as torch's).
    """

    def __init__(self, class_weights: Tensor, *, label_smoothing: float = 0.0) -> None:
        super().__init__(class_weights)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing:g} is not from 0 to below 1")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, K, *space), label (B, *space) int64 with IGNORE -> sum of losses."""
        if not self.label_smoothing:
            return super().forward(logits, label)
        x = precise(logits)
        return functional.cross_entropy(
            x,
            label,
            self.weight.to(x.dtype),
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )


@register("loss", "focal")
class Focal(PixelLoss):
    """Sum of -w_y (1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 5, over a softmax); gamma 0 is cross_entropy."""

    def __init__(self, class_weights: Tensor, *, gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = from_zero("gamma", gamma)

    def cost(self, nll: Tensor) -> Tensor:
        """Below gamma 1 the power has no slope at p = 1: it stops short of it."""
        return torch.expm1(-nll).neg().clamp_min(1e-12) ** self.gamma * nll


@register("loss", "symmetric_cross_entropy")
class SymmetricCrossEntropy(PixelLoss):
    """alpha CE + beta reverse CE, for labels with errors (Wang et al. 2019, eq. 7); log 0 is taken as -4."""

    def __init__(self, class_weights: Tensor, *, alpha: float = 0.1, beta: float = 1.0) -> None:
        super().__init__(class_weights)
        self.alpha, self.beta = from_zero("alpha", alpha), from_zero("beta", beta)
        from_zero("alpha + beta", alpha + beta, above=True)

    def cost(self, nll: Tensor) -> Tensor:
        """Reverse CE is -sum_k p_k log q_k with q 1 at the label and 0 elsewhere: 4 (1 - p_y)."""
        return self.alpha * nll - 4 * self.beta * torch.expm1(-nll)


@register("loss", "generalised_cross_entropy")
class GeneralisedCrossEntropy(PixelLoss):
    """Sum of w_y (1 - p_y^q) / q, from CE (q to 0) to 1 - p_y (q 1), for labels with errors (Zhang, Sabuncu 2018)."""

    def __init__(self, class_weights: Tensor, *, q: float = 0.7) -> None:
        super().__init__(class_weights)
        if not 0 < q <= 1:
            raise ValueError(f"q {q:g} is not above 0 and up to 1")
        self.q = q

    def cost(self, nll: Tensor) -> Tensor:
        return -torch.expm1(-self.q * nll) / self.q
