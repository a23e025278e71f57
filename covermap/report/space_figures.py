"""Figures of an embedding space: heat of distances and of transfer, distance against error, clouds of chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.legend import PALETTE
from covermap.report import drawing

TOLD = 12
"""Regions up to which figures name them."""
_NAMED = 24
"""Names in a legend, at most."""
_MARKS = "os^DvPX"
_BESIDE = ((0, 10), (0, -10), (19, 0), (-19, 0), (17, 11), (-17, 11), (17, -11), (-17, -11))
"""Where the name of a point may stand, in pt."""
Floats = npt.NDArray[np.float64]


class Shaded(NamedTuple):
    """A matrix (R, R), NaN white, shaded from `low` to `high`; None: from its least, to its most."""

    matrix: Floats
    colour: str = drawing.RIGHT
    low: float | None = None
    high: float | None = None


def heats(names: Sequence[str], panels: Mapping[str, Shaded], *, across: str = "", down: str = "") -> str:
    """Matrices over regions by title, two in a row; many regions stand at the axes by their number, from 1."""
    count, lines = len(names), -(-len(panels) // 2)
    few = count <= TOLD
    with drawing.style():
        short = drawing.cut_names(names) if few else [str(i + 1) for i in range(count)]
        room = drawing.width_in(short)
        left, top = 0.25 + room, 0.55 + (0.64 * room if few else 0.2) + (0.2 if across else 0)
        side = min(
            drawing.PAGE_IN / 2 - left - (0.1 + 0.6 * drawing.width_in(short[-1:]) if few else 0.1), 0.62 * count
        )
        size = (drawing.PAGE_IN, lines * (top + side + 0.15))
        figure, _ = drawing.new_figure(size, (0, 0, 0, 0))
        figure.clear()
        for number, (title, shaded) in enumerate(panels.items()):
            line, column = divmod(number, 2)
            x, y = column * drawing.PAGE_IN / 2 + left, size[1] - line * (top + side + 0.15) - top - side
            axes = figure.add_axes((x / size[0], y / size[1], side / size[0], side / size[1]))
            _heat(axes, shaded, numbers=few and side / count >= 0.36)
            if few:
                drawing.matrix_axes(axes, short, across, down)
            else:
                _numbered_axes(axes, count, across, down)
            axes.text(0, 1 + (top - 0.22) / side, title, transform=axes.transAxes, weight="bold", size=9.5)
        return drawing.svg_uri(figure)


def _numbered_axes(axes: Any, count: int, across: str, down: str) -> None:
    at = np.arange(0, count, -(-count // 30))
    axes.set_xticks(at, [str(i + 1) for i in at], color=drawing.INK, size=6.5)
    axes.set_yticks(at, [str(i + 1) for i in at], color=drawing.INK, size=6.5)
    axes.set(xlabel=across, ylabel=down)
    axes.xaxis.set(label_position="top", ticks_position="top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _heat(axes: Any, shaded: Shaded, *, numbers: bool) -> None:
    matrix, known = shaded.matrix, np.isfinite(shaded.matrix)
    least, most = (float(matrix[known].min()), float(matrix[known].max())) if known.any() else (0.0, 1.0)
    low, high = (end if end is not None else own for end, own in ((shaded.low, least), (shaded.high, most)))
    share = np.clip(np.nan_to_num((matrix - low) / max(high - low, 1e-12)), 0, 1)
    axes.imshow(
        np.where(known[..., None], drawing.shade(share**2, shaded.colour), 1.0), interpolation="none", aspect="equal"
    )
    for row, column in np.argwhere(known) if numbers else ():
        text = f"{matrix[row, column]:.3f}" if most < 10 else f"{matrix[row, column]:.1f}"
        colour = "white" if share[row, column] > 0.55 else drawing.INK
        axes.text(column, row, text, ha="center", va="center", size=7, color=colour)


def against_error(
    panels: Mapping[str, tuple[Floats, str]], extra: Floats, names: Sequence[str], *, y: str
) -> str:  # fmt: skip
    """Extra error (R, R) over each distance (R, R): panels by name with the words of their title, two in a row.

    Up to four regions stand at the points by their number, from 1; a line below says who is who.
    """
    few = len(names) <= 4
    apart = ~np.eye(len(names), dtype=bool) & np.isfinite(extra)
    columns, lines = 2, -(-len(panels) // 2)
    with drawing.style():
        wide, high, below = drawing.PAGE_IN / columns, 3.3, 0.3 if few else 0.0
        size = (drawing.PAGE_IN, lines * high + below)
        figure, _ = drawing.new_figure(size, (0, 0, 0, 0))
        figure.clear()
        for number, (name, (matrix, title)) in enumerate(panels.items()):
            line, column = divmod(number, columns)
            box = (column * wide + 0.65, size[1] - (line + 1) * high + 0.55, wide - 0.85, high - 0.95)
            axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
            axes.axhline(0, color=drawing.MUTED, lw=0.8, ls=(0, (4, 3)))
            axes.plot(matrix[apart], extra[apart], "o", ms=5, color=drawing.RIGHT, alpha=0.75, mec="white", mew=0.5)
            axes.set_xlabel(name)
            axes.set_ylabel(y, size=8)
            axes.margins(0.14)
            axes.set_title(title)
            axes.grid(color=drawing.RULE, lw=0.7)
            axes.set_axisbelow(True)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            drawing.keep_in(axes, column * wide + 0.06)
            if few:
                _name_pairs(axes, [(a, b, matrix[a, b], extra[a, b]) for a, b in np.argwhere(apart).tolist()])
        if few:
            key = "learnt → told: " + " · ".join(f"{i} {name}" for i, name in enumerate(names, 1))
            figure.text(0.65 / size[0], 0.08 / size[1], key, size=8, color=drawing.MUTED)
        return drawing.svg_uri(figure)


def _name_pairs(axes: Any, pairs: Sequence[tuple[int, int, float, float]]) -> None:
    """The numbers of each pair beside its point, where they lie on no other point and on no other numbers."""
    axes.figure.canvas.draw()
    points = axes.transData.transform([pair[2:] for pair in pairs]) if pairs else np.empty((0, 2))
    pixel = axes.figure.dpi / 72
    half = np.array([13.0, 4.5]) * pixel  # of numbers; points are smaller
    taken: list[tuple[Any, Any]] = [(point, 0.3 * half) for point in points]
    for (a, b, *at), point in zip(pairs, points, strict=True):
        for shift in _BESIDE:
            middle = point + np.array(shift) * pixel
            if all((np.abs(middle - other) > half + size).any() for other, size in taken):
                break
        else:
            middle, shift = point + np.array(_BESIDE[0]) * pixel, _BESIDE[0]
        taken.append((middle, half))
        axes.annotate(f"{a + 1} → {b + 1}", at, shift, textcoords="offset points", size=7, ha="center", va="center",
                      color=drawing.INK)  # fmt: skip


class Groups(NamedTuple):
    """What colours chips: a title, the group of each (n,), names and colours of groups; none: what -1 means."""

    title: str
    group: npt.NDArray[np.intp]
    names: Sequence[str]
    colours: Sequence[str]
    none: str = "none"


def region_colours(count: int) -> list[str]:
    """A colour for each of `count` regions; after 16 they come again, with another mark."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def clouds(points: Floats, panels: Sequence[Groups], axes_names: tuple[str, str]) -> str:
    """Chips (n, 2) once for each way to colour them; points are a picture, so that the page stays small."""
    with drawing.style():
        width, side = drawing.PAGE_IN / 2, 3.7
        legends = [_legend_of(panel) for panel in panels]
        below = 0.75 + 0.2 * max(-(-len(legend) // 2) for legend in legends)
        size = (width * len(panels), side + below + 0.4)
        figure, _ = drawing.new_figure(size, (0, 0, 0, 0))
        figure.clear()
        figure.set_dpi(160)
        for number, (panel, legend) in enumerate(zip(panels, legends, strict=True)):
            box = (number * width + 0.6, below, width - 0.75, side)
            axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
            _cloud(axes, points, panel)
            marks = [
                axes.plot([], [], marker=mark or "none", color=colour, mec=drawing.INK, mew=0.4, ls="none")[0]
                for _, mark, colour in legend
            ]
            axes.legend(
                marks, [name for name, *_ in legend], frameon=False, fontsize=8, ncols=2, loc="upper left",
                bbox_to_anchor=(-0.02, -0.14), borderaxespad=0, labelspacing=0.35, handletextpad=0.3,
            )  # fmt: skip
            axes.set(xlabel=axes_names[0], ylabel=axes_names[1])
            axes.set_title(panel.title)
            axes.grid(color=drawing.RULE, lw=0.6)
            axes.set_axisbelow(True)
            for spine in ("top", "right"):
                axes.spines[spine].set_visible(False)
            drawing.keep_in(axes, number * width + 0.06)
        return drawing.svg_uri(figure)


def _cloud(axes: Any, points: Floats, panel: Groups) -> None:
    style: Any = {"s": 13, "linewidths": 0.3, "edgecolors": drawing.INK, "alpha": 0.8, "rasterized": True}
    group = panel.group
    axes.scatter(*points[group < 0].T, color=drawing.RULE, **style)
    order = np.random.default_rng(0).permutation(np.flatnonzero(group >= 0))  # no group lies on top of all others
    for round_ in range(-(-len(panel.names) // len(PALETTE))):
        of = order[group[order] // len(PALETTE) == round_]
        if len(of):
            mark = _MARKS[round_ % len(_MARKS)]
            axes.scatter(*points[of].T, c=[panel.colours[i] for i in group[of]], marker=mark, **style)


def _legend_of(panel: Groups) -> list[tuple[str, str, str]]:
    """Name, mark and colour of each group that is there."""
    there = [i for i in range(len(panel.names)) if (panel.group == i).any()]
    names = drawing.cut_names(panel.names)
    found = [
        (names[i], _MARKS[i // len(PALETTE) % len(_MARKS)], panel.colours[i]) for i in there[:_NAMED]
    ]  # fmt: skip
    if len(there) > _NAMED:
        found.append((f"and {len(there) - _NAMED} more", "", "white"))
    return [*found, *([(panel.none, "o", drawing.RULE)] if (panel.group < 0).any() else [])]


def attention_heads(heads: Mapping[str, Floats], image: npt.NDArray[np.uint8] | None) -> str:
    """Maps (H, W) by the name of the head with one scale, after the image of the ground where there is one."""
    shown = list(heads.values())
    most = float(np.nanpercentile(np.concatenate([one.ravel() for one in shown]), 99))
    count = len(heads) + (image is not None)
    with drawing.style():
        wide = (drawing.PAGE_IN - 0.7) / max(count, 3)
        tall = wide * shown[0].shape[0] / shown[0].shape[1]
        size = (drawing.PAGE_IN, tall + 0.35)
        figure, _ = drawing.new_figure(size, (0, 0, 0, 0))
        figure.clear()
        drawn = None
        for number, (name, values) in enumerate([*([("image", image)] if image is not None else []), *heads.items()]):
            axes = figure.add_axes((number * wide / size[0], 0.02, (wide - 0.08) / size[0], tall / size[1] - 0.02))
            if values is image:
                axes.imshow(values, interpolation="nearest", aspect="auto")
            else:
                drawn = axes.imshow(values, vmin=0, vmax=most, cmap="cividis", interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            axes.set_title(name.replace("_", " "))
        bar = figure.add_axes((count * wide / size[0], 0.02, 0.1 / size[0], tall / size[1] - 0.02))
        figure.colorbar(drawn, cax=bar)
        return drawing.svg_uri(figure)
