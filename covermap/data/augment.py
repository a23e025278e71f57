"""What is done to a training window: image, mask and label turn together; bands and pixels of the image vary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.sensors import backscatter_bands
from covermap.core.train_config import AugmentConfig
from covermap.core.types import InputSpec, Sample, SensorInput, mask_for

Images = dict[str, npt.NDArray[np.float32]]
_TOUCH = 1e-4
"""A pixel that is not valid and weighs less than this in an interpolated one is only rounding."""


def flip(sample: Sample, symmetry: int) -> Sample:
    """One of the eight symmetries of the square (0: none), applied to image, valid, label and target alike."""
    quarter_turns, mirrored = symmetry % 4, symmetry >= 4

    def turn(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        values = np.rot90(values, quarter_turns, axes=(-2, -1))
        return values[..., ::-1] if mirrored else values

    return replace(
        sample,
        image={key: np.ascontiguousarray(turn(values)) for key, values in sample.image.items()},
        valid=np.ascontiguousarray(turn(sample.valid)).astype(bool),
        label=None if sample.label is None else np.ascontiguousarray(turn(sample.label)).astype(np.uint8),
        target=sample.target if sample.target is None or sample.target.ndim == 1 else np.array(turn(sample.target)),
    )


@dataclass(frozen=True)
class Warp:
    """A window of `size_px` seen at another scale and turned about its centre.

    scale: pixels of the image for one of the window (2: twice the ground in each direction). angle: radians, from
    columns to rows. The window that is read holds all corners, so nothing is filled in but beyond a scene's edge.
    """

    size_px: int
    scale: float = 1.0
    angle: float = 0.0

    @staticmethod
    def draw(config: AugmentConfig, size_px: int, rng: np.random.Generator) -> Warp:
        """By the config, evenly in the logarithm of the scale; a warp that is off draws no number."""
        scale = float(np.exp(rng.uniform(*np.log(config.scale)))) if config.scale else 1.0
        angle = float(np.radians(rng.uniform(-config.rotation, config.rotation))) if config.rotation else 0.0
        return Warp(size_px, scale, angle)

    @property
    def read_px(self) -> int:
        """Side of the window to read: the ground of all pixels, and both neighbours of the outermost centres."""
        each = self.scale * (abs(np.cos(self.angle)) + abs(np.sin(self.angle)))
        return int(max(np.ceil(each * (self.size_px - 1) - 1e-9) + 1, np.ceil(each * self.size_px - 1e-9)))

    def place(self, row: float, col: float) -> tuple[int, int]:
        """The pixel of the window read that lies under a pixel of the window that comes out."""
        rows, cols = self._source(np.array(row), np.array(col))
        return int(np.rint(rows)), int(np.rint(cols))

    def _source(
        self, rows: npt.NDArray[Any], cols: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Positions (rows, columns, in pixels) in the window read."""
        middle, cos, sin = (self.size_px - 1) / 2, np.cos(self.angle), np.sin(self.angle)
        down, right = self.scale * (rows - middle), self.scale * (cols - middle)
        centre = (self.read_px - 1) / 2
        return centre + cos * down + sin * right, centre - sin * down + cos * right

    def __call__(self, sample: Sample) -> Sample:
        """A sample of `read_px` -> one of `size_px`: images bilinear (float32, 0 where not valid), others nearest.

        A pixel is valid where all that it is made of is; beyond the sample it is not, and its label is IGNORE. A warp
        that changes nothing gives the sample as it is.
        """
        if self.read_px == self.size_px and not self.angle and self.scale == 1:
            return sample
        rows, cols = self._source(*np.mgrid[: self.size_px, : self.size_px])
        whole = bool(sample.valid.all())
        valid = np.broadcast_to(
            _within(rows, self.read_px, 1e-6) & _within(cols, self.read_px, 1e-6), (len(sample.valid), *rows.shape)
        )
        if not whole:
            valid = valid & (_bilinear((~sample.valid).astype(np.float32)[None], rows, cols)[0] < _TOUCH)
        image = {}
        for key, values in sample.image.items():
            clean = values if whole else np.where(mask_for(sample.valid, len(values))[:, None], values, 0)
            warped = _bilinear(clean.astype(np.float32), rows, cols)
            warped *= mask_for(valid, len(values))[:, None]
            image[key] = warped
        last = self.read_px - 1
        near = np.clip(np.rint(rows).astype(int), 0, last), np.clip(np.rint(cols).astype(int), 0, last)
        inside = _within(rows, self.read_px, 0.5) & _within(cols, self.read_px, 0.5)
        label = target = None
        if sample.label is not None:
            label = np.where(inside, sample.label[near], IGNORE).astype(np.uint8)
        if sample.target is not None:
            target = np.where(inside, sample.target[:, *near], np.float32(np.nan))
        return replace(sample, image=image, valid=valid.copy(), label=label, target=target)


def _within(at: npt.NDArray[np.float64], length: int, margin: float) -> npt.NDArray[np.bool_]:
    return np.asarray((at >= -margin) & (at <= length - 1 + margin))


def _bilinear(
    values: npt.NDArray[np.float32], rows: npt.NDArray[np.float64], cols: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """(T, C, H, W) at positions (h, w) -> (T, C, h, w)."""
    height, width = values.shape[-2:]
    # The library counts from -1 at the first pixel's centre to 1 at the last one's.
    grid = np.stack([2 * cols / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], -1).astype(np.float32)
    stacked = torch.from_numpy(values).flatten(0, 1)[None]
    found = torch.nn.functional.grid_sample(
        stacked, torch.from_numpy(grid)[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[0].numpy().reshape(*values.shape[:2], *rows.shape)


def vary(
    image: Images, valid: npt.NDArray[np.bool_], config: AugmentConfig, rng: np.random.Generator, spec: InputSpec
) -> Images:
    """Chance on normalised images (T, C, H, W): speckle, gain, offset, noise, bands exchanged or dropped.

    Pixels that are not valid stay 0.
    """
    entries = {entry.sensor: entry for entry in spec.sensors}
    noisy = config.brightness or config.noise
    out = {}
    for key, values in image.items():
        looked = backscatter(entries[key]) if config.speckle else ()
        if config.speckle and looked:
            values = _speckled(values, entries[key], looked, config.speckle, rng)
        if config.brightness:
            values = _brightened(values, config.brightness, rng)
        if config.noise:
            values = values + config.noise * rng.standard_normal(values.shape, dtype=np.float32)
        if noisy or looked:
            values = np.where(mask_for(valid, len(values))[:, None], values, np.float32(0))
        if config.permute_bands and rng.random() < config.permute_bands:
            values = values[:, rng.permutation(values.shape[1])]
        if config.drop_bands:
            values = _without_bands(values, config.drop_bands, rng)
        out[key] = values
    return out


def backscatter(entry: SensorInput) -> tuple[int, ...]:
    """Positions of a sensor's bands that hold backscatter in dB."""
    return backscatter_bands(entry.sensor, entry.bands)


def _speckled(
    values: npt.NDArray[np.float32], entry: SensorInput, bands: tuple[int, ...], looks: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Power times a gamma variate of mean 1 and variance 1 / looks: in dB, 10 log10 of it is added.

    Fully developed speckle of an intensity of that many looks (Goodman 1976).
    """
    at = list(bands)
    power = rng.gamma(looks, 1 / looks, (len(values), len(at), *values.shape[2:]))
    std = np.asarray(entry.std, np.float32)[at, None, None]
    out = values.copy()
    out[:, at] += (10 * np.log10(np.maximum(power, 1e-6))).astype(np.float32) / std
    return out


def _brightened(values: npt.NDArray[np.float32], spread: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A random gain of the window, an offset for each band and date."""
    gain = 1 + spread * rng.standard_normal((1, 1, 1, 1))
    offset = spread * rng.standard_normal((*values.shape[:2], 1, 1))
    brightened: npt.NDArray[np.float32] = values * gain.astype(np.float32) + offset.astype(np.float32)
    return brightened


def _without_bands(values: npt.NDArray[np.float32], share: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Each band of all dates becomes 0, its mean, with this probability; one at least stays."""
    lost = np.asarray(rng.random(values.shape[1]) < share)
    if lost.all():
        lost[rng.integers(len(lost))] = False
    return np.where(lost[None, :, None, None], np.float32(0), values)


def variations(config: AugmentConfig) -> list[str]:
    """What besides the symmetries of the square makes a window new each time it is seen."""
    return [f"train.augment.{key}" for key, value in config if key != "flips" and value]


def require_effect(config: AugmentConfig, spec: InputSpec) -> None:
    """Refuse what would do nothing, or something else, to such images; raises ConfigError."""
    if config.speckle:
        radar = [entry for entry in spec.sensors if backscatter(entry)]
        if not radar:
            raise ConfigError(
                "train.augment.speckle has no effect: no image is named as radar backscatter in dB",
                fix="name its sensor (sensor: sentinel1, bands vv and vh), or leave speckle out",
            )
        for entry in radar:
            # Land reflects less than it gets: a mean above 0 dB is power or amplitude.
            if any(entry.mean[i] > 0 for i in backscatter(entry)):
                raise ConfigError(
                    f"train.augment.speckle: {entry.sensor} has a mean of {entry.mean[0]:.3g}, which is no backscatter "
                    "in dB",
                    fix="bring it to dB (10 log10 of the power), or leave speckle out",
                )
    for key in ("drop_bands", "permute_bands"):
        if getattr(config, key) and all(len(entry.bands) == 1 for entry in spec.sensors):
            raise ConfigError(f"train.augment.{key} has no effect on images of one band", fix="leave it out")
