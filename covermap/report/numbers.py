"""Numbers of chips: what is told against what is known, as points, and what the points say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.parsing import read_csv
from covermap.report import drawing

MOST = 3
"""Numbers that are drawn."""
Pairs = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""What is known (n,), what is told (n,)."""


def numbers_of(path: Path, most: int = MOST) -> dict[str, Any] | None:
    """Figure and words of chips_PART_MODEL.csv; None where it is not there, or holds no number."""
    pairs = _read(path) if path.is_file() else {}
    pairs = {name: pair for name, pair in pairs.items() if len(pair[0]) > 1 and float(pair[0].std()) > 0}
    if not pairs:
        return None
    drawn = dict(list(pairs.items())[:most])
    return {"chart": scatter(drawn), "words": " ".join(_words(name, pair) for name, pair in drawn.items()),
            "names": list(drawn), "left": len(pairs) - len(drawn)}  # fmt: skip


def _read(path: Path) -> dict[str, Pairs]:
    rows = read_csv(path, fix="make it again: covermap evaluate, or predict")
    found = {}
    for key in rows[0] if rows else ():
        name = key.removeprefix("known ")
        answer = next((k for k in rows[0] if k == name or k.startswith(f"{name} (")), None)
        if name != key and answer is not None:
            both = [(float(row[key]), float(row[answer])) for row in rows if row[key] and row[answer]]
            table = np.array(both, np.float64).reshape(-1, 2)
            found[answer] = (table[:, 0], table[:, 1])
    return found


def _words(name: str, pair: Pairs) -> str:
    known, told = pair
    wide = float(told.std() / known.std())
    text = f"{name}: what is told spreads {wide:.2f} times as wide as what is known"
    return f"{text}, so high values are told too low and low ones too high." if wide < 0.9 else f"{text}."


def scatter(pairs: Mapping[str, Pairs]) -> str:
    """A point for each chip, known across and told up, with the line of equality."""
    with drawing.style():
        wide = drawing.PAGE_IN / MOST
        figure, all_axes = drawing.new_figure((wide * len(pairs), 3.2), (0.65, 0.15, 0.5, 0.35), columns=len(pairs))
        for axes, (name, (known, told)) in zip(all_axes, pairs.items(), strict=True):
            ends = [float(min(known.min(), told.min())), float(max(known.max(), told.max()))]
            axes.plot(ends, ends, color=drawing.MUTED, lw=0.9, ls=(0, (4, 3)))
            axes.plot(
                known,
                told,
                "o",
                ms=4,
                color=drawing.RIGHT,
                alpha=0.6,
                mec="white",
                mew=0.4,
                rasterized=len(known) > 500,
            )
            axes.set(xlabel="known", ylabel="told")
            axes.set_title(drawing.cut_names([name])[0])
            axes.locator_params(nbins=5)
            axes.grid(color=drawing.RULE, lw=0.7)
            axes.set_axisbelow(True)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        return drawing.svg_uri(figure)
