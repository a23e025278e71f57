"""Backbones: share of the machine's matrix-product rate, bf16, images a second; loading; the peer on the same backbone.

Rates are measured in the same run as the matrix product they are compared with, in turns, and given as medians.

usage: .venv/bin/python benchmarks/backbones.py [--device cpu|cuda] [--batch 4] [--repeats 7] [--models ...]
           [--compile] [--load] [--peer PYTHON]
    --load          also: a random Prithvi 300M file in the published layout, loaded and read once, against reading it
    --peer PYTHON   also: the interpreter of an environment with terratorch 1.2, for the same backbones side by side
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
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from covermap.core.types import InputSpec
from covermap.nn.build import make_backbone
from covermap.nn.model import Backbone
from covermap.testing import random_batch, suitable_spec

VIT_B = ("vit_base", "prithvi_eo_v2_100_tl", "terramind_v1_base", "clay_v1", "vit_base_in21k")
PEER = {
    "prithvi_eo_v2_100_tl": ("prithvi_eo_v2_100_tl", 6, ""),
    "terramind_v1_base": ("terramind_v1_base", 12, "S2L2A"),
}
SIDE = 224
# The counter knows the fused attention of GPUs, not that of CPUs, which is a seventh of Clay's work.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}


def one_sensor(name: str) -> InputSpec:
    """The first sensor that a backbone was published for."""
    spec = suitable_spec(name)
    return InputSpec(spec.sensors[:1], spec.gsd_m, SIDE)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], device: str) -> float:
    """One call's time."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def product_rate(size: int, dtype: torch.dtype, device: str) -> tuple[Callable[[], object], float]:
    """A matrix product of the shape that an MLP of width 768 has for `size` tokens, and its operations."""
    a, b = torch.randn(size, 768, dtype=dtype, device=device), torch.randn(3072, 768, dtype=dtype, device=device)
    return (lambda: torch.nn.functional.linear(a, b)), 2.0 * size * 768 * 3072


def forward_of(
    name: str, batch: int, dtype: torch.dtype, device: str, compiled: bool
) -> tuple[Callable[[], object], float, int, int]:
    """A forward pass, its operations, the number of parameters, and of tokens."""
    torch.manual_seed(0)
    spec = one_sensor(name)
    backbone: Backbone = make_backbone(name, spec).eval().to(device, dtype)
    inputs = random_batch(spec, SIDE, SIDE, size=batch).to(device)
    inputs.image = {key: x.to(dtype) for key, x in inputs.image.items()}
    network = torch.compile(backbone) if compiled else backbone
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        backbone(inputs)

    def run() -> object:
        with torch.inference_mode():
            return network(inputs)

    run()
    tokens = batch * (SIDE // int(backbone.strides[0])) ** 2
    return run, float(counter.get_total_flops()), sum(p.numel() for p in backbone.parameters()), tokens


def measure(name: str, args: argparse.Namespace, dtype: torch.dtype) -> dict[str, object]:
    """Forward and matrix product in turns."""
    run, operations, parameters, tokens = forward_of(name, args.batch, dtype, args.device, args.compile)
    product, product_operations = product_rate(tokens, dtype, args.device)
    product()
    repeat = max(1, round(operations / product_operations / 12))
    pairs = []
    for _ in range(args.repeats):
        mine = seconds(run, args.device)
        plain = seconds(lambda: [product() for _ in range(repeat)], args.device) / repeat
        pairs.append((mine, plain))
    share = statistics.median(operations / mine / (product_operations / plain) for mine, plain in pairs)
    mine, plain = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "model": name, "dtype": str(dtype).removeprefix("torch."), "parameters_M": round(parameters / 1e6, 1),
        "GFLOP_per_image": round(operations / args.batch / 1e9, 1), "s_per_batch": round(mine, 4),
        "images_per_s": round(args.batch / mine, 2), "GFLOP_per_s": round(operations / mine / 1e9, 1),
        "product_GFLOP_per_s": round(product_operations / plain / 1e9, 1),
        "share_of_product": round(share, 3),
    }  # fmt: skip


PEER_CODE = """
import json, sys, time, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.CRITICAL)
name, channels, modality, batch, repeats, threads = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
from terratorch.registry import BACKBONE_REGISTRY
more = {"modalities": [modality]} if modality else {"num_frames": 1}
model = BACKBONE_REGISTRY.build("terratorch_" + name if not modality else name, pretrained=False, **more).eval()
x = torch.randn(batch, channels, 224, 224)
x = {modality: x} if modality else x
with torch.inference_mode():
    model(x)
    times = []
    for _ in range(repeats):
        start = time.perf_counter(); model(x); times.append(time.perf_counter() - start)
print(json.dumps(times))
"""
OUR_CODE = """
import json, sys, time
name, batch, repeats, threads = json.loads(sys.argv[1])
import torch
torch.set_num_threads(threads)
sys.path.insert(0, "benchmarks")
from backbones import forward_of
run, *_ = forward_of(name, batch, torch.float32, "cpu", False)
times = []
for _ in range(repeats):
    start = time.perf_counter(); run(); times.append(time.perf_counter() - start)
print(json.dumps(times))
"""


def beside_peer(name: str, args: argparse.Namespace, *, rounds: int = 3) -> dict[str, object]:
    """Our forward and the peer's, a process each, in turns."""
    peer, channels, modality = PEER[name]
    threads = torch.get_num_threads()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds):
        ours += _times(sys.executable, OUR_CODE, [name, args.batch, args.repeats, threads])
        theirs += _times(args.peer, PEER_CODE, [peer, channels, modality, args.batch, args.repeats, threads])
    a, b = statistics.median(ours), statistics.median(theirs)
    return {"model": name, "ours_s": round(a, 4), "terratorch_s": round(b, 4), "terratorch_over_ours": round(b / a, 3)}


def _times(python: str, code: str, values: list[object]) -> list[float]:
    done = subprocess.run([python, "-c", code, json.dumps(values)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr[-2000:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))


LOAD_CODE = """
import json, os, sys, time
mode, path = sys.argv[1:]
def peak():
    line = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
    return int(line.split()[1]) * 1024
if mode == "read":
    start, base = time.perf_counter(), peak()
    content = open(path, "rb").read()
else:
    import torch
    from covermap.nn.build import make_backbone
    sys.path.insert(0, "benchmarks")
    from backbones import one_sensor
    spec = one_sensor("prithvi_eo_v2_300_tl")
    start, base = time.perf_counter(), peak()
    backbone = make_backbone("prithvi_eo_v2_300_tl", spec, weights=path)
    sum(float(tensor.sum()) for tensor in backbone.state_dict().values())
print(json.dumps([time.perf_counter() - start, (peak() - base) / os.path.getsize(path)]))
"""


def loading(rounds: int) -> dict[str, object]:
    """A random checkpoint with all keys of the published 300M file: loaded and each tensor read, against reading it."""
    from covermap.nn.backbones.prithvi import position_table

    manifest = Path("../shared/checkpoints/manifest_prithvi_eo_v2_300_tl.json")
    keys = json.loads(manifest.read_text())["keys"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/Prithvi_EO_V2_300M_TL.pt"
        state = {name: torch.randn(shape) * 0.02 for name, shape in keys.items()}
        state["encoder.pos_embed"] = position_table(1024, 4, 14, 14)
        torch.save(state, path)
        del state
        read, load, peaks = [], [], []
        for _ in range(rounds):
            read.append(_times(sys.executable, LOAD_CODE.replace("sys.argv[1:]", f"'read', {path!r}"), [])[0])
            time_, peak = _times(sys.executable, LOAD_CODE.replace("sys.argv[1:]", f"'load', {path!r}"), [])
            load.append(time_)
            peaks.append(peak)
        size = os.path.getsize(path)
    a, b = statistics.median(load), statistics.median(read)
    return {
        "file_MB": round(size / 1e6), "load_s": round(a, 3), "read_s": round(b, 3), "load_over_read": round(a / b, 3),
        "peak_over_size": round(max(peaks), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", nargs="+", default=list(VIT_B))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--peer")
    args = parser.parse_args()
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "device": args.device}))
    for name in args.models:
        for dtype in args.dtypes:
            print(json.dumps(measure(name, args, getattr(torch, dtype))), flush=True)
    if args.load:
        print(json.dumps(loading(5)), flush=True)
    if args.peer:
        for name in PEER:
            print(json.dumps(beside_peer(name, args)), flush=True)


if __name__ == "__main__":
    main()
