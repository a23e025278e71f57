"""Several processes as one: vectors of all of them, and means over all windows.

A loss is each process's share, and gradients are averaged over processes (DDP). Two things then make P processes equal
to one that has all windows: what was gathered gets back the sum of the gradients of all processes, and a mean over
what counts divides by the count of all, times P.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if world() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        distributed.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(world())[rank()]


def gather(x: Tensor) -> Tensor:
    """(B, ...) of each process, B the same in all -> (P B, ...) in the order of processes, differentiable."""
    if world() == 1:
        return x
    whole: Tensor = _Gather.apply(x.contiguous())  # type: ignore[no-untyped-call]
    return whole


def gather_flags(flags: Tensor) -> Tensor:
    """(B, ...) bool of each process -> (P B, ...)."""
    return gather(flags.to(torch.uint8)).bool()


def sum_of_all(x: Tensor) -> Tensor:
    """A sum over processes, through which no gradient passes."""
    x = x.detach().clone()
    if world() > 1:
        distributed.all_reduce(x)
    return x


def mean_of_all(total: Tensor, count: Tensor) -> Tensor:
    """This process's share of the mean over what all processes count: total P / (sum of counts); 0 where none does."""
    return total * world() / sum_of_all(count.to(total.dtype)).clamp_min(1)
