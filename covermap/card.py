"""What a model folder says of its model: to predict (config.json), to people (README.md), to catalogues (STAC).

config.json  ModelCard     README.md  card_text     item.stac.json  card_item: STAC 1.1 with the extension
Machine Learning Model 1.4 (github.com/stac-extensions/mlm), the newest that pystac reads
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import shapely

from covermap.core.legend import Legend
from covermap.core.stac_item import stac_classes, stac_dates, stac_file, stac_item
from covermap.core.task import Task
from covermap.core.types import InputSpec, SensorInput

MODEL_FILES = ("config.json", "model.safetensors", "README.md", "item.stac.json", "adapter.safetensors",
               "applicability.safetensors")  # fmt: skip
"""All that a model folder may hold; the first two are needed."""


ENCODER = "encoder"
"""Kind of a folder that holds a backbone alone, as pre-training leaves it."""


@dataclass(frozen=True)
class ModelCard:
    """config.json of a model folder."""

    kind: str
    spec: InputSpec
    task: Task
    build: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def legend(self) -> Legend:
        """Names of its outputs: classes, or numbers."""
        return self.task.legend

    @property
    def sees_neighbours(self) -> bool:
        """As the model's own."""
        return self.kind != "forest"

    @property
    def architecture(self) -> str:
        """The parts that a config names."""
        parts = [str(self.build[key]) for key in ("backbone", "decoder") if self.build.get(key)]
        return " + ".join(parts) if parts else f"random {self.kind}" if self.kind == "forest" else self.kind


def card_text(card: ModelCard) -> str:
    """README.md of a model folder, as model hubs show it."""
    bands = "; ".join(f"{s.sensor}: {', '.join(s.bands)}" for s in card.spec.sensors)
    facts = "\n".join(f"- {key}: {value}" for key, value in card.facts.items())
    if card.kind == ENCODER:
        return (
            "---\nlibrary_name: covermap\npipeline_tag: image-feature-extraction\ntags: [earth-observation]\n---\n"
            f"# Backbone learnt without labels ({card.architecture})\n\n"
            f"- bands: {bands}\n{_dates(card)}- pixel size: {card.spec.gsd_m:.4g} m\n{facts}\n\n"
            "Use: `model: {backbone: THIS_FOLDER}` in a config, or `covermap embed THIS_FOLDER IMAGE.tif OUT.parquet`\n"
        )
    takes, chips, names = card.task.kind.takes, card.task.kind.chips, card.legend.names
    outputs = [f"{n} ({u})" if u else n for n, u in zip(names, card.task.units or ("",) * len(names), strict=True)]
    pipeline = "image-classification" if chips else "image-segmentation"
    what = "land cover" if card.task.name == "segmentation" else card.task.name.replace("_", " ")
    return (
        f"---\nlibrary_name: covermap\npipeline_tag: {pipeline}\ntags: [earth-observation, {card.task.name}]\n---\n"
        f"# Model of {what} ({card.architecture})\n\n"
        f"- bands: {bands}\n{_dates(card)}- pixel size: {card.spec.gsd_m:.4g} m\n"
        f"- {'numbers' if takes == 'numbers' else 'classes'}: {', '.join(outputs)}\n{facts}\n\n"
        f"Use: `covermap predict THIS_FOLDER IMAGE.tif {'TABLE.csv' if chips else 'MAP.tif'}{_further(card)}`\n"
    )


def _dates(card: ModelCard) -> str:
    """A line on the dates, where there are several."""
    return f"- dates: {card.spec.num_dates}, in the order of time\n" if card.spec.num_dates > 1 else ""


def _further(card: ModelCard) -> str:
    """How the images after the first one are named."""
    first = card.spec.sensors[0]
    more = [first.sensor] * (first.num_dates - 1)
    more += [entry.sensor for entry in card.spec.sensors[1:] for _ in range(entry.num_dates)]
    return "".join(f" --add {sensor}=IMAGE_{number}.tif" for number, sensor in enumerate(more, 2))


def card_item(card: ModelCard, folder: Path) -> str:
    """item.stac.json of a model folder whose other files are there; ground and dates are those of training, or now."""
    facts, now = card.facts, datetime.now(UTC)
    network = card.kind in ("network", ENCODER)
    source = facts.get("run") or Path(str(facts.get("imported_from", "model"))).stem
    name = re.sub(r"[^0-9A-Za-z_.]+", "-", f"covermap-{source}" + ("" if network else f"-{card.kind}")).rstrip("-_.")
    framework, package = ("PyTorch", "torch") if network else ("scikit-learn", "scikit-learn")
    bands = [{"name": band} for band in dict.fromkeys(band for s in card.spec.sensors for band in s.bands)]
    built = {"size_px": card.spec.size_px, "trees": facts.get("trees"), **card.build, "extra": facts.get("extra_from")}
    known = {
        "gsd": round(card.spec.gsd_m, 3) or None, "bands": bands,
        "mlm:name": name, "mlm:architecture": card.architecture,
        "mlm:tasks": ["similarity-search"] if card.kind == ENCODER else _tasks(card.task),
        "mlm:framework": framework, "mlm:framework_version": _version(package),
        "mlm:total_parameters": facts.get("parameters"),
        "mlm:input": [_input(entry, card) for entry in card.spec.sensors],
        "mlm:output": [_vectors(card) if card.kind == ENCODER else _output(card.task)],
        "mlm:hyperparameters": {key: value for key, value in built.items() if value},
    }  # fmt: skip
    properties = {
        **(stac_dates(facts["acquired"]) if "acquired" in facts else {"datetime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}),
        **{key: value for key, value in known.items() if value is not None},
    }
    if "imported_from" not in facts:  # of such models it is not known
        start = [facts[key] for key in ("started_from", "started_from_sha256") if key in facts]
        properties |= {"mlm:pretrained": bool(start), "mlm:pretrained_source": None}
        if start:
            properties["mlm:pretrained_source"] = f"{card.build.get('backbone')}: {', SHA-256 '.join(start)}"
    weights = {
        **stac_file(folder / "model.safetensors", "application/octet-stream", "Weights", "mlm:model", "mlm:weights"),
        "mlm:artifact_type": f"safetensors.{'torch' if network else 'numpy'}.save_file",
        "bands": bands,  # STAC 1.1 wants them here where the item has them, the extension in the item
    }
    assets = {
        "model": weights,
        "config": stac_file(folder / "config.json", "application/json", "What covermap predict needs", "metadata"),
        "card": stac_file(folder / "README.md", "text/markdown", "Model card", "metadata"),
    }
    # Boxes of scenes may overlap, polygons of one geometry must not.
    boxes = [shapely.box(*box) for box in facts.get("footprint_wgs84", ())]
    return stac_item(name, shapely.union_all(boxes) if boxes else None, properties, assets, ["mlm/v1.4.0"])


def _version(package: str) -> str | None:
    """X.Y.Z of this environment, where the package is in it."""
    try:
        return ".".join(re.findall(r"\d+", version(package))[:3])
    except PackageNotFoundError:
        return None


def _input(entry: SensorInput, card: ModelCard) -> dict[str, Any]:
    """A sensor's windows; mean and std in the numbers of the files, so that one operation is the whole scaling."""
    side = card.spec.size_px if card.spec.fixed_size and card.kind == "network" else -1
    words = [
        f"radar {entry.quantity} is taken in dB first" if entry.quantity else "",
        "the +1000 of newer products is taken off first" if entry.auto_offset and entry.sensor == "sentinel2" else "",
        "each band has mean 0 and std 1 over its own scene" if entry.per_scene else "",
        f"scaled values are cut to +-{entry.clip:g}, and 0 where the image holds nothing",
        f"{', '.join(entry.indices)}: made of other bands" if entry.indices else "",
        "the sensor may be absent, or lack bands" if entry.optional else "",
    ]
    scaling = [
        {"type": "z-score", "mean": float(f"{(m - entry.offset) / entry.scale:.9g}"), "stddev": s / entry.scale}
        for m, s in zip(entry.mean, entry.std, strict=True)
    ]
    return {
        "name": entry.sensor, "description": "; ".join(filter(None, words)), "bands": list(entry.bands),
        "input": _array([entry.num_dates, len(entry.bands), side, side], "time", "bands"),
        "value_scaling": None if entry.per_scene else scaling,
    }  # fmt: skip


def _tasks(task: Task) -> list[str]:
    """In the extension's words."""
    named = {"segmentation": "semantic-segmentation", "hazard": "semantic-segmentation",
             "multilabel": "multi-label-classification", "classification": "scene-classification",
             "density": "scene-classification", "change": "semantic-segmentation",
             "semantic_change": "semantic-segmentation"}  # fmt: skip
    return [named.get(task.name, "regression")]


def _output(task: Task) -> dict[str, Any]:
    legend, space = task.legend, () if task.kind.chips else (-1, -1)
    name = "land_cover" if task.name == "segmentation" else task.name
    if task.kind.takes == "numbers":
        units = [f"{n} ({u})" if u else n for n, u in zip(legend.names, task.units, strict=True)]
        return {
            "name": name, "tasks": _tasks(task), "description": f"a channel for each number: {', '.join(units)}",
            "result": _array([len(legend), *space], "number", space=bool(space)),
        }  # fmt: skip
    # The extension's own package (stac-model 0.7) refuses classes with a title.
    classes = [
        {key.replace("title", "description"): value for key, value in c.items()} for c in stac_classes(legend.classes)
    ]
    told = "class probabilities, a channel for each class in their order; values are codes in maps"
    if task.kind.takes == "transitions":
        told = "probabilities of each class before, of each class after, of unchanged and of changed"
    return {
        "name": name, "tasks": _tasks(task), "classification:classes": classes, "description": told,
        "result": _array([task.num_answers, *space], "class", space=bool(space)),
    }  # fmt: skip


def _vectors(card: ModelCard) -> dict[str, Any]:
    """Features for each cell of a backbone."""
    result = _array([card.facts.get("dimensions", -1), -1, -1], "feature")
    return {
        "name": "features",
        "tasks": ["similarity-search"],
        "description": "features of each cell",
        "result": result,
    }


def _array(shape: Sequence[int], *axes: str, space: bool = True) -> dict[str, Any]:
    order = ["batch", *axes, *(("height", "width") if space else ())]
    return {"shape": [-1, *shape], "dim_order": order, "data_type": "float32"}
