"""Learning without labels on real chips, and what a masked autoencoder's encoder costs.

    real     Sen1Floods11, one chip of Spain (columns 0-339 are learnt from, 352-511 scored, chips of 32 px):
             SimCLR on Sentinel-2, R2 of a ridge probe for the std of NDVI in a chip, beside random weights and raw
             statistics; CLIP of Sentinel-1 and -2, share of chips whose partner is among the nearest 5.
             TerraMesh, four places: SimCLR with elevation, R2 of the elevation of held-out blocks, over all places and
             about each place's own mean
    sensors  the same CLIP backbone and one of a masked autoencoder: probes with each sensor missing
    mae      forward and backward of the encoder of a ViT-B, 0 and 75 % masked; sides take turns, medians

usage: .venv/bin/python benchmarks/pretrain.py [real sensors mae] [--seeds 3] [--steps 300] [--rows FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from covermap.core.pretrain_config import MaeConfig, parse_pretrain_config
from covermap.core.types import Batch, InputSpec, Sample, SensorInput
from covermap.data.chips import image_batch
from covermap.geo.grid import Window
from covermap.ml.ridge import RidgePath
from covermap.models import chip_features
from covermap.nn.build import make_backbone
from covermap.nn.ssl.contrast import coarse
from covermap.nn.ssl.mae import MaskedAutoencoder
from covermap.nn.ssl.method import Method
from covermap.nn.ssl.monitors import retrieval
from covermap.verbs.pretrain import pretrain
from covermap.verbs.pretrain_start import Ready, build_pretraining, prepare_pretraining

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SPAIN, MESH = DATA / "sen1floods11_spain", DATA / "terramesh_examples"
SIDE, STEP, FIRST = 32, 16, 352
S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
BACKBONE = {"backbone": "sensor_vit_nano", "backbone_options": {"patch_px": 4}, "weights": "none"}
USED = ["blue", "green", "red", "rededge1", "nir", "swir1", "swir2"]


def spain(sensors: Sequence[str]) -> dict[str, Any]:
    images = {
        "sentinel2": {"path": str(SPAIN / "Spain_7370579_S2Hand.tif"), "sensor": "sentinel2", "use": USED},
        "sentinel1": {"path": str(SPAIN / "Spain_7370579_S1Hand.tif"), "sensor": "sentinel1"},
    }
    return {
        "data": {
            "image": [images[name] for name in sensors], "labels": str(SPAIN / "Spain_7370579_LabelHand.tif"),
            "label_nodata": -1, "legend": {0: "dry", 1: "water"},
        },
        "split": {"method": "blocks", "val": 0.0, "test": {"cols": [FIRST, 512]}, "buffer_px": 0},
    }  # fmt: skip


def mesh() -> dict[str, Any]:
    dem = {"path": str(MESH / "DEM/*.tif"), "sensor": "dem", "bands": ["elevation"]}
    optical = {"path": str(MESH / "S2L2A/*.tif"), "sensor": "sentinel2", "bands": S2, "use": USED}
    codes = {
        1: "water",
        2: "trees",
        3: "flooded",
        4: "crops",
        5: "built",
        6: "bare",
        7: "snow",
        8: "clouds",
        9: "grass",
    }
    return {
        "data": {"image": [optical, dem], "labels": str(MESH / "LULC/*.tif"), "legend": codes},
        "split": {"method": "blocks", "val": 0.0, "test": 0.3, "block_px": 56, "buffer_px": 0},
    }


def learnt(data: dict[str, Any], method: dict[str, Any], seed: int, steps: int) -> tuple[Method, Method, Ready]:
    """A method after its training, the same before it, and its data."""
    with tempfile.TemporaryDirectory() as folder:
        raw = {
            "name": "run", "output": folder, **data, "model": BACKBONE, "method": method,
            "views": {"scale": [0.4, 1.0], "brightness": 0.3},
            "train": {
                "steps": steps, "batch_size": 64, "size_px": SIDE, "lr": 1e-3, "seed": seed, "device": "cpu",
                "watch_every": steps, "save_every": steps,
            },
        }  # fmt: skip
        config = parse_pretrain_config(raw, where="benchmark", base=Path(folder))
        ready = prepare_pretraining(config)
        before, after = build_pretraining(config, ready), build_pretraining(config, ready)
        run = pretrain(config)
        state = torch.load(run.path("checkpoints/last.pt"), weights_only=True)
        after.load_state_dict(state["method"])
    return before.eval(), after.eval(), ready


def chips(ready: Ready, first: int, last: int) -> list[Sample]:
    """All chips between two columns."""
    (scene,) = ready.scenes
    return [
        scene.read(Window(row, col, SIDE, SIDE))
        for row in range(0, scene.grid.height - SIDE + 1, STEP)
        for col in range(first, last - SIDE + 1, STEP)
    ]


def batches(samples: Sequence[Sample], spec: InputSpec, size: int = 128) -> list[Batch]:
    return [image_batch(samples[i : i + size], spec) for i in range(0, len(samples), size)]


def embedded(method: Method, samples: Sequence[Sample], ready: Ready, missing: Sequence[str] = ()) -> np.ndarray:
    found = []
    with torch.inference_mode():
        for batch in batches(samples, ready.spec):
            image = {name: x for name, x in batch.image.items() if name not in missing}
            found.append(method.embed(replace(batch, image=image)).double().numpy())
    return np.concatenate(found)


def raw(samples: Sequence[Sample], ready: Ready) -> np.ndarray:
    rows = []
    for batch in batches(samples, ready.spec):
        stacked = np.concatenate([x.flatten(1, 2).numpy() for x in batch.image.values()], 1)
        rows.append(chip_features(stacked, batch.valid.any(1).numpy()))
    return np.concatenate(rows).astype(np.float64)


def ndvi_std(samples: Sequence[Sample]) -> np.ndarray:
    found = []
    for sample in samples:
        bands = list(sample.bands["sentinel2"]) if sample.bands else USED
        red, nir = (sample.image["sentinel2"][0, bands.index(name)].astype(float) for name in ("red", "nir"))
        found.append(((nir - red) / np.maximum(nir + red, 1e-6)).std())
    return np.array(found)[:, None]


def water(samples: Sequence[Sample], ready: Ready) -> np.ndarray:
    """Share of water in each chip, by index above 0: only for probes with missing sensors."""
    bands = USED
    found = []
    for sample in samples:
        green, nir = (sample.image["sentinel2"][0, bands.index(name)].astype(float) for name in ("green", "nir"))
        found.append((green > nir).mean())
    return np.array(found)[:, None]


def r2(known: np.ndarray, asked: np.ndarray, targets: np.ndarray, truth: np.ndarray) -> float:
    path = RidgePath.of(known, targets)
    errors = path.fit(path.choose()).predict(asked) - truth
    return float(1 - (errors**2).sum() / ((truth - truth.mean(0)) ** 2).sum())


def elevation(method: Any, ready: Ready) -> tuple[float, float]:
    """R2 of elevation in held-out blocks: over all places, and about the mean of each place."""
    predicted, truth, place = [], [], []
    assert ready.split is not None
    for number, scene in enumerate(ready.scenes):
        windows = [Window(row, col, SIDE, SIDE) for row in range(0, 193, SIDE // 2) for col in range(0, 193, SIDE // 2)]
        held = [w for w in windows if (ready.split.part_mask(scene.name, w) == 3).all()]
        if not held:
            continue
        for batch in batches([scene.read(window) for window in held], ready.spec):
            with torch.inference_mode():
                from covermap.nn.embedding import cells
                from covermap.nn.ssl.inputs import seen_by

                given = method.regressor(cells(method.encoder, seen_by(method.encoder, batch, method.inputs))[0])
                wanted, _ = coarse(batch, "dem", method.config.elevation_px)
            predicted.append(given.mean((1, 2, 3)).numpy())
            truth.append(wanted.mean((1, 2, 3)).numpy())
            place += [number] * len(batch)
    p, t, at = np.concatenate(predicted), np.concatenate(truth), np.array(place)
    means = np.array([t[at == n].mean() for n in range(len(ready.scenes))])[at]
    inside = np.array([p[at == n].mean() for n in range(len(ready.scenes))])[at]
    error = ((p - t) ** 2).sum()
    about = ((p - inside - (t - means)) ** 2).sum()
    return float(1 - error / ((t - t.mean()) ** 2).sum()), float(1 - about / ((t - means) ** 2).sum())


def real(seeds: int, steps: int) -> list[dict[str, Any]]:
    rows = []
    for seed in range(seeds):
        start = time.perf_counter()
        before, after, ready = learnt(spain(["sentinel2"]), {"name": "simclr", "temperature": 0.2}, seed, steps)
        known, asked = chips(ready, 0, FIRST - 12), chips(ready, FIRST, 512)
        targets, truth = ndvi_std(known), ndvi_std(asked)
        row: dict[str, Any] = {"seed": seed, "case": "simclr, NDVI std", "chips": len(asked)}
        for name, features in (
            ("raw", raw), ("random", lambda s, r, m=before: embedded(m, s, r)),
            ("learnt", lambda s, r, m=after: embedded(m, s, r)),
        ):  # fmt: skip
            row[name] = r2(features(known, ready), features(asked, ready), targets, truth)
        rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
        print(json.dumps(rows[-1]), flush=True)

        start = time.perf_counter()
        before, after, ready = learnt(spain(["sentinel2", "sentinel1"]), {"name": "clip"}, seed, steps)
        asked = chips(ready, FIRST, 512)
        row = {"seed": seed, "case": "clip, top 5", "chips": len(asked), "chance": 5 / len(asked)}
        for name, method in (("random", before), ("learnt", after)):
            found: dict[str, list[torch.Tensor]] = {}
            with torch.inference_mode():
                for batch in batches(asked, ready.spec):
                    for sensor, vector in method.project(batch).items():
                        found.setdefault(sensor, []).append(vector)
            a, b = (torch.cat(each) for each in found.values())
            row[name] = retrieval(a, b)[5]
        rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
        print(json.dumps(rows[-1]), flush=True)

        start = time.perf_counter()
        method = {"name": "simclr", "elevation": "dem", "alpha": 0.5, "elevation_px": 4}
        before, after, ready = learnt(mesh(), method, seed, steps)
        row = {"seed": seed, "case": "simclr with elevation, R2 of elevation (constant: 0)"}
        for name, each in (("random", before), ("learnt", after)):
            row[name], row[f"{name} in places"] = elevation(each, ready)
        rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def sensors(seeds: int, steps: int) -> list[dict[str, Any]]:
    rows = []
    for seed in range(seeds):
        for name, method in (
            ("clip", {"name": "clip"}),
            ("mae", {"name": "mae", "mask": 0.6, "decoder_width": 64, "decoder_depth": 1, "decoder_heads": 4}),
        ):
            _, after, ready = learnt(spain(["sentinel2", "sentinel1"]), method, seed, steps)
            known, asked = chips(ready, 0, FIRST - 12), chips(ready, FIRST, 512)
            targets, truth = water(known, ready), water(asked, ready)
            row: dict[str, Any] = {"seed": seed, "case": f"{name}, share of water"}
            ways = {"both": [], "no sentinel1": ["sentinel1"], "no sentinel2": ["sentinel2"]}
            seen = {said: embedded(after, known, ready, missing) for said, missing in ways.items()}
            every, repeated = np.concatenate(list(seen.values())), np.concatenate([targets] * len(seen))
            for said, missing in ways.items():
                now = embedded(after, asked, ready, missing)
                row[said] = r2(seen["both"], now, targets, truth)
                row[f"{said}, probe of all three"] = r2(every, now, repeated, truth)
                row[f"{said}, probe too"] = r2(seen[said], now, targets, truth)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def mae(rounds: int = 7, batch_size: int = 4) -> list[dict[str, Any]]:
    """Seconds of forward and backward through tokens and blocks of a ViT-B, 224 px, six bands."""
    entry = SensorInput("sentinel2", ("blue", "green", "red", "nir", "swir1", "swir2"), (0.0,) * 6, (1.0,) * 6)
    spec = InputSpec((entry,), 10, 224)
    torch.manual_seed(0)
    encoder = make_backbone("vit_base", spec)
    method = MaskedAutoencoder(encoder, spec, MaeConfig(mask=0.75, decoder_width=128, decoder_depth=1))
    batch = Batch({"sentinel2": torch.randn(batch_size, 1, 6, 224, 224)}, torch.ones(batch_size, 1, 224, 224).bool())
    tokens = encoder.tokenise(batch)  # type: ignore[operator]
    states = method._states(tokens, range(batch_size), 1)

    def once(share: str) -> float:
        start = time.perf_counter()
        whole = encoder.tokenise(batch)  # type: ignore[operator]
        part = whole if share == "0 %" else whole.take(states == 0)[0]
        out = encoder.contextualise(part, [encoder.layers[-1]])[0]  # type: ignore[operator,union-attr]
        out.square().mean().backward()
        encoder.zero_grad()
        return time.perf_counter() - start

    for share in ("0 %", "75 %"):
        once(share)
    times: dict[str, list[float]] = {"0 %": [], "75 %": []}
    for _ in range(rounds):
        for share, found in times.items():
            found.append(once(share))
    row = {"case": "ViT-B encoder, forward and backward", **{k: statistics.median(v) for k, v in times.items()}}
    row["ratio"] = statistics.median(b / a for a, b in zip(times["0 %"], times["75 %"], strict=True))
    print(json.dumps(row), flush=True)
    return [row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["real", "sensors", "mae"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=Path)
    asked = parser.parse_args()
    rows = []
    for part in asked.parts:
        rows += mae() if part == "mae" else {"real": real, "sensors": sensors}[part](asked.seeds, asked.steps)
    if asked.rows:
        asked.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
