"""Label budgets in miniature: train elsewhere or label here, with real encoders that run on a CPU, 50 repeats.

    oscd        Sentinel-2 of seven cities, shares of classes in chips of 16 px; labels are MODEL-MADE (Dynamic World)
    terramesh   Sentinel-1 of four places of TerraMesh (land cover of TerraMesh), budgets up to 80
    generated   Sentinel-1 of five generated areas whose spectra and mixtures differ; labels are the truth

Encoders: Galileo nano and Presto with their published weights, Galileo with random ones; raw statistics of the bands
and a constant beside them. Each is one call of `covermap study run`; its page and tables stay in OUT/NAME.

usage: COVERMAP_WEIGHTS=../shared/weights .venv/bin/python benchmarks/label_budget.py OUT
           [--only oscd terramesh generated] [--repeats 50]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import yaml
from foundation import write_oscd

from covermap.data.simulate import LEGEND, SceneRecipe, write_scene
from covermap.verbs.study import study

ROOT = Path(__file__).resolve().parent.parent
MESH = ROOT.parent / "shared" / "data" / "terramesh_examples"
ENCODERS = {
    "Galileo nano": {"model.backbone": "galileo_nano"},
    "Presto": {"model.backbone": "presto"},
    "Galileo, random weights": {"model.backbone": "galileo_nano", "model.weights": "none"},
}


def generated(folder: Path) -> Path:
    """Five areas of 384 px with radar only, each with spectra and a mixture of its own."""
    for number in range(5):
        # Zones of their own: areas that lie on one another are refused, for what is learnt elsewhere would be here.
        recipe = SceneRecipe(
            384, 384, seed=number, region=f"area{number}", region_shift=0.5, crs=f"EPSG:{32631 + number}"
        )
        paths = write_scene(recipe, folder / f"area{number}", optical=False, sar=True)
        for kind, name in (("images", "sar"), ("labels", "labels")):
            (folder / kind).mkdir(exist_ok=True)
            paths[name].rename(folder / kind / f"area{number}.tif")
    config = {
        "data": {"image": [{"path": "images/*.tif", "sensor": "sentinel1", "date": "2019-07-15"}],
                 "labels": "labels/*.tif", "legend": LEGEND.to_dict()},
        "split": {"method": "regions", "test": ["area0"], "val": ["area1"]},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def terramesh(folder: Path) -> Path:
    """Radar of four places."""
    raw = yaml.safe_load((ROOT / "recipes/terramesh.yaml").read_text())
    places = sorted(path.stem for path in (MESH / "S1RTC").glob("*.tif"))
    image = {"path": str(MESH / "S1RTC/*.tif"), "sensor": "sentinel1", "bands": ["vv", "vh"], "date": "2019"}
    data = {"image": [image], "labels": str(MESH / "LULC/*.tif"), "legend": raw["data"]["legend"]}
    split = {"method": "regions", "test": places[:1], "val": places[1:2]}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "split": split}))
    return folder / "config.yaml"


CASES = {
    "oscd": (write_oscd, "Sentinel-2, seven cities", [10, 20, 40, 80, 160], "made by a model, no ground truth"),
    "terramesh": (terramesh, "Sentinel-1, four places of TerraMesh", [10, 20, 40, 80], ""),
    "generated": (generated, "Sentinel-1, five generated areas", [10, 20, 40, 80, 160], "the truth of generated areas"),
}
OWN = {"terramesh": {"block": 7, "share": 0.25}}
"""Places of 14 x 14 chips: quarters, of which one is held out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    for name in args.only:
        make, title, budgets, labels = CASES[name]
        folder = args.out / f"{name}_data"
        folder.mkdir(parents=True, exist_ok=True)
        plan = {
            "title": title, "kind": "label_budget", "config": str(make(folder)), "encoders": ENCODERS, "size_px": 16,
            "settings": {"model.backbone_options": {}, "model.pixel_width": 0, "train.normalise": "pretrained"},
            "budgets": budgets, "repeats": args.repeats, "labels": labels, **OWN.get(name, {}),
            "hypothesis": "A frozen foundation model needs fewer labels than raw statistics of the bands.",
        }  # fmt: skip
        start = time.perf_counter()
        found = study(plan, args.out / name, say=print)
        head, rows = found.summary["table"]["head"], found.summary["table"]["rows"]
        print(f"\n{title}: {time.perf_counter() - start:.0f} s, {found.summary['num_fits']:,} fits\n")
        print("\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)))
        print(f"\n{found.summary['conclusion']}\n", flush=True)


if __name__ == "__main__":
    main()
