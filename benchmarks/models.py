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
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-4, weight_decay=0.05))
    assert batch.label is not None
    label = batch.label

    def run() -> object:
        loss = nn.functional.cross_entropy(model(batch), label, ignore_index=255)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss

    return run


def times_of(run: Callable[[], object], repeats: int) -> list[float]:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def one_side(name: str, kind: str, repeats: int) -> dict[str, list[float]]:
    """Times of forward and step, and of the backbone alone."""
    model, batch = make(name, kind)
    model.eval()

    def backbone() -> object:
        with torch.inference_mode():
            return model.encode(batch)

    found = {"forward": times_of(forward_of(model, batch), repeats), "backbone": times_of(backbone, repeats)}
    return found | {"step": times_of(step_of(model, batch), repeats)}


PEER_CODE = """
import json, sys, time, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.CRITICAL)
name, bands, modality, layers, widths, classes, repeats, threads = json.loads(sys.argv[1])
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
def times(run):
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter(); run(); found.append(time.perf_counter() - start)
    return found
model.eval()
with torch.inference_mode():
    forward = times(lambda: model(inputs).output)
    backbone = times(lambda: model.encoder(inputs))
model.train()
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
def step():
    loss = torch.nn.functional.cross_entropy(model(inputs).output, label)
    loss.backward(); optimiser.step(); optimiser.zero_grad()
print(json.dumps({"forward": forward, "backbone": backbone, "step": times(step)}))
"""
OUR_CODE = """
import json, sys
name, kind, repeats, threads = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
sys.path.insert(0, "benchmarks")
from models import one_side
print(json.dumps(one_side(name, kind, repeats)))
"""


def beside_peer(name: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Both of ours and the peer's, a process each, in turns."""
    threads, layers = torch.get_num_threads(), layers_of(name)
    bands = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
    modality = "S2L2A" if name.startswith("terramind") else ""
    theirs = [name, bands, modality, layers, WIDTHS, CLASSES, args.repeats, threads]
    sides = {"same": (sys.executable, OUR_CODE, [name, "same", args.repeats, threads]),
             "own": (sys.executable, OUR_CODE, [name, "own", args.repeats, threads]),
             "peer": (args.python, PEER_CODE, theirs)}  # fmt: skip
    found: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    for _ in range(args.rounds):
        for side, (python, code, values) in sides.items():
            for what, times in run_code(python, code, values).items():
                found[side].setdefault(what, []).extend(times)
    median = {side: {what: statistics.median(t) for what, t in each.items()} for side, each in found.items()}
    peer = median["peer"]
    return [
        {
            "model": name, "network": side, "forward_s": round(mine["forward"], 3), "step_s": round(mine["step"], 3),
            "outside_backbone": round(1 - mine["backbone"] / mine["forward"], 2),
            "peer_over_ours_forward": round(peer["forward"] / mine["forward"], 2),
            "peer_over_ours_step": round(peer["step"] / mine["step"], 2),
        }
        for side, mine in median.items()
    ]  # fmt: skip


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
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-3, weight_decay=0.0))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["peer", "cache", "memory", "gpu"])
    parser.add_argument("--python", help="interpreter of an environment with terratorch 1.2")
    parser.add_argument("--models", nargs="+", default=PEERS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(json.dumps({"torch": torch.__version__, "precision_auto": precision_of("auto", "auto"),
                      "threads": torch.get_num_threads()}))  # fmt: skip
    if "peer" in args.what:
        for name in args.models:
            for row in beside_peer(name, args):
                print(json.dumps(row), flush=True)
    if "memory" in args.what:
        for row in memory():
            print(json.dumps(row), flush=True)
    if "cache" in args.what:
        print(json.dumps(cached(args)), flush=True)


if __name__ == "__main__":
    main()
