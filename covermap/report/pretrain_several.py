"""Several pre-trainings on one page: their probes, their vectors, what they set differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from covermap.core.config_file import dotted
from covermap.core.errors import DataError
from covermap.core.output import claim
from covermap.report.pretrain_doubts import CHANCE, RAW
from covermap.report.pretrain_figures import Points, probe_bars, step_curves
from covermap.report.pretrain_page import Pretrained
from covermap.report.study_page import Section, write_study_page

_LONG = 4
"""Looks of a run from which on its curve is drawn."""


def report_pretrainings(runs: Sequence[Pretrained], out: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a page that shows pre-trainings beside each other; losses of different methods are not compared.

    out: default comparison.html beside the first. Raises DataError for one given twice, OutputError.
    """
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise DataError("a pre-training was given twice", fix="name each once")
    path = claim(out or runs[0].folder.parent / "comparison.html", overwrite=overwrite)
    names = _names(runs)
    return write_study_page(
        path, " · ".join(names) if len(names) < 4 else f"{len(names)} pre-trainings",
        kind="covermap report of several pre-trainings", sentence=_sentence(runs, names),
        sections=[one for one in (_probes(runs, names), _curves(runs, names), _settings(runs, names))
                  if one.rows or one.figure],
        doubts=_doubts(runs),
    )  # fmt: skip


def _names(runs: Sequence[Pretrained]) -> list[str]:
    own = [run.config.name for run in runs]
    return own if len(set(own)) == len(own) else [str(run.folder) for run in runs]


def _sentence(runs: Sequence[Pretrained], names: Sequence[str]) -> str:
    told = {name: run.probe[run.own] for name, run in zip(names, runs, strict=True) if run.own in run.probe}
    if not told:
        return "No probe says what these backbones are worth."
    order = sorted(told, key=told.__getitem__, reverse=True)
    return "R2 of a linear probe, the best first: " + ", ".join(f"{name} {told[name]:.3f}" for name in order) + "."


def _doubts(runs: Sequence[Pretrained]) -> list[str]:
    found = [f"One run of each: R2 that differ by less than about {CHANCE} are not told apart without more seeds."]
    if len({str(run.config.data) for run in runs}) > 1:
        found.append("They learnt from different data.")
    if len({str((run.config.split, run.config.train.size_px)) for run in runs}) > 1:
        found.append("Their probes learn from and tell other windows: R2 of different windows do not compare.")
    if len({run.rows[-1]["step"] for run in runs if run.rows}) > 1:
        found.append("They were trained for different numbers of steps.")
    return found


def _probes(runs: Sequence[Pretrained], names: Sequence[str]) -> Section:
    rows, bars = [], dict[str, float]()
    for name, run in zip(names, runs, strict=True):
        probe, last = run.probe, run.rows[-1] if run.rows else {}
        cells = [probe.get(key) for key in (RAW, run.start, run.own)] + [last.get("spread"), last.get("effective_rank")]
        losses = run.points("loss")
        rows.append([name, run.config.method.name, f"{last.get('step', 0):,}",
                     *(_form(value, digits) for value, digits in zip(cells, (3, 3, 3, 2, 1), strict=True)),
                     _form(losses[-1][1] if losses else None, 3)])  # fmt: skip
        bars |= {name: probe[run.own]} if run.own in probe else {}
        bars |= {RAW: probe[RAW]} if RAW in probe and RAW not in bars else {}
    head = ["", "method", "steps", "R2 raw", "R2 at start", "R2 at end", "spread", "effective rank", "loss"]
    bars = {key: bars[key] for key in ([RAW] if RAW in bars else []) + [key for key in bars if key != RAW]}
    figure = probe_bars(bars, own=set(names)) if len(bars) > 1 else ""
    caption = "Losses of different methods are different things. Raw statistics are those of the first run's bands."
    return Section("Probes", "", head, rows, 2, figure, caption)


def _form(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _curves(runs: Sequence[Pretrained], names: Sequence[str]) -> Section:
    titles = {"R2 of the probe": "probe_r2", "Spread": "spread", "Effective rank": "effective_rank"}
    panels: dict[str, Mapping[str, Points]] = {}
    for title, key in titles.items():
        found: dict[str, Points] = {name: run.points(key) for name, run in zip(names, runs, strict=True)}
        found = {name: points for name, points in found.items() if len(points) >= _LONG}
        panels |= {title: found} if found else {}
    alt = f"Curves over the steps of {', '.join(names)}: {', '.join(panels)}"
    return Section("Over the steps", figure=step_curves(panels) if panels else "", alt=alt,
                   caption="Probe: of windows not learnt from. Spread and rank: of windows kept.")  # fmt: skip


def _settings(runs: Sequence[Pretrained], names: Sequence[str]) -> Section:
    flat = [dotted(run.config.model_dump(mode="json", exclude={"name", "output"})) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one)
            if len({str(one.get(key)) for one in flat}) > 1]  # fmt: skip
    rows = [[key, *(str(one.get(key, "–")) for one in flat)] for key in keys]
    return Section("What they set differently", "", ["", *names], rows, len(names) + 1)
