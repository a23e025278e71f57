"""Figures of studies: lines with bands over a number, bars with whiskers over names, heat of two kinds of levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from covermap.report import drawing

Mean = tuple[float, float]
"""A mean and its standard deviation, which may be NaN."""


def band_lines(
    series: Mapping[str, Sequence[tuple[float, float, float]]], *, x: str, y: str, log: bool = False,
    baseline: str = "",
) -> str:  # fmt: skip
    """A line of (x, mean, sd) for each name with a band of one sd either way; that called `baseline` is grey."""
    with drawing.style():
        figure, (axes,) = drawing.new_figure(
            (drawing.PAGE_IN, 4.0), (0.65, 0.5 + drawing.width_in(list(series) or [""]), 0.5, 0.12)
        )
        colours = iter(drawing.MANY[:5] * 4)
        for i, (name, points) in enumerate(series.items()):
            known = np.array([point for point in sorted(points) if point[1] == point[1]], np.float64).reshape(-1, 3)
            colour = drawing.SECOND if name == baseline else next(colours)
            dashes = (0, (1.5, 1.5)) if name == baseline else drawing.DASHES[i // 5 % len(drawing.DASHES)]
            at, mean, sd = known[:, 0], known[:, 1], np.nan_to_num(known[:, 2])
            axes.fill_between(at, mean - sd, mean + sd, color=colour, alpha=0.16, lw=0)
            axes.plot(at, mean, color=colour, ls=dashes, lw=1.8, marker="o", ms=4, label=name)
        if log:
            axes.set_xscale("log")
            ticks = sorted({point[0] for points in series.values() for point in points})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        axes.set(xlabel=x, ylabel=drawing.SCORES.get(y.removeprefix("val_"), y))
        axes.grid(color=drawing.RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return drawing.svg_uri(figure)


def whisker_bars(values: Mapping[str, Mean], *, y: str, baseline: Mapping[str, Mean] | None = None) -> str:
    """A bar for each name with a whisker of one sd either way; `baseline` has grey diamonds at the same names."""
    with drawing.style():
        short = drawing.cut_names(list(values), 40)
        legend_in = 0.42 if baseline else 0.1
        size = (drawing.TEXT_IN, 0.55 + legend_in + 0.34 * len(values))
        figure, (axes,) = drawing.new_figure(size, (drawing.width_in(short), 0.6, 0.48, legend_in))
        rows = np.arange(len(values))
        means, sds = (np.array([pair[i] for pair in values.values()], np.float64) for i in (0, 1))
        axes.barh(rows, means, 0.62, color=drawing.RIGHT, alpha=0.85)
        known = np.isfinite(sds)  # of a single run there is no spread, which is not one of 0
        axes.errorbar(
            means[known], rows[known], xerr=sds[known], fmt="none", ecolor=drawing.INK, elinewidth=1.2, capsize=3
        )
        reach = 0.12 * float(np.ptp(axes.get_xlim()))
        for row, (name, (mean, sd)) in enumerate(values.items()):
            end = mean + (sd if sd == sd else 0)
            beside = baseline[name][0] if baseline and name in baseline else end
            end = beside if 0 < beside - end < reach else end  # the diamond is not written over
            axes.annotate(f"{mean:.3f}", (end, row), (6, 0), textcoords="offset points",
                          va="center", color=drawing.INK)  # fmt: skip
        if baseline:
            beside_it = [(baseline[name][0], row) for row, name in enumerate(values) if name in baseline]
            axes.plot(*zip(*beside_it, strict=True), "D", ms=6, mfc="white", mec=drawing.INK, mew=1.2, ls="none",
                      label="random forest beside it")  # fmt: skip
            axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0)
        axes.set(ylim=(len(values) - 0.4, -0.6), xlabel=drawing.SCORES.get(y, y))
        drawing.named_rows(axes, short)
        return drawing.svg_uri(figure)


def level_heat(
    rows: Sequence[str], columns: Sequence[str], values: Mapping[tuple[str, str], Mean], *, down: str, across: str
) -> str:
    """Mean and sd of each pair of levels, shaded by the mean between the least and the most; absent pairs are white."""
    table = np.full((len(rows), len(columns)), np.nan)
    for (row, column), (mean, _) in values.items():
        table[rows.index(row), columns.index(column)] = mean
    low, high = (np.nanmin(table), np.nanmax(table)) if np.isfinite(table).any() else (0.0, 1.0)
    share = (table - low) / max(float(high - low), 1e-12)
    with drawing.style():
        short = drawing.cut_names(rows)
        margins = (0.3 + drawing.width_in(short), 0.2, 0.1, 0.45 + 0.4 * drawing.width_in(drawing.cut_names(columns)))
        size = (sum(margins[:2]) + 1.0 * len(columns), sum(margins[2:]) + 0.5 * len(rows))
        figure, (axes,) = drawing.new_figure(size, margins)
        picture = np.where(np.isfinite(table)[..., None], drawing.shade(np.nan_to_num(share), drawing.RIGHT), 1.0)
        axes.imshow(picture, interpolation="none", aspect="auto")
        for (row, column), (mean, sd) in values.items():
            at = rows.index(row), columns.index(column)
            text = f"{mean:.3f}" + (f"\n±{sd:.3f}" if sd == sd else "")
            axes.text(
                at[1], at[0], text, ha="center", va="center", size=8, color="white" if share[at] > 0.5 else drawing.INK
            )
        turned = {"rotation": 30, "ha": "left"} if max(map(len, columns)) > 10 else {}
        axes.set_xticks(np.arange(len(columns)), drawing.cut_names(columns), color=drawing.INK, **turned)
        axes.set_yticks(np.arange(len(rows)), short, color=drawing.INK)
        axes.set(xlabel=across, ylabel=down)
        axes.xaxis.set(label_position="top", ticks_position="top")
        axes.tick_params(length=0, labelcolor=drawing.INK)
        axes.xaxis.label.set_color(drawing.MUTED)
        axes.spines[:].set_visible(False)
        return drawing.svg_uri(figure)
