"""Our half of the comparisons with peers; run by our Python."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from serve import Clock, gflop, main, serve

os.environ["COVERMAP_WIDE_PRODUCTS"] = "1"  # as the command line does


def import_checkpoint(checkpoint: str, legend: str, out: str) -> dict[str, Any]:
    """A checkpoint of TerraTorch as a model folder; mean and std of its bands in file numbers."""
    from covermap.models import load_model
    from covermap.verbs.models import import_model

    import_model(checkpoint, out, legend=legend, overwrite=True)
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

    count = sum(p.numel() for p in trained.parameters())
    serve({"forward": forward, "step": step}, parameters=count, gflop=gflop(forward))


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
    config = make_config(folder, bands, legend, folder, train=train)
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
    return {"curve": [(*times, score) for times, score in zip(seen, scores, strict=True)], **clock.read()}


def forest(
    image: str, labels: str, legend: dict[str, str] | None, out: str, sensor: str, bands: list[str],
    train_cols: list[int], test_cols: list[int], samples: int, trees: int,
) -> dict[str, Any]:  # fmt: skip
    """The forest that stands beside every network, fitted and applied to the scene without any network."""
    from covermap.core.config import RunConfig
    from covermap.core.run import Run
    from covermap.core.train_config import PredictConfig
    from covermap.start import prepare_run
    from covermap.verbs.baseline import train_baseline
    from covermap.verbs.predict import predict

    clock = Clock()
    data: dict[str, Any] = {"image": [{"path": image, "sensor": sensor, "bands": bands}], "labels": labels}
    if legend:
        data["legend"] = {int(code): name for code, name in legend.items()}
    config = RunConfig.model_validate({
        "name": "forest", "output": out, "data": data, "baseline": {"samples": samples, "trees": trees},
        "split": {"val": [], "test": {"cols": test_cols}, "exclude": [{"cols": [train_cols[1], test_cols[0]]}],
                  "buffer_px": 0},
    })  # fmt: skip
    ready = prepare_run(config)
    run = Run.create(config, overwrite=True)
    assert config.baseline
    train_baseline(run, config.baseline, ready, seed=0)
    fitted = clock.read()
    predict(run.path("baseline"), image, run.path("map.tif"), bands=bands, settings=PredictConfig(), overwrite=True)
    whole = clock.read()
    return {"fit_s": fitted["seconds"], "fit_cpu_s": fitted["cpu_s"], "map_s": whole["seconds"] - fitted["seconds"],
            "map_cpu_s": whole["cpu_s"] - fitted["cpu_s"], **whole}  # fmt: skip


def unet(
    out: str, legend: str, bands: list[str], mean: list[float], std: list[float], widths: list[int]
) -> dict[str, Any]:
    """A model folder with random weights: ResNet-18 and a U-Net decoder."""
    import torch

    from covermap.core.legend import load_legend
    from covermap.core.types import InputSpec, SensorInput
    from covermap.models import NetworkModel, save_model
    from covermap.nn.build import build_model

    torch.manual_seed(0)
    known = load_legend(legend)
    spec = InputSpec((SensorInput("hls", tuple(bands), tuple(mean), tuple(std)),), 30.0, 256)
    options = {"backbone": "resnet18", "decoder": "unet", "decoder_options": {"widths": widths[1:], "last": widths[0]}}
    network = build_model(spec, len(known), **options)
    shutil.rmtree(out, ignore_errors=True)
    save_model(NetworkModel(spec, known, network, {}), out, build=options)
    return {"parameters": sum(p.numel() for p in network.parameters())}


def scene_windows(
    folder: str, legend: str, bands: list[str], size: int, count: int, batch: int, store: str | None = None
) -> None:  # fmt: skip
    """Training windows of a scene in the order of training, or of what `prepare` wrote; and the windows of a grid."""
    from torch.utils.data import DataLoader

    from covermap.core.config import RunConfig
    from covermap.data.chips import TrainWindows, collate
    from covermap.geo.grid import partition
    from covermap.start import prepare_run

    root = Path(folder)
    image = [{"path": str(root / "image.tif"), "sensor": "hls", "bands": bands}]
    data: dict[str, Any] = {"image": image, "labels": str(root / "labels.tif"), "legend": legend}
    if store:
        from covermap.data.store import write_store

        if not Path(store).exists():
            write_store(RunConfig.model_validate({"data": data}).data, Path(store))
        data = {"source": "prepared", "root": store}
    train = {"size_px": size, "batch_size": batch, "cache_gb": 0, "class_weights": "none", "augment": {"flips": False}}
    config = RunConfig.model_validate(
        {"name": "w", "data": data, "split": {"val": [], "test": [], "buffer_px": 0}, "train": train, "baseline": False}
    )
    ready = prepare_run(config)
    windows = TrainWindows(
        ready.scenes, ready.split, ready.survey.cells, ready.spec, config.train, length=count,
        sampling=ready.sampling, cache_bytes=0,
    )  # fmt: skip
    epochs = iter(range(10**6))
    (scene,) = ready.scenes
    places = [w for w in partition(scene.grid.window, size, size) if w.height == w.width == size]

    def random() -> None:
        windows.start(next(epochs))
        for _ in DataLoader(windows, batch_size=batch, collate_fn=collate):  # type: ignore[arg-type]
            pass

    def grid() -> None:
        for place in places:
            scene.read(place)

    serve({"random": random, "grid": grid}, random=count, grid=len(places))


def _parts(model: str) -> dict[str, Any]:
    """Backbone, neck and decoder as the model folder was built."""
    import json

    build: dict[str, Any] = json.loads((Path(model) / "config.json").read_text())["build"]
    return build


if __name__ == "__main__":
    main({
        "import_checkpoint": import_checkpoint, "network": network, "windows": windows, "tile": tile, "fit": fit,
        "forest": forest, "unet": unet, "scene_windows": scene_windows,
    })  # fmt: skip
