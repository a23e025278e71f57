"""What a study of pre-training found: rows of scores -> table, differences by seed, what they say -> page and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covermap.core.output import write_text
from covermap.core.pretraining_plan import RANDOM, SCRATCH, Pretraining
from covermap.core.run import plain
from covermap.geo.legend_files import csv_text
from covermap.metrics.intervals import Interval, over_seeds
from covermap.report.study_figures import band_lines
from covermap.report.study_page import Section, write_study_page
from covermap.verbs.study import Study
from covermap.verbs.study_kinds import DASH, spread
from covermap.verbs.study_log import keep_log, markdown

PROBE, FINETUNED, RAW = "probe", "fine-tuned", "raw statistics"
_AGAINST = ((PROBE, RANDOM, "random weights"), (PROBE, RAW, RAW), (FINETUNED, SCRATCH, "a network from scratch"))
_SAID = {PROBE: "Probed", FINETUNED: "Fine-tuned"}

Values = Mapping[tuple[str, str], Mapping[int, Mapping[int, float]]]
"""{(backbone, way): {labels: {seed: R2}}}."""


class Row(NamedTuple):
    """One score: R2 of all targets together in the test part."""

    learner: str
    way: str
    labels: int
    seed: int
    r2: float


def together(each: Sequence[Mapping[str, Any]]) -> float:
    """R2 of the errors of all targets, {num_pairs, rmse, r2} each; constant ones add errors only."""
    errors = squares = 0.0
    for row in each:
        own = row["num_pairs"] * (row["rmse"] or 0.0) ** 2
        errors += own
        if row["r2"] is not None and row["r2"] < 1:
            squares += own / (1 - row["r2"])
    return 1 - errors / squares if squares else float("nan")


def write_results(loaded: Pretraining, found: Study, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Table, page, log and JSON."""
    plan, out = loaded.plan, found.out
    budgets = [n for n in plan.labels if any(row.labels == n for row in rows)]
    values = by_kind(rows, budgets)
    means = {kind: {n: over_seeds(list(each.values())) for n, each in of.items()} for kind, of in values.items()}
    head = ["backbone", "labels are used by", *(f"R2, {n:,} labels" for n in budgets)]
    table = [[*kind, *map(spread, means[kind].values())] for kind in values]
    apart = [[*row, *map(_signed, each)] for row, each in differences(values, budgets)]
    apart_head = ["backbone", "labels are used by", "against", *(f"{n:,} labels" for n in budgets)]
    said = conclusion(values, budgets)
    doubts = [f"{name} failed: {why.splitlines()[0]}" for name, why in found.failed.items()]
    if len(plan.all_seeds) < 3:
        doubts.append("Fewer than three seeds do not tell how much training varies.")
    notes = [*([f"labels: {plan.note}"] if plan.note else ()), *notes]
    found.summary = {
        "title": plan.title, "kind": plan.kind, "labels": budgets, "conclusion": said, "failed": found.failed,
        "rows": [row._asdict() for row in rows], "table": {"head": head, "rows": table},
        "differences": {"head": apart_head, "rows": apart}, "notes": list(notes),
    }  # fmt: skip
    sections = [
        Section(title, "", head, mine, 2, _figure(means, way, budgets), caption)
        for title, way, caption in (
            ("Probed", PROBE, _caption(f"ridge on frozen features, mean of {plan.repeats} orders of the chips")),
            ("Fine-tuned", FINETUNED, _caption("all weights learn, one order of the chips for each seed")),
        )
        if (mine := [row for row in table if row[1] == way])
    ]
    sections.append(Section("Differences", f"{_PAIRED} {said}", apart_head, apart, 3))
    found.files = [
        write_text(out / "rows.csv", csv_text(list(Row._fields), [list(row) for row in rows])),
        write_text(out / "study.json", json.dumps(plain(found.summary), indent=1) + "\n"),
        write_study_page(
            out / "report.html", plan.title, kind="covermap study: pretraining", sentence=headline(values, budgets),
            sections=sections,
            notes=notes, doubts=doubts,
            facts=[("Methods", str(len(plan.methods))), ("Seeds", str(len(plan.all_seeds)))],
        ),
        keep_log(out / "LOG.md", plan.title, {
            "hypothesis": plan.hypothesis.strip() or "None was stated.",
            "method": f"Pre-trained without labels: {', '.join(plan.methods)}; {len(plan.all_seeds)} seeds.\n"
                      f"- command: `covermap study run {loaded.source} OUT`",
            "result": "\n".join([
                markdown(head, table), "", _PAIRED, "", markdown(apart_head, apart), "",
                *(f"- {note}" for note in (*notes, *doubts)),
            ]),
            "conclusion": said,
        }),
    ]  # fmt: skip


_PAIRED = "Differences of R2, paired by seed: mean, and the 95 % interval over seeds."


def by_kind(rows: Sequence[Row], budgets: Sequence[int]) -> Values:
    """Scores by backbone and way, raw statistics and random weights first, fine-tuned networks last."""
    kinds = list(dict.fromkeys((row.learner, row.way) for row in rows))
    kinds.sort(key=lambda kind: (kind[0] != RAW, kind[0] != RANDOM, kind[1] == FINETUNED))
    return {
        kind: {n: {r.seed: r.r2 for r in rows if (r.learner, r.way) == kind and r.labels == n} for n in budgets}
        for kind in kinds
    }


def differences(values: Values, budgets: Sequence[int]) -> list[tuple[tuple[str, str, str], list[Interval]]]:
    """((backbone, way, against what), its difference for each number of labels), paired by seed."""
    found = []
    for way, other, name in _AGAINST:
        base = values.get((other, way), {})
        for learner, of in values.items():
            if learner[1] == way and learner[0] not in (RAW, RANDOM, SCRATCH) and base:
                apart = [[of[n][seed] - base[n][seed] for seed in of[n] if seed in base[n]] for n in budgets]
                found.append(((learner[0], way, name), [over_seeds(each) for each in apart]))
    return found


def headline(values: Values, budgets: Sequence[int]) -> str:
    """How many methods are above what stands beside them, with the fewest and the most labels."""
    apart, said = differences(values, budgets), []
    for labels in dict.fromkeys((0, len(budgets) - 1)):
        parts = []
        for way, _, name in _AGAINST:
            mine = [each[labels] for row, each in apart if row[1:] == (way, name)]
            if mine:
                parts.append(f"{_SAID[way].lower()}, {sum(one.low > 0 for one in mine)} of {len(mine)} above {name}")
        if parts:
            said.append(f"With {budgets[labels]} labels: {'; '.join(parts)}.")
    return " ".join(said) or "Nothing can be compared yet."


def conclusion(values: Values, budgets: Sequence[int]) -> str:
    """What is above and below random weights, raw statistics and scratch, with the fewest and the most labels."""
    apart, said = differences(values, budgets), []
    for way, _, name in _AGAINST:
        for labels in dict.fromkeys((0, len(budgets) - 1)):
            mine = {row[0]: each[labels] for row, each in apart if row[1:] == (way, name)}
            if mine:
                said.append(f"{_SAID[way]} with {budgets[labels]} labels {_verdict(mine, name)}.")
    return " ".join(said) or "Nothing can be compared yet."


def _verdict(mine: Mapping[str, Interval], other: str) -> str:
    """Who is above or below beyond chance; an interval needs two seeds."""
    above = [f"{name} ({found.value:+.3f})" for name, found in mine.items() if found.low > 0]
    below = [f"{name} ({found.value:+.3f})" for name, found in mine.items() if found.high < 0]
    parts = [f"{', '.join(above)} {'are' if len(above) > 1 else 'is'} above {other}"] if above else []
    parts += [f"{', '.join(below)} {'are' if len(below) > 1 else 'is'} below {other}"] if below else []
    rest = [name for name, found in mine.items() if not (found.low > 0 or found.high < 0)]
    if rest and not parts:
        return f"nothing can be told from {other}"
    return "; ".join([*parts, *([f"{', '.join(rest)} cannot be told from it"] if rest else ())])


def _figure(means: Mapping[tuple[str, str], Mapping[int, Interval]], way: str, budgets: Sequence[int]) -> str:
    series = {
        who: [(n, told.value, told.sd) for n, told in of.items()] for (who, how), of in means.items() if how == way
    }
    if RANDOM in series:  # last: methods have one colour each in both figures
        series[RANDOM] = series.pop(RANDOM)
    baseline = RAW if way == PROBE else SCRATCH
    return band_lines(series, x="labelled chips", y="R2", log=len(budgets) > 1, baseline=baseline)


def _caption(how: str) -> str:
    return (
        f"R2 of all targets together in the test part: mean over seeds, band one standard deviation either way; {how}."
    )


def _signed(found: Interval) -> str:
    if found.value != found.value:
        return DASH
    span = f" ({found.low:+.3f} to {found.high:+.3f})" if found.low == found.low else ""
    return f"{found.value:+.3f}{span}"
