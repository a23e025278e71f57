"""Features of a frozen backbone, computed once for each window and read from disk afterwards."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from covermap.core.errors import ConfigError, CovermapError, OutputError
from covermap.core.output import writing
from covermap.core.types import Batch, Features
from covermap.nn.hybrid import Hybrid
from covermap.nn.model import Model, pad_to_multiple


class FeatureCache:
    """Maps of a frozen backbone by the windows' keys, as float16 in one file for each map.

    length: how many windows there can be. Disk: length * 2 bytes * all numbers of a window's maps, taken when they are
    first computed. Numbers differ from those of the backbone by at most one part in 2,000.
    """

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length
        self._slots: dict[str, int] = {}
        self._files: list[npt.NDArray[np.float16]] = []

    def encode(self, model: Model, batch: Batch) -> Features:
        """What the backbone makes of a batch; only new windows are computed. Raises OutputError, CovermapError."""
        new = list({key: i for i, key in enumerate(batch.keys) if key not in self._slots}.values())
        if new:
            part = pad_to_multiple(select(batch, new), model.multiple)
            self._store([batch.keys[i] for i in new], model.encode(part))
        slots = [self._slots[key] for key in batch.keys]
        device = batch.valid.device
        maps = tuple(torch.from_numpy(file[slots]).to(device).float() for file in self._files)
        return Features(maps, model.backbone.strides)

    def _store(self, keys: list[str], features: Features) -> None:
        arrays = [x.detach().half().cpu().numpy() for x in features.maps]
        if not all(np.isfinite(values).all() for values in arrays):
            raise CovermapError(
                "features of this backbone are too large for float16", fix="leave train.cache_features out"
            )
        if not self._files:
            self._allocate([values.shape[1:] for values in arrays])
        for key in keys:
            self._slots[key] = len(self._slots)
        for file, values in zip(self._files, arrays, strict=True):
            file[[self._slots[key] for key in keys]] = values

    def _allocate(self, shapes: list[tuple[int, ...]]) -> None:
        size = 2 * self.length * sum(int(np.prod(shape)) for shape in shapes)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if size > 0.9 * free:
                raise OutputError(
                    f"features of {self.length:,} windows take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                    fix="set fewer train.steps_per_epoch, or leave train.cache_features out",
                )
            for number, shape in enumerate(shapes):
                path = self.folder / f"map_{number}.npy"
                whole = (self.length, *shape)
                self._files.append(np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=whole))

    def clear(self) -> None:
        """Give the disk back."""
        self._files.clear()
        self._slots.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def select(batch: Batch, rows: list[int]) -> Batch:
    """Some windows of a batch, without labels."""
    return replace(
        batch,
        image={name: x[rows] for name, x in batch.image.items()},
        valid=batch.valid[rows],
        label=None,
        target=None,
        dates=tuple(batch.dates[i] for i in rows) if batch.dates else (),
        location=None if batch.location is None else batch.location[rows],
        keys=tuple(batch.keys[i] for i in rows),
    )


def require_cacheable(model: Model, *, sizes: int, variations: list[str]) -> None:
    """Raise ConfigError where a window's features would not be the same in every epoch."""
    if isinstance(model.backbone, Hybrid):
        raise ConfigError(
            "train.cache_features: what joins several backbones trains, so their features change",
            fix="leave it out, or use one backbone",
        )
    if not model.frozen:
        raise ConfigError(
            "train.cache_features: the backbone trains, so its features change", fix="set model.adapt: frozen or head"
        )
    if sizes > 1:
        raise ConfigError("train.cache_features goes with one window size", fix="give train.size_px one number")
    if variations:
        raise ConfigError(
            f"train.cache_features: {', '.join(variations)} would make each window new in every epoch",
            fix="turn it off; the eight symmetries (flips) may stay",
        )
