"""The classes of several dates decided together, from the layers of probabilities beside maps: what `change` compares.

Two passes: a sample of windows for the prior of transitions, then all windows for classes and P(change). Nothing
depends on the windows. Without a prior the maps' own classes stay, and P(change) comes beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.crosswalk import Crosswalk
from covermap.core.engine import cores, map_ordered
from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE, Legend
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import HISTORY, open_class_map
from covermap.data.class_probabilities import UNKNOWN, ClassProbabilities, open_probabilities
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.products import finish_map, names_beside, small_cache
from covermap.geo.registration import halo, misregistered
from covermap.geo.writer import RasterWriter
from covermap.ml.joint import decide_pair, decide_series
from covermap.ml.likeliest import highest
from covermap.ml.transitions import TransitionPrior
from covermap.verbs.transitions import ChangeProbability, Pair, sides, steps_of

ESTIMATED, NO_PRIOR = "estimate", "none"
TEMPERATURE = "COVERMAP_TEMPERATURE"
"""Tag of maps whose model's probabilities are calibrated by one."""
_SIDE_PX = 512
_POSTERIOR = 1 << 23
"""Numbers of the posteriors of a window, at most."""
_SAMPLE_SIDE_PX, _SAMPLE_PX = 256, 1 << 22
"""Of a window of the sample, and known pixels from which on it is large enough."""
_FILES = (
    "estimate", "none", "a share that stays, such as 0.95",
    "a table of transitions (CSV, YAML; matrix.csv of change between labels)",
)  # fmt: skip
Shares = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PriorRule:
    """Where the prior of transitions comes from: none (each date alone), estimate, a share that stays, or a file."""

    text: str = NO_PRIOR

    def read(self, legend: Legend) -> TransitionPrior | float | None:
        """The prior of a file, the share that stays, an even prior; None: to be estimated. Raises ConfigError."""
        if self.text == ESTIMATED:
            return None
        if self.text == NO_PRIOR:
            even = np.full(len(legend), 1 / len(legend))
            return TransitionPrior(np.outer(even, even), even, even)
        if Path(self.text).suffix.lower() in (".csv", ".yaml", ".yml"):
            return TransitionPrior.read(self.text, legend)
        try:
            share = float(self.text)
        except ValueError as error:
            raise ConfigError(f"{self.text!r} is no prior", fix=f"give {', '.join(_FILES)}") from error
        if not 0 < share < 1:
            raise ConfigError(f"a share of {share:g} that stays cannot be", fix="give for example 0.95")
        return share


@dataclass(frozen=True)
class Joint:
    """Maps of several dates with their probabilities, before and after they are decided together.

    forbidden (K, K): transitions that never happen. tolerance: pixels that a shift by so many px explains say nothing
    of the prior.
    """

    pairs: tuple[Pair, ...]
    """Of neighbouring dates, then from the first to the last of three or more."""
    layers: tuple[ClassProbabilities, ...]
    prior: PriorRule
    forbidden: npt.NDArray[np.bool_]
    tolerance: int | None = None
    priors: tuple[TransitionPrior, ...] = ()
    files: tuple[Path, ...] = ()

    @staticmethod
    def of(
        pairs: Sequence[Pair], prior: PriorRule, forbidden: npt.NDArray[np.bool_], tolerance: int | None = None
    ) -> Joint:  # fmt: skip
        """Opens the layer of each map; raises DataError, ConfigError, LabelError."""
        layers = tuple(open_probabilities(side.map, side.way) for side in sides(pairs))
        prior.read(pairs[0].legend)  # what cannot be read is found before any work
        return Joint(tuple(pairs), layers, prior, forbidden, tolerance)

    @property
    def legend(self) -> Legend:
        return self.pairs[0].legend

    @property
    def apart(self) -> bool:
        """Whether no date says anything of another: each keeps the classes of its map."""
        return self.prior.text == NO_PRIOR and not self.forbidden.any()

    @property
    def calibrated(self) -> bool:
        """Whether every map tells of a temperature that its model was given on labels."""
        return all(TEMPERATURE in side.map.tags for side in sides(self.pairs))

    @property
    def grid(self) -> Grid:
        return self.pairs[0].grid

    def to_dict(self) -> dict[str, Any]:
        """As it stands in change.json."""
        return {
            "prior": self.prior.text,
            "apart": self.apart,
            "changed_by_prior": [prior.changed for prior in self.priors],
            "probabilities": [str(layer.path) for layer in self.layers],
        }

    def notes(self, confidence: float | None) -> list[str]:
        """What has to be known of the decision; confidence: that is asked of a change."""
        together = (
            "the classes of all dates are decided together: change asks for more evidence than in maps of their own"
        )
        alone = (
            "no prior: each date has the classes of its own map; the probability of change is that of dates that tell "
            "nothing of each other, which is too high where little changes"
        )
        found = [alone if self.apart else together]
        if self.prior.text == ESTIMATED:
            found.append(
                "the prior is estimated as if errors of the dates were independent; one model errs alike on both, "
                "which looks like no change: labels of both dates tell better (--prior FILE)"
            )
        if any("COVERMAP_SHIFTED" in side.map.tags for side in sides(self.pairs)):
            found.append("probabilities of a map are shifted (decision.adjust or threshold): P(change) is shifted too")
        surest = max(prior.surest for prior in self.priors)
        if confidence is not None and confidence > surest:
            found.append(
                f"no change of two dates can be more probable than {surest:.1%}, as layers hold nothing below 1 / 400: "
                f"a confidence of {confidence:g} asks for more"
            )
        return found


@small_cache()
def decide_together(
    joint: Joint, outs: Sequence[Path], folder: Path, *, on_progress: Tick = unseen
) -> Joint:  # fmt: skip
    """Write a map of the classes of each date, `outs`, and P(change) into `folder`; the pairs then are of these.

    Memory: windows.
    """
    joint = replace(joint, priors=tuple(_prior(joint, number) for number in range(len(outs) - 1)))
    plain = [folder / f"date_{number}.tif" for number in range(len(outs))]
    change = [folder / f"change_{number}.tif" for number in range(len(joint.pairs))]
    _write(joint, plain, change, on_progress)
    files: list[Path] = []
    for path, out, side, layer in zip(plain, outs, sides(joint.pairs), joint.layers, strict=True):
        step = {"step": "change", "decided with": len(outs) - 1, "prior": joint.prior.text}
        tags = {HISTORY: json.dumps([*json.loads(side.map.tags.get(HISTORY, "[]")), step])}
        origin = [Path(name).name for name in (*side.map.files, str(layer.path))]
        done = finish_map(path, out, joint.legend, date=side.date, derived_from=origin, tags=tags, overwrite=True)
        path.unlink()
        files += done.files
    decided = [open_class_map(out) for out in outs]
    same = Crosswalk.identity(joint.legend)
    pairs = [
        Pair(decided[i], decided[j], same, same, pair.dates, ChangeProbability(path, joint.calibrated), pair.images)
        for (i, j), pair, path in zip(steps_of(len(outs)), joint.pairs, change, strict=True)
    ]
    return replace(joint, pairs=tuple(pairs), files=tuple(files))


def remove_decided(outs: Sequence[Path], priors: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Remove what `change` wrote of dates that it decided together, where a map of that name now compares others.

    Maps without that step in their history stay, and inputs.
    """
    kept = {path.resolve() for path in inputs}
    decided = [out for out in outs if out.resolve() not in kept and _is_decided(out)]
    for path in (
        *(file for out in decided for file in (out, *names_beside(out).values())),
        *(priors if decided else ()),
    ):
        path.unlink(missing_ok=True)


def _is_decided(path: Path) -> bool:
    """Whether a file is a map as `decide_together` writes it."""
    try:
        with rasterio.open(path) as dataset:
            steps = json.loads(dataset.tags().get(HISTORY, "[]"))
    except (*GDAL_ERRORS, ValueError):
        return False
    return bool(steps) and "decided with" in steps[-1]


def _write(joint: Joint, plain: Sequence[Path], change: Sequence[Path], on_progress: Tick) -> None:
    """Codes of each date and P(change) of each pair, as plain rasters."""
    legend, grid = joint.legend, joint.grid
    rows = _POSTERIOR // (_SIDE_PX * len(legend) * len(plain))
    windows = list(partition(grid.window, max(16, min(_SIDE_PX, rows)), _SIDE_PX))
    kinds = [{"dtype": legend.map_dtype, "nodata": legend.map_nodata}] * len(plain)
    kinds += [{"dtype": "float32", "nodata": float("nan")}] * len(change)
    writers = [
        RasterWriter(path, grid, bands=["value"], compress="none", lasting=False, **kind)  # type: ignore[arg-type]
        for path, kind in zip((*plain, *change), kinds, strict=True)
    ]

    def look(window: Window) -> list[npt.NDArray[Any]]:
        shares = [layer.read(window, grid) for layer in joint.layers]
        classes: tuple[npt.NDArray[np.uint8], ...]
        if len(shares) == 2:
            pair = decide_pair(shares[0], shares[1], joint.priors[0])
            classes, change = (pair.before, pair.after), [pair.change]
        else:
            series = decide_series(shares, joint.priors)
            classes, change = tuple(series.classes), [*series.change, series.overall]
        if joint.apart:  # shares are rounded: of two alike only the map knows which was larger
            classes = tuple(side.way.table[side.map.read(window, grid)] for side in sides(joint.pairs))
        return [*map(legend.decode, classes), *change]

    with ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        for number, found in enumerate(map_ordered(look, windows, workers=cores())):
            for writer, values in zip(writers, found, strict=True):
                writer.write(windows[number], values)
            on_progress(number + 1, len(windows))


def _prior(joint: Joint, number: int) -> TransitionPrior:
    """The prior of one step."""
    known = joint.prior.read(joint.legend)
    if isinstance(known, TransitionPrior):
        return known.without(joint.forbidden)
    found = TransitionPrior.estimate(_sample(joint, number), forbidden=joint.forbidden if known is None else None)
    if known is None:
        return found
    return TransitionPrior.persistence(known, (found.before + found.after) / 2).without(joint.forbidden)


def _sample(joint: Joint, number: int) -> Iterator[tuple[Shares, Shares]]:
    """Shares (K, H, W) of both dates of a step in windows at random places, without what a shift explains."""
    grid, seen = joint.grid, 0
    pad = halo(joint.tolerance) if joint.tolerance else 0
    windows = list(partition(grid.window, _SAMPLE_SIDE_PX, _SAMPLE_SIDE_PX))
    for at in np.random.default_rng(0).permutation(len(windows)):
        window = windows[at]
        one, other = (layer.read(window.pad(pad), grid) for layer in joint.layers[number : number + 2])
        if joint.tolerance:
            inner = (slice(pad, pad + window.height), slice(pad, pad + window.width))
            explained = misregistered(_classes(one), _classes(other), joint.tolerance)
            one, other = one[:, *inner].copy(), other[:, *inner]
            one[:, explained] = UNKNOWN
        yield one, other
        seen += int(((one[0] != UNKNOWN) & (other[0] != UNKNOWN)).sum())
        if seen >= _SAMPLE_PX:
            return


def _classes(shares: Shares) -> npt.NDArray[np.uint8]:
    """Class indices (H, W)."""
    return np.where(shares[0] == UNKNOWN, np.uint8(IGNORE), highest(shares)[0])
