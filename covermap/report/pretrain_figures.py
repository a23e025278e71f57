"""Figures of trainings without tables of their own: curves over steps or epochs, and what a probe tells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from covermap.report.figures import (
    _DASHES,
    _PAGE_IN,
    _TEXT_IN,
    INK,
    MANY,
    MUTED,
    RIGHT,
    RULE,
    SECOND,
    _cut,
    _new,
    _style,
    _svg_uri,
    _width_in,
    named_rows,
)

Points = Sequence[tuple[int, float]]
"""(step, value)."""


def step_curves(
    panels: Mapping[str, Mapping[str, Points]], lines: Mapping[str, float] | None = None, *, x: str = "step"
) -> str:
    """A chart over `x` for each title, with a line for each name; `lines`: a level that a title is told with."""
    with _style():
        wide = len(panels) > 2
        size = (_PAGE_IN if wide else _TEXT_IN, 2.8)
        figure, all_axes = _new(size, (0.55, 0.15, 0.5, 0.35), columns=len(panels))
        for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
            for i, (name, points) in enumerate(curves.items()):
                at, y = zip(*points, strict=True)
                style: Any = {"color": MANY[i % len(MANY)], "ls": _DASHES[i // len(MANY) % len(_DASHES)]}
                axes.plot(at, y, lw=1.6, marker="o", ms=3, label=name, **style)
            if lines and title in lines:
                axes.axhline(lines[title], color=MUTED, lw=1, ls=(0, (4, 3)), zorder=0)
            axes.set_title(title)
            axes.set_xlabel(x)
            axes.grid(color=RULE, lw=0.7)
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.yaxis.set_major_formatter("{x:g}")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            if len(curves) > 1:
                axes.legend(frameon=False, fontsize=8, handlelength=1.4, labelspacing=0.3)
        return _svg_uri(figure)


def probe_bars(values: Mapping[str, float], *, own: Collection[str]) -> str:
    """R2 of a probe on each kind of features; `own` are blue, what they have to beat is grey."""
    with _style():
        short = _cut(list(values))
        figure, (axes,) = _new((_TEXT_IN, 0.6 + 0.36 * len(values)), (_width_in(short), 0.5, 0.48, 0.05))
        rows, found = np.arange(len(values)), np.array(list(values.values()))
        axes.barh(rows, found, 0.62, color=[RIGHT if name in own else SECOND for name in values])
        axes.axvline(0, color=INK, lw=0.8)
        for row, value in zip(rows, found, strict=True):
            axes.annotate(f"{value:.3f}", (max(value, 0), row), (6, 0), textcoords="offset points", va="center")
        axes.set(ylim=(len(values) - 0.4, -0.6), xlim=(min(0, 1.1 * found.min()), max(0.05, 1.12 * found.max())))
        axes.set_xlabel("R2 of the probe, of windows it did not learn from")
        named_rows(axes, short)
        return _svg_uri(figure)
