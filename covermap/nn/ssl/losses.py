"""Losses of learning without labels, as pure functions; all in float32 at least.

B windows   D width of a vector   K prototypes   N patches or tokens of a window
Of several processes each gives its own share: nn/ssl/gather.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from covermap.nn.losses.base import precise
from covermap.nn.ssl.gather import gather, gather_flags, mean_of_all, rank, sum_of_all


def _full(x: Tensor) -> torch.autocast:
    """Products of vectors are not taken in half precision: a temperature multiplies their errors."""
    return torch.autocast(x.device.type, enabled=False)


def _unit(x: Tensor, there: Tensor | None = None) -> Tensor:
    """(..., D) at length 1; zeros where it is not there, whatever it was."""
    x = precise(x)
    return functional.normalize(x if there is None else torch.where(there[..., None], x, 0), dim=-1)


def nt_xent(
    a: Tensor, b: Tensor, temperature: float, *, drop_positive: bool = False, present: Tensor | None = None
) -> Tensor:
    """Two views (B, D) of the same windows -> mean over all 2 B anchors (SimCLR, Chen et al. 2020).

    -log(exp(s_p / t) / sum of exp(s_j / t)) with cosines s; j runs over the other view of the window and both views of
    all others. drop_positive leaves the former out of the sum (DCL, Yeh et al. 2022). present (B,) bool: windows that
    count, as anchors and among the others. Where none does: 0.
    """
    with _full(a):
        there = torch.ones(len(a), dtype=torch.bool, device=a.device) if present is None else present
        own = torch.cat([_unit(a, there), _unit(b, there)])
        others = torch.cat(gather(torch.cat(own.chunk(2), 1)).chunk(2, 1))
        logits = own @ others.T / temperature
        num, total = len(a), len(others) // 2
        at = torch.arange(num, device=a.device) + rank() * num
        itself, positive = torch.cat([at, total + at])[:, None], torch.cat([total + at, at])[:, None]
        keep = gather_flags(there).repeat(2).expand(2 * num, -1).scatter(1, itself, False)
        if drop_positive:
            keep = keep.scatter(1, positive, False)
        counted = there.repeat(2) & keep.any(1)
        keep = keep | ~keep.any(1, keepdim=True)  # a sum over nothing has no gradient
        cost = logits.masked_fill(~keep, -torch.inf).logsumexp(1) - logits.gather(1, positive)[:, 0]
        return mean_of_all(torch.where(counted, cost, 0).sum(), counted.sum())


def info_nce_pairs(
    vectors: Mapping[str, Tensor], presence: Mapping[str, Tensor], log_temperature: Tensor | float
) -> Tensor:
    """{sensor: (B, D)} and {sensor: (B,) bool} -> mean over all ordered pairs of sensors and windows that have both.

    One sensor of a window is to be told from that of all windows that have it, by the other sensor (CLIP, Radford et
    al. 2021). Where no window has two sensors: 0.
    """
    names = list(vectors)
    with _full(vectors[names[0]]):
        there = torch.stack([presence[name] for name in names], 1)
        own = _unit(torch.stack([precise(vectors[name]) for name in names], 1), there)
        others, held = gather(own), gather_flags(there)
        sharpness = torch.exp(-torch.as_tensor(log_temperature, dtype=own.dtype, device=own.device))
        positive = (torch.arange(len(own), device=own.device) + rank() * len(own))[:, None]
        total, count = own.sum() * 0, there.new_zeros((), dtype=torch.long)
        for i, j in permutations(range(len(names)), 2):
            anchors = there[:, i] & there[:, j]
            logits = own[:, i] @ others[:, j].T * sharpness
            keep = held[:, j].expand(len(own), -1).scatter(1, positive, True)
            cost = logits.masked_fill(~keep, -torch.inf).logsumexp(1) - logits.gather(1, positive)[:, 0]
            total, count = total + torch.where(anchors, cost, 0).sum(), count + anchors.sum()
        return mean_of_all(total, count)


def dino_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Student logits (V, B, K) and teacher probabilities (G, B, K) -> mean over pairs of different views and windows.

    The first G of the student's views are those of the teacher (DINO, Caron et al. 2021).
    """
    log_p = functional.log_softmax(precise(student) / temperature, -1)
    with _full(log_p):
        cost = -torch.einsum("gbk,vbk->gv", teacher.to(log_p.dtype), log_p) / student.shape[1]
    different = ~torch.eye(*cost.shape, dtype=torch.bool, device=cost.device)
    mean: Tensor = cost[different].mean()
    return mean


def entropy(p: Tensor) -> Tensor:
    """Probabilities (..., K) -> their mean entropy in nats."""
    mean: Tensor = torch.special.entr(precise(p)).sum(-1).mean()
    return mean


def centred(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Teacher logits (..., K) -> probabilities, with the running mean (K,) of the logits taken off."""
    return ((precise(logits) - centre) / temperature).softmax(-1)


def moved_centre(centre: Tensor, logits: Tensor, momentum: float = 0.9) -> Tensor:
    """The running mean (K,) after teacher logits (..., K) of all processes."""
    flat = precise(logits).flatten(0, -2)
    mean = sum_of_all(flat.sum(0)) / sum_of_all(flat.new_tensor(float(len(flat))))
    return centre * momentum + mean * (1 - momentum)


def sinkhorn(logits: Tensor, temperature: float, *, iterations: int = 3) -> Tensor:
    """Teacher logits (G, B, K) -> probabilities by which all prototypes are used alike (Sinkhorn-Knopp, SwAV 2020).

    Of all processes together, in logarithms, for exp(1 / 0.04) squared leaves float32.
    """
    views, num = logits.shape[:2]
    log_q = gather(precise(logits.detach()).transpose(0, 1)).flatten(0, 1) / temperature
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    own: Tensor = log_q.exp().view(-1, views, log_q.shape[1])[rank() * num : (rank() + 1) * num]
    return own.transpose(0, 1)


def masked_mse(prediction: Tensor, target: Tensor, counted: Tensor, *, norm_pix: bool = False) -> Tensor:
    """Pixels of patches (B, N, P), of which counted (bool) are compared -> squared error (MAE, He et al. 2022).

    The mean within each window, then of the windows, so that it does not matter which share a process; a window
    without any has 0. norm_pix: patches are compared by their own mean and std. What does not count may be NaN.
    """
    prediction, target = precise(prediction), precise(target)
    if norm_pix:
        mean, std = mean_and_std(target, counted)
        target = (target - mean) / std
    error = torch.where(counted, prediction - torch.where(counted, target, 0), 0).square()
    return (error.sum((1, 2)) / counted.sum((1, 2)).clamp_min(1)).mean()


def mean_and_std(patches: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Patches (B, N, P) -> (B, N, 1) each, of the known numbers; the variance is that of a sample, plus 1e-6."""
    num = known.sum(-1, keepdim=True)
    mean = torch.where(known, patches, 0).sum(-1, keepdim=True) / num.clamp_min(1)
    apart = torch.where(known, patches - mean, 0)
    return mean, (apart.square().sum(-1, keepdim=True) / (num - 1).clamp_min(1) + 1e-6).sqrt()


def masked_regression(prediction: Tensor, target: Tensor, known: Tensor, *, kind: Literal["l1", "l2"] = "l2") -> Tensor:
    """Numbers of one shape, such as elevation with its no-data -> mean error over those that are known (bool).

    What the others hold, NaN too, counts in nothing. Where none is known: 0.
    """
    error = torch.where(known, precise(prediction) - torch.where(known, precise(target), 0), 0)
    return mean_of_all((error.abs() if kind == "l1" else error.square()).sum(), known.sum())


def latent_distance(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, *, kind: Literal["l1", "l2", "cosine"] = "l2"
) -> Tensor:
    """Vectors (..., D) -> mean of |p - t|, of (p - t)^2 or of 1 - cos(p, t), over those of mask (...) bool."""
    mask = torch.ones(prediction.shape[:-1], dtype=torch.bool, device=prediction.device) if mask is None else mask
    if kind == "cosine":
        apart = 1 - (_unit(prediction, mask) * _unit(target, mask)).sum(-1)
        return mean_of_all(torch.where(mask, apart, 0).sum(), mask.sum())
    return masked_regression(prediction, target, mask[..., None].expand_as(prediction), kind=kind)


def patch_discrimination(prediction: Tensor, target: Tensor, mask: Tensor, temperature: float = 0.1) -> Tensor:
    """Predicted and true tokens (B, N, D), of which mask (B, N) bool count -> 2 t times the mean cross-entropy.

    Each is to be told from the others of its window (Galileo, Tseng et al. 2025); all windows weigh the same, those
    with no token nothing.
    """
    with _full(prediction):
        logits = _unit(prediction, mask) @ _unit(target, mask).transpose(1, 2) / temperature
        own = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        log_p = logits.masked_fill(~(mask[:, None] | own), -torch.inf).log_softmax(-1).diagonal(dim1=1, dim2=2)
        cost = torch.where(mask, -log_p, 0).sum(1) / mask.sum(1).clamp_min(1)
        return 2 * temperature * mean_of_all(cost.sum(), mask.any(1).sum())
