"""How all figures are drawn: colours, sizes, a new figure and its axes, labels that fit, the finished SVG.

Only matplotlib's object interface is used: no pyplot, no window, nothing that outlives a call. matplotlib itself is
imported when the first figure is drawn.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1c2b33", "#5b6b75", "#d9e0e4"
RIGHT, WRONG, SECOND = "#1f5f8b", "#c4571b", "#8a969e"
MANY = (RIGHT, WRONG, "#2a9d6e", "#9b6fc0", "#d1a93a", SECOND)
"""Of up to six models, told apart by all eyes (core/colour_vision); their lines also differ in dashes."""
DASHES: Any = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (8, 3)))
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "covermap",
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": MUTED, "axes.linewidth": 0.7,
    "axes.facecolor": "white", "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.grid": False, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "text.usetex": False, "text.parse_math": False,
}  # fmt: skip
PAGE_IN = 10.2  # width of the page's column at 96 px for an inch, so that text keeps its size
TEXT_IN = 7.4  # of a column of text, readable on a telephone too
PAIR_IN = 4.9  # of one of two figures side by side
MAX_NAME = 22
SCORES = {
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


def matrix_axes(axes: Any, short: Sequence[str], across: str, down: str) -> None:
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


def style() -> Any:
    """A context in which matplotlib draws as the page is set."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def new_figure(
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


def svg_uri(figure: Figure) -> str:
    """The figure as SVG; its text is set in the page's fonts, which are narrower than the font of the layout."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue().replace("'DejaVu Sans'", _FONTS)
    svg = svg[svg.index("<svg") :]  # the lines before it name a DTD's address
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def cut_names(names: Sequence[str], most: int = MAX_NAME) -> list[str]:
    """Names short enough for an axis."""
    return [name if len(name) <= most else name[: most - 1].rstrip() + "…" for name in names]


def keep_in(axes: Any, left_in: float) -> None:
    """Narrow axes from the left until their labels begin at `left_in` of the figure: ticks may be wide."""
    figure = axes.figure
    box, (x, y, width, height) = axes.get_tightbbox(figure.canvas.get_renderer()), axes.get_position().bounds
    over = (left_in * figure.dpi - box.x0) / figure.bbox.width
    if over > 0:
        axes.set_position((x + over, y, width - over, height))


def width_in(names: Sequence[str]) -> float:
    """Room in inches for the longest of some tick labels, a little more than it needs."""
    return 0.12 + 0.07 * max(len(name) for name in names)


def shade(share: npt.NDArray[np.float64], colour: str) -> npt.NDArray[np.float64]:
    """(K, K) shares -> (K, K, 3) from almost white to the colour; the root keeps small errors visible."""
    full = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    weight = np.sqrt(np.clip(share, 0, 1))[..., None]
    return np.asarray(np.array([0.965, 0.972, 0.976]) * (1 - weight) + full * weight)


def short_count(count: float) -> str:
    """12345 -> 12.3k, so that counts fit a cell."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            size = count / (1e3 if unit == "k" else limit)
            return f"{size:.1f}{unit}" if size < 100 else f"{size:.0f}{unit}"
    return f"{count:.0f}"
