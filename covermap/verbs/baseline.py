"""The random forest that stands beside every network, trained on the same part of the same split.

Of pixels it sees their bands, of chips the mean and deviation of each band.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.core.legend import IGNORE
from covermap.core.run import Run
from covermap.core.train_config import ForestConfig
from covermap.core.types import InputSpec, Sample
from covermap.data.chips import image_batch
from covermap.data.reference import chip_answer
from covermap.data.scene import Scene
from covermap.data.split import Split
from covermap.data.stats import normalise_sample
from covermap.geo.grid import Window, partition
from covermap.ml.forest import fit_forest, fit_numbers
from covermap.models import ForestModel, chip_features, pixel_features, save_model
from covermap.start import Prepared

Pixels = npt.NDArray[np.float32]


def train_baseline(
    run: Run, config: ForestConfig, ready: Prepared, *, seed: int = 0, facts: Mapping[str, Any] | None = None
) -> ForestModel:
    """Fit the forest on `config.samples` random pixels or chips of the train part, as the run's baseline/ folder."""
    task, spec = ready.task, ready.spec.required()  # a forest takes all bands
    if task.kind.takes == "transitions":
        raise DataError(
            "a forest has no answer of what became what",
            fix="see covermap change-study, which compares forests' maps too",
        )
    if task.kind.chips:
        features, values = sample_chips(ready, config.samples, seed=seed)
    else:
        target = task.kind.takes == "numbers"
        features, values = sample_pixels(
            ready.scenes, ready.split, ready.spec, config.samples, seed=seed, target=target
        )
        features = pixel_features(features, spec, task)
    if task.kind.takes in ("classes", "order"):
        forest = fit_forest(
            features, values, num_classes=len(task.legend), trees=config.trees, balanced=config.balanced, seed=seed
        )
    else:
        known = np.isfinite(values).all(1)
        if known.sum() < 10:
            raise DataError(
                f"{known.sum()} samples have all of {', '.join(task.legend.names)}", fix="learn them singly"
            )
        forest = fit_numbers(features[known], values[known], trees=config.trees, seed=seed)
    what = "chips" if task.kind.chips else "pixels"
    found = {"run": run.config.name, "trees": config.trees, what: len(features), **(facts or {})}
    model = ForestModel(spec, task, forest, found)
    save_model(model, run.path("baseline"))
    return model


def sample_chips(ready: Prepared, count: int, *, seed: int = 0) -> tuple[Pixels, npt.NDArray[Any]]:
    """Features (N, 2 C) and class indices (N,), or numbers (N, K), of `count` random chips of the train part."""
    cells = ready.survey.cells
    chosen = np.sort(np.random.default_rng(seed).choice(len(cells), min(count, len(cells)), replace=False))
    side, features, values = ready.spec.size_px, [], []
    for i in chosen.tolist():
        scene, window = ready.scenes[cells[i].scene], cells[i].window
        batch = image_batch([scene.read(Window(window.row, window.col, side, side))], ready.spec)
        valid = batch.valid.any(1).numpy()
        if valid.any():
            features.append(
                chip_features(np.concatenate([x.flatten(1, 2).numpy() for x in batch.image.values()], 1), valid)
            )
            values.append(chip_answer(scene, window, ready.task).ravel())
    found = np.stack(values)
    return np.concatenate(features), found[:, 0] if found.dtype == np.uint8 else found


def sample_pixels(
    scenes: Sequence[Scene], split: Split, spec: InputSpec, count: int, *, part: str = "train", seed: int = 0,
    target: bool = False,
) -> tuple[Pixels, npt.NDArray[Any]]:  # fmt: skip
    """Normalised bands (N, F) and class indices (N,) of `count` random labelled valid pixels, or of all.

    target: numbers (N, K) instead, of coarser pixels those that each pixel lies in.
    """
    total = sum(int((label != IGNORE).sum()) for _, _, _, label in _labelled(scenes, split, part))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(total, min(count, total), replace=False))
    pixels, values, seen = [], [], 0
    for scene, block, sample, label in _labelled(scenes, split, part):
        flat = np.flatnonzero(label.ravel() != IGNORE)
        first, last = np.searchsorted(chosen, (seen, seen + len(flat)))
        mine = flat[chosen[first:last] - seen]
        seen += len(flat)
        if len(mine):
            image = normalise_sample(sample, spec)
            stacked = np.concatenate([image[e.sensor].reshape(-1, label.size) for e in spec.sensors])
            pixels.append(stacked[:, mine].T)
            values.append(_numbers_at(scene, split, block, part, mine) if target else label.ravel()[mine])
    return np.concatenate(pixels), np.concatenate(values)


def _numbers_at(scene: Scene, split: Split, block: Window, part: str, flat: npt.NDArray[Any]) -> Pixels:
    """(N, K): the target at pixels of a block, given by their number in it."""
    numbers = split.target(scene, block, part)
    rows, cols = np.divmod(flat, block.width)
    down, right = (n / whole for n, whole in zip(numbers.shape[1:], block[2:], strict=True))
    return numbers[:, (rows * down).astype(int), (cols * right).astype(int)].T


def _labelled(
    scenes: Sequence[Scene], split: Split, part: str
) -> Iterator[tuple[Scene, Window, Sample, npt.NDArray[np.uint8]]]:
    """Blocks with their pixels and the labels of a part, IGNORE also where the image is not valid."""
    for scene in scenes:
        for block in partition(scene.grid.window, 1024, 1024):
            label = split.labels(scene, block, part)
            if (label != IGNORE).any():
                sample = scene.read(block)
                yield scene, block, sample, np.where(sample.valid.any(0), label, np.uint8(IGNORE))
