"""The report of a pre-training: what its backbone tells, whether it has collapsed, and what to distrust."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from covermap.core.errors import DataError
from covermap.core.parsing import read_yaml
from covermap.core.pretrain_config import PretrainConfig, parse_pretrain_config
from covermap.core.run import RunFolder, is_pretraining
from covermap.report.beside import looks_of
from covermap.report.pretrain_doubts import RAW, of_pretraining
from covermap.report.pretrain_figures import Points, probe_bars, step_curves
from covermap.report.study_page import Section, write_study_page

_NOT_TERMS = (
    "step", "lr", "seconds", "loss", "spread", "effective_rank", "probe_r2", "probe_r2_raw", "probe_part", "no_probe",
    "collapse",
)  # fmt: skip
_LOOKS = 6
"""Rows of the table of spread and rank; the figure has all."""
_MEANS = {
    "loss": "what is minimised: it compares with nothing but itself",
    "mae": "error of hidden patches of {}: 1 where a patch's mean is all that is known",
    "mae_pixels": "error of hidden patches of {}, in standard deviations of the bands",
    "kl": "how far student and teacher are apart",
    "teacher_entropy": "how unsure the teacher is of a view; falls as it learns to tell windows apart",
    "prototype_entropy": "how evenly all prototypes are used; near 0: one answer for everything",
    "information": "what an answer tells of its window; 0: the same for all",
    "global": "contrast of two views of a window against other windows",
    "local": "contrast of regions of two views",
    "contrast": "contrast of a window's sensors against other windows",
    "elevation": "squared error of the coarse elevation",
    "temperature": "of the contrast, learnt",
}


class Pretrained(RunFolder):
    """The folder of a pre-training. `Pretrained.open` reads one."""

    def __init__(self, folder: Path, config: PretrainConfig) -> None:
        super().__init__(folder)
        self.config = config

    @staticmethod
    def lies_in(folder: str | Path) -> bool:
        """Whether a folder holds a pre-training, by its config.yaml."""
        return is_pretraining(folder)

    @staticmethod
    def open(folder: str | Path) -> Pretrained:
        """An existing one; raises DataError, ConfigError."""
        folder = Path(folder)
        if not Pretrained.lies_in(folder):
            raise DataError(f"{folder} is not a pre-training", fix="give the folder that pretrain printed")
        path = folder / "config.yaml"
        raw = read_yaml(path, fix="give a pre-training as covermap left it")
        return Pretrained(folder, parse_pretrain_config(raw, where=str(path), base=folder))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Of its log."""
        return self.read_log()

    def known(self, name: str) -> Any:
        """What a JSON file holds; None where it is not there."""
        return self.read_json(name) if self.path(name).is_file() else None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Of the encoder that was kept."""
        return dict((self.known("model/config.json") or {}).get("facts", {}))

    @property
    def start(self) -> str:
        """What it began with, in words."""
        return str(self.facts.get("started_from") or "random weights")

    @property
    def processes(self) -> int:
        """How many shared the windows of a step."""
        return int((self.known("versions.json") or {}).get("processes", 1))

    def points(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of the rows that know it."""
        return [(row["step"], row[key]) for row in self.rows if row.get(key) is not None]

    @property
    def terms(self) -> list[str]:
        """Names of the loss and its terms."""
        named = dict.fromkeys(key for row in self.rows for key in row if key not in _NOT_TERMS)
        return [key for key in ("loss", *named) if self.points(key)]

    @property
    def probe(self) -> dict[str, float]:
        """R2 of raw statistics, of the start and of the last step, where there are labels."""
        told, raw = self.points("probe_r2"), self.points("probe_r2_raw")
        found = {RAW: raw[0][1]} if raw else {}
        found |= {self.start: told[0][1]} if told and told[0][0] == 0 else {}
        return found | ({self.own: told[-1][1]} if told and told[-1][0] else {})

    @property
    def own(self) -> str:
        """The name of what was learnt."""
        return f"after {self.rows[-1]['step']:,} steps" if self.rows else ""


def write_pretrain_report(run: Pretrained) -> Path:
    """Write `report.html` into the folder of a pre-training from whatever it holds by now; raises OutputError."""
    config, rows = run.config, run.rows
    sections = [
        _probe(run),
        *_terms(run),
        *_vectors(run),
        *_reconstruction(run),
        *looks_of(run.folder, config.name, {}),
        _loaded(run),
        _data(run),
    ]
    facts = [("Method", config.method.name), ("Backbone", config.model.backbone)]
    facts += [("Parameters", f"{run.facts['parameters']:,}")] if "parameters" in run.facts else []
    facts += [("Features", f"{run.facts['dimensions']:,}")] if "dimensions" in run.facts else []
    facts += [("Steps", f"{rows[-1]['step']:,} of {config.train.steps:,}")] if rows else []
    processes = run.processes
    shared = f" ({config.train.batch_size} in each of {processes} processes)" if processes > 1 else ""
    facts += [("Windows", f"{processes * config.train.batch_size} of {config.train.size_px} px a step{shared}")]
    seconds = sum(row.get("seconds") or 0 for row in rows)
    facts += [("Time", f"{seconds:,.0f} s")] if seconds else []
    return write_study_page(
        run.path("report.html"), config.name, kind="covermap report: pre-training", sentence=sentence(run),
        sections=[one for one in sections if one.rows or one.figure], notes=_notes(run),
        doubts=of_pretraining(config, rows, run.probe, run.own), facts=facts,
        settings=run.path("config.yaml").read_text(encoding="utf-8"), settings_title="Settings",
    )  # fmt: skip


def sentence(run: Pretrained) -> str:
    """What a probe says of the backbone, or that nothing does."""
    probe, own, method = run.probe, run.own, run.config.method.name
    if not run.rows or not run.rows[-1]["step"]:
        return "Nothing has been learnt yet."
    if own not in probe:
        return f"{method} has learnt for {run.rows[-1]['step']:,} steps; no probe says what it is worth."
    against = " and ".join(
        f"{probe[own] - value:+.3f} against {'raw statistics of the bands' if name == RAW else name}"
        for name, value in probe.items() if name != own
    )  # fmt: skip
    return f"{own[:1].upper()}{own[1:]} of {method} a linear probe reaches R2 {probe[own]:.3f}: {against}."


def _probe(run: Pretrained) -> Section:
    probe, curve = run.probe, run.points("probe_r2")
    if run.own not in probe:
        return Section("")
    text = (
        "A ridge regression tells the share of each class in a window from the frozen backbone's features: learnt from "
        f"the train part, told of {run.rows[0].get('probe_part', 'val (of test, where val is too small)')}. R2 is 1 if "
        "all is told, 0 for a constant guess."
    )
    rows = [[name, f"{value:.3f}", "" if name == run.own else f"{probe[run.own] - value:+.3f}"]
            for name, value in probe.items()]  # fmt: skip
    level = {"R2 of the probe": probe[RAW]} if RAW in probe else {}
    long = len(curve) > 3
    figure = step_curves({"R2 of the probe": {"probe": curve}}, level) if long else probe_bars(probe, own={run.own})
    most = max(curve, key=lambda point: point[1])
    caption = f"Best at step {most[0]:,} (R2 {most[1]:.3f}). " if long else ""
    caption += "Dashed: raw statistics of the bands. " if long and level else ""
    caption += "What does not beat means and deviations of the bands has learnt nothing that they do not tell."
    head = ["features", "R2", "gain of what was learnt"]
    return Section("What a probe tells", text, head, rows, 1, figure, caption, _alt("R2 of the probe", probe))


def _alt(title: str, values: Mapping[str, float]) -> str:
    return f"{title}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def _terms(run: Pretrained) -> list[Section]:
    """The loss, its terms, and the learning rate."""
    names = run.terms
    if not names:
        return []
    known = {name: run.points(name) for name in names}
    rows = [[name, _meaning(run, name), f"{points[0][1]:.4g}" if len(points) > 1 else "–", f"{points[-1][1]:.4g}",
             f"{min(value for _, value in points):.4g}"] for name, points in known.items()]  # fmt: skip
    head = ["term", "what it is", "first", "last", "least"]
    title = "Loss and its terms"
    if len(known["loss"]) < 2:
        text = f"The log has one row of the loss, a mean over {known['loss'][0][0]:,} steps: no curve."
        return [Section(title, text, head, rows, 2)]
    rest = {name: points for name, points in known.items() if name != "loss"}
    panels: dict[str, Mapping[str, Points]] = {"Loss": {"loss": known["loss"]}}
    panels |= {"Terms": rest} if len(rest) > 1 else {}
    rates = run.points("lr")
    panels |= {"Learning rate": {"lr": rates}} if len(rates) > 1 else {}
    first, last = known["loss"][0], known["loss"][-1]
    way = "fell" if last[1] < first[1] else "rose"
    caption = (
        f"The loss {way} from {first[1]:.4g} (up to step {first[0]:,}) to {last[1]:.4g}. Each point is a mean of the "
        "steps since the one before. A loss that falls says nothing of use: the probe does."
    )
    return [Section(title, "", head, rows, 2, step_curves(panels), caption, f"{title}, curves over the steps")]


def _meaning(run: Pretrained, name: str) -> str:
    plain = getattr(run.config.method, "norm_pix", True)
    if name.startswith("mae_"):
        return _MEANS["mae" if plain else "mae_pixels"].format(name[4:])
    return _MEANS.get(name, "")


def _vectors(run: Pretrained) -> list[Section]:
    """Spread and effective rank of the vectors of windows that are always the same."""
    spread, rank = run.points("spread"), run.points("effective_rank")
    if not spread or not rank:
        return []
    rows = [[f"{step:,}", f"{a:.3f}", f"{b:.1f}"] for (step, a), (_, b) in zip(spread, rank, strict=False)]
    shown = rows if len(rows) <= _LOOKS else [rows[round(i * (len(rows) - 1) / (_LOOKS - 1))] for i in range(_LOOKS)]
    text = (
        "Vectors of 128 windows kept to look at, of the ground that is learnt from. Spread: 0 where all get one vector "
        "(collapse), 1 where they fill the sphere. Effective rank: in how many directions they differ, at most "
        f"{min(127, run.facts.get('dimensions', 127))}. Here spread went from {spread[0][1]:.2f} to "
        f"{spread[-1][1]:.2f}, rank from {rank[0][1]:.1f} to {rank[-1][1]:.1f}."
    )
    figure = step_curves({"Spread": {"spread": spread}, "Effective rank": {"rank": rank}}) if len(rows) > 2 else ""
    caption = "Neither says that the features are useful; both near their floor say that they are not."
    alt = "Spread and effective rank over the steps; their values stand in the table"
    return [
        Section("Are the vectors alive?", text, ["step", "spread", "effective rank"], shown, 0, figure, caption, alt)
    ]


def _reconstruction(run: Pretrained) -> list[Section]:
    path = run.path("reconstruction.png")
    if not path.is_file():
        return []
    picture = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    method = run.config.method
    share = f"{100 * getattr(method, 'mask', 0.75):.0f} %"
    caption = (
        f"Windows kept to look at: as they are, what the encoder sees ({share} of the patches hidden, grey), what is "
        "filled in. They are of the ground that is learnt from."
    )
    if getattr(method, "norm_pix", False):
        caption += (
            " What is filled in has the true mean and deviation of each patch, over its pixels and bands together, "
            "which the network is not asked for: a patch's brightness and contrast are given, its colours and what "
            "is within it are learnt."
        )
    alt = f"{caption} Three columns for each sensor, a row for each window"
    return [Section("Hidden patches", "", figure=picture, caption=caption, alt=alt)]


def _loaded(run: Pretrained) -> Section:
    """What became of each tensor of the weights it started from."""
    told = run.known("weights.json")
    if not told:
        return Section("")
    counts = Counter(row["fate"] for row in told["tensors"])
    rows = [[fate, f"{number:,}", next(r["tensor"] for r in told["tensors"] if r["fate"] == fate)]
            for fate, number in counts.most_common()]  # fmt: skip
    return Section("Which tensors were loaded", f"{told['summary']}. weights.json names every tensor.",
                   ["what became of them", "tensors", "for example"], rows, 1)  # fmt: skip


def _data(run: Pretrained) -> Section:
    """Sensors and bands that the encoder sees, with what they are scaled by."""
    told = (run.known("model/config.json") or {}).get("input", {}).get("sensors", [])
    rows = [[entry["sensor"], ", ".join(entry["bands"]), str(entry["num_dates"])] for entry in told]
    files = run.known("inputs.json") or {}
    text = f"{len(files):,} files were read, with those of labels; inputs.json has their checksums." if files else ""
    return Section("What it sees", text, ["sensor", "bands", "dates"], rows, 2)


def _notes(run: Pretrained) -> list[str]:
    versions: Mapping[str, Any] = run.known("versions.json") or {}
    told: Sequence[str] = run.known("notes.json") or []
    command = versions.get("command")
    made = ", ".join(f"{key} {versions[key]}" for key in ("covermap", "torch", "python") if versions.get(key))
    if command and run.processes > 1:
        command = f"torchrun --nproc-per-node {run.processes} -m {command}"
    return [*told, *([f"Command: {command}"] if command else []), *([f"Made with {made}."] if made else [])]
