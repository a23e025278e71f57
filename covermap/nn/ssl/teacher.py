"""A teacher that is the running average of its student, and the schedules that go with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn


def cosine(progress: float, start: float, end: float) -> float:
    """From start (progress 0) to end (1) along half a cosine."""
    return end - (end - start) * (math.cos(math.pi * min(max(progress, 0.0), 1.0)) + 1) / 2


def warmed(progress: float, start: float, end: float, *, share: float) -> float:
    """From start in a straight line to end, which is reached after `share` of the training."""
    return end if progress >= share else start + (end - start) * progress / share


class Teacher(nn.Module):
    """Copies of a student's parts; each `update` makes every parameter m its own + (1 - m) the student's.

    No gradient reaches it, and nothing but `update` changes it: in training its batch norms take the batch's numbers,
    as DINO's teacher does, and leave their running ones alone; whatever else differs between training and use, such as
    dropout, is off. buffers: copy takes the student's running means and variances, average treats them as parameters;
    buffers of whole numbers are copied.
    """

    def __init__(self, student: Mapping[str, nn.Module], *, buffers: Literal["copy", "average"] = "copy") -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: copy.deepcopy(part) for name, part in student.items()})
        self.buffer_policy = buffers
        self.requires_grad_(False)
        for module in self._norms():
            module.momentum = 0.0
        self.train(self.training)

    def _norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        self.training = mode
        for module in self._norms():
            module.train(mode)
        return self

    @torch.no_grad()
    def update(self, student: Mapping[str, nn.Module], momentum: float) -> None:
        """One step of the average."""
        for name, part in self.parts.items():
            for own, other in zip(part.parameters(), student[name].parameters(), strict=True):
                own.lerp_(other.to(own), 1 - momentum)
            for kept, latest in zip(part.buffers(), student[name].buffers(), strict=True):
                if self.buffer_policy == "average" and kept.is_floating_point():
                    kept.lerp_(latest.to(kept), 1 - momentum)
                else:
                    kept.copy_(latest)
