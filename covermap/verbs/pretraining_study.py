"""Does learning without labels help, and with how few labels: methods beside raw statistics and random weights.

    plan -> each method and seed: pretrain -> embed -> probe (train part -> test part) with few to many labels
    -> (fine-tuned networks, and one from scratch, with as many) -> a table and lines over the number of labels

    OUT/pretrained/METHOD-sSEED   OUT/embeddings, OUT/probes   OUT/runs   OUT/rows.csv   OUT/study.json
    OUT/report.html   OUT/LOG.md

A study of the kind `pretraining` (verbs/study.py); the same call goes on where it was stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from covermap.core.config import RunConfig
from covermap.core.errors import CovermapError, DataError, OutputError
from covermap.core.output import at_work, write_text, writing
from covermap.core.plan_file import KEPT, kept_plan
from covermap.core.pretraining_plan import RANDOM, SCRATCH, Pretraining, finetuned, load_pretraining
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import plain
from covermap.data.embeddings import parquet
from covermap.data.make_split import with_sides
from covermap.data.scene import open_scenes
from covermap.geo.legend_files import csv_text
from covermap.metrics.intervals import over_seeds
from covermap.report.study_figures import band_lines
from covermap.report.study_page import Section, write_study_page
from covermap.verbs.embed import EmbedSettings, embed
from covermap.verbs.probe import ALL_TARGETS, ProbeSettings, probe
from covermap.verbs.study import Study, work
from covermap.verbs.study_kinds import spread
from covermap.verbs.study_log import keep_log, markdown

PROBE, FINETUNED, RAW = "probe", "fine-tuned", "raw statistics"


class Row(NamedTuple):
    """One score: R2 of all targets together in the test part."""

    learner: str
    way: str
    labels: int
    seed: int
    r2: float


def pretraining_study(
    plan: str | Path | Mapping[str, Any], out: str | Path, *, engine: Any = "serial", workers: int | None = None,
    overwrite: bool = False, dry_run: bool = False, say: Say = silent, on_progress: Tick = unseen,
) -> Study:  # fmt: skip
    """Run a plan, whose cells are pre-trainings, probes and, if asked for, fine-tuned networks.

    Raises ConfigError, OutputError; a cell that fails is recorded and the others go on.
    """
    out = Path(out)
    loaded = load_pretraining(plan, out)
    found = Study(out, [recipe.name for recipe in loaded.recipes.values()])
    _require_same(loaded, out, overwrite=overwrite)
    if dry_run:
        return found
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with at_work(out, alone=True):
        write_text(out / KEPT, _fingerprint(loaded))
        for folder in ("pretrained", "embeddings", "probes", "runs", "jobs") if overwrite else ():
            shutil.rmtree(out / folder, ignore_errors=True)
        jobs = {r.name: {"config": r.model_dump(mode="json"), "pretrain": True} for r in loaded.recipes.values()}
        work(jobs, found, _done(out / "pretrained", jobs), engine, workers, say=say, on_progress=on_progress)
        rows, chips, notes = _probes(loaded, found, workers, say)
        if loaded.plan.finetune is not None and rows and (many := [n for n in loaded.plan.labels if n > chips]):
            notes.append(f"not fine-tuned with {', '.join(map(str, many))} labels: the train part has {chips:,} chips")
        if loaded.plan.finetune is not None and chips:
            more = _finetuned(loaded, found, chips)
            jobs = {name: {"config": c.model_dump(mode="json"), "forest": False} for name, c in more.items()}
            found.cells += list(jobs)
            work(jobs, found, _done(out / "runs", jobs), engine, workers, say=say, on_progress=on_progress)
            rows += _scores(loaded, more)
        if not rows:
            why = next(iter(found.failed.values()), "nothing was learnt")
            raise DataError(f"no cell of {loaded.source} was finished: {why}", fix="mend the plan, and run it again")
        _write(loaded, found, rows, notes)
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


def _probes(loaded: Pretraining, found: Study, workers: int | None, say: Say) -> tuple[list[Row], int, list[str]]:
    """Rows of all probes, the number of train chips, and notes."""
    plan, rows, notes = loaded.plan, list[Row](), list[str]()
    asked = ProbeSettings(("raw", "ridge"), plan.target, "none", tuple(plan.labels), plan.repeats)
    for folder in ("embeddings", "probes"):
        with writing(found.out / folder):
            (found.out / folder).mkdir(exist_ok=True)
    for (name, seed), config in _encoders(loaded, found).items():
        cell = f"{name}-s{seed}"
        path = found.out / "embeddings" / f"{cell}.parquet"
        try:
            if not path.is_file():
                say(f"embedding with {cell}")
                settings = EmbedSettings(size_px=config.train.sizes_px[0])
                made = embed(config, path, settings=settings)
                notes += [note for note in made.notes if note not in notes]
            probed = probe([path], found.out / "probes" / cell, asked, workers=workers)
            mine = _rows(probed.out / "scores.parquet", name, seed)
            asked_for = [row for row in mine if row.labels in plan.labels]  # probes also take all there are
            rows += [row for row in asked_for if row.learner != RAW or name == RANDOM]
            notes += [note for note in probed.notes if note not in notes]
        except CovermapError as error:
            found.failed[f"probe of {cell}"] = error.message
            say(f"probe of {cell} failed: {error.message}")
    count = _train_chips(found.out / "embeddings") if rows else 0
    return rows, count, notes


def _train_chips(folder: Path) -> int:
    """How many chips lie in the train part."""
    path = next(iter(sorted(folder.glob("*.parquet"))))
    return sum(part == "train" for part in parquet().read_table(path, columns=["part"])["part"].to_pylist())


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


def _finetuned(loaded: Pretraining, found: Study, chips: int) -> dict[str, RunConfig]:
    """{name: config} of networks that learn from as many labels as the probes."""
    runs, base = {}, loaded.base
    split = with_sides(base.split, open_scenes(base.data), size_px=base.train.sizes_px[0])
    for seed in loaded.plan.all_seeds:
        for method in (SCRATCH, *loaded.plan.methods):
            recipe = loaded.recipes.get((method, seed))
            if recipe is not None and recipe.name in found.failed:
                continue
            for labels in loaded.plan.labels:
                if labels <= chips:
                    name = f"{method}-{labels}-s{seed}"
                    share = min(1.0, labels / chips)
                    runs[name] = finetuned(loaded, recipe, split, share=share, seed=seed, name=name, out=found.out)
    return runs


def _scores(loaded: Pretraining, runs: Mapping[str, RunConfig]) -> list[Row]:
    """R2 of all targets together of each run that was scored."""
    rows = []
    for name, config in runs.items():
        path = config.folder / "metrics.json"
        if path.is_file():
            method, labels, seed = name.rsplit("-", 2)
            each = json.loads(path.read_text(encoding="utf-8"))["models"]["network"]["per_number"]
            rows.append(Row(method, FINETUNED, int(labels), int(seed[1:]), together(each)))
    return rows


def together(each: Sequence[Mapping[str, Any]]) -> float:
    """R2 of the errors of all targets, {num_pairs, rmse, r2} each; constant ones add errors only."""
    errors = squares = 0.0
    for row in each:
        own = row["num_pairs"] * (row["rmse"] or 0.0) ** 2
        errors += own
        if row["r2"] is not None and row["r2"] < 1:
            squares += own / (1 - row["r2"])
    return 1 - errors / squares if squares else float("nan")


def _write(loaded: Pretraining, found: Study, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Table, page, log and JSON."""
    plan, out = loaded.plan, found.out
    budgets = [n for n in plan.labels if any(row.labels == n for row in rows)]
    kinds = list(dict.fromkeys((row.learner, row.way) for row in rows))
    kinds.sort(key=lambda kind: (kind[0] != RAW, kind[0] != RANDOM, kind[1] == FINETUNED))
    values = {kind: {n: _values(rows, kind, n) for n in budgets} for kind in kinds}
    head = ["backbone", "labels are used by", *(f"R2, {n:,} labels" for n in budgets)]
    means = {kind: {n: over_seeds(list(values[kind][n].values())) for n in budgets} for kind in kinds}
    table = [[*kind, *map(spread, means[kind].values())] for kind in kinds]
    said = conclusion(values, budgets)
    doubts = [f"{name} failed: {why.splitlines()[0]}" for name, why in found.failed.items()]
    if len(plan.all_seeds) < 3:
        doubts.append("Fewer than three seeds do not tell how much training varies.")
    notes = [*([f"labels: {plan.note}"] if plan.note else ()), *notes]
    series = {
        f"{who}, {way}" if way == FINETUNED else who: [(n, told.value, told.sd) for n, told in means[who, way].items()]
        for who, way in kinds
    }
    figure = band_lines(series, x="labelled chips", y="R2", log=len(budgets) > 1, baseline=RAW)
    caption = (
        "R2 of all targets together in the test part: mean over seeds, band one standard deviation either way. Probes: "
        f"ridge on frozen features, mean of {plan.repeats} orders in which chips are labelled."
    )
    summary = {
        "title": plan.title, "kind": plan.kind, "labels": budgets, "conclusion": said, "failed": found.failed,
        "rows": [row._asdict() for row in rows], "table": {"head": head, "rows": table}, "notes": list(notes),
    }  # fmt: skip
    found.summary = summary
    method = f"Pre-trained without labels: {', '.join(plan.methods)}; {len(plan.all_seeds)} seeds.\n" \
             f"- command: `covermap study run {loaded.source} OUT`"  # fmt: skip
    blocks = {
        "hypothesis": plan.hypothesis.strip() or "None was stated.", "method": method,
        "result": "\n".join([markdown(head, table), "", *(f"- {note}" for note in (*notes, *doubts))]),
        "conclusion": said,
    }  # fmt: skip
    found.files = [
        write_text(out / "rows.csv", csv_text(list(Row._fields), [list(row) for row in rows])),
        write_text(out / "study.json", json.dumps(plain(summary), indent=1) + "\n"),
        write_study_page(
            out / "report.html", plan.title, kind="covermap study: pretraining", sentence=said,
            sections=[Section("With how few labels", "", head, table, 2, figure, caption)], notes=notes, doubts=doubts,
            facts=[("Methods", str(len(plan.methods))), ("Seeds", str(len(plan.all_seeds)))],
        ),
        keep_log(out / "LOG.md", plan.title, blocks),
    ]  # fmt: skip


def _values(rows: Sequence[Row], kind: tuple[str, str], labels: int) -> dict[int, float]:
    return {row.seed: row.r2 for row in rows if (row.learner, row.way) == kind and row.labels == labels}


def conclusion(values: Mapping[tuple[str, str], Mapping[int, Mapping[int, float]]], budgets: Sequence[int]) -> str:
    """What is better than random weights and than raw statistics with the fewest labels, paired by seed."""
    least, said = budgets[0], []
    probes = [kind for kind in values if kind[1] == PROBE and kind[0] not in (RAW, RANDOM)]
    for other in (RANDOM, RAW):
        base = values.get((other, PROBE), {}).get(least, {})
        told = []
        for kind in probes:
            mine = values[kind][least]
            found = over_seeds([mine[seed] - base[seed] for seed in mine if seed in base])
            if found.value == found.value:
                span = f", {found.low:+.3f} to {found.high:+.3f}" if found.low == found.low else ", no interval"
                told.append(f"{kind[0]} {found.value:+.3f}{span}")
        if told:
            name = "random weights" if other == RANDOM else RAW
            said.append(f"Probed with {least} labels, against {name}: {'; '.join(told)}.")
    return " ".join(said) or "Nothing can be compared yet."
