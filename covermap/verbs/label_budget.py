"""Label budgets: train elsewhere or label here, with which encoder, and how many?

    plan -> each encoder: embed -> probe (each area, and all others together, scored in each area) -> curves of scores
    by number of labels -> where labels here begin to be worth more than all elsewhere, and where more bring little

    OUT/embeddings/ENCODER.parquet   OUT/probes/ENCODER/scores.parquet   OUT/label_budget.csv   OUT/study.json
    OUT/report.html   OUT/LOG.md

A study of the kind `label_budget` (verbs/study.py); the same call goes on where it was stopped.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError, CovermapError, DataError, OutputError
from covermap.core.label_budget_plan import LabelBudget, load_label_budget
from covermap.core.output import at_work, write_text, writing
from covermap.core.plan_file import KEPT, kept_plan
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import plain
from covermap.data.embeddings import parquet
from covermap.data.scene import open_scenes
from covermap.geo.legend_files import csv_text
from covermap.metrics.intervals import over_seeds
from covermap.metrics.label_budget import Floats, Labels, break_even, enough
from covermap.report.study_figures import band_lines, level_heat
from covermap.report.study_page import Section, write_study_page
from covermap.verbs.embed import EmbedSettings, embed
from covermap.verbs.ledger import state_of
from covermap.verbs.probe import ALL_TARGETS, ELSEWHERE, ProbeSettings, probe
from covermap.verbs.study import Study, require_network
from covermap.verbs.study_log import keep_log, markdown

BASELINES = ("raw", "constant")
"""Probes that no encoder has a part in: those of the first count."""
_HEAD = ["encoder", "probe", "elsewhere", "labels elsewhere", "break-even", "low", "high", "recommended", "low", "high"]


@dataclass(frozen=True)
class Curve:
    """One learner: scores here (areas, repeats, budgets) and of all elsewhere (areas, repeats); what they say."""

    name: str
    encoder: str
    probe: str
    here: Floats
    elsewhere: Floats
    labels_elsewhere: int
    pays: Labels
    enough: Labels

    def mean(self, budget: int) -> float:
        """Score here with the budget of that number, all areas and repeats."""
        return float(_mean(self.here[:, :, budget]))

    def spread(self, budget: int) -> float:
        """Standard deviation over repeats of the mean over areas."""
        repeats = _mean(self.here[:, :, budget], 0)
        known = repeats[np.isfinite(repeats)]
        return float(known.std(ddof=1)) if len(known) > 1 else np.nan

    @property
    def transfer(self) -> float:
        """Score of what was learnt elsewhere."""
        return float(_mean(self.elsewhere))


def label_budget(
    plan: str | Path | Mapping[str, Any], out: str | Path, *, engine: str = "serial", workers: int | None = None,
    overrides: Sequence[str] = (), overwrite: bool = False, dry_run: bool = False, say: Say = silent,
    on_progress: Tick = unseen,
) -> Study:  # fmt: skip
    """Run a plan, whose cells are its encoders; workers: of probes.

    Raises ConfigError, OutputError; an encoder that fails is recorded and the others go on.
    """
    if engine == "ray":
        raise ConfigError("studies of label budgets run on one machine", fix="leave --engine ray out")
    loaded, out = load_label_budget(plan, overrides), Path(out)
    paths = {name: out / "embeddings" / f"{_file(name)}.parquet" for name in loaded.configs}
    if len(set(paths.values())) < len(paths):
        raise ConfigError(f"{loaded.source}: two encoders have one file name", fix="give them other names")
    for config in loaded.configs.values():
        require_network(config.model)
    _require_same(loaded, out, overwrite=overwrite)
    before = [name for name, path in paths.items() if path.exists() and not overwrite]
    study = Study(out, [*paths], skipped=before)
    if dry_run:
        return study
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with at_work(out, alone=True):
        _begin(loaded, out, overwrite=overwrite)
        return _work(loaded, study, paths, workers, say, on_progress)


def _work(
    loaded: LabelBudget, study: Study, paths: Mapping[str, Path], workers: int | None, say: Say, on_progress: Tick
) -> Study:  # fmt: skip
    """Embed and probe each encoder, and write what that tells."""
    out, before = study.out, study.skipped
    notes, curves, areas = list[str](), list[Curve](), tuple[str, ...]()
    matrix: dict[str, dict[tuple[str, str], tuple[float, float]]] = {}
    count, undefined, fix = 0, 0, ""
    for number, (name, config) in enumerate(loaded.configs.items()):
        on_progress(number, len(paths))
        try:
            if name in before:
                _require_fresh(config, paths[name])
            else:
                say(f"embedding with {name}")
                settings = EmbedSettings(size_px=loaded.plan.size_px)
                made = embed(config, paths[name], settings=settings)
                notes += [f"{name}: {note}" for note in made.notes]
            say(f"probing {name}")
            asked = _asked(loaded, ("ridge", "knn", *BASELINES))
            found = probe([paths[name]], out / "probes" / _file(name), asked, workers=workers)
            own, told = _curves(loaded, name, found.out / "scores.parquet", found.areas)
            if curves:
                notes += _compared(name, paths, (found.areas, own[0].here.shape), curves[0], areas)
                own = [curve for curve in own if curve.probe not in BASELINES]
            count, undefined = count + found.num_fits, undefined + found.num_undefined
            notes += [note for note in found.notes if note not in notes]
            curves, areas, matrix[name] = curves + own, found.areas, told
        except CovermapError as error:
            study.failed[name], fix = error.message, error.fix
            say(f"{name} failed: {error.message}")
    on_progress(len(paths), len(paths))
    if not curves:
        why = next(iter(study.failed.values()))
        raise DataError(
            f"no encoder of {loaded.source} could be probed: {why}", fix=fix or "mend the plan, and run it again"
        )
    if short := loaded.plan.budgets[curves[0].here.shape[2] :]:
        notes.append(f"not every area has chips for budgets of {', '.join(map(str, short))}: they are left out")
    if undefined:
        notes.append(
            f"{undefined:,} of {count:,} correlations are undefined: the class is constant where it is learnt or scored"
        )
    if loaded.plan.labels:
        notes.insert(0, f"labels: {loaded.plan.labels}")
    study.finished = [name for name in paths if name not in study.failed and name not in before]
    study.summary = _summary(loaded, curves, count, undefined, notes, study.failed)
    study.files = _write(loaded, out, curves, matrix, study.summary)
    return study


def _begin(loaded: LabelBudget, out: Path, *, overwrite: bool) -> None:
    """Make the folder, and keep the plan."""
    with writing(out):
        for folder in ("embeddings", "probes") if overwrite else ():
            # Before the plan is written: what is left of another one is not gone on with when this call is stopped.
            shutil.rmtree(out / folder, ignore_errors=True)
        (out / "embeddings").mkdir(parents=True, exist_ok=True)
    write_text(out / KEPT, _fingerprint(loaded))


def _require_fresh(config: RunConfig, path: Path) -> None:
    """Raise DataError for embeddings that are older than what they were made of."""
    made_at = path.stat().st_mtime_ns
    files = [file for scene in open_scenes(config.data) for file in scene.files]
    if newer := [file for file, _, changed in state_of(files) if changed > made_at]:
        raise DataError(f"{newer[0]} has changed since {path} was made", fix=f"remove {path}, or --overwrite")


def _compared(
    name: str, paths: Mapping[str, Path], own: tuple[Sequence[str], tuple[int, ...]], first: Curve, areas: Sequence[str]
) -> list[str]:  # fmt: skip
    """What has to be known beside the first encoder; own: areas, and the shape of scores.

    Raises DataError where areas, or the budgets that all of them hold, are not those of the first.
    """
    if own != (areas, first.here.shape):
        raise DataError(
            f"{name} has chips for {own[1][2]} budgets in {len(own[0])} areas, {first.encoder} for "
            f"{first.here.shape[2]} in {len(areas)}",
            fix="leave out the largest budgets, or the images that one of them finds too little in",
        )
    if _places(paths[name]) == _places(paths[first.encoder]):
        return []
    return [f"{name} and {first.encoder} have other chips: differences between them are not paired"]


def _places(path: Path) -> Any:
    """Scene and pixels of all chips of a file, in its order."""
    return parquet().read_table(path, columns=["scene", "pixel_bbox"]).replace_schema_metadata(None)


def _file(name: str) -> str:
    return re.sub(r"[^\w.+]+", "_", name)


def _fingerprint(loaded: LabelBudget) -> str:
    kept = {name: _read_by_embed(config) for name, config in loaded.configs.items()}
    probes = loaded.plan.model_dump(mode="json", exclude={"title", "hypothesis", "close", "score", "labels", "config"})
    return json.dumps(plain({"plan": probes, "encoders": kept}), indent=1) + "\n"


def _read_by_embed(config: RunConfig) -> dict[str, Any]:
    raw = config.model_dump(mode="json")
    return {key: raw[key] for key in ("task", "data", "split", "model", "train")}


def _require_same(loaded: LabelBudget, out: Path, *, overwrite: bool) -> None:
    """Refuse a folder of another plan; encoders may be added."""
    before = kept_plan(out, "encoders")
    if overwrite or before is None:
        return
    now = json.loads(_fingerprint(loaded))
    for each in (before, now):
        each["plan"].pop("encoders")
    gone = [name for name, own in before["encoders"].items() if now["encoders"].get(name) != own]
    if gone or before["plan"] != now["plan"]:
        what = f"encoder {gone[0]}" if gone else "settings"
        raise OutputError(
            f"{out} was begun with another plan ({what})",
            fix="give another folder, or --overwrite; encoders may be added",
        )


def _asked(loaded: LabelBudget, names: tuple[str, ...]) -> ProbeSettings:
    plan = loaded.plan
    return ProbeSettings(
        names, plan.target, plan.areas, tuple(plan.budgets), plan.repeats, plan.share, plan.block, None, plan.penalty,
        plan.seed,
    )  # fmt: skip


def _curves(
    loaded: LabelBudget, encoder: str, path: Path, areas: Sequence[str]
) -> tuple[list[Curve], dict[tuple[str, str], tuple[float, float]]]:
    """The learners of an encoder, and mean and deviation of ridge from area to area with the largest budget."""
    plan = loaded.plan
    columns = ["area", "test", "probe", "n", "repeat", "target", plan.score]
    table = parquet().read_table(path, columns=columns, filters=[("target", "==", ALL_TARGETS)])
    rows = {key: table[key].to_numpy(zero_copy_only=False) for key in columns}
    here = rows["area"] == rows["test"]
    elsewhere = np.char.startswith(rows["area"].astype(str), ELSEWHERE)
    budgets = [n for n in plan.budgets if all((here & (rows["n"] == n) & (rows["area"] == a)).any() for a in areas)]
    if len(budgets) < 2:
        raise DataError(
            f"of the budgets {', '.join(map(str, plan.budgets))} not two fit the chips of every area",
            fix="give smaller budgets, a smaller share, or larger areas",
        )
    curves = []
    for name in dict.fromkeys(rows["probe"].tolist()):
        mine = rows["probe"] == name
        local = np.full((len(areas), plan.repeats, len(budgets)), np.nan)
        far, most = np.full((len(areas), plan.repeats), np.nan), 0
        for a, area in enumerate(areas):
            for b, n in enumerate(budgets):
                of = mine & here & (rows["area"] == area) & (rows["n"] == n)
                local[a, rows["repeat"][of], b] = rows[plan.score][of]
            of = mine & elsewhere & (rows["test"] == area)
            of &= rows["n"] == rows["n"][of].max()
            far[a, rows["repeat"][of]] = rows[plan.score][of]
            most = max(most, int(rows["n"][of].max()))
        label = name if name in BASELINES else f"{encoder}, {name}"
        curves.append(
            Curve(label, "" if name in BASELINES else encoder, name, local, far, most,
                  break_even(budgets, local, far), enough(budgets, local, close=plan.close))
        )  # fmt: skip
    of = (rows["probe"] == "ridge") & ~elsewhere & (rows["n"] == budgets[-1])
    matrix = {}
    for area in areas:
        for test in areas:
            found = rows[plan.score][of & (rows["area"] == area) & (rows["test"] == test)]
            told = over_seeds(found.tolist())
            matrix[area, test] = (told.value, told.sd)
    return curves, matrix


def _summary(
    loaded: LabelBudget, curves: Sequence[Curve], count: int, undefined: int, notes: Sequence[str],
    failed: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    plan, num = loaded.plan, curves[0].here.shape[2]
    budgets, score = plan.budgets[:num], _named(plan.score)
    learners = [
        {"learner": c.name, "encoder": c.encoder, "probe": c.probe, "elsewhere": c.transfer,
         "labels_elsewhere": c.labels_elsewhere, "here": {str(n): c.mean(b) for b, n in enumerate(budgets)},
         "sd": {str(n): c.spread(b) for b, n in enumerate(budgets)},
         "break_even": asdict(c.pays), "recommended": asdict(c.enough)}
        for c in curves
    ]  # fmt: skip
    head = ["learner", f"{score} elsewhere", *(f"here, {n:,}" for n in budgets), "break-even", "recommended"]
    rows = [
        [c.name, f"{c.transfer:.3f}", *(f"{c.mean(b):.3f}" for b in range(num)), _range(c.pays), _range(c.enough)]
        for c in curves
    ]
    return {
        "title": plan.title, "kind": "label_budget", "score": plan.score, "budgets": budgets,
        "areas": curves[0].here.shape[0], "repeats": plan.repeats, "learners": learners, "num_fits": count,
        "num_undefined": undefined, "conclusion": answer(loaded, curves), "table": {"head": head, "rows": rows},
        "notes": list(notes), "failed": dict(failed),
    }  # fmt: skip


def answer(loaded: LabelBudget, curves: Sequence[Curve]) -> str:
    """Train elsewhere or label here, and how many: sentences."""
    budgets, score = loaded.plan.budgets, _named(loaded.plan.score)
    rivals = [c for c in curves if c.probe != "constant"]
    last = rivals[0].here.shape[2] - 1
    best = max(rivals, key=lambda c: np.nan_to_num(c.mean(last), nan=-np.inf))
    far = max(rivals, key=lambda c: np.nan_to_num(c.transfer, nan=-np.inf))
    said = [
        f"With {budgets[last]:,} labels here {best.name} is best ({score} {best.mean(last):.3f}); learnt from all "
        f"{far.labels_elsewhere:,} labels elsewhere {far.name} is ({score} {far.transfer:.3f})."
    ]
    pays = break_even(budgets[: last + 1], best.here, far.elsewhere)
    if loaded.plan.score == "r2" and max(best.mean(last), far.transfer) <= 0:
        said.append("Neither tells more than the mean of what is scored: nothing of this can be relied on.")
        return " ".join(said)
    if np.isinf(pays.count):
        sure = f" (95 % interval from {_count(pays.low)} on)" if np.isfinite(pays.low) else ""
        said.append(
            f"Up to {budgets[last]:,} labels here are not worth more than those elsewhere{sure}: train elsewhere."
        )
    elif pays.high <= budgets[0]:
        said.append(f"Already {budgets[0]} labels here are worth more: label here.")
    else:
        said.append(
            f"Labels here are worth more from {_count(pays.count)} on (95 % interval {_count(pays.low)} to "
            f"{_count(pays.high)}): with fewer train elsewhere, with more label here."
        )
    if np.isfinite(pays.count) and best.enough.count < budgets[last]:
        said.append(
            f"Recommended: {_count(best.enough.count)} labels (95 % interval {_count(best.enough.low)} to "
            f"{_count(best.enough.high)}); up to {budgets[last]:,} bring at most {loaded.plan.close:g} more."
        )
    raw = next((c for c in curves if c.probe == "raw"), None)
    if raw is not None and raw is not best:
        gains = _mean(best.here[:, :, last], 1) - _mean(raw.here[:, :, last], 1)
        won = int((gains > 0).sum())
        said.append(
            f"Raw statistics of the bands reach {raw.mean(last):.3f} with as many labels; the encoder is above them in "
            f"{won} of {len(gains)} areas."
        )
    return " ".join(said)


def _mean(scores: Floats, axis: int | None = None) -> Floats:
    """Of those that are defined; NaN where none is, of which numpy would warn."""
    known = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, scores, 0).sum(axis) / known.sum(axis)
    return mean


def _count(count: float) -> str:
    return "more than there are" if np.isinf(count) else f"{count:,.0f}"


def _named(score: str) -> str:
    return {"r2": "R2", "r": "r"}[score]


def _write(
    loaded: LabelBudget, out: Path, curves: Sequence[Curve],
    matrix: Mapping[str, Mapping[tuple[str, str], tuple[float, float]]], summary: dict[str, Any],
) -> list[Path]:  # fmt: skip
    """Table, page, log and JSON."""
    budgets, score = summary["budgets"], _named(loaded.plan.score)
    table = [
        [c.encoder, c.probe, c.transfer, c.labels_elsewhere, c.pays.count, c.pays.low, c.pays.high, c.enough.count,
         c.enough.low, c.enough.high, *(c.mean(b) for b in range(len(budgets)))]
        for c in curves
    ]  # fmt: skip
    return [
        write_text(out / "label_budget.csv", csv_text([*_HEAD, *(f"{score} here, {n}" for n in budgets)], table)),
        write_text(out / "study.json", json.dumps(plain(summary), indent=2) + "\n"),
        _page(loaded, out, curves, matrix, summary),
        keep_log(out / "LOG.md", loaded.plan.title, _blocks(loaded, summary)),
    ]


def _range(found: Labels) -> str:
    low, value, high = ("∞" if np.isinf(n) else f"{n:,.0f}" for n in (found.low, found.count, found.high))
    return f"{value} ({low} to {high})"


def _page(
    loaded: LabelBudget, out: Path, curves: Sequence[Curve],
    matrix: Mapping[str, Mapping[tuple[str, str], tuple[float, float]]], summary: Mapping[str, Any],
) -> Path:  # fmt: skip
    plan, score, budgets = loaded.plan, _named(loaded.plan.score), summary["budgets"]
    shown = [c for c in curves if c.probe in ("ridge", "raw")]
    series = {c.name: [(n, c.mean(b), c.spread(b)) for b, n in enumerate(budgets)] for c in shown}
    figure = band_lines(series, x="labelled chips here", y=score, log=True, baseline="raw")
    areas = list(dict.fromkeys(area for area, _ in next(iter(matrix.values()))))
    best = max((c for c in shown if c.encoder), key=lambda c: c.mean(len(budgets) - 1)).encoder
    heat = level_heat(areas, areas, matrix[best], down="learnt from", across="scored in")
    caption = (
        f"{score} of all targets together by number of labelled chips, mean over areas; bands: one standard deviation "
        f"over {plan.repeats} repeats. Elsewhere: learnt from all chips of all other areas. Break-even: labels here "
        "from which on they are worth more than those elsewhere; recommended: labels after which the score rises by at "
        f"most {plan.close:g} up to the largest budget. Intervals (95 %) over areas and repeats."
    )
    head, rows = summary["table"]["head"], summary["table"]["rows"]
    sections = [
        Section("Train elsewhere, or label here?", summary["conclusion"], head, rows, figure=figure, caption=caption),
        Section(
            "From area to area", f"{best}, ridge, {budgets[-1]:,} labels of the area on the left.", figure=heat,
            caption=f"{score}, mean and standard deviation over repeats; on the diagonal held-out blocks of the area.",
        ),
    ]  # fmt: skip
    facts = [("areas", str(summary["areas"])), ("repeats", str(plan.repeats)), ("fits", f"{summary['num_fits']:,}")]
    return write_study_page(
        out / "report.html", plan.title, kind="label budget", sentence=summary["conclusion"].split(". ")[0] + ".",
        sections=sections, notes=summary["notes"], facts=facts,
        doubts=[f"{name} failed: {why}" for name, why in summary["failed"].items()],
    )  # fmt: skip


def _blocks(loaded: LabelBudget, summary: Mapping[str, Any]) -> dict[str, str]:
    """What LOG.md says."""
    plan, head, rows = loaded.plan, summary["table"]["head"], summary["table"]["rows"]
    method = (
        f"Encoders that are not trained: {', '.join(loaded.configs)}. Ridge and kNN on embeddings of chips, beside raw "
        f"statistics and a constant; {summary['areas']} areas, budgets {', '.join(map(str, summary['budgets']))}, "
        f"{plan.repeats} repeats, {plan.share:.0%} of each area's blocks held out with their neighbours.\n"
        f"- command: `covermap study run {loaded.source} OUT`"
    )
    return {
        "hypothesis": plan.hypothesis.strip() or "None was stated.", "method": method,
        "result": "\n".join([markdown(head, rows), "", *(f"- {note}" for note in summary["notes"])]),
        "conclusion": summary["conclusion"],
    }  # fmt: skip
