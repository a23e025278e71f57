"""What a prediction will take, before it starts: time from a few windows, memory and disk from its sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from covermap.core.engine import cores
from covermap.data.chips import image_batch
from covermap.geo.grid import Window
from covermap.infer import answers_of, crop
from covermap.models import LandModel
from covermap.verbs.map_job import MapJob

_TRIED = 3
"""Batches that are timed, after one that is not."""


@dataclass(frozen=True)
class Forecast:
    """Seconds with the workers of this machine; bytes held at once; bytes of the work folder and of plain layers.

    seconds is the bare network's time: reading and writing go on beside it. disk is an upper bound: maps are packed.
    """

    num_windows: int
    seconds: float
    memory: int
    disk: int

    @property
    def text(self) -> str:
        """One line."""
        minutes = f"{self.seconds / 60:.0f} min" if self.seconds >= 90 else f"{max(1, self.seconds):.0f} s"
        return (
            f"{self.num_windows:,} windows: about {minutes} of computing, {self.memory / 1e9:.1f} GB of memory, up to "
            f"{self.disk / 1e9:.2f} GB on disk while it works"
        )


def forecast(jobs: Sequence[MapJob], model: LandModel) -> Forecast:
    """For jobs of one model, by some windows in the middle of the largest scene."""
    settings = jobs[0].settings
    workers = 1 if settings.engine == "serial" else settings.workers or cores()
    num = sum(_num_windows(job, block) for job in jobs for block in job.blocks if not job.is_done(block))
    each = _seconds_per_window(max(jobs, key=lambda job: job.place.height * job.place.width), model) if num else 0.0
    held = max(_held(job) for job in jobs)
    disk = sum(job.place.height * job.place.width * _bytes_per_pixel(job) for job in jobs if not job.finished)
    return Forecast(num, num * each / workers, _own_bytes(model) + workers * held, int(2 * disk))


def _num_windows(job: MapJob, block: Window) -> int:
    """Windows that meet a block."""
    windows = job.windows
    rows = sum(r < block.row + block.height and r + windows.height > block.row for r in windows.rows)
    cols = sum(c < block.col + block.width and c + windows.width > block.col for c in windows.cols)
    return rows * cols


def _seconds_per_window(job: MapJob, model: LandModel) -> float:
    import torch

    windows, scene = job.windows, job.scene
    row, col = windows.rows[len(windows.rows) // 2], windows.cols[len(windows.cols) // 2]
    window = Window(row, col, windows.height, windows.width)
    sample = scene.read(window)
    one = crop(sample, Window(0, 0, window.height, window.width), window, scene)
    batch = image_batch([one] * job.settings.batch_size, model.spec)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        answers_of(model, batch, job.settings.tta)
        start = time.perf_counter()
        for _ in range(_TRIED):
            answers_of(model, batch, job.settings.tta)
        return (time.perf_counter() - start) / _TRIED / job.settings.batch_size
    finally:
        torch.set_num_threads(threads)


def _held(job: MapJob) -> int:
    """Bytes of a worker: a column of windows with its inputs and answers, twice, and a block's layers."""
    block = max(job.blocks, key=lambda b: b.height * b.width)
    bands = sum(len(entry.bands) * entry.num_dates for entry in job.card.spec.sensors)
    column = (len(job.card.legend) + 4 * bands) * (block.height + 2 * job.windows.height) * job.windows.width * 4
    return column + int(block.height * block.width * _bytes_per_pixel(job)) + 300_000_000


def _bytes_per_pixel(job: MapJob) -> float:
    if job.numbers:
        return 4.0 * len(job.card.legend) + len(job.layers)
    return np.dtype(job.card.legend.map_dtype).itemsize + sum(
        len(layer.bands) if layer.key == "shares" else 1 for layer in job.layers.values()
    )


def _own_bytes(model: LandModel) -> int:
    """Bytes of a network's weights; of other models little."""
    network = getattr(model, "network", None)
    return sum(p.numel() * p.element_size() for p in network.parameters()) if network is not None else 0
