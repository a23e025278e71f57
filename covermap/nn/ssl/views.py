"""Views of a batch of windows: crops and symmetries that carry their affine, then what varies brightness.

Positions are (x, y) in pixels: x along columns, y along rows, from the upper left corner of the upper left pixel, so
that the centre of the pixel in row i and column j is (j + 0.5, i + 0.5).

Each number is drawn from a generator of the window's own seed, the view's number and the sensor: how windows are shared
out among processes, and which other sensors there are, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import ViewConfig
from covermap.core.sensors import backscatter_bands
from covermap.core.types import Batch, InputSpec
from covermap.nn.losses.base import precise
from covermap.nn.ssl.heads import region_average
from covermap.nn.ssl.method import generators

Floats = npt.NDArray[np.float64]
_PURPOSE, _STRIDE = 1000, 100
"""Purposes of view k: 1000 + 100 k, geometry first, then a sensor each."""
_REGIONS, _TRIES = 900, 16
_TOUCH = 1e-4
"""A pixel that is not valid and weighs less than this in an interpolated one is only rounding."""
_TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
SYMMETRIES: tuple[Floats, ...] = tuple(
    np.linalg.matrix_power(_TURN, k) @ np.diag([mirror, 1.0]) for mirror in (1.0, -1.0) for k in range(4)
)
"""The eight symmetries of the square as matrices on (x, y) about its centre."""


@dataclass(frozen=True)
class View:
    """How windows look in a view. affine (B, 2, 3) float64: window position = affine @ (x, y, 1) of the view.

    Sides of the view stay parallel to those of the window.
    """

    batch: Batch
    affine: Tensor

    @property
    def extent(self) -> Tensor:
        """(B, 4): left, top, right, bottom of the view in the window."""
        side = float(self.batch.valid.shape[-1])
        return move_boxes(self.affine, self.affine.new_tensor([[[0.0, 0.0, side, side]]]))[:, 0]


def crop(side: float, corner: Floats, symmetry: int, size_px: int) -> Floats:
    """The affine (2, 3) of a view of size_px that shows a square of a window, turned by one of the symmetries.

    side, corner (2,): of the square, in px of the window, left and top.
    """
    matrix = SYMMETRIES[symmetry] * (side / size_px)
    return np.column_stack([matrix, corner + side / 2 - matrix @ np.full(2, size_px / 2)])


def move_boxes(affine: Tensor, boxes: Tensor) -> Tensor:
    """Boxes (B or 1, R, 4) as left, top, right, bottom through affines (B, 2, 3) that keep axes -> (B, R, 4)."""
    corners = (
        boxes.view(*boxes.shape[:2], 2, 2) @ affine[:, None, :, :2].transpose(-1, -2) + affine[:, None, None, :, 2]
    )
    return torch.cat([corners.amin(-2), corners.amax(-2)], -1)


def inverse(affine: Tensor) -> Tensor:
    """(B, 2, 3): from the window to the view."""
    matrix = torch.linalg.inv(affine[..., :2])
    return torch.cat([matrix, -matrix @ affine[..., 2:]], -1)


def resample(batch: Batch, affine: Tensor, size_px: int) -> Batch:
    """Square windows seen through affines: images bilinear, 0 where not valid; no label, target, date or place.

    A pixel is valid where all that it is made of is.
    """
    side = batch.valid.shape[-1]
    if batch.valid.shape[-2] != side:
        raise DataError(f"windows are {batch.valid.shape[-2]} x {side} px, views need squares", fix="cut them square")
    at = torch.arange(size_px, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    place = torch.einsum("bij,hwj->bhwi", affine.cpu(), torch.stack([x, y, torch.ones_like(x)], -1))
    grid = (2 * place / side - 1).to(batch.valid.device)

    def look(stack: Tensor) -> Tensor:
        flat = precise(stack.flatten(1, -3))
        seen = functional.grid_sample(flat, grid.to(flat.dtype), padding_mode="border", align_corners=False)
        return seen.view(*stack.shape[:-2], size_px, size_px)

    valid = look((~batch.valid).float()) < _TOUCH
    image = {name: look(x * mask_of(batch.valid, x)) * mask_of(valid, x) for name, x in batch.image.items()}
    return Batch(image, valid)


def mask_of(valid: Tensor, x: Tensor) -> Tensor:
    """(B, T, 1, H, W) bool for a sensor (B, T', C, H, W): of its dates, or for one date where any is valid."""
    return (valid if valid.shape[1] == x.shape[1] else valid.any(1, keepdim=True))[:, :, None]


class Views:
    """Draws views of windows of `size_px`; brightness varies in the sensors of `inputs` alone.

    Raises ConfigError for settings without effect on these sensors.
    """

    def __init__(self, config: ViewConfig, spec: InputSpec, inputs: Sequence[str], size_px: int) -> None:
        self.config, self.size_px = config, size_px
        self.entries = {entry.sensor: (i, entry) for i, entry in enumerate(spec.sensors) if entry.sensor in inputs}
        radar = {entry.sensor: backscatter_bands(entry.sensor, entry.bands) for _, entry in self.entries.values()}
        self.radar = {sensor: bands for sensor, bands in radar.items() if bands}
        if config.speckle and not self.radar:
            raise ConfigError(
                f"views.speckle has no effect: none of {', '.join(self.entries)} is radar backscatter in dB",
                fix="name its sensor (sensor: sentinel1, bands vv and vh), or leave speckle out",
            )
        for sensor, bands in self.radar.items() if config.speckle else ():
            mean = max(self.entries[sensor][1].mean[i] for i in bands)
            if mean > 0:  # land reflects less than it gets
                raise ConfigError(
                    f"views.speckle: {sensor} has a mean of {mean:.3g}, which is no backscatter in dB",
                    fix="bring it to dB (10 log10 of the power), or leave speckle out",
                )
        if config.drop_bands and all(len(entry.bands) == 1 for _, entry in self.entries.values()):
            raise ConfigError("views.drop_bands has no effect on images of one band", fix="leave it out")

    def __call__(
        self, batch: Batch, seeds: Sequence[int], number: int, *,
        scale: tuple[float, float] | None = None, size_px: int | None = None,
    ) -> View:  # fmt: skip
        """View `number` of each window, default of the config's scale and the windows' size."""
        size = size_px or self.size_px
        purpose, side = _PURPOSE + _STRIDE * number, batch.valid.shape[-1]
        affine = [self._draw(rng, scale or self.config.scale, side, size) for rng in generators(seeds, purpose)]
        view = torch.from_numpy(np.stack(affine))
        seen = resample(batch, view, size)
        image = {
            name: self._vary(name, x, batch.image[name], mask_of(seen.valid, x), seeds, purpose)
            if name in self.entries
            else x
            for name, x in seen.image.items()
        }
        return View(replace(seen, image=image), view)

    def _draw(self, rng: np.random.Generator, scale: tuple[float, float], window: int, size_px: int) -> Floats:
        """Evenly by area, then by place; what is off is drawn nevertheless, so that it moves nothing else."""
        side = window * float(np.sqrt(rng.uniform(*scale)))
        corner, symmetry = rng.random(2) * (window - side), int(rng.integers(len(SYMMETRIES)))
        return crop(side, corner, symmetry if self.config.flips else 0, size_px)

    def _vary(self, name: str, x: Tensor, window: Tensor, mask: Tensor, seeds: Sequence[int], purpose: int) -> Tensor:
        """Speckle, gain, offset, noise, bands left out; what is 0 throughout a window is missing, and stays so."""
        config, (index, entry) = self.config, self.entries[name]
        rngs = generators(seeds, purpose + 1 + index)
        shape = x.shape[1:]

        def draw(each: list[Floats]) -> Tensor:
            return torch.from_numpy(np.stack(each).astype(np.float32)).to(x.device)

        there = (window != 0).flatten(3).any(-1)[..., None, None]
        if config.speckle and name in self.radar:
            at, looks = list(self.radar[name]), config.speckle
            power = draw([rng.gamma(looks, 1 / looks, (shape[0], len(at), *shape[2:])) for rng in rngs])
            x = x.clone()
            x[:, :, at] += 10 * power.clamp_min(1e-6).log10() / x.new_tensor(entry.std)[at, None, None]
        if config.brightness:
            gain = draw([1 + config.brightness * rng.standard_normal((1, 1, 1, 1)) for rng in rngs])
            x = x * gain + draw([config.brightness * rng.standard_normal((*shape[:2], 1, 1)) for rng in rngs])
        if config.noise:
            x = x + draw([config.noise * rng.standard_normal(shape) for rng in rngs])
        if config.drop_bands:
            stays = torch.from_numpy(np.stack([_stays(rng, shape[1], config.drop_bands) for rng in rngs])).to(x.device)
            there = there & stays[:, None, :, None, None]
        return torch.where(mask & there, x, 0)


def _stays(rng: np.random.Generator, bands: int, share: float) -> npt.NDArray[np.bool_]:
    stays = np.asarray(rng.random(bands) >= share)
    spared = int(rng.integers(bands))
    if not stays.any():
        stays[spared] = True
    return stays


def matched_regions(
    first: View, second: View, seeds: Sequence[int], *, count: int, side_px: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Squares of the window that both views show -> boxes (B, R, 4) in px of each view, and which there are (B, R).

    side_px: in px of the window. Squares of one window do not overlap, for each is to be told from the others; views
    that share too little have fewer. One that is not there, or valid by less than half in a view, is marked so.
    """
    low = torch.maximum(first.extent[:, :2], second.extent[:, :2]).numpy()
    room = torch.minimum(first.extent[:, 2:], second.extent[:, 2:]).numpy() - side_px - low
    boxes, there = np.zeros((len(seeds), count, 4)), np.zeros((len(seeds), count), bool)
    for i, rng in enumerate(generators(seeds, _REGIONS)):
        drawn = rng.random((_TRIES * count, 2)) * room[i] + low[i]
        if (room[i] < 0).any():
            continue
        found: list[Floats] = []
        for corner in drawn:
            if len(found) < count and all(np.abs(corner - other).max() >= side_px for other in found):
                found.append(corner)
        there[i, : len(found)] = True
        boxes[i, : len(found)] = np.hstack([np.stack(found), np.stack(found) + side_px])
    where, present = torch.from_numpy(boxes), torch.from_numpy(there).to(first.batch.valid.device)
    moved = []
    for view in (first, second):
        moved.append(move_boxes(inverse(view.affine), where).to(present.device))
        share = region_average(view.batch.valid.any(1, keepdim=True).float(), moved[-1])[..., 0]
        present = present & (share >= 0.5)
    return moved[0], moved[1], present
