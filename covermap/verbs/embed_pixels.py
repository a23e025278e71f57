"""`embed` of pixels: unit vectors on the grid of the backbone's cells, as a COG for each scene or TESSERA's folders.

Windows lie on multiples of the stride, on one lattice of the scene as in prediction (infer.Lattice, counted in cells);
where they overlap their features are blended, and brought to length 1 after that. Blocks are the ledger's parts.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, OutputError, within_memory
from covermap.core.output import claim, clear_left, replacing
from covermap.core.progress import Tick
from covermap.data.chips import image_batch
from covermap.data.scene import Scene
from covermap.geo.embedding_codes import encode, unit
from covermap.geo.embedding_cog import finished_embeddings, plain_writer
from covermap.geo.grid import Grid, Window
from covermap.geo.products import small_cache
from covermap.geo.raster import open_dataset
from covermap.geo.tessera import write_cells
from covermap.infer import Lattice
from covermap.verbs.embed_item import pixel_item
from covermap.verbs.embedded import Embedded
from covermap.verbs.encoder import Encoder, Shown
from covermap.verbs.ledger import Ledger, clear_finished, state_of, work_off

_HELD, _BATCH_PX = 1 << 23, 1 << 17
"""Numbers of a block that are held at once, and pixels that go through the network at once."""


@dataclass(frozen=True)
class PixelJob:
    """One scene: windows and blocks are counted in cells of `encoder.stride` px."""

    encoder: Encoder
    scene: Scene
    size_px: int
    valid: float
    dtype: str

    @cached_property
    def grid(self) -> Grid:
        """Of the cells; the last row and column may reach beyond the scene."""
        return self.scene.grid.coarsen(self.encoder.stride)

    @cached_property
    def lattice(self) -> Lattice:
        """Windows, in cells."""
        size = self.size_px // self.encoder.stride
        return Lattice(self.grid.window, size, min(size - 1, max(1, size // 8)))

    @cached_property
    def blocks(self) -> list[Window]:
        """What is computed at once, in cells."""
        side = max(self.lattice.size_px, int((_HELD / 2 / self.encoder.dimensions) ** 0.5))
        return self.lattice.blocks(side)

    @property
    def made_of(self) -> dict[str, object]:
        """All that the cells depend on."""
        return {
            "encoder": dict(self.encoder.facts), "input": self.encoder.spec.to_dict(), "dates": self.scene.dates,
            "settings": (self.size_px, self.valid, self.dtype), "inputs": state_of(self.scene.files),
            "statistics": self.scene.statistics,
        }  # fmt: skip

    def compute(self, block: Window) -> npt.NDArray[Any]:
        """Unit vectors (D, h, w) of a block as they are stored; nodata where too little is valid."""
        held, known = self.blended(block)
        return encode(np.where(known >= self.valid, unit(held), np.float32(np.nan)), self.dtype)

    def blended(self, block: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What all windows say of a block (D, h, w), and the valid share of each cell (h, w)."""
        held = np.zeros((self.encoder.dimensions, block.height, block.width), np.float32)
        known = np.zeros(held.shape[1:], np.float32)
        for part in self._batches(block):
            stride = self.encoder.stride
            windows = [Window(*(stride * n for n in window)) for _, _, window in part]
            samples = [self.scene.read(window) for window in windows]
            cells, share = self.encoder.cells(image_batch(samples, self.encoder.spec))
            for (i, j, window), one, there in zip(part, cells, share, strict=True):
                inside = window.intersect(block)
                mine, its = inside.within(block).slices, inside.within(window).slices
                weight = np.outer(self.lattice.row_weights[i], self.lattice.col_weights[j])[its]
                held[:, *mine] += one[:, *its] * weight
                known[mine] = there[its]
        if not np.isfinite(held).all():
            raise DataError(
                f"scene {self.scene.name}: embeddings are no numbers", fix="check the weights, and nodata of the image"
            )
        return held, known

    def _batches(self, block: Window) -> Iterator[list[tuple[int, int, Window]]]:
        """Windows that touch a block: their numbers in the lattice, and places in cells."""
        windows = self.lattice
        rows = [
            (i, r)
            for i, r in enumerate(windows.rows)
            if r < block.row + block.height and r + windows.height > block.row
        ]
        cols = [
            (j, c) for j, c in enumerate(windows.cols) if c < block.col + block.width and c + windows.width > block.col
        ]
        found = [
            (i, j, Window(r, c, windows.height, windows.width)) for (i, r), (j, c) in itertools.product(rows, cols)
        ]
        dates = max(1, self.encoder.spec.num_dates)
        step = max(1, _BATCH_PX // (windows.height * windows.width * self.encoder.stride**2 * dates))
        yield from (found[first : first + step] for first in range(0, len(found), step))


def embed_pixels(
    shown: Shown, out: Path, *, size_px: int | None, valid: float, dtype: str, tessera: bool, workers: int,
    started: float, overwrite: bool, on_progress: Tick,
) -> Embedded:  # fmt: skip
    """Write OUT.tif, or a folder of one for each scene, or of TESSERA's cells; raises as `embed`."""
    kept = "float32" if tessera else dtype
    jobs = [job_of(PixelJob, shown.encoder, scene, size_px, valid, kept) for scene in shown.scenes]
    outs = _outs(shown, out, tessera=tessera, overwrite=overwrite)
    notes = [*shown.notes, f"a cell is {shown.encoder.stride} px: {jobs[0].grid.gsd_m:.4g} m"]
    files: list[Path] = []
    count, total, before = 0, sum(len(job.blocks) for job in jobs), 0

    def tick(done: int, _: int) -> None:
        on_progress(before + done, total)

    for job, target in zip(jobs, outs, strict=True):
        if len(jobs) > 1 and not (tessera or overwrite) and _is_there(job, target):
            notes.append(f"{target} was there already")
            clear_finished(target)
        else:
            made, known, said = _one(shown, job, target, out if tessera else None, workers, overwrite, tick)
            files, count, notes = files + made, count + known, notes + said
        before += len(job.blocks)
    seconds = time.perf_counter() - started
    return Embedded(
        tuple(files), count, 0, shown.encoder.dimensions, {}, seconds, tuple(dict.fromkeys(notes))
    )  # fmt: skip


def job_of(
    kind: type[PixelJob], encoder: Encoder, scene: Scene, size_px: int | None, valid: float, dtype: str
) -> PixelJob:  # fmt: skip
    """The job of a scene; raises ConfigError for windows that are no whole number of patches."""
    side = max(encoder.side, encoder.stride)
    if size_px is not None and (size_px < side or size_px % side):
        raise ConfigError(
            f"--size {size_px} is not possible: windows are whole multiples of {side} px",
            fix=f"--size {max(1, round(size_px / side)) * side}",
        )
    size = size_px or max(1, encoder.spec.size_px // side) * side
    return kind(encoder, scene, size, valid, dtype)


def _outs(shown: Shown, out: Path, *, tessera: bool, overwrite: bool) -> list[Path]:
    """The raster of each scene; of TESSERA's one that is gone at the end."""
    names = [scene.name for scene in shown.scenes]
    if out.suffix and len(names) > 1:
        raise OutputError(
            f"there are {len(names)} scenes, and one file {out}", fix="name a folder, for a raster of each"
        )
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise OutputError(
            f"several scenes are called {double[0]}", fix="rename them: each raster is called as its scene"
        )
    if tessera:
        undated = [scene.name for scene in shown.scenes if not any(scene.dates)]
        if undated:
            raise DataError(
                f"scene {undated[0]} has no date, and TESSERA's folders are years", fix="state it: FILE@2019-07-27"
            )
    found = [out] if out.suffix else [out / f"{name}.tif" for name in names]
    for path in found:
        if len(found) == 1:
            claim(path, overwrite=overwrite or tessera)
        else:
            claim(path, overwrite=True)  # those that an interrupted call has finished stay
            clear_left(path)
    return found


def _is_there(job: PixelJob, target: Path) -> bool:
    """Whether an earlier call has finished this raster; raises OutputError for another one in its place."""
    if not target.exists():
        return False
    made_at, now = target.stat().st_mtime_ns, time.time_ns()
    # Times to come are those of another clock, and tell nothing.
    newer = any(made_at < changed <= now for _, _, changed in state_of(job.scene.files))
    if not newer and open_dataset(str(target)).tags().get("COVERMAP_MADE_OF") == _tags(job)["COVERMAP_MADE_OF"]:
        return True
    raise OutputError(
        f"{target} exists already, of another encoder or image", fix="choose another folder or add --overwrite"
    )


def _one(
    shown: Shown, job: PixelJob, target: Path, tessera: Path | None, workers: int, overwrite: bool, on_progress: Tick
) -> tuple[list[Path], int, list[str]]:  # fmt: skip
    """One scene: blocks, then the files of them, the number of cells with data, and notes."""
    ledger = Ledger(target, "npy", job.made_of)
    with ledger.at_work(overwrite=overwrite):
        compute_blocks(job, ledger, step="embedding", workers=workers, on_progress=on_progress)
        plain, known = ledger.folder / "plain.tif", 0
        with small_cache(), plain_writer(plain, job.grid, job.encoder.dimensions, job.dtype) as writer:
            for block in job.blocks:
                stored = np.load(ledger.path(part_key(block)))
                known += int((np.isfinite(stored[0]) if stored.dtype.kind == "f" else stored[0] != -128).sum())
                writer.write(block, stored)
        if not known:
            ledger.drop()
            raise DataError(f"scene {job.scene.name} has no valid cell", fix="check nodata: covermap info IMAGE")
        if tessera is not None:
            day = next(day for day in job.scene.dates if day)
            return write_cells(plain, tessera, day[:4], overwrite=overwrite), known, []
        with finished_embeddings(plain, target, job.dtype, tags=_tags(job)) as written:
            item, said = pixel_item(shown, job.scene, target, job.grid, job.dtype, written)
        return [target, *([item] if item else [])], known, said


def compute_blocks(job: PixelJob, ledger: Ledger, *, step: str, workers: int, on_progress: Tick) -> None:
    """Compute the blocks that a ledger lacks, in threads."""

    def compute(block: Window) -> None:
        with replacing(ledger.path(part_key(block)), lasting=False) as partial, open(partial, "wb") as file:
            np.save(file, job.compute(block))

    todo = [block for block in job.blocks if not ledger.is_done(part_key(block))]
    with within_memory(step, fix="use fewer --workers, or a smaller --size"):
        work_off(compute, todo, total=len(job.blocks), workers=workers, on_progress=on_progress)


def part_key(block: Window) -> str:
    """Name of a block in the ledger."""
    return f"{block.row}_{block.col}"


def _tags(job: PixelJob) -> dict[str, str]:
    facts = job.encoder.facts
    # Images by name and size, not by time of change: a copy of the same images makes the same bytes.
    files = [(Path(file).name, size) for file, size, _ in state_of(job.scene.files)]
    inputs = {"inputs": files, "grid": (str(job.grid.crs), tuple(job.grid.transform), job.grid.height, job.grid.width)}
    made_of = repr(sorted((job.made_of | inputs).items()))
    return {
        "COVERMAP_MADE_OF": hashlib.sha256(made_of.encode()).hexdigest()[:16],
        "COVERMAP_BACKBONE": str(facts["backbone"]), "COVERMAP_WEIGHTS": str(facts["weights"]),
        "COVERMAP_PARAMETERS": str(facts["parameters_sha256"]),
        **({"COVERMAP_QUANTISATION": "value = sign(q) * (|q| / 127.5)^2"} if job.dtype == "int8" else {}),
    }  # fmt: skip
