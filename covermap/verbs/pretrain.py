"""`pretrain`: a backbone learns without labels; what comes out is a backbone that other configs name.

    step: windows -> (views, masks: nn/ssl) -> loss -> clip -> optimiser -> teacher
    every `watch_every` steps: a log row with the losses' means, spread, effective rank, and a probe if there are labels

Several processes (torchrun, accelerate launch) share the windows of a step. The same seed gives the same numbers,
and a run that was stopped and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils.data import DataLoader

from covermap.core.config_file import dotted
from covermap.core.errors import ConfigError, CovermapError, ModelError, OutputError, within_memory
from covermap.core.output import at_work, replacing, write_text, writing
from covermap.core.parsing import read_yaml
from covermap.core.pretrain_config import PretrainConfig, ScheduleConfig
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import RunFolder, versions
from covermap.data.unlabelled import Collate, Steps, Unlabelled, UnlabelledWindows
from covermap.nn.optimiser import warming_up
from covermap.nn.ssl.gather import sum_of_all
from covermap.nn.ssl.method import Method
from covermap.nn.ssl.shards import Shards, require_shared_work
from covermap.pretrained import save_pretrained
from covermap.start import keep_reports, make_accelerator, origin_of
from covermap.verbs.pretrain_picture import draw_reconstruction
from covermap.verbs.pretrain_start import Ready, build_pretraining, prepare_pretraining
from covermap.verbs.pretrain_watch import Watch

_FREE = ("device", "workers", "cache_gb", "save_every")
"""Settings that a run may be resumed with other values of."""


def pretrain(
    config: PretrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> RunFolder:
    """Learn a backbone without labels into the config's folder; `resume` goes on after the last state saved.

    on_progress gets (steps done, all steps). Raises ConfigError, DataError, BandError, OutputError; CovermapError when
    the loss is no longer a number, or the vectors of all windows become one.
    """
    accelerator = _accelerator(config.train)
    run = RunFolder(config.folder)
    _require_free(run, config, resume=resume, overwrite=overwrite)
    going_on = resume and run.path("checkpoints/last.pt").is_file()
    ready = prepare_pretraining(config)
    method = build_pretraining(config, ready)
    if config.train.fsdp:
        require_shared_work(method)
    say = say if accelerator.is_main_process else silent
    files = list(dict.fromkeys(file for scene in ready.scenes for file in scene.files))
    if going_on:
        run.require_inputs(files)
    accelerator.wait_for_everyone()
    with at_work(run.folder, alone=True, again=True) if accelerator.is_main_process else contextlib.nullcontext():
        if accelerator.is_main_process and not going_on:
            _require_free(run, config, resume=resume, overwrite=overwrite)  # another call may have come first
            _start(run, config, files, ready)
        accelerator.wait_for_everyone()
        for note in ready.notes:
            say(f"note: {note}")
        loop = Loop(run, config, ready, method, accelerator, say, on_progress)
        if going_on:
            loop.load()
        loop.fit()
    return run


def _require_free(run: RunFolder, config: PretrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds a run, unless it is replaced, or resumed with the settings it was started with."""
    path = run.path("config.yaml")
    if overwrite or not path.is_file():
        return
    if not resume:
        raise OutputError(f"{run.folder} holds a run already", fix="add --resume to go on with it, or --overwrite")
    before = read_yaml(path, fix="start again with --overwrite", error=OutputError)
    now = config.model_dump(mode="json")
    if not isinstance(before, dict) or "method" not in before:
        raise OutputError(f"{run.folder} holds a run of another kind", fix="choose another name, or add --overwrite")
    for each in (before, now):
        each["train"] = {key: value for key, value in each["train"].items() if key not in _FREE}
    was, new = (dotted({key: each[key] for key in each if key not in ("name", "output")}) for each in (before, now))
    told = [f"{key} ({was.get(key)}, now {new.get(key)})" for key in was | new if was.get(key) != new.get(key)]
    if told:
        raise OutputError(
            f"{run.folder} was started with other settings: {', '.join(told[:5])}{' ...' if len(told) > 5 else ''}",
            fix="go on with its own config.yaml, or start again with --overwrite",
        )


def _start(run: RunFolder, config: PretrainConfig, files: list[str], ready: Ready) -> None:
    """Make the folder, with what repeats the run."""
    with writing(run.folder):
        run.path("checkpoints").mkdir(parents=True, exist_ok=True)
    for name in ("log.jsonl", "log.csv", "checkpoints/last.pt", "reconstruction.png", "weights.json", "report.html"):
        run.path(name).unlink(missing_ok=True)
    shutil.rmtree(run.path("model"), ignore_errors=True)  # its weights are those of other settings
    write_text(run.path("config.yaml"), yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    run.write_json("versions.json", versions())
    run.write_json("notes.json", ready.notes)
    run.record_inputs(files)
    if ready.split is not None:
        ready.split.save(run.path("split.csv"))


class Loop:
    """State of a pre-training: method, optimiser, schedule, and the losses since the last row."""

    def __init__(
        self, run: RunFolder, config: PretrainConfig, ready: Ready, method: Method, accelerator: Any, say: Say,
        on_progress: Tick,
    ) -> None:  # fmt: skip
        self.run, self.ready, self.say, self.on_progress = run, ready, say, on_progress
        self.whole, self.config, self.accelerator = config, config.train, accelerator
        self.facts = {"run": config.name, "method": config.method.name, **self._origin(method)}
        self.windows = UnlabelledWindows(
            ready.scenes, size_px=self.config.size_px, seed=self.config.seed, split=ready.split,
            cache_bytes=0 if self.config.workers else self.config.cache_gb * 1e9,
        )  # fmt: skip
        self.shards = (
            Shards(method, accelerator.device, main=accelerator.is_main_process) if config.train.fsdp else None
        )
        optimiser = torch.optim.AdamW(_groups(method, self.config.weight_decay), lr=self.config.lr, betas=(0.9, 0.95))
        self.method, self.plain = method if self.shards else accelerator.prepare(method), method
        self.optimiser = accelerator.prepare(optimiser)
        self.schedule = warming_up(optimiser, self.config.steps, self.config.warmup, cosine=True)
        self.step, self.sums, self.count = 0, dict[str, float](), 0
        self.watch = Watch(
            ready.scenes, ready.spec, self.windows, ready.split, size_px=self.config.size_px, device=accelerator.device
        )

    def _origin(self, method: Method) -> dict[str, Any]:
        """Facts about the weights that the backbone started from, with weights.json; none of a random one."""
        reports = method.encoder.reports
        if not reports:
            return {}
        facts = origin_of(reports)
        if self.accelerator.is_main_process:
            keep_reports(self.run, reports, facts, self.say)
        return facts

    def fit(self) -> None:
        """All steps that are left."""
        if self.step == 0:
            self._look(None)
        self.method.train()
        start = time.perf_counter()
        with within_memory("a step of the pre-training", fix="set a smaller train.batch_size or train.size_px"):
            for drawn in self._loader():
                self._step(drawn)
                self.on_progress(self.step, self.config.steps)
                last = self.step == self.config.steps
                if last or self.step % self.config.watch_every == 0:
                    self._look(time.perf_counter() - start)
                    start = time.perf_counter()
                if last or self.step % self.config.save_every == 0:
                    self.save()

    def _loader(self) -> Iterator[Unlabelled]:
        numbers = Steps(
            self.step, self.config.steps, batch_size=self.config.batch_size,
            process=self.accelerator.process_index, processes=self.accelerator.num_processes,
        )  # fmt: skip
        return iter(DataLoader(
            self.windows, batch_size=self.config.batch_size, sampler=numbers, num_workers=self.config.workers,
            collate_fn=Collate(self.ready.spec), multiprocessing_context="spawn" if self.config.workers else None,
            generator=torch.Generator().manual_seed(self.config.seed),
        ))  # fmt: skip

    def _step(self, drawn: Unlabelled) -> None:
        progress = self.step / self.config.steps
        self.plain.before_step(progress)
        with self.accelerator.autocast():
            terms = self.method(drawn.batch.to(self.accelerator.device), drawn.seeds)
        if not torch.isfinite(sum_of_all(terms["loss"])):
            own = not torch.isfinite(terms["loss"])
            where = f"windows {', '.join(drawn.batch.keys[:3])}" if own else "windows of another process"
            raise CovermapError(
                f"the loss is no longer a number in step {self.step + 1}, {where}",
                fix="start again (--overwrite) with a lower train.lr, or look at those windows",
            )
        self.accelerator.backward(terms["loss"])
        if self.config.clip:
            self.accelerator.clip_grad_norm_(self.method.parameters(), self.config.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()
        self.step += 1
        self.plain.after_step(self.step / self.config.steps)
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        self.count += 1

    def _look(self, seconds: float | None) -> None:
        """A row of the log: means of the losses since the last one, and what the vectors look like."""
        means = {name: value / self.count for name, value in self.sums.items()}
        means = self._over_processes(means)
        self.sums, self.count = {}, 0
        method = self._whole()
        self._by_main(lambda: self._row(method, means, seconds))

    def _whole(self) -> Method:
        """The method with whole weights, in the main process."""
        return (self.shards.whole() if self.shards else self.plain) or self.plain

    def _row(self, method: Method, means: dict[str, float], seconds: float | None) -> None:
        row: dict[str, Any] = {"step": self.step, **means, **self.watch(method)}
        if self.step == 0:
            row |= self.watch.raw(self.plain.inputs)
            if self.watch.lacks:
                self.say(f"note: no probe: {self.watch.lacks}")
        said = self.watch.collapse(row, self.plain) if self.step else ""
        row |= {"collapse": said} if said else {}
        if seconds is not None:
            row |= {"lr": self.optimiser.param_groups[0]["lr"], "seconds": round(seconds, 3)}
        self.run.log(row)
        self.say(_describe(row, self.config.steps))
        picture, device = self.run.path("reconstruction.png"), self.accelerator.device
        draw_reconstruction(method, self.watch.samples, self.ready.spec, picture, device=device)
        if self.step:
            self.watch.require_life(said, self.step)

    def _by_main(self, work: Callable[[], None]) -> None:
        """Done by the main process alone; an error of it is raised in all, for none is to wait for one that is gone."""
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                work()
            except CovermapError as error:
                told = [error]
        broadcast_object_list(told)
        if told[0] is not None:
            raise told[0]

    def _over_processes(self, means: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1 or not means:
            return means
        values = torch.tensor(list(means.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(means, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def save(self) -> None:
        """The backbone as it is, and everything that the next step depends on, written whole or not at all."""
        self.sums = self._over_processes(self.sums)
        method = self._whole()
        own = self.optimiser.optimizer
        optimiser = self.shards.optimiser_state(own) if self.shards else own.state_dict()
        self._by_main(lambda: self._write(method, optimiser))

    def _write(self, method: Method, optimiser: dict[str, Any]) -> None:
        facts = {**self.facts, "step": self.step}
        build, seen = self.ready.build, self.ready.seen
        save_pretrained(method.encoder, seen, build, facts, self.run.path("model"))
        state = {
            "step": self.step, "method": method.state_dict(), "optimiser": optimiser,
            "schedule": self.schedule.state_dict(), "sums": self.sums, "count": self.count,
            "processes": self.accelerator.num_processes,
            "collapsed": self.watch.collapsed, "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.accelerator.device.type == "cuda" else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }  # fmt: skip
        with replacing(self.run.path("checkpoints/last.pt")) as partial:
            torch.save(state, partial)

    def load(self) -> None:
        """Continue from checkpoints/last.pt; raises ModelError when it is damaged, OutputError for other processes."""
        path: Path = self.run.path("checkpoints/last.pt")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            before = state["processes"]
            if self.shards:
                self.shards.load(state["method"], self.optimiser.optimizer, state["optimiser"])
            else:
                self.plain.load_state_dict(state["method"])
                self.optimiser.load_state_dict(state["optimiser"])
            self.schedule.load_state_dict(state["schedule"])
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["torch_rng"])
            self.step, self.sums, self.count = state["step"], state["sums"], state["count"]
            self.watch.collapsed, cuda_rng = state["collapsed"], state["cuda_rng"]
        except Exception as error:
            raise ModelError(f"{path} is damaged ({error})", fix="start again with --overwrite") from error
        if before != self.accelerator.num_processes:
            raise OutputError(
                f"{self.run.folder} was learnt by {before} processes with {self.config.batch_size} windows each; there "
                f"are {self.accelerator.num_processes} now", fix=f"torchrun --nproc-per-node {before}, or --overwrite",
            )  # fmt: skip
        if cuda_rng is not None and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(cuda_rng)
        if self.accelerator.is_main_process:
            self.run.keep_log_until(self.step, "step")
        self.say(f"resumed after step {self.step}")


def _groups(method: Method, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of layers decay; biases, norms and codes, which have one dimension, do not."""
    trained = [p for p in method.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _describe(row: dict[str, Any], steps: int) -> str:
    names = ("loss", "spread", "effective_rank", "probe_r2", "probe_r2_raw")
    said = [f"{name} {row[name]:.4g}" for name in names if name in row]
    return f"step {row['step']}/{steps}: {', '.join(said)}"


def _accelerator(config: ScheduleConfig) -> Any:
    from accelerate import DistributedDataParallelKwargs

    # Sensors that a step drops leave parameters without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = make_accelerator(config.precision, config.device, unused)
    _require_whole(accelerator.distributed_type.value)
    return accelerator


def _require_whole(kind: str) -> None:
    """Refuse settings of accelerate launch that cut a network into pieces: train.fsdp does."""
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise ConfigError(
            f"pretrain cuts a network into pieces by itself, not by accelerate's settings ({kind})",
            fix="start it by torchrun, or by accelerate launch --multi_gpu, and set train.fsdp=true",
        )
