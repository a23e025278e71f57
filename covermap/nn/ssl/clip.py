"""Contrast between sensors (CLIP, Radford et al. 2021; S2 and S1 in arXiv 2310.00119): what one sees, the others see.

One encoder sees each sensor alone; a head for each brings it to one space, in which sensors of a window are to find
each other among all windows. Windows may lack sensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import ClipConfig, ViewConfig
from covermap.core.types import Batch, InputSpec
from covermap.nn.embedding import vectors
from covermap.nn.model import Backbone
from covermap.nn.ssl.gather import gather_flags
from covermap.nn.ssl.heads import MlpHead
from covermap.nn.ssl.inputs import presence, require_windows, seen_by
from covermap.nn.ssl.losses import info_nce_pairs
from covermap.nn.ssl.method import Method, generators
from covermap.nn.ssl.views import Views

_DROP = 800
_SHARPEST, _BLUNTEST = 0.01, 1.0
"""Temperatures between which the learnt one stays; the paper has the first."""


class CLIP(Method):
    """Terms: contrast, and the temperature. Sensors of a window share a view's place; brightness is each one's."""

    def __init__(
        self, config: ClipConfig, views: ViewConfig, encoder: Backbone, spec: InputSpec, inputs: Sequence[str],
        size_px: int,
    ) -> None:  # fmt: skip
        super().__init__()
        _require_sensors(config, encoder, inputs)
        self.config, self.encoder, self.inputs = config, encoder, tuple(inputs)
        self.views = Views(views, spec, inputs, size_px)
        width = encoder.channels[-1]
        self.heads = nn.ModuleList(MlpHead(width, width, config.projection) for _ in inputs)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    def forward(self, batch: Batch, seeds: Sequence[int]) -> dict[str, Tensor]:
        """See Method; raises ConfigError for a batch of one window, DataError where no window has two sensors."""
        require_windows(batch, self.config.name)
        there = presence(batch, self.inputs)
        if not bool((gather_flags(torch.stack(list(there.values()), 1)).sum(1) > 1).any()):
            raise DataError(
                f"no window of the batch has two of the sensors {', '.join(self.inputs)}",
                fix="give sensors of the same places, or larger batches where few places have several",
            )
        view = self.views(seen_by(self.encoder, batch, self.inputs), seeds, 0).batch
        loss = info_nce_pairs(self.project(view), self._drop(there, seeds), self.log_temperature)
        return {"loss": loss, "contrast": loss, "temperature": self.log_temperature.detach().exp()}

    def after_step(self, progress: float) -> None:
        """The temperature stays within its bounds."""
        with torch.no_grad():
            self.log_temperature.clamp_(math.log(_SHARPEST), math.log(_BLUNTEST))

    def project(self, batch: Batch) -> dict[str, Tensor]:
        """{sensor: (B, D)} in the common space, each from that sensor alone; 0 for one that the batch lacks."""
        found = {}
        for name, head in zip(self.inputs, self.heads, strict=True):
            if name in batch.image:
                alone = replace(batch, image={name: batch.image[name]}, dates=(), location=None)
                found[name] = head(vectors(self.encoder, alone))
            else:
                found[name] = torch.zeros(len(batch), self.config.projection, device=batch.valid.device)
        return found

    def _drop(self, there: dict[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Sensors (B,) bool without those that chance takes from each window; two of those there stay."""
        if not self.config.drop_sensors:
            return there
        have = torch.stack(list(there.values()), 1)
        drawn = np.stack([rng.random(len(there)) for rng in generators(seeds, _DROP)])
        chance = torch.from_numpy(drawn).to(have.device).masked_fill(~have, -1)
        best = torch.zeros_like(have).scatter(1, chance.topk(2, 1).indices, True)
        stays = have & ((chance >= self.config.drop_sensors) | best)
        return dict(zip(there, stays.unbind(1), strict=True))


def _require_sensors(config: ClipConfig, encoder: Backbone, inputs: Sequence[str]) -> None:
    if len(inputs) < 2:
        raise ConfigError(
            f"clip was given {', '.join(inputs) or 'no sensor'} and tells sensors of two or more apart",
            fix="name more in inputs, or use method: simclr",
        )
    needed = [name for name in inputs if name not in encoder.optional]
    if needed:
        raise ConfigError(
            f"clip shows each sensor alone, and {type(encoder).__name__} cannot do without {', '.join(needed)}",
            fix="model: {backbone: galileo_nano}, or another that takes sensors one by one: covermap models list",
        )
    if config.drop_sensors and len(inputs) == 2:
        raise ConfigError("method.drop_sensors has no effect on two sensors, for two stay", fix="leave it out")
