"""`predict`: a scene's map from a model folder, block by block, restartable, the same bytes however many workers.

    OUT.work/job.json       what is being made: model, inputs, settings (a changed one is refused)
    OUT.work/R_C.npz        a finished block; it appears whole or not at all, so these files are the ledger
    OUT, OUT.aux.xml, ...   written from the blocks at the end

A worker reads a block with its halo, blends the windows inside and keeps only its core; class = argmax of the blended
probabilities, taken before any rounding. Nodata in, nodata out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap import __version__
from covermap.core.config import DataConfig, ImageConfig, PredictConfig
from covermap.core.engine import cores, map_unordered
from covermap.core.errors import DataError, OutputError
from covermap.core.output import claim, replacing, write_text, writing
from covermap.core.run import checksum
from covermap.data.scene import Scene, open_scenes
from covermap.geo.area import read_area
from covermap.geo.grid import Grid, Window
from covermap.geo.products import MapSummary, finish_cog, finish_map
from covermap.geo.raster import RasterWriter, is_remote
from covermap.infer import Lattice, check_input, default_overlap, infer_block
from covermap.models import LandModel, load_model, read_card, require_fit

NO_CONFIDENCE = 255


@dataclass(frozen=True)
class Job:
    """One prediction: small enough to be sent to a worker, complete enough to be its fingerprint."""

    model: str
    images: tuple[ImageConfig, ...]
    settings: PredictConfig
    area: Window
    size_px: int
    overlap_px: int
    aoi: str | None = None
    sums: dict[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Everything that the bytes of the result depend on (not the number of workers)."""
        settings = self.settings.model_dump(exclude={"workers"})
        parts = [self.area, self.size_px, self.overlap_px, settings, sorted(self.sums.items()), __version__]
        parts.append([image.model_dump(exclude={"path"}) for image in self.images])
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Prediction:
    """What was written, and how long it took."""

    path: Path
    files: tuple[Path, ...]
    summary: MapSummary | None
    seconds: float
    km2_per_s: float
    num_blocks: int
    num_resumed: int
    notes: tuple[str, ...] = ()

    @property
    def areas(self) -> list[dict[str, Any]]:
        """A row for each class: code, name, pixels, hectares by pixel counting (not an error-adjusted estimate)."""
        if self.summary is None:
            return []
        rows = zip(self.summary.legend.classes, self.summary.num_pixels, self.summary.areas_ha, strict=True)
        return [{"code": c.code, "class": c.name, "pixels": n, "mapped_ha": round(ha, 4)} for c, n, ha in rows]


def predict(
    model: str | Path,
    image: str | Sequence[ImageConfig],
    out: str | Path,
    *,
    settings: PredictConfig | None = None,
    bands: Sequence[str] | None = None,
    aoi: str | Path | None = None,
    any_gsd: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prediction:
    """Write a map and its companions beside `out`; an interrupted call is continued by the same call.

    image: a path, or one ImageConfig for each of the model's sensors. aoi: polygons; the map covers their extent.
    on_progress gets (finished blocks, all blocks). Raises ModelError, BandError, GridError, OutputError.
    """
    started = time.perf_counter()
    out, settings = Path(out), settings or PredictConfig()
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"{out} does not end in .tif", fix="maps are GeoTIFFs: give a name such as map.tif")
    card = read_card(model)
    images = [ImageConfig(path=image)] if isinstance(image, str) else list(image)
    scene = open_for(card.spec, images, bands=bands, any_gsd=any_gsd)
    if any(not is_remote(path) and Path(path).resolve() == out.resolve() for path in scene.paths):
        raise OutputError(f"{out} is the image itself", fix="give the map another name")
    work = out.with_name(out.name + ".work")
    if not dry_run:
        claim(out, overwrite=overwrite)
    area = read_area(aoi, scene.grid).window if aoi else scene.grid.window
    loaded = load_model(model, device=device_of(settings))
    size = settings.size_px or max(256, card.spec.size_px)
    overlap = settings.overlap_px if settings.overlap_px is not None else default_overlap(loaded, size)
    job = Job(
        str(model), _with_bands(images, bands), settings, area, size, overlap, str(aoi) if aoi else None,
        _sums(model, scene, aoi),
    )  # fmt: skip
    blocks = Lattice(area, size, overlap).blocks(settings.block_px)
    if dry_run:
        return Prediction(out, (), None, 0.0, 0.0, len(blocks), 0, tuple(scene.notes))
    resumed = _open_ledger(work, job, overwrite)
    _predict_blocks(work, job, blocks, any_gsd, on_progress)
    summary, layers = _assemble(work, out, blocks, scene, loaded, job)
    shutil.rmtree(work)
    seconds = time.perf_counter() - started
    return Prediction(
        out, (*summary.files, *layers), summary, seconds, sum(summary.areas_ha) / 100 / seconds,
        len(blocks), resumed, (*scene.notes, *summary.notes),
    )  # fmt: skip


def _predict_blocks(
    work: Path, job: Job, blocks: Sequence[Window], any_gsd: bool, on_progress: Callable[[int, int], None]
) -> None:
    """Work off the blocks that the ledger lacks."""
    import torch

    todo = [(work, block) for block in blocks if not _block_path(work, block).exists()]
    done = len(blocks) - len(todo)
    on_progress(done, len(blocks))
    workers = job.settings.workers or (1 if device_of(job.settings) == "cuda" else cores())
    threads = torch.get_num_threads()
    try:
        for _ in map_unordered(_predict_block, todo, setup=_set_up, arguments=(job, any_gsd), workers=workers):
            done += 1
            on_progress(done, len(blocks))
    finally:
        torch.set_num_threads(threads)


def open_for(spec: Any, images: Sequence[ImageConfig], *, bands: Sequence[str] | None, any_gsd: bool) -> Scene:
    """The scene that a model with `spec` is shown; raises when bands, sensor or pixel size do not fit."""
    first = spec.sensors[0].sensor
    named = [
        image.model_copy(update={"sensor": image.sensor or (first if first != "image" else None)})
        for image in _with_bands(images, bands)
    ]
    scenes = open_scenes(DataConfig(image=named), labels=False)
    if len(scenes) > 1:
        raise DataError(f"{images[0].path} names {len(scenes)} scenes", fix="map one at a time, or give a VRT of them")
    scene = scenes[0]
    where = next(iter(scene.rasters.values())).name
    available = {key: raster.bands for key, raster in scene.rasters.items()}
    gsd = spec.gsd_m if any_gsd else scene.grid.gsd_m
    require_fit(spec, available, gsd, where=where)
    return check_input(scene, spec)


def _with_bands(images: Sequence[ImageConfig], bands: Sequence[str] | None) -> tuple[ImageConfig, ...]:
    if bands is None:
        return tuple(images)
    return (images[0].model_copy(update={"bands": list(bands)}), *images[1:])


def device_of(settings: PredictConfig) -> str:
    """cuda where there is one and nobody asked for the CPU."""
    if settings.device != "auto":
        return settings.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _sums(model: str | Path, scene: Scene, aoi: str | Path | None) -> dict[str, str]:
    """Checksums of everything that is read. Remote images are known by their address only."""
    sums = {name: checksum(Path(model) / name) for name in ("config.json", "model.safetensors")}
    for number, path in enumerate([*scene.paths, *([str(aoi)] if aoi else [])]):
        sums[f"input {number}"] = path if is_remote(path) else checksum(path)
    return sums


def _open_ledger(work: Path, job: Job, overwrite: bool) -> int:
    """Make the work folder, or accept an interrupted one of the same job; the number of blocks it holds."""
    record = work / "job.json"
    if record.is_file():
        before = json.loads(record.read_text(encoding="utf-8")).get("fingerprint")
        if before == job.fingerprint():
            for stray in work.glob(".*"):
                stray.unlink()
            return len(list(work.glob("*.npz")))
        if not overwrite:
            raise OutputError(
                f"{work} holds an interrupted prediction with another model, image or settings",
                fix="repeat that call to finish it, or start again with --overwrite",
            )
    if work.exists():
        shutil.rmtree(work)
    with writing(work):
        work.mkdir(parents=True)
    write_text(record, json.dumps({"fingerprint": job.fingerprint(), "sums": job.sums}, indent=2))
    return 0


def _block_path(work: Path, block: Window) -> Path:
    return work / f"{block.row}_{block.col}.npz"


@dataclass
class _Worker:
    scene: Scene
    model: LandModel
    job: Job
    inside: Callable[[Window], npt.NDArray[np.bool_]] | None


def _set_up(job: Job, any_gsd: bool) -> _Worker:
    """Load what a worker needs once. One thread each: the same sums in the same order for any number of workers."""
    import torch

    torch.set_num_threads(1)
    model = load_model(job.model, device=device_of(job.settings))
    scene = open_for(model.spec, job.images, bands=None, any_gsd=any_gsd)
    inside = read_area(job.aoi, scene.grid).read if job.aoi else None
    return _Worker(scene, model, job, inside)


def _predict_block(worker: _Worker, item: tuple[Path, Window]) -> Window:
    work, block = item
    job, legend = worker.job, worker.model.legend
    codes = np.full((block.height, block.width), legend.map_nodata, legend.map_dtype)
    confidence = np.full(codes.shape, NO_CONFIDENCE, np.uint8)
    keep_all = job.settings.probabilities
    shares = np.full((len(legend), *codes.shape) if keep_all else (0, 0, 0), NO_CONFIDENCE, np.uint8)
    windows = Lattice(job.area, job.size_px, job.overlap_px)
    for strip in infer_block(
        worker.model, worker.scene, windows, block, wanted=worker.inside, batch_size=job.settings.batch_size
    ):
        rows, cols = strip.window.within(block).slices
        best = strip.probabilities.argmax(0)
        codes[rows, cols] = np.where(strip.valid, legend.decode(best), legend.map_nodata)
        top = np.take_along_axis(strip.probabilities, best[None], 0)[0]
        confidence[rows, cols] = np.where(strip.valid, np.rint(np.clip(top, 0, 1) * 100), NO_CONFIDENCE)
        if keep_all:
            scaled = np.rint(np.clip(strip.probabilities, 0, 1) * 200)
            shares[:, rows, cols] = np.where(strip.valid, scaled, NO_CONFIDENCE)
    with replacing(_block_path(work, block)) as partial:
        np.savez_compressed(partial, codes=codes, confidence=confidence, shares=shares)
    return block


def _assemble(
    work: Path, out: Path, blocks: Sequence[Window], scene: Scene, model: LandModel, job: Job
) -> tuple[MapSummary, list[Path]]:
    """Blocks -> plain GeoTIFFs -> products; the blocks stay until everything is written."""
    legend, grid = model.legend, scene.grid.window_grid(job.area)
    tags = {"COVERMAP_MODEL": job.sums["model.safetensors"][:16]}
    layers: dict[str, Path] = {}
    if job.settings.confidence:
        plain = _join(work, "confidence", blocks, job, grid, ["confidence in percent"])
        layers["confidence"] = out.with_name(f"{out.stem}_confidence.tif")
        finish_cog(
            plain,
            layers["confidence"],
            nodata=NO_CONFIDENCE,
            description="confidence in percent",
            tags=tags,
            overwrite=True,
        )
    if job.settings.probabilities:
        plain = _join(work, "shares", blocks, job, grid, legend.names, scale=1 / 200)
        layers["probs"] = out.with_name(f"{out.stem}_probs.tif")
        finish_cog(plain, layers["probs"], nodata=NO_CONFIDENCE, description=legend.names, tags=tags, overwrite=True)
    plain = _join(work, "codes", blocks, job, grid, ["land_cover"], dtype=legend.map_dtype, nodata=legend.map_nodata)
    summary = finish_map(
        plain, out, legend,
        date=next((d for d in next(iter(scene.rasters.values())).dates if d), None),
        derived_from=[*(Path(path).name for path in scene.paths), f"model {tags['COVERMAP_MODEL']}"],
        confidence=layers.get("confidence"), tags=tags, overwrite=True,
    )  # fmt: skip
    return summary, list(layers.values())


def _join(
    work: Path, key: str, blocks: Sequence[Window], job: Job, grid: Grid, names: Sequence[str], *,
    dtype: str = "uint8", nodata: int = NO_CONFIDENCE, scale: float = 1.0,
) -> Path:  # fmt: skip
    """One layer of all blocks as a plain GeoTIFF in the work folder."""
    plain = work / f"{key}.tif"
    with RasterWriter(
        plain, grid, bands=names, dtype=dtype, nodata=nodata, overwrite=True, compress="none", scale=scale
    ) as writer:
        for block in blocks:
            with np.load(_block_path(work, block)) as stored:
                writer.write(block.within(job.area), stored[key])
    return plain
