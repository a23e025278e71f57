"""The random forest on pixels that stands beside every network, trained on the same part of the same split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE
from covermap.core.run import Run
from covermap.core.train_config import ForestConfig
from covermap.core.types import InputSpec, Sample
from covermap.data.scene import Scene
from covermap.data.split import Split
from covermap.data.stats import normalise_sample
from covermap.geo.grid import partition
from covermap.ml.forest import fit_forest
from covermap.models import ForestModel, save_model


def train_baseline(
    run: Run, config: ForestConfig, scenes: Sequence[Scene], split: Split, spec: InputSpec, *, seed: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> ForestModel:  # fmt: skip
    """Fit the forest on `config.samples` random pixels of the train part and save it as the run's baseline/ folder."""
    legend = scenes[0].legend
    assert legend is not None
    pixels, classes = sample_pixels(scenes, split, spec, config.samples, seed=seed)
    spec = spec.required()  # a forest takes all bands
    forest = fit_forest(
        pixels, classes, num_classes=len(legend), trees=config.trees, balanced=config.balanced, seed=seed
    )
    known = {"run": run.config.name, "trees": config.trees, "pixels": len(pixels), **(facts or {})}
    model = ForestModel(spec, legend, forest, known)
    save_model(model, run.path("baseline"))
    return model


def sample_pixels(
    scenes: Sequence[Scene], split: Split, spec: InputSpec, count: int, *, part: str = "train", seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Normalised bands (N, F) and class indices (N,) of `count` random labelled valid pixels, or of all."""
    total = sum(int((label != IGNORE).sum()) for _, label in _labelled(scenes, split, part))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(total, min(count, total), replace=False))
    pixels, classes, seen = [], [], 0
    for sample, label in _labelled(scenes, split, part):
        flat = np.flatnonzero(label.ravel() != IGNORE)
        first, last = np.searchsorted(chosen, (seen, seen + len(flat)))
        mine = flat[chosen[first:last] - seen]
        seen += len(flat)
        if len(mine):
            image = normalise_sample(sample, spec)
            stacked = np.concatenate([image[e.sensor].reshape(-1, label.size) for e in spec.sensors])
            pixels.append(stacked[:, mine].T)
            classes.append(label.ravel()[mine])
    return np.concatenate(pixels), np.concatenate(classes)


def _labelled(scenes: Sequence[Scene], split: Split, part: str) -> Iterator[tuple[Sample, npt.NDArray[np.uint8]]]:
    """Blocks with their pixels and the labels of a part, IGNORE also where the image is not valid."""
    for scene in scenes:
        for block in partition(scene.grid.window, 1024, 1024):
            label = split.labels(scene, block, part)
            if (label != IGNORE).any():
                sample = scene.read(block)
                yield sample, np.where(sample.valid.any(0), label, np.uint8(IGNORE))
