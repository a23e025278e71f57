"""What probes learn from: embeddings with a target for each chip, in areas, some held out by blocks of ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError
from covermap.data.embeddings import Embeddings

Kind = Literal["auto", "shares", "majority", "label", "values"]
Areas = Literal["none", "place", "scene"]
EVERYWHERE = "everywhere"
TRAIN, TEST, LEFT_OUT = 0, 1, 2
_LABELLED = 0.5
"""Share of a chip's pixels that has a label, at least."""
_METRES_A_DEGREE = 111_320
_SAME_GROUND = 0.05
"""Share of an area's chips that may lie on those of others, by the edges of scenes."""
_MOST = 0.5
"""Share of a chip's labelled pixels that the class of a chip has, at least."""
_BESIDE = 1.5
"""Sides of a chip between the centres of two that touch, at most: corner to corner it is 1.41."""
_EARTH_M = 6_371_000.0


@dataclass(frozen=True)
class LabelledChips:
    """N chips with a target each, of embeddings (N, d) and raw statistics (N, r).

    targets: numbers (N, T) of `names`, or class indices (N,) of `names` where `classes`. area: the index of each in
    `areas`. ground (N, 3): scene, row and column in chips, -1 where not known. given: TRAIN, TEST or LEFT_OUT by the
    embeddings' own split; None without a test part. notes: what was left out. places (N, 3): on the globe, in chips,
    NaN where not known.
    """

    values: npt.NDArray[np.float32]
    raw: npt.NDArray[np.float32] | None
    targets: npt.NDArray[Any]
    names: tuple[str, ...]
    classes: bool
    area: npt.NDArray[np.intp]
    areas: tuple[str, ...]
    ground: npt.NDArray[np.int64]
    given: npt.NDArray[np.intp] | None
    notes: tuple[str, ...]
    places: npt.NDArray[np.float64] | None = None
    _drawn: dict[object, npt.NDArray[np.intp]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def num_classes(self) -> int | None:
        """K of classes, None of numbers."""
        return len(self.names) if self.classes else None

    @staticmethod
    def of(found: Embeddings, *, target: Kind = "auto", areas: Areas = "none") -> LabelledChips:
        """Chips of embeddings that have a target; raises DataError where none has, or areas are not known."""
        targets, names, classes, notes = targets_of(found, target)
        keep = (targets >= 0) if classes else np.isfinite(targets).all(1)
        odd = ~np.isfinite(found.values).all(1)
        if (lost := int((~keep).sum())) and keep.any():
            notes.append(f"{lost:,} of {len(keep):,} chips have no target and are left out")
        if broken := int((keep & odd).sum()):
            notes.append(f"{broken:,} chips have embeddings that are no numbers and are left out")
        keep &= ~odd
        if not keep.any():
            raise DataError(f"{found.source}: no chip has a target", fix="embed with a config that has labels")
        if int(keep.sum()) > 1 and (targets[keep] == targets[keep][0]).all():
            raise DataError(
                f"{found.source}: all {int(keep.sum()):,} chips have the same target: nothing can be told apart",
                fix="embed a config whose labels differ from chip to chip, or give another --target",
            )
        names_of_areas, area = _areas(found, areas)
        given = None
        if areas == "none" and "test" in found.part:
            role = {"train": TRAIN, "val": TRAIN, "test": TEST}
            given = np.array([role.get(part, LEFT_OUT) for part in found.part], np.intp)[keep]
            if not (given == TEST).any():
                raise DataError(
                    f"{found.source}: no chip of the test part has a target: nothing can be scored",
                    fix="embed with labels in the test part, or with a split without one",
                )
        return LabelledChips(
            found.values[keep], None if found.raw is None else found.raw[keep], targets[keep], names, classes,
            area[keep], names_of_areas, ground_of(found)[keep], given, tuple(notes), places_of(found, keep),
        )  # fmt: skip

    def roles(self, *, share: float, block: int, seed: int, folds: int | None = None, fold: int = 0) -> (
        npt.NDArray[np.intp]
    ):  # fmt: skip
        """TRAIN, TEST or LEFT_OUT (N,): of each area a share of its blocks of ground is held out, or a fold of them.

        block: side of a block in chips. Chips beside a held-out one are left out. The embeddings' own split counts
        where it has a test part. Raises DataError where an area has fewer blocks than folds, or than two.
        """
        if self.given is not None:
            return self.given
        asked = share, block, seed, folds, fold
        if asked not in self._drawn:
            self._drawn[asked] = self._draw(share, block, seed, folds, fold)
        return self._drawn[asked]

    def _draw(self, share: float, block: int, seed: int, folds: int | None, fold: int) -> npt.NDArray[np.intp]:
        role = np.full(len(self), TRAIN, np.intp)
        for number, name in enumerate(self.areas):
            of = np.flatnonzero(self.area == number)
            blocks = np.unique(self.blocks(of, block), axis=0, return_inverse=True)[1].reshape(-1)
            count = int(blocks.max(initial=-1)) + 1
            if count < (folds or 2):
                raise DataError(
                    f"{name} has {count} blocks of {block} x {block} chips, fewer than {folds or 2} "
                    + ("folds" if folds else "that a held-out part needs"),
                    fix="give smaller blocks (--block 1), fewer folds, or more ground",
                )
            drawn = np.random.default_rng([seed, number]).permutation(count)
            if folds:
                held = drawn % folds == fold
            else:
                held = drawn < max(1, min(count - 1, round(share * count)))
            role[of[held[blocks]]] = TEST
        role[self.beside(role == TEST) & (role == TRAIN)] = LEFT_OUT
        role.setflags(write=False)
        return role

    def blocks(self, of: npt.NDArray[np.intp], block: int) -> npt.NDArray[np.int64]:
        """(n, 3): the block of ground of chips; where it is not known each is its own."""
        ground = self.ground[of]
        found = np.stack([ground[:, 0], ground[:, 1] // block, ground[:, 2] // block], 1)
        unknown = ground[:, 1] < 0
        found[unknown, 1:] = np.stack([np.full(int(unknown.sum()), -1), of[unknown]], 1)
        return found

    def beside(self, some: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Chips (N,) that touch some of them, or are these, in the same scene or in another one of the same ground."""
        key = some.tobytes()
        if key not in self._drawn:
            self._drawn[key] = (self._beside_in_scene(some) | self._beside_on_globe(some)).astype(np.intp)
        return self._drawn[key].astype(bool)

    def _beside_in_scene(self, some: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        known = self.ground[:, 1] >= 0
        near = set()
        for scene, row, col in self.ground[known & some].tolist():
            near |= {(scene, row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        places = self.ground.tolist()
        return np.array([bool(k) and (s, r, c) in near for (s, r, c), k in zip(places, known, strict=True)], bool)

    def _beside_on_globe(self, some: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(self), bool)
        if self.places is None or len(np.unique(self.ground[:, 0])) < 2:
            return found
        from scipy.spatial import cKDTree

        known = np.flatnonzero((self.ground[:, 1] >= 0) & np.isfinite(self.places).all(1))
        if some[known].any():
            away = cKDTree(self.places[known[some[known]]]).query(self.places[known], distance_upper_bound=_BESIDE)[0]
            found[known] = away < _BESIDE
        return found


def targets_of(found: Embeddings, target: Kind) -> tuple[npt.NDArray[Any], tuple[str, ...], bool, list[str]]:
    """Numbers (N, T), NaN where not known, or class indices (N,), -1; names; whether classes; notes.

    Raises DataError where the embeddings have no labels, ConfigError where they have none of this kind.
    """
    if target == "auto":
        there = {"values": found.numbers, "label": found.labels, "shares": found.class_pixels}
        chosen = next((name for name, values in there.items() if values is not None), None)
        if chosen is None:
            raise DataError(f"{found.source} has no labels", fix="embed with a config that has labels")
    else:
        chosen = target
    need = {"shares": found.class_pixels, "majority": found.class_pixels, "label": found.labels,
            "values": found.numbers}[chosen]  # fmt: skip
    if need is None:
        raise ConfigError(f"{found.source} has no {chosen}", fix="leave --target out: it is found by what is there")
    if chosen == "values":
        assert found.numbers is not None
        names = found.names or tuple(f"value {i + 1}" for i in range(found.numbers.shape[1]))
        return found.numbers, names, False, []
    names = found.legend.names if found.legend else tuple(f"class {i}" for i in range(int(need.max()) + 1))
    if chosen == "label":
        assert found.labels is not None
        return found.labels, tuple(names), True, []
    assert found.class_pixels is not None
    pixels, total = found.class_pixels, found.class_pixels.sum(1)
    box = found.pixel_bbox
    size = np.where(box[:, 0] >= 0, (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]), total)
    enough = (total > 0) & (total >= _LABELLED * size)
    shares = pixels / np.maximum(total, 1)[:, None]
    if chosen == "majority":
        sure = enough & (shares.max(1) >= _MOST)
        return np.where(sure, shares.argmax(1), -1), tuple(names), True, []
    there = pixels[enough].sum(0) > 0
    never = [name for name, occurs in zip(names, there, strict=True) if not occurs]
    notes = [f"classes without a pixel are no targets: {', '.join(never)}"] if never else []
    kept = tuple(name for name, occurs in zip(names, there, strict=True) if occurs)
    return np.where(enough[:, None], shares, np.nan)[:, there], kept, False, notes


def _areas(found: Embeddings, areas: Areas) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
    if areas == "none":
        return (EVERYWHERE,), np.zeros(len(found), np.intp)
    told: Sequence[str] = found.place if areas == "place" else found.scene
    if not all(told):
        raise DataError(f"{found.source} does not say the {areas} of every chip", fix="give --areas scene, or none")
    names = sorted(set(told))
    if len(names) < 2:
        raise DataError(
            f"{found.source} holds one {areas} only ({names[0]}): nothing can be learnt elsewhere",
            fix="give embeddings of two or more, or leave --areas out",
        )
    at = {name: number for number, name in enumerate(names)}
    area = np.array([at[name] for name in told], np.intp)
    _require_other_ground(found, names, area, areas)
    return tuple(names), area


def _require_other_ground(found: Embeddings, names: Sequence[str], area: npt.NDArray[np.intp], areas: Areas) -> None:
    """Raise DataError where chips of two areas lie on one another: what is called elsewhere would be here."""
    facts = found.encoder
    if found.centre is None or not facts.get("size_px") or not facts.get("gsd_m"):
        return
    known = np.flatnonzero(np.isfinite(found.centre).all(1))
    if not len(known):
        return
    lat, lon = found.centre[known].T
    step = float(facts["size_px"]) * float(facts["gsd_m"]) / _METRES_A_DEGREE
    squares = np.stack([lat / step, lon * np.cos(np.radians(np.median(lat))) / step], 1).round().astype(np.int64)
    pairs = np.unique(np.column_stack([squares, area[known]]), axis=0)
    square, times = np.unique(pairs[:, :2], axis=0, return_inverse=True, return_counts=True)[1:]
    twice = times[square.reshape(-1)] > 1
    for number, name in enumerate(names):
        of = pairs[:, 2] == number
        if of.any() and (share := float(twice[of].mean())) > _SAME_GROUND:
            raise DataError(
                f"{share:.0%} of the chips of {areas} {name} show ground that another {areas} shows as well: "
                "what is learnt elsewhere would have seen it",
                fix="give --areas place where places are known, or embeddings of one date or scene of each ground",
            )


def ground_of(found: Embeddings) -> npt.NDArray[np.int64]:
    """(N, 3): number of the scene, row and column in chips; -1 where the place in the scene is not known."""
    at = {name: number for number, name in enumerate(sorted(set(found.scene)))}
    scene = np.array([at[name] for name in found.scene], np.int64)
    box = found.pixel_bbox
    side = max(1, int(np.median(box[:, 2] - box[:, 0]))) if (box[:, 0] >= 0).any() else 1
    row, col = (np.where(box[:, 0] >= 0, box[:, i] // side, -1) for i in (1, 0))
    alone = len(at) == len(found)  # chips that are files of their own say nothing of their neighbours
    return np.stack([scene, np.full_like(scene, -1) if alone else row, col], 1)


def places_of(found: Embeddings, of: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """(n, 3): centres of some chips on the globe, in sides of a chip; None where they, or its side, are not known."""
    side_m = found.encoder.get("size_px", 0) * (found.encoder.get("gsd_m") or 0)
    if found.centre is None or not side_m:
        return None
    lat, lon = np.radians(found.centre[of]).T
    return np.asarray(
        np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1) * _EARTH_M / side_m
    )
