"""Less of the train part: a nested share of its labels, or blocks whose classes are even; val and test stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE
from covermap.data.assign import nested
from covermap.data.balance import balanced_subset
from covermap.data.blocks import Block
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split
from covermap.geo.grid import Window, partition
from covermap.geo.rasterize import VectorLabels

TRAIN = PARTS.index("train")


def with_budget(split: Split, scenes: Sequence[Scene], train: Sequence[Block], budget: float, *, seed: int) -> Split:
    """The split with a share `budget` of the labels in `train`: of the polygons, or of the blocks (whole chips).

    Rectangles that are left out belong to no part, polygons stand in `dropped`. Two images of one ground count once.
    """
    notes = []
    pieces = [piece for block in train for piece in block.pieces if not isinstance(piece[0][0].labels, VectorLabels)]
    if pieces:
        keep, counts = _kept([_used(split, piece) for piece in pieces], budget, seed)
        out = {
            (scene.name, window)
            for piece, stay in zip(pieces, keep, strict=True)
            if not stay
            for scene, window in piece
        }
        tiles = tuple(
            replace(tile, part="none") if tile.part == "train" and (tile.scene, tile.window) in out else tile
            for tile in split.tiles
        )
        split = replace(split, tiles=tiles)
        notes.append(_told(budget, keep, counts, "labelled blocks"))
    objects = _objects(split, scenes)
    if objects:
        keep, counts = _kept([row for row, _ in objects.values()], budget, seed)
        lost = {
            (name, number)
            for (_, number), (_, names), stay in zip(objects, objects.values(), keep, strict=True) if not stay
            for name in names
        }  # fmt: skip
        split = replace(split, dropped=split.dropped | lost)
        notes.append(_told(budget, keep, counts, "polygons or points"))
    return replace(split, budget=budget, notes=(*split.notes, *notes))


def with_even_classes(split: Split, scenes: Sequence[Scene], share: float, *, seed: int) -> Split:
    """The split with a share of its labelled train blocks, those whose classes are most even together."""
    by_name = {scene.name: scene for scene in scenes}
    legend = scenes[0].legend
    assert legend is not None
    train = [i for i, tile in enumerate(split.tiles) if tile.part == "train"]
    counts = np.zeros((len(train), len(legend)), np.int64)
    for row, tile in zip(counts, (split.tiles[i] for i in train), strict=True):
        index = split.labels(by_name[tile.scene], tile.window, "train")
        row += np.bincount(index.ravel(), minlength=256)[: len(legend)]
    held = np.flatnonzero(counts.sum(1))
    if not len(held):
        return split
    kept = held[balanced_subset(counts[held], max(1, round(share * len(held))), seed=seed)]
    lost = {train[i] for i in set(range(len(train))) - set(kept.tolist())}
    tiles = tuple(replace(tile, part="none") if i in lost else tile for i, tile in enumerate(split.tiles))
    rarest = int(np.argmin(np.where(counts.sum(0) > 0, counts.sum(0), np.iinfo(np.int64).max)))
    shares = [found[rarest] / found.sum() for found in (counts.sum(0), counts[kept].sum(0))]
    note = (
        f"{len(kept):,} of {len(held):,} labelled train blocks are kept for even classes: "
        f"{legend.names[rarest]} has {shares[1]:.1%} of their labels instead of {shares[0]:.1%}"
    )
    return replace(split, tiles=tiles, notes=(*split.notes, note))


def _kept(
    rows: Sequence[npt.NDArray[np.int64]], budget: float, seed: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    counts = np.stack(rows)
    return nested(counts, budget, seed=seed), counts


def _told(budget: float, keep: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], what: str) -> str:
    labelled = counts.sum(1) > 0
    used = int((keep & labelled).sum())
    return f"budget {budget:g}: {used:,} of the {int(labelled.sum()):,} {what} of train are used"


def _used(split: Split, piece: Sequence[tuple[Scene, Window]]) -> npt.NDArray[np.int64]:
    """Labelled pixels of each class (K,) that train would use, buffers and fixed rectangles taken out."""
    legend = piece[0][0].legend
    assert legend is not None
    total = np.zeros(256, np.int64)
    for scene, window in piece:
        total += np.bincount(split.labels(scene, window, "train").ravel(), minlength=256)
    return total[: len(legend)]


def _objects(split: Split, scenes: Sequence[Scene]) -> dict[tuple[str, int], tuple[npt.NDArray[np.int64], list[str]]]:
    """{(label file, object number): (labelled train pixels of each class, scenes)} of the objects that train uses."""
    found: dict[tuple[str, int], tuple[npt.NDArray[np.int64], list[str]]] = {}
    for scene in scenes:
        labels = scene.labels
        for block in partition(scene.grid.window, 2048, 2048) if isinstance(labels, VectorLabels) else ():
            assert isinstance(labels, VectorLabels)
            index, parts = split.labels_and_parts(scene, block)
            used = (parts == TRAIN) & (index != IGNORE)
            objects = labels.read_objects(block)[used] if used.any() else np.zeros(0, np.int32)
            pairs, pixels = np.unique(np.stack([objects, index[used]]), axis=1, return_counts=True)
            for (number, k), count in zip(pairs.T.tolist(), pixels.tolist(), strict=True):
                empty = np.zeros(len(labels.legend), np.int64)
                row, names = found.setdefault((scene.labels_path or scene.name, number), (empty, []))
                row[k] += count
                if scene.name not in names:
                    names.append(scene.name)
    return found
