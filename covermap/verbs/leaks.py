"""The leak meter: how much better a model looks when the neighbours of its training pixels are the test.

The same labelled pixels are divided twice, with the same number in train and test: by lot, and by blocks with the
config's buffer. A random forest that sees the bands and their means around a pixel is fitted on both. What it gains by
lot is knowledge of the neighbourhood, which new ground does not give (Roberts et al. 2017, Ploton et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import SplitConfig
from covermap.core.errors import LabelError
from covermap.core.progress import Tick, unseen
from covermap.core.types import InputSpec
from covermap.data.make_split import LEAKY, make_split
from covermap.data.pixels import Pixels, sample_pixels
from covermap.data.scene import Scene
from covermap.data.split import PARTS
from covermap.metrics.confusion import Confusion
from covermap.metrics.intervals import student_quantile
from covermap.ml.forest import fit_forest

REPEATS, TEST_SHARE, TREES = 8, 0.25, 40
MAX_PX = 8000
TRAIN, TEST = PARTS.index("train"), PARTS.index("test")


def measure_leaks(
    config: SplitConfig, scenes: Sequence[Scene], spec: InputSpec, *, size_px: int, on_progress: Tick = unseen
) -> dict[str, Any]:
    """Overall accuracy and mean IoU by a random and a blocked split, the gap in accuracy with a 95 % interval.

    The interval is Student's t over the repeats; their variance is corrected for the pixels that they share (Nadeau and
    Bengio 2003). Raises LabelError where blocks leave too little to compare, MissingExtra without scikit-learn.
    """
    pixels = sample_pixels(scenes, spec, max_px=MAX_PX)
    legend = scenes[0].legend
    assert legend is not None
    random, blocked, ratios = [], [], []
    for seed in range(REPEATS):
        on_progress(seed, REPEATS)
        parts = _by_blocks(config, scenes, pixels, size_px, seed)
        train, test = parts == TRAIN, parts == TEST
        if min(train.sum(), test.sum()) < 10 or len(np.unique(pixels.classes[train])) < 2:
            continue
        blocked.append(_score(pixels, parts, len(legend), seed))
        random.append(_score(pixels, _by_lot(pixels, parts, seed), len(legend), seed))
        ratios.append(test.sum() / train.sum())
    on_progress(REPEATS, REPEATS)
    if len(blocked) < 3:
        raise LabelError(
            f"the labels could be divided by blocks only {len(blocked)} times of {REPEATS}, too few to measure leaks",
            fix="use smaller blocks (split.block_px), a smaller split.buffer_px, or more labels",
        )
    return _summary(np.array(random), np.array(blocked), float(np.mean(ratios)))


def _by_blocks(
    config: SplitConfig, scenes: Sequence[Scene], pixels: Pixels, size_px: int, seed: int
) -> npt.NDArray[np.uint8]:
    """The part (N,) of each pixel by blocks with the config's buffer; all 0 where this draw leaves a part empty."""
    sizes = {} if config.method in LEAKY else {"block_px": config.block_px, "buffer_px": config.buffer_px}
    blocks = SplitConfig(val=0.0, test=TEST_SHARE, exclude=config.exclude, seed=seed, **sizes)
    parts = np.zeros(len(pixels.classes), np.uint8)
    try:
        split = make_split(scenes, blocks, size_px=size_px)
    except LabelError:
        return parts
    for number, (scene, window) in enumerate(pixels.windows):
        mine = pixels.window == number
        _, mask = split.labels_and_parts(scene, window)
        parts[mine] = mask[pixels.row[mine], pixels.col[mine]]
    return parts


def _by_lot(pixels: Pixels, parts: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """The same pixels, as many of them (or of whole chips, nearly) in test, drawn without regard to where they lie."""
    used = np.flatnonzero(parts)
    units, place = np.unique(pixels.unit[used], return_inverse=True)
    rank = np.random.default_rng([seed, 1]).permutation(len(units))
    order = np.argsort(rank[place], kind="stable")
    drawn = np.zeros_like(parts)
    drawn[used] = TRAIN
    last = rank[place][order[int((parts == TEST).sum()) - 1]]
    drawn[used[rank[place] <= last]] = TEST
    return drawn


def _score(pixels: Pixels, parts: npt.NDArray[np.uint8], num_classes: int, seed: int) -> tuple[float, float]:
    """Overall accuracy and mean IoU on the test pixels of a forest fitted on the train pixels."""
    train, test = parts == TRAIN, parts == TEST
    forest = fit_forest(
        pixels.features[train], pixels.classes[train], num_classes=num_classes, trees=TREES, balanced=False, seed=seed
    )
    found = Confusion(num_classes)
    found.add(pixels.classes[test], forest.probabilities(pixels.features[test]).argmax(1).astype(np.uint8))
    scores = found.scores()
    return float(scores["oa"]), float(scores["miou"])


def _summary(random: npt.NDArray[np.float64], blocked: npt.NDArray[np.float64], ratio: float) -> dict[str, Any]:
    """Means over the repeats, the gap with its interval, and what they mean in a sentence."""
    gaps = random[:, 0] - blocked[:, 0]
    gap, num = float(gaps.mean()), len(gaps)
    half = student_quantile(0.975, num - 1) * float(gaps.std(ddof=1)) * float(np.sqrt(1 / num + ratio))
    low, high = gap - half, gap + half
    seen, new = float(random[:, 0].mean()), float(blocked[:, 0].mean())
    between = f"95 % interval {100 * low:.1f} to {100 * high:.1f}"
    if low > 0:
        told = (
            f"leak: a quick forest is right on {seen:.0%} of the pixels when neighbours of its training pixels are the "
            f"test, but on {new:.0%} on ground of its own, so a random split looks {100 * gap:.1f} points too good "
            f"({between}): split by blocks"
        )
    else:
        told = (
            f"no leak is seen: a quick forest is right on {seen:.0%} of the pixels of a random split and on {new:.0%} "
            f"on ground of its own; the gap of {100 * gap:.1f} points ({between}) does not stand above 0"
        )
    return {
        "random_oa": seen, "blocked_oa": new, "gap_oa": gap, "gap_low": low, "gap_high": high, "leaks": low > 0,
        "random_miou": float(random[:, 1].mean()), "blocked_miou": float(blocked[:, 1].mean()), "repeats": num,
        "told": told,
    }  # fmt: skip
