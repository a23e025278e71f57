"""What a trained model keeps of its training data, so that maps can say where they lie outside of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError, LabelError
from covermap.core.progress import Say
from covermap.core.run import Run
from covermap.data.chips import Cell, image_batch, survey
from covermap.geo.grid import Window
from covermap.ml.applicability import CELL_PX, FEWEST, MAX_CELLS, USUAL, Applicability, cell_means
from covermap.models import applicability_path
from covermap.start import Prepared

_SIDE_PX = 2 * CELL_PX


def fit_applicability(run: Run, ready: Prepared, say: Say) -> None:
    """Write the training data's cells into the run's model folder, or say why not; models of pixels only."""
    if not run.config.decision.applicability or ready.task.kind.chips:
        return
    train, place = _means(ready, ready.survey.cells)
    try:
        held = survey(ready.scenes, ready.split, part="val").cells if ready.has_val else ()
    except LabelError:  # a val part without labels was said to be one already
        held = ()
    try:
        aside = _means(ready, held)[0]
        found = Applicability.fit(train, place, aside)
    except DataError as error:
        say(f"note: {error.message}")
        return
    found.save(applicability_path(run.path("model")))
    of = f"{USUAL:.0%} of the val part" if len(aside) >= FEWEST else f"{USUAL:.0%} of its own places"
    say(f"area of applicability: {len(found.cells):,} cells of {CELL_PX} px, its bound holds {of}")


def _means(ready: Prepared, cells: tuple[Cell, ...]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Cell means (N, D) around labels drawn at random, and the number of the drawing that each is of."""
    windows = {(cell.scene, _around(ready, cell)): None for cell in cells}
    drawn = np.random.default_rng(0).permutation(len(windows))[: MAX_CELLS // 4]
    places = list(windows)
    means, numbers = [np.empty((0, ready.spec.num_channels), np.float32)], [np.empty(0, np.int64)]
    for number in np.sort(drawn).tolist():
        scene, window = ready.scenes[places[number][0]], places[number][1]
        batch = image_batch([scene.read(window)], ready.spec)
        if batch.valid.float().mean() > 0.5:
            found = cell_means(batch, ready.spec)[0]
            means.append(found.reshape(-1, found.shape[-1]))
            numbers.append(np.full(len(means[-1]), number))
    return np.concatenate(means), np.concatenate(numbers)


def _around(ready: Prepared, cell: Cell) -> Window:
    """A window of four cells around a place with labels, inside of the scene where it is large enough."""
    grid, own = ready.scenes[cell.scene].grid, cell.window

    def start(first: int, length: int, whole: int) -> int:
        return max(0, min(first + (length - _SIDE_PX) // 2, whole - _SIDE_PX))

    row, col = start(own.row, own.height, grid.height), start(own.col, own.width, grid.width)
    return Window(row, col, min(_SIDE_PX, grid.height), min(_SIDE_PX, grid.width))
