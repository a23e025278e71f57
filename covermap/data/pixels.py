"""Labelled pixels with what a quick model may know of them: the bands and their means around each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE
from covermap.core.types import InputSpec, SensorInput
from covermap.data.labels import ChipLabels
from covermap.data.scene import Scene
from covermap.data.stats import normalise_sample
from covermap.geo.grid import Window, partition

MAX_WINDOWS, WINDOW_PX = 250, 32
REACH_PX = (2, 7)
"""The means of so many rows and columns to each side of a pixel are features, because a network sees them, too."""


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels: features (N, F), classes (N,), and for each the window it lies in and its row and column there.

    unit: what a draw by lot moves as a whole: the pixel, or the chip where a chip has one class.
    """

    windows: list[tuple[Scene, Window]]
    features: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8]
    window: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    col: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]


def sample_pixels(scenes: Sequence[Scene], spec: InputSpec, *, max_px: int, max_windows: int = MAX_WINDOWS) -> Pixels:
    """Pixels of windows drawn over all scenes, so many from each that they lie as near to each other as labels do.

    Raises LabelError for fewer than 40.
    """
    rng = np.random.default_rng(0)
    places = [(i, w) for i, scene in enumerate(scenes) for w in partition(scene.grid.window, WINDOW_PX, WINDOW_PX)]
    labelled: list[tuple[int, Window]] = []
    for number in rng.permutation(len(places)).tolist():
        i, window = places[number]
        if (scenes[i].read_labels(window) != IGNORE).any():
            labelled.append((i, window))
        if len(labelled) == max_windows:
            break
    each = -(-max_px // max(1, len(labelled)))
    rows = []
    for number, (i, window) in enumerate(labelled):
        features, index = pixel_features(scenes[i], window, spec)
        row, col = np.nonzero(index != IGNORE)
        chosen = rng.permutation(len(row))[:each]
        row, col = row[chosen], col[chosen]
        rows.append((features[:, row, col].T, index[row, col], np.full(len(row), number), row, col))
    if sum(len(found[1]) for found in rows) < 40:
        raise LabelError("there are fewer than 40 labelled pixels to learn from", fix="add labels")
    x, y, window_of, row, col = (np.concatenate(part) for part in zip(*rows, strict=True))
    scene_of = np.array([i for i, _ in labelled])[window_of]
    whole = np.array([isinstance(scene.labels, ChipLabels) for scene in scenes])[scene_of]
    unit = np.where(whole, scene_of, len(scenes) + np.arange(len(y)))
    return Pixels([(scenes[i], window) for i, window in labelled], x, y, window_of, row, col, unit)


def plain_spec(scene: Scene) -> InputSpec:
    """An input of the numbers as they are, which is all that trees need."""
    sensors = [
        SensorInput(key, bands, (0.0,) * len(bands), (1.0,) * len(bands), clip=np.inf,
                    num_dates=len(scene.rasters[key].sources))
        for key, bands in scene.bands.items()
    ]  # fmt: skip
    return InputSpec(tuple(sensors), scene.grid.gsd_m)


def pixel_features(
    scene: Scene, window: Window, spec: InputSpec
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Bands of all sensors and dates with their means around each pixel (F, H, W), and labels where there is image."""
    reach = max(REACH_PX)
    sample = scene.read(window.pad(reach))
    bands = np.concatenate(
        [values.reshape(-1, *values.shape[2:]) for values in normalise_sample(sample, spec).values()]
    )
    inside = (slice(reach, reach + window.height), slice(reach, reach + window.width))
    layers = [bands, *(_mean_around(bands, px) for px in REACH_PX)]
    seen = np.asarray(sample.valid.any(0))[inside]
    label = np.where(seen, scene.read_labels(window), np.uint8(IGNORE))
    return np.concatenate([layer[:, inside[0], inside[1]] for layer in layers]), label


def _mean_around(bands: npt.NDArray[np.float32], px: int) -> npt.NDArray[np.float32]:
    """(C, H, W): the mean of the square that reaches px to each side; margins of the array repeat its edge."""
    side = 2 * px + 1
    padded = np.pad(bands, ((0, 0), (px, px), (px, px)), mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(padded, side, axis=1).mean(-1, dtype=np.float32)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(squares, side, axis=2).mean(-1, dtype=np.float32))
