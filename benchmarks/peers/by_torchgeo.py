"""TorchGeo's half of beside_torchgeo.py; run by the Python of its environment, used as its tutorials show it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from serve import Clock, gflop, main, serve  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

CLASSES = 8


def make_datasets(folder: str) -> tuple[Any, Any]:
    """The scene, and the scene with its labels."""
    from torchgeo.datasets import RasterDataset

    class Image(RasterDataset):
        filename_glob = "image.tif"
        separate_files = False

    class Labels(RasterDataset):
        filename_glob = "labels.tif"
        is_image = False

    image = Image(folder)
    return image, image & Labels(folder)


def make_task() -> Any:
    from torchgeo.trainers import SemanticSegmentationTask

    torch.manual_seed(0)
    return SemanticSegmentationTask(
        model="unet", backbone="resnet18", weights=None, in_channels=6, task="multiclass", num_classes=CLASSES,
        loss="ce", lr=1e-3,
    )  # fmt: skip


def windows(folder: str, size: int, count: int, batch: int) -> None:
    """Random windows with labels, and the windows of a grid without, as batches."""
    from torchgeo.datasets import stack_samples
    from torchgeo.samplers import GridGeoSampler, RandomGeoSampler

    image, both = make_datasets(folder)
    grid = GridGeoSampler(image, size=size, stride=size)
    random = RandomGeoSampler(both, size=size, length=count)

    def run(data: Any, sampler: Any) -> None:
        for _ in DataLoader(data, sampler=sampler, batch_size=batch, collate_fn=stack_samples):
            pass

    serve({"random": lambda: run(both, random), "grid": lambda: run(image, grid)}, random=count, grid=len(grid))


def network(batch: int, side: int) -> None:
    """U-Net with ResNet-18: forward, the network's step alone, and the task's own training step."""
    task, frozen = make_task().train(), make_task().eval()
    optimiser = torch.optim.AdamW(task.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 6, side, side, generator=generator)
    label = torch.randint(0, CLASSES, (batch, side, side), generator=generator)

    def forward() -> None:
        with torch.inference_mode():
            frozen(x)

    def step() -> None:
        torch.nn.functional.cross_entropy(task.model(x), label).backward()
        optimiser.step()
        optimiser.zero_grad()

    def task_step() -> None:
        task.training_step({"image": x, "mask": label}, 0).backward()
        optimiser.step()
        optimiser.zero_grad()

    serve(
        {"forward": forward, "step": step, "task_step": task_step},
        parameters=sum(p.numel() for p in task.model.parameters()), gflop=gflop(forward),
    )  # fmt: skip


def predict(
    folder: str, out: str, size: int, stride: int, mean: list[float], std: list[float], batch: int
) -> dict[str, Any]:
    """A map by the grid sampler, whose stitching is left to the user: later windows overwrite earlier ones."""
    import numpy as np
    import rasterio
    from torchgeo.datasets import stack_samples
    from torchgeo.samplers import GridGeoSampler

    clock = Clock()
    task = make_task().eval()
    image, _ = make_datasets(folder)
    loader = DataLoader(
        image, sampler=GridGeoSampler(image, size=size, stride=stride), batch_size=batch, collate_fn=stack_samples
    )
    centre, scale = (torch.tensor(each).view(1, -1, 1, 1) for each in (mean, std))
    with rasterio.open(Path(folder) / "image.tif") as file:
        profile, transform = file.profile, file.transform
    codes = np.zeros((profile["height"], profile["width"]), np.uint8)
    with torch.inference_mode():
        for one in loader:
            found = task.predict_step({"image": (one["image"] - centre) / scale}, 0).argmax(1).numpy() + 1
            for answer, bounds in zip(found, one["bounds"], strict=True):
                col, row = (round(v) for v in ~transform * (bounds[0].start, bounds[1].stop))
                here = codes[row : row + size, col : col + size]
                here[:] = answer[: here.shape[0], : here.shape[1]]
    profile.update(count=1, dtype="uint8", nodata=0, compress="deflate")
    with rasterio.open(out, "w", **profile) as file:
        file.write(codes, 1)
    return {**clock.read(), "left_out": float((codes == 0).mean())}


if __name__ == "__main__":
    main({"windows": windows, "network": network, "predict": predict})
