"""Does learning without labels help, and with how few labels: methods beside raw statistics and random weights.

    plan -> each method and seed: pretrain -> embed -> probe (train part -> test part) with few to many labels
    -> (fine-tuned networks, and one from scratch, with as many) -> a table and lines over the number of labels

    OUT/pretrained/METHOD-sSEED   OUT/embeddings, OUT/probes   OUT/splits, OUT/runs
    OUT/rows.csv   OUT/study.json   OUT/report.html   OUT/LOG.md

A study of the kind `pretraining` (verbs/study.py); the same call goes on where it was stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import RunConfig
from covermap.core.errors import CovermapError, DataError, OutputError
from covermap.core.output import at_work, write_text, writing
from covermap.core.parsing import read_json
from covermap.core.plan_file import KEPT, kept_plan
from covermap.core.pretraining_plan import RANDOM, SCRATCH, Pretraining, finetuned, load_pretraining
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import plain
from covermap.data.embeddings import parquet
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.split import Tile
from covermap.geo.grid import Window
from covermap.metrics.intervals import over_seeds
from covermap.verbs.embed import EmbedSettings, embed
from covermap.verbs.pretraining_results import FINETUNED, PROBE, RAW, Row, together, write_results
from covermap.verbs.probe import ALL_TARGETS, ProbeSettings, probe
from covermap.verbs.study import Study, work


def pretraining_study(
    plan: str | Path | Mapping[str, Any], out: str | Path, *, engine: Any = "serial", workers: int | None = None,
    overrides: Sequence[str] = (), overwrite: bool = False, dry_run: bool = False, say: Say = silent,
    on_progress: Tick = unseen,
) -> Study:  # fmt: skip
    """Run a plan, whose cells are pre-trainings, probes and, if asked for, fine-tuned networks.

    Raises ConfigError, OutputError; a cell that fails is recorded and the others go on.
    """
    out = Path(out)
    loaded = load_pretraining(plan, out, overrides)
    found = Study(out, [recipe.name for recipe in loaded.recipes.values()])
    _require_same(loaded, out, overwrite=overwrite)
    if dry_run:
        return found
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with at_work(out, alone=True):
        write_text(out / KEPT, _fingerprint(loaded))
        for folder in ("pretrained", "embeddings", "probes", "splits", "runs", "jobs") if overwrite else ():
            shutil.rmtree(out / folder, ignore_errors=True)
        jobs = {r.name: {"config": r.model_dump(mode="json"), "pretrain": True} for r in loaded.recipes.values()}
        work(jobs, found, _done(out / "pretrained", jobs), engine, workers, say=say, on_progress=on_progress)
        rows, notes = _probes(loaded, found, workers, say)
        if loaded.plan.finetune is not None and rows:
            more, said = _finetuned(loaded, found)
            notes += said
            jobs = {name: {"config": c.model_dump(mode="json"), "forest": False} for name, c in more.items()}
            found.cells += list(jobs)
            work(jobs, found, _done(out / "runs", jobs), engine, workers, say=say, on_progress=on_progress)
            rows += _scores(loaded, more)
        if not rows:
            why = next(iter(found.failed.values()), "nothing was learnt")
            raise DataError(f"no cell of {loaded.source} was finished: {why}", fix="mend the plan, and run it again")
        write_results(loaded, found, rows, notes)
    return found


def _done(runs: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (runs / name / "cell.json").is_file()]


def _fingerprint(loaded: Pretraining) -> str:
    kept = {recipe.name: recipe.model_dump(mode="json", exclude={"output"}) for recipe in loaded.recipes.values()}
    shown = {"labels", "repeats", "target", "finetune"}
    return json.dumps(plain({"plan": loaded.plan.model_dump(mode="json", include=shown), "cells": kept}), indent=1)


def _require_same(loaded: Pretraining, out: Path, *, overwrite: bool) -> None:
    """Refuse a folder of another plan; methods and seeds may be added."""
    before, now = kept_plan(out, "cells"), json.loads(_fingerprint(loaded))
    if overwrite or before is None:
        return
    gone = [name for name, own in before["cells"].items() if now["cells"].get(name) != own]
    if gone or before["plan"] != now["plan"]:
        what = f"method {gone[0]}" if gone else "labels, repeats, target or finetune"
        raise OutputError(
            f"{out} was begun with another plan ({what})",
            fix="give another folder, or --overwrite; methods and seeds may be added",
        )


def _encoders(loaded: Pretraining, found: Study) -> dict[tuple[str, int], RunConfig]:
    """What is embedded: each finished backbone, and random weights, on the data of the plan."""
    configs = {}
    for seed in loaded.plan.all_seeds:
        train = loaded.base.train.model_copy(update={"seed": seed})
        model = loaded.base.model.model_copy(update={"weights": "none"})
        configs[RANDOM, seed] = loaded.base.model_copy(update={"model": model, "train": train})
    for (name, seed), recipe in loaded.recipes.items():
        if recipe.name not in found.failed:
            own = recipe.run
            model = own.model.model_copy(
                update={"backbone": str(recipe.folder), "backbone_options": {}, "weights": "auto"}
            )
            configs[name, seed] = own.model_copy(update={"model": model})
    return configs


def _probes(loaded: Pretraining, found: Study, workers: int | None, say: Say) -> tuple[list[Row], list[str]]:
    """Rows of all probes, and notes."""
    plan, rows, told = loaded.plan, list[Row](), dict[str, list[str]]()
    asked = ProbeSettings(("raw", "ridge"), plan.target, "none", tuple(plan.labels), plan.repeats)
    for folder in ("embeddings", "probes"):
        with writing(found.out / folder):
            (found.out / folder).mkdir(exist_ok=True)
    for (name, seed), config in _encoders(loaded, found).items():
        cell = f"{name}-s{seed}"
        path = found.out / "embeddings" / f"{cell}.parquet"
        try:
            kept = path.with_suffix(".notes.json")  # a call that goes on has the same to say
            if not kept.is_file():
                say(f"embedding with {cell}")
                settings = EmbedSettings(size_px=config.train.sizes_px[0])
                made = embed(config, path, settings=settings, overwrite=path.is_file())
                write_text(kept, json.dumps(list(made.notes), ensure_ascii=False) + "\n")
            for note in read_json(kept, fix="make it again: --overwrite"):
                told.setdefault(note, []).append(cell)
            probed = probe([path], found.out / "probes" / cell, asked, workers=workers)
            mine = _rows(probed.out / "scores.parquet", name, seed)
            asked_for = [row for row in mine if row.labels in plan.labels]  # probes also take all there are
            rows += [row for row in asked_for if row.learner != RAW or name == RANDOM]
            for note in probed.notes:
                told.setdefault(note, []).append(cell)
        except CovermapError as error:
            found.failed[f"probe of {cell}"] = error.message
            say(f"probe of {cell} failed: {error.message}")
    encoders = {cell for cells in told.values() for cell in cells}
    return rows, [note if set(cells) == encoders else f"{_few(cells)}: {note}" for note, cells in told.items()]


def _few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _train_chips(folder: Path) -> list[Tile]:
    """The chips of the train part that have labels."""
    path = next(iter(sorted(folder.glob("*.parquet"))))
    columns = set(parquet().read_schema(path).names) & {"scene", "part", "pixel_bbox", "class_pixels"}
    rows = parquet().read_table(path, columns=sorted(columns)).to_pylist()
    return [
        Tile(row["scene"], Window(top, left, bottom - top, right - left), "train")
        for row in rows
        for left, top, right, bottom in [row["pixel_bbox"]]
        if row["part"] == "train" and sum(row.get("class_pixels", (1,)))
    ]


def _write_splits(loaded: Pretraining, folder: Path, chips: Sequence[Tile]) -> None:
    """Files LABELS-sSEED.csv: exactly as many train chips, smaller numbers inside of larger; val and test as ever."""
    base = loaded.base
    scenes = open_scenes(base.data)
    split = make_split(scenes, base.split, size_px=base.train.sizes_px[0])
    held = [tile for tile in split.tiles if tile.part != "train"]
    with writing(folder):
        folder.mkdir(exist_ok=True)
    for seed in loaded.plan.all_seeds:
        order = np.random.default_rng(seed).permutation(len(chips))
        for labels in loaded.plan.labels:
            known = [chips[i] for i in order[:labels]]
            seen = {tile.scene for tile in (*known, *held)}
            bare = [Tile(scene.name, scene.grid.window, "none") for scene in scenes if scene.name not in seen]
            replace(split, tiles=(*known, *held, *bare)).save(folder / f"{labels}-s{seed}.csv")


def _rows(path: Path, name: str, seed: int) -> list[Row]:
    """The mean over repeats for each number of labels."""
    table = (
        parquet()
        .read_table(path, columns=["probe", "n", "r2", "target"], filters=[("target", "==", ALL_TARGETS)])
        .to_pydict()
    )
    found: dict[tuple[str, int], list[float]] = {}
    for way, n, value in zip(table["probe"], table["n"], table["r2"], strict=True):
        found.setdefault((RAW if way == "raw" else name, n), []).append(value)
    return [Row(who, PROBE, n, seed, over_seeds(values).value) for (who, n), values in found.items()]


def _finetuned(loaded: Pretraining, found: Study) -> tuple[dict[str, RunConfig], list[str]]:
    """{name: config} of networks that learn from as many labelled chips as the probes, and notes."""
    runs, folder, chips = {}, found.out / "splits", _train_chips(found.out / "embeddings")
    many = [str(n) for n in loaded.plan.labels if n > len(chips)]
    notes = [f"not fine-tuned with {', '.join(many)} labels: the train part has {len(chips):,} chips"] if many else []
    _write_splits(loaded, folder, chips)
    for seed in loaded.plan.all_seeds:
        for method in (SCRATCH, *loaded.plan.methods):
            recipe = loaded.recipes.get((method, seed))
            if recipe is not None and recipe.name in found.failed:
                continue
            for labels in loaded.plan.labels:
                if labels <= len(chips):
                    name, split = f"{method}-{labels}-s{seed}", folder / f"{labels}-s{seed}.csv"
                    runs[name] = finetuned(loaded, recipe, split.resolve(), seed=seed, name=name, out=found.out)
    return runs, notes


def _scores(loaded: Pretraining, runs: Mapping[str, RunConfig]) -> list[Row]:
    """R2 of all targets together of each run that was scored."""
    rows = []
    for name, config in runs.items():
        path = config.folder / "metrics.json"
        if path.is_file():
            method, labels, seed = name.rsplit("-", 2)
            each = read_json(path, fix="make it again: --overwrite")["models"]["network"]["per_number"]
            rows.append(Row(method, FINETUNED, int(labels), int(seed[1:]), together(each)))
    return rows
