"""Everything between a config and the first training step: data opened and split, inputs measured, weights found.

config -> scenes -> split -> statistics -> the backbone's own wishes -> input spec
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError, LabelError
from covermap.core.train_config import ModelConfig
from covermap.core.types import InputSpec
from covermap.data.augment import require_effect
from covermap.data.balance import Sampling, plan_sampling
from covermap.data.chips import Survey, survey
from covermap.data.make_split import make_split
from covermap.data.scene import Scene, open_scenes, unknown_coordinates
from covermap.data.split import Split
from covermap.data.stats import input_spec, with_own_statistics, with_statistics
from covermap.hub import checkpoint_sum, place_of, require_file
from covermap.nn.adapt import adapt, load_adapter
from covermap.nn.model import Model, build_model
from covermap.nn.published import published_of


@dataclass
class Prepared:
    """Everything that comes before the first step, made once from the config.

    weights: the file that the backbone starts from, if any.
    """

    scenes: list[Scene]
    split: Split
    spec: InputSpec
    survey: Survey
    sampling: Sampling
    notes: list[str]
    weights: Path | None = None

    @property
    def has_val(self) -> bool:
        """Whether there is a part to choose a checkpoint by."""
        return any(tile.part == "val" for tile in self.split.tiles)


def prepare_run(config: RunConfig, *, resume: bool = False) -> Prepared:
    """Open the data, split it, measure the train part. Raises DataError or LabelError for what does not fit.

    resume: the run has weights of its own, so the published ones need not be here any more.
    """
    if config.data.labels is None and config.data.source is None:
        raise LabelError("the config names no labels", fix="set data.labels to a raster, polygons or points")
    weights = starting_weights(config.model, required=not resume)
    method = config.model.adaptation.method
    if method != "full" and weights is None and not resume:
        raise ConfigError(
            f"model.adapt: {method} keeps {config.model.backbone} at random weights, which nothing can be learnt from",
            fix="use adapt: full, or a backbone with published weights: covermap models list",
        )
    scenes = open_scenes(config.data)
    split = make_split(scenes, config.split, size_px=max(config.train.sizes_px))
    spec, wishes = _inputs(config, scenes, split, weights)
    scenes = with_own_statistics(scenes, spec)
    require_effect(config.train.augment, spec)
    longest = max(max(scene.grid.height, scene.grid.width) for scene in scenes)
    found = survey(scenes, split, cell_px=int(np.clip(longest // 64, 1, 32)))
    legend = scenes[0].legend
    assert legend is not None
    sampling = plan_sampling(found.cell_px, method=config.train.sampling, rare=config.train.rare, names=legend.names)
    notes = [*(note for scene in scenes for note in scene.notes), *split.notes, *wishes, *sampling.notes]
    ready = Prepared(scenes, split, spec, found, sampling, notes, weights)
    if not ready.has_val:
        if config.train.schedule == "plateau" or config.train.patience:
            raise ConfigError("train.schedule plateau and train.patience need a val part", fix="set split.val: 0.2")
        ready.notes.append("there is no val part: the model of the last epoch is kept")
    return ready


def starting_weights(config: ModelConfig, *, required: bool = True) -> Path | None:
    """The file that the backbone starts from, by model.weights: auto, none or a path.

    auto: the published file, or nothing for backbones that have none. Raises ModelError where it is required and
    not here.
    """
    if config.weights != "auto":
        return None if config.weights == "none" else Path(config.weights)
    published = published_of(config.backbone)
    if published is None or not published.repo:
        return None
    return require_file(config.backbone, published) if required else place_of(config.backbone, published)


def build_arguments(config: ModelConfig) -> dict[str, Any]:
    """What build_model needs besides the data, as it is kept in a model folder."""
    return {
        "backbone": config.backbone,
        "decoder": config.decoder,
        "backbone_options": config.backbone_options,
        "decoder_options": config.decoder_options,
        "dates": config.dates,
        "neck": config.neck,
        "pixel_width": config.pixel_width,
    }


def build_network(config: RunConfig, ready: Prepared, *, resume: bool = False) -> Model:
    """The network before its first step; all random numbers of a run follow from train.seed. Raises ModelError."""
    random.seed(config.train.seed)
    np.random.seed(config.train.seed)  # noqa: NPY002 - libraries that draw from the global state
    torch.manual_seed(config.train.seed)
    legend = ready.scenes[0].legend
    assert legend is not None
    weights = None if resume else ready.weights
    network = build_model(ready.spec, len(legend), **build_arguments(config.model), weights=weights)
    settings = config.model.adaptation
    ready.notes += adapt(network, settings)
    if network.decoder.has_own_loss:
        ready.notes.append(f"{config.model.decoder} has its own loss: train.loss and class_weights have no effect")
    if settings.adapter and not resume:
        assert weights is not None  # only full training does without
        base = {"backbone": config.model.backbone, "weights": checkpoint_sum(weights)}
        load_adapter(network, settings.adapter, base=base)
    return network


def _inputs(
    config: RunConfig, scenes: Sequence[Scene], split: Split, weights: Path | None
) -> tuple[InputSpec, list[str]]:
    """The input spec by the data's numbers or the published ones, and notes on what the backbone makes of the data."""
    wanted = config.train.normalise
    measured = input_spec(
        scenes,
        split,
        normalise="dataset" if wanted in ("auto", "pretrained") else wanted,
        size_px=max(config.train.sizes_px),
        seed=config.train.seed,
    )
    legend = scenes[0].legend
    assert legend is not None
    with init_empty_weights():
        network = build_model(measured, len(legend), **build_arguments(config.model))
    backbone = network.backbone
    if network.neck is not None and len(network.decoder.uses(4)) == 1:
        raise ConfigError(
            f"{config.model.backbone} with {config.model.decoder}: the decoder reads one map alone, which "
            f"model.neck: {config.model.neck} would only make coarser", fix="use model.neck: auto",
        )  # fmt: skip
    notes = [*backbone.notes, *unknown_coordinates(scenes, backbone.uses)]
    if backbone.dates == "one" and measured.num_dates > 1 and config.model.dates is None:
        notes.append(f"{config.model.backbone} takes one date at a time: the features of the dates are averaged")
    # The expert on single pixels needs all bands of all sensors.
    optional = frozenset() if config.model.pixel_width else backbone.optional
    unused = frozenset() if config.model.pixel_width else backbone.unused
    measured = replace(measured, sensors=tuple(e for e in measured.sensors if e.sensor not in unused))
    if config.train.augment.drop_sensors and not (optional and len(measured.sensors) > 1):
        raise ConfigError(
            "train.augment.drop_sensors has no effect: it needs two sensors, a backbone that may lack one, "
            "and no expert on single pixels",
            fix="leave it out, or use a backbone such as terramind_v1_tiny or galileo_nano and model.pixel_width: 0",
        )
    spec = measured
    if wanted == "pretrained" and not backbone.statistics:
        raise ConfigError(
            f"train.normalise: pretrained: {config.model.backbone} has no published statistics of such data",
            fix="use dataset or percentile",
        )
    if wanted == "pretrained" or (wanted == "auto" and weights is not None and backbone.statistics):
        spec, said = with_statistics(spec, backbone.statistics)
        notes += said
    sensors = tuple(replace(entry, optional=entry.sensor in optional) for entry in spec.sensors)
    return replace(spec, sensors=sensors, fixed_size=not backbone.local, uses=backbone.uses), notes
