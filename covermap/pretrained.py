"""What a pre-training leaves: a folder with a backbone, its bands and scaling, that a config names as its backbone.

model: {backbone: runs/NAME}  ->  backbone and options by the folder's card, weights: the folder's file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from covermap.card import ENCODER, ModelCard
from covermap.core.errors import BandError, ConfigError, ModelError
from covermap.core.output import replacing
from covermap.core.task import Task
from covermap.core.train_config import ModelConfig
from covermap.core.types import InputSpec
from covermap.data.reference import KNOWN
from covermap.hub import model_folder
from covermap.models import read_card, save_card, weights_path
from covermap.nn.build import make_backbone
from covermap.nn.model import Backbone
from covermap.nn.own import is_own, save_backbone, tensors_alone


@dataclass(frozen=True)
class Pretrained:
    """The backbone of a folder: `name` as the config gives it, its file of weights, what is known of it."""

    name: str
    weights: Path
    card: ModelCard

    @staticmethod
    def open(name: str) -> Pretrained:
        """Raises ModelError where there is no backbone, or a model with classes."""
        folder = model_folder(name)
        card = read_card(folder)
        if card.kind != ENCODER:
            raise ModelError(
                f"model.backbone: {name} holds a {card.kind}, no backbone alone",
                fix="model.start goes on from a trained network; covermap pretrain makes a backbone",
            )
        return Pretrained(name, weights_path(folder), card)

    @staticmethod
    def of_weights(weights: Path) -> Pretrained | None:
        """That of a file of weights, if it was written here."""
        if not is_own(weights):
            return None
        return Pretrained(str(weights.parent), weights, read_card(weights.parent))

    def inputs(self, spec: InputSpec, *, keep: bool) -> InputSpec:
        """The data's inputs, in the order of the pre-training; keep: with its mean and std where numbers are the same.

        Raises BandError for sensors that it was not trained on, other bands, and sensors missing that it needs.
        """
        theirs = {entry.sensor: entry for entry in self.card.spec.sensors}
        known = "; ".join(f"{e.sensor}: {', '.join(e.bands)}" for e in theirs.values())
        sensors = []
        for mine in spec.sensors:
            other = theirs.get(mine.sensor)
            if other is None or other.bands != mine.bands:
                raise BandError(
                    f"{self.name} was pre-trained on {known}; the data has {mine.sensor}: {', '.join(mine.bands)}",
                    fix="give the same bands in the same order (use: [...] in data), or pre-train on these",
                )
            same = all(getattr(mine, key) == getattr(other, key) for key in ("scale", "offset", "quantity"))
            numbers = {key: getattr(other, key) for key in ("mean", "std", "clip", "per_scene")}
            sensors.append(replace(mine, **numbers) if keep and same else mine)
        # Where bands are stacked, weights stand for them in the order of the pre-training.
        sensors.sort(key=lambda entry: list(theirs).index(entry.sensor))
        have = {entry.sensor for entry in spec.sensors}
        lost = [e.sensor for e in theirs.values() if e.sensor not in have and not e.optional]
        if lost:
            raise BandError(f"{self.name} needs {lost[0]}, which the data lacks", fix="add its images to data.image")
        return replace(spec, sensors=tuple(sensors))


def with_pretrained(model: ModelConfig) -> ModelConfig:
    """The section with a backbone that is a folder replaced by its name, options and file; raises ModelError."""
    name = model.backbone
    if ".py:" in name or "/" not in name:
        return model
    if "+" in name and not Path(name).exists():
        raise ConfigError(
            f"model.backbone: {name}: a folder is a backbone by itself, no part of a sum",
            fix="name it alone, or others",
        )
    found = Pretrained.open(name)
    for key, default in (("backbone_options", {}), ("weights", "auto"), ("start", None)):
        if getattr(model, key) != default:
            raise ConfigError(f"model.{key} has no effect with backbone: {name}, which has its own", fix="leave it out")
    build = {key: found.card.build[key] for key in ("backbone", "backbone_options")}
    return model.model_copy(update={**build, "weights": str(found.weights)})


def save_pretrained(
    backbone: Backbone, spec: InputSpec, build: Mapping[str, Any], facts: Mapping[str, Any], folder: Path
) -> Path:
    """Write a backbone's folder, whole or not at all, replacing an earlier one. build: backbone, backbone_options."""

    def empty(part: InputSpec) -> Backbone:
        with init_empty_weights():
            return make_backbone(build["backbone"], part, build["backbone_options"])

    task = Task("segmentation", KNOWN)
    counted = {"dimensions": backbone.channels[-1], "parameters": sum(p.numel() for p in backbone.parameters())}
    with replacing(folder) as partial:
        partial.mkdir(parents=True)
        save_backbone(backbone, partial / "model.safetensors", tensors_alone(backbone, spec, empty))
        save_card(ModelCard(ENCODER, spec, task, dict(build), {**facts, **counted}), partial)
    return folder
