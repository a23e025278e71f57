"""Charts as SVG and pictures as PNG, as data URIs that stand inside the page; from plain arrays, without a display.

Only matplotlib's object interface is used: no pyplot, no window, nothing that outlives a call. matplotlib itself is
imported when the first figure is drawn.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1c2b33", "#5b6b75", "#d9e0e4"
RIGHT, WRONG, SECOND = "#1f5f8b", "#c4571b", "#8a969e"
MANY = (RIGHT, WRONG, "#2a9d6e", "#9b6fc0", "#d1a93a", SECOND)
"""Of up to six models, told apart by all eyes (core/colour_vision); their lines also differ in dashes."""
_DASHES: Any = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (8, 3)))
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "covermap",
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": MUTED, "axes.linewidth": 0.7,
    "axes.facecolor": "white", "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.grid": False, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "text.usetex": False, "text.parse_math": False,
}  # fmt: skip
_PAGE_IN = 10.2  # width of the page's column at 96 px for an inch, so that text keeps its size
_TEXT_IN = 7.4  # of a column of text, readable on a telephone too
_PAIR_IN = 4.9  # of one of two figures side by side
_MAX_NAME = 22
_SCORES = {
    "oa": "overall agreement", "miou": "mIoU", "macro_f1": "mean F1", "macro_recall": "mean recall", "map": "mAP",
    "auprc": "AUPRC", "auc": "AUC", "iou": "IoU", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "r2": "R2",
    "score_from_to": "Score", "sek_from_to": "SeK", "fscd_from_to": "F_scd",
    "score_dates_stacked": "Score (dates stacked)",
}  # fmt: skip


def named_rows(axes: Any, names: Sequence[str]) -> None:
    """Names at the rows of a bar chart, and rules across."""
    axes.set_yticks(np.arange(len(names)), names, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def class_bars(
    names: Sequence[str], colours: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, title: str = "IoU"
) -> str:
    """A score from 0 to 1 of each class: a bar in its colour for the first model, a diamond for the second."""
    with _style():
        short = _cut(names)
        figure, (axes,) = _new((_PAGE_IN, 0.6 + 0.27 * len(names)), (_width_in(short), 0.05, 0.48, 0.05))
        first, *rest = scores
        rows = np.arange(len(names))
        axes.barh(rows, [v or 0 for v in scores[first]], 0.66, color=list(colours), edgecolor=INK, linewidth=0.6)
        for name in rest[:1]:
            known = [(v, row) for row, v in zip(rows, scores[name], strict=True) if v is not None]
            axes.plot(*zip(*known, strict=True), "D", ms=5.5, mfc="white", mec=INK, mew=1.2, ls="none", clip_on=False)
        for row, value, *others in zip(rows, *scores.values(), strict=True):
            end = value or 0
            if others and others[0] is not None and end - 0.02 < others[0] < end + 0.06:
                end = max(end, others[0])  # the number would lie on the diamond
            text = "absent" if value is None else f"{value:.2f}"
            axes.text(end + 0.015, row, text, va="center", color=MUTED if value is None else INK)
        axes.set(xlim=(0, 1.06), ylim=(len(names) - 0.4, -0.6), xlabel=title, xticks=np.linspace(0, 1, 6))
        named_rows(axes, short)
        return _svg_uri(figure)


def part_bars(names: Sequence[str], counts: Mapping[str, Sequence[int]], colours: Mapping[str, str]) -> str:
    """Share of each class among the labelled pixels of each part: bars side by side in the colours of the parts."""
    with _style():
        short = _cut(names)
        figure, (axes,) = _new((_TEXT_IN, 0.95 + 0.34 * len(names)), (_width_in(short), 0.2, 0.48, 0.42))
        rows, high = np.arange(len(names)), 0.76 / len(counts)
        for i, (part, found) in enumerate(counts.items()):
            share = 100 * np.asarray(found, np.float64) / max(1, sum(found))
            at = rows + high * (i - (len(counts) - 1) / 2)
            axes.barh(at, share, high, color=colours[part], edgecolor="white", linewidth=0.4, label=part)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="% of the labelled pixels of the part")
        axes.xaxis.set_major_formatter("{x:g}")
        named_rows(axes, short)
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0)
        return _svg_uri(figure)


def area_bars(
    names: Sequence[str], colours: Sequence[str], mapped_ha: Sequence[float],
    estimates: Sequence[tuple[float | None, float | None, float | None]], true_ha: Sequence[float] = (),
) -> str:  # fmt: skip
    """Hectares of each class: a bar for what is mapped, a point with its interval for (value, low, high), a line."""
    with _style():
        short = _cut(names)
        figure, (axes,) = _new((_TEXT_IN, 0.95 + 0.36 * len(names)), (_width_in(short), 0.15, 0.48, 0.42))
        rows = np.arange(len(names))
        axes.barh(rows, mapped_ha, 0.72, color=list(colours), edgecolor=INK, linewidth=0.6)
        for row, (value, low, high) in zip(rows, estimates, strict=True):
            ends = [value if end is None else end for end in (low, high)]
            for colour, lw, ms in (("white", 4.2, 8.4), (INK, 1.4, 5.6)) if value is not None else ():
                axes.plot(ends, [row, row], color=colour, lw=lw, solid_capstyle="butt", zorder=3)
                axes.plot(ends, [row, row], "|", color=colour, ms=ms + 3, mew=lw, zorder=3)
                axes.plot([value], [row], "o", color=colour, ms=ms, zorder=3)
        axes.plot([], [], "s", color=RULE, mec=INK, mew=0.6, ms=8, label="on the map")
        axes.plot([], [], "o-", color=INK, lw=1.4, ms=5.6, label="by the sample, with 95 % interval")
        for colour, lw in (("white", 5), (WRONG, 2.4)) if len(true_ha) else ():
            axes.plot(true_ha, rows, "|", color=colour, ms=22, mew=lw, zorder=2.5)
        if len(true_ha):
            axes.plot([], [], "|", color=WRONG, ms=11, mew=2.4, label="true")
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="hectares")
        axes.set_xlim(0, 1.04 * max([*mapped_ha, *true_ha, *(end or 0 for each in estimates for end in each)]) or 1)
        axes.set_yticks(rows, short, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.grid(axis="x", color=RULE, lw=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1), borderpad=0)
        return _svg_uri(figure)


def confusion_heat(
    names: Sequence[str], counts: npt.ArrayLike, *, of: Literal["reference", "predicted"] = "reference"
) -> str:
    """Confusion matrix (K, K), reference in rows: shade and percent, counts below; right blue, wrong orange.

    of: what the percentages add up to 100 for, each row (what became of the reference) or each predicted column.
    """
    table = np.asarray(counts, np.float64)
    k = len(table)
    share = table / np.maximum(table.sum(1 if of == "reference" else 0, keepdims=True), 1)
    with _style():
        short, room = _cut(names), _width_in(_cut(names))
        margins = (0.22 + room, 0.05 + 0.6 * _width_in(short[-1:]), 0.05, 0.25 + 0.64 * room)
        side = min(0.62, max(0.42, (_PAIR_IN - margins[0] - margins[1]) / k) if k <= 16 else 7.4 / k)
        figure, (axes,) = _new((sum(margins[:2]) + side * k, sum(margins[2:]) + side * k), margins)
        picture = _shade(share, RIGHT) * np.eye(k)[..., None] + _shade(share, WRONG) * (1 - np.eye(k)[..., None])
        axes.imshow(picture, interpolation="none")
        for row, col in np.ndindex(k, k) if k <= 16 else ():
            if table[row, col]:
                colour = "white" if share[row, col] > 0.5 else INK
                axes.text(col, row - 0.12, f"{share[row, col]:.0%}", ha="center", va="center", size=8.5, color=colour)
                axes.text(
                    col, row + 0.25, _short(float(table[row, col])), ha="center", va="center", size=6.3, color=colour
                )
        _matrix_axes(axes, short, "predicted", "reference")
        return _svg_uri(figure)


def reliability(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy by confidence of each model, over bins; the area of a mark is in proportion to the bin's pixels."""
    with _style():
        figure, (axes,) = _new((_PAIR_IN, 3.6), (0.6, 0.1, 0.5, 0.1))
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls=(0, (4, 3)))
        for (name, rows), colour in zip(tables.items(), (RIGHT, WRONG, SECOND), strict=False):
            full = [row for row in rows if row["num_pixels"]]
            total = sum(row["num_pixels"] for row in full)
            x, y = ([row[key] for row in full] for key in ("confidence", "accuracy"))
            axes.plot(x, y, color=colour, lw=1.4, label=name)
            axes.scatter(x, y, [8 + 160 * row["num_pixels"] / total for row in full], color=colour)
        axes.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="probability of the class that is mapped", ylabel="share that is right"
        )
        axes.grid(color=RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return _svg_uri(figure)


def radar(names: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, title: str) -> str:
    """A score from 0 to 1 of each class on spokes, a ring for each of up to six models; absent classes leave a gap."""
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    columns = 3 if max(map(len, scores)) <= _MAX_NAME else 1
    below = 0.55 + 0.22 * -(-len(scores) // columns)
    with _style():
        figure, (axes,) = _new((_PAIR_IN + 0.4, 3.95 + below), (1.1, 1.1, below, 0.85), polar=True)
        for (name, values), colour, dashes in zip(scores.items(), MANY, _DASHES, strict=False):
            radius = np.array([np.nan if v is None else v for v in values], np.float64)
            axes.plot(
                np.append(angles, 2 * np.pi), np.append(radius, radius[0]), color=colour, ls=dashes, lw=1.6, label=name
            )
        axes.set(ylim=(0, 1), theta_offset=np.pi / 2, theta_direction=-1, yticks=[0.25, 0.5, 0.75])
        axes.set_xticks(angles, _cut(names), color=INK)
        axes.tick_params(axis="x", pad=9)
        axes.set_yticklabels(["0.25", "0.5", "0.75"], fontsize=7)
        axes.grid(color=RULE, lw=0.7)
        axes.set_title(title, pad=18)
        axes.legend(frameon=False, fontsize=8.5, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.12))
        return _svg_uri(figure)


def grouped_bars(names: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, title: str) -> str:
    """A score from 0 to 1 of each class, bars of up to six models side by side."""
    with _style():
        short, legend_in = _cut(names), 0.2 + 0.22 * -(-len(scores) // 3)
        below = 0.3 + 0.5 * _width_in(short)  # names stand at an angle
        figure, (axes,) = _new((_PAGE_IN, 1.9 + below + legend_in), (0.6, 0.1, below, legend_in))
        width = 0.8 / max(1, len(scores))
        for i, ((name, values), colour) in enumerate(zip(scores.items(), MANY, strict=False)):
            at = np.arange(len(names)) - 0.4 + width * (i + 0.5)
            axes.bar(at, [np.nan if v is None else v for v in values], width * 0.92, color=colour, label=name)
        axes.set(ylim=(0, 1), xlim=(-0.6, len(names) - 0.4), ylabel=title)
        axes.set_xticks(np.arange(len(names)), short, rotation=30, ha="right", color=INK)
        axes.grid(axis="y", color=RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return _svg_uri(figure)


def tradeoff_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], points: Mapping[str, tuple[float, float]]
) -> str:
    """Mean recall against accuracy: a curve of decisions for each of up to three models, and single models."""
    with _style():
        figure, (axes,) = _new((_PAGE_IN * 0.8, 4.2), (0.6, 2.3, 0.5, 0.1))
        for (name, rows), colour in zip(curves.items(), (RIGHT, SECOND, WRONG), strict=False):
            x, y = zip(*rows, strict=True)
            axes.plot(x, y, color=colour, lw=1.8, label=name, marker="o", ms=2.5)
        for (name, at), mark, colour in zip(points.items(), "s^vDPX*hp", MANY * 2, strict=False):
            axes.plot(at[:1], at[1:], mark, color=colour, ms=7, ls="none", mec="white", mew=0.6, label=name)
        axes.set(xlabel="accuracy (all chips or pixels alike)", ylabel="mean recall (all classes alike)")
        axes.grid(color=RULE, lw=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return _svg_uri(figure)


def shift_surface(surface: npt.NDArray[np.float64]) -> str:
    """Correlation of edges (N, N) by how far labels are moved, from -N // 2 to N // 2 px down and right."""
    reach = len(surface) // 2
    with _style():
        figure, (axes,) = _new((_PAIR_IN, 4.2), (0.6, 0.9, 0.5, 0.1))
        shown = axes.imshow(surface, extent=(-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5), cmap="cividis")
        axes.axhline(0, color="white", lw=0.6)
        axes.axvline(0, color="white", lw=0.6)
        axes.set(xlabel="labels moved right (px)", ylabel="labels moved down (px)")
        figure.colorbar(shown, ax=axes, label="edges agree", fraction=0.046)
        return _svg_uri(figure)


def learning_curves(rows: Sequence[Mapping[str, Any]], chosen: int | None = None) -> str:
    """Loss, validation scores and learning rate over epochs from log rows; a line marks the chosen epoch."""
    measured = [k for k in dict.fromkeys(k for row in rows for k in row) if k.startswith("val_") and k != "val_loss"]
    scores = {k: (_SCORES.get(k[4:], k[4:]), c) for k, c in zip(measured, (RIGHT, SECOND, WRONG, INK), strict=False)}
    panels: list[tuple[str, dict[str, tuple[str, str]]]] = [
        ("Loss", {"loss": ("train", RIGHT), "val_loss": ("val", WRONG)}),
        ("Scores on val", scores),
        ("Learning rate", {"lr": ("_", RIGHT)}),
    ]
    with _style():
        figure, all_axes = _new((_PAGE_IN, 2.7), (0.5, 0.1, 0.5, 0.35), columns=3)
        for axes, (title, lines) in zip(all_axes, panels, strict=True):
            for key, (label, colour) in lines.items():
                points = [(r["epoch"], r[key]) for r in rows if r.get(key) is not None]
                if points:
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, color=colour, lw=1.6, label=label, marker="o", ms=4 if len(x) == 1 else 0)
            if chosen is not None:
                axes.axvline(chosen, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=0)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.grid(color=RULE, lw=0.7)
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
        return _svg_uri(figure)


def _matrix_axes(axes: Any, short: Sequence[str], across: str, down: str) -> None:
    """Names on both sides of a square matrix, and white lines between its cells."""
    ticks = np.arange(len(short))
    axes.set_xticks(ticks, short, color=INK)
    axes.set_yticks(ticks, short, color=INK)
    axes.set(xlabel=across, ylabel=down)
    axes.xaxis.set(label_position="top", ticks_position="top")
    axes.tick_params(length=0)
    for text in axes.get_xticklabels():
        text.set(rotation=40, ha="left", rotation_mode="anchor")
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _new(
    size_in: tuple[float, float], margins_in: tuple[float, float, float, float], columns: int = 1, *,
    polar: bool = False,
) -> Any:  # fmt: skip
    """A figure and its axes side by side; margins left, right, bottom, top, so that nothing has to be measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (width, height), (left, right, bottom, top) = size_in, margins_in
    figure = Figure(figsize=size_in, facecolor="white")
    FigureCanvasAgg(figure)  # a canvas that draws into memory
    all_axes = figure.subplots(1, columns, squeeze=False, subplot_kw={"polar": polar})[0]
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, wspace=0.25)
    return figure, list(all_axes)


def _svg_uri(figure: Figure) -> str:
    """The figure as SVG; its text is set in the page's fonts, which are narrower than the font of the layout."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue().replace("'DejaVu Sans'", _FONTS)
    svg = svg[svg.index("<svg") :]  # the lines before it name a DTD's address
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def _cut(names: Sequence[str]) -> list[str]:
    """Names short enough for an axis."""
    return [name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1].rstrip() + "…" for name in names]


def _width_in(names: Sequence[str]) -> float:
    """Room in inches for the longest of some tick labels, a little more than it needs."""
    return 0.12 + 0.07 * max(len(name) for name in names)


def _shade(share: npt.NDArray[np.float64], colour: str) -> npt.NDArray[np.float64]:
    """(K, K) shares -> (K, K, 3) from almost white to the colour; the root keeps small errors visible."""
    full = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    weight = np.sqrt(np.clip(share, 0, 1))[..., None]
    return np.asarray(np.array([0.965, 0.972, 0.976]) * (1 - weight) + full * weight)


def _short(count: float) -> str:
    """12345 -> 12.3k, so that counts fit a cell."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            size = count / (1e3 if unit == "k" else limit)
            return f"{size:.1f}{unit}" if size < 100 else f"{size:.0f}{unit}"
    return f"{count:.0f}"
