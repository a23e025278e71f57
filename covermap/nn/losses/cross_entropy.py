"""Cross entropy with class weights and ignored pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from covermap.core.legend import IGNORE
from covermap.core.registry import register


@register("loss", "cross_entropy")
class CrossEntropy(nn.Module):
    """Sum over labelled pixels of -w_y log p_y; `mass` is the sum of w_y to divide it by.

    Keeping them apart lets the training loop divide once for all batches of an accumulation, so that 4 batches of 2
    equal one of 8. A batch without a labelled pixel gives 0 and 0.
    """

    weight: Tensor

    def __init__(self, class_weights: Tensor, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing:g} is not from 0 to below 1")
        self.register_buffer("weight", class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, K, H, W), label (B, H, W) int64 with IGNORE -> sum of losses."""
        return functional.cross_entropy(
            logits, label, self.weight, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )

    def mass(self, label: Tensor) -> Tensor:
        """label (B, H, W) int64 with IGNORE -> sum of its pixels' weights."""
        return self.weight[label[label != IGNORE]].sum()
