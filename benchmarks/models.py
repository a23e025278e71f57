"""Whole models: backbone + neck + U-Net beside TerraTorch; cached features; memory of low-rank updates; a GPU's share.

usage: .venv/bin/python benchmarks/models.py [peer --python PYTHON] [cache] [memory] [gpu] [--repeats 5]
    peer     forward and training step beside TerraTorch 1.2 (in an environment of its own), a process each, in
             turns; the share of time outside of the backbone
    cache    an epoch of a frozen ViT-B with its features read from disk, and computed
    memory   of a training step, full and low-rank: of a 300M ViT counted (meta device), of a 100M one also measured
    gpu      fine-tuning a 300M ViT at 224 px: images a second, memory, share of the matrix product's rate
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from covermap.core.train_config import AdaptConfig
from covermap.core.types import Batch, InputSpec
from covermap.models import precision_of
from covermap.nn.adapt import adapt, parameter_groups
from covermap.nn.build import build_model
from covermap.nn.feature_cache import FeatureCache
from covermap.nn.layers import channels_last, fold_norms
from covermap.nn.model import Model
from covermap.testing import random_batch, suitable_spec

SIDE, CLASSES, WIDTHS = 224, 11, (256, 128, 64, 32)
PEERS = ("prithvi_eo_v2_tiny_tl", "terramind_v1_tiny", "prithvi_eo_v2_100_tl", "terramind_v1_base")
SAME = {"neck": "interpolate", "decoder_options": {"widths": [64, 128, 256], "last": 32, "interpolation": "nearest"}}
"""The network that TerraTorch builds, layer for layer (its checkpoints load into it and give the same logits)."""
OWN = {"decoder_options": {"widths": [64, 128, 256], "last": 32}}
"""Our own neck before a U-Net of the same widths."""


def one_sensor(name: str) -> InputSpec:
    """The first sensor that a backbone was published for."""
    spec = suitable_spec(name)
    return InputSpec(spec.sensors[:1], spec.gsd_m, SIDE)


def labelled(spec: InputSpec, *, size: int = 4, seed: int = 0) -> Batch:
    """Random windows with random labels."""
    batch = random_batch(spec, SIDE, SIDE, size=size, seed=seed)
    batch.label = torch.randint(0, CLASSES, (size, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return batch


def layers_of(name: str) -> list[int]:
    """Four blocks at equal distances, as recipes of the field choose them."""
    depth = {"tiny": 12, "100": 12, "base": 12, "300": 24}[name.split("_")[-1 if not name.endswith("_tl") else -2]]
    return [depth // 4 * i - 1 for i in (1, 2, 3, 4)]


def make(name: str, kind: str) -> tuple[Model, Batch]:
    torch.manual_seed(0)
    spec = one_sensor(name)
    build: dict[str, Any] = SAME if kind == "same" else OWN
    model = build_model(spec, CLASSES, backbone=name, backbone_options={"layers": layers_of(name)}, **build)
    channels_last(model)
    return model, labelled(spec)


def forward_of(model: Model, batch: Batch) -> Callable[[], object]:
    """Prediction as `predict` does it."""
    ready = channels_last(fold_norms(model))

    def run() -> object:
        with torch.inference_mode():
            return ready(batch)

    return run


def step_of(model: Model, batch: Batch) -> Callable[[], object]:
    """Forward, backward and optimiser, as `train` does it."""
    model.train()
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-4, weight_decay=0.05), fused=True)
    assert batch.label is not None
    label = batch.label

    def run() -> object:
        loss = nn.functional.cross_entropy(model(batch), label, ignore_index=255)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss

    return run


def calls_of(name: str, kind: str) -> dict[str, Callable[[], object]]:
    """Forward and step of a whole network, and its backbone's forward alone."""
    model, batch = make(name, kind)
    forward = forward_of(model.eval(), batch)
    trained, _ = make(name, kind)

    def backbone() -> object:
        with torch.inference_mode():
            return model.encode(batch)

    return {"forward": forward, "backbone": backbone, "step": step_of(trained, batch)}


SERVE = """
def serve(calls):
    for call in calls.values():
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        calls[line.strip()]()
        print(time.perf_counter() - start, flush=True)
"""
PEER_CODE = """
import json, sys, time, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.CRITICAL)
name, bands, modality, layers, widths, classes, threads = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
from terratorch.models import EncoderDecoderFactory
torch.manual_seed(0)
more = {"backbone_modalities": [modality]} if modality else {"backbone_num_frames": 1, "backbone_bands": bands}
necks = [{"name": "SelectIndices", "indices": layers}, {"name": "ReshapeTokensToImage"},
         {"name": "LearnedInterpolateToPyramidal"}]
if modality:
    necks[1]["remove_cls_token"] = False
model = EncoderDecoderFactory().build_model(
    task="segmentation", backbone=name, backbone_pretrained=False, necks=necks, decoder="UNetDecoder",
    decoder_channels=widths, num_classes=classes, **more)
x = torch.randn(4, 12 if modality else len(bands), 224, 224)
inputs = {modality: x} if modality else x
label = torch.randint(0, classes, (4, 224, 224))
import copy
model.eval()
trained = copy.deepcopy(model).train()
optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-4, weight_decay=0.05)
def forward():
    with torch.inference_mode():
        model(inputs).output
def backbone():
    with torch.inference_mode():
        model.encoder(inputs)
def step():
    loss = torch.nn.functional.cross_entropy(trained(inputs).output, label)
    loss.backward(); optimiser.step(); optimiser.zero_grad()
serve({"forward": forward, "backbone": backbone, "step": step})
"""
OUR_CODE = """
import json, sys, time
name, kind, threads = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
sys.path.insert(0, "benchmarks")
from models import calls_of
serve(calls_of(name, kind))
"""


class Side:
    """A process that holds one network and times single calls when it is asked to."""

    def __init__(self, python: str, code: str, values: list[object]) -> None:
        # A process that waits must not spin on the cores that the other one uses.
        quiet = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
        self.process = subprocess.Popen(
            [python, "-c", SERVE + code, json.dumps(values)], text=True, env=quiet, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while (said := self._line()) != "ready":
            if not said:
                raise SystemExit(f"{python}: the network cannot be built")

    def time(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def beside_peer(name: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Both of ours and the peer's, a process each, one call after the other; ratios are of neighbouring calls."""
    threads, layers = torch.get_num_threads(), layers_of(name)
    bands = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
    modality = "S2L2A" if name.startswith("terramind") else ""
    sides = {
        "same": Side(sys.executable, OUR_CODE, [name, "same", threads]),
        "own": Side(sys.executable, OUR_CODE, [name, "own", threads]),
        "peer": Side(args.python, PEER_CODE, [name, bands, modality, layers, WIDTHS, CLASSES, threads]),
    }
    whats = ("forward", "backbone", "step")
    turns = [
        {what: {key: side.time(what) for key, side in sides.items()} for what in whats} for _ in range(args.repeats)
    ]
    for side in sides.values():
        side.process.kill()

    def over_turns(value: Callable[[dict[str, dict[str, float]]], float]) -> float:
        return round(statistics.median(value(turn) for turn in turns), 3)

    def row(key: str) -> dict[str, object]:
        return {
            "model": name, "network": key,
            "forward_s": over_turns(lambda t: t["forward"][key]), "step_s": over_turns(lambda t: t["step"][key]),
            "outside_backbone": over_turns(lambda t: 1 - t["backbone"][key] / t["forward"][key]),
            "peer_over_ours_forward": over_turns(lambda t: t["forward"]["peer"] / t["forward"][key]),
            "peer_over_ours_step": over_turns(lambda t: t["step"]["peer"] / t["step"][key]),
        }  # fmt: skip

    return [row(key) for key in sides]


def run_code(python: str, code: str, values: list[object]) -> dict[str, Any]:
    done = subprocess.run([python, "-c", code, json.dumps(values)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def cached(args: argparse.Namespace, *, windows: int = 32) -> dict[str, object]:
    """A training epoch over `windows` windows of 224 px with a frozen ViT-B, features computed and read."""
    spec = one_sensor("vit_base")
    torch.manual_seed(0)
    model = build_model(spec, CLASSES, backbone="vit_base", decoder="fcn", decoder_options={"width": 128, "steps": 2})
    adapt(model, AdaptConfig(method="frozen"))
    channels_last(model)
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-3, weight_decay=0.0), fused=True)
    data = [labelled(spec, seed=i) for i in range(windows // 4)]
    for i, batch in enumerate(data):
        batch.keys = tuple(f"{i}/{j}" for j in range(4))

    def epoch(cache: FeatureCache | None) -> float:
        model.train()
        start = time.perf_counter()
        for batch in data:
            assert batch.label is not None
            logits = model(batch, cache.encode(model, batch) if cache else None)
            nn.functional.cross_entropy(logits, batch.label, ignore_index=255).backward()
            optimiser.step()
            optimiser.zero_grad()
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder) / "features", windows)
        first = epoch(cache)
        pairs = [(epoch(None), epoch(cache)) for _ in range(args.repeats)]
    plain, read = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return {"backbone": "vit_base", "windows": windows, "first_epoch_s": round(first, 2), "computed_s": round(plain, 2),
            "read_s": round(read, 2), "computed_over_read": round(ratio, 2)}  # fmt: skip


def memory_model(name: str, method: str) -> Model:
    """A network as it is fine-tuned: full, or by updates of rank 256 of `attention` or of `all` linear layers."""
    spec = one_sensor(name)
    model = build_model(spec, CLASSES, backbone=name, backbone_options={"layers": layers_of(name)}, **SAME)
    if method != "full":
        adapt(model, AdaptConfig(method="lora", rank=256, targets=method))
    return model


def counted(name: str, method: str, size: int) -> dict[str, float]:
    """GB of a training step on the meta device: weights, gradients, AdamW's means, backward's needs."""
    model = memory_model(name, method).to("meta")
    parameters = list(model.parameters())
    kept: dict[int, torch.Tensor] = {}
    own = {p.untyped_storage()._cdata for p in parameters}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage()._cdata not in own:
            kept[x.untyped_storage()._cdata] = x
        return x

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model(labelled(one_sensor(name), size=size).to("meta"))
    trained = sum(p.numel() for p in parameters if p.requires_grad) * 4
    parts = {"weights": sum(p.numel() for p in parameters) * 4, "gradients": trained, "optimiser": 2 * trained,
             "activations": sum(x.untyped_storage().nbytes() for x in kept.values())}  # fmt: skip
    return {key: round(value / 1e9, 3) for key, value in (parts | {"sum": sum(parts.values())}).items()}


MEASURED_CODE = """
import json, sys
name, method, size = json.loads(sys.argv[1])
sys.path.insert(0, "benchmarks")
from models import labelled, memory_model, one_sensor, step_of
def peak():
    line = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
    return int(line.split()[1]) / 1e6
base = peak()
run = step_of(memory_model(name, method), labelled(one_sensor(name), size=size))
run()
run()
print(json.dumps({"peak_GB": peak() - base}))
"""


def memory(*, large: str = "prithvi_eo_v2_300", small: str = "prithvi_eo_v2_100") -> Iterator[dict[str, object]]:
    """Full fine-tuning beside low-rank updates: counted for a large model, counted and measured for a smaller one."""
    for name, size in ((large, 1), (large, 4), (small, 1), (small, 4)):
        found = {method: counted(name, method, size) for method in ("full", "attention", "all")}
        row: dict[str, object] = {"model": name, "batch": size, **found}
        peaks = {method: each["sum"] for method, each in found.items()}
        row["counted_share"] = {method: round(peak / peaks["full"], 3) for method, peak in peaks.items()}
        if name == small:
            peaks = {how: run_code(sys.executable, MEASURED_CODE, [name, how, size])["peak_GB"] for how in found}
            row["measured_GB"] = {how: round(peak, 2) for how, peak in peaks.items()}
            row["measured_share"] = {how: round(peak / peaks["full"], 3) for how, peak in peaks.items()}
        yield row


def fine_tuning(args: argparse.Namespace) -> dict[str, object]:
    """Full fine-tuning on one device: images a second, memory, and the share of a large matrix product's rate."""
    device, size = torch.device(args.device), args.batch
    cuda = device.type == "cuda"
    half = torch.bfloat16 if precision_of("auto", args.device) == "bf16" else torch.float32
    model = memory_model(args.large, "full").to(device)
    batch = labelled(one_sensor(args.large), size=size).to(device)
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, half, enabled=half != torch.float32):
        nn.functional.cross_entropy(model(batch).float(), batch.label, ignore_index=255).backward()
    step = step_of(torch.compile(model) if args.compile else model, batch)  # type: ignore[arg-type]
    a, b = (torch.randn(args.product, args.product, device=device, dtype=half) for _ in range(2))

    def timed(run: Callable[[], object]) -> float:
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(device.type, half, enabled=half != torch.float32):
            run()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(3):
        timed(step), timed(lambda: a @ b)
    pairs = [(timed(step), timed(lambda: a @ b)) for _ in range(args.repeats)]
    rate = statistics.median(counter.get_total_flops() / mine for mine, _ in pairs)
    product = statistics.median(2 * args.product**3 / plain for _, plain in pairs)
    seconds = statistics.median(mine for mine, _ in pairs)
    return {
        "model": args.large, "batch": size, "device": torch.cuda.get_device_name() if cuda else "processor",
        "dtype": str(half), "compiled": args.compile, "images_per_s": round(size / seconds, 2),
        "TFLOP_per_s": round(rate / 1e12, 3), "share_of_product": round(rate / product, 3),
        "memory_GB": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["peer", "cache", "memory", "gpu"])
    parser.add_argument("--python", help="interpreter of an environment with terratorch 1.2")
    parser.add_argument("--models", nargs="+", default=PEERS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda", help="with gpu")
    parser.add_argument("--large", default="prithvi_eo_v2_300", help="with gpu")
    parser.add_argument("--batch", type=int, default=32, help="with gpu")
    parser.add_argument("--product", type=int, default=8192, help="with gpu: side of the matrices")
    parser.add_argument("--compile", action="store_true", help="with gpu")
    args = parser.parse_args()
    print(json.dumps({"torch": torch.__version__, "precision_auto": precision_of("auto", "auto"),
                      "threads": torch.get_num_threads()}))  # fmt: skip
    if "peer" in args.what:
        for name in args.models:
            for row in beside_peer(name, args):
                print(json.dumps(row), flush=True)
    if "gpu" in args.what:
        print(json.dumps(fine_tuning(args)), flush=True)
    if "memory" in args.what:
        for row in memory():
            print(json.dumps(row), flush=True)
    if "cache" in args.what:
        print(json.dumps(cached(args)), flush=True)


if __name__ == "__main__":
    main()
