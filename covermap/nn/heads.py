"""From a decoder's channels to a task's answers, and from a batch to what they are compared with.

maps (B, C, h, w) -> Pool, for chips -> (B, C) -> loss with reference(task, batch)
                                               -> answers(task, ...): what tables and maps show
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.task import SHARE, Task
from covermap.core.types import Batch
from covermap.nn.losses.binary import class_probabilities


class Pool(nn.Module):
    """One answer of a chip: the mean over its valid pixels, their maximum, or a soft one (log of the mean of exp).

    The last is the LSE pooling of Pinheiro and Collobert (2015) with r = 1. A linear layer and a mean are
    interchangeable, so the mean of logits is what a classifier on mean features gives.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, maps: Tensor, valid: Tensor) -> Tensor:
        """maps (B, C, h, w), valid (B, T, H, W) -> (B, C); 0 for a chip without a valid pixel."""
        size = int(maps.shape[-2]), int(maps.shape[-1])
        share = functional.adaptive_avg_pool2d(valid.any(1)[:, None].float(), size).flatten(2)
        x, total = maps.float().flatten(2), share.sum(2)
        if self.kind == "mean":
            return (x * share).sum(2) / total.clamp_min(1e-6)
        hidden = x.masked_fill(share == 0, -torch.inf)
        top = hidden.amax(2, keepdim=True).detach()
        top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
        if self.kind == "max":
            return torch.where(total > 0, hidden.amax(2), torch.zeros_like(total))
        mean = ((hidden - top).exp() * share).sum(2) / total.clamp_min(1e-6)
        return torch.where(total > 0, mean.clamp_min(1e-30).log() + top[..., 0], torch.zeros_like(total))


def decided(task: Task, out: Tensor) -> Tensor:
    """Class logits (B, K, ...) as they are decided by: softened, and with what was added to each class."""
    scaled = out if task.temperature == 1 else out / task.temperature
    return scaled + out.new_tensor(task.offsets).reshape(-1, *[1] * (out.dim() - 2)) if task.offsets else scaled


def answers(task: Task, out: Tensor) -> Tensor:
    """A network's channels (B, C, ...) as probabilities of classes (B, K, ...) or numbers in their unit."""
    if task.kind.takes == "classes":
        return decided(task, out).softmax(1)
    if task.kind.takes == "presence":
        return out.sigmoid()
    if task.kind.takes == "transitions":
        k = len(task.legend)
        return torch.cat([part.softmax(1) for part in (out[:, :k], out[:, k : 2 * k], out[:, 2 * k :])], 1)
    if task.kind.takes == "order":
        return class_probabilities(out)
    mean, std = (out.new_tensor(v).reshape(-1, *[1] * (out.dim() - 2)) for v in (task.mean, task.std))
    found = out * std + mean
    if SHARE not in task.units:
        return found
    within = out.new_tensor([unit == SHARE for unit in task.units], dtype=torch.bool).reshape(mean.shape)
    return torch.where(within, found.clamp(0, 1), found)


def reference(task: Task, batch: Batch) -> Tensor:
    """What the loss compares with: class indices (B, ...) with IGNORE, or numbers (B, C, ...) with NaN."""
    label, target = batch.label, batch.target
    if task.kind.takes == "classes":
        assert label is not None
        return label.flatten(1).amin(1) if task.kind.chips else label  # IGNORE is the largest
    assert target is not None
    if task.kind.takes in ("presence", "transitions"):
        return target
    if task.kind.takes == "order":
        index = torch.bucketize(target[:, 0], target.new_tensor(task.breaks), right=True)
        return torch.where(target[:, 0].isfinite(), index, torch.full_like(index, IGNORE))
    mean, std = (target.new_tensor(v).reshape(-1, *[1] * (target.dim() - 2)) for v in (task.mean, task.std))
    return (target - mean) / std


def like(out: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """A network's channels on the pixels of numbers that are coarser: their means over valid (B, T, H, W) pixels."""
    if out.dim() == 4 and reference.dim() == 4 and out.shape[-2:] != reference.shape[-2:]:
        if any(a % b for a, b in zip(out.shape[-2:], reference.shape[-2:], strict=True)):
            raise ConfigError(
                f"windows of {out.shape[-2]} px do not hold a whole number of the target's {reference.shape[-2]} px",
                fix="set train.size_px to a multiple of data.target.factor",
            )
        size, seen = (int(reference.shape[-2]), int(reference.shape[-1])), valid.any(1)[:, None].to(out.dtype)
        share = functional.adaptive_avg_pool2d(seen, size)
        return functional.adaptive_avg_pool2d(out * seen, size) / share.clamp_min(1e-6)
    return out
