"""Trained models as folders: `model.safetensors` + `config.json`, all that `predict` needs; README.md, item.stac.json.

A folder knows its kind, bands, scaling, GSD, legend and how it was trained; nothing in it is pickled.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from covermap.card import ENCODER, ModelCard, card_item, card_text
from covermap.core.errors import BandError, ConfigError, CovermapError, DataError, GridError, ModelError
from covermap.core.legend import Legend
from covermap.core.output import replacing, write_text
from covermap.core.parsing import parse_json
from covermap.core.task import Task
from covermap.core.types import Batch, InputSpec
from covermap.data.indices import made_of, reach
from covermap.geo.grid import similar_gsd
from covermap.ml.forest import Forest

FORMAT = 1


class LandModel(ABC):
    """What evaluates and predicts: a network or a forest with its input spec and task; a legend is one of pixels."""

    kind: str

    def __init__(self, spec: InputSpec, task: Task | Legend, facts: Mapping[str, Any]) -> None:
        self.task = task if isinstance(task, Task) else Task("segmentation", task)
        self.spec, self.facts = spec, dict(facts)

    @property
    def legend(self) -> Legend:
        """Names of the K outputs: classes, or numbers."""
        return self.task.legend

    @abstractmethod
    def answers(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Class probabilities, or numbers in their unit, of a normalised batch: float32 (B, K, H, W); chips: (B, K)."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All weights by name."""

    @property
    def sees_neighbours(self) -> bool:
        """Whether a pixel's class depends on pixels around it, so that windows must overlap."""
        return True


class ForestModel(LandModel):
    """A random forest on the stacked bands of single pixels, or on their means and deviations in a chip."""

    kind = "forest"

    def __init__(self, spec: InputSpec, task: Task | Legend, forest: Forest, facts: Mapping[str, Any]) -> None:
        super().__init__(spec, task, facts)
        self.forest = forest

    @property
    def sees_neighbours(self) -> bool:
        return False

    def answers(self, batch: Batch) -> npt.NDArray[np.float32]:
        stacked = np.concatenate([x.flatten(1, 2).numpy() for x in batch.image.values()], 1)
        valid = batch.valid.any(1).numpy()
        if self.task.kind.chips:
            return self.forest.probabilities(chip_features(stacked, valid))
        shares = np.zeros((*valid.shape, len(self.legend)), np.float32)
        pixels = pixel_features(stacked.transpose(0, 2, 3, 1)[valid], self.spec, self.task)
        shares[valid] = self.forest.probabilities(pixels)
        return shares.transpose(0, 3, 1, 2)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self.forest.arrays()


def pixel_features(stacked: npt.NDArray[np.float32], spec: InputSpec, task: Task) -> npt.NDArray[np.float32]:
    """Bands of all dates (N, F) -> what a forest sees of a pixel: of change also how much each band changed."""
    if task.name != "change":
        return stacked
    found, start = [stacked], 0
    for entry in spec.sensors:
        count = len(entry.bands)
        if entry.num_dates == 2:
            found.append(stacked[:, start + count : start + 2 * count] - stacked[:, start : start + count])
        start += entry.num_dates * count
    return np.concatenate(found, 1)


def num_features(spec: InputSpec, task: Task) -> int:
    """How many numbers a forest sees of a pixel or chip."""
    if task.kind.chips:
        return 2 * spec.num_channels
    return int(pixel_features(np.zeros((0, spec.num_channels), np.float32), spec, task).shape[1])


def chip_features(stacked: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Mean and standard deviation of each band (B, C, H, W) over a chip's valid pixels (B, H, W): (B, 2 C)."""
    count = np.maximum(valid.sum((1, 2)), 1)[:, None]
    mean = (stacked * valid[:, None]).sum((2, 3)) / count
    spread = (((stacked - mean[..., None, None]) * valid[:, None]) ** 2).sum((2, 3)) / count
    return np.concatenate([mean, np.sqrt(spread)], 1).astype(np.float32)


class NetworkModel(LandModel):
    """A torch network as it was trained, and `forward`: the same for inference on one device."""

    kind = "network"

    def __init__(
        self, spec: InputSpec, task: Task | Legend, network: Any, facts: Mapping[str, Any], *, device: str = "cpu",
        precision: str = "float32",
    ) -> None:  # fmt: skip
        import torch

        from covermap.nn.layers import channels_last, fold_norms

        super().__init__(spec, task, {**facts, "parameters": sum(p.numel() for p in network.parameters())})
        self.device, self.half = torch.device(device), precision_of(precision, device) == "bf16"
        self.network = network
        self.forward = channels_last(fold_norms(network)).to(self.device)

    def answers(self, batch: Batch) -> npt.NDArray[np.float32]:
        import torch

        from covermap.nn.heads import answers

        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            out = self.forward(batch.to(self.device)).float()
            found: npt.NDArray[np.float32] = answers(self.task, out).cpu().numpy()
        return found

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: value.detach().cpu().contiguous().numpy() for name, value in self.network.state_dict().items()}


def save_model(model: LandModel, folder: str | Path, *, build: Mapping[str, Any] | None = None) -> Path:
    """Write a model folder, whole or not at all, replacing an earlier one."""
    folder = Path(folder)
    card = ModelCard(model.kind, model.spec, model.task, dict(build or {}), model.facts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as partial:
        partial.mkdir()
        save_file({k: np.asarray(v, order="C") for k, v in model.arrays().items()}, partial / "model.safetensors")
        save_card(card, partial)
    return folder


def save_card(card: ModelCard, folder: Path) -> None:
    """Write what a model folder says of its weights, which are there, replacing what it said before."""
    config = {
        "format": FORMAT, "kind": card.kind, "input": card.spec.to_dict(), "legend": card.legend.to_dict(),
        "task": card.task.to_dict(), "build": card.build, "facts": card.facts,
    }  # fmt: skip
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(folder / "README.md", card_text(card))
    write_text(folder / "item.stac.json", card_item(card, folder))


def read_card(folder: str | Path) -> ModelCard:
    """config.json of a model folder; raises ModelError."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json", fix="give the folder model/ of a run"
        )
    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
        if raw["format"] > FORMAT:
            raise ModelError(f"{folder} is of a newer covermap (format {raw['format']})", fix="update covermap")
        task = Task.from_dict(raw.get("task"), Legend.from_dict(raw["legend"]))
        return ModelCard(raw["kind"], InputSpec.from_dict(raw["input"]), task, dict(raw["build"]), dict(raw["facts"]))
    except ModelError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:  # bad JSON, legend or numbers
        raise ModelError(f"{path} is damaged ({_reason(error)})", fix="copy it again, or train it again") from error


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, CovermapError) else f"{type(error).__name__}: {error}"


def weights_path(folder: str | Path) -> Path:
    """The file of weights in a model folder; raises ModelError where there is none."""
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} has no {path.name}", fix="copy the model again, or train it again")
    return path


def applicability_path(folder: str | Path) -> Path:
    """Where a model folder says what it was trained on (ml.applicability); older ones do not."""
    return Path(folder) / "applicability.safetensors"


def load_model(folder: str | Path, *, device: str = "cpu", precision: str = "float32") -> LandModel:
    """A trained model from its folder; raises ModelError when a file is missing, damaged or does not fit.

    precision: of a network's sums, auto, float32 or bf16.
    """
    card, path = read_card(folder), weights_path(folder)
    if card.kind == ENCODER:
        raise ModelError(
            f"{folder} is a backbone without classes", fix=f"train on it: model: {{backbone: {folder}}}, or embed"
        )
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error})", fix="copy the model again, or train it again") from error
    if card.kind == "forest":
        forest = Forest.from_arrays(
            arrays, num_features=num_features(card.spec, card.task), num_classes=len(card.legend),
            shares=card.task.kind.takes != "numbers",
        )  # fmt: skip
        return ForestModel(card.spec, card.task, forest, card.facts)
    if card.kind != "network":
        raise ModelError(f"{folder}: model kind {card.kind!r} is not known", fix="update covermap")
    import torch

    from covermap.nn.build import build_model

    try:
        network = build_model(card.spec, card.task.num_channels, **card.build)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError) as error:
        raise ModelError(
            f"{folder}/config.json describes no network ({_reason(error)})", fix="copy the model again"
        ) from error
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()}, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(
            f"{path} does not fit its config.json: {reason}", fix="copy both files from one run"
        ) from error
    return NetworkModel(card.spec, card.task, network, card.facts, device=device, precision=precision)


def device_of(name: str) -> str:
    """The device that auto, cpu, cuda or cuda:1 means here; raises ConfigError for a GPU that is not there."""
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available() and (":" not in name or int(name[5:]) < torch.cuda.device_count()):
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise ConfigError(f"there is no device {name} here", fix="use auto or cpu; covermap doctor says what is here")


def precision_of(name: str, device: str) -> str:
    """The precision that a name means on a device; auto: bf16 where the hardware computes in it, else float32."""
    if name != "auto":
        return name
    import torch

    if device_of(device).startswith("cuda"):
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return "bf16" if fast else "float32"


def require_fit(
    spec: InputSpec, bands: Mapping[str, tuple[str, ...]], dates: Mapping[str, int], gsd_m: float, *, where: str
) -> None:
    """Refuse a scene whose sensors, bands, dates or pixel size are not those that a model was trained on.

    bands, dates: of each sensor in the scene. The pixel size may differ by a fifth. Of optional sensors any may be
    missing but the last, and any of their bands but the last. Raises BandError, GridError, DataError.
    """
    present = [e for e in spec.sensors if set(e.bands) & set(bands.get(e.sensor, ()))]
    # With no optional sensor present at all, the message about the first one helps most.
    for entry in [e for e in spec.sensors if not e.optional] or present or spec.sensors:
        if entry.sensor not in bands:
            raise BandError(
                f"{where} has {', '.join(bands)}; the model needs {entry.sensor!r} with {', '.join(entry.bands)}",
                fix="leave the sensor out: the model was trained without one"
                if entry.sensor == "image"
                else f"name the image's sensor (--sensor {entry.sensor}), or add it: --add {entry.sensor}=PATH",
            )
        if dates[entry.sensor] != entry.num_dates:
            raise DataError(
                f"{where} has {dates[entry.sensor]} dates of {entry.sensor}; the model takes {entry.num_dates}",
                fix=f"give the dates in order: IMAGE, then --add {entry.sensor}=NEXT_DATE for each further one",
            )
        there = reach(bands[entry.sensor], entry.indices)
        missing = [band for band in entry.bands if band not in there]
        if missing and not (entry.optional and len(missing) < len(entry.bands)):
            raise BandError(
                f"{where} lacks the bands {', '.join(missing)} that the model was trained on; "
                f"it has {', '.join(bands[entry.sensor])}" + made_of([b for b in missing if b in entry.indices]),
                fix="give an image with the model's bands, or name the bands: --bands blue,green,...",
            )
    if present and max(dates[entry.sensor] for entry in present) < spec.num_dates:
        raise DataError(
            f"{where} has one date of {', '.join(e.sensor for e in present)}; the model takes {spec.num_dates} dates",
            fix="add the sensor of which there are several: --add SENSOR=PATH@DATE for each of its dates",
        )
    if spec.gsd_m and not similar_gsd(gsd_m, spec.gsd_m):
        raise GridError(
            f"{where} has pixels of {gsd_m:.4g} m, the model was trained at {spec.gsd_m:.4g} m",
            fix=f"resample it: covermap prepare {where} OUT.tif --gsd {spec.gsd_m:.4g}, or predict with --any-gsd",
        )
