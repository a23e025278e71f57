"""Random forest on single pixels, or on what chips have on average: the baseline beside every network.

Fitted by scikit-learn (extra `ml`), kept as plain arrays: a model folder then needs no pickle, no scikit-learn to
predict, and survives scikit-learn's next version.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import MissingExtra, ModelError

_NAMES = ("feature", "threshold", "left", "shares", "roots")


@dataclass(frozen=True)
class Forest:
    """Trees laid end to end: arrays over N nodes, the first node of each tree, class shares or numbers (N, K).

    A node sends a pixel to `left` where the pixel's feature is not above the threshold, otherwise to `left + 1`.
    A leaf sends every pixel to itself (threshold inf).
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    shares: npt.NDArray[np.float32]
    roots: npt.NDArray[np.int32]

    def probabilities(self, pixels: npt.NDArray[np.float32], *, chunk: int = 16384) -> npt.NDArray[np.float32]:
        """pixels (N, F) -> class probabilities, or numbers (N, K): the mean of the leaves' over all trees."""
        out = np.empty((len(pixels), self.shares.shape[1]), np.float32)
        for start in range(0, len(pixels), chunk):
            # One tree at a time over a chunk: both stay in the processor's cache.
            bands = np.ascontiguousarray(pixels[start : start + chunk].T, np.float32)
            total = np.zeros((bands.shape[1], out.shape[1]))
            for root in self.roots:
                total += self.shares.take(self._leaves(bands, root), axis=0)
            out[start : start + chunk] = total / len(self.roots)
        return out

    def _leaves(self, bands: npt.NDArray[np.float32], root: np.int32) -> npt.NDArray[np.int32]:
        """bands (F, N) -> the leaf of one tree that each pixel ends in."""
        count = bands.shape[1]
        flat = bands.ravel()
        leaves = np.empty(count, np.int32)
        open_ = np.arange(count, dtype=np.int32)
        node = np.full(count, root, np.int32)
        level = 0
        while len(open_):
            value = flat.take(self.feature.take(node) * count + open_)
            node = self.left.take(node) + (value > self.threshold.take(node))
            level += 1
            if level % 4 == 0:
                done = self.left.take(node) == node
                leaves[open_[done]] = node[done]
                open_, node = open_[~done], node[~done]
        return leaves

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What a model folder stores."""
        return {name: getattr(self, name) for name in _NAMES}

    @staticmethod
    def from_arrays(
        arrays: dict[str, npt.NDArray[Any]], *, num_features: int, num_classes: int, shares: bool = True
    ) -> Forest:
        """The forest of stored arrays; raises ModelError when they do not fit together. shares: whether from 0 to 1."""
        missing = [name for name in _NAMES if name not in arrays]
        if missing:
            raise ModelError(f"the forest lacks {', '.join(missing)}", fix="train it again")
        forest = Forest(**{name: arrays[name] for name in _NAMES})
        nodes = np.arange(len(forest.left))
        leaf = forest.left == nodes
        whole = (
            all(len(arrays[name]) == len(nodes) for name in ("feature", "threshold", "shares"))
            and forest.shares.ndim == 2
            and forest.shares.shape[1] == num_classes
            and bool(((forest.shares >= 0) & (forest.shares <= 1) if shares else np.isfinite(forest.shares)).all())
            and bool(((forest.feature >= 0) & (forest.feature < num_features)).all())
            and bool(((forest.roots >= 0) & (forest.roots < len(nodes))).all())
            # Children come after their parent, so every walk ends.
            and bool((leaf | ((forest.left > nodes) & (forest.left + 1 < len(nodes)))).all())
            and bool((forest.threshold[leaf] == np.inf).all())
        )
        if not whole:
            raise ModelError("the forest's arrays do not fit together", fix="the file is damaged: train it again")
        return forest


def fit_numbers(
    pixels: npt.NDArray[np.float32],
    numbers: npt.NDArray[np.float32],
    *,
    trees: int = 300,
    seed: int = 0,
    jobs: int = -1,
) -> Forest:
    """Fit on pixels (N, F) with numbers (N, K); of 0 and 1 they are probabilities. At least five pixels in a leaf.

    Raises MissingExtra without scikit-learn.
    """
    regressor = _ensemble().RandomForestRegressor
    kind = regressor(trees, n_jobs=jobs, random_state=seed, min_samples_leaf=5, max_features=1 / 3)
    with warnings.catch_warnings():  # its threads reset the filters, and may leave none behind
        fitted = kind.fit(pixels, numbers[:, 0] if numbers.shape[1] == 1 else numbers)
    return _joined([_tree_arrays(each.tree_, each.tree_.value[:, :, 0]) for each in fitted.estimators_])


def fit_forest(
    pixels: npt.NDArray[np.float32],
    classes: npt.NDArray[np.uint8],
    *,
    num_classes: int,
    trees: int = 300,
    balanced: bool = True,
    seed: int = 0,
    jobs: int = -1,
) -> Forest:
    """Fit on pixels (N, F) with class indices (N,); classes that do not occur get probability 0.

    Raises MissingExtra without scikit-learn.
    """
    weight, classifier = "balanced" if balanced else None, _ensemble().RandomForestClassifier
    forest = classifier(trees, n_jobs=jobs, random_state=seed, class_weight=weight)
    with warnings.catch_warnings():  # as above
        fitted = forest.fit(pixels, classes)
    parts = []
    for estimator in fitted.estimators_:
        shares = np.zeros((estimator.tree_.node_count, num_classes))
        value = estimator.tree_.value[:, 0]
        shares[:, fitted.classes_] = value / value.sum(1, keepdims=True)
        parts.append(_tree_arrays(estimator.tree_, shares))
    return _joined(parts)


def _ensemble() -> Any:
    """scikit-learn's forests; raises MissingExtra without it."""
    try:
        from sklearn import ensemble
    except ImportError as error:
        raise MissingExtra("scikit-learn", "ml", "the random forest") from error
    return ensemble


def _joined(parts: Sequence[dict[str, npt.NDArray[Any]]]) -> Forest:
    """Trees laid end to end."""
    roots = np.cumsum([0, *(len(part["left"]) for part in parts[:-1])])
    for part, root in zip(parts, roots, strict=True):
        part["left"] += root
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Forest(**joined, roots=roots.astype(np.int32))


def _tree_arrays(tree: Any, values: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    """scikit-learn's arrays of one tree and its nodes' (N, K), renumbered level by level: children are neighbours."""
    order = [np.array([0])]
    while len(order[-1]):
        inner = order[-1][tree.children_left[order[-1]] >= 0]
        order.append(np.stack([tree.children_left[inner], tree.children_right[inner]], 1).ravel())
    old = np.concatenate(order)
    new = np.empty(tree.node_count, np.int64)
    new[old] = np.arange(tree.node_count)
    leaf = tree.children_left[old] < 0
    return {
        "feature": np.where(leaf, 0, tree.feature[old]).astype(np.int32),
        # scikit-learn compares float32 pixels with float64 thresholds: the largest float32 not above decides alike.
        "threshold": np.where(leaf, np.inf, _round_down(tree.threshold[old])).astype(np.float32),
        "left": np.where(leaf, np.arange(tree.node_count), new[tree.children_left[old]]).astype(np.int32),
        "shares": values[old].astype(np.float32),
    }


def _round_down(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    rounded = values.astype(np.float32)
    above = rounded.astype(np.float64) > values
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded
