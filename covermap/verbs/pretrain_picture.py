"""A picture of what a masked autoencoder makes of hidden patches: as they were, what it sees, what it fills in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from covermap.core.output import replacing
from covermap.core.types import InputSpec, Sample
from covermap.data.chips import image_batch
from covermap.nn.ssl.mae import MaskedAutoencoder
from covermap.nn.ssl.method import Method

NUM_WINDOWS = 6
_HIDDEN = 0.85
"""Grey of hidden patches."""
_RGB = ("red", "green", "blue")


def draw_reconstruction(
    method: Method, samples: Sequence[Sample], spec: InputSpec, path: Path, *, device: torch.device
) -> None:  # fmt: skip
    """Write rows of windows, three pictures for each sensor; does nothing for other methods."""
    if not isinstance(method, MaskedAutoencoder):
        return
    batch = image_batch(samples[:NUM_WINDOWS], spec).to(device)
    was = method.training
    method.eval()
    found = method.reconstruct(batch, range(len(batch)))
    method.train(was)
    columns: dict[str, list[npt.NDArray[np.float64]]] = {}
    for entry in spec.sensors:
        if entry.sensor not in batch.image:
            continue
        bands = _shown(entry.bands)
        before, after = (x[entry.sensor][:, 0, bands].cpu().double().numpy() for x in (batch.image, found.image))
        hidden = found.hidden[entry.sensor][:, 0, bands].cpu().numpy()
        low, high = np.percentile(before, (2, 98), axis=(1, 2, 3), keepdims=True)  # dark windows show as much
        before, after = (_stretched(x, low, high) for x in (before, after))
        columns[entry.sensor] = [before, np.where(hidden, _HIDDEN, before), after]
    _write(columns, path)


def _shown(bands: Sequence[str]) -> list[int]:
    """Positions of red, green and blue where there are all, else of the first band, as grey."""
    return [bands.index(name) for name in _RGB] if set(_RGB) <= set(bands) else [0] * 3


def _stretched(
    x: npt.NDArray[np.float64], low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:  # fmt: skip
    return np.clip((x - low) / np.maximum(high - low, 1e-9), 0, 1)


def _write(columns: dict[str, list[npt.NDArray[np.float64]]], path: Path) -> None:
    from matplotlib.figure import Figure

    rows, count = len(next(iter(columns.values()))[0]), 3 * len(columns)
    figure = Figure(figsize=(1.4 * count, 1.4 * rows + 0.4), layout="constrained")
    axes: Any = figure.subplots(rows, count, squeeze=False)
    titles = [f"{name}\n{what}" for name in columns for what in ("as it is", "what is seen", "filled in")]
    images = [image for each in columns.values() for image in each]
    for row in range(rows):
        for axis, image, title in zip(axes[row], images, titles, strict=True):
            axis.imshow(image[row].transpose(1, 2, 0), interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
