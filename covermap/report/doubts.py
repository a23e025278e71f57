"""What a reader should distrust in a run: each check returns sentences, from the files of the run alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covermap.core.config import RunConfig
from covermap.core.task import KINDS, LOW_IS_GOOD
from covermap.data.split import Split
from covermap.report.areas import interval_of, is_apart, sensible

if TYPE_CHECKING:
    from covermap.report.changes import Comparison

FEW_PX, FEW_CHIPS = 200, 30
"""Reference pixels below which a class's scores say little."""
MOST_AREAS = 4
"""Classes whose counted areas are doubted by name."""
LOW_IOU = 0.3
MUCH_WORSE = 0.2
"""IoU by which the network may fall behind the random forest on a class before it is said."""
STILL_RISING = 0.005
"""Gain in the last tenth of training above which it was not finished."""
SCORE_DROP = 0.1
"""mIoU on val minus mIoU on test above which the choice on val was lucky or the parts differ."""


def find_doubts(
    config: RunConfig,
    *,
    split: Split | None = None,
    notes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    log: Sequence[Mapping[str, Any]] = (),
    chosen_epoch: int | None = None,
    areas: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    changes: Sequence[Comparison] = (),
) -> list[str]:
    """Sentences on what may be wrong with a run's data, split, scores and training; empty when nothing was found.

    areas: by map, what `assess` says of its classes.
    """
    found = list(_of_split(split)) if split else []
    if metrics is not None:
        found += _of_part(metrics)
        kind = KINDS[metrics.get("task", "segmentation")].takes
        if kind in ("classes", "order", "transitions"):
            found += _of_classes(metrics)
        found += _of_models(metrics) if kind in ("classes", "order") else _of_other_answers(metrics)
    if log:
        found += [*_of_length(config, log), *_of_gap(config, log)]
    if metrics is not None and log:
        found += _of_choice(metrics, log, chosen_epoch)
    found += [*_of_areas(areas or {}), *_of_changes(changes)]
    # The split's own notes on leaks and absent classes are said above in other words.
    said = tuple(f"split {s.method}:" for s in [split] if s) + tuple(f"{m['part']} has no" for m in [metrics] if m)
    return found + [_sentence(note) for note in notes if not note.startswith(said)]


def rising_score(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(epoch, score) of the validations in the log, a monitored loss with its sign changed."""
    key, sign = config.monitor
    return [(r["epoch"], sign * r[key]) for r in log if r.get(key) is not None]


def _of_split(split: Split) -> Iterator[str]:
    if split.method in ("random", "stratified"):
        yield (
            f"The split is {split.method}: neighbouring pixels stand on both sides, so the scores are too good. "
            "Split by blocks (split.method: blocks) to see how the model does on new ground."
        )
    elif split.method in ("blocks", "kfold") and split.buffer_px == 0:
        yield "The blocks of the split touch (buffer_px: 0): labels next to each other stand on both sides."


def _of_part(metrics: Mapping[str, Any]) -> Iterator[str]:
    if not metrics["is_test"]:
        yield _sentence(metrics["note"] or f"{metrics['part']} is no test part")


def _of_classes(metrics: Mapping[str, Any]) -> Iterator[str]:
    part = metrics["part"]
    first = next(iter(metrics["models"].values()))["per_class"]
    absent = [_name(row) for row in first if not row["reference_px"]]
    few = [f"{_name(row)} ({row['reference_px']:,.0f} px)" for row in first if 0 < row["reference_px"] < FEW_PX]
    if absent:
        yield f"No {part} pixel shows {_listed(absent)}: nothing is known about how well the map finds it."
    if few:
        yield f"Very few {part} pixels show {_listed(few)}: these scores may be chance."
    name, result = next(iter(metrics["models"].items()))
    present = [row for row in result["per_class"] if row["iou"] is not None]
    never = [f"{_name(r)} ({r['reference_px']:,.0f} {part} px)" for r in present if r["users"] is None]
    low = [f"{_name(r)} (IoU {r['iou']:.2f})" for r in present if r["users"] is not None and r["iou"] < LOW_IOU]
    if never:
        yield f"The {name} never maps {_listed(never)}."
    if low:
        yield f"The {name} mostly misses or confuses {_listed(low)}."


def _name(row: Mapping[str, Any]) -> str:
    """Of a class; of one of two dates without the comma, which would look like another class of a list."""
    name: str = row["class"]
    for when in ("before", "after"):
        name = f"{name.removesuffix(f', {when}')} {when}" if name.endswith(f", {when}") else name
    return name


def _of_models(metrics: Mapping[str, Any]) -> Iterator[str]:
    models = metrics["models"]
    if {"network", "random forest"} <= set(models):
        network, forest = (models[name]["scores"] for name in ("network", "random forest"))
        if network["miou"] <= forest["miou"]:
            yield (
                f"The network (mIoU {network['miou']:.3f}) is not better than the random forest on single pixels "
                f"({forest['miou']:.3f}): the forest is the simpler choice."
            )
        lead = metrics.get("comparison", {}).get("miou", {})
        if network["miou"] > forest["miou"] and lead.get("low", 1) <= 0:
            yield (
                f"The network's lead over the random forest (mIoU +{lead['value']:.3f}) may be chance: its 95 % "
                f"interval over {lead['count']} blocks is {lead['low']:.3f} to {lead['high']:.3f}."
            )
        pairs = zip(models["network"]["per_class"], models["random forest"]["per_class"], strict=True)
        worse = [
            f"{ours['class']} (IoU {theirs['iou']:.2f} against {ours['iou']:.2f})"
            for ours, theirs in pairs
            if ours["iou"] is not None and theirs["iou"] - ours["iou"] > MUCH_WORSE
        ]
        if worse:
            yield f"The random forest is much better than the network at {_listed(worse)}."


def _of_other_answers(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Of several classes at once, and of numbers."""
    key = KINDS[metrics["task"]].scores[0]
    shown = {name: result["scores"][key] for name, result in metrics["models"].items()}
    network, forest = shown.get("network"), shown.get("random forest")
    if network is not None and forest is not None:
        behind = network >= forest if key in LOW_IS_GOOD else network <= forest
        if behind:
            yield (
                f"The network ({key} {network:.4g}) is not better than the random forest ({forest:.4g}): the forest is "
                "the simpler choice."
            )
    first = next(iter(metrics["models"].values()))["scores"]
    if (r2 := first.get("r2")) is not None and r2 <= 0:
        yield f"R2 is {r2:.3f}: the mean of the train part would be as good a guess as the model's numbers."
    count = first.get("num_chips", first.get("num_pairs", FEW_CHIPS))
    if count < FEW_CHIPS:
        yield f"The {metrics['part']} part has {count} answers to compare with: these scores may be chance."


def _of_length(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    scores = rising_score(config, log)
    last = log[-1]["epoch"]
    if last < config.train.epochs and config.train.patience is None:
        yield f"Training was stopped after epoch {last} of {config.train.epochs}; go on with --resume."
    elif last >= config.train.epochs and len(scores) > 2:
        before = [score for epoch, score in scores if epoch <= 0.9 * last]
        if before and scores[-1][1] == max(s for _, s in scores) and scores[-1][1] > max(before) + STILL_RISING:
            yield (
                f"The score on val ({config.monitor[0]}) was still improving when training ended at epoch {last}: "
                "more epochs (train.epochs) would probably help."
            )


def _of_gap(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Train and val differ in weights, augmentation and maybe kind (val: cross entropy): only a large gap counts."""
    rows = [r for r in log if r.get("val_loss") is not None and r.get("loss") is not None]
    if not rows:
        return
    last, lowest = rows[-1], min(rows, key=lambda r: float(r["val_loss"]))
    if last["val_loss"] > 1.3 * lowest["val_loss"] and last["loss"] < lowest["loss"]:
        yield (
            f"The val loss rose from {lowest['val_loss']:.3f} (epoch {lowest['epoch']}) to {last['val_loss']:.3f} "
            "while the train loss fell: the network learns the training labels by heart."
        )
    elif (
        config.loss == "cross_entropy" and last["val_loss"] > 2 * last["loss"] and last["val_loss"] - last["loss"] > 0.3
    ):
        yield (
            f"The val loss ({last['val_loss']:.3f}) is far above the train loss ({last['loss']:.3f}): the val part "
            "differs from the train part, or the network learns the training labels by heart."
        )


def _of_choice(metrics: Mapping[str, Any], log: Sequence[Mapping[str, Any]], chosen_epoch: int | None) -> Iterator[str]:
    row = next((r for r in log if r["epoch"] == chosen_epoch and r.get("val_miou") is not None), None)
    network = metrics["models"].get("network")
    if row and network and metrics["is_test"] and row["val_miou"] - network["scores"]["miou"] > SCORE_DROP:
        yield (
            f"The mean IoU is {row['val_miou']:.3f} on val, which chose the checkpoint, but "
            f"{network['scores']['miou']:.3f} on {metrics['part']}: expect the lower one, or less, elsewhere."
        )


def _of_areas(areas: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    for name, rows in areas.items():
        apart = [row for row in rows if is_apart(row)]
        worst = sorted(apart, key=lambda row: -abs(row["mapped_ha"] - row["area_ha"]))[:MOST_AREAS]
        said = [
            f"{sensible(row['mapped_ha'], row['ci95_ha'])} ha of {row['name']}, the sample says "
            f"{sensible(row['area_ha'], row['ci95_ha'])}\N{NO-BREAK SPACE}{interval_of(row)}"
            for row in worst
        ]
        said += [f"so it is with {len(apart) - len(worst)} more classes"] if len(apart) > len(worst) else []
        if said:
            yield f"{'The map' if name == 'map.tif' else f'The map {name}'} counts {'; '.join(said)}: use the sample's."


def _of_changes(changes: Sequence[Comparison]) -> Iterator[str]:
    """Counted change is the difference of two maps, of which each is wrong somewhere."""
    for one in changes:
        counted, name, sure = one.in_map["area_ha"], one.files[0], one.estimate
        if one.stale:
            yield f"{name} was made of another {_listed(one.stale)} than there is now: make it anew (covermap change)."
        if sure is None:
            yield (
                f"{name} counts {counted:,.4g} ha of change. Errors of both maps add up, and all look like change: "
                "this is no estimate of an area until points of it are interpreted (covermap sample, covermap assess)."
            )
        elif sure["is_apart"]:
            yield (
                f"{name} counts {sensible(counted, sure['ci95_ha'])} ha of change, the sample says "
                f"{sensible(sure['area_ha'], sure['ci95_ha'])}\N{NO-BREAK SPACE}{interval_of(sure)}: use the sample's."
            )
        if one.found["false_change"]:
            yield f"{name}: {one.found['false_change']['in_words']}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _sentence(note: str) -> str:
    """A note as a sentence; one that begins with a file's name keeps it as it is."""
    note = note.strip()
    first = note.split(maxsplit=1)[0] if note else ""
    return (note[:1].upper() + note[1:] if first.isalpha() else note) + ("" if note.endswith((".", "!", "?")) else ".")
