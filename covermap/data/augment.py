"""What is done to a training window, image, mask and label together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from covermap.core.config import AugmentConfig
from covermap.core.types import Sample, mask_for


def flip(sample: Sample, symmetry: int) -> Sample:
    """One of the eight symmetries of the square (0: none), applied to image, valid and label alike."""
    quarter_turns, mirrored = symmetry % 4, symmetry >= 4

    def turn(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        values = np.rot90(values, quarter_turns, axes=(-2, -1))
        return values[..., ::-1] if mirrored else values

    return replace(
        sample,
        image={key: np.ascontiguousarray(turn(values)) for key, values in sample.image.items()},
        valid=np.ascontiguousarray(turn(sample.valid)).astype(bool),
        label=None if sample.label is None else np.ascontiguousarray(turn(sample.label)).astype(np.uint8),
    )


def vary(
    image: dict[str, npt.NDArray[np.float32]],
    valid: npt.NDArray[np.bool_],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> dict[str, npt.NDArray[np.float32]]:
    """Random gain per window, offset per band and noise per pixel on normalised images; nodata stays 0."""
    if not config.brightness and not config.noise:
        return image
    out = {}
    for key, values in image.items():
        dates, bands = values.shape[:2]
        if config.brightness:
            gain = 1 + config.brightness * rng.standard_normal((1, 1, 1, 1))
            offset = config.brightness * rng.standard_normal((dates, bands, 1, 1))
            values = values * gain.astype(np.float32) + offset.astype(np.float32)
        if config.noise:
            values = values + config.noise * rng.standard_normal(values.shape, dtype=np.float32)
        out[key] = np.where(mask_for(valid, dates)[:, None], values, np.float32(0))
    return out
