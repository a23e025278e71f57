"""Small data that pages name in `<!-- setup: NAME -->`, written into the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doc_pages import ROOT, read_page

from covermap.core.output import write_text
from covermap.data.simulate import SceneRecipe, write_scene


def image(*, slow: bool) -> None:
    """image.tif, labels.tif, legend.yaml of a generated scene."""
    write_scene(SceneRecipe(height=128, width=128, seed=1), ".")


def config(*, slow: bool) -> None:
    """The same with covermap.yaml, which trains for a moment."""
    image(slow=slow)
    write_text(
        Path("covermap.yaml"),
        "name: small\ndata: {image: image.tif, sensor: landsat7, labels: labels.tif, legend: legend.yaml}\n"
        "split: {block_px: 16, buffer_px: 2}\nmodel: {backbone_options: {widths: [8, 16]}}\nbaseline: {trees: 5}\n"
        "train: {epochs: 1, steps_per_epoch: 2, batch_size: 4, size_px: 32, lr: 0.01}\npredict: {workers: 1}\n",
    )


def own_source(*, slow: bool) -> None:
    """data/ in the layout of docs/add_a_source.md."""
    code = next(block.text for block in read_page(ROOT / "docs/add_a_source.md").blocks if block.file == "my_source.py")
    names: dict[str, Any] = {"__name__": "my_source"}
    exec(compile(code, "my_source.py", "exec"), names)
    names["Mine"].write_miniature(Path("data"))
