"""What learning without labels brings on generated regions: the study of recipes/studies/terramesh_pretraining.yaml
with other data, whose labels are the truth.

Regions have optical bands, radar and elevation, and each spectra and a mixture of classes of its own.

usage: .venv/bin/python benchmarks/pretraining_study.py FOLDER [--regions 4] [--shift 0.5] [--workers 2]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import yaml

from covermap.data.simulate import LEGEND, SceneRecipe, write_scene
from covermap.verbs.pretraining_study import pretraining_study

ROOT = Path(__file__).resolve().parent.parent
LIKE = ROOT / "recipes/studies/terramesh_pretraining.yaml"
SIDE = 384
SENSORS = {"sentinel2": ("image", {}), "sentinel1": ("sar", {}), "dem": ("dem", {"bands": ["elevation"]})}


def regions(folder: Path, number: int, shift: float) -> None:
    """Scenes in zones of their own: on one another they would be refused, as one ground."""
    for index in range(number):
        recipe = SceneRecipe(
            SIDE, SIDE, seed=index, region=f"region{index}", region_shift=shift, crs=f"EPSG:{32631 + index}"
        )
        paths = write_scene(recipe, folder / f"region{index}", sar=True, dem=True)
        for name in ("image", "sar", "dem", "labels"):
            (folder / name).mkdir(exist_ok=True)
            paths[name].rename(folder / name / f"region{index}.tif")


def plan(folder: Path) -> Path:
    """The plan of the real tiles on these regions."""
    raw = yaml.safe_load(LIKE.read_text(encoding="utf-8"))
    images = [{"path": f"{name}/*.tif", "sensor": sensor, **more} for sensor, (name, more) in SENSORS.items()]
    raw["title"] = "What does learning without labels bring on generated regions?"
    raw["note"] = "the truth of generated regions"
    raw["config"]["data"] = {"image": images, "labels": "labels/*.tif", "legend": LEGEND.to_dict()}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--regions", type=int, default=4)
    parser.add_argument("--shift", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    path = asked.folder / "plan.yaml"
    if not path.is_file():
        regions(asked.folder, asked.regions, asked.shift)
        plan(asked.folder)
    start = time.perf_counter()
    pretraining_study(path, asked.folder / "study", engine="processes", workers=asked.workers, say=print)
    print((asked.folder / "study" / "LOG.md").read_text(encoding="utf-8"))
    print(f"{(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
