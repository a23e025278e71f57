"""Gewata: adaptation x decoder over Galileo nano, ResNet-18, SegFormer-b0 and U-Net, three seeds, equal budget.

Every row learns from the same number of windows of the same split (recipes/gewata.yaml: columns 0-699 teach and select,
740-1055 test), without the pixel expert; rates are set by the kind of row, none was chosen by the test. Only Galileo
has published weights here; the others start from random ones. Rows are appended to the output as JSON lines.

usage: COVERMAP_WEIGHTS=../shared/weights .venv/bin/python benchmarks/adaptation.py OUT.jsonl [--rows unet ...]
           [--seeds 0 1 2]; then: --table OUT.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from covermap.core.config_file import load_config
from covermap.verbs.evaluate import evaluate
from covermap.verbs.train import train

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "gewata.yaml"
SCORED = ("cropland", "bamboo", "forest", "wetland")
BUDGET = ["train.epochs=1", "train.steps_per_epoch=80", "train.batch_size=16", "train.size_px=32", "train.ema=0.95",
          "model.pixel_width=0", "model.backbone_options={}", "baseline=false", "train.validate_every=1",
          "predict.size_px=32", "predict.workers=1"]  # fmt: skip
GALILEO = {
    "frozen": ["model.adapt=frozen", "train.lr=0.002"],
    "partial": ["model.adapt=partial", "train.lr=0.001"],
    "lora": ["model.adapt={method: lora, rank: 16}", "train.lr=0.002"],
    "full": ["train.lr=0.001"],
    "full, backbone at a tenth": ["train.lr=0.002", "train.rates={backbone: 0.1}"],
    "from random weights": ["train.lr=0.001", "model.weights=none"],
}
PAIRS = [(how, "linear") for how in GALILEO]
PAIRS += [(how, "unet") for how in ("frozen", "partial", "lora", "full", "from random weights")]
ROWS = {
    f"galileo_nano {how}, {decoder}": ["model.backbone=galileo_nano", f"model.decoder={decoder}", *GALILEO[how]]
    for how, decoder in PAIRS
}
RANDOM = {"resnet18": ("unet", "fpn", "deeplabv3plus", "upernet"), "segformer_b0": ("segformer", "unet", "fpn"),
          "unet": ("unet", "linear"), "resnet18+segformer_b0": ("unet",)}  # fmt: skip
ROWS |= {f"{backbone} from random weights, {decoder}":
         [f"model.backbone={backbone}", f"model.decoder={decoder}", "train.lr=0.002", "model.weights=none"]
         for backbone, decoders in RANDOM.items() for decoder in decoders}  # fmt: skip
ROWS["unet from random weights, unet"].append("model.backbone_options={widths: [16, 32, 48, 64, 96]}")
ROWS["unet from random weights, linear"].append("model.backbone_options={widths: [16, 32, 48, 64, 96]}")
ROWS["unet+galileo_nano full, unet"] = [
    "model.backbone=unet+galileo_nano", "model.backbone_options={unet: {widths: [16, 32, 48, 64, 96]}}",
    "train.lr=0.002", "train.rates={backbone.others: 0.1}",
]  # fmt: skip


def measure(name: str, seed: int) -> dict[str, object]:
    """Train one row and score the test columns."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = [*BUDGET, *ROWS[name], f"output={folder}", "name=one", f"train.seed={seed}"]
        start = time.perf_counter()
        run = train(load_config(RECIPE, wanted))
        seconds = time.perf_counter() - start
        val = run.read_log()[-1]["val_miou"]
        rows = {row["class"]: row["iou"] for row in evaluate(run)["models"]["network"]["per_class"]}
    each = [float(rows[name]) for name in SCORED]
    return {"row": name, "seed": seed, "miou": round(float(np.mean(each)), 4), "each": [round(v, 3) for v in each],
            "val_miou": round(val, 4), "train_s": round(seconds, 1)}  # fmt: skip


def table(path: Path) -> None:
    """Mean and range over seeds, the best first."""
    found: dict[str, list[dict]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["row"], []).append(row)
    print("| backbone, adaptation, decoder | mean IoU | seeds | val mean IoU | s a run |\n|---|---|---|---|---|")
    for name, rows in sorted(found.items(), key=lambda pair: -statistics.mean(r["miou"] for r in pair[1])):
        scores = [r["miou"] for r in rows]
        each = " ".join(f"{value:.3f}" for value in scores)
        val, cost = statistics.mean(r["val_miou"] for r in rows), statistics.median(r["train_s"] for r in rows)
        print(f"| {name} | {statistics.mean(scores):.3f} | {each} | {val:.3f} | {cost:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", nargs="+", default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        table(args.out)
        return
    done = (
        {(r["row"], r["seed"]) for r in map(json.loads, args.out.read_text().splitlines())}
        if args.out.exists()
        else set()
    )
    for seed in args.seeds:
        for name in args.rows:
            if (name, seed) not in done:
                with args.out.open("a") as file:
                    file.write(json.dumps(measure(name, seed)) + "\n")


if __name__ == "__main__":
    main()
