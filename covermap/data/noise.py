"""Labels that a model which never saw their neighbourhood is sure to be wrong (Northcutt et al. 2021).

A random forest is cross-fitted over blocks of ground. A label's margin is the probability of its class less that of the
strongest other one: from 1, agreed, to -1, surely another. It is a suspect where another class gets at least the mean
probability of that class's own labels, and is the likeliest that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Folds:
    """Blocks of ground by fold, side in px; scenes by the number of their ground, and whether it is one block."""

    side_px: int
    grounds: dict[str, tuple[int, bool]]
    of_block: dict[tuple[int, ...], int]

    @staticmethod
    def draw(scenes: Sequence[Scene]) -> Folds:
        """Blocks, alike in number, in FOLDS folds; raises LabelError for a single block."""
        side = max(TILE_PX, default_side_px(scenes) // TILE_PX * TILE_PX)
        groups = enumerate(together(scenes))
        grounds = {s.name: (i, len(set(map(ground_of, group))) > 1) for i, group in groups for s in group}
        folds = Folds(side, grounds, {})
        blocks = {folds.block(s, w): 0 for s in scenes for w in partition(s.grid.window, side, side)}
        if len(blocks) < 2:
            raise LabelError("the labels lie in one block of ground: noise cannot be told", fix="give larger scenes")
        rank = np.random.default_rng(0).permutation(len(blocks)) % min(FOLDS, len(blocks))
        folds.of_block.update(zip(blocks, rank.tolist(), strict=True))
        return folds

    def block(self, scene: Scene, window: Window) -> tuple[int, ...]:
        """The block that holds a window."""
        number, whole = self.grounds[scene.name]
        return (number,) if whole else (number, window.row // self.side_px, window.col // self.side_px)


@dataclass(frozen=True)
class Expert:
    """Forests by fold, the classes that each has seen (folds, K), the mean probability of each class's labels (K,)."""

    spec: InputSpec
    folds: Folds
    forests: list[Forest]
    seen: npt.NDArray[np.bool_]
    usual: npt.NDArray[np.float64]

    def judge(self, scene: Scene, window: Window) -> Judged:
        """What the forest that did not see the window's block says of it; the window lies in one block."""
        fold = self.folds.of_block[self.folds.block(scene, window)]
        features, index = pixel_features(scene, window, self.spec)
        shares = self.forests[fold].probabilities(features.reshape(len(features), -1).T)
        known = np.zeros(256, bool)
        known[: self.seen.shape[1]] = self.seen[fold]
        label = np.where(known[index], index, np.uint8(IGNORE)).ravel()
        at = np.flatnonzero(label != IGNORE)
        margin, looks = np.full(label.shape, np.nan, np.float32), label.copy()
        margin[at] = margins(shares[at], label[at])
        sure = np.where(shares[at] >= self.usual, shares[at], 0)
        looks[at] = np.where(sure.any(1), sure.argmax(1), label[at])
        guess = shares.argmax(1).astype(np.uint8)
        return Judged(*(each.reshape(index.shape) for each in (label, guess, looks, margin)))


class Tile(NamedTuple):
    """A window with its labelled pixels, their mean margin, and how many of them are suspects."""

    scene: Scene
    window: Window
    labelled: int
    margin: float
    suspects: int


@dataclass(frozen=True)
class Noise:
    """tiles: worst first. pairs (K, K): labels by their class and by what they look like. share: of all tiles, seen."""

    expert: Expert
    tiles: list[Tile]
    pairs: npt.NDArray[np.int64]
    share: float


def margins(shares: npt.NDArray[np.float32], label: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Class probabilities (N, K) and labels (N,) -> the label's probability less that of the strongest other class."""
    rows = np.arange(len(label))
    others = shares.copy()
    others[rows, label] = -1
    return np.asarray(shares[rows, label] - others.max(1), np.float32)


def fit_expert(scenes: Sequence[Scene], spec: InputSpec) -> Expert:
    """Cross-fit the forests; raises LabelError where there is too little to learn from, MissingExtra."""
    folds = Folds.draw(scenes)
    pixels = sample_pixels(scenes, spec, max_px=MAX_PX, max_windows=MAX_WINDOWS)
    fold = np.array([folds.of_block[folds.block(*place)] for place in pixels.windows])[pixels.window]
    num_classes = len(scenes[0].legend or ())
    forests, seen, shares = [], [], np.zeros((len(fold), num_classes), np.float32)
    for k in range(max(folds.of_block.values()) + 1):
        train = fold != k
        if len(np.unique(pixels.classes[train])) < 2:
            raise LabelError("too few blocks hold labels of two classes: noise cannot be told", fix="add labels")
        x, y = pixels.features[train], pixels.classes[train]
        forests.append(fit_forest(x, y, num_classes=num_classes, trees=TREES, balanced=False, seed=k))
        seen.append(np.bincount(y, minlength=num_classes) > 0)
        shares[~train] = forests[k].probabilities(pixels.features[~train])
    own = [shares[pixels.classes == k, k] for k in range(num_classes)]
    usual = np.array([each.mean() if len(each) else np.inf for each in own])
    return Expert(spec, folds, forests, np.array(seen), usual)


def find_noise(scenes: Sequence[Scene], spec: InputSpec, *, on_progress: Tick = unseen) -> Noise:
    """Rank the tiles of all scenes, or of a sample of them, by the mean margin of their labels."""
    expert = fit_expert(scenes, spec)
    places = [(s, w) for s in scenes for w in partition(s.grid.window, TILE_PX, TILE_PX)]
    order = np.random.default_rng(0).permutation(len(places))[:MAX_TILES]
    num_classes = expert.seen.shape[1]
    pairs, tiles = np.zeros((num_classes, num_classes), np.int64), []

    def judge(number: int) -> tuple[Tile, npt.NDArray[np.int64]]:
        found = expert.judge(*places[number])
        at = found.label != IGNORE
        pair = found.label[at].astype(int) * num_classes + found.looks[at]
        suspects = int((found.label[at] != found.looks[at]).sum())
        margin = float(found.margin[at].mean()) if at.any() else 1.0
        table = np.bincount(pair, minlength=num_classes**2).reshape(pairs.shape)
        return Tile(*places[number], int(at.sum()), margin, suspects), table

    for done, (tile, table) in enumerate(map_unordered(judge, order.tolist(), workers=cores()), 1):
        on_progress(done, len(order))
        pairs += table
        tiles += [tile] if tile.labelled else []
    tiles.sort(key=lambda tile: (tile.margin, tile.scene.name, tile.window))
    return Noise(expert, tiles, pairs, len(order) / len(places))
