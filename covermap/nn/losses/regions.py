"""Losses of regions: how they overlap (Dice, Jaccard, Tversky, Lovasz), how far their boundaries are apart."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from covermap.core.errors import ConfigError, MissingExtra
from covermap.core.legend import IGNORE
from covermap.core.registry import register
from covermap.nn.losses.base import Loss, from_zero, precise


class RegionLoss(Loss):
    """Mean over the classes of a window, by their weights, of cost(class), summed over windows; the mass counts them.

    classes: indices of those that count (e.g. of the hazard alone); default: all. Classes of weight 0 are left out.
    absent: whether a window without a class has a loss of it for what is predicted there: skip (no), count (yes);
    default: count for a single class, which would never be told of its false alarms, else skip. Windows without any
    class that counts have no loss and no mass. A chip is a window of one pixel.
    """

    weight: Tensor

    def __init__(
        self,
        class_weights: Tensor,
        *,
        classes: Sequence[int] | None = None,
        absent: Literal["skip", "count"] | None = None,
    ) -> None:
        super().__init__()
        number = len(class_weights)
        chosen = list(range(number)) if classes is None else list(classes)
        if not chosen or len(set(chosen)) < len(chosen) or any(c not in range(number) for c in chosen):
            raise ValueError(f"classes {chosen} are not different indices from 0 to {number - 1}")
        if absent not in (None, "skip", "count"):
            raise ValueError(f"absent {absent!r} is neither skip nor count")
        self.absent = absent or ("count" if len(chosen) == 1 else "skip")
        at = torch.zeros_like(class_weights)
        at[chosen] = class_weights[chosen]
        if not at.any():
            raise ValueError(f"classes {chosen} have no training pixel, or the weight 0: nothing would be learnt")
        self.weighted = len(at.nonzero()) > 1
        self.register_buffer("weight", at)

    def cost(self, p: Tensor, true: Tensor, known: Tensor) -> Tensor:
        """Probability, label and knowledge (R, N) of a class's pixels in its window -> loss (R,), from 0."""
        raise NotImplementedError

    def shares(self, label: Tensor) -> Tensor:
        """label (B, *space) -> share (B, K) of each class in its window's loss; 0 where it does not count."""
        flat = label.reshape(len(label), -1)
        place = torch.where(flat == IGNORE, len(self.weight), flat)
        present = torch.zeros(len(flat), len(self.weight) + 1, device=label.device).scatter_(1, place, 1.0)[:, :-1]
        weight = self.weight * self.counts(present)
        return weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)

    def counts(self, present: Tensor) -> Tensor:
        """Classes that are in each window (B, K), as 0 and 1 -> those that count there."""
        return present if self.absent == "skip" else present.amax(1, keepdim=True).expand_as(present)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, K, *space), label (B, *space) int64 with IGNORE -> sum of the windows' losses."""
        share = self.shares(label).flatten()
        rows = share.nonzero()[:, 0]
        p = precise(logits).softmax(1).reshape(len(share), -1).index_select(0, rows)
        seen = label.reshape(len(label), -1)[rows // len(self.weight)]
        true = seen == (rows % len(self.weight))[:, None]
        return (share[rows].to(p.dtype) * self.cost(p, true, seen != IGNORE)).sum()

    def mass(self, label: Tensor) -> Tensor:
        """label (B, *space) int64 with IGNORE -> number of windows that hold a class that counts."""
        return self.shares(label).any(1).sum()


@register("loss", "tversky")
class Tversky(RegionLoss):
    """1 - TP / (TP + alpha FP + beta FN) of each class in each window, from probabilities (Salehi et al. 2017).

    beta above alpha favours recall. smooth (px) is added to the denominator alone: without the class and without a
    prediction of it the loss is 0.
    """

    def __init__(
        self, class_weights: Tensor, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0, **region: Any
    ) -> None:
        super().__init__(class_weights, **region)
        self.alpha, self.beta = from_zero("alpha", alpha, above=True), from_zero("beta", beta, above=True)
        self.smooth = from_zero("smooth", smooth, above=True)

    def cost(self, p: Tensor, true: Tensor, known: Tensor) -> Tensor:
        p = torch.where(known, p, 0)
        hit = torch.where(true, p, 0).sum(1)
        wrong = self.alpha * torch.where(true, 0, p).sum(1) + self.beta * torch.where(true, 1 - p, 0).sum(1)
        return wrong / (hit + wrong + self.smooth)


@register("loss", "dice")
class Dice(Tversky):
    """1 - 2 TP / (2 TP + FP + FN) of each class in each window, from probabilities (Milletari et al. 2016)."""

    def __init__(self, class_weights: Tensor, *, smooth: float = 1.0, **region: Any) -> None:
        super().__init__(class_weights, alpha=0.5, beta=0.5, smooth=smooth / 2, **region)


@register("loss", "jaccard")
class Jaccard(Tversky):
    """1 - TP / (TP + FP + FN) of each class in each window, from probabilities: 1 - soft IoU."""

    def __init__(self, class_weights: Tensor, *, smooth: float = 1.0, **region: Any) -> None:
        super().__init__(class_weights, alpha=1, beta=1, smooth=smooth, **region)


@register("loss", "lovasz")
class Lovasz(RegionLoss):
    """Lovasz-softmax, the convex extension of 1 - IoU, of each class in each window (Berman et al. 2018, eq. 9)."""

    def cost(self, p: Tensor, true: Tensor, known: Tensor) -> Tensor:
        # Ignored pixels have no error: they come last, where they change no other's rank.
        error = torch.where(known, torch.where(true, 1 - p, p), 0)
        order = _descending(error.detach())
        here = true.gather(1, order).double()
        total, found = here.sum(1, keepdim=True), here.cumsum(1)
        rank = torch.arange(1, here.shape[1] + 1, device=p.device)
        # 1 - IoU when the worst i pixels are wrong and the others right; the union is at least the i pixels.
        jaccard = 1 - (total - found) / (total + rank - found)
        slope = jaccard.diff(dim=1, prepend=torch.zeros_like(total)).to(p.dtype)
        return (error.gather(1, order) * slope).sum(1)


@register("loss", "boundary")
class Boundary(RegionLoss):
    """Mean over a window's labelled pixels of distance to the class's boundary (px) x |p - label|, of each class in it.

    That is the paper's integral of signed distance x p (Kervadec et al. 2019, eq. 5) plus a constant which makes it 0
    for a right answer; the boundary lies halfway between pixels. Ignored pixels belong to neither side. A class that
    is absent or fills the window has no boundary and does not count. In px it is larger than cross entropy: give it a
    small factor, as in cross_entropy + 0.01 * boundary.
    """

    def __init__(self, class_weights: Tensor, *, classes: Sequence[int] | None = None) -> None:
        super().__init__(class_weights, classes=classes, absent="skip")
        if find_spec("scipy") is None:
            raise MissingExtra("scipy", "ml", "the loss boundary")

    def counts(self, present: Tensor) -> Tensor:
        """Classes with a boundary: in the window, and not alone."""
        return present * (present.sum(1, keepdim=True) > 1)

    def shares(self, label: Tensor) -> Tensor:
        """Raises ConfigError for labels of whole chips."""
        if label.ndim != 3:
            raise ConfigError("train.loss: boundary needs labels of pixels, not of whole chips", fix="use another")
        return super().shares(label)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, K, H, W), label (B, H, W) int64 with IGNORE -> sum of the windows' losses."""
        weight = self.shares(label) / (label != IGNORE).sum((1, 2)).clamp_min(1)[:, None]
        chosen = (self.weight > 0).cpu().numpy()
        depth = torch.from_numpy(np.stack([_depths(each, chosen) for each in label.cpu().numpy()])).to(label.device)
        p = precise(logits).softmax(1)
        true = label[:, None] == torch.arange(len(chosen), device=label.device)[:, None, None]
        return (weight[..., None, None] * depth * torch.where(true, 1 - p, p)).sum()


def _descending(x: Tensor) -> Tensor:
    """Order of each row from its largest value on; on a processor numpy finds it in a quarter of torch's time."""
    return x.argsort(1, descending=True) if x.is_cuda else torch.from_numpy((-x.numpy()).argsort(1))


def _depths(label: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """label (H, W) -> distance in px (K, H, W) to the boundary of each chosen class, 0 where there is none."""
    from scipy.ndimage import distance_transform_edt

    found = np.zeros((len(chosen), *label.shape), np.float32)
    rest = len(chosen)  # the classes that were not chosen are one
    label = np.where((label == IGNORE) | np.append(chosen, np.zeros(IGNORE + 1 - rest, bool))[label], label, rest)
    here = np.setdiff1d(label, [IGNORE])
    if len(here) > 1:
        away = np.stack([distance_transform_edt(label != c) for c in here])
        # Inside a class, its boundary is as far as the nearest of the others.
        away = np.where(away == 0, np.where(away == 0, np.inf, away).min(0), away) - 0.5
        found[here[here < rest]] = (away * (label != IGNORE))[here < rest]
    return found
