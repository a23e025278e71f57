"""Scores of a model on one part of a split: what maps and tables would show, against what is known there.

blocks of scenes, or chips -> answers -> Scorer.add(answers, reference) -> scores and tables of the whole part
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.core.legend import IGNORE
from covermap.core.progress import Tick, unseen
from covermap.core.task import Task
from covermap.core.train_config import PredictConfig
from covermap.data.chips import survey_chips
from covermap.data.reference import chip_answer
from covermap.data.scene import Scene
from covermap.data.split import Split
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.resize import read_resized
from covermap.infer import Lattice, in_sets, infer_block, infer_chips
from covermap.metrics.binary import BinaryScores, MultiLabelScores
from covermap.metrics.change import CONVENTIONS, JointCounter, Pair, change_segmentation_scores
from covermap.metrics.confusion import Confusion
from covermap.metrics.regression import RegressionScores
from covermap.ml.gated import gated
from covermap.ml.likeliest import highest
from covermap.models import LandModel

SEMANTIC = ("score", "sek", "fscd", "oa", "precision", "recall")
"""Scores that depend on the convention."""
BLOCK_PX = 2048


class Scorer(ABC):
    """Scores of one part, accumulated over blocks and chips, never averaged over them."""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Whether nothing has been compared."""

    @abstractmethod
    def add(self, answers: npt.NDArray[np.float32], reference: npt.NDArray[Any], place: str) -> None:
        """answers (K, *space); reference: class indices (*space) with IGNORE, or numbers (K, *space) with NaN."""

    @abstractmethod
    def scores(self) -> dict[str, Any]:
        """Scores of the whole part, `loss` among them."""

    @abstractmethod
    def tables(self) -> dict[str, Any]:
        """What metrics.json holds beside the scores."""


class ClassScorer(Scorer):
    """One class of several: the confusion matrix, and the mean negative log likelihood as loss.

    Of classes in order also the mean distance in classes, and how well what lies above a border is ranked; of a hazard
    how well its probability ranks.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.confusion, self._loss = task, Confusion(len(task.legend)), 0.0
        self.binary = BinaryScores() if task.positive is not None else None
        self.borders = [BinaryScores() for _ in task.breaks]
        self._held = self._in_sets = 0

    @property
    def is_empty(self) -> bool:
        return self.confusion.total == 0

    def add(self, answers: npt.NDArray[np.float32], reference: npt.NDArray[Any], place: str) -> None:
        known = reference != IGNORE
        self.confusion.add(reference, highest(answers)[0])
        chosen = np.take_along_axis(answers[:, known], reference[known][None].astype(np.intp), axis=0)
        self._loss -= float(np.log(np.maximum(chosen, 1e-7)).sum(dtype=np.float64))
        if self.task.coverage:
            sets = in_sets(answers[:, known], self.task.set_from)
            self._held += int(sets[reference[known], np.arange(sets.shape[1])].sum())
            self._in_sets += int(sets.sum())
        if self.binary is not None:
            positive = np.where(known, reference == self.task.positive, IGNORE).astype(np.uint8)
            # Blended probabilities of 1 may be a rounding above it.
            self.binary.add(answers[self.task.positive].clip(0, 1), positive, chip=place)
        for i, border in enumerate(self.borders, 1):
            above = np.where(known, reference >= i, IGNORE).astype(np.uint8)
            border.add(answers[i:].sum(0).clip(0, 1), above)

    def scores(self) -> dict[str, Any]:
        loss = self._loss / self.confusion.total
        found = self.confusion.scores() | {"nll": loss, "loss": loss}
        if self.task.coverage:
            found |= {"coverage": self._held / self.confusion.total, "set_size": self._in_sets / self.confusion.total}
        if self.binary is not None:
            found |= self.binary.scores()
        if self.task.kind.takes == "order":
            steps = np.abs(np.subtract.outer(*[np.arange(len(self.task.legend))] * 2))
            found["mae"] = float((self.confusion.counts * steps).sum() / self.confusion.total)
            found["auc"] = _mean([border.scores()["auc"] for border in self.borders])
        return found

    def tables(self) -> dict[str, Any]:
        table = self.confusion.table(self.task.legend.names)
        found: dict[str, Any] = {"per_class": table, "confusion": self.confusion.counts.tolist()}
        if self.borders:
            each = zip(self.task.breaks, (border.scores() for border in self.borders), strict=True)
            found["per_border"] = [
                {"from": low, **{key: one[key] for key in ("auc", "auprc", "num_positive")}} for low, one in each
            ]
        return found


class PresenceScorer(Scorer):
    """Several classes of a chip, each there or not; the mean binary cross entropy as loss."""

    def __init__(self, task: Task) -> None:
        self.task, self._loss, self._count = task, 0.0, 0
        self._answers: list[npt.NDArray[np.float32]] = []
        self._there: list[npt.NDArray[np.uint8]] = []

    @property
    def is_empty(self) -> bool:
        return self._count == 0

    def add(self, answers: npt.NDArray[np.float32], reference: npt.NDArray[Any], place: str) -> None:
        known = np.isfinite(reference)
        there = np.where(known, reference, IGNORE).astype(np.uint8)
        self._answers.append(answers.copy())
        self._there.append(there)
        p = np.clip(answers, 1e-7, 1 - 1e-7)
        self._loss -= float(np.where(there == 1, np.log(p), np.log1p(-p))[known].sum(dtype=np.float64))
        self._count += int(known.sum())

    def _presence(self) -> MultiLabelScores:
        found = MultiLabelScores(len(self.task.legend), self.task.threshold)
        found.add(np.stack(self._answers), np.stack(self._there))
        return found

    def scores(self) -> dict[str, Any]:
        return dict(self._presence().scores()) | {"loss": self._loss / self._count}

    def tables(self) -> dict[str, Any]:
        each = self._presence().per_class()
        names = enumerate(self.task.legend.names)
        return {"per_class": [{"class": n, **{key: float(v[i]) for key, v in each.items()}} for i, n in names]}


class NumberScorer(Scorer):
    """Numbers, each in its unit, all and by place; the mean squared error in std of the train part as loss."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.parts: dict[tuple[str, str], RegressionScores] = {}

    @property
    def is_empty(self) -> bool:
        return not any(part.count for part in self.parts.values())

    def add(self, answers: npt.NDArray[np.float32], reference: npt.NDArray[Any], place: str) -> None:
        for name, mine, known in zip(self.task.legend.names, answers, reference, strict=True):
            self.parts.setdefault((name, place), RegressionScores()).add(known, mine)

    def _whole(self, name: str) -> dict[str, Any]:
        """A number over all places."""
        whole = RegressionScores()
        for (other, _), part in self.parts.items():
            if other == name:
                whole.merge(part)
        return dict(whole.scores())

    def scores(self) -> dict[str, Any]:
        """Of one number its own scores; of several the means of those that have one, errors then in std."""
        rows = [self._whole(name) for name in self.task.legend.names]
        stds = self.task.std if len(rows) > 1 else (1.0,)
        found: dict[str, Any] = {key: sum(row[key] for row in rows) for key in ("num_pairs", "num_unknown")}
        for key in ("rmse", "mae", "bias"):
            found[key] = _mean([row[key] / std for row, std in zip(rows, stds, strict=True)])
        for key in ("r", "r2"):
            found[key] = _mean([row[key] for row in rows])
        return found | {"loss": _mean([(row["rmse"] / std) ** 2 for row, std in zip(rows, self.task.std, strict=True)])}

    def tables(self) -> dict[str, Any]:
        units = dict(zip(self.task.legend.names, self.task.units, strict=True))
        each = [{"target": name, "unit": unit, **self._whole(name)} for name, unit in units.items()]
        places = [{"target": name, "place": place, **part.scores()} for (name, place), part in self.parts.items()]
        return {"per_number": each, "per_place": places}


class TransitionScorer(Scorer):
    """What became what: one joint histogram, and the mean negative log likelihood of classes and change as loss."""

    def __init__(self, task: Task) -> None:
        self.task, self.joint = task, JointCounter(len(task.legend))
        self._loss, self._count = np.zeros(3), np.zeros(3)
        self._places: dict[str, list[npt.NDArray[np.int64]]] = {}

    @property
    def is_empty(self) -> bool:
        return self.joint.total == 0

    def add(self, answers: npt.NDArray[np.float32], reference: npt.NDArray[Any], place: str) -> None:
        truth, said = pairs_of(answers, reference)
        self.joint.add(truth, said)
        counts, mine = _change_of_place(truth, said, len(self.task.legend)), self._places.get(place)
        self._places[place] = [a + b for a, b in zip(mine, counts, strict=True)] if mine else counts
        k = len(self.task.legend)
        for i, shares in enumerate((answers[:k], answers[k : 2 * k], answers[2 * k :])):
            known = np.isfinite(reference[i])
            p = np.take_along_axis(shares[:, known], reference[i][known][None].astype(np.intp), axis=0)
            self._loss[i] -= np.log(np.maximum(p, 1e-7)).sum(dtype=np.float64)
            self._count[i] += known.sum()

    def scores(self) -> dict[str, Any]:
        each = {by: self.joint.semantic(by) for by in CONVENTIONS}
        found: dict[str, Any] = {f"{key}_{by}": one[key] for by, one in each.items() for key in SEMANTIC}
        nll = self._loss / np.maximum(self._count, 1)
        loss = float(nll[:2].mean() + nll[2])
        found |= {"miou": each["from_to"]["miou"], **self.joint.binary(), **self.joint.change_segmentation()}
        found["scs_of_places"] = _mean([row["scs"] for row in self._per_place()])
        return found | {"loss": loss, "nll": loss, "num_pixels": self.joint.total}

    def tables(self) -> dict[str, Any]:
        names = self.task.legend.names
        dates = [Confusion(len(names)), Confusion(len(names))]
        for date, one in enumerate(dates):
            one.counts += self.joint.classes(date)
        told = zip(("before", "after"), dates, strict=True)
        rows = [row | {"class": f"{row['class']}, {when}"} for when, one in told for row in one.table(names)]
        return {
            "per_place": self._per_place(), "per_class": rows, "errors": self.joint.errors(),
            "contradictions": self.joint.contradictions(),
            "confusion_before": dates[0].counts.tolist(), "confusion_after": dates[1].counts.tolist(),
            "binary": self.joint.binary_counts().tolist(),
            **{f"transitions_{side}": self.joint.transitions(side).tolist() for side in ("reference", "prediction")},
        }  # fmt: skip

    def _per_place(self) -> list[dict[str, Any]]:
        """BC, SC and SCS of each place, as DynamicEarthNet has them for each cube."""
        return [{"place": p, **change_segmentation_scores(*counts)} for p, counts in sorted(self._places.items())]


def _change_of_place(truth: Pair, said: Pair, k: int) -> list[npt.NDArray[np.int64]]:
    """Counts of change (2, 2), and of later classes where the reference changed (K, K), which SCS follows from."""
    assert truth.changed is not None
    known, changed = truth.changed != IGNORE, said.before != said.after
    binary = np.bincount(2 * (truth.changed[known] == 1) + changed[known], minlength=4).reshape(2, 2)
    here = (truth.changed == 1) & (truth.after != IGNORE)
    keys = truth.after[here].astype(np.intp) * k + said.after[here]
    return [binary, np.bincount(keys, minlength=k * k).reshape(k, k)]


def pairs_of(answers: npt.NDArray[np.float32], reference: npt.NDArray[Any]) -> tuple[Pair, Pair]:
    """What is known (3, H, W) and what is said (2 K + 2, H, W) of what became what."""
    known = np.where(np.isfinite(reference), reference, IGNORE).astype(np.uint8)
    said = gated(answers)
    return Pair(known[0], known[1], known[2]), Pair(said.before, said.after)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")


def make_scorer(task: Task) -> Scorer:
    """The scorer of a task."""
    others: dict[str, Callable[[Task], Scorer]] = {
        "presence": PresenceScorer,
        "numbers": NumberScorer,
        "transitions": TransitionScorer,
    }
    return others.get(task.kind.takes, ClassScorer)(task)


def score(model: LandModel, scenes: Sequence[Scene], split: Split, part: str, *, settings: PredictConfig) -> Scorer:
    """Compare a model's answers with all that is known of a part; raises DataError where nothing is.

    The windows are those of the map (`settings`); only those that hold something known are computed.
    """
    return count(compare(model, scenes, split, part, settings=settings), model.task, part)


def count(compared: Iterable[Compared], task: Task, part: str, *others: Counter | None) -> Scorer:
    """Put all that has been compared into the task's scorer, and into others; raises DataError where it is nothing."""
    found = make_scorer(task)
    for one in compared:
        found.add(one.answers, one.reference, one.place)
        for other in filter(None, others):
            other.add(one)
    if found.is_empty:
        raise DataError(f"the {part} part holds no labelled valid pixel", fix="check with: covermap check CONFIG")
    return found


class Counter(Protocol):
    """What also counts all that is compared."""

    def add(self, one: Compared) -> None:
        """Count a strip or a chip."""


class Compared(NamedTuple):
    """Answers (K, *space), what is known there, and where.

    scene, window, block: of pixels, the strip and the block that it is part of. chip: where a chip lies in its scene.
    """

    answers: npt.NDArray[np.float32]
    reference: npt.NDArray[Any]
    place: str
    scene: str = ""
    window: Window | None = None
    block: Window | None = None
    chip: Window | None = None


def compare(
    model: LandModel, scenes: Sequence[Scene], split: Split, part: str, *, settings: PredictConfig,
    on_progress: Tick = unseen,
) -> Iterator[Compared]:  # fmt: skip
    """All answers of a model where something is known of a part; good until the next is asked for.

    on_progress: hears of blocks of pixels, or chips.
    """
    if model.task.kind.chips:
        return _chips(model, scenes, split, part, settings, on_progress)
    if model.task.kind.takes == "numbers":
        return _blocks_of_numbers(model, scenes, split, part, settings, on_progress)
    return _strips(model, scenes, split, part, settings, on_progress)


def _strips(
    model: LandModel, scenes: Sequence[Scene], split: Split, part: str, settings: PredictConfig, tick: Tick
) -> Iterator[Compared]:
    lattices = [Lattice.of(scene, model, settings) for scene in scenes]
    done, total = 0, sum(len(list(windows.blocks(BLOCK_PX))) for windows in lattices)
    for scene, windows in zip(scenes, lattices, strict=True):
        labels = _remembered(split, scene, part)
        for block in windows.blocks(BLOCK_PX):
            if (labels(block) != IGNORE).any():
                known_at = _is_known(labels)
                for strip in infer_block(
                    model, scene, windows, block, wanted=known_at, batch_size=settings.batch_size, tta=settings.tta
                ):
                    place = scene.name
                    if model.task.kind.takes == "transitions":
                        target, place = split.target(scene, strip.window, part), scene.place or scene.name
                        reference = np.where(strip.valid, target, np.float32(np.nan))
                    else:
                        reference = np.where(strip.valid, labels(strip.window), np.uint8(IGNORE))
                    yield Compared(strip.answers, reference, place, scene.name, strip.window, block)
            done += 1
            tick(done, total)


def _blocks_of_numbers(
    model: LandModel, scenes: Sequence[Scene], split: Split, part: str, settings: PredictConfig, tick: Tick
) -> Iterator[Compared]:
    """Whole blocks, so that numbers of coarser pixels have all of theirs; these count from the scene's corner."""
    for done, scene in enumerate(scenes):
        tick(done, len(scenes))
        assert scene.target is not None
        windows, labels = Lattice.of(scene, model, settings), _remembered(split, scene, part)
        side = round(BLOCK_PX // (factor := scene.target.size.factor or 1) * factor)
        for block in partition(scene.grid.window, side, side):
            if not (labels(block) != IGNORE).any():
                continue
            answers = np.full((len(model.legend), block.height, block.width), np.nan, np.float32)
            wanted = _is_known(labels)
            for strip in infer_block(
                model, scene, windows, block, wanted=wanted, batch_size=settings.batch_size, tta=settings.tta
            ):
                rows, cols = strip.window.within(block).slices
                answers[:, rows, cols] = np.where(strip.valid, strip.answers, np.nan)
            reference = split.target(scene, block, part)
            yield Compared(_onto(answers, scene, block), reference, scene.place or scene.name, scene.name, block=block)


def _onto(answers: npt.NDArray[np.float32], scene: Scene, block: Window) -> npt.NDArray[np.float32]:
    """Numbers of a block's pixels on those of the target: means of what is there."""
    assert scene.target is not None
    onto: Grid = scene.target.grid_of(block)
    if (onto.height, onto.width) == answers.shape[1:]:
        return answers

    def read(window: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        rows, cols = window.slices
        part = answers[:, rows, cols]
        return part, np.isfinite(part)

    found = read_resized(read, scene.grid.window_grid(block), onto, "mean", name=scene.name)
    return found.astype(np.float32)


def _chips(
    model: LandModel, scenes: Sequence[Scene], split: Split, part: str, settings: PredictConfig, tick: Tick
) -> Iterator[Compared]:
    side = model.spec.size_px
    cells = survey_chips(scenes, split, model.task, part=part, size_px=side).cells
    chips = [(cell.scene, cell.window) for cell in cells]
    found = infer_chips(model, scenes, chips, size_px=side, batch_size=settings.batch_size, tta=settings.tta)
    for done, (cell, answers) in enumerate(zip(cells, found, strict=True), 1):
        tick(done, len(cells))
        if np.isnan(answers).any():
            continue  # no pixel of the image
        scene = scenes[cell.scene]
        reference = chip_answer(scene, cell.window, model.task)
        if model.task.kind.takes in ("classes", "order"):
            answers = answers[:, None, None]
        yield Compared(answers, reference, scene.place or scene.name, scene.name, chip=cell.window)


def _is_known(labels: Callable[[Window], npt.NDArray[np.uint8]]) -> Callable[[Window], npt.NDArray[np.bool_]]:
    return lambda window: labels(window) != IGNORE


def _remembered(split: Split, scene: Scene, part: str) -> Callable[[Window], npt.NDArray[np.uint8]]:
    """Labels of a part by window; those of a small scene are read once."""
    if scene.grid.height * scene.grid.width > 1 << 26:
        return lambda window: split.labels(scene, window, part)
    whole = split.labels(scene, scene.grid.window, part)

    def cut(window: Window) -> npt.NDArray[np.uint8]:
        return whole[window.slices]

    return cut
