"""The encoder of a config or of a trained model, and the scenes that it is shown.

config.model -> network without training, mean and std as train would take them -> Encoder
batch -> backbone -> deepest map, mean of the dates -> (B, D, h, w) and how much of each cell is valid
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from covermap.card import ENCODER, ModelCard
from covermap.core.config import ImageConfig, RunConfig
from covermap.core.errors import BandError, ConfigError, ModelError
from covermap.core.output import require_no_input
from covermap.core.task import KINDS, Task
from covermap.core.types import Batch, InputSpec
from covermap.data.embedding_rows import Told
from covermap.data.make_split import make_split
from covermap.data.reference import KNOWN, side_of_windows, with_reference
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split, Tile
from covermap.data.stats import with_own_statistics
from covermap.earlier import Earlier, with_earlier_parts
from covermap.hub import checkpoint_sum, model_folder
from covermap.infer import open_all_for
from covermap.models import NetworkModel, load_model, read_card, weights_path
from covermap.nn.build import build_model, make_backbone
from covermap.nn.embedding import cells
from covermap.nn.layers import channels_last, fold_norms
from covermap.nn.model import Backbone, Model
from covermap.start import build_arguments, known_inputs, measured_inputs, starting_weights

RANDOM = "random initialisation"


@dataclass(frozen=True)
class Encoder:
    """A backbone for inference. facts: all that tells one encoder from another."""

    backbone: Backbone
    spec: InputSpec
    facts: Mapping[str, Any]
    device: str = "cpu"

    @property
    def dimensions(self) -> int:
        """Numbers of an embedding."""
        return int(self.backbone.channels[-1])

    @property
    def stride(self) -> int:
        """Side of a cell of the deepest map, px; raises ModelError where that is no whole number."""
        stride = self.backbone.strides[-1]
        if stride != int(stride):
            raise ModelError(
                f"{self.facts['backbone']} has cells of {stride:g} px: they lie on no grid of pixels",
                fix="embed chips (OUT.parquet), or use another backbone: covermap models list",
            )
        return int(stride)

    @property
    def side(self) -> int:
        """Smallest side of a chip, px."""
        return int(self.backbone.multiple)

    def cells(self, batch: Batch) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """A normalised batch -> features (B, D, h, w) of the deepest map, and the valid share of each cell (B, h, w).

        Of several dates the mean of those that hold something.
        """
        with torch.inference_mode():
            x, share = cells(self.backbone, batch.to(self.device))
            return x.float().cpu().numpy(), share.float().cpu().numpy()


def pooled(
    cells: npt.NDArray[np.float32], share: npt.NDArray[np.float32], pool: str
) -> npt.NDArray[np.float32]:  # fmt: skip
    """(B, D, h, w) and (B, h, w) -> (B, D): the mean, weighed by valid pixels, or the largest of cells with any."""
    if pool == "max":
        found = np.where(share[:, None] > 0, cells, -np.inf).max((2, 3))
        return np.where(np.isfinite(found), found, 0).astype(np.float32)
    total = np.einsum("bdhw,bhw->bd", cells, share, dtype=np.float64)
    return np.asarray(total / np.maximum(share.sum((1, 2)), 1e-12)[:, None], np.float32)


@dataclass
class Shown:
    """An encoder, the scenes that it is shown, and what is known of them.

    size_px: side of chips where nobody says another. chips: scenes hold chips that come as they are. model: the STAC
    item of the trained model, if it is one.
    """

    encoder: Encoder
    scenes: list[Scene]
    told: Told
    size_px: int
    chips: bool
    task: str
    notes: list[str]
    model: Path | None = None


CHIP_PX = 16


def shown_by(
    source: RunConfig | str | Path, images: Sequence[ImageConfig], out: Path, *, any_gsd: bool, device: str
) -> Shown:
    """The encoder of a config, or of a model and its images; raises OutputError where `out` is one of the images."""
    if isinstance(source, RunConfig):
        shown = shown_by_config(source, device=device)
    else:
        shown = shown_by_model(source, images, any_gsd=any_gsd, device=device)
    require_no_input([out], (file for scene in shown.scenes for file in scene.files))
    return shown


def shown_by_config(config: RunConfig, *, device: str) -> Shown:
    """Open a config's data and build its encoder; raises what train would raise for them, labels may be missing."""
    config = _encoder_alone(with_earlier_parts(config))
    weights = starting_weights(config.model)
    earlier = Earlier.open(config.model.start, setting="model.start") if config.model.start else None
    build = build_arguments(config, earlier, None)
    opened, kind = open_scenes(config.data), KINDS[config.task_section.name]
    first = opened[0]
    labelled = first.labels is not None or first.target is not None or first.chip_classes is not None
    if labelled:
        scenes, task = with_reference(opened, config)
        size = side_of_windows(scenes, config)
        split = make_split(scenes, config.split, size_px=size, chips=kind.chips)
    else:
        scenes, task, size = opened, Task("segmentation", KNOWN), max(config.train.sizes_px)
        build = {key: value for key, value in build.items() if key not in ("pool", "siamese")}
        split = Split(tuple(Tile(s.name, s.grid.window, "train") for s in scenes), 0)
    spec, notes = measured_inputs(config, scenes, split, build, task, size, published=bool(weights))
    spec = known_inputs(spec, config, earlier, weights)
    torch.manual_seed(config.train.seed)
    network = build_model(spec, task.num_channels, **build, weights=weights or None)
    if earlier:
        notes = [*notes, earlier.fill(network, build, task)]
    facts = _facts(config, network, weights, earlier)
    notes = [*(n for s in opened for n in s.notes), *split.notes, *notes]
    if facts["weights"] == RANDOM:
        notes.append(f"{config.model.backbone} starts from random weights (seed {config.train.seed}): a baseline")
    if not labelled:
        notes.append("the config names no labels: no chip has a part, and statistics are of all pixels")
    # Targets as tasks see them (which classes occur); labels of pixels as the data has them.
    scenes = [
        replace(s, labels=o.labels) if kind.takes in ("presence", "numbers", "order") else s
        for s, o in zip(scenes, opened, strict=True)
    ]
    scenes = with_own_statistics(scenes, spec)
    told = Told.of(scenes[0], split if labelled else None)
    return Shown(
        Encoder(_ready(network.backbone, device), spec, facts, device), scenes, told, size if kind.chips else CHIP_PX,
        kind.chips, config.task_section.name if labelled else "none", notes,
    )  # fmt: skip


def shown_by_model(model: str | Path, images: Sequence[ImageConfig], *, any_gsd: bool, device: str) -> Shown:
    """The encoder of a trained model and the scenes of its images; raises ModelError for a forest, as predict else."""
    folder = model_folder(model)
    card = read_card(folder)
    if card.kind not in ("network", ENCODER):
        raise ModelError(
            f"{model} is a {card.kind}: it has no encoder", fix="give a network, the folder model/ of a run"
        )
    backbone = _trained(folder, card, device)
    try:
        opened = open_all_for(card.spec, images, any_gsd=any_gsd)
    except BandError as error:
        names = [entry.sensor for entry in card.spec.sensors]
        if len(names) > 1 and not images[0].sensor:  # it was taken for the first
            hint = f"if IMAGE is not of {names[0]}, name its sensor: --sensor {' or --sensor '.join(names[1:])}"
            raise BandError(error.message, fix=f"{hint}; {error.fix}") from error
        raise
    scenes = with_own_statistics(opened, card.spec)
    arrays = {name: value.detach().cpu().numpy() for name, value in backbone.state_dict().items()}
    facts = {
        "backbone": str(card.build["backbone"]), "weights": f"trained: {card.facts.get('run', folder.name)}",
        "options": dict(card.build.get("backbone_options") or {}), "normalise": "as trained",
        "parameters_sha256": _sum_of(arrays),
    }  # fmt: skip
    notes = list(dict.fromkeys(note for scene in scenes for note in scene.notes))
    chips = card.task.kind.chips
    size = card.spec.size_px if chips or card.kind == ENCODER else CHIP_PX
    encoder = Encoder(_ready(backbone, device), card.spec, facts, device)
    return Shown(encoder, scenes, Told(), size, chips, "none", notes, folder / "item.stac.json")


def _trained(folder: Path, card: ModelCard, device: str) -> Backbone:
    """The backbone of a trained network, or of a pre-training."""
    if card.kind == ENCODER:
        build = card.build
        return make_backbone(build["backbone"], card.spec, build["backbone_options"], weights=weights_path(folder))
    loaded = load_model(folder, device=device)
    assert isinstance(loaded, NetworkModel)
    found: Backbone = loaded.network.backbone
    return found


def _encoder_alone(config: RunConfig) -> RunConfig:
    """The config without what has no effect on the encoder; raises ConfigError for features of another model."""
    if config.model.extra is not None:
        raise ConfigError(
            "model.extra adds features behind the encoder: embeddings would not hold them",
            fix="leave model.extra out, or embed that model by itself",
        )
    free = config.train.augment.model_copy(update={"drop_sensors": 0.0})
    return config.model_copy(update={
        "model": config.model.model_copy(update={"adapt": "full"}),
        "train": config.train.model_copy(update={"augment": free}),
    })  # fmt: skip


def _facts(
    config: RunConfig, network: Model, weights: Mapping[str, Path], earlier: Earlier | None
) -> dict[str, Any]:  # fmt: skip
    files = [f"{path.name} (SHA-256 {checkpoint_sum(path)[:16]})" for path in weights.values()]
    named = f"started from {earlier.name}" if earlier else ", ".join(files) or RANDOM
    arrays = {name: value.detach().cpu().numpy() for name, value in network.backbone.state_dict().items()}
    return {
        "backbone": str(config.model.backbone), "weights": named, "options": dict(config.model.backbone_options),
        "normalise": config.train.normalise, "parameters_sha256": _sum_of(arrays),
    }  # fmt: skip


def _sum_of(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of all tensors with their names, in the order of these."""
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        content.update(np.ascontiguousarray(arrays[name]).tobytes())
    return content.hexdigest()


def _ready(backbone: Backbone, device: str) -> Backbone:
    ready: Any = channels_last(fold_norms(backbone)).to(device)
    return ready  # type: ignore[no-any-return]
