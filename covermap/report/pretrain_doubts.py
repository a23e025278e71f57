"""What a reader should distrust in a pre-training: each check returns sentences, from its config and its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from covermap.core.pretrain_config import PretrainConfig

RAW = "raw statistics"
CHANCE = 0.02
"""R2 by which one seed may differ from the next: two standard deviations of probes with some 80 labels over three seeds
(benchmarks/results/pretrain_2-cores_2026-11-22.md). Smaller gains are told to be none."""
NARROW = 0.5
"""Share of the first effective rank below which the vectors are said to have narrowed."""
DYING, FEW_DIRECTIONS = 0.1, 3.0
"""Spread and effective rank below which vectors are near collapse (nn/ssl/monitors says when they are there)."""
UNLEARNT = 0.9
"""Error of normalised patches above which almost nothing of them was filled in: 1 is the patch's own mean."""


def of_pretraining(
    config: PretrainConfig, rows: Sequence[Mapping[str, Any]], probe: Mapping[str, float], own: str
) -> list[str]:
    """Sentences on what may be wrong with what was learnt. probe: R2 by the features' name; own: those kept."""
    if not rows or not rows[-1]["step"]:
        return ["Nothing has been learnt yet: go on with covermap pretrain CONFIG --resume."]
    return [
        *_of_length(config, rows), *_of_probe(probe, own, rows), *_of_vectors(rows), *_of_terms(config, rows),
        f"One run with seed {config.train.seed}: another gives other numbers. Whether pre-training pays is told by "
        "several seeds beside random weights (covermap study run, kind: pretraining).",
    ]  # fmt: skip


def _of_length(config: PretrainConfig, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    last = rows[-1]["step"]
    if said := rows[-1].get("collapse"):
        yield (
            f"It ended at step {last:,} of {config.train.steps:,}: {said}. --resume would run into the same: start "
            "again (--overwrite) with a lower train.lr, larger batches or stronger views."
        )
    elif last < config.train.steps:
        yield f"It was stopped after step {last:,} of {config.train.steps:,}: go on with --resume."
    looks = sum(row["step"] > 0 for row in rows)
    if looks < 3:
        yield (
            f"It was looked at {'once' if looks == 1 else 'twice'} only: whether it was still improving, or better "
            "before, cannot be seen (train.watch_every)."
        )


def _of_probe(probe: Mapping[str, float], own: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if own not in probe:
        why = rows[0].get("no_probe") or "there are no labels of classes"
        yield f"No probe was made: {why}. The loss alone does not say whether anything useful was learnt."
        return
    for name, value in probe.items():
        gain = probe[own] - value
        if name != own and gain < CHANCE:
            what = "raw statistics of the bands" if name == RAW else f"where it began ({name})"
            how = "no better than" if gain > -CHANCE else "worse than"
            yield f"The probe is {how} {what}: R2 {probe[own]:.3f} against {value:.3f}."
    told = [(row["probe_r2"], row["step"]) for row in rows if row.get("probe_r2") is not None]
    best = max(told)
    if best[1] and best[0] - told[-1][0] > CHANCE:
        yield (
            f"The probe was better before: R2 {best[0]:.3f} at step {best[1]:,}, {told[-1][0]:.3f} at the end, which "
            "is kept."
        )


def _of_vectors(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    known = [row for row in rows if row.get("spread") is not None and row.get("effective_rank") is not None]
    if not known:
        yield "Spread and rank of the vectors are not known: they may hold numbers that are not finite."
        return
    first, last = known[0], known[-1]
    if last["spread"] < DYING or last["effective_rank"] < FEW_DIRECTIONS:
        yield (
            f"The vectors are near collapse: spread {last['spread']:.2g} of 1, {last['effective_rank']:.1f} directions."
            " Lower train.lr, give larger batches or stronger views."
        )
    elif last["effective_rank"] < NARROW * first["effective_rank"]:
        yield (
            f"The vectors narrowed from {first['effective_rank']:.1f} to {last['effective_rank']:.1f} directions: what "
            "the task does not ask for was forgotten."
        )


def _of_terms(config: PretrainConfig, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    if len(losses) > 2 and losses[-1] >= losses[0]:
        yield f"The loss did not fall: {losses[0]:.4g} at first, {losses[-1]:.4g} at the end."
    last = rows[-1]
    if getattr(config.method, "norm_pix", False):
        bad = [(key[4:], value) for key, value in last.items() if key.startswith("mae_")]
        for name, value in bad or [("the images", last["loss"])]:
            if value > UNLEARNT:
                yield (
                    f"Almost nothing within the hidden patches of {name} is told: error {value:.2f}, and 1 is a guess "
                    "of their mean."
                )
