"""Figures of trainings without tables of their own: curves over steps or epochs, and what a probe tells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from covermap.report import drawing

Points = Sequence[tuple[int, float]]
"""(step, value)."""


def step_curves(
    panels: Mapping[str, Mapping[str, Points]], lines: Mapping[str, float] | None = None, *, x: str = "step"
) -> str:
    """A chart over `x` for each title, with a line for each name; `lines`: a level that a title is told with."""
    with drawing.style():
        wide = len(panels) > 2
        size = (drawing.PAGE_IN if wide else drawing.TEXT_IN, 2.8)
        figure, all_axes = drawing.new_figure(size, (0.55, 0.15, 0.5, 0.35), columns=len(panels))
        for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
            for i, (name, points) in enumerate(curves.items()):
                at, y = zip(*points, strict=True)
                style: Any = {
                    "color": drawing.MANY[i % len(drawing.MANY)],
                    "ls": drawing.DASHES[i // len(drawing.MANY) % len(drawing.DASHES)],
                }
                axes.plot(at, y, lw=1.6, marker="o", ms=3, label=name, **style)
            if lines and title in lines:
                axes.axhline(lines[title], color=drawing.MUTED, lw=1, ls=(0, (4, 3)), zorder=0)
            axes.set_title(title)
            axes.set_xlabel(x)
            axes.grid(color=drawing.RULE, lw=0.7)
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.yaxis.set_major_formatter("{x:g}")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            if len(curves) > 1:
                axes.legend(frameon=False, fontsize=8, handlelength=1.4, labelspacing=0.3)
        return drawing.svg_uri(figure)


def probe_bars(values: Mapping[str, float], *, own: Collection[str]) -> str:
    """R2 of a probe on each kind of features; `own` are blue, what they have to beat is grey."""
    with drawing.style():
        short = drawing.cut_names(list(values))
        figure, (axes,) = drawing.new_figure(
            (drawing.TEXT_IN, 0.6 + 0.36 * len(values)), (drawing.width_in(short), 0.5, 0.48, 0.05)
        )
        rows, found = np.arange(len(values)), np.array(list(values.values()))
        axes.barh(rows, found, 0.62, color=[drawing.RIGHT if name in own else drawing.SECOND for name in values])
        axes.axvline(0, color=drawing.INK, lw=0.8)
        for row, value in zip(rows, found, strict=True):
            axes.annotate(f"{value:.3f}", (max(value, 0), row), (6, 0), textcoords="offset points", va="center")
        axes.set(ylim=(len(values) - 0.4, -0.6), xlim=(min(0, 1.1 * found.min()), max(0.05, 1.12 * found.max())))
        axes.set_xlabel("R2 of the probe, of windows it did not learn from")
        drawing.named_rows(axes, short)
        return drawing.svg_uri(figure)
