"""What stands on an encoder only to learn it: projections, prototypes, pooling of styles and regions, elevation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.nn.losses.base import precise

Norm = Literal["batch", "layer", "none"]
_NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": lambda _: nn.Identity(),
}  # fmt: skip


class MlpHead(nn.Sequential):
    """`depth` linear layers, all but the last with norm and GELU: (B, inputs) -> (B, outputs).

    A layer norm is the rule here: with a batch norm the windows of another process would change an answer. Weights
    start at a size that keeps that of the signal, and biases at 0, for a random bias is the same for all windows: after
    three layers of it little else was left, and DINO's teacher began with nothing to tell.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, depth: int = 2, norm: Norm = "layer") -> None:
        layers: list[nn.Module] = []
        for width in (inputs, *[hidden] * (depth - 2))[: depth - 1]:
            layers += [nn.Linear(width, hidden, bias=norm == "none"), _NORMS[norm](hidden), nn.GELU()]
        super().__init__(*layers, nn.Linear(hidden if depth > 1 else inputs, outputs))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


class Prototypes(nn.Module):
    """Cosines with K directions that are learnt: a linear layer with weights of norm 1 (DINO, Caron et al. 2021)."""

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.init.trunc_normal_(torch.empty(prototypes, width), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, K) in float32 at least: a temperature will multiply the errors of cosines by 25."""
        with torch.autocast(x.device.type, enabled=False):
            x, to = precise(x), precise(self.direction)
            return functional.linear(functional.normalize(x, dim=-1), functional.normalize(to, dim=-1))


def style(x: Tensor, share: Tensor) -> Tensor:
    """(B, D, h, w) and the valid share of each cell (B, h, w) -> (B, 2 D): mean and variance over space (GLCNet)."""
    x = precise(x)
    weight = share[:, None].to(x.dtype) / share.sum((1, 2)).clamp_min(1e-6)[:, None, None, None]
    mean = (x * weight).sum((2, 3), keepdim=True)
    variance = ((x - mean).square() * weight).sum((2, 3))
    return torch.cat([mean[..., 0, 0], variance], 1)


def region_average(x: Tensor, boxes: Tensor) -> Tensor:
    """(B, C, h, w) and boxes (B, R, 4) as left, top, right, bottom in cells -> (B, R, C), the mean over each box.

    Exact for boxes that cut through cells; 0 for one that is empty or outside. In float32 at least: half precision
    knows a place in a large map to a pixel or so.
    """
    x = precise(x)

    def inside(low: Tensor, high: Tensor, num: int) -> Tensor:
        cell = torch.arange(num, device=x.device, dtype=x.dtype)
        return (torch.minimum(high[..., None], cell + 1) - torch.maximum(low[..., None], cell)).clamp_min(0)

    left, top, right, bottom = boxes.to(x).unbind(-1)
    across, down = inside(left, right, x.shape[-1]), inside(top, bottom, x.shape[-2])
    area = down.sum(-1) * across.sum(-1)
    with torch.autocast(x.device.type, enabled=False):
        total = torch.einsum("brh,bchw,brw->brc", down, x, across)
    return total / area.clamp_min(1e-6)[..., None]


class CoarseRegressor(nn.Module):
    """The deepest map (B, D, h, w) -> one number on each cell of a grid, (B, 1, g, g).

    Where the grid is finer than the map, each of the map's cells gives several numbers (sub-pixel convolution, Shi et
    al. 2016). cells: of the map along the window's side, which need not be whole: the map may reach beyond the window.
    """

    def __init__(self, width: int, *, cells: float, grid: int, hidden: int = 256) -> None:
        super().__init__()
        self.cells, self.grid, self.finer = cells, grid, max(1, math.ceil(grid / cells))
        self.layers = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, self.finer**2, 1), nn.PixelShuffle(self.finer)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, 1, g, g)."""
        fine: Tensor = self.layers(x)
        edge = torch.linspace(0, self.cells * self.finer, self.grid + 1, device=x.device, dtype=torch.float32)
        top, left = torch.meshgrid(edge[:-1], edge[:-1], indexing="ij")
        bottom, right = torch.meshgrid(edge[1:], edge[1:], indexing="ij")
        boxes = torch.stack([left, top, right, bottom], -1).flatten(0, 1)
        return region_average(fine, boxes.expand(len(x), -1, -1)).view(len(x), 1, self.grid, self.grid)
