"""Our half of the comparisons with peers; run by our Python."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from serve import Clock, main, serve  # noqa: E402


def import_checkpoint(checkpoint: str, legend: str, out: str) -> dict[str, Any]:
    """A checkpoint of TerraTorch as a model folder; mean and std of its bands in file numbers."""
    from covermap.models import load_model
    from covermap.verbs.models import import_model

    import_model(checkpoint, out, legend=legend)
    (entry,) = load_model(out).spec.sensors
    return {"means": list(entry.mean), "stds": list(entry.std), "scale": entry.scale}


def network(model: str, batch: int, side: int) -> None:
    """Forward as `predict` and step as `train` run it."""
    import torch

    from covermap.models import load_model
    from covermap.nn.adapt import parameter_groups
    from covermap.nn.layers import channels_last, fold_norms
    from covermap.testing import random_batch

    loaded: Any = load_model(model)
    trained = channels_last(load_model(model).network.train())  # type: ignore[union-attr]
    frozen = channels_last(fold_norms(loaded.network.eval()))
    inputs = random_batch(loaded.spec, side, side, size=batch)
    label = torch.randint(0, 8, (batch, side, side), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(parameter_groups(trained, lr=1e-4, weight_decay=0.01), fused=True)

    def forward() -> None:
        with torch.inference_mode():
            frozen(inputs)

    def step() -> None:
        torch.nn.functional.cross_entropy(trained(inputs), label, ignore_index=255).backward()
        optimiser.step()
        optimiser.zero_grad()

    serve({"forward": forward, "step": step}, parameters=sum(p.numel() for p in trained.parameters()))


def make_config(folder: str, bands: list[str], legend: str, out: str, **sections: Any) -> Any:
    """The chips as a config: train.txt and val.txt name the parts, nothing is trained beside the network."""
    from covermap.core.config import RunConfig

    root = Path(folder)
    data = {
        "image": [{"path": str(root / "images/*.tif"), "sensor": "hls", "bands": bands}],
        "labels": str(root / "labels/*.tif"), "legend": legend,
    }  # fmt: skip
    split = {"val": (root / "val.txt").read_text().split(), "test": [], "buffer_px": 0}
    whole: dict[str, Any] = {
        "name": "run", "output": out, "data": data, "split": split, "baseline": False,
        "decision": {"applicability": False}, **sections,
    }  # fmt: skip
    return RunConfig.model_validate(whole)


def windows(folder: str, bands: list[str], legend: str, batch: int, side: int, cache_gb: float) -> None:
    """Epochs of training windows: read (or held in memory), turned, normalised, as batches."""
    from torch.utils.data import DataLoader

    from covermap.data.chips import TrainWindows, collate
    from covermap.start import prepare_run

    train = {"size_px": side, "batch_size": batch, "cache_gb": cache_gb, "class_weights": "none"}
    config = make_config(folder, bands, legend, "/tmp/unused", train=train)
    ready = prepare_run(config)
    count = len((Path(folder) / "train.txt").read_text().split()) // batch * batch
    data = TrainWindows(
        ready.scenes, ready.split, ready.survey.cells, ready.spec, config.train, length=count,
        sampling=ready.sampling, cache_bytes=cache_gb * 1e9,
    )  # fmt: skip
    epochs = iter(range(10**6))

    def epoch() -> None:
        data.start(next(epochs))
        for _ in DataLoader(data, batch_size=batch, collate_fn=collate):  # type: ignore[arg-type]
            pass

    serve({"epoch": epoch}, windows=count)


def tile(model: str, image: str, out: str, bands: list[str], overlap_px: int = 24, **more: Any) -> dict[str, Any]:
    """`predict` with all that it writes beside the map."""
    from covermap.core.train_config import PredictConfig
    from covermap.verbs.predict import predict

    clock = Clock()
    settings = PredictConfig(workers=1, overlap_px=overlap_px, **more)
    predict(model, image, out, bands=bands, settings=settings, overwrite=True)
    return clock.read()


def fit(
    model: str, folder: str, bands: list[str], legend: str, batch: int, side: int, epochs: int, lr: float,
    out: str, cache_gb: float = 2.0,
) -> dict[str, Any]:  # fmt: skip
    """`train` from the same weights: (seconds since the process began, mIoU of val) after each epoch."""
    from covermap.verbs.train import train

    settings = {
        "epochs": epochs, "batch_size": batch, "size_px": side, "lr": lr, "schedule": "constant", "warmup": 0.0,
        "class_weights": "none", "weight_decay": 0.01, "clip": 1.0, "cache_gb": cache_gb,
        "steps_per_epoch": len((Path(folder) / "train.txt").read_text().split()) // batch,
    }  # fmt: skip
    config = make_config(folder, bands, legend, out, train=settings, model={"start": model, **_parts(model)})
    seen: list[tuple[float, float]] = []
    clock = Clock()

    def say(sentence: str) -> None:
        if sentence.startswith("epoch"):
            seen.append((time.perf_counter() - clock.start, time.process_time()))

    run = train(config, overwrite=True, say=say)
    import json

    rows = [json.loads(line) for line in run.path("log.jsonl").read_text().splitlines()]
    scores = [row["val_miou"] for row in rows]
    return {
        "curve": [(*times, score) for times, score in zip(seen, scores, strict=True)], **clock.read()}


def _parts(model: str) -> dict[str, Any]:
    """Backbone, neck and decoder as the model folder was built."""
    import json

    build: dict[str, Any] = json.loads((Path(model) / "config.json").read_text())["build"]
    return build


if __name__ == "__main__":
    main({"import_checkpoint": import_checkpoint, "network": network, "windows": windows, "tile": tile, "fit": fit})
