"""A trained network that another one starts from (model.start), or whose features another one adds (model.extra)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import Tensor

from covermap.card import ENCODER, ModelCard
from covermap.core.config import RunConfig
from covermap.core.errors import BandError, GridError, ModelError
from covermap.core.task import KINDS, SIAMESE, Task
from covermap.core.train_config import ModelConfig
from covermap.core.types import InputSpec
from covermap.geo.grid import similar_gsd
from covermap.hub import checkpoint_sum, model_folder
from covermap.models import read_card, weights_path
from covermap.nn.build import build_model
from covermap.nn.hybrid import Extra
from covermap.nn.model import Model
from covermap.nn.weights import read_tensors
from covermap.pretrained import with_pretrained


@dataclass(frozen=True)
class Earlier:
    """The model behind a setting: `name` as the config gives it, a folder, a run or hf://OWNER/NAME."""

    name: str
    weights: Path
    card: ModelCard

    @staticmethod
    def open(name: str, *, setting: str) -> Earlier:
        """Raises ModelError for a forest, or where there is no model."""
        folder = model_folder(name)
        card = read_card(folder)
        if card.kind != "network":
            other = "name it as model.backbone" if card.kind == ENCODER else "give the folder model/ of a run"
            raise ModelError(f"{setting}: {name} holds a {card.kind}", fix=other)
        return Earlier(name, weights_path(folder), card)

    @property
    def description(self) -> dict[str, Any]:
        """What build_model needs to add this network's features."""
        return {"input": self.card.spec.to_dict(), "num_classes": self.card.task.num_channels, "build": self.card.build}

    def require_gsd(self, gsd_m: float) -> None:
        """Raise GridError where its features would be of another pixel size than it was trained on."""
        theirs = self.card.spec.gsd_m
        if theirs and not similar_gsd(gsd_m, theirs):
            raise GridError(
                f"model.extra: {self.name} was trained at {theirs:.4g} m, the images have pixels of {gsd_m:.4g} m",
                fix=f"set gsd_m: {theirs:.4g} in the image's entry, or train the first network at {gsd_m:.4g} m",
            )

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of its weights."""
        return checkpoint_sum(self.weights)

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name."""
        return read_tensors(self.weights)

    def require_same_parts(self, build: Mapping[str, Any]) -> None:
        """Raise ModelError where it is another network than the arguments of build_model mean."""
        for key, mine in json.loads(json.dumps(build)).items():
            field = ModelConfig.model_fields.get(key)
            theirs = self.card.build.get(key, field.default if field else None)
            if theirs != mine and key == "extra":
                raise ModelError(
                    f"model.start: {self.name} adds {'no' if theirs is None else 'other'} features of an earlier model",
                    fix="leave model.extra out: what the model has is kept",
                )
            if theirs != mine:
                raise ModelError(
                    f"model.start: {self.name} has {key} {theirs}, the config asks for {mine}",
                    fix=f"leave model.{key} out, or start from published weights (model.weights)",
                )

    def inputs(self, spec: InputSpec, *, keep: bool) -> InputSpec:
        """The data's inputs; keep: with mean and std of this model's training where the sensor is the same.

        Raises BandError where bands or dates are not those that its weights stand for.
        """
        sensors = []
        for position, theirs in enumerate(self.card.spec.sensors):
            mine = spec.sensors[position] if position < len(spec.sensors) else None
            if mine is None or mine.bands != theirs.bands or mine.num_dates != theirs.num_dates:
                have = "; ".join(f"{e.sensor}: {', '.join(e.bands)} ({e.num_dates} dates)" for e in spec.sensors)
                raise BandError(
                    f"model.start was trained on {theirs.sensor}: {', '.join(theirs.bands)} ({theirs.num_dates} dates)"
                    f"; the data has {have}",
                    fix="give the same bands in the same order (use: [...] in data)",
                )
            same = all(getattr(mine, key) == getattr(theirs, key) for key in ("sensor", "scale", "offset", "quantity"))
            numbers = {key: getattr(theirs, key) for key in ("mean", "std", "clip", "per_scene")}
            sensors.append(replace(mine, **numbers) if keep and same else mine)
        if len(spec.sensors) > len(sensors):
            further = spec.sensors[len(sensors)].sensor
            raise BandError(f"model.start was not trained on {further}", fix="leave the sensor out")
        return replace(spec, sensors=tuple(sensors))

    def units_of(self, task: Task) -> Task:
        """The task with mean and std that this model's answers are in, where the numbers are the same."""
        theirs = self.card.task
        same = task.kind.takes == theirs.kind.takes == "numbers" and task.legend.names == theirs.legend.names
        return task.scaled(theirs.mean, theirs.std) if same and task.units == theirs.units else task

    def fill(self, network: Model, build: Mapping[str, Any], task: Task) -> str:
        """Give a network these weights; what is there for each class follows the class's name, new classes start anew.

        Returns a note; raises ModelError where weights do not fit.
        """
        if self.card.task.name != task.name and {self.card.task.name, task.name} & set(SIAMESE):
            raise ModelError(
                f"model.start: {self.name} is of task {self.card.task.name}, not {task.name}: their networks differ",
                fix="start from a model of the same task, or from published weights (model.weights)",
            )
        old, new = self.card.legend.names, task.legend.names
        if old != new and "order" in (task.kind.takes, self.card.task.kind.takes):
            raise ModelError(
                f"model.start: {self.name} tells {', '.join(old)} apart, classes in order; the data has "
                f"{', '.join(new)}", fix="use the same task.breaks, or leave model.start out",
            )  # fmt: skip
        tensors, own = self.tensors(), network.state_dict()
        if old != new:
            # What changes its shape with the number of classes has a row for each.
            each = 2 if task.kind.takes == "transitions" else 1
            with init_empty_weights():
                larger = build_model(network.spec, task.num_channels + each, **build).state_dict()
            pairs = [(new.index(each), old.index(each)) for each in new if each in old]
            for name in [name for name in own if own[name].shape != larger[name].shape and name in tensors]:
                theirs, mine = tensors[name], own[name].clone()
                beyond = range(min(len(mine) - len(new), len(theirs) - len(old)))  # such as "no object"
                for to, source in [*pairs, *((len(new) + i, len(old) + i) for i in beyond)]:
                    mine[to] = theirs[source]
                tensors[name] = mine
        self._load(network, tensors, "model.start")
        anew = [name for name in new if name not in old]
        if len(anew) == len(new):
            return f"started from {self.name}, which knows none of these classes: it mapped {', '.join(old)}"
        return f"started from {self.name}" + (f"; new classes: {', '.join(anew)}" if anew else "")

    def fill_extra(self, extra: Extra) -> None:
        """Give these weights to a network whose features are added; raises ModelError where they do not fit."""
        own = {name: tensor for name, tensor in self.tensors().items() if not name.startswith(("decoder.", "pixel."))}
        self._load(extra.network, own, "model.extra")

    def _load(self, network: Model, tensors: Mapping[str, Tensor], setting: str) -> None:
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise ModelError(
                f"{setting}: {self.name} is damaged: {reason}", fix="copy it, or train it again"
            ) from error


def with_earlier_parts(config: RunConfig) -> RunConfig:
    """The config with what it does not name taken from model.start, or from a pre-trained backbone's folder.

    Raises ModelError, ConfigError.
    """
    config = config.model_copy(update={"model": with_pretrained(config.model)})
    if config.model.start is None:
        return config
    build, named = Earlier.open(config.model.start, setting="model.start").card.build, config.model.model_fields_set
    # A pool is of chips, an expert on single pixels of pixels.
    other = "pixel_width" if KINDS[config.task_section.name].chips else "pool"
    parts = {key: value for key, value in build.items() if key not in named and key not in ("extra", other)}
    return config.model_copy(update={"model": config.model.model_copy(update=parts)})
