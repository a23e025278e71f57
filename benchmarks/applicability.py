"""Are shifted regions told from the training region, and by what: the model's input, or what its network makes of it?

The demo's model (`covermap demo`) is trained on a generated landscape. Seven regions of another mixture and other
spectra (SceneRecipe.region, region_shift) are compared with two further landscapes of the home region, by the distance
of cells to the nearest training cell after whitening: of the means of the input over cells of several sizes, of the
decoder's finest and coarsest maps, of the logits. AUC of cells; `share`: cells beyond the bound that holds 95 % of the
cells held out.

usage: .venv/bin/python benchmarks/applicability.py DEMO_FOLDER [--shift 1.0]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from covermap.core.config import ImageConfig
from covermap.data.chips import image_batch
from covermap.data.scene import Scene
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.geo.grid import Window
from covermap.infer import open_for
from covermap.ml import applicability
from covermap.ml.applicability import Applicability, cell_means
from covermap.models import NetworkModel, load_model

SIDE, WINDOW, MOST = 512, 256, 20_000
Floats = np.ndarray


def open_scene(model: NetworkModel, folder: Path, **recipe: object) -> Scene:
    place = folder / "_".join(map(str, recipe.values()))
    write_scene(SceneRecipe(height=SIDE, width=SIDE, **recipe), place)
    return open_for(model.spec, [ImageConfig(path=str(place / "image_date1.tif"), sensor="landsat7")], any_gsd=False)


def input_cells(model: NetworkModel, scene: Scene, cell_px: int) -> Floats:
    applicability.CELL_PX = cell_px
    return every_window(scene, lambda batch: cell_means(batch, model.spec).reshape(-1, model.spec.num_channels), model)


def network_cells(model: NetworkModel, scene: Scene, what: str, cell_px: int = 16) -> Floats:
    def of(batch: object) -> Floats:
        with torch.inference_mode():
            if what == "logits":
                maps, stride = model.forward(batch), 1
            else:
                at = 0 if what == "finest map" else -1
                maps, stride = model.forward.features(batch).maps[at], int(model.forward.strides[at])
            pooled = torch.nn.functional.avg_pool2d(maps, cell_px // stride)
        return pooled.movedim(1, -1).reshape(-1, maps.shape[1]).numpy()

    return every_window(scene, of, model)


def every_window(scene: Scene, of: Callable, model: NetworkModel) -> Floats:
    places = [Window(r, c, WINDOW, WINDOW) for r in range(0, scene.grid.height, WINDOW)
              for c in range(0, scene.grid.width, WINDOW)]  # fmt: skip
    cells = np.concatenate([of(image_batch([scene.read(place)], model.spec)) for place in places])
    return cells[np.random.default_rng(0).permutation(len(cells))[:MOST]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--shift", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.demo / "demo/model")
    assert isinstance(model, NetworkModel)
    trained = ImageConfig(path=str(options.demo / "image.tif"), sensor="landsat7")
    scene = open_for(model.spec, [trained], any_gsd=False)
    with tempfile.TemporaryDirectory() as folder:
        home = [open_scene(model, Path(folder), seed=seed) for seed in (11, 12)]
        away = {r: open_scene(model, Path(folder), seed=13, region=r, region_shift=options.shift) for r in "abcdefg"}
        ways: dict[str, Callable[[Scene], Floats]] = {
            f"input, cells of {px} px": lambda s, px=px: input_cells(model, s, px) for px in (1, 4, 8, 16, 32)
        }
        ways |= {f"{what}, cells of 16 px": lambda s, what=what: network_cells(model, s, what)
                 for what in ("finest map", "coarsest map", "logits")}  # fmt: skip
        print("| distance of | " + " | ".join(away) + " | home beyond the bound | away beyond it |")
        print("|---" * (len(away) + 3) + "|")
        for name, cells in ways.items():
            known = cells(scene)
            order = np.random.default_rng(0).permutation(len(known))
            learn, held = known[order[:2048]], known[order[2048:4096]] if len(known) > 2100 else known[order[1::2]]
            learn = learn if len(known) > 2100 else known[order[::2]]
            fitted = Applicability.fit(learn, np.arange(len(learn)), held)
            usual = np.concatenate([fitted.distances(cells(s)) for s in home])
            found = {r: fitted.distances(cells(s)) for r, s in away.items()}
            aucs = [
                roc_auc_score(np.r_[np.zeros(len(usual)), np.ones(len(d))], np.r_[usual, d]) for d in found.values()
            ]
            far = np.mean([(d > 1).mean() for d in found.values()])
            print(f"| {name} | " + " | ".join(f"{a:.3f}" for a in aucs) + f" | {(usual > 1).mean():.3f} | {far:.3f} |")


if __name__ == "__main__":
    main()
