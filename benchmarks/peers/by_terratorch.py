"""TerraTorch's half of beside_terratorch.py; run by the Python of its environment.

Everything is used as TerraTorch's documentation shows it: the generic datamodule, the task with its factory,
Lightning's trainer, tiled_inference.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import torch  # noqa: E402
from serve import Clock, gflop, main, serve  # noqa: E402

CLASSES = 8
PRITHVI = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
DECODERS: dict[str, dict[str, Any]] = {
    "unet": {"decoder": "UNetDecoder", "decoder_channels": [256, 128, 64, 32]},
    "upernet": {"decoder": "UperNetDecoder", "decoder_channels": 256},
    "fcn": {"decoder": "FCNDecoder", "decoder_channels": 256, "decoder_num_convs": 4},
}


def make_task(decoder: str, lr: float = 1e-3) -> Any:
    """Prithvi tiny with random weights, its four maps made a pyramid, and a decoder."""
    from terratorch.tasks import SemanticSegmentationTask

    torch.manual_seed(0)
    necks = [{"name": "SelectIndices", "indices": [2, 5, 8, 11]}, {"name": "ReshapeTokensToImage"}]
    if decoder != "fcn":  # which reads the last map alone
        necks.append({"name": "LearnedInterpolateToPyramidal"})
    arguments = {
        "backbone": "prithvi_eo_v2_tiny_tl", "backbone_pretrained": False, "backbone_num_frames": 1,
        "backbone_bands": PRITHVI, "necks": necks, "num_classes": CLASSES, "head_dropout": 0.0, **DECODERS[decoder],
    }  # fmt: skip
    return SemanticSegmentationTask(
        model_factory="EncoderDecoderFactory", model_args=arguments, loss="ce", lr=lr, ignore_index=-1,
        optimizer="AdamW", optimizer_hparams={"weight_decay": 0.01}, plot_on_val=False,
    )  # fmt: skip


def build(decoder: str, out: str) -> dict[str, Any]:
    """A checkpoint as its trainer writes them, which covermap imports: both sides then hold the same tensors."""
    task = make_task(decoder)
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}, out)
    return {"parameters": sum(p.numel() for p in task.model.parameters())}


def network(decoder: str, checkpoint: str, batch: int, side: int) -> None:
    """Forward and training step of the network alone."""
    task = make_task(decoder)
    task.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    trained = task.model.train()
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-4, weight_decay=0.01)
    frozen = make_task(decoder).model.eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, len(PRITHVI), side, side, generator=generator)
    label = torch.randint(0, CLASSES, (batch, side, side), generator=generator)

    def forward() -> None:
        with torch.inference_mode():
            frozen(x).output  # noqa: B018

    def step() -> None:
        torch.nn.functional.cross_entropy(trained(x).output, label, ignore_index=-1).backward()
        optimiser.step()
        optimiser.zero_grad()

    count = sum(p.numel() for p in trained.parameters())
    serve({"forward": forward, "step": step}, parameters=count, gflop=gflop(forward))


def make_data(folder: str, means: list[float], stds: list[float], batch: int, workers: int = 0) -> Any:
    import albumentations
    from terratorch.datamodules import GenericNonGeoSegmentationDataModule

    root = Path(folder)
    parts = {
        f"{part}_{what}": str(path)
        for part in ("train", "val", "test")
        for what, path in {
            "data_root": root / "images", "label_data_root": root / "labels",
            "split": root / ("train.txt" if part == "train" else "val.txt"),
        }.items()
    }  # fmt: skip
    return GenericNonGeoSegmentationDataModule(
        batch_size=batch, num_workers=workers, num_classes=CLASSES, means=means, stds=stds, reduce_zero_label=True,
        img_grep="*.tif", label_grep="*.tif", check_stackability=False, no_label_replace=0,
        train_transform=[albumentations.D4(), albumentations.pytorch.ToTensorV2()], **parts,
    )  # fmt: skip


def windows(folder: str, means: list[float], stds: list[float], batch: int) -> None:
    """Epochs over the chips: read, turned, normalised, as batches."""
    data = make_data(folder, means, stds, batch)
    data.setup("fit")

    def epoch() -> None:
        for one in data.train_dataloader():
            data.aug(one)

    serve({"epoch": epoch}, windows=len(data.train_dataset) // batch * batch)


def tile(decoder: str, checkpoint: str, image: str, out: str, means: list[float], stds: list[float]) -> dict[str, Any]:
    """Read, normalise, tiled_inference, argmax, write; time without imports, and from the start of the process."""
    import numpy as np
    import rasterio
    from terratorch.tasks.tiled_inference import tiled_inference

    clock = Clock()
    task = make_task(decoder)
    task.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    task.eval()
    with rasterio.open(image) as file:
        values, profile = file.read().astype(np.float32), file.profile
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (means, stds))
    normalised = ((torch.from_numpy(values) - mean) / std)[None]
    with torch.inference_mode():
        found = tiled_inference(
            lambda x: task(x).output, normalised, CLASSES, crop=224, stride=200, delta=4, batch_size=4, device="cpu"
        )
    codes = found.argmax(1)[0].to(torch.uint8).numpy() + 1
    profile.update(count=1, dtype="uint8", nodata=0, compress="deflate")
    with rasterio.open(out, "w", **profile) as file:
        file.write(codes, 1)
    return clock.read()


def fit(
    decoder: str, checkpoint: str, folder: str, means: list[float], stds: list[float], batch: int, epochs: int,
    lr: float, out: str,
) -> dict[str, Any]:  # fmt: skip
    """Lightning's trainer, a validation after each epoch: (seconds since the process began, mIoU) of each."""
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    clock, curve = Clock(), []

    class Watch(Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            if not trainer.sanity_checking:
                curve.append(
                    (
                        time.perf_counter() - clock.start,
                        time.process_time(),
                        float(trainer.callback_metrics["val/mIoU"]),
                    )
                )

    task = make_task(decoder, lr)
    task.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, gradient_clip_val=1.0, default_root_dir=out, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(dirpath=out, monitor="val/mIoU", mode="max"), Watch()],
    )  # fmt: skip
    trainer.fit(task, datamodule=make_data(folder, means, stds, batch))
    return {"curve": curve, **clock.read()}


if __name__ == "__main__":
    main({"build": build, "network": network, "windows": windows, "tile": tile, "fit": fit})
