"""What is looked at while a backbone learns without labels: whether its vectors collapse, and what they tell.

windows that never change -> vectors -> spread, effective rank
labelled windows -> vectors -> ridge probe (train part -> val part), beside raw statistics of the bands
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
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
        self.known, self.asked = Labelled(), Labelled()
        if split is not None and scenes[0].legend is not None:
            self.known, self.asked = (_labelled(scenes, split, part, size_px) for part in ("train", "val"))
            if len(self.asked.samples) < _FEWEST:  # settings are chosen by what is seen here: test is the last resort
                self.asked = _labelled(scenes, split, "test", size_px)
        self.probes = min(len(self.known.samples), len(self.asked.samples)) >= _FEWEST
        self.verdict: Verdict | None = None
        self.collapsed = 0

    def raw(self, inputs: Collection[str]) -> dict[str, float]:
        """R2 of a probe on raw statistics of what a network sees, which it has to beat; nothing without labels."""
        return {"probe_r2_raw": self._probe(lambda samples: self._statistics(samples, inputs))} if self.probes else {}

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

    def require_life(self, row: dict[str, Any], method: Method, step: int) -> None:
        """Raise CovermapError where vectors of all windows, or a term below its floor, said collapse twice in a row."""
        assert self.verdict is not None
        said = self.verdict.sentence if self.verdict.collapsed else ""
        for term, floor in method.floors.items():
            if term in row and row[term] < floor:
                said = said or f"{term} is {row[term]:.3g}, below {floor:.3g}"
        self.collapsed = self.collapsed + 1 if said else 0
        if self.collapsed >= _PATIENCE or not math.isfinite(self.verdict.spread):
            raise CovermapError(
                f"step {step}: {said}",
                fix="lower train.lr, give larger batches or stronger views; the last state is kept in checkpoints/",
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
    """Windows that lie wholly in a part and are labelled for half of it, evenly taken from all scenes."""
    legend = scenes[0].legend
    assert legend is not None
    places = [
        (scene, window) for scene in scenes for window in partition(scene.grid.window, size_px, size_px)
        if window.height == window.width == size_px and (split.part_mask(scene.name, window) == PARTS.index(part)).all()
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
