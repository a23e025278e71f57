"""SimCLR and GLCNet, each with or without elevation: two views of a window are alike, those of others are not.

a MSE(elevation) + (1 - a) [b global + (1 - b) local]      GLCNet (Li et al. 2022), with elevation (arXiv 2304.06857)
a MSE(elevation) + (1 - a) global                          SimCLR (Chen et al. 2020)

global: of one vector of each view, its mean over space; for GLCNet its style, mean and variance. local: of regions that
both views show, found by the affines of the views, averaged over all maps of the encoder. elevation: of the window as
it is, coarse, by the mean of what is valid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import GlcnetConfig, SimclrConfig, ViewConfig
from covermap.core.types import Batch, InputSpec
from covermap.nn.embedding import cells, merged, vectors
from covermap.nn.losses.base import precise
from covermap.nn.model import Backbone
from covermap.nn.ssl.heads import CoarseRegressor, MlpHead, region_average, style
from covermap.nn.ssl.inputs import require_windows, seen_by
from covermap.nn.ssl.losses import masked_regression, nt_xent
from covermap.nn.ssl.method import Method
from covermap.nn.ssl.views import View, Views, mask_of, matched_regions


class SimCLR(Method):
    """Terms: global, and with elevation, elevation. With a = 0 elevation is left out altogether."""

    config: SimclrConfig

    def __init__(
        self, config: SimclrConfig, views: ViewConfig, encoder: Backbone, spec: InputSpec, inputs: Sequence[str],
        size_px: int,
    ) -> None:  # fmt: skip
        super().__init__()
        _require_elevation(config, spec, inputs)
        self.config, self.encoder, self.inputs = config, encoder, tuple(inputs)
        self.views = Views(views, spec, inputs, size_px)
        self._build_heads()
        # Last, so that all before it starts from the same random numbers with and without elevation.
        self.regressor = None
        if config.elevation and config.alpha > 0:
            cells_of_side = size_px / encoder.strides[-1]
            self.regressor = CoarseRegressor(encoder.channels[-1], cells=cells_of_side, grid=config.elevation_px)

    def _build_heads(self) -> None:
        width = self.encoder.channels[-1]
        self.head = MlpHead(width, width, self.config.projection)

    def forward(self, batch: Batch, seeds: Sequence[int]) -> dict[str, Tensor]:
        """See Method; raises ConfigError for a batch of one window, DataError for a sensor that no window has."""
        require_windows(batch, self.config.name)
        seen = seen_by(self.encoder, batch, self.inputs)
        contrast, terms = self.contrast(self.views(seen, seeds, 0), self.views(seen, seeds, 1), seeds)
        if self.regressor is None:
            return {"loss": contrast, **terms}
        elevation = self.elevation(batch, self.regressor(cells(self.encoder, seen)[0]))
        alpha = self.config.alpha
        return {"loss": alpha * elevation + (1 - alpha) * contrast, **terms, "elevation": elevation}

    def contrast(self, first: View, second: View, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Two views -> their loss without elevation, and its terms."""
        a, b = (self.head(vectors(self.encoder, view.batch)) for view in (first, second))
        loss = self._nt_xent(a, b)
        return loss, {"global": loss}

    def _nt_xent(self, a: Tensor, b: Tensor, present: Tensor | None = None) -> Tensor:
        config = self.config
        return nt_xent(a, b, config.temperature, drop_positive=config.drop_positive, present=present)

    def elevation(self, batch: Batch, prediction: Tensor) -> Tensor:
        """Predicted elevation (B, 1, g, g) -> its mean squared error where it is known, in normalised numbers."""
        assert self.config.elevation is not None
        target, known = coarse(batch, self.config.elevation, self.config.elevation_px)
        return masked_regression(prediction, target, known)


class GLCNet(SimCLR):
    """Terms: global, local, and with elevation, elevation."""

    config: GlcnetConfig

    def _build_heads(self) -> None:
        if self.config.region_px >= self.views.size_px:
            raise ConfigError(
                f"method.region_px: {self.config.region_px} is no part of a window of {self.views.size_px} px",
                fix=f"region_px: {max(1, self.views.size_px // 4)}, or a larger train.size_px",
            )
        width, regional = self.encoder.channels[-1], sum(self.encoder.channels)
        self.head = MlpHead(2 * width, width, self.config.projection)
        self.local_head = MlpHead(regional, width, self.config.projection)

    def contrast(self, first: View, second: View, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Two views -> b global + (1 - b) local, and both."""
        config = self.config
        *boxes, there = matched_regions(first, second, seeds, count=config.regions, side_px=config.region_px)
        whole, parts = [], []
        for view, where in zip((first, second), boxes, strict=True):
            features, share = merged(self.encoder, view.batch)
            whole.append(self.head(style(features.maps[-1], share)))
            pooled = [region_average(x, where / s) for x, s in zip(features.maps, features.strides, strict=True)]
            parts.append(self.local_head(torch.cat(pooled, -1).flatten(0, 1)))
        terms = {
            "global": self._nt_xent(whole[0], whole[1]),
            "local": self._nt_xent(parts[0], parts[1], there.flatten()),
        }
        return config.beta * terms["global"] + (1 - config.beta) * terms["local"], terms


def coarse(batch: Batch, sensor: str, cells: int) -> tuple[Tensor, Tensor]:
    """A sensor of one band -> its mean over what is valid on a grid (B, 1, g, g), and where there is any.

    A window in which it is 0 throughout has none. Raises DataError where the batch lacks it or it has more bands.
    """
    if sensor not in batch.image:
        raise DataError(
            f"windows hold {', '.join(batch.image)} but no {sensor}, which is to be predicted",
            fix="add its images to the data, or leave method.elevation out",
        )
    x = batch.image[sensor]
    if x.shape[2] != 1:
        raise DataError(f"{sensor} has {x.shape[2]} bands, elevation is one", fix="name one band of it")
    known = mask_of(batch.valid, x) & (x != 0).flatten(1).any(1)[:, None, None, None, None]
    share = functional.adaptive_avg_pool2d(known.any(1).float(), (cells, cells))
    seen = functional.adaptive_avg_pool2d((precise(x) * known).sum(1) / known.sum(1).clamp_min(1), (cells, cells))
    return seen / share.clamp_min(1e-6), share > 0


def _require_elevation(config: SimclrConfig, spec: InputSpec, inputs: Sequence[str]) -> None:
    if config.elevation in inputs:
        raise ConfigError(
            f"method.elevation: {config.elevation} is among inputs, and what is seen need not be predicted",
            fix=f"inputs: [{', '.join(name for name in inputs if name != config.elevation)}]",
        )
    bands = next((entry.bands for entry in spec.sensors if entry.sensor == config.elevation), ("",))
    if len(bands) > 1:
        raise ConfigError(
            f"method.elevation: {config.elevation} has bands {', '.join(bands)}, one is predicted", fix="name one band"
        )
