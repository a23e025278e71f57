"""`tune`: a search for settings by the val part, with Optuna; what was tried is kept, so that it goes on after a stop.

OUT/runs/trial-N/   ordinary runs   OUT/trials.journal  Optuna's own   OUT/trials.csv   OUT/report.html
OUT/best.yaml       the config of the best trial, to be run and scored on the test part
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from covermap.core.errors import ConfigError, MissingExtra, OutputError
from covermap.core.output import at_work, write_text, writing
from covermap.core.parsing import read_json
from covermap.core.plan_file import KEPT, kept_plan
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.tune_plan import Between, Search, load_search
from covermap.geo.legend_files import csv_text
from covermap.report.study_figures import band_lines
from covermap.report.study_page import Section, write_study_page
from covermap.verbs import study

JOURNAL = "trials.journal"


@dataclass
class Tuned:
    """What was tried: rows of trial, state, value and settings, and the best of them."""

    out: Path
    score: str
    rows: list[dict[str, Any]]
    best: dict[str, Any] | None = None
    failed: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def tune(
    plan: str | Path | Mapping[str, Any], out: str | Path, *, trials: int = 20, overwrite: bool = False,
    say: Say = silent, on_progress: Tick = unseen,
) -> Tuned:  # fmt: skip
    """Try settings until there are `trials` in `out`; an interrupted trial goes on.

    The trial of a number is the same whether the search was stopped before it or not. Raises MissingExtra without
    Optuna, ConfigError for anything unknown in the plan before any trial, OutputError where `out` holds another search.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtra("optuna", "hpo", "covermap tune") from error
    out, search = Path(out), load_search(plan)
    key, sign = search.config("trial", out, {}).monitor
    with at_work(out, alone=True):
        _begin(search, out, overwrite=overwrite)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
        found = optuna.create_study(
            storage=storage, study_name="tune", direction="maximize" if sign > 0 else "minimize", load_if_exists=True
        )
        failed: dict[str, str] = {}
        for trial in found.trials:
            if not trial.state.is_finished():  # stopped at work
                _try(search, found, trial.number, trial.params, out, key, sign, failed, say)
        for number in range(len(found.trials), trials):
            found.sampler = _sampler(search, number)
            drawn = found.ask(_distributions(search))
            _try(search, found, drawn.number, drawn.params, out, key, sign, failed, say)
            on_progress(number + 1, trials)
        return _told(search, found, out, key, failed)


def _begin(search: Search, out: Path, *, overwrite: bool) -> None:
    """Keep the plan; refuse a folder with another one. overwrite: start again."""
    import shutil

    raw = {"plan": search.plan.model_dump(mode="json"), "base": search.raw}
    text = json.dumps(raw, indent=1, default=str) + "\n"
    kept = kept_plan(out, "base")
    if overwrite:
        shutil.rmtree(out / "runs", ignore_errors=True)
        for file in out.glob(f"{JOURNAL}*"):
            file.unlink()
    elif kept is not None and kept != json.loads(text):
        raise OutputError(
            f"{out} holds a search of another plan", fix="give another folder, or --overwrite to start again"
        )
    write_text(out / KEPT, text)
    with writing(out / "jobs"):
        (out / "jobs").mkdir(parents=True, exist_ok=True)


def _sampler(search: Search, number: int) -> Any:
    """One for each trial, so that a search that was stopped draws what it would have drawn."""
    import optuna

    seed = 100_000 * search.plan.seed + number
    if search.plan.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _distributions(search: Search) -> dict[str, Any]:
    from optuna import distributions as kinds

    found: dict[str, Any] = {}
    for key, values in search.space.items():
        if not isinstance(values, Between):  # lists and sections are no choices of Optuna's: their place is
            plain = all(isinstance(value, str | int | float | bool | None) for value in values)
            found[key] = kinds.CategoricalDistribution(values if plain else [_text(value) for value in values])
        elif values.whole:
            found[key] = kinds.IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            found[key] = kinds.FloatDistribution(float(values.low), float(values.high), log=values.log)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _chosen(search: Search, params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the config has them."""
    found = {}
    for key, value in params.items():
        values = search.space[key]
        known = {_text(one): one for one in values} if isinstance(values, list) else {}
        found[key] = known.get(value, value) if isinstance(value, str) else value
    return found


def _try(
    search: Search, found: Any, number: int, params: Mapping[str, Any], out: Path, key: str, sign: float,
    failed: dict[str, str], say: Say,
) -> None:  # fmt: skip
    """Train a trial in a process of its own, and tell Optuna its best score of the val part."""
    from optuna.trial import TrialState

    name = f"trial-{number}"
    try:
        config = search.config(name, out / "runs", _chosen(search, params))
    except ConfigError as error:  # settings that do not go together
        failed[name] = str(error)
        found.tell(number, state=TrialState.FAIL)
        say(f"{name}: {error.message}")
        return
    config = config.model_copy(update={"baseline": False})
    path = out / "jobs" / f"{name}.json"
    job = {"config": config.model_dump(mode="json"), "forest": False, "threads": 0, "test": False}
    write_text(path, json.dumps(job) + "\n")
    code = study.in_own_process(str(path))
    if code == 3:
        raise KeyboardInterrupt
    if code:
        failed[name] = study.why(path, code)
        found.tell(number, state=TrialState.FAIL)
        say(f"{name}: {failed[name].splitlines()[0]}")
        return
    log = read_json((config.folder / "cell.json"), fix="make it again: --overwrite")["log"]
    values = [row[key] for row in log if row.get(key) is not None]
    if not values:
        raise ConfigError(f"trials have no {key}: there is no val part", fix="set split.val: 0.2")
    best = max(values, key=lambda value: sign * value)
    found.tell(number, best)
    say(f"{name}: {key} {best:.4f}  " + "  ".join(f"{k}={v}" for k, v in params.items()))


def _told(search: Search, found: Any, out: Path, key: str, failed: dict[str, str]) -> Tuned:
    """The tables and the page."""
    rows = [
        {"trial": trial.number, "state": trial.state.name.lower(), key: trial.value, **_chosen(search, trial.params)}
        for trial in found.trials
    ]
    done = Tuned(out, key, rows, failed=failed)
    head = ["trial", "state", key, *search.space]
    done.files.append(write_text(out / "trials.csv", csv_text(head, [[row.get(k) for k in head] for row in rows])))
    known = [row for row in rows if row[key] is not None]
    if not known:
        return done
    best = found.best_trial
    done.best = next(row for row in rows if row["trial"] == best.number)
    config = search.config("best", out / "runs", _chosen(search, best.params))
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    done.files.append(write_text(out / "best.yaml", text))
    sign = search.config("trial", out, {}).monitor[1]
    so_far, top = [], None
    for row in known:
        top = row[key] if top is None else max(top, row[key], key=lambda value: sign * value)
        so_far.append((row["trial"], top, 0.0))
    each = [(row["trial"], row[key], 0.0) for row in known]
    figure = band_lines({"best so far": so_far, "trial": each}, x="trial", y=key, baseline="trial")
    ordered = sorted(known, key=lambda row: -sign * row[key])
    cells = [[str(row["trial"]), f"{row[key]:.4f}", *(_short(row.get(k)) for k in search.space)] for row in ordered]
    section = Section("Trials, the best first", "", ["trial", key, *search.space], cells, 1, figure,
                      f"{key} of each trial, and the best until then.")  # fmt: skip
    page = write_study_page(
        out / "report.html", search.plan.title, kind="covermap tune", sections=[section],
        sentence=f"The best of {len(known)} trials has {key} {done.best[key]:.4f}.",
        doubts=[f"{name} failed: {message.splitlines()[0]}" for name, message in failed.items()],
        notes=["The best score of many trials is too good: the test part, which no trial has seen, tells its own. "
               f"covermap run {out / 'best.yaml'}"],
        settings=yaml.safe_dump(search.plan.model_dump(mode="json"), sort_keys=False),
    )  # fmt: skip
    done.files.append(page)
    return done


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
