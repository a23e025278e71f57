"""`train`: a plain loop on accelerate, from a config to a run folder with the best model and the baseline beside it.

    epoch: windows -> batches -> loss / weights of all batches of a step -> clip -> optimiser -> schedule -> average
    then: validation on the val part, best model kept, state saved, one log row

The same seed gives the same metrics, and a run that was stopped and resumed equals one that was not.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError, CovermapError, DataError, MissingExtra, ModelError, within_memory
from covermap.core.legend import IGNORE
from covermap.core.output import at_work, replacing
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import Run
from covermap.core.train_config import TrainConfig
from covermap.core.types import Batch
from covermap.data.augment import variations
from covermap.data.chips import TrainWindows, collate
from covermap.earlier import with_earlier_parts
from covermap.models import NetworkModel, device_of, save_model
from covermap.nn.adapt import has_lora, merge_lora, save_adapter
from covermap.nn.feature_cache import FeatureCache, require_cacheable
from covermap.nn.heads import like, reference
from covermap.nn.layers import channels_last
from covermap.nn.model import Model
from covermap.nn.optimiser import make_optimiser, make_schedule
from covermap.nn.published import published_of
from covermap.start import (
    Prepared,
    build_loss,
    build_network,
    keep_reports,
    make_accelerator,
    origin_of,
    prepare_run,
)
from covermap.verbs.applicability import fit_applicability
from covermap.verbs.baseline import train_baseline
from covermap.verbs.decide import decide
from covermap.verbs.evaluate import evaluate
from covermap.verbs.score import score
from covermap.verbs.stages import plan_stages, stage_row


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> Run:
    """Train the network of a config into its run folder; `resume` goes on after the last finished epoch.

    A config with stages gives a run for each; the last one is returned. on_progress gets (steps done, all steps).
    Raises ConfigError, DataError, LabelError, OutputError; CovermapError when the loss is no longer a number.
    """
    config = with_earlier_parts(config)
    if not config.stages:
        run = _train(config, resume=resume, overwrite=overwrite, say=say, on_progress=on_progress)
        if overwrite:  # what an earlier run with stages left
            shutil.rmtree(run.path("stages"), ignore_errors=True)
            run.path("stages.json").unlink(missing_ok=True)
        return run
    plans = plan_stages(config)
    for plan in plans:
        Run.require_free(plan.config, overwrite=overwrite, resume=resume)
    if overwrite:
        shutil.rmtree(config.folder / "stages", ignore_errors=True)
    rows = []
    for plan in plans:
        say(f"stage of {plan.stage.gsd_m:g} m")
        plan.save_split(resume=resume)
        run = _train(plan.config, resume=resume, overwrite=overwrite, say=say, on_progress=on_progress)
        if plan.split and any(tile.part == "test" for tile in plan.split.tiles):
            evaluate(run)
        rows.append(stage_row(run, plan.stage))
    run.write_json("stages.json", rows)
    return run


def _train(config: RunConfig, *, resume: bool, overwrite: bool, say: Say, on_progress: Tick) -> Run:
    Run.require_free(config, overwrite=overwrite, resume=resume)
    device_of(config.train.device)
    going_on = resume and (config.folder / "checkpoints/last.pt").is_file()
    # All that may be refused comes before anything of an earlier run is touched.
    ready = prepare_run(config, resume=going_on)
    network = build_network(config, ready, resume=going_on)
    make_accelerator(config.train.precision, config.train.device)
    make_optimiser(network, config.train)
    build_loss(config, ready)
    if config.train.cache_features:
        sizes, changes = len(config.train.sizes_px), variations(config.train.augment)
        require_cacheable(network, sizes=sizes, variations=changes)
    with at_work(config.folder, alone=True, again=True):
        run = Run.create(config, overwrite=overwrite, resume=resume)
        _learn(run, ready, network, going_on=going_on, say=say, on_progress=on_progress)
    return run


def _learn(run: Run, ready: Prepared, network: Model, *, going_on: bool, say: Say, on_progress: Tick) -> None:
    """All of a run once its folder is there."""
    files = list(dict.fromkeys(file for scene in ready.scenes for file in scene.files))
    if going_on:
        run.require_inputs(files)
    else:
        run.record_inputs(files)
        run.keep_log_until(0)  # a call that was killed in its first epoch may have logged it
    for note in ready.notes:
        say(f"note: {note}")
    ready.split.save(run.path("split.csv"))
    run.write_json("notes.json", ready.notes)
    loop = Loop(run, ready, network, say, on_progress)
    if going_on:
        loop.load()
    loop.fit()
    decide(run, ready, say)
    fit_applicability(run, ready, say)
    _baseline(run, ready, say)


def _baseline(run: Run, ready: Prepared, say: Say) -> None:
    """The forest beside the network, unless it is off, there already, or scikit-learn is missing (which is noted)."""
    config = run.config.baseline
    if not config or run.path("baseline/config.json").is_file():
        return
    try:
        seed = run.config.train.seed
        train_baseline(run, config, ready, seed=seed, facts=ready.trained_on)
        say(f"random forest of {config.trees} trees trained")
    except (MissingExtra, DataError) as error:
        ready.notes.append("no baseline: " + "; ".join(filter(None, (error.message, error.fix))))
        run.write_json("notes.json", ready.notes)
        say(f"note: {error}")


class Loop:
    """State of a training run: network, optimiser, schedule, averaged weights, best score."""

    def __init__(self, run: Run, ready: Prepared, network: Model, say: Say, on_progress: Tick = unseen) -> None:
        self.run, self.ready, self.say, self.on_progress = run, ready, say, on_progress
        self.config: TrainConfig = run.config.train
        self.accelerator = make_accelerator(self.config.precision, self.config.device)
        self.task = ready.task
        self.data = TrainWindows(
            ready.scenes,
            ready.split,
            ready.survey.cells,
            ready.spec,
            self.config,
            length=windows_per_epoch(self.config, ready),
            sampling=ready.sampling,
            # Worker processes would each get a copy of what is held.
            cache_bytes=0 if self.config.workers else self.config.cache_gb * 1e9,
            targets=self.task.kind.takes != "classes",
            chip_px=ready.spec.size_px if self.task.kind.chips else None,
        )
        self.steps = math.ceil(len(self.data) / (self.config.batch_size * self.config.accumulate))
        self.facts = {"run": run.config.name, **_origin(run, network, ready, say), **ready.trained_on}
        self.facts["trainable_parameters"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
        channels_last(network)
        self.loss = build_loss(run.config, ready).to(self.accelerator.device)
        self.network, self.optimiser = self.accelerator.prepare(network, make_optimiser(network, self.config))
        self.plain: Model = self.accelerator.unwrap_model(self.network)
        if self.config.compile:
            self.network = torch.compile(self.network)
        self.average = {k: v.detach().clone() for k, v in self.plain.state_dict().items()} if self.config.ema else None
        self.schedule = make_schedule(self.optimiser, self.config, self.steps)
        self.epoch, self.step, self.best, self.stale = 0, 0, -math.inf, 0
        self.cache: FeatureCache | None = None
        if self.config.cache_features:
            symmetries = 8 if self.config.augment.flips else 1
            self.cache = FeatureCache(run.path("checkpoints/features"), symmetries * len(self.data))

    def fit(self) -> None:
        """Epochs until the last one, or until the monitored score has not risen for `patience` validations."""
        writer = _tensorboard(self.run) if self.config.tensorboard else None
        while self.epoch < self.config.epochs and not self._is_stale():
            start = time.perf_counter()
            with within_memory(f"a training step of epoch {self.epoch + 1}", fix=_lighter(self.run.config)):
                loss = self._train_epoch()
            self.epoch += 1
            group = self.optimiser.param_groups[0]
            row: dict[str, Any] = {
                "epoch": self.epoch,
                "step": self.step,
                "loss": loss,
                "lr": group["lr"] / group.get("factor", 1),
            }
            if self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs:
                row |= self._validate()
            row["seconds"] = round(time.perf_counter() - start, 3)
            if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) and "val_loss" in row:
                self.schedule.step(row["val_loss"])
            self.run.log(row)
            self.save()
            if writer:
                for key, value in row.items():
                    writer.add_scalar(key, value, self.epoch)
            self.say(_describe(row, self.config.epochs, self.run.config.monitor[0]))
        if self.cache:
            self.cache.clear()
        if writer:
            writer.close()

    def _is_stale(self) -> bool:
        return self.config.patience is not None and self.stale >= self.config.patience

    def _train_epoch(self) -> float:
        self.network.train()
        self.data.start(self.epoch)
        sums = mass = torch.zeros(1, dtype=torch.float64, device=self.accelerator.device)
        for group in _groups(self._loader(), self.config.accumulate):
            found = self._step(group)
            sums, mass = sums + found[0], mass + found[1]
            self.on_progress(self.step, self.steps * self.config.epochs)
        return float(self._mean(sums, mass))

    def _loader(self) -> DataLoader[Batch]:
        # A generator of its own: the loader would otherwise draw from the global state once for each epoch.
        return DataLoader(
            self.data,  # type: ignore[arg-type]
            batch_size=self.config.batch_size,
            num_workers=self.config.workers,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(self.config.seed),
            multiprocessing_context="spawn" if self.config.workers else None,
        )

    def _step(self, group: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step over the batches of an accumulation, as if they were one; gives sums and masses (n,)."""
        batches = [batch.to(self.accelerator.device) for batch in group]
        mass = torch.stack([self._mass(batch) for batch in batches]).sum(0)
        sums = torch.zeros_like(mass)
        for batch in map(self._without_a_sensor, batches):
            found = self._sums(batch)
            total = self._mean(found, mass)
            if not torch.isfinite(total):
                kept = f"; the model of epoch {self.epoch} is in {self.run.folder}" if self.epoch else ""
                raise CovermapError(
                    f"the loss is no longer a number in epoch {self.epoch + 1}, windows {', '.join(batch.keys)}",
                    fix=f"lower train.lr, or look at those windows{kept}",
                )
            self.accelerator.backward(total)
            sums += found.detach()
        if self.config.clip:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        if not isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step()
        if self.average is not None:
            self._update_average()
        return sums, mass

    def _mean(self, sums: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
        """The loss of the sums (n,) of its terms, each divided by its mass."""
        factors = 1.0 if self.plain.decoder.has_own_loss else self.loss.factors
        return (sums * (factors / mass.clamp_min(1e-12))).sum()

    def _mass(self, batch: Batch) -> torch.Tensor:
        """What the sums of losses are divided by (n,): weights of pixels, or windows with a label."""
        if batch.label is not None and self.plain.decoder.has_own_loss:
            return (batch.label != IGNORE).flatten(1).any(1).sum().double()[None]
        return self.loss.mass(reference(self.task, batch))

    def _sums(self, batch: Batch) -> torch.Tensor:
        """The sums of losses of a batch (n,)."""
        own = self.plain.decoder.has_own_loss
        try:
            with self.accelerator.autocast():
                encoded = self.cache.encode(self.plain, batch) if self.cache else None
                found = self.network(batch, encoded, own_loss=own)
        except Exception as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise ConfigError(
                    f"train.compile: the network cannot be compiled here ({str(error).strip().splitlines()[0]})",
                    fix="leave it out; on a processor it needs a C++ compiler",
                ) from error
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                "a batch is so small that the coarsest features of the network are one cell, which has no variance",
                fix="raise train.batch_size or train.size_px",
            ) from error
        if own:
            windows: torch.Tensor = found[0][None]
            return windows
        known = reference(self.task, batch)
        sums: torch.Tensor = self.loss(like(found, known, batch.valid), known)
        return sums

    def _without_a_sensor(self, batch: Batch) -> Batch:
        """Now and then a batch lacks one of its sensors."""
        share = self.config.augment.drop_sensors
        if not share or torch.rand(()) >= share:
            return batch
        optional = [entry.sensor for entry in self.ready.spec.sensors if entry.optional]
        lost = optional[int(torch.randint(len(optional), ()))]
        return replace(batch, image={name: x for name, x in batch.image.items() if name != lost})

    def _update_average(self) -> None:
        """Averaged weights follow faster at the start, so that the first epochs do not weigh on the mean."""
        assert self.average is not None
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.plain.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value.detach(), 1 - decay)
            else:
                self.average[name].copy_(value)

    def _validate(self) -> dict[str, float]:
        """Scores of the val part; keeps the model when the monitored one rises (falls, for a loss), or without val."""
        model = self.current_model()
        if not self.ready.has_val:
            self._keep(model, {})
            return {}
        scores = score(model, self.ready.scenes, self.ready.split, "val", settings=self.run.config.predict).scores()
        row = {f"val_{key}": float(scores[key]) for key in (*self.task.kind.scores, "loss")}
        key, sign = self.run.config.monitor
        value = sign * row[key]
        if math.isnan(value):
            raise DataError(
                f"the val part does not tell {key}: it lacks what that measures, such as positives, or varying numbers",
                fix="choose the model by another score (train.monitor: val_loss), or change the val part",
            )
        self.stale += 1
        if value > self.best:
            self.best, self.stale = value, 0
            self._keep(model, row)
        return row

    def _keep(self, model: NetworkModel, scores: Mapping[str, float]) -> None:
        model.facts.update({"epoch": self.epoch, **{key: round(value, 4) for key, value in scores.items()}})
        if self.accelerator.is_main_process:
            save_model(model, self.run.path("model"), build=self.ready.build)
            if has_lora(self.plain):
                base = {"backbone": self.run.config.model.backbone, "weights": str(self.facts["started_from_sha256"])}
                save_adapter(self.plain, self.run.path("model/adapter.safetensors"), base=base)

    def current_model(self) -> NetworkModel:
        """The network as it is now (averaged weights where they are on), in evaluation mode, apart from training."""
        network = copy.deepcopy(self.plain)
        if self.average is not None:
            network.load_state_dict(self.average)
        merge_lora(network)
        return NetworkModel(
            self.ready.spec, self.task, network, self.facts, device=str(self.accelerator.device),
            precision=self.run.config.predict.precision,
        )  # fmt: skip

    def save(self) -> None:
        """Everything that the next epoch depends on, written whole or not at all."""
        state = {
            "epoch": self.epoch, "step": self.step, "best": self.best, "stale": self.stale,
            "network": self.plain.state_dict(), "average": self.average,
            "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "torch_rng": torch.get_rng_state(), "cuda_rng": torch.cuda.get_rng_state_all(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }  # fmt: skip
        if self.accelerator.is_main_process:
            with replacing(self.run.path("checkpoints/last.pt")) as partial:
                torch.save(state, partial)

    def load(self) -> None:
        """Continue from checkpoints/last.pt; raises ModelError when it is damaged."""
        path: Path = self.run.path("checkpoints/last.pt")
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            self.plain.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.average = state["average"]
            self.epoch, self.step, self.best, self.stale = (state[k] for k in ("epoch", "step", "best", "stale"))
            torch.set_rng_state(state["torch_rng"].cpu())
            if len(state["cuda_rng"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda_rng"]])
        except Exception as error:
            raise ModelError(f"{path} is damaged ({error})", fix="start again with --overwrite") from error
        self.run.keep_log_until(self.epoch)
        self.say(f"resumed after epoch {self.epoch}")


def _origin(run: Run, network: Model, ready: Prepared, say: Say) -> dict[str, Any]:
    """Facts about the weights that a network started from, with weights.json: what became of each published tensor."""
    section, reports = run.config.model, network.backbone.reports
    if ready.earlier:
        facts = {"started_from": ready.earlier.name, "started_from_sha256": ready.earlier.checksum}
        known = ready.earlier.card.facts
        kept = ("licence_of_weights", "extra_from", "extra_from_sha256", "extra_licence_of_weights")
        facts |= {key: known[key] for key in kept if key in known}  # a run from scratch has none
    elif reports:
        published = [published_of(name) if section.weights == "auto" else None for name in ready.weights]
        licences = ", ".join(each.licence if each else "not known" for each in published)
        facts = {**origin_of(reports), "licence_of_weights": licences}
    elif run.path("weights.json").is_file():
        return dict(run.read_json("weights.json")["facts"])
    else:
        facts = {}
    if extra := ready.extra:
        facts |= {"extra_from": extra.name, "extra_from_sha256": extra.checksum}
        if "licence_of_weights" in extra.card.facts:
            facts["extra_licence_of_weights"] = extra.card.facts["licence_of_weights"]
    if facts:
        keep_reports(run, reports, facts, say)
    return facts


def _lighter(config: RunConfig) -> str:
    """What to set where a step does not fit into memory: first the same step in more parts."""
    batch, parts = config.train.batch_size, config.train.accumulate
    n = next((n for n in range(2, batch + 1) if batch % n == 0), 1)
    first = f"--set train.batch_size={batch // n} --set train.accumulate={parts * n} --resume; or " if n > 1 else ""
    full = config.model.adaptation.method in ("full", "partial")
    others = ", or model.adapt: frozen or lora where there are published weights" if full else ""
    return f"{first}start again with train.size_px below {max(config.train.sizes_px)}{others}"


def windows_per_epoch(config: TrainConfig, ready: Prepared) -> int:
    """As many windows as cover the labelled cells once (and each of their copies), but at least four steps.

    Of chips each once, and a few twice, so that all steps are whole.
    """
    group = config.batch_size * config.accumulate
    if config.steps_per_epoch:
        return config.steps_per_epoch * group
    if ready.task.kind.chips:
        return group * math.ceil(int(ready.sampling.copies.sum()) / group)
    counted = zip(ready.survey.cells, ready.sampling.copies, strict=True)
    area = sum(cell.window.height * cell.window.width * int(times) for cell, times in counted)
    # Whole groups only: a last batch of one window would leave batch norm without a variance.
    seen = sum(side**2 for side in config.sizes_px) / len(config.sizes_px)
    return group * max(4, math.ceil(area / seen / group))


def _groups(loader: DataLoader[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in loader:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _tensorboard(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "track", "train.tensorboard") from error
    return SummaryWriter(str(run.path("tensorboard")))


def _describe(row: dict[str, Any], epochs: int, monitored: str) -> str:
    keys = dict.fromkeys(("loss", "val_loss", monitored, "val_oa"))
    scores = "  ".join(f"{key} {row[key]:.4f}" for key in keys if key in row)
    return f"epoch {row['epoch']}/{epochs}  {scores}  {row['seconds']:.1f} s"
