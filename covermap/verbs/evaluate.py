"""`evaluate`: scores of a run's models on one part of its split, the network and the forest side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, LabelError, suggest
from covermap.core.legend import IGNORE
from covermap.core.output import write_text
from covermap.core.progress import Say, silent
from covermap.core.run import Run
from covermap.core.train_config import PredictConfig
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import PARTS, Split
from covermap.data.stats import with_own_statistics
from covermap.geo.grid import Window
from covermap.geo.legend_files import csv_text
from covermap.infer import Lattice, highest, infer_block
from covermap.metrics.confusion import Confusion
from covermap.models import LandModel, device_of, load_model

PARTS_USED = {"train": "fitted the model", "val": "chose the checkpoint"}


def score(
    model: LandModel, scenes: Sequence[Scene], split: Split, part: str, *, settings: PredictConfig
) -> tuple[Confusion, float]:
    """Confusion matrix over all labelled, valid pixels of a part, and their mean negative log likelihood.

    The windows are those of the map (`settings`); only those that hold such a pixel are computed.
    """
    confusion = Confusion(len(model.legend))
    loss = 0.0
    for scene in scenes:
        windows = Lattice.of(scene, model, settings)
        labels = _remembered(split, scene, part)
        for block in windows.blocks(2048):
            if (labels(block) != IGNORE).any():
                known_at = _is_known(labels)
                for strip in infer_block(model, scene, windows, block, wanted=known_at, batch_size=settings.batch_size):
                    reference = np.where(strip.valid, labels(strip.window), np.uint8(IGNORE))
                    known = reference != IGNORE
                    confusion.add(reference, highest(strip.probabilities)[0])
                    chosen = np.take_along_axis(
                        strip.probabilities[:, known], reference[known][None].astype(np.intp), axis=0
                    )
                    loss -= float(np.log(np.maximum(chosen, 1e-7)).sum(dtype=np.float64))
    if confusion.total == 0:
        raise DataError(f"the {part} part holds no labelled valid pixel", fix="check with: covermap check CONFIG")
    return confusion, loss / confusion.total


def _is_known(labels: Callable[[Window], npt.NDArray[np.uint8]]) -> Callable[[Window], npt.NDArray[np.bool_]]:
    return lambda window: labels(window) != IGNORE


def _remembered(split: Split, scene: Scene, part: str) -> Callable[[Window], npt.NDArray[np.uint8]]:
    """Labels of a part by window; those of a small scene are read once."""
    if scene.grid.height * scene.grid.width > 1 << 26:
        return lambda window: split.labels(scene, window, part)
    whole = split.labels(scene, scene.grid.window, part)
    return lambda window: whole[window.slices]


def evaluate(run: Run, *, part: str = "test", say: Say = silent) -> dict[str, Any]:
    """Score all models of a run on a part and write metrics.json, confusion CSVs and per_class.csv.

    Scores of a part that was used for fitting or choosing are marked as such and never called test scores.
    """
    if part not in PARTS[1:]:
        raise ConfigError(f"a split has no part {part!r}", fix=suggest(part, PARTS[1:]))
    scenes = open_scenes(run.config.data)
    run.require_inputs(file for scene in scenes for file in scene.files)
    legend = scenes[0].legend
    assert legend is not None
    split = Split.load(run.path("split.csv"))
    models: dict[str, Any] = {}
    for name, folder in (("network", "model"), ("random forest", "baseline")):
        if run.path(f"{folder}/config.json").is_file():
            say(f"scoring the {name} on {part}")
            model = load_model(
                run.path(folder), device=device_of(run.config.predict.device), precision=run.config.predict.precision
            )
            if model.legend.codes != legend.codes or model.legend.names != legend.names:
                raise LabelError(
                    f"the {name} maps {', '.join(model.legend.names)}; the labels hold {', '.join(legend.names)}",
                    fix="the legend was changed after training: train again with --overwrite",
                )
            scenes = with_own_statistics(scenes, model.spec)
            confusion, loss = score(model, scenes, split, part, settings=run.config.predict)
            models[name] = {
                "scores": confusion.scores() | {"nll": loss},
                "per_class": confusion.table(model.legend.names),
                "confusion": confusion.counts.tolist(),
            }
            write_confusion(run.path(f"confusion_{part}_{folder}.csv"), confusion, model.legend.names)
    if not models:
        raise DataError(f"{run.folder} has no trained model", fix="train it first: covermap train CONFIG")
    result = {
        "part": part,
        "is_test": part not in PARTS_USED,
        "note": f"{part} {PARTS_USED[part]}: these are no test scores" if part in PARTS_USED else "",
        "classes": list(legend.names),
        "models": models,
    }
    run.write_json("metrics.json" if part == "test" else f"metrics_{part}.json", result)
    _write_per_class(run.path(f"per_class_{part}.csv"), models)
    return result


def write_confusion(path: Path, confusion: Confusion, names: Sequence[str]) -> None:
    """A CSV with reference classes in rows and predicted ones in columns."""
    rows = [[name, *row] for name, row in zip(names, confusion.counts.tolist(), strict=True)]
    write_text(path, csv_text(["reference \\ prediction", *names], rows))


def _write_per_class(path: Path, models: Mapping[str, Any]) -> None:
    rows = [{"model": name, **row} for name, result in models.items() for row in result["per_class"]]
    write_text(path, csv_text(list(rows[0]), [[row[key] for key in rows[0]] for row in rows]))
