"""How far labels lie beside their image: by how many pixels their class edges must move to fit the image's edges.

The gradient of the image is correlated with the outlines of the classes at all shifts up to REACH_PX, over many tiles.
The peak counts where it is higher than those of labels paired with other tiles' images, so that flat or unrelated data
says nothing. For labels with outlines only: not for points and whole chips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from covermap.core.legend import IGNORE
from covermap.data.labels import ChipLabels
from covermap.data.scene import Scene
from covermap.geo.grid import Window, partition
from covermap.geo.rasterize import VectorLabels

REACH_PX, TILE_PX, MAX_TILES, MIN_TILES = 6, 96, 400, 6
PERMUTATIONS, DRAWS, MAX_ERROR_PX = 49, 100, 0.5
SMALL_PX = 16
"""Polygons of fewer pixels (median) are points: their outline shows nothing."""
Floats = npt.NDArray[np.float64]


class Shift(NamedTuple):
    """rows, cols: what labels must be moved by (down, right), each +- error in px; None where it cannot be told.

    correlation: of edges at the peak. surface (2 REACH_PX + 1)^2: that at each shift, by rows and columns.
    """

    rows: float | None
    cols: float | None
    error: float
    correlation: float
    num_tiles: int
    surface: Floats

    @property
    def told(self) -> str:
        """The shift in words."""
        if self.rows is None or self.cols is None:
            return f"it cannot be told whether labels lie on their image (edges agree by {self.correlation:.2f})"
        return (
            f"class edges fit the image best when labels are moved by {self.rows:+.1f} px down and {self.cols:+.1f} px "
            f"right (+-{self.error:.1f}; edges agree by {self.correlation:.2f})"
        )


def find_shifts(scenes: Sequence[Scene]) -> dict[str, Shift]:
    """The shift of all scenes together under "", and of each scene with enough tiles under its name."""
    fit = [s for s in scenes if s.labels is not None and not isinstance(s.labels, ChipLabels) and not _small(s)]
    places = [(s, w) for s in fit for w in partition(s.grid.window, TILE_PX, TILE_PX)]
    groups: dict[str, list[tuple[Floats, Floats]]] = {"": []}
    for number in np.random.default_rng(0).permutation(len(places)).tolist():
        tile = _edges(*places[number]) if len(groups[""]) < MAX_TILES else None
        if tile is not None:
            for name in ("", places[number][0].name)[: min(2, len(fit))]:
                groups.setdefault(name, []).append(tile)
    return {name: _measure(tiles) for name, tiles in groups.items() if len(tiles) >= MIN_TILES}


def _small(scene: Scene) -> bool:
    labels = scene.labels
    return isinstance(labels, VectorLabels) and float(np.median(shapely.area(labels.shapes))) < SMALL_PX


def _edges(scene: Scene, window: Window) -> tuple[Floats, Floats] | None:
    """Image gradient and class outlines (2, TILE_PX, TILE_PX): values centred, and where they are known; or None."""
    index = scene.read_labels(window)
    # Between polygons lies what nobody looked at, but their outlines were drawn on an image; a raster's gaps were not.
    known = np.ones(index.shape, bool) if isinstance(scene.labels, VectorLabels) else index != IGNORE
    lines, inner = np.zeros(index.shape), known.copy()
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (index[one] != index[other]) & known[one] & known[other]
        lines[one] = np.maximum(lines[one], differ)
        lines[other] = np.maximum(lines[other], differ)
    if lines.sum() < TILE_PX / 2:
        return None
    sample = scene.read(window)
    seen = np.asarray(sample.valid.any(0))
    seen[1:-1, 1:-1] &= seen[:-2, 1:-1] & seen[2:, 1:-1] & seen[1:-1, :-2] & seen[1:-1, 2:]  # the gradient looks there
    seen[[0, -1]] = seen[:, [0, -1]] = False
    if seen.sum() < seen.size / 4:
        return None
    slope = np.zeros(index.shape)
    for values in sample.image.values():
        count = np.maximum(sample.valid.sum(0), 1)
        for band in np.where(sample.valid[:, None], values, 0).sum(0, dtype=np.float64) / count:
            steep = np.hypot(*np.gradient(band))
            slope += steep / max(float(steep[seen].mean()), 1e-9)
    slope = np.minimum(slope, np.percentile(slope[seen], 95))
    return _placed(slope, seen), _placed(lines, inner)


def _placed(values: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    out = np.zeros((2, TILE_PX, TILE_PX))
    height, width = values.shape
    out[0, :height, :width] = np.where(known, values - values[known].mean(), 0) / max(values[known].std(), 1e-9)
    out[1, :height, :width] = known
    return out


def _measure(tiles: Sequence[tuple[Floats, Floats]]) -> Shift:
    """The shift of several tiles' edges together: peak, spread over redrawn tiles, height beside false pairings."""
    side = TILE_PX + 2 * REACH_PX
    image, lines = (np.fft.rfft2(np.array(part, np.float32), (side, side)) for part in zip(*tiles, strict=True))
    lines = lines.conj()
    rng, count = np.random.default_rng(0), len(tiles)

    def surface(order: npt.NDArray[np.int64], weights: Floats) -> Floats:
        product, pairs = np.einsum("t,tcij,tcij->cij", weights, image[order], lines)
        both = [np.fft.irfft2(part, (side, side)) for part in (product, pairs)]
        near = [np.roll(part, (REACH_PX, REACH_PX), (0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1] for part in both]
        return np.asarray(near[0] / np.maximum(near[1], 1))

    same, ones = np.arange(count), np.ones(count)
    found = surface(same, ones)
    peak = float(found.max())
    false = [surface(rng.permutation(count), ones).max() for _ in range(PERMUTATIONS)]
    draws = [_peak(surface(same, rng.multinomial(count, ones / count).astype(float))) for _ in range(DRAWS)]
    rows, cols = _peak(found)
    error = float(np.sqrt(((np.array(draws) - (rows, cols)) ** 2).sum(1).mean()))
    if not any(other >= peak for other in false) and max(abs(rows), abs(cols)) < REACH_PX and error < MAX_ERROR_PX:
        return Shift(rows, cols, error, peak, count, found)
    return Shift(None, None, error, peak, count, found)


def _peak(surface: Floats) -> tuple[float, float]:
    """Place of the highest point, by a parabola through its neighbours in each direction."""
    at = np.unravel_index(int(surface.argmax()), surface.shape)
    place = []
    for axis, centre in enumerate(at):
        line = surface[:, at[1]] if axis == 0 else surface[at[0]]
        fine = 0.0
        if 0 < centre < len(line) - 1:
            low, top, high = line[centre - 1 : centre + 2]
            fine = float((low - high) / (2 * (low - 2 * top + high))) if low - 2 * top + high < 0 else 0.0
        place.append(float(centre) - REACH_PX + fine)
    return place[0], place[1]
