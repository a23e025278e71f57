"""What a backbone makes of a window as a whole: its deepest map over all dates, and one vector of it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from covermap.core.types import Batch, Features
from covermap.nn.dates import MergeDates, fold_dates, unfold_dates
from covermap.nn.model import Backbone, pad_to_multiple


def encode(backbone: Backbone, batch: Batch) -> Features:
    """Features of a batch whose sides are multiples: maps (B, C, h, w), or (B, T, C, h, w) where dates stay apart."""
    if backbone.dates != "one":
        features: Features = backbone(batch)
        return features
    return unfold_dates(backbone(fold_dates(batch)), batch.valid.shape[1])


def cells(backbone: Backbone, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch of any size -> the deepest map (B, D, h, w), and the valid share of each of its cells (B, h, w)."""
    features, share = merged(backbone, batch, levels=1)
    return features.maps[-1], share


def merged(backbone: Backbone, batch: Batch, *, levels: int | None = None) -> tuple[Features, Tensor]:
    """A batch of any size -> its last `levels` maps (B, C, h, w), and the valid share of the deepest one's cells.

    Of several dates the mean of those that hold something. Maps may reach beyond the windows, at the lower right.
    """
    padded = pad_to_multiple(batch, backbone.multiple)
    whole = encode(backbone, padded)
    first = 0 if levels is None else len(whole.maps) - levels
    features = Features(whole.maps[first:], whole.strides[first:])
    if features.maps[-1].dim() == 5:
        widths = [x.shape[2] for x in features.maps]
        features = MergeDates("mean", features.maps[-1].shape[1], widths)(features, padded.valid)
    x = features.maps[-1]
    there = padded.valid.any(1).to(x.dtype)[:, None]
    return features, functional.adaptive_avg_pool2d(there, (x.shape[-2], x.shape[-1]))[:, 0]


def mean_of_cells(x: Tensor, share: Tensor) -> Tensor:
    """(B, D, h, w) and (B, h, w) -> (B, D): the mean, weighed by how much of a cell is valid; 0 where nothing is."""
    return (x * share[:, None]).sum((2, 3)) / share.sum((1, 2)).clamp_min(1e-6)[:, None]


def vectors(backbone: Backbone, batch: Batch) -> Tensor:
    """A batch of any size -> (B, D)."""
    return mean_of_cells(*cells(backbone, batch))
