"""Labels that a model which never saw their neighbourhood is sure to be wrong (Northcutt et al. 2021).

A random forest is cross-fitted over blocks of ground. A label's margin is the probability of its class less that of the
strongest other one: from 1, agreed, to -1, surely another. It is a suspect where another class is likelier, and gets at
least the mean probability of that class's own labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.engine import cores, map_unordered
from covermap.core.errors import LabelError
from covermap.core.legend import IGNORE
from covermap.core.progress import Tick, unseen
from covermap.core.types import InputSpec
from covermap.data.blocks import default_side_px, ground_of, together
from covermap.data.pixels import pixel_features, sample_pixels
from covermap.data.scene import Scene
from covermap.geo.grid import Window, partition
from covermap.ml.forest import Forest, fit_forest

FOLDS, TREES, MAX_PX, MAX_WINDOWS = 5, 40, 12_000, 600
TILE_PX, MAX_TILES = 64, 1024
"""Side of the windows that are ranked, and how many are looked at: of more a sample."""


class Judged(NamedTuple):
    """A window (H, W): labels that can be judged, the likeliest class, what a suspect looks like, and the margin.

    label is IGNORE and margin NaN where there is no label or no image, or the fold's forest does not know the class.
    """

    label: npt.NDArray[np.uint8]
    guess: npt.NDArray[np.uint8]
    looks: npt.NDArray[np.uint8]
    margin: npt.NDArray[np.float32]


class Tile(NamedTuple):
    """A window with its labelled pixels, their mean margin, and how many of them are suspects."""

    scene: Scene
    window: Window
    labelled: int
    margin: float
    suspects: int


class Blocks:
    """Blocks of ground, alike in number, in FOLDS folds; raises LabelError for a single block."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.side_px = max(TILE_PX, default_side_px(scenes) // TILE_PX * TILE_PX)
        groups = enumerate(together(scenes))
        self._grounds = {s.name: (i, len(set(map(ground_of, group))) > 1) for i, group in groups for s in group}
        cut = dict.fromkeys(self._block(s, w) for s in scenes for w in partition(s.grid.window, *2 * [self.side_px]))
        if len(cut) < 2:
            raise LabelError("the labels lie in one block of ground: noise cannot be told", fix="give larger scenes")
        self.num_folds = min(FOLDS, len(cut))
        order = np.random.default_rng(0).permutation(len(cut)) % self.num_folds
        self.folds: dict[tuple[int, ...], int] = dict(zip(cut, order.tolist(), strict=True))

    def _block(self, scene: Scene, window: Window) -> tuple[int, ...]:
        number, whole = self._grounds[scene.name]
        return (number,) if whole else (number, window.row // self.side_px, window.col // self.side_px)

    def fold(self, scene: Scene, window: Window) -> int:
        """The fold of the block that holds a window."""
        return self.folds[self._block(scene, window)]


@dataclass
class Noise:
    """Forests by fold, the classes that each has seen (folds, K), the mean probability of each class's labels (K,).

    tiles: worst first. pairs (K, K): labels by their class and by what they look like. share: of all tiles, judged.
    """

    spec: InputSpec
    blocks: Blocks
    forests: list[Forest]
    seen: npt.NDArray[np.bool_]
    usual: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.int64]
    tiles: list[Tile] = field(default_factory=list)
    share: float = 1.0

    def judge(self, scene: Scene, window: Window) -> Judged:
        """What the forest that did not see the window's block says of it; the window lies in one block."""
        fold = self.blocks.fold(scene, window)
        features, index = pixel_features(scene, window, self.spec)
        shares = self.forests[fold].probabilities(features.reshape(len(features), -1).T)
        known = np.append(self.seen[fold], np.zeros(256 - len(self.usual), bool))
        label = np.where(known[index], index, np.uint8(IGNORE)).ravel()
        at = np.flatnonzero(label != IGNORE)
        margin, looks = np.full(label.shape, np.nan, np.float32), label.copy()
        margin[at] = margins(shares[at], label[at])
        own = shares[at, label[at]][:, None]
        sure = np.where((shares[at] >= self.usual) & (shares[at] >= own), shares[at], 0)
        looks[at] = np.where(sure.any(1), sure.argmax(1), label[at])
        found = (label, shares.argmax(1).astype(np.uint8), looks, margin)
        return Judged._make(each.reshape(index.shape) for each in found)


def margins(shares: npt.NDArray[np.float32], label: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Class probabilities (N, K) and labels (N,) -> the label's probability less that of the strongest other class."""
    rows = np.arange(len(label))
    others = shares.copy()
    others[rows, label] = -1
    return np.asarray(shares[rows, label] - others.max(1), np.float32)


def _cross_fit(scenes: Sequence[Scene], spec: InputSpec) -> Noise:
    blocks = Blocks(scenes)
    pixels = sample_pixels(scenes, spec, max_px=MAX_PX, max_windows=MAX_WINDOWS)
    fold = np.array([blocks.fold(*place) for place in pixels.windows])[pixels.window]
    size = len(scenes[0].legend or ())
    forests, seen, shares = [], [], np.zeros((len(fold), size), np.float32)
    for k in range(blocks.num_folds):
        x, y = pixels.features[fold != k], pixels.classes[fold != k]
        if len(np.unique(y)) < 2:
            raise LabelError("too few blocks hold labels of two classes: noise cannot be told", fix="add labels")
        forests.append(fit_forest(x, y, num_classes=size, trees=TREES, balanced=False, seed=k))
        seen.append(np.bincount(y, minlength=size) > 0)
        shares[fold == k] = forests[k].probabilities(pixels.features[fold == k])
    own = [shares[pixels.classes == k, k] for k in range(size)]
    usual = np.array([each.mean() if len(each) else np.inf for each in own])
    return Noise(spec, blocks, forests, np.array(seen), usual, np.zeros((size, size), np.int64))


def find_noise(scenes: Sequence[Scene], spec: InputSpec, *, on_progress: Tick = unseen) -> Noise:
    """Rank the tiles of all scenes, or of a sample of them, by the mean margin of their labels.

    Raises LabelError where there is too little to learn from, MissingExtra without scikit-learn.
    """
    noise = _cross_fit(scenes, spec)
    places = [(s, w) for s in scenes for w in partition(s.grid.window, TILE_PX, TILE_PX)]
    order = np.random.default_rng(0).permutation(len(places))[:MAX_TILES]
    noise.share = len(order) / len(places)
    judged = map_unordered(lambda i: (places[i], noise.judge(*places[i])), order.tolist(), workers=cores())
    for done, (place, found) in enumerate(judged, 1):
        on_progress(done, len(order))
        at = found.label != IGNORE
        if at.any():
            label, looks = found.label[at], found.looks[at]
            np.add.at(noise.pairs, (label, looks), 1)
            noise.tiles.append(
                Tile(place[0], place[1], len(label), float(found.margin[at].mean()), int((label != looks).sum()))
            )
    # Few labels say little: their mean is drawn towards 0.
    noise.tiles.sort(key=lambda t: (t.margin * t.labelled / (t.labelled + TILE_PX), t.scene.name, t.window))
    return noise
