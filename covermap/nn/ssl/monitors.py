"""What was learnt, in numbers: whether vectors differ at all, in how many directions, and find each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_SPREAD, _RANK = 0.01, 1.2
"""Shares of a healthy spread, and numbers of directions, below which vectors say nothing."""


def spread(vectors: Tensor) -> float:
    """(N, D) -> mean std over D of vectors of length 1, times sqrt(D): 1 if they fill the sphere, 0 if all agree.

    Chen & He 2021 watch the std against 1 / sqrt(D); divided by that, widths compare.
    """
    unit = functional.normalize(vectors.detach().double(), dim=1)
    return float(unit.std(0, correction=0).mean() * math.sqrt(vectors.shape[1]))


def effective_rank(vectors: Tensor) -> float:
    """(N, D) -> exp of the entropy of the singular values' shares (Roy & Vetterli 2007), of vectors about their mean.

    From 1, where one direction holds all, to the smaller of N - 1 and D; 0 where all are the same.
    """
    x = vectors.detach().double()
    values = torch.linalg.svdvals(x - x.mean(0))
    if not float(values.sum()) > 1e-12 * max(float(x.abs().max()), 1e-300) * x.numel():
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())


@dataclass(frozen=True)
class Verdict:
    """Whether an encoder's vectors have collapsed, by which numbers, in a sentence."""

    collapsed: bool
    spread: float
    rank: float
    sentence: str


def judge(vectors: Tensor) -> Verdict:
    """(N, D) of different windows, two at least -> the verdict."""
    if not bool(vectors.isfinite().all()):
        return Verdict(True, math.nan, math.nan, "vectors hold numbers that are not finite: training has diverged")
    wide, rank = spread(vectors), effective_rank(vectors)
    numbers = f"spread {wide:.2g} of 1, {rank:.1f} of {min(len(vectors) - 1, vectors.shape[1])} directions"
    if wide < _SPREAD:
        return Verdict(True, wide, rank, f"collapsed: all windows get nearly the same vector ({numbers})")
    if rank < _RANK and min(len(vectors) - 1, vectors.shape[1]) > 1:
        return Verdict(True, wide, rank, f"collapsed: vectors differ along a single direction ({numbers})")
    return Verdict(False, wide, rank, f"vectors differ ({numbers})")


def retrieval(a: Tensor, b: Tensor, *, top: Sequence[int] = (1, 5)) -> dict[int, float]:
    """(N, D) of the same windows by two sensors -> {k: share of windows whose partner is among the k nearest}.

    By cosine, both ways; of equals none counts as found, so that a collapsed encoder finds nothing. By chance k / N.
    """
    x, y = (functional.normalize(each.detach().double(), dim=1) for each in (a, b))
    cosines = x @ y.T
    own = cosines.diagonal()
    nearer = torch.cat([(cosines >= own[:, None]).sum(1), (cosines >= own).sum(0)])  # itself among them
    return {k: float((nearer <= k).double().mean()) for k in top}
