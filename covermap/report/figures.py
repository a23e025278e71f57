"""Charts as SVG, as data URIs that stand inside the page; from plain arrays, without a display (report/drawing.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from covermap.report import drawing


def class_bars(
    names: Sequence[str], colours: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, title: str = "IoU"
) -> str:
    """A score from 0 to 1 of each class: a bar in its colour for the first model, a diamond for the second."""
    with drawing.style():
        short = drawing.cut_names(names)
        figure, (axes,) = drawing.new_figure(
            (drawing.PAGE_IN, 0.6 + 0.27 * len(names)), (drawing.width_in(short), 0.05, 0.48, 0.05)
        )
        first, *rest = scores
        rows = np.arange(len(names))
        axes.barh(
            rows, [v or 0 for v in scores[first]], 0.66, color=list(colours), edgecolor=drawing.INK, linewidth=0.6
        )
        for name in rest[:1]:
            known = [(v, row) for row, v in zip(rows, scores[name], strict=True) if v is not None]
            axes.plot(
                *zip(*known, strict=True), "D", ms=5.5, mfc="white", mec=drawing.INK, mew=1.2, ls="none", clip_on=False
            )
        for row, value, *others in zip(rows, *scores.values(), strict=True):
            end = value or 0
            if others and others[0] is not None and end - 0.02 < others[0] < end + 0.06:
                end = max(end, others[0])  # the number would lie on the diamond
            text = "absent" if value is None else f"{value:.2f}"
            axes.text(end + 0.015, row, text, va="center", color=drawing.MUTED if value is None else drawing.INK)
        axes.set(xlim=(0, 1.06), ylim=(len(names) - 0.4, -0.6), xlabel=title, xticks=np.linspace(0, 1, 6))
        drawing.named_rows(axes, short)
        return drawing.svg_uri(figure)


def part_bars(names: Sequence[str], counts: Mapping[str, Sequence[int]], colours: Mapping[str, str]) -> str:
    """Share of each class among the labelled pixels of each part: bars side by side in the colours of the parts."""
    with drawing.style():
        short = drawing.cut_names(names)
        figure, (axes,) = drawing.new_figure(
            (drawing.TEXT_IN, 0.95 + 0.34 * len(names)), (drawing.width_in(short), 0.2, 0.48, 0.42)
        )
        rows, high = np.arange(len(names)), 0.76 / len(counts)
        for i, (part, found) in enumerate(counts.items()):
            share = 100 * np.asarray(found, np.float64) / max(1, sum(found))
            at = rows + high * (i - (len(counts) - 1) / 2)
            axes.barh(at, share, high, color=colours[part], edgecolor="white", linewidth=0.4, label=part)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="% of the labelled pixels of the part")
        axes.xaxis.set_major_formatter("{x:g}")
        drawing.named_rows(axes, short)
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0)
        return drawing.svg_uri(figure)


def area_bars(
    names: Sequence[str], colours: Sequence[str], mapped_ha: Sequence[float],
    estimates: Sequence[tuple[float | None, float | None, float | None]], true_ha: Sequence[float] = (),
) -> str:  # fmt: skip
    """Hectares of each class: a bar for what is mapped, a point with its interval for (value, low, high), a line."""
    with drawing.style():
        short = drawing.cut_names(names)
        figure, (axes,) = drawing.new_figure(
            (drawing.TEXT_IN, 0.95 + 0.36 * len(names)), (drawing.width_in(short), 0.15, 0.48, 0.42)
        )
        rows = np.arange(len(names))
        axes.barh(rows, mapped_ha, 0.72, color=list(colours), edgecolor=drawing.INK, linewidth=0.6)
        for row, (value, low, high) in zip(rows, estimates, strict=True):
            ends = [value if end is None else end for end in (low, high)]
            for colour, lw, ms in (("white", 4.2, 8.4), (drawing.INK, 1.4, 5.6)) if value is not None else ():
                axes.plot(ends, [row, row], color=colour, lw=lw, solid_capstyle="butt", zorder=3)
                axes.plot(ends, [row, row], "|", color=colour, ms=ms + 3, mew=lw, zorder=3)
                axes.plot([value], [row], "o", color=colour, ms=ms, zorder=3)
        axes.plot([], [], "s", color=drawing.RULE, mec=drawing.INK, mew=0.6, ms=8, label="on the map")
        axes.plot([], [], "o-", color=drawing.INK, lw=1.4, ms=5.6, label="by the sample, with 95 % interval")
        for colour, lw in (("white", 5), (drawing.WRONG, 2.4)) if len(true_ha) else ():
            axes.plot(true_ha, rows, "|", color=colour, ms=22, mew=lw, zorder=2.5)
        if len(true_ha):
            axes.plot([], [], "|", color=drawing.WRONG, ms=11, mew=2.4, label="true")
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="hectares")
        axes.set_xlim(0, 1.04 * max([*mapped_ha, *true_ha, *(end or 0 for each in estimates for end in each)]) or 1)
        axes.set_yticks(rows, short, color=drawing.INK)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.grid(axis="x", color=drawing.RULE, lw=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0)
        return drawing.svg_uri(figure)


def confusion_heat(
    names: Sequence[str], counts: npt.ArrayLike, *, of: Literal["reference", "predicted"] = "reference"
) -> str:
    """Confusion matrix (K, K), reference in rows: shade and percent, counts below; right blue, wrong orange.

    of: what the percentages add up to 100 for, each row (what became of the reference) or each predicted column.
    """
    table = np.asarray(counts, np.float64)
    k = len(table)
    share = table / np.maximum(table.sum(1 if of == "reference" else 0, keepdims=True), 1)
    with drawing.style():
        short, room = drawing.cut_names(names), drawing.width_in(drawing.cut_names(names))
        margins = (0.22 + room, 0.05 + 0.6 * drawing.width_in(short[-1:]), 0.05, 0.25 + 0.64 * room)
        side = min(0.62, max(0.42, (drawing.PAIR_IN - margins[0] - margins[1]) / k) if k <= 16 else 7.4 / k)
        figure, (axes,) = drawing.new_figure((sum(margins[:2]) + side * k, sum(margins[2:]) + side * k), margins)
        picture = drawing.shade(share, drawing.RIGHT) * np.eye(k)[..., None] + drawing.shade(share, drawing.WRONG) * (
            1 - np.eye(k)[..., None]
        )
        axes.imshow(picture, interpolation="none")
        for row, col in np.ndindex(k, k) if k <= 16 else ():
            if table[row, col]:
                colour = "white" if share[row, col] > 0.5 else drawing.INK
                axes.text(col, row - 0.12, f"{share[row, col]:.0%}", ha="center", va="center", size=8.5, color=colour)
                axes.text(
                    col,
                    row + 0.25,
                    drawing.short_count(float(table[row, col])),
                    ha="center",
                    va="center",
                    size=6.3,
                    color=colour,
                )
        drawing.matrix_axes(axes, short, "predicted", "reference")
        return drawing.svg_uri(figure)


def reliability(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy by confidence of each model, over bins; the area of a mark is in proportion to the bin's pixels."""
    with drawing.style():
        figure, (axes,) = drawing.new_figure((drawing.PAIR_IN, 3.6), (0.6, 0.1, 0.5, 0.1))
        axes.plot([0, 1], [0, 1], color=drawing.MUTED, lw=0.9, ls=(0, (4, 3)))
        for (name, rows), colour in zip(tables.items(), (drawing.RIGHT, drawing.WRONG, drawing.SECOND), strict=False):
            full = [row for row in rows if row["num_pixels"]]
            total = sum(row["num_pixels"] for row in full)
            x, y = ([row[key] for row in full] for key in ("confidence", "accuracy"))
            axes.plot(x, y, color=colour, lw=1.4, label=name)
            axes.scatter(x, y, [8 + 160 * row["num_pixels"] / total for row in full], color=colour)
        axes.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="probability of the class that is mapped", ylabel="share that is right"
        )
        axes.grid(color=drawing.RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return drawing.svg_uri(figure)


def radar(names: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, title: str) -> str:
    """A score from 0 to 1 of each class on spokes, a ring for each of up to six models; absent classes leave a gap."""
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    columns = 3 if max(map(len, scores)) <= drawing.MAX_NAME else 1
    below = 0.55 + 0.22 * -(-len(scores) // columns)
    with drawing.style():
        figure, (axes,) = drawing.new_figure((drawing.PAIR_IN + 0.4, 3.95 + below), (1.1, 1.1, below, 0.85), polar=True)
        for (name, values), colour, dashes in zip(scores.items(), drawing.MANY, drawing.DASHES, strict=False):
            radius = np.array([np.nan if v is None else v for v in values], np.float64)
            axes.plot(
                np.append(angles, 2 * np.pi), np.append(radius, radius[0]), color=colour, ls=dashes, lw=1.6, label=name
            )
        axes.set(ylim=(0, 1), theta_offset=np.pi / 2, theta_direction=-1, yticks=[0.25, 0.5, 0.75])
        axes.set_xticks(angles, drawing.cut_names(names), color=drawing.INK)
        axes.tick_params(axis="x", pad=5)
        for text, side in zip(axes.get_xticklabels(), np.sin(angles), strict=True):
            text.set_ha("center" if abs(side) < 0.3 else "left" if side > 0 else "right")  # off the circle
        axes.set_yticklabels(["0.25", "0.5", "0.75"], fontsize=7)
        axes.grid(color=drawing.RULE, lw=0.7)
        axes.set_title(title, pad=18)
        axes.legend(frameon=False, fontsize=8.5, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return drawing.svg_uri(figure)


def grouped_bars(names: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, title: str) -> str:
    """A score from 0 to 1 of each class, bars of up to six models side by side."""
    with drawing.style():
        short, legend_in = drawing.cut_names(names), 0.2 + 0.22 * -(-len(scores) // 3)
        below = 0.3 + 0.5 * drawing.width_in(short)  # names stand at an angle
        figure, (axes,) = drawing.new_figure((drawing.PAGE_IN, 1.9 + below + legend_in), (0.6, 0.1, below, legend_in))
        width = 0.8 / max(1, len(scores))
        for i, ((name, values), colour) in enumerate(zip(scores.items(), drawing.MANY, strict=False)):
            at = np.arange(len(names)) - 0.4 + width * (i + 0.5)
            axes.bar(at, [np.nan if v is None else v for v in values], width * 0.92, color=colour, label=name)
        axes.set(ylim=(0, 1), xlim=(-0.6, len(names) - 0.4), ylabel=title)
        axes.set_xticks(np.arange(len(names)), short, rotation=30, ha="right", color=drawing.INK)
        axes.grid(axis="y", color=drawing.RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return drawing.svg_uri(figure)


def tradeoff_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], points: Mapping[str, tuple[float, float]]
) -> str:
    """Mean recall against accuracy: a curve of decisions for each of up to three models, and single models."""
    with drawing.style():
        figure, (axes,) = drawing.new_figure((drawing.PAGE_IN * 0.8, 4.2), (0.6, 2.3, 0.5, 0.1))
        for (name, rows), colour in zip(curves.items(), (drawing.RIGHT, drawing.SECOND, drawing.WRONG), strict=False):
            x, y = zip(*rows, strict=True)
            axes.plot(x, y, color=colour, lw=1.8, label=name, marker="o", ms=2.5)
        for (name, at), mark, colour in zip(points.items(), "s^vDPX*hp", drawing.MANY * 2, strict=False):
            axes.plot(at[:1], at[1:], mark, color=colour, ms=7, ls="none", mec="white", mew=0.6, label=name)
        axes.set(xlabel="accuracy (all chips or pixels alike)", ylabel="mean recall (all classes alike)")
        axes.grid(color=drawing.RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return drawing.svg_uri(figure)


def shift_surface(surface: npt.NDArray[np.float64]) -> str:
    """Correlation of edges (N, N) by how far labels are moved, from -N // 2 to N // 2 px down and right."""
    reach = len(surface) // 2
    with drawing.style():
        figure, (axes,) = drawing.new_figure((drawing.PAIR_IN, 4.2), (0.6, 0.9, 0.5, 0.1))
        shown = axes.imshow(surface, extent=(-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5), cmap="cividis")
        axes.axhline(0, color="white", lw=0.6)
        axes.axvline(0, color="white", lw=0.6)
        axes.set(xlabel="labels moved right (px)", ylabel="labels moved down (px)")
        figure.colorbar(shown, ax=axes, label="edges agree", fraction=0.046)
        return drawing.svg_uri(figure)


def learning_curves(rows: Sequence[Mapping[str, Any]], chosen: int | None = None) -> str:
    """Loss, validation scores and learning rate over epochs from log rows; a line marks the chosen epoch."""
    measured = [k for k in dict.fromkeys(k for row in rows for k in row) if k.startswith("val_") and k != "val_loss"]
    scores = {
        k: (drawing.SCORES.get(k[4:], k[4:]), c)
        for k, c in zip(measured, (drawing.RIGHT, drawing.SECOND, drawing.WRONG, drawing.INK), strict=False)
    }
    panels: list[tuple[str, dict[str, tuple[str, str]]]] = [
        ("Loss", {"loss": ("train", drawing.RIGHT), "val_loss": ("val", drawing.WRONG)}),
        ("Scores on val", scores),
        ("Learning rate", {"lr": ("_", drawing.RIGHT)}),
    ]
    with drawing.style():
        figure, all_axes = drawing.new_figure((drawing.PAGE_IN, 2.7), (0.5, 0.1, 0.5, 0.35), columns=3)
        for axes, (title, lines) in zip(all_axes, panels, strict=True):
            for key, (label, colour) in lines.items():
                points = [(r["epoch"], r[key]) for r in rows if r.get(key) is not None]
                if points:
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, color=colour, lw=1.6, label=label, marker="o", ms=4 if len(x) == 1 else 0)
            if chosen is not None:
                axes.axvline(chosen, color=drawing.MUTED, lw=0.9, ls=(0, (4, 3)), zorder=0)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.grid(color=drawing.RULE, lw=0.7)
            axes.set_axisbelow(True)
            axes.locator_params(axis="x", integer=True)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            if any(axes.get_legend_handles_labels()[1]):
                axes.legend(frameon=False, fontsize=8.5, handlelength=1.4, labelspacing=0.3)
        if all(0 <= row[k] <= 1 for row in rows for k in measured if row.get(k) is not None):
            all_axes[1].set_ylim(0, 1)
        all_axes[2].set_ylim(bottom=0)
        all_axes[2].yaxis.set_major_formatter("{x:g}")
        return drawing.svg_uri(figure)
