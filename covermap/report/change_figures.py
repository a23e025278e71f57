"""Figures of what became what: a matrix in hectares, losses and gains, and flows from class to class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.report import drawing

OTHERS = "all others"


class Flow(NamedTuple):
    """Hectares that went from a class to another."""

    source: str
    target: str
    area_ha: float


def transition_heat(names: Sequence[str], hectares: npt.ArrayLike) -> str:
    """Transition matrix (K, K), before in rows, after in columns: hectares, shaded by them; what stayed is grey."""
    table = np.asarray(hectares, np.float64)
    k, away = len(table), ~np.eye(len(table), dtype=bool)
    share = table / max(float(table[away].max(initial=0)), 1e-12)
    with drawing.style():
        short, room = drawing.cut_names(names), drawing.width_in(drawing.cut_names(names))
        margins = (0.22 + room, 0.05 + 0.6 * drawing.width_in(short[-1:]), 0.05, 0.25 + 0.64 * room)
        side = min(0.62, max(0.42, (drawing.PAIR_IN - margins[0] - margins[1]) / k) if k <= 16 else 7.4 / k)
        figure, (axes,) = drawing.new_figure((sum(margins[:2]) + side * k, sum(margins[2:]) + side * k), margins)
        grey = np.array([int(drawing.RULE[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        axes.imshow(np.where(away[..., None], drawing.shade(share, drawing.WRONG), grey), interpolation="none")
        for row, col in np.ndindex(k, k) if k <= 16 else ():
            if table[row, col] > 0:
                colour = (
                    "white"
                    if away[row, col] and share[row, col] > 0.5
                    else drawing.INK
                    if away[row, col]
                    else drawing.MUTED
                )
                area = float(table[row, col])
                text = drawing.short_count(area) if area >= 10 else f"{area:.1f}" if area >= 0.05 else "<0.1"
                axes.text(col, row, text, ha="center", va="center", size=7.5, color=colour)
        drawing.matrix_axes(axes, short, "after", "before")
        return drawing.svg_uri(figure)


def change_bars(
    names: Sequence[str], colours: Sequence[str], gain_ha: Sequence[float], loss_ha: Sequence[float]
) -> str:
    """Hectares that each class lost, to the left, and gained, to the right; a diamond for the net change."""
    with drawing.style():
        short = drawing.cut_names(names)
        figure, (axes,) = drawing.new_figure(
            (drawing.TEXT_IN, 0.95 + 0.32 * len(names)), (drawing.width_in(short), 0.15, 0.48, 0.42)
        )
        rows, gain, loss = np.arange(len(names)), np.asarray(gain_ha, float), np.asarray(loss_ha, float)
        axes.barh(rows, gain, 0.68, color=list(colours), edgecolor=drawing.INK, linewidth=0.6)
        axes.barh(rows, -loss, 0.68, color=list(colours), edgecolor=drawing.INK, linewidth=0.6, alpha=0.55)
        axes.plot(gain - loss, rows, "D", ms=5.5, mfc="white", mec=drawing.INK, mew=1.2, ls="none", label="net change")
        axes.axvline(0, color=drawing.INK, lw=0.8)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="hectares lost (left) and gained (right)")
        axes.set_yticks(rows, short, color=drawing.INK)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):,.6g}")
        axes.grid(axis="x", color=drawing.RULE, lw=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0)
        return drawing.svg_uri(figure)


def flow_bands(flows: Sequence[Flow], colours: Mapping[str, str], rest_ha: float = 0.0) -> str:
    """A Sankey of what changed: a band for each flow in the colour of the class that came, `rest_ha` in grey.

    Classes stand in the order of `colours`, with their hectares; heights are in proportion to hectares.
    """
    every = [*flows, *([Flow(OTHERS, OTHERS, rest_ha)] if rest_ha > 0 else [])]
    order = {name: i for i, name in enumerate([*colours, OTHERS])}
    sides = [_sums(every, side, order) for side in ("source", "target")]
    shown = {**{name: drawing.SECOND for side in sides for name in side}, **colours}
    tall, gap = 1.2 + 0.3 * max(map(len, sides)), 0.2
    scale = (tall - gap * max(map(len, sides))) / sum(flow.area_ha for flow in every)
    room = 0.75 + drawing.width_in(drawing.cut_names([name for side in sides for name in side]))
    with drawing.style():
        figure, (axes,) = drawing.new_figure((drawing.TEXT_IN, tall + 0.35), (room, room, 0.05, 0.3))
        wide = drawing.TEXT_IN - 2 * room
        axes.set(xlim=(0, wide), ylim=(tall, 0))
        axes.set_axis_off()
        tops = [_places(side, scale, gap, tall) for side in sides]
        for x, side, places, away in zip((0.0, wide), sides, tops, ("right", "left"), strict=True):
            for name, area in side.items():
                inner = (x, places[name]) if not x else (x - 0.12, places[name])
                axes.add_patch(_box(inner, area * scale, shown[name]))
                label = f"{drawing.cut_names([name])[0]}  {_hectares(area)}"
                at = (x + (-0.08 if away == "right" else 0.08), places[name] + area * scale / 2)
                axes.text(*at, label, ha=away, va="center", size=8.5, color=drawing.INK, clip_on=False)
            axes.text(x, -0.12, "before, ha" if away == "right" else "after, ha", ha=away, va="center",
                      size=8.5, color=drawing.MUTED, clip_on=False)  # fmt: skip
        left, right = (dict(places) for places in tops)
        for flow in sorted(every, key=lambda one: (order.get(one.source, -1), order.get(one.target, -1))):
            high = flow.area_ha * scale
            axes.add_patch(_band(left[flow.source], right[flow.target], high, (0.12, wide - 0.12), shown[flow.target]))
            left[flow.source] += high
            right[flow.target] += high
        return drawing.svg_uri(figure)


def _sums(flows: Sequence[Flow], side: str, order: Mapping[str, int]) -> dict[str, float]:
    """Hectares of each class on a side, in order."""
    found: dict[str, float] = {}
    for flow in flows:
        name = getattr(flow, side)
        found[name] = found.get(name, 0.0) + flow.area_ha
    return dict(sorted(found.items(), key=lambda pair: order.get(pair[0], -1)))


def _places(side: Mapping[str, float], scale: float, gap: float, tall: float) -> dict[str, float]:
    """Where each class begins, from above; gaps are evenly shared."""
    free = tall - scale * sum(side.values())
    gap = max(gap, free / max(1, len(side)))
    found, at = {}, gap / 2
    for name, area in side.items():
        found[name] = at
        at += area * scale + gap
    return found


def _box(corner: tuple[float, float], high: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 0.12, high, facecolor=colour, edgecolor=drawing.INK, linewidth=0.5)


def _band(left: float, right: float, high: float, ends: tuple[float, float], colour: str) -> Any:
    """A band that leaves and arrives level."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (a, b), middle = ends, sum(ends) / 2
    points = [(a, left), (middle, left), (middle, right), (b, right),
              (b, right + high), (middle, right + high), (middle, left + high), (a, left + high),
              (a, left)]  # fmt: skip
    curve = [Path.CURVE4] * 3
    path = Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
    return PathPatch(path, facecolor=colour, alpha=0.55, edgecolor=colour, linewidth=0.3)


def _hectares(area: float) -> str:
    return f"{area:,.0f}" if area >= 10 else f"{area:.1f}" if area >= 0.05 else "<0.1"
