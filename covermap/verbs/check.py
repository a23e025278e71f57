"""`check`: what a run would do, before it does it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError, LabelError
from covermap.core.progress import Tick, unseen
from covermap.core.registry import find
from covermap.data.chips import scene_bytes, survey_chips
from covermap.data.split import PARTS, min_distance_px, part_counts
from covermap.data.stats import target_statistics
from covermap.earlier import with_earlier_parts
from covermap.start import Prepared, build_loss, build_network, prepare_run
from covermap.verbs.leaks import measure_leaks
from covermap.verbs.train import windows_per_epoch

FEW_PX, FEW_CHIPS = 200, 20
SHOWN = 8
LARGE_PX = 1 << 25
"""Scenes up to this size are held whole to measure distances: about 1 GB."""


def check(config: RunConfig, *, leaks: bool = False, on_progress: Tick = unseen) -> dict[str, Any]:
    """Open, split and measure the data of a config; raises whatever training would raise before its first step.

    leaks: also measure what a random split would feign (see measure_leaks).
    """
    config = with_earlier_parts(config)
    find("backbone", config.model.backbone)
    find("decoder", config.model.decoder)
    ready = prepare_run(config)
    build_network(config, ready)
    build_loss(config, ready)
    names, counts, unit, least = _counted(ready)
    notes = list(ready.notes)
    for part, row in counts.items():
        few = [n for n, c in zip(names, row, strict=True) if 0 < c < least]
        if few:
            notes.append(f"{part} has fewer than {least} {unit} of {', '.join(few)}: scores of them mean little")
    if config.baseline and importlib.util.find_spec("sklearn") is None:
        notes.append("no baseline: scikit-learn is not installed (pip install 'covermap[ml]')")
    small = [s for s in ready.scenes if s.grid.height * s.grid.width <= LARGE_PX]
    distances = [d for scene in small if (d := min_distance_px(ready.split, scene)) is not None]
    held = sum(scene_bytes(scene) for scene in ready.scenes)
    fits = held <= config.train.cache_gb * 1e9
    size_px = max(config.train.sizes_px)
    if leaks and (ready.task.kind.chips or ready.task.kind.takes != "classes"):
        raise ConfigError(f"--leaks compares classes of pixels, the task is {ready.task.name}", fix="leave it out")
    measured = leaks and measure_leaks(config.split, ready.scenes, ready.spec, size_px=size_px, on_progress=on_progress)
    return {
        "task": ready.task.name,
        "counted": unit,
        "classes": [
            {"class": name, **{part: int(counts[part][i]) for part in PARTS[1:]}} for i, name in enumerate(names)
        ],
        "scenes": "; ".join(f"{s.name} ({s.grid.describe()})" for s in ready.scenes[:SHOWN])
        + (f"; ... {len(ready.scenes):,} in all" if len(ready.scenes) > SHOWN else ""),
        "inputs": "; ".join(f"{s.sensor}: {', '.join(s.bands)}" for s in ready.spec.sensors),
        "targets": [
            {key: x if isinstance(x, str) else float(f"{x:.4g}") for key, x in row._asdict().items()}
            for row in target_statistics(ready.scenes, ready.split, size_px=max(config.train.sizes_px))
            if ready.task.kind.takes not in ("presence", "transitions")
        ],
        "distance_px": min(distances) if distances else "train and test share no scene",
        "windows_per_epoch": windows_per_epoch(config.train, ready),
        "memory": f"{held / 1e9:.2f} GB of pixels, {'held in memory' if fits else 'read from the files as needed'}",
        **({"leaks": measured} if measured else {}),
        "notes": notes,
    }


def _counted(ready: Prepared) -> tuple[Sequence[str], Mapping[str, npt.NDArray[np.int64]], str, int]:
    """Names, how many pixels or chips tell of each in each part, what is counted, and how many are few."""
    if not ready.task.kind.chips:
        legend = ready.scenes[0].legend
        assert legend is not None
        return legend.names, part_counts(ready.split, ready.scenes), "pixels", FEW_PX
    names, counts = ready.task.legend.names, {}
    for part in PARTS[1:]:
        try:
            chips = survey_chips(ready.scenes, ready.split, ready.task, part=part, size_px=ready.spec.size_px)
            counts[part] = chips.class_px
        except LabelError:  # a part without chips
            counts[part] = np.zeros(len(names), np.int64)
    return names, counts, "chips", FEW_CHIPS
