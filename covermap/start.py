"""Everything between a config and the first training step: data opened and split, inputs measured, weights found.

config -> scenes -> split -> statistics -> the backbone's own wishes -> input spec
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights

from covermap.core.config import RunConfig, parse_date
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.progress import Say
from covermap.core.run import RunFolder
from covermap.core.task import KINDS, SIAMESE, Task
from covermap.core.train_config import ModelConfig
from covermap.core.types import InputSpec
from covermap.data.augment import require_effect
from covermap.data.balance import Sampling, class_weights, plan_sampling
from covermap.data.chips import Survey, survey, survey_chips
from covermap.data.make_split import make_split
from covermap.data.reference import side_of_windows, with_reference
from covermap.data.scene import Scene, open_scenes, unknown_coordinates
from covermap.data.split import Split, part_counts
from covermap.data.stats import input_spec, target_statistics, with_own_statistics, with_statistics
from covermap.data.transitions import contradictions
from covermap.earlier import Earlier, with_earlier_parts
from covermap.geo.grid import Window, similar_gsd
from covermap.hub import checkpoint_sum, place_of, require_file
from covermap.models import device_of, precision_of
from covermap.nn.adapt import adapt, load_adapter
from covermap.nn.build import backbone_names, build_model
from covermap.nn.losses.expression import LossSum, make_loss
from covermap.nn.model import Backbone, Model
from covermap.nn.own import is_own
from covermap.nn.published import published_of
from covermap.nn.weights import Report
from covermap.pretrained import Pretrained


@dataclass
class Prepared:
    """Everything that comes before the first step, made once from the config.

    weights: {backbone: file that it starts from}. build: arguments of build_model. earlier: the model that all of
    the network starts from, if any. extra: that whose features are added, if any.
    """

    scenes: list[Scene]
    task: Task
    split: Split
    spec: InputSpec
    survey: Survey
    sampling: Sampling
    notes: list[str]
    weights: dict[str, Path]
    build: dict[str, Any]
    earlier: Earlier | None = None
    extra: Earlier | None = None

    @property
    def has_val(self) -> bool:
        """Whether there is a part to choose a checkpoint by."""
        return any(tile.part == "val" for tile in self.split.tiles)

    @property
    def trained_on(self) -> dict[str, Any]:
        """Ground and dates of the train part, each where every scene knows it, as facts for a model folder.

        footprint_wgs84: west, south, east, north in degrees around each scene's labels, around all of many scenes.
        acquired: first/last. statistics_of: places, where scenes of one place were normalised together.
        """
        places: dict[int, list[Window]] = {}
        for cell in self.survey.cells:
            places.setdefault(cell.scene, []).append(cell.window)
        boxes = np.array([self.scenes[number].grid.degrees(windows) for number, windows in places.items()])
        days = [day for number in places for day in self.scenes[number].dates]
        found: dict[str, Any] = {}
        if (boxes[:, 2] - boxes[:, 0] < 180).all():  # NaN without a CRS; around the world across longitude 180
            few = boxes if len(boxes) <= 32 else [[*boxes[:, :2].min(0), *boxes[:, 2:].max(0)]]
            found["footprint_wgs84"] = np.round(few, 4).tolist()
        spans = [parse_date(day) for day in days if day]
        if len(spans) == len(days):
            found["acquired"] = f"{min(first for first, _ in spans):%Y-%m-%d}/{max(last for _, last in spans):%Y-%m-%d}"
        if len({scene.place or scene.name for scene in self.scenes}) < len(self.scenes) and any(
            entry.per_scene for entry in self.spec.sensors
        ):
            found["statistics_of"] = "places"
        return found


def prepare_run(config: RunConfig, *, resume: bool = False) -> Prepared:
    """Open the data, split it, measure the train part. Raises DataError or LabelError for what does not fit.

    resume: the run has weights of its own, so the published ones need not be here any more.
    """
    config = with_earlier_parts(config)
    if config.data.labels is None and config.data.source is None and config.data.target is None:
        raise LabelError("the config names no labels", fix="set data.labels to a raster, polygons or points")
    weights = starting_weights(config.model, required=not resume)
    method = config.model.adaptation.method
    unlearnt = [str(name) for name in backbone_names(config.model.backbone) if name not in weights]
    if method != "full" and unlearnt and config.model.start is None and not resume:
        raise ConfigError(
            f"model.adapt: {method} keeps {' and '.join(unlearnt)} at random weights, which nothing can be learnt from",
            fix="use adapt: full, or a backbone with published weights: covermap models list",
        )
    model = config.model
    earlier = Earlier.open(model.start, setting="model.start") if model.start else None
    extra = Earlier.open(model.extra, setting="model.extra") if model.extra else None
    build = build_arguments(config, earlier, extra)
    if earlier:
        earlier.require_same_parts(build)
    scenes, task = with_reference(open_scenes(config.data), config)
    size_px = side_of_windows(scenes, config)
    split = make_split(scenes, config.split, size_px=size_px, chips=task.kind.chips)
    task = measured_task(task, scenes, split, size_px=size_px)
    spec, wishes = measured_inputs(config, scenes, split, build, task, size_px, published=bool(weights))
    if extra:
        extra.require_gsd(spec.gsd_m)
    spec = known_inputs(spec, config, earlier, weights)
    if earlier:
        task = earlier.units_of(task)
    scenes = with_own_statistics(scenes, spec)
    require_effect(config.train.augment, spec)
    if task.kind.chips:
        found = survey_chips(scenes, split, task, part="train", size_px=size_px)
    else:
        longest = max(max(scene.grid.height, scene.grid.width) for scene in scenes)
        found = survey(scenes, split, cell_px=int(np.clip(longest // 64, 1, 32)))
    # Of transitions cells are drawn by whether they changed.
    names = scenes[0].legend.names if task.kind.takes == "transitions" and scenes[0].legend else task.legend.names
    counts = found.cell_px
    if task.kind.takes == "presence":  # chips without any of the classes are a kind of their own
        counts = np.column_stack([counts, (counts.sum(1) == 0).astype(counts.dtype)])
    sampling = plan_sampling(counts, method=config.train.sampling, rare=config.train.rare, names=names)
    notes = [*(note for scene in scenes for note in scene.notes), *split.notes, *found.notes, *wishes, *sampling.notes]
    notes += _other_pixels(spec, weights)
    notes += contradictions([scene.target for scene in scenes])
    ready = Prepared(scenes, task, split, spec, found, sampling, notes, weights, build, earlier, extra)
    if not ready.has_val and config.decision.needs_val:
        raise ConfigError("section decision is fitted on a val part, and there is none", fix="set split.val: 0.2")
    if not ready.has_val:
        if config.train.schedule == "plateau" or config.train.patience:
            raise ConfigError("train.schedule plateau and train.patience need a val part", fix="set split.val: 0.2")
        ready.notes.append("there is no val part: the model of the last epoch is kept")
    _require_positives(ready, config)
    return ready


def known_inputs(
    spec: InputSpec, config: RunConfig, earlier: Earlier | None, weights: Mapping[str, Path]
) -> InputSpec:  # fmt: skip
    """The data's inputs in the numbers that an earlier model, or a backbone of our own, learnt; raises BandError."""
    keep = config.train.normalise == "auto"
    if earlier:
        return earlier.inputs(spec, keep=keep)
    own = _own_backbones(weights)
    return own[0].inputs(spec, keep=keep) if own else spec


def _own_backbones(weights: Mapping[str, Path]) -> list[Pretrained]:
    """Those of the files that a pre-training of our own wrote."""
    return [found for path in weights.values() if (found := Pretrained.of_weights(path))]


def _other_pixels(spec: InputSpec, weights: Mapping[str, Path]) -> list[str]:
    """A note where a backbone of our own was pre-trained on pixels of another size."""
    return [
        f"{found.name} was pre-trained at {found.card.spec.gsd_m:.4g} m, the data has {spec.gsd_m:.4g} m: "
        "what it learnt may not hold (data.gsd_m)"
        for found in _own_backbones(weights)
        if not similar_gsd(found.card.spec.gsd_m, spec.gsd_m)
    ]


def _require_positives(ready: Prepared, config: RunConfig) -> None:
    """Raise DataError where the val part lacks the hazard that the best model would be chosen by."""
    task, monitor = ready.task, config.monitor[0]
    if task.positive is None or not ready.has_val or monitor in ("val_loss", "val_miou"):
        return
    if not part_counts(ready.split, ready.scenes)["val"][task.positive]:
        raise DataError(
            f"the val part has no pixel of {task.legend.names[task.positive]}, so {monitor} cannot be told",
            fix="give val a place that has it (split.val), or choose the model by train.monitor: val_loss",
        )


def measured_task(task: Task, scenes: Sequence[Scene], split: Split, *, size_px: int) -> Task:
    """The task with mean and std of its numbers in the train part; raises DataError where one is constant."""
    if task.kind.takes != "numbers":
        return task
    found = target_statistics(scenes, split, size_px=size_px)
    # A class that no place of the train part has is no error: its share is learnt to be 0.
    shares = all(scene.target is not None and scene.target.labels for scene in scenes) and any(s.std > 0 for s in found)
    for one in found:
        if not one.std > 0:
            what = "is not known anywhere" if np.isnan(one.mean) else f"is {one.mean:g} everywhere"
            if shares:
                scenes[0].notes.append(f"the share {one.target} {what} in the train part: that is all that is learnt")
                continue
            raise DataError(
                f"the target {one.target} {what} in the train part: there is nothing to learn",
                fix="leave it out with data.target.use, or check data.target's nodata, replace and scale",
            )
    # A constant share is measured as those that vary the least: at 1 its noise would outweigh them.
    least = min(one.std for one in found if one.std > 0)
    return task.scaled([one.mean for one in found], [one.std or least for one in found])


def starting_weights(config: ModelConfig, *, required: bool = True) -> dict[str, Path]:
    """The files that backbones start from, {backbone: file}, by model.weights: auto, none or a path.

    auto: published files, or nothing for backbones that have none. Raises ModelError where one is required and not
    here.
    """
    if config.start is not None or config.weights == "none":
        return {}
    if config.weights != "auto":
        return {config.backbone: Path(config.weights)}
    found = {}
    for name in map(str, backbone_names(config.backbone)):
        published = published_of(name)
        if published is not None and published.repo:
            found[name] = require_file(name, published) if required else place_of(name, published)
    return found


def origin_of(reports: Sequence[Report]) -> dict[str, str]:
    """Facts about the files that backbones started from."""
    files = [report.path for report in reports]
    return {
        "started_from": ", ".join(_name_of(Path(file)) for file in files),
        "started_from_sha256": ", ".join(checkpoint_sum(file) for file in files),
    }


def _name_of(file: Path) -> str:
    """A file by its name; that of a pre-training, which are all called alike, by the run's."""
    folder = file.parent.parent if file.parent.name == "model" else file.parent
    return folder.name if is_own(file) else file.name


def keep_reports(run: RunFolder, reports: Sequence[Report], facts: Mapping[str, Any], say: Say) -> None:
    """Write weights.json: facts about the weights that a run started from, and what became of every tensor."""
    rows = [
        {"tensor": row.name, "shape": row.shape, "fate": row.fate, "note": row.note}
        for report in reports
        for row in report.rows
    ]
    summaries = [report.summary() for report in reports]
    run.write_json("weights.json", {"facts": facts, "summary": "; ".join(summaries), "tensors": rows})
    for line in summaries:
        say(f"weights: {line}")


def build_arguments(run: RunConfig, earlier: Earlier | None, extra: Earlier | None) -> dict[str, Any]:
    """What build_model needs besides the data, as it is kept in a model folder; extra features also of `earlier`."""
    inherited = earlier.card.build.get("extra") if earlier else None
    config, task = run.model, run.task_section.name
    return {
        "backbone": config.backbone,
        "decoder": config.decoder,
        "backbone_options": config.backbone_options,
        "decoder_options": config.decoder_options,
        "dates": config.dates,
        "neck": config.neck,
        "pixel_width": config.pixel_width,
        "extra": extra.description if extra else inherited,
        **({"pool": config.pool} if KINDS[task].chips else {}),
        **({"siamese": True} if task in SIAMESE else {}),
    }


def build_loss(config: RunConfig, ready: Prepared) -> LossSum:
    """The loss of a config, or of its task, with weights by the train part's classes; a note where these do nothing."""
    task, section = ready.task, config.train
    options, weights = section.loss_options, None
    if task.kind.takes in ("classes", "order"):
        counts, names = ready.survey.class_px, task.legend.names
        found = class_weights(counts, section.class_weights, names=names, beta=section.effective_beta)
        weights = torch.from_numpy(found)
        if section.loss == "auto" and task.positive is not None:
            options = {"dice": {"classes": [task.positive], "absent": "count"}} | options
    loss = make_loss(config.loss, options, class_weights=weights)
    if loss.takes != task.kind.takes:
        raise ConfigError(
            f"train.loss: {config.loss} takes {loss.takes}, task {task.name} learns {task.kind.takes}",
            fix=f"leave it out, or use for example {task.kind.loss}",
        )
    note = f"train.class_weights has no effect on train.loss: {config.loss}"
    if weights is not None and not loss.weighted and section.class_weights != "none" and note not in ready.notes:
        ready.notes.append(note)
    return loss


def make_accelerator(precision: str, device: str, *handlers: Any) -> Any:
    """What runs a training on a device in a precision; handlers: further settings. Raises ConfigError."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # The library keeps precision and device for the life of the process; a second run may want others.
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = {"float32": "no", "fp16": "fp16", "bf16": "bf16"}[precision_of(precision, device)]
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision fp16 needs a GPU", fix="use float32, or bf16 where the processor has it")
    device = device_of(device)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return Accelerator(mixed_precision=mixed, cpu=device == "cpu", kwargs_handlers=list(handlers))


def seed_all(seed: int) -> None:
    """Let all random numbers of a run follow from one."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from the global state
    torch.manual_seed(seed)


def build_network(config: RunConfig, ready: Prepared, *, resume: bool = False) -> Model:
    """The network before its first step; all random numbers of a run follow from train.seed. Raises ModelError."""
    seed_all(config.train.seed)
    task = ready.task
    network = build_model(
        ready.spec, task.num_channels, **ready.build, weights=None if resume else ready.weights or None
    )
    if network.decoder.has_own_loss and task.kind.takes != "classes":
        raise ConfigError(f"decoder {config.model.decoder} makes classes only", fix="use another: covermap models list")
    if ready.extra and network.extra is not None and not resume:
        ready.extra.fill_extra(network.extra)
    if ready.earlier and not resume:
        ready.notes.append(ready.earlier.fill(network, ready.build, task))
    settings = config.model.adaptation
    ready.notes += adapt(network, settings)
    _require_sense_of_head(config.model, network)
    if network.decoder.has_own_loss:
        ready.notes.append(f"{config.model.decoder} has its own loss: train.loss and class_weights have no effect")
    if settings.adapter and not resume:
        files = ready.weights.values()
        sums = [ready.earlier.checksum] if ready.earlier else [checkpoint_sum(file) for file in files]
        base = {"backbone": config.model.backbone, "weights": ", ".join(sums)}
        load_adapter(network, settings.adapter, base=base)
    return network


def _require_sense_of_head(config: ModelConfig, network: Model) -> None:
    """Refuse to train a classifier behind layers that keep their random weights."""
    parts = [network.neck, network.decoder, network.extra.add if network.extra else None]
    held = sum(p.numel() for part in parts if part is not None for p in part.parameters() if not p.requires_grad)
    if config.adaptation.method == "head" and held and config.start is None:
        raise ConfigError(
            f"model.adapt: head keeps {held:,} parameters of neck and decoder {config.decoder} at random weights",
            fix="use adapt: frozen, or decoder: linear, or go on from a trained model (model.start)",
        )


def measured_inputs(
    config: RunConfig,
    scenes: Sequence[Scene],
    split: Split,
    build: Mapping[str, Any],
    task: Task,
    size_px: int,
    *,
    published: bool,
) -> tuple[InputSpec, list[str]]:
    """The input spec by the data's numbers or the published ones, and notes on what the backbone makes of the data."""
    wanted = config.train.normalise
    measured = input_spec(
        scenes,
        split,
        normalise="dataset" if wanted in ("auto", "pretrained") else wanted,
        size_px=size_px,
        seed=config.train.seed,
    )
    with init_empty_weights():
        network = build_model(measured, task.num_channels, **build)
    backbone = network.backbone
    if network.neck is not None and len(network.decoder.uses(4)) == 1:
        raise ConfigError(
            f"{config.model.backbone} with {config.model.decoder}: the decoder reads one map alone, which "
            f"model.neck: {config.model.neck} would only make coarser", fix="use model.neck: auto",
        )  # fmt: skip
    notes = [*backbone.notes, *unknown_coordinates(scenes, network.uses)]
    if backbone.dates == "one" and measured.num_dates > 1 and config.model.dates is None:
        notes.append(f"{config.model.backbone} takes one date at a time: the features of the dates are averaged")
    optional, unused = network.optional, network.unused
    measured = replace(measured, sensors=tuple(e for e in measured.sensors if e.sensor not in unused))
    if config.train.augment.drop_sensors and not (optional and len(measured.sensors) > 1):
        raise ConfigError(
            "train.augment.drop_sensors has no effect: it needs two sensors, a backbone that may lack one, "
            "and no expert on single pixels",
            fix="leave it out, or use a backbone such as terramind_v1_tiny or galileo_nano and model.pixel_width: 0",
        )
    spec, said = in_published_numbers(measured, backbone, config, published=published)
    notes += said
    sensors = tuple(replace(entry, optional=entry.sensor in optional) for entry in spec.sensors)
    return replace(spec, sensors=sensors, fixed_size=not network.local or task.kind.chips, uses=network.uses), notes


def in_published_numbers(
    spec: InputSpec, backbone: Backbone, config: RunConfig, *, published: bool
) -> tuple[InputSpec, list[str]]:
    """The inputs with the statistics of published weights, where the config wants these, and notes; or as they are."""
    wanted = config.train.normalise
    if wanted == "pretrained" and not backbone.statistics:
        raise ConfigError(
            f"train.normalise: pretrained: {config.model.backbone} has no published statistics of such data",
            fix="use dataset or percentile",
        )
    if wanted == "pretrained" or (wanted == "auto" and published and backbone.statistics):
        return with_statistics(spec, backbone.statistics)
    return spec, []
