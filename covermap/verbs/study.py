"""`study`: a plan of axes, levels and seeds becomes runs, tidy tables, one page and an experiment log.

    OUT/runs/CELL/     ordinary runs, each made in a process of its own      OUT/jobs/  what these processes are told
    OUT/cells.csv      cell, levels, seed, learner, class, score, value        OUT/steps.csv   the same by training step
    OUT/study.json     means, differences, failures   OUT/report.html   OUT/LOG.md   OUT/plan.json   the cells as begun

A finished cell is skipped, an interrupted one goes on, one that fails is recorded and the others go on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from covermap.core.config_file import parse_config, read_settings
from covermap.core.engine import cores, map_unordered, over_ray
from covermap.core.errors import ConfigError, OutputError, suggest
from covermap.core.output import at_work, replacing, write_text, writing
from covermap.core.parsing import read_json
from covermap.core.plan_file import KEPT, kept_plan
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.registry import find
from covermap.core.run import plain
from covermap.core.scored import shown_of
from covermap.core.study_plan import WRITE, Cell, Loaded, load_plan
from covermap.core.task import KINDS as TASKS
from covermap.core.train_config import ModelConfig
from covermap.geo.legend_files import csv_text
from covermap.nn.build import backbone_names, require_options
from covermap.nn.losses.expression import make_loss
from covermap.pretrained import with_pretrained
from covermap.report.study_page import write_study_page
from covermap.start import starting_weights
from covermap.verbs.study_kinds import KINDS, conclude, require_axes
from covermap.verbs.study_log import write_log
from covermap.verbs.study_merges import OWN, in_same_classes
from covermap.verbs.study_table import MINORITY, Finished, Table

StudyEngine = Literal["serial", "processes", "ray"]
OTHERS: Mapping[str, str] = {
    "label_budget": "covermap.verbs.label_budget:label_budget",
    "pretraining": "covermap.verbs.pretraining_study:pretraining_study",
}
"""Kinds that are no grid of runs: kind -> module:function, which takes and returns what `study` does."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RESULTS = ("cells.csv", "steps.csv", "cells.parquet", "study.json", "report.html")
_AT_WORK: set[subprocess.Popen[bytes]] = set()
_MEMORY = "the process of the cell was killed (signal {}): most often the machine ran out of memory"


@dataclass
class Study:
    """What was done. failed: {cell: message}. files: all that was written but the runs."""

    out: Path
    cells: list[str]
    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def study(
    plan: str | Path | Mapping[str, Any], out: str | Path, *, engine: StudyEngine = "serial",
    workers: int | None = None, overrides: Sequence[str] = (), dry_run: bool = False, overwrite: bool = False,
    say: Say = silent, on_progress: Tick = unseen,
) -> Study:  # fmt: skip
    """Run all cells of a plan (a file or its values) into `out`, and tell what they say; see the top of this file.

    workers: cells at work at once, with processes and ray; more than one have one thread each. overrides: `a.b=c`, of
    the plan, or of the config that all cells start from. Raises ConfigError for anything unknown in the plan before any
    run, OutputError where `out` holds runs of another plan.
    """
    options: dict[str, Any] = {"engine": engine, "workers": workers, "overrides": overrides, "overwrite": overwrite}
    read = plan if isinstance(plan, Mapping) else read_settings(Path(plan), what="plan", fix=WRITE)
    kind = read.get("kind", "grid")
    if not isinstance(kind, str) or kind not in (*KINDS, *OTHERS):
        raise ConfigError(f"there is no kind of study {kind!r}", fix=f"kinds: {', '.join([*KINDS, *OTHERS])}")
    if kind in OTHERS:
        module, _, name = OTHERS[kind].partition(":")
        other = getattr(import_module(module), name)
        return cast(Study, other(plan, out, **options, dry_run=dry_run, say=say, on_progress=on_progress))
    out = Path(out)
    loaded = load_plan(plan, out, overrides)
    require_parts(loaded)
    require_axes(loaded)
    scores = scores_of_plan(loaded)
    found = Study(out, [cell.name for cell in loaded.cells])
    _require_same_plan(loaded, out, overwrite=overwrite)
    if dry_run:
        found.skipped = [cell.name for cell in loaded.cells if is_finished(cell, loaded) and not overwrite]
        return found
    with at_work(out, alone=True):
        if overwrite:
            shutil.rmtree(out / "runs", ignore_errors=True)
            shutil.rmtree(out / "jobs", ignore_errors=True)
            for name in _RESULTS:
                (out / name).unlink(missing_ok=True)
        _keep_plan(loaded, out)
        jobs = {cell.name: _job(cell, loaded) for cell in loaded.cells}
        before = [cell.name for cell in loaded.cells if is_finished(cell, loaded)]
        work(jobs, found, before, engine, workers, say=say, on_progress=on_progress)
        write_results(loaded, scores, found)
    return found


def is_finished(cell: Cell, loaded: Loaded) -> bool:
    """Whether a cell has been trained and scored, also on regions that the plan has been given since."""
    path = cell.config.folder / "cell.json"
    if not path.is_file():
        return False
    done = read_json(path, fix="make it again: --overwrite").get("across", {})
    return all(name in done for name in _job(cell, loaded).get("across", {}))


def require_parts(loaded: Loaded) -> None:
    """Raise for a network, decoder, loss or published weights that a cell names and that are not there."""
    import torch

    seen = set()
    for cell in loaded.cells:
        model, train = cell.config.model, cell.config.train
        key = json.dumps([model.model_dump(mode="json"), train.loss, train.loss_options], default=str)
        if cell.forest or key in seen:
            continue
        seen.add(key)
        require_network(model)
        takes = TASKS[cell.config.task_section.name].takes
        weights = torch.ones(2) if takes in ("classes", "order") else None  # their number is the data's
        make_loss(cell.config.loss, train.loss_options, class_weights=weights)


def require_network(model: ModelConfig) -> None:
    """Raise for a backbone, decoder, option or published weights that are not there."""
    model = with_pretrained(model)
    names = backbone_names(model.backbone)
    for name in names:
        find("backbone", name)
        options = model.backbone_options if len(names) == 1 else model.backbone_options.get(str(name))
        require_options("backbone", name, options)
    find("decoder", model.decoder)
    require_options("decoder", model.decoder, model.decoder_options)
    starting_weights(model)


def scores_of_plan(loaded: Loaded) -> list[str]:
    """The scores that the plan names, or those of its task; raises ConfigError for one that is not measured."""
    tasks = {cell.config.task_section.name for cell in loaded.cells}
    if len(tasks) > 1:
        raise ConfigError(f"{loaded.source}: cells learn {', '.join(sorted(tasks))}", fix="give all one task")
    (task,) = tasks
    kind = TASKS[task]
    classes = kind.takes in ("classes", "order")
    known = [*kind.scores, *(row.key for row in shown_of({"task": task}).scores if row.form != "count"), "loss"]
    known += [MINORITY, "macro_recall", "macro_precision", "nll", "ece", "brier"] if classes else []
    for key in loaded.plan.scores:
        if key not in known:
            raise ConfigError(f"{loaded.source}: {key!r} is not measured in {task}", fix=suggest(key, known))
    return loaded.plan.scores or [*kind.scores[:3], *([MINORITY] if classes else [])]


def _require_same_plan(loaded: Loaded, out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with cells that the plan has no more, or has with other settings; new ones may be added."""
    kept = kept_plan(out, "cells")
    if overwrite or kept is None:
        return
    before = kept["cells"]
    sizes = [raw["config"]["data"]["gsd_m"] for raw in before.values()]
    ground = _finest_m(kept["plan"]["kind"], sizes)
    if ground != (mine := _finest_m(loaded.plan.kind, [cell.config.data.gsd_m for cell in loaded.cells])):
        told = [f"that of pixels of {size:g} m" if size else "each cell's own" for size in (ground, mine)]
        raise OutputError(
            f"{out}: its cells are tested on other ground ({told[0]}) than this plan's ({told[1]})",
            fix="give another folder, or --overwrite to start again",
        )
    now = {cell.name: cell for cell in loaded.cells}
    fix = "give another folder, or --overwrite to start again; cells may be added"
    if gone := [name for name in before if name not in now]:
        raise OutputError(
            f"{out} was begun with a plan of {len(gone)} cells that are not in this one: {', '.join(gone[:3])}", fix=fix
        )
    for name, raw in before.items():
        cell = now[name]
        if raw["forest"] != cell.forest or _fingerprint(parse_config(raw["config"])) != _fingerprint(cell.config):
            raise OutputError(f"{out}: cell {name} was begun with other settings", fix=fix)


def _finest_m(kind: str, sizes: Sequence[float | None]) -> float | None:
    """The pixel size, m, whose ground all cells of kind gsd are tested on; None of other kinds."""
    return min((size for size in sizes if size), default=None) if kind == "gsd" else None


def _fingerprint(config: Any) -> dict[str, Any]:
    raw: dict[str, Any] = config.model_dump(mode="json")
    return {key: value for key, value in raw.items() if key not in ("output", "predict")}


def _keep_plan(loaded: Loaded, out: Path) -> None:
    kept = {cell.name: {"forest": cell.forest, "config": cell.config.model_dump(mode="json")} for cell in loaded.cells}
    raw = loaded.plan.model_dump(mode="json")
    write_text(out / KEPT, json.dumps({"plan": raw, "cells": kept}, indent=1) + "\n")


def work(
    jobs: Mapping[str, Mapping[str, Any]], found: Study, before: Sequence[str], engine: StudyEngine,
    workers: int | None, *, say: Say, on_progress: Tick,
) -> None:  # fmt: skip
    """Do all jobs, {cell: what its process is told}, but those that were done before; tells `found` which."""
    todo = {name: job for name, job in jobs.items() if name not in before}
    found.skipped += before
    if before:
        say(f"{len(before)} of {len(jobs)} cells are finished already")
    folder = found.out / "jobs"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if engine == "processes":
        workers = workers or cores()
    single = engine == "serial" or workers == 1
    paths = []
    for cell, job in todo.items():
        paths.append(str(folder / f"{cell}.json"))
        Path(paths[-1]).with_suffix(".failed.json").unlink(missing_ok=True)
        write_text(paths[-1], json.dumps({**job, "threads": 0 if single else 1}) + "\n")
    done, total = len(before), len(jobs)
    for path, code in _results(engine, workers, paths):
        name = Path(path).stem
        if code == 3:
            raise KeyboardInterrupt
        if code == 0:
            found.finished.append(name)
        else:
            found.failed[name] = why(Path(path), code)
        done += 1
        say(f"{done}/{total} {name}: {found.failed.get(name, 'done').splitlines()[0]}")
        on_progress(done, total)


def _job(cell: Cell, loaded: Loaded) -> dict[str, Any]:
    """What the process of a cell is told."""
    job: dict[str, Any] = {"config": cell.config.model_dump(mode="json"), "forest": cell.forest}
    kind = loaded.plan.kind
    if kind == "gsd":
        fine = min(_mates(cell, loaded), key=lambda each: each.config.data.gsd_m or 0)
        if fine.config.data.gsd_m != cell.config.data.gsd_m:
            job["fine"] = fine.config.model_dump(mode="json")
    if kind == "losses" and not cell.forest:
        job["tradeoff"] = True
    if kind == "cross_region":
        axis = next(iter(loaded.axes))
        same = {key: level for key, level in cell.levels.items() if key != axis}
        job["across"] = {
            other.levels[axis]: other.config.model_dump(mode="json")
            for other in loaded.cells
            if other.seed == cell.seed and other.levels[axis] != cell.levels[axis]
            and same == {key: level for key, level in other.levels.items() if key != axis}
        }  # fmt: skip
    return job


def _mates(cell: Cell, loaded: Loaded) -> list[Cell]:
    """The cells that differ from one in the levels that set the pixel size alone."""
    sizes = {axis for axis, levels in loaded.axes.items() if any("data.gsd_m" in told for told in levels.values())}
    same = {axis: level for axis, level in cell.levels.items() if axis not in sizes}
    return [c for c in loaded.cells if c.seed == cell.seed and all(c.levels[a] == same[a] for a in same)]


def _results(engine: StudyEngine, workers: int | None, paths: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(job, exit code) of each, as they finish."""
    if engine == "ray":
        yield from over_ray(in_own_process, paths, workers=workers)
        return
    at_once = 1 if engine == "serial" else workers or 1
    # A thread for each process: it only waits.
    yield from map_unordered(lambda path: (path, in_own_process(path)), paths, workers=at_once, stop=_stop)


def in_own_process(path: str) -> int:
    """Do a job in a process of its own, whose memory is the cell's alone; its words go to a file beside the job."""
    threads = read_json(Path(path), fix="make it again: --overwrite")["threads"]
    environment = os.environ | (dict.fromkeys(_THREADS, str(threads)) if threads else {})
    command = [sys.executable, "-m", "covermap.verbs.study_cell", path]
    with (
        open(Path(path).with_suffix(".log"), "w", encoding="utf-8") as log,
        # Its input is a pipe that ends with this process, even a killed one, and the cell with it.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        _AT_WORK.add(process)
        try:
            return process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        finally:
            _AT_WORK.discard(process)


def _stop() -> None:
    """Tell all processes at work to stop, as Ctrl-C does; they go on with the next call."""
    for process in list(_AT_WORK):
        process.send_signal(signal.SIGINT)


def why(path: Path, code: int) -> str:
    """The message of a job that failed."""
    told = path.with_suffix(".failed.json")
    if code > 0 and told.is_file():
        return str(read_json(told, fix="make it again: --overwrite")["message"])
    return _MEMORY.format(-code) if code < 0 else f"exit code {code}: see {path.with_suffix('.log')}"


def write_results(loaded: Loaded, scores: list[str], found: Study) -> None:
    """All tables, the page and the log, of the cells that are finished."""
    done = [one for one in map(Finished.of, loaded.cells) if one is not None]
    out, written = found.out, []
    if not done:
        return
    if loaded.plan.kind == "merges":
        done, scores = in_same_classes(loaded, done), [*scores, OWN]
    table = Table(loaded, done, scores)
    for name, rows in (("cells.csv", table.rows), ("steps.csv", table.steps)):
        if rows:
            head = list(rows[0])
            written.append(write_text(out / name, csv_text(head, [[row[key] for key in head] for row in rows])))
    if find_spec("pyarrow") is not None:
        written.append(_write_parquet(out / "cells.parquet", table.rows))
    notes, doubts = _notes(table), _doubts(table, found)
    found.summary = {
        "title": loaded.plan.title, "kind": loaded.plan.kind, "scores": scores, "against": loaded.against,
        "conclusion": conclude(table), "failed": found.failed, "means": table.means(),
        "differences": [dict(zip(table.axes, row["levels"], strict=True)) | row for row in table.differences],
        "notes": notes + doubts,
    }  # fmt: skip
    written.append(write_text(out / "study.json", json.dumps(plain(found.summary), indent=1) + "\n"))
    page = write_study_page(
        out / "report.html", loaded.plan.title, kind=f"covermap study: {loaded.plan.kind}",
        sentence=conclude(table), sections=KINDS[loaded.plan.kind](table), notes=notes, doubts=doubts,
        facts=_facts(table), settings=yaml.safe_dump(loaded.plan.model_dump(mode="json"), sort_keys=False),
    )  # fmt: skip
    log = write_log(out / "LOG.md", table, len(found.failed), doubts)
    found.files = [*written, page, log]


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    columns["value"] = [float(value) for value in columns["value"]]
    with replacing(path) as partial:
        parquet.write_table(arrow.table(columns), partial)
    return path


def _facts(table: Table) -> list[tuple[str, str]]:
    seconds = sum(row["value"] for row in table.rows if row["score"] in ("train_seconds", "test_seconds"))
    return [
        ("Runs", f"{len(table.done)} of {len(table.loaded.cells)}"),
        ("Seeds", str(len(table.loaded.plan.all_seeds))),
        ("Training and scoring", f"{seconds:,.0f} s"),
        ("Against", ", ".join(f"{axis} {level}" for axis, level in table.loaded.against.items())),
    ]


def _notes(table: Table) -> list[str]:
    """How to read the numbers."""
    found = ["▲ and ▼: the 95 % interval over seeds (of one seed: over blocks of ground) does not hold 0."]
    pairs = sum(row["score"] == table.main for row in table.differences)
    if pairs > 4:
        found.append(f"{pairs} differences: about one in twenty intervals misses 0 by chance alone.")
    if table.loaded.plan.resample:
        found.append("Each seed draws its own share of the labels; val and test are the same in all runs.")
    if MINORITY in table.scores:
        found.append(f"{MINORITY}: recall of the class with the fewest labelled pixels (chips) of the test part.")
    found.append("Memory is the peak of a run's own process until training ends; times include validation.")
    return found


def _doubts(table: Table, found: Study) -> list[str]:
    """What speaks against believing the comparison."""
    said = [f"{name} failed: {message.splitlines()[0]}" for name, message in found.failed.items()]
    steps = {row["value"] for row in table.rows if row["score"] == "steps"}
    if len(steps) > 1:
        said.append(
            f"Runs had from {min(steps):,} to {max(steps):,} training steps: train.steps_per_epoch gives all as many."
        )
    if len(table.loaded.plan.all_seeds) < 3:
        said.append("Fewer than three seeds do not tell how much training varies.")
    return said
