"""Maps of several dates in one legend: their own, where it is the same, else by crosswalks that a user asks for."""

from __future__ import annotations

from collections.abc import Sequence

from covermap.core.crosswalk import Crosswalk, meet
from covermap.core.errors import LabelError
from covermap.core.legend import Legend
from covermap.data.class_map import ClassMap, find_target

_SHOWN = 6


def ways_to_one_legend(
    maps: Sequence[ClassMap], *, target: str | None = None, own: Sequence[Crosswalk] = ()
) -> list[Crosswalk]:
    """The way of each map to the legend in which all are compared.

    Without target and crosswalks of one's own all must be of one legend; of such that only lack classes the union is
    taken. Raises LabelError.
    """
    legends = [each.legend for each in maps]
    if target is None and not own:
        if (union := _union(maps)) is None:
            raise _differ(maps)
        return [Crosswalk.identity(union).of(legend) for legend in legends]
    if target is not None:
        find_target(target, tuple(one.target for one in own))  # says so where there is no such legend
    elif (union := _union(maps)) is not None:
        legend_to_compare_in(union, own=own)
    first, _ = meet(legends[0], legends[-1], own=own, target=target)
    pairs = [meet(legends[0], legend, own=own, target=first.target.name) for legend in legends[1:]]
    goal = max((way.target for pair in pairs for way in pair), key=len)
    ways = [pairs[0][0], *(other for _, other in pairs)]
    return [Crosswalk(w.source, goal, w.codes, w.basis, w.notes, w.route, w.whole) for w in ways]


def legend_to_compare_in(legend: Legend, *, target: str | None = None, own: Sequence[Crosswalk] = ()) -> Legend:
    """That in which `ways_to_one_legend` compares maps that all are of one legend; raises LabelError."""
    if target is None and not own:
        return legend
    if target is None:
        raise LabelError(
            f"all maps are of legend {legend.name!r}, a crosswalk alone brings them to no other",
            fix=f"say to which: --as {own[0].target.name}, or leave --crosswalk out",
        )
    find_target(target, tuple(one.target for one in own))
    return meet(legend, legend, own=own, target=target)[0].target


def _union(maps: Sequence[ClassMap]) -> Legend | None:
    """The classes of all legends; None where they contradict each other, or only happen to share some."""
    legends = [each.legend for each in maps]
    classes = [{(c.code, c.name.lower()) for c in legend.classes} for legend in legends]
    largest = max(legends, key=len)
    union = set().union(*classes)
    if {(c.code, c.name.lower()) for c in largest.classes} == union:
        return largest
    known = len({code for code, _ in union}) == len(union) == len({name for _, name in union})
    inferred = all(each.inferred for each in maps)
    if not known or not (inferred or len({legend.name for legend in legends}) == 1):
        return None
    if len(union) > 254:
        raise LabelError(
            f"the maps hold {len(union)} classes together, a legend has at most 254",
            fix="bring them to a coarser legend first: covermap legend apply MAP OUT --crosswalk FILE.yaml",
        )
    return Legend.union(legends, name=largest.name)


def _differ(maps: Sequence[ClassMap]) -> LabelError:
    """What each legend is, and what brings them together."""
    said = "; ".join(f"{each.name} is in {_described(each.legend)}" for each in maps)
    try:
        best = meet(maps[0].legend, maps[-1].legend)[0].target.name
        fix = f"say in which legend they are to be compared: --as {best} (what has no counterpart there is ignored)"
    except LabelError:
        fix = "give the way from one to the other: --crosswalk FILE.yaml, or a legend that both reach: --as LEGEND"
    return LabelError(f"the maps are of different legends: {said}", fix=fix)


def _described(legend: Legend) -> str:
    listed = ", ".join(f"{c.code} {c.name}" for c in legend.classes[:_SHOWN])
    more = ", ..." if len(legend) > _SHOWN else ""
    return f"legend {legend.name!r} ({len(legend)} classes: {listed}{more})"
