"""What is looked at while a backbone learns without labels: whether its vectors collapse, and what they tell.

windows that never change -> vectors -> spread, effective rank
labelled windows -> vectors -> ridge probe (train part -> val part), beside raw statistics of the bands
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from covermap.core.errors import CovermapError
from covermap.core.legend import IGNORE
from covermap.core.types import InputSpec, Sample
from covermap.data.chips import image_batch
from covermap.data.scene import Scene
from covermap.data.split import PARTS, Split
from covermap.data.unlabelled import UnlabelledWindows
from covermap.geo.grid import partition
from covermap.ml.ridge import RidgePath
from covermap.models import chip_features
from covermap.nn.ssl.method import Method
from covermap.nn.ssl.monitors import Verdict, judge

NUM_WINDOWS = 128
_CHIPS = 400
_FIRST = 1 << 40
"""Numbers of the windows that are looked at begin here: no training reaches them."""
_PATIENCE = 2
_FEWEST = 8
"""Windows of a part that a probe learns from, or is scored on."""


@dataclass
class Labelled:
    """Windows with labels, and the share of each class in them (N, K)."""

    samples: list[Sample] = field(default_factory=list)
    shares: list[npt.NDArray[np.float64]] = field(default_factory=list)


class Watch:
    """Looks at a method every now and then; raises CovermapError where it has collapsed several times in a row."""

    def __init__(
        self, scenes: Sequence[Scene], spec: InputSpec, windows: UnlabelledWindows, split: Split | None, *,
        size_px: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.spec, self.device = spec, device
        self.samples = [windows[_FIRST + i].sample for i in range(NUM_WINDOWS)]
        self.known, self.asked, self.part = Labelled(), Labelled(), "val"
        self.lacks = ""
        if split is not None and scenes[0].legend is not None:
            self.known, self.asked = (_labelled(scenes, split, part, size_px) for part in ("train", "val"))
            counts = {"train": len(self.known.samples), "val": len(self.asked.samples)}
            if counts["val"] < _FEWEST:  # settings are chosen by what is seen here: test is the last resort
                self.asked, self.part = _labelled(scenes, split, "test", size_px), "test"
                counts["test"] = len(self.asked.samples)
            if min(len(self.known.samples), len(self.asked.samples)) < _FEWEST:
                self.lacks = _lacking(split, counts, size_px)
        self.probes = min(len(self.known.samples), len(self.asked.samples)) >= _FEWEST
        self.verdict: Verdict | None = None
        self.collapsed = 0

    def raw(self, inputs: Collection[str]) -> dict[str, Any]:
        """R2 of a probe on raw statistics of what a network sees, which it has to beat, and the part that is scored.

        Without a probe why there is none, if there are labels.
        """
        if not self.probes:
            return {"no_probe": self.lacks} if self.lacks else {}
        r2 = self._probe(lambda samples: self._statistics(samples, inputs))
        return {"probe_r2_raw": r2, "probe_part": self.part}

    def __call__(self, method: Method) -> dict[str, float]:
        """spread, effective_rank, and with labels probe_r2, of a method as it is now."""
        was = method.training
        method.eval()
        self.verdict = judge(self._vectors(method, self.samples))
        row = {"spread": self.verdict.spread, "effective_rank": self.verdict.rank}
        if self.probes and math.isfinite(self.verdict.spread):  # no probe learns from what is no number
            row["probe_r2"] = self._probe(lambda samples: self._vectors(method, samples).double().numpy())
        method.train(was)
        return row

    def collapse(self, row: dict[str, Any], method: Method) -> str:
        """What says collapse, of the vectors of all windows or of a term below its floor; "" for none."""
        assert self.verdict is not None
        said = self.verdict.sentence if self.verdict.collapsed else ""
        for term, floor in method.floors.items():
            if term in row and row[term] < floor:
                said = said or f"{term} is {row[term]:.3g}, below {floor:.3g}"
        self.collapsed = self.collapsed + 1 if said else 0
        return said

    def require_life(self, said: str, step: int) -> None:
        """Raise CovermapError where collapse was said twice in a row, or vectors hold no numbers."""
        assert self.verdict is not None
        if self.collapsed >= _PATIENCE or not math.isfinite(self.verdict.spread):
            raise CovermapError(
                f"step {step}: {said}",
                fix="start again (--overwrite) with a lower train.lr, larger batches or stronger views; --resume would "
                "run into the same",
            )

    def _vectors(self, method: Method, samples: Sequence[Sample]) -> torch.Tensor:
        with torch.inference_mode():
            found = [method.embed(batch.to(self.device)).float().cpu() for batch in self._batches(samples)]
        return torch.cat(found)

    def _statistics(self, samples: Sequence[Sample], inputs: Collection[str]) -> npt.NDArray[np.float64]:
        rows = []
        for batch in self._batches(samples):
            seen = [x.flatten(1, 2).numpy() for name, x in batch.image.items() if name in inputs]
            stacked = np.concatenate(seen, 1)
            rows.append(chip_features(stacked, batch.valid.any(1).numpy()))
        return np.concatenate(rows).astype(np.float64)

    def _batches(self, samples: Sequence[Sample], size: int = 64) -> Iterator[Any]:
        for start in range(0, len(samples), size):
            yield image_batch(samples[start : start + size], self.spec)

    def _probe(self, embed: Any) -> float:
        """R2 of all classes' shares together in the val or test part, learnt from the train part (ml.ridge)."""
        path = RidgePath.of(embed(self.known.samples), np.stack(self.known.shares))
        truth = np.stack(self.asked.shares)
        errors = path.fit(path.choose()).predict(embed(self.asked.samples)) - truth
        return float(1 - (errors**2).sum() / max(((truth - truth.mean(0)) ** 2).sum(), 1e-12))


def _labelled(scenes: Sequence[Scene], split: Split, part: str, size_px: int) -> Labelled:
    """Windows that lie wholly in a part and are labelled for half of it, evenly taken from all scenes.

    They may show the buffer, whose labels are not used: a train part of single blocks has hardly a window without it.
    """
    legend = scenes[0].legend
    assert legend is not None
    whole = replace(split, buffer_px=0)
    places = [
        (scene, window) for scene in scenes for window in partition(scene.grid.window, size_px, size_px)
        if window.height == window.width == size_px and (whole.part_mask(scene.name, window) == PARTS.index(part)).all()
    ]  # fmt: skip
    found = Labelled()
    for at in np.random.default_rng(0).permutation(len(places)):
        scene, window = places[at]
        counts = np.bincount(split.labels(scene, window, part).ravel(), minlength=256)
        if counts[IGNORE] <= size_px**2 / 2:
            sample = scene.read(window)
            if sample.valid.any(0).mean() >= 0.5:
                found.samples.append(sample)
                found.shares.append(counts[: len(legend)] / counts[: len(legend)].sum())
        if len(found.samples) == _CHIPS:
            break
    return found


def _lacking(split: Split, counts: Mapping[str, int], size_px: int) -> str:
    """Why there is no probe although there are labels. The blocks are not made larger for it.

    A config that trains on the backbone with the same split section has to hold out the same ground.
    """
    told = ", ".join(f"{count:,} in {part}" for part, count in counts.items())
    sides = Counter(min(tile.window.height, tile.window.width) for tile in split.tiles if tile.part in counts)
    return (
        f"too few labelled windows of {size_px} px lie wholly in one part ({told}; {_FEWEST} in train and in val or "
        f"test are needed, most blocks are {sides.most_common(1)[0][0]} px): set split.block_px to a multiple of "
        f"{size_px}, here and where the backbone is trained on"
    )
