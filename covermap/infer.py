"""A model over a scene, block by block: windows on one lattice, blended; memory does not depend on the scene's size.

Windows lie on a lattice that belongs to the scene, not to the block, and every window that touches a pixel counts for
it. So a pixel's probabilities are the same whichever block it falls into, and blocks need nothing from each other.
Blocks are cut where a window ends, which makes neighbours share one row of windows and no more. Inside a block the
windows go from left to right; only the columns that later windows still reach are held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.card import ModelCard
from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, DataError, ModelError, within_memory
from covermap.core.sensors import find_sensor
from covermap.core.train_config import PredictConfig
from covermap.core.types import Batch, InputSpec, OwnStatistics, Sample, SensorInput
from covermap.data.chips import image_batch
from covermap.data.given import holds_items
from covermap.data.indices import Channels, reach
from covermap.data.items import scenes_for
from covermap.data.scene import Scene, open_found, scaling, unknown_coordinates
from covermap.data.source import Found, Named, SceneFiles, paired, scenes_of
from covermap.data.stats import with_own_statistics
from covermap.geo.delivered import find_granule
from covermap.geo.grid import Window, lattice
from covermap.geo.raster import Raster
from covermap.ml.applicability import Applicability
from covermap.models import LandModel, require_fit

Wanted = Callable[[Window], npt.NDArray[np.bool_]]
LIGHTER = (
    "lower predict.batch_size (--batch-size) or predict.size_px (--size), on a processor also predict.workers "
    "(--workers) or predict.block_px (--block)"
)


class Strip(NamedTuple):
    """Finished columns of a block: place in the scene, what the model says (K, h, w), and which pixels hold a result.

    answers: probabilities of classes, or numbers in their unit; distance: (h, w) from the training data, where it was
    asked for. Both are good until the next strip is asked for.
    """

    window: Window
    answers: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    distance: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Lattice:
    """Windows of `size_px` over `area`, neighbours sharing `overlap_px` or a little more."""

    area: Window
    size_px: int
    overlap_px: int

    @staticmethod
    def of(scene: Scene, model: LandModel | ModelCard, settings: PredictConfig) -> Lattice:
        """The windows of a scene: scores and maps, of a part or the whole, come from the same ones."""
        size = settings.size_px or (model.spec.size_px if model.spec.fixed_size else max(256, model.spec.size_px))
        own = size // 20 * 2 if model.sees_neighbours else 0
        return Lattice(scene.grid.window, size, own if settings.overlap_px is None else settings.overlap_px)

    @cached_property
    def rows(self) -> list[int]:
        """First rows of the windows, counted in the scene."""
        return [self.area.row + r for r in lattice(self.area.height, self.size_px, self.overlap_px)]

    @cached_property
    def cols(self) -> list[int]:
        """First columns of the windows, counted in the scene."""
        return [self.area.col + c for c in lattice(self.area.width, self.size_px, self.overlap_px)]

    @property
    def height(self) -> int:
        return min(self.size_px, self.area.height)

    @property
    def width(self) -> int:
        return min(self.size_px, self.area.width)

    @cached_property
    def row_weights(self) -> npt.NDArray[np.float32]:
        """(number of rows, height): what each window's rows count for; the sum over windows is 1 in every row."""
        return blend_weights(self.rows, self.height)

    @cached_property
    def col_weights(self) -> npt.NDArray[np.float32]:
        """(number of columns, width), as `row_weights`."""
        return blend_weights(self.cols, self.width)

    def blocks(self, block_px: int, part: Window | None = None) -> list[Window]:
        """Blocks of about block_px rows and twice as many columns that cover the area, or a part, exactly once.

        Columns pass through a block one window at a time, so width costs no memory, and fewer borders cost less.
        """
        row_cuts = _cuts(self.rows, self.height, block_px)
        col_cuts = _cuts(self.cols, self.width, 2 * block_px)
        blocks = [Window(r, c, r2 - r, c2 - c) for r, r2 in pairwise(row_cuts) for c, c2 in pairwise(col_cuts)]
        return [cut for block in blocks if not (cut := block.intersect(part or self.area)).is_empty]


def _cuts(starts: Sequence[int], size: int, block_px: int) -> list[int]:
    """Block borders: the area's ends, and between them ends of windows, evenly spread."""
    last = starts[-1] + size
    blocks = max(1, round((last - starts[0]) / block_px))
    each = -(-len(starts) // blocks)
    return [starts[0], *(starts[i] + size for i in range(each - 1, len(starts) - 1, each)), last]


def blend_weights(starts: Sequence[int], size: int) -> npt.NDArray[np.float32]:
    """(len(starts), size): linear ramps over the shared pixels of neighbouring windows, made to sum to 1 everywhere."""
    weights = np.ones((len(starts), size))
    for i, (one, two) in enumerate(pairwise(starts)):
        shared = one + size - two
        ramp = (np.arange(shared) + 0.5) / max(shared, 1)
        weights[i + 1, :shared] = np.minimum(weights[i + 1, :shared], ramp)
        weights[i, size - shared :] = np.minimum(weights[i, size - shared :], ramp[::-1])
    total = np.zeros(starts[-1] + size - starts[0])
    for start, weight in zip(starts, weights, strict=True):
        total[start - starts[0] : start - starts[0] + size] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start - starts[0] : start - starts[0] + size]
    return weights.astype(np.float32)


def infer_block(
    model: LandModel,
    scene: Scene,
    windows: Lattice,
    block: Window,
    *,
    wanted: Wanted | None = None,
    batch_size: int = 4,
    tta: str = "none",
    known: Applicability | None = None,
    reader: Executor | None = None,
) -> Iterator[Strip]:
    """Blended answers of one block, as strips from left to right that cover it exactly.

    tta: see PredictConfig. known: the training data that distances are told from.

    Windows without a valid (and wanted) pixel are not computed; their pixels come back as not valid. While one column
    of windows is computed, `reader` (default: a thread of its own) reads the next.
    Memory: about (K + 4 C) * block height * window width * 4 bytes.
    """
    rows = [i for i, r in enumerate(windows.rows) if r < block.row + block.height and r + windows.height > block.row]
    cols = [j for j, c in enumerate(windows.cols) if c < block.col + block.width and c + windows.width > block.col]
    top, bottom = windows.rows[rows[0]], windows.rows[rows[-1]] + windows.height
    keep = slice(block.row - top, block.row - top + block.height)

    def read(j: int) -> _Column:
        stripe = Window(top, windows.cols[j], bottom - top, windows.width)
        return _read_column(model, scene, windows, rows, stripe, wanted, batch_size)

    step = f"prediction: {batch_size} windows of {windows.size_px} px at once, {bottom - top} rows held"
    num = model.task.num_answers
    with within_memory(step, fix=LIGHTER), nullcontext(reader) if reader else ThreadPoolExecutor(1) as pool:
        held = np.zeros((num + (known is not None), bottom - top, windows.width), np.float32)
        coming = pool.submit(read, cols[0])
        for j, after in itertools.zip_longest(cols, cols[1:]):
            column = coming.result()
            if after is not None:
                coming = pool.submit(read, after)
            for part, batch in zip(column.parts, column.batches, strict=True):
                found = answers_of(model, batch, tta)
                if known is not None:
                    found = np.concatenate([found, known.of_batch(batch, model.spec)[:, None]], 1)
                for (i, box), shares in zip(part, found, strict=True):
                    weight = np.outer(windows.row_weights[i], windows.col_weights[j])
                    held[:, box.row : box.row + box.height] += shares * weight
            start = windows.cols[j]
            following = block.col + block.width if after is None else windows.cols[after]
            left, right = max(start, block.col), min(following, block.col + block.width)
            if right > left:
                span = slice(left - start, right - start)
                place = Window(block.row, left, block.height, right - left)
                there = held[:, keep, span]
                distance = there[num] if known is not None else None
                yield Strip(place, there[:num], column.mask[keep, span], distance)
            shift = following - start
            held[..., : max(0, windows.width - shift)] = held[..., shift:]
            held[..., max(0, windows.width - shift) :] = 0


def infer_chips(
    model: LandModel, scenes: Sequence[Scene], chips: Sequence[tuple[int, Window]], *, size_px: int,
    batch_size: int = 8, tta: str = "none",
) -> Iterator[npt.NDArray[np.float32]]:  # fmt: skip
    """The answer (K,) of each chip, given as number of its scene and place; NaN where the image holds nothing.

    The next batch is read while one is computed.
    """

    def read(part: Sequence[tuple[int, Window]]) -> Batch:
        samples = [scenes[i].read(Window(window.row, window.col, size_px, size_px)) for i, window in part]
        return image_batch(samples, model.spec)

    parts = [chips[first : first + batch_size] for first in range(0, len(chips), batch_size)]
    step = f"prediction: {batch_size} chips of {size_px} px at once"
    with within_memory(step, fix="lower predict.batch_size (--batch-size)"), ThreadPoolExecutor(1) as pool:
        coming = pool.submit(read, parts[0]) if parts else None
        for after in [*parts[1:], None][: len(parts)]:
            assert coming is not None
            batch = coming.result()
            coming = pool.submit(read, after) if after is not None else None
            seen, found = batch.valid.flatten(1).any(1).numpy(), answers_of(model, batch, tta)
            if not np.isfinite(found[seen]).all():
                raise ModelError(
                    "the model's answers are no numbers", fix="it is damaged, or was trained at too high a rate"
                )
            yield from np.where(seen[:, None], found, np.float32(np.nan))


def answers_of(model: LandModel, batch: Batch, tta: str) -> npt.NDArray[np.float32]:
    """A model's answers (B, K, H, W), or (B, K) for chips: the mean over symmetries of the square, each turned back.

    Quarter turns are left out for windows that are not square.
    """
    if tta == "none":
        return model.answers(batch)
    height, width = batch.valid.shape[-2:]
    turns = range(4) if tta == "d4" and height == width else (0, 2)
    total: npt.NDArray[np.float32] | None = None
    for mirrored, quarter in itertools.product((False, True), turns):
        found = model.answers(_turned(batch, quarter, mirrored=mirrored))
        if found.ndim == 4:
            found = np.rot90(found, -quarter, (2, 3))
            found = found[..., ::-1] if mirrored else found
        total = found.copy() if total is None else total + found
    assert total is not None
    return total / np.float32(2 * len(turns))


def _turned(batch: Batch, quarter: int, *, mirrored: bool) -> Batch:
    """A batch mirrored from left to right, then turned by quarters."""
    import torch

    def turn(x: torch.Tensor) -> torch.Tensor:
        return torch.rot90(x.flip(-1) if mirrored else x, quarter, (-2, -1))

    return replace(batch, image={key: turn(x) for key, x in batch.image.items()}, valid=turn(batch.valid), label=None)


class _Column(NamedTuple):
    """A column of windows, read: which pixels hold something, (row number, place in the column) and batches."""

    mask: npt.NDArray[np.bool_]
    parts: list[list[tuple[int, Window]]]
    batches: list[Batch]


def _read_column(
    model: LandModel, scene: Scene, windows: Lattice, rows: Sequence[int], stripe: Window, wanted: Wanted | None,
    batch_size: int,
) -> _Column:  # fmt: skip
    sample = scene.read(stripe)
    mask: npt.NDArray[np.bool_] = np.asarray(sample.valid.any(0))
    if wanted is not None:
        mask &= wanted(stripe)
    if not model.sees_neighbours:
        # Pixels that nobody asked for are no context either: leave them out.
        sample = replace(sample, valid=sample.valid & mask)
    boxes = [(i, Window(windows.rows[i] - stripe.row, 0, windows.height, windows.width)) for i in rows]
    chosen = [(i, box) for i, box in boxes if mask[box.slices].any()]
    parts = [chosen[first : first + batch_size] for first in range(0, len(chosen), batch_size)]
    batches = [image_batch([crop(sample, box, stripe, scene) for _, box in part], model.spec) for part in parts]
    return _Column(mask, parts, batches)


def in_sets(probabilities: npt.NDArray[np.float32], set_from: float) -> npt.NDArray[np.bool_]:
    """(K, ...) -> (K, ...): classes of the conformal set (see metrics.calibration.fit_sets); always the likeliest."""
    return np.asarray(probabilities >= np.minimum(np.float32(set_from), probabilities.max(0)))


def crop(sample: Sample, box: Window, outer: Window, scene: Scene) -> Sample:
    """A part of a sample that was read as `outer`, without its labels; its location is its own."""
    rows, cols = box.slices
    place = scene.grid.lat_lon(Window(outer.row + box.row, outer.col + box.col, box.height, box.width))
    image = {key: values[..., rows, cols] for key, values in sample.image.items()}
    return replace(sample, image=image, valid=sample.valid[..., rows, cols], label=None, location=place)


def check_input(scene: Scene, spec: InputSpec) -> Scene:
    """The scene with the model's sensors and bands, in the model's order; notes say which optional ones are missing."""
    rasters, channels, notes = {}, {}, []
    for entry in spec.sensors:
        raster = scene.rasters.get(entry.sensor)
        there = reach(raster.bands, entry.indices) if raster is not None else ()
        have = [band for band in entry.bands if band in there]
        lost = [band for band in entry.bands if band not in have]
        if raster is not None and have:
            made = Channels(tuple(have), tuple(b for b in have if b in entry.indices), entry.scale, entry.offset)
            rasters[entry.sensor] = raster.select(made.to_read(raster.bands))
            if made.indices:
                channels[entry.sensor] = made
        if lost and entry.optional:
            what = f"{entry.sensor} lacks {', '.join(lost)}" if have else f"there is no {entry.sensor}"
            notes.append(f"{what}: the model was trained with it, and does without")
    fitted = replace(scene, rasters=rasters, channels=channels)
    return replace(fitted, notes=[*scene.notes, *notes, *unknown_coordinates([fitted], spec.uses)])


def open_for(
    spec: InputSpec, images: Sequence[ImageConfig], *, any_gsd: bool, statistics: OwnStatistics | None = None
) -> Scene:
    """The one scene that a model with `spec` is shown; raises when bands, sensor, dates or pixel size do not fit.

    statistics: of the place that it belongs to, for models that are normalised by them; default: the scene's own.
    """
    scenes = open_all_for(spec, images, any_gsd=any_gsd)
    if len(scenes) > 1:
        raise DataError(
            f"{images[0].path} names {len(scenes)} scenes",
            fix="name a folder instead of a file, for a map of each; or give a VRT of them",
        )
    return with_own_statistics([replace(scenes[0], statistics=statistics or {})], spec)[0]


def open_all_for(spec: InputSpec, images: Sequence[ImageConfig], *, any_gsd: bool) -> list[Scene]:
    """The scenes that a model with `spec` is shown, without statistics of their own; raises as `open_for`."""
    named: list[Named] = []
    notes: list[str] = []
    for image in images:
        if holds_items(image.path):
            scenes, own = scenes_for(spec, image)
            notes += own
        else:
            scenes = scenes_of(_as_trained(spec, image))
        named.append({name: tuple(_as_trained(spec, one) for one in each) for name, each in scenes.items()})
    files = [SceneFiles(name, each) for name, each in paired(images, named).items()]
    found = []
    for one in open_found(Found(files, notes=tuple(notes)), DataConfig(image=list(images)), labels=False):
        # What a model takes as the difference of two bands need not be in the files.
        wanted = {entry.sensor: entry.bands for entry in spec.sensors}
        offered = {key: raster.with_differences(wanted.get(key, ())) for key, raster in one.rasters.items()}
        scene = _in_units_of(spec, replace(one, rasters=offered))
        require_fit(
            spec,
            {key: raster.bands for key, raster in scene.rasters.items()},
            {key: len(raster.sources) for key, raster in scene.rasters.items()},
            spec.gsd_m if any_gsd else scene.grid.gsd_m,
            where=next(iter(scene.rasters.values())).name,
        )
        found.append(check_input(scene, spec))
    return found


def _as_trained(spec: InputSpec, image: ImageConfig) -> ImageConfig:
    """The image with what the model was trained with: sensor, dB and, unless it states its own scale, the offset."""
    first = spec.sensors[0].sensor
    sensor = image.sensor or (first if first != "image" else None)
    entry = next((entry for entry in spec.sensors if entry.sensor == (sensor or "image")), None)
    fixed: dict[str, Any] = {"sensor": sensor, "quantity": entry.quantity if entry else None}
    if image.scale is None:
        fixed["offset"] = 0.0 if entry and not entry.auto_offset else "auto"
    return image.model_copy(update=fixed)


def _in_units_of(spec: InputSpec, scene: Scene) -> Scene:
    """The scene in the model's numbers, where products or images say what theirs mean; raises BandError, DataError."""
    rasters = dict(scene.rasters)
    for key, raster in scene.rasters.items():
        dates = [image for image in scene.images if (image.sensor or "image") == key]
        known = [find_granule(image.path) is not None for image in dates]
        entry = next((entry for entry in spec.sensors if entry.sensor == key), None)
        if entry is not None and not any(known) and dates[0].scale is not None:
            rasters[key] = _rescaled(raster, entry, *scaling(dates[0]))
            continue
        if not any(known) or entry is None:
            if any(known) and spec.sensors[0].sensor == "image":
                raise BandError(
                    f"{raster.name} is reflectance of {key}; the model was trained without a sensor, so its unit is "
                    "not known", fix=f"train it again with data.sensor: {key}",
                )  # fmt: skip
            continue
        rasters[key] = _rescaled(raster, entry, find_sensor(key).scale, 0.0)
        if rasters[key] is not raster and not all(known):
            raise DataError(
                f"some dates of {key} are products with metadata, some plain rasters, and the model has its own scale",
                fix="give all dates in one form",
            )
    return replace(scene, rasters=rasters)


def _rescaled(raster: Raster, entry: SensorInput, scale: float, offset: float) -> Raster:
    """Numbers of a scale and offset in those of the model, the raster itself where they are the same."""
    gain, add = scale / entry.scale, (offset - entry.offset) / entry.scale
    if (gain, add) != (1.0, 0.0) and entry.quantity:
        raise DataError(
            f"{raster.name} has the scale {scale:g} and offset {offset:g} of its dB, the model {entry.scale:g} and "
            f"{entry.offset:g}", fix="give it in the model's",
        )  # fmt: skip
    return raster.rescaled(gain, add)
