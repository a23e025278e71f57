"""What the figures of a run say, in sentences made of their numbers; empty where there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from covermap.core.scored import hectares, percent, score
from covermap.core.task import KINDS

_NAMED = 3
"""Confusions and flows that a sentence names."""
OTHER_MIX = 0.15
"""Share of test labels that would have to be of another class above which train is said to be mixed otherwise."""


def of_classes(metrics: Mapping[str, Any], table: str, key: str, title: str) -> str:
    """Which class is told best and worst, and where the first model gains on the second."""
    (name, first), *others = metrics["models"].items()
    known = {row["class"]: row[key] for row in first[table] if row[key] is not None}
    if len(known) < 2:
        return ""
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    if known[best] == known[worst]:
        return f"The {name} tells all {len(known)} classes alike ({title} {score(known[best], 2)})."
    text = f"The {name} tells {best} best ({title} {score(known[best], 2)}), {worst} worst ({score(known[worst], 2)})."
    for other, result in others[:1]:
        gains = {row["class"]: known[row["class"]] - row[key] for row in result[table]
                 if row[key] is not None and row["class"] in known}  # fmt: skip
        if len(gains) > 1 and len(set(gains.values())) > 1:
            most, least = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
            text += f" Over the {other} it gains most on {most} ({_signed(gains[most])}), "
            text += f"least on {least} ({_signed(gains[least])})."
    return text


def of_confusion(metrics: Mapping[str, Any]) -> str:
    """The commonest errors of the first model, and their share of all."""
    name, first = next(iter(metrics["models"].items()))
    if "confusion" not in first:
        return ""
    table, names = np.asarray(first["confusion"], np.float64), metrics["classes"]
    wrong = table * (1 - np.eye(len(table)))
    what = "chips" if KINDS[metrics.get("task", "segmentation")].chips else "pixels"
    if not wrong.any():
        return f"The {name} is right on all {table.sum():,.0f} {what}." if table.any() else ""
    order = [divmod(int(at), len(table)) for at in np.argsort(-wrong, axis=None, kind="stable")[:_NAMED]]
    worst = [(i, j) for i, j in order if wrong[i, j]]
    said = [
        f"{names[i]} called {names[j]} ({percent(wrong[i, j] / table[i].sum(), 0)} of {names[i]})" for i, j in worst
    ]
    share = sum(wrong[at] for at in worst) / wrong.sum()
    number = f"{len(said)} kinds make up" if len(said) > 1 else "One kind makes up"
    return f"{number} {percent(share, 0)} of the {name}'s {wrong.sum():,.0f} wrong {what}: {', '.join(said)}."


def of_reliability(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """By how many points each model is too sure, or not sure enough."""
    said = []
    for name, rows in tables.items():
        full = [row for row in rows if row["num_pixels"]]
        total = sum(row["num_pixels"] for row in full)
        if total:
            sure, right = (
                sum(row["num_pixels"] * row[key] for row in full) / total for key in ("confidence", "accuracy")
            )
            side = "too sure" if sure > right else "not sure enough"
            said.append(
                f"the {name} gives its answers {percent(sure)} on average, {percent(right)} are right: "
                f"{side} by {100 * abs(sure - right):.1f} points"
            )
    return f"{'; '.join(said)}."[:1].upper() + f"{'; '.join(said)}."[1:] if said else ""


def of_curves(log: Sequence[Mapping[str, Any]], monitor: str) -> str:
    """How the losses and the monitored score moved."""
    said = []
    for key, name in (("loss", "the train loss"), ("val_loss", "the val loss")):
        values = [row[key] for row in log if row.get(key) is not None]
        if len(values) > 1:
            way = "fell" if values[-1] < values[0] else "rose"
            said.append(f"{name} {way} from {values[0]:.3g} to {values[-1]:.3g}")
    points = [(row[monitor], row["epoch"]) for row in log if monitor and row.get(monitor) is not None]
    if len(points) > 1 and monitor != "val_loss":
        said.append(f"{monitor} went from {points[0][0]:.3f} (epoch {points[0][1]}) to {points[-1][0]:.3f}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def of_split(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """How far the mix of classes of test is from that of train, and for which class most."""
    train, test = (np.asarray(counts.get(part, [0] * len(names)), np.float64) for part in ("train", "test"))
    if not train.sum() or not test.sum():
        return ""
    train, test = train / train.sum(), test / test.sum()
    apart, at = float(np.abs(train - test).sum() / 2), int(np.abs(train - test).argmax())
    text = (
        f"{percent(apart, 0)} of the test labels would have to be of another class for the mix of train; "
        f"farthest apart is {names[at]} ({percent(float(train[at]))} of train, {percent(float(test[at]))} of test)."
    )
    if apart > OTHER_MIX:
        text += " Overall agreement depends on that mix: believe the scores of classes first."
    return text


def of_flows(changes: Sequence[Mapping[str, Any]]) -> str:
    """The largest transitions and their share of all change; `changes`: the largest first."""
    total = sum(row["area_ha"] for row in changes)
    if len(changes) < 2 or not total:
        return ""
    largest = changes[:_NAMED]
    said = [f"{row['from']} to {row['to']} ({hectares(row['area_ha'])} ha)" for row in largest]
    share = sum(row["area_ha"] for row in largest) / total
    return f"The largest are {', '.join(said)}: {percent(share, 0)} of all counted change."


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else chr(0x2212)}{abs(value):.2f}"
