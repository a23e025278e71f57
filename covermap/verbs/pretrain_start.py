"""Everything between a recipe and the first step of a pre-training: data, input spec, backbone, method.

config -> scenes -> (split, if there are labels) -> statistics -> sensors seen and predicted -> backbone -> method
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from covermap.core.errors import BandError, ConfigError, suggest
from covermap.core.pretrain_config import PretrainConfig
from covermap.core.types import InputSpec
from covermap.data.make_split import make_split
from covermap.data.reference import with_known_ground
from covermap.data.scene import Scene, open_scenes, unknown_coordinates
from covermap.data.split import Split, Tile
from covermap.data.stats import input_spec, with_own_statistics
from covermap.earlier import with_earlier_parts
from covermap.nn.build import make_backbone
from covermap.nn.ssl.build import build_method
from covermap.nn.ssl.method import Method
from covermap.start import in_published_numbers, known_inputs, seed_all, starting_weights


@dataclass
class Ready:
    """What comes before the first step. spec: all sensors of a batch; seen: those of the backbone.

    build: name and options of the backbone, as its folder keeps them.
    split: of the labels or targets, if there are any; windows then are drawn outside of its val and test part.
    """

    scenes: list[Scene]
    spec: InputSpec
    seen: InputSpec
    split: Split | None
    weights: dict[str, Path]
    notes: list[str]
    build: Mapping[str, Any]


def prepare_pretraining(config: PretrainConfig) -> Ready:
    """Open the data and measure it; raises what train raises for data, and ConfigError for sensors not there."""
    run = with_earlier_parts(config.run)
    weights = starting_weights(run.model)
    opened = open_scenes(config.data)
    known, chips = with_known_ground(opened)
    split = None
    if known[0].labels is not None:
        split = make_split(known, config.split, size_px=config.train.size_px, chips=chips)
    whole = split or Split(tuple(Tile(s.name, s.grid.window, "train") for s in opened), 0)
    wanted = config.train.normalise
    measured = input_spec(
        opened, whole, normalise="dataset" if wanted in ("auto", "pretrained") else wanted,
        size_px=config.train.size_px, seed=config.train.seed,
    )  # fmt: skip
    elevation = getattr(config.method, "elevation", None)
    names = _seen(config, measured, elevation)
    kept = [entry for entry in measured.sensors if entry.sensor in (*names, elevation)]
    seen = replace(measured, sensors=tuple(entry for entry in kept if entry.sensor in names))
    with init_empty_weights():
        backbone = make_backbone(run.model.backbone, seen, run.model.backbone_options)
    notes = [*(note for scene in opened for note in scene.notes), *(split.notes if split else ()), *backbone.notes]
    notes += unknown_coordinates(opened, backbone.uses)
    if lost := [entry.sensor for entry in seen.sensors if entry.sensor in backbone.unused]:
        raise BandError(
            f"{run.model.backbone} makes nothing of {', '.join(lost)}",
            fix=f"name others in inputs: {', '.join(n for n in names if n not in lost) or 'none is left'}",
        )
    seen, said = in_published_numbers(seen, backbone, run, published=bool(weights))
    notes += said
    seen = known_inputs(seen, run, None, weights)
    seen = replace(
        seen, sensors=tuple(replace(e, optional=e.sensor in backbone.optional) for e in seen.sensors),
        fixed_size=not backbone.local, uses=backbone.uses,
    )  # fmt: skip
    spec = replace(seen, sensors=(*seen.sensors, *(e for e in kept if e.sensor not in names)))
    build = {"backbone": run.model.backbone, "backbone_options": dict(run.model.backbone_options)}
    return Ready(with_own_statistics(opened, spec), spec, seen, split, weights, notes, build)


def _seen(config: PretrainConfig, spec: InputSpec, elevation: str | None) -> tuple[str, ...]:
    """Names of the sensors that the backbone sees; raises ConfigError for one that is not there."""
    have = [entry.sensor for entry in spec.sensors]
    for key, name in (("method.elevation", elevation), *(("inputs", name) for name in config.inputs or ())):
        if name is not None and name not in have:
            raise ConfigError(f"{key}: the data has no sensor {name!r}", fix=suggest(name, have))
    names = tuple(config.inputs) if config.inputs else tuple(name for name in have if name != elevation)
    if elevation in names:
        raise ConfigError(f"inputs: {elevation} is what is to be predicted", fix="leave it out of inputs")
    if not names:
        raise ConfigError("there is no sensor left for the backbone to see", fix="add an image besides the elevation")
    if elevation and len(next(e for e in spec.sensors if e.sensor == elevation).bands) != 1:
        raise ConfigError(f"method.elevation: {elevation} has several bands", fix="use: [elevation] in its image")
    return tuple(name for name in have if name in names)


def build_pretraining(config: PretrainConfig, ready: Ready) -> Method:
    """Backbone and method before the first step; all random numbers follow from train.seed. Raises ModelError.

    A run that goes on begins so too: what a published file holds, such as a decoder, says which parts there are.
    """
    seed_all(config.train.seed)
    encoder = make_backbone(
        ready.build["backbone"], ready.seen, ready.build["backbone_options"], weights=ready.weights or None
    )
    names = tuple(entry.sensor for entry in ready.seen.sensors)
    return build_method(config.method, config.views, encoder, ready.spec, names, config.train.size_px)
