"""`probe`: what simple models learn from embeddings, with how many labels, and how far it carries.

    embeddings -> labelled chips -> train and test by blocks of ground -> an order of the train chips for each repeat
    -> probes on the first n of it, for all budgets n -> scores on the test chips of every area -> OUT/scores.parquet

Budgets of a repeat lie inside each other, and repeats are the same for all probes and encoders: differences are paired.
With areas each one is learnt from, and all others together (`elsewhere`), and scored in all; ridge is scored from
moments of the test chips. Jobs are some repeats of one area each; what is done stands in OUT/parts, and a stopped probe
goes on. The same bytes whatever the number of workers.

    OUT/scores.parquet   a row for area, test area, probe, n, repeat and target
    OUT/scores.csv       their means and deviations over repeats       OUT/probe.json   settings
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from covermap.core.engine import cores, over_processes
from covermap.core.errors import ConfigError, DataError, OutputError
from covermap.core.output import replacing, write_text, writing
from covermap.core.parsing import read_json
from covermap.core.progress import Tick, unseen
from covermap.core.run import checksum, plain
from covermap.data.embeddings import Embeddings, parquet
from covermap.data.labelled_chips import TEST, TRAIN, Areas, Kind, LabelledChips
from covermap.geo.legend_files import csv_text
from covermap.metrics.regression import with_all_targets
from covermap.ml.probes import PREQUENTIAL, Fitted, fit_probe, require_probe
from covermap.ml.ridge import Floats, Linear, RidgePath, near_as_many_samples, prequential_errors
from covermap.ml.ridge_bank import SCORES, Moments, Pool, one_thread

ELSEWHERE = "elsewhere"
"""All areas but the one that is scored."""
ALL_TARGETS = "all"
_PREQUENTIAL = 4000
"""Chips of a prequential curve, at most: its work rises with the cube of them."""
_AT_ONCE = 5
"""Repeats in a job."""
Penalty = Literal["loo", "once"] | float


@dataclass(frozen=True)
class ProbeSettings:
    """What is asked. budgets: numbers of labelled chips; default 25, 50, 100 ... and all. repeats: orders of the train
    chips. share, block, folds: how test chips are held out (data.labelled_chips). penalty of ridge: loo, of each target
    and budget; once, of all budgets by the largest (and of some repeats, where these share their test chips), and a
    number: for all, which banks of fits make fast.
    """

    probes: tuple[str, ...] = ("constant", "raw", "knn", "ridge")
    target: Kind = "auto"
    areas: Areas = "none"
    budgets: tuple[int, ...] | None = None
    repeats: int = 5
    share: float = 0.3
    block: int = 4
    folds: int | None = None
    penalty: Penalty = "loo"
    seed: int = 0


@dataclass
class Probed:
    """What was found: where it stands, rows of means and deviations over repeats, and notes."""

    out: Path
    num_chips: int
    dimensions: int
    targets: tuple[str, ...]
    areas: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_fits: int = 0
    num_undefined: int = 0


@dataclass(frozen=True)
class _Job:
    """Repeats (first, last] of one area; out: of its rows."""

    paths: tuple[str, ...]
    settings: ProbeSettings
    area: str
    repeats: tuple[int, int]
    out: Path


def probe(
    paths: Sequence[str | Path], out: str | Path, settings: ProbeSettings | None = None, *, workers: int | None = None,
    overwrite: bool = False, on_progress: Tick = unseen,
) -> Probed:  # fmt: skip
    """Probe the embeddings of files by one encoder; raises DataError, ConfigError, OutputError, MissingExtra.

    A folder with a probe of the same settings goes on; of others it is refused, or replaced with overwrite.
    """
    settings, out = settings or ProbeSettings(), Path(out)
    chips = _chips(tuple(map(str, paths)), settings)
    settings, notes = _fitting(settings, chips)
    _claim(out, paths, settings, overwrite=overwrite)
    jobs = list(_jobs(tuple(map(str, paths)), settings, chips, out / "parts"))
    open_ = [job for job in jobs if not job.out.exists()]
    done = len(jobs) - len(open_)
    on_progress(done, len(jobs))
    workers = min(workers or cores(), max(1, len(open_)))
    if workers == 1:
        worked: Iterator[Any] = map(_work, open_)
    else:
        worked = over_processes(_work, open_, workers=workers)
    for number, _ in enumerate(worked, done + 1):
        on_progress(number, len(jobs))
    tables = [parquet().read_table(job.out) for job in jobs]
    found = Probed(out, len(chips), chips.values.shape[1], chips.names, chips.areas, notes=[*chips.notes, *notes])
    _finish(found, tables)
    return found


def _chips(paths: tuple[str, ...], settings: ProbeSettings) -> LabelledChips:
    known = [path.stat() for path in map(Path, paths) if path.exists()]  # files that were made anew are read anew
    return _opened(paths, settings.target, settings.areas, tuple((one.st_mtime_ns, one.st_size) for one in known))


@lru_cache(maxsize=2)
def _opened(
    paths: tuple[str, ...], target: Kind, areas: Areas, state: tuple[tuple[int, int], ...]
) -> LabelledChips:  # fmt: skip
    return LabelledChips.of(Embeddings.read_all(paths), target=target, areas=areas)


def _roles(chips: LabelledChips, settings: ProbeSettings, repeat: int) -> npt.NDArray[np.intp]:
    fold = repeat % settings.folds if settings.folds else 0
    seed = settings.seed + (repeat // settings.folds if settings.folds else 0)
    return chips.roles(share=settings.share, block=settings.block, seed=seed, folds=settings.folds, fold=fold)


def _fitting(settings: ProbeSettings, chips: LabelledChips) -> tuple[ProbeSettings, list[str]]:
    """Settings with what the chips decide; raises ConfigError, DataError."""
    notes = []
    for name in settings.probes:
        require_probe(name, classes=chips.classes)
    if "raw" in settings.probes and (chips.raw is None or not np.isfinite(chips.raw).all()):
        lacking = "have no raw statistics beside them" if chips.raw is None else "lack raw statistics of some sensors"
        notes.append(f"the embeddings {lacking}: the baseline raw is left out")
        settings = _with(settings, probes=tuple(name for name in settings.probes if name != "raw"))
    if settings.seed < 0:
        raise ConfigError(f"seed {settings.seed} is below 0", fix="give 0 or more")
    if not settings.probes or settings.repeats < 1 or not 0 < settings.share < 1:
        raise ConfigError("a probe needs a model, a repeat, and a held-out share between 0 and 1", fix="see --help")
    if chips.classes and settings.penalty != "loo":
        raise ConfigError("--penalty goes with numbers, the targets are classes", fix="leave it out")
    if chips.given is not None:
        if (settings.share, settings.block, settings.folds) != (ProbeSettings.share, ProbeSettings.block, None):
            raise ConfigError(
                "the embeddings have a test part of their own, which is held out: a share, blocks or folds have no "
                "effect", fix="leave --share, --block and --folds out, or embed with --set split.test=0",
            )  # fmt: skip
        notes.append(f"scored on the {int((chips.given == TEST).sum()):,} chips of the split's own test part")
    pools = _pools(chips, _roles(chips, settings, 0), settings)
    least = min(len(of) for of in pools.values())
    most = max(len(of) for of in pools.values())
    if least < 2:
        name = next(name for name, of in pools.items() if len(of) < 2)
        raise DataError(f"{name} has {least} chips to learn from", fix="label more, or give smaller blocks (--block)")
    if settings.budgets is None:
        doubled = [n for n in (25 * 2**i for i in range(20)) if n < most]
        settings = _with(settings, budgets=tuple(doubled or [most]))
    budgets = sorted(set(settings.budgets or ()))
    if not budgets or budgets[0] < 2 or budgets[0] > most:
        raise ConfigError(
            f"budgets {', '.join(map(str, budgets))} do not fit the {most:,} chips there are to learn from",
            fix="give numbers of chips from 2 on, such as --budgets 25,50,100",
        )
    if large := [f"{n:,}" for n in budgets if n > most]:
        notes.append(f"budgets {', '.join(large)} are left out: there are {most:,} chips to learn from")
    d = chips.values.shape[1]
    worst = [n for n in budgets if near_as_many_samples(n, d)] if "ols" in settings.probes else []
    if worst:
        notes.append(
            f"ols with {', '.join(map(str, worst))} chips of {d} features: least squares without a penalty is at its "
            "worst where both are alike, and says nothing about the embeddings"
        )
    return _with(settings, budgets=tuple(budgets)), notes


def _with(settings: ProbeSettings, **changes: Any) -> ProbeSettings:
    return ProbeSettings(**(asdict(settings) | changes))


def _pools(
    chips: LabelledChips, roles: npt.NDArray[np.intp], settings: ProbeSettings
) -> dict[str, npt.NDArray[np.intp]]:
    """The chips that each area may learn from; `elsewhere of NAME` those of all others."""
    train = roles == TRAIN
    found = {name: np.flatnonzero(train & (chips.area == i)) for i, name in enumerate(chips.areas)}
    if settings.areas != "none":
        for i, name in enumerate(chips.areas):
            # All chips elsewhere, but those that touch what is scored: scenes may share ground.
            scored = (roles == TEST) & (chips.area == i)
            found[f"{ELSEWHERE} of {name}"] = np.flatnonzero((chips.area != i) & ~chips.beside(scored))
    return found


def _claim(out: Path, paths: Sequence[str | Path], settings: ProbeSettings, *, overwrite: bool) -> None:
    """Make the folder, or go on with one of the same settings and embeddings."""
    facts = plain({"embeddings": {str(path): checksum(path) for path in paths}, "settings": asdict(settings)})
    kept = out / "probe.json"
    if kept.exists() and not overwrite:
        before = read_json(kept, fix="make it again: --overwrite")
        if {key: before.get(key) for key in facts} != facts:
            raise OutputError(
                f"{out} holds a probe with other settings or embeddings", fix="name another folder, or --overwrite"
            )
        return
    if out.exists() and not kept.exists() and (out.is_file() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is no probe", fix="name a new folder")
    with writing(out):
        shutil.rmtree(out / "parts", ignore_errors=True)
        (out / "parts").mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps(facts, indent=2) + "\n")


def _jobs(paths: tuple[str, ...], settings: ProbeSettings, chips: LabelledChips, folder: Path) -> Iterator[_Job]:
    names = list(_pools(chips, _roles(chips, settings, 0), settings))
    for number, area in enumerate(names):
        for first in range(0, settings.repeats, _AT_ONCE):
            last = min(settings.repeats, first + _AT_ONCE)
            yield _Job(paths, settings, area, (first, last), folder / f"{number:03d}_{first:05d}.parquet")


def _work(job: _Job) -> None:
    """Do a job and write its rows, whole or not at all."""
    import pyarrow

    chips, settings = _chips(job.paths, job.settings), job.settings
    rows: dict[str, list[Any]] = {}
    kept: dict[object, Moments] = {}
    with one_thread():
        penalty = None
        for repeat in range(*job.repeats):
            area = _Area.of(chips, settings, job.area, repeat)
            if settings.folds:  # other test chips, which may not have a say in the penalty
                penalty = None
                kept.clear()
            if settings.penalty != "loo" and penalty is None:
                penalty = _one_penalty(area, settings)
            for row in _repeat(area, settings, penalty, kept):
                for key, values in row.items():
                    rows.setdefault(key, []).append(values)
    columns = {key: np.concatenate([np.atleast_1d(v) for v in values]) for key, values in rows.items()}
    with replacing(job.out) as partial:
        parquet().write_table(pyarrow.table(columns), partial)


@dataclass(frozen=True)
class _Area:
    """One repeat of an area: the order of its train chips, and the test chips of each area that is scored."""

    chips: LabelledChips
    name: str
    repeat: int
    order: npt.NDArray[np.intp]
    tests: Mapping[str, npt.NDArray[np.intp]]

    @staticmethod
    def of(chips: LabelledChips, settings: ProbeSettings, name: str, repeat: int) -> _Area:
        roles = _roles(chips, settings, repeat)
        pool = _pools(chips, roles, settings)[name]
        # Of the name, not of its number: the same order whatever other areas there are.
        word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        order = pool[np.random.default_rng([settings.seed, repeat, word]).permutation(len(pool))]
        tests = {
            area: np.flatnonzero((roles == TEST) & (chips.area == i)) for i, area in enumerate(chips.areas)
            if not name.startswith(f"{ELSEWHERE} of ") or name == f"{ELSEWHERE} of {area}"
        }  # fmt: skip
        return _Area(chips, name, repeat, order, tests)


def _budgets(area: _Area, settings: ProbeSettings) -> list[int]:
    """Those that the area holds, and all there is."""
    return sorted({*(n for n in settings.budgets or () if n < len(area.order)), len(area.order)})


def _one_penalty(area: _Area, settings: ProbeSettings) -> float:
    """The penalty of all fits of an area."""
    if not isinstance(settings.penalty, str):
        return float(settings.penalty)
    of = area.order[: min(len(area.order), 2000)]
    return float(np.median(RidgePath.of(area.chips.values[of], area.chips.targets[of]).choose()))


def _repeat(
    area: _Area, settings: ProbeSettings, penalty: float | None, kept: dict[object, Moments]
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Columns of rows for all probes and budgets of one repeat; kept: moments of test chips that others have too."""
    chips, budgets = area.chips, _budgets(area, settings)
    for name in settings.probes:
        values = chips.raw if name == "raw" else chips.values
        assert values is not None
        if chips.classes:
            for n in budgets:
                yield from _classes(area, name, values, n, settings.seed)
            continue
        if name == PREQUENTIAL:
            yield from _prequential(area, settings, budgets, penalty)
            continue
        moments = {}
        for test, of in area.tests.items():
            key = name == "raw", test, of.tobytes()
            if key not in kept and len(of):
                kept[key] = Moments.of(values[of], chips.targets[of])
            if len(of):
                moments[test] = kept[key]
        if name == "ridge" and penalty is not None:
            pool = Pool.of(values[area.order], chips.targets[area.order])
            fits = pool.fit(np.arange(len(area.order)), budgets, penalty)
            for n, weights, intercepts in zip(budgets, fits.weights, fits.intercepts, strict=True):
                line = Linear(weights, intercepts)
                yield from _linear(area, name, n, line, np.full(len(intercepts), penalty), moments)
            continue
        for n in budgets:
            of = area.order[:n]
            if name == "ridge":
                path = RidgePath.of(values[of], chips.targets[of])
                penalties = path.choose()
                yield from _linear(area, name, n, path.fit(penalties), penalties, moments)
            else:
                fitted = fit_probe(name, values[of], chips.targets[of], seed=settings.seed)
                yield from _numbers(area, fitted, n, values, moments)


def _prequential(
    area: _Area, settings: ProbeSettings, budgets: Sequence[int], penalty: float | None
) -> Iterator[dict[str, Any]]:
    """Chips between two budgets told from all before them, of an area that is learnt from; n: the larger budget."""
    if area.name.startswith(f"{ELSEWHERE} of "):
        return
    of = area.order[:_PREQUENTIAL]
    values, targets = area.chips.values[of], np.asarray(area.chips.targets[of], np.float64)
    penalty = _one_penalty(area, settings) if penalty is None else penalty
    told = targets - prequential_errors(values, targets, penalty)
    count = targets.shape[1]
    for low, n in zip((0, *budgets), budgets, strict=False):
        if low + 1 < n <= len(of):
            known = Moments.of(told[low:n], targets[low:n])
            scores = known.scores(np.eye(count), np.zeros(count))
            yield _row(area, PREQUENTIAL, n, area.name, np.full(count, penalty), scores, known)


def _linear(
    area: _Area, name: str, n: int, fit: Linear, penalties: Floats, moments: Mapping[str, Moments]
) -> Iterator[dict[str, Any]]:
    for test, known in moments.items():
        yield _row(area, name, n, test, penalties, known.scores(*fit), known)


def _numbers(
    area: _Area, fitted: Fitted, n: int, values: npt.NDArray[Any], moments: Mapping[str, Moments]
) -> Iterator[dict[str, Any]]:
    count = area.chips.targets.shape[1]
    penalties = np.full(count, np.nan) if fitted.penalties is None else fitted.penalties
    for test, known in moments.items():
        of = area.tests[test]
        # The answers are the values of a fit that leaves them as they are: one definition of scores serves all.
        answers = Moments.of(fitted.answers(values[of]), area.chips.targets[of])
        yield _row(area, fitted.name, n, test, penalties, answers.scores(np.eye(count), np.zeros(count)), known)


def _row(
    area: _Area, name: str, n: int, test: str, penalties: Floats, scores: Mapping[str, Floats], known: Moments
) -> dict[str, Any]:
    """Columns of the rows of one fit on one area: all targets, then each."""
    together = with_all_targets(scores, known.targets_square, known.count)
    count = len(penalties) + 1
    return {
        "area": np.repeat(area.name, count), "test": np.repeat(test, count), "probe": np.repeat(name, count),
        "n": np.full(count, n, np.int32), "repeat": np.full(count, area.repeat, np.int32),
        "target": np.array([ALL_TARGETS, *area.chips.names]), "penalty": np.concatenate([[np.nan], penalties]),
        **{key: together[key] for key in SCORES},
    }  # fmt: skip


def _classes(area: _Area, name: str, values: npt.NDArray[Any], n: int, seed: int) -> Iterator[dict[str, Any]]:
    chips, of = area.chips, area.order[:n]
    k = chips.num_classes or 0
    one = len(np.unique(chips.targets[of])) < 2  # nothing to tell apart: what a constant says
    fitted = fit_probe("constant" if one else name, values[of], chips.targets[of], num_classes=k, seed=seed)
    for test, rows in area.tests.items():
        told, true = fitted.answers(values[rows]).argmax(1), chips.targets[rows]
        table = np.bincount(true * k + told, minlength=k * k).reshape(k, k)
        seen = table.sum(0) + table.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = 2 * np.diag(table) / seen
        scores = {
            "accuracy": np.trace(table) / max(1, table.sum()),
            "macro_f1": float(np.nanmean(f1[table.sum(1) > 0])) if table.sum() else np.nan,
        }
        yield {
            "area": np.array([area.name]), "test": np.array([test]), "probe": np.array([name]),
            "n": np.array([n], np.int32), "repeat": np.array([area.repeat], np.int32),
            "target": np.array([ALL_TARGETS]), **{key: np.array([value]) for key, value in scores.items()},
        }  # fmt: skip


def _finish(found: Probed, tables: Sequence[Any]) -> None:
    """Write all rows as one file, and their means over repeats."""
    import pyarrow.compute

    table = pyarrow.concat_tables(tables)
    with replacing(found.out / "scores.parquet") as partial:
        parquet().write_table(table, partial, compression="zstd")
    scores = [key for key in table.column_names if key in (*SCORES, "accuracy", "macro_f1")]
    keys = ["area", "test", "probe", "n", "target"]
    spreads = [(score, kind) for score in scores for kind in ("mean", "stddev", "count")]
    options = pyarrow.compute.VarianceOptions(ddof=1)
    known = table
    for score in scores:  # NaN says that a score is undefined: it is counted, not averaged
        column = pyarrow.compute.if_else(pyarrow.compute.is_nan(table[score]), None, table[score])
        known = known.set_column(known.schema.get_field_index(score), score, column)
    asked = [(score, kind, options) if kind == "stddev" else (score, kind) for score, kind in spreads]
    grouped = known.group_by(keys, use_threads=False).aggregate(asked)
    orders = [{name: i for i, name in enumerate(dict.fromkeys(table[key].to_pylist()))} for key in keys]
    found.rows = sorted(
        grouped.to_pylist(),
        key=lambda row: [row[key] if key == "n" else at[row[key]] for key, at in zip(keys, orders, strict=True)],
    )
    head = [*keys, *(f"{score}_{kind}" for score, kind in spreads)]
    write_text(found.out / "scores.csv", csv_text(head, [[row[key] for key in head] for row in found.rows]))
    each = table["target"].to_numpy(zero_copy_only=False) != ALL_TARGETS if "r" in scores else None
    found.num_fits = int(each.sum()) if each is not None else table.num_rows
    if each is not None:
        told = table["probe"].to_numpy(zero_copy_only=False) != "constant"  # whose answers never vary
        found.num_undefined = int(np.isnan(table["r"].to_numpy()[each & told]).sum())
