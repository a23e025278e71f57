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
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from covermap import __version__
from covermap.card import ModelCard
from covermap.core.config import ImageConfig
from covermap.core.engine import cores, map_unordered
from covermap.core.errors import OutputError
from covermap.core.legend import Legend
from covermap.core.output import claim, replacing, require_no_input, write_text, writing
from covermap.core.progress import Tick, unseen
from covermap.core.run import checksum
from covermap.core.task import Task
from covermap.core.train_config import PredictConfig
from covermap.core.types import InputSpec, OwnStatistics
from covermap.data.scene import Scene
from covermap.geo.area import Area, read_area
from covermap.geo.grid import Grid, Window
from covermap.geo.products import MapSummary, finish_cog, finish_map, layer_beside, names_beside, small_cache
from covermap.geo.raster import is_remote
from covermap.geo.writer import RasterWriter
from covermap.hub import model_folder
from covermap.infer import Lattice, highest, infer_block, open_for
from covermap.models import LandModel, device_of, load_model, precision_of, read_card, weights_path
from covermap.verbs.predict_chips import predict_chips
from covermap.verbs.prediction import Prediction

NO_CONFIDENCE = 255


@dataclass(frozen=True)
class Job:
    """One prediction, complete enough to be its fingerprint."""

    model: str
    settings: PredictConfig
    windows: Lattice
    sums: dict[str, str]

    def fingerprint(self) -> str:
        """Everything that the blocks depend on: not the number of workers, the date only for models that use it."""
        lattice = [self.windows.area, self.windows.size_px, self.windows.overlap_px]
        parts = [lattice, self.settings.model_dump(exclude={"workers"}), sorted(self.sums.items()), __version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


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
    statistics: OwnStatistics | None = None,
    on_progress: Tick = unseen,
) -> Prediction:
    """Write a map and its companions beside `out`; an interrupted call is continued by the same call.

    With a model of chips a table (predict_chips). image: a path, or one ImageConfig for each of the model's sensors.
    aoi: polygons; the map covers their extent. statistics: see infer.open_for. on_progress gets (finished blocks, all
    blocks). Raises ModelError, BandError, GridError, OutputError.
    """
    out, settings = Path(out), ready_settings(settings or PredictConfig())
    folder = model_folder(model)
    images, card = _with_bands(image, bands), read_card(folder)
    if not card.task.kind.chips:
        return _predict_map(
            folder, card, images, out, settings, aoi=aoi, any_gsd=any_gsd, overwrite=overwrite, dry_run=dry_run,
            statistics=statistics, on_progress=on_progress,
        )  # fmt: skip
    if aoi:
        raise OutputError("the model answers for chips: --aoi has no effect", fix="leave it out")
    return predict_chips(
        folder, [images], out, settings=settings, any_gsd=any_gsd, overwrite=overwrite, dry_run=dry_run,
        statistics=[statistics] if statistics else (), on_progress=on_progress,
    )  # fmt: skip


def ready_settings(settings: PredictConfig) -> PredictConfig:
    """Settings with the device and precision that they mean here; raises ConfigError for a GPU that is not there."""
    device = device_of(settings.device)
    return settings.model_copy(update={"device": device, "precision": precision_of(settings.precision, device)})


def _predict_map(
    model: Path, card: ModelCard, images: Sequence[ImageConfig], out: Path, settings: PredictConfig, *,
    aoi: str | Path | None, any_gsd: bool, overwrite: bool, dry_run: bool, statistics: OwnStatistics | None,
    on_progress: Tick,
) -> Prediction:  # fmt: skip
    started = time.perf_counter()
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"{out} does not end in .tif", fix="maps are GeoTIFFs: give a name such as map.tif")
    if card.task.kind.takes == "numbers":
        settings = settings.model_copy(update={"confidence": False, "probabilities": False})
    scene = open_for(card.spec, images, any_gsd=any_gsd, statistics=statistics)
    outputs = _outputs(out, settings, card.task)
    require_no_input(outputs, [*scene.files, *([aoi] if aoi else [])])
    area = read_area(aoi, scene.grid) if aoi else None
    windows = Lattice.of(scene, card, settings)
    job = Job(str(model), settings, windows, _sums(model, scene, aoi, card.spec))
    blocks = windows.blocks(settings.block_px, area.window if area else None)
    work = out.with_name(out.name + ".work")
    resumed = _ledger(work, job, overwrite)
    # Side files of an interrupted call are its own.
    for path in outputs if resumed is None else (out,):
        claim(path, overwrite=overwrite, dry_run=dry_run)
    if dry_run:
        return Prediction(out, (), None, 0.0, 0.0, len(blocks), resumed or 0, tuple(scene.notes))
    _open_work(work, job, fresh=resumed is None)
    try:
        _predict_blocks(work, job, blocks, scene, area, on_progress)
        if card.task.kind.takes == "numbers":
            summary, layers = None, [_assemble_numbers(work, out, blocks, scene, card.legend, job, area)]
        else:
            summary, layers = _assemble(work, out, blocks, scene, card.legend, job, area)
    except BaseException:
        if not _finished(work):
            shutil.rmtree(work)  # nothing to go on with
        raise
    shutil.rmtree(work)
    seconds = time.perf_counter() - started
    files, notes = (summary.files, summary.notes) if summary else ((), ())
    mapped = sum(summary.areas_ha) if summary else _area_ha(scene.grid, area)
    return Prediction(
        out, (*files, *layers), summary, seconds, mapped / 100 / seconds, len(blocks), resumed or 0,
        (*scene.notes, *notes),
    )  # fmt: skip


def _area_ha(grid: Grid, area: Area | None) -> float:
    place = area.window if area else grid.window
    return sum(grid.row_areas_ha(place.row, place.height)) * place.width


def _outputs(out: Path, settings: PredictConfig, task: Task) -> list[Path]:
    """Every file that a call writes."""
    if task.kind.takes == "numbers":
        return [out]
    layers = {"confidence": settings.confidence, "probs": settings.probabilities}
    return [out, *names_beside(out).values(), *(layer_beside(out, key) for key, wanted in layers.items() if wanted)]


def _predict_blocks(
    work: Path, job: Job, blocks: Sequence[Window], scene: Scene, area: Area | None, on_progress: Tick
) -> None:
    """Work off the blocks that the ledger lacks."""
    import torch

    todo = [block for block in blocks if not _block_path(work, block).exists()]
    done = len(blocks) - len(todo)
    on_progress(done, len(blocks))
    workers = job.settings.workers or (cores() if job.settings.device == "cpu" else 1)
    if todo:
        model = load_model(job.model, device=job.settings.device, precision=job.settings.precision)
    stop = threading.Event()

    def work_off(block: Window) -> None:
        _predict_block(model, scene, job, area, block, _block_path(work, block), reader, stop)

    threads = torch.get_num_threads()
    # One thread of torch for each worker: the same sums in the same order for any number of workers.
    torch.set_num_threads(1)
    try:
        # The same threads read all blocks: each new one would keep memory of its own.
        with ThreadPoolExecutor(workers) as reader:
            for _ in map_unordered(work_off, todo, workers=workers, stop=stop.set):
                done += 1
                on_progress(done, len(blocks))
    finally:
        torch.set_num_threads(threads)


def _with_bands(image: str | Sequence[ImageConfig], bands: Sequence[str] | None) -> list[ImageConfig]:
    images = [ImageConfig(path=image)] if isinstance(image, str) else list(image)
    return [images[0].model_copy(update={"bands": list(bands)}), *images[1:]] if bands else images


def _sums(model: str | Path, scene: Scene, aoi: str | Path | None, spec: InputSpec) -> dict[str, str]:
    """Checksums of everything that is read. Remote images are known by their address only."""
    sums = {path.name: checksum(path) for path in (Path(model) / "config.json", weights_path(model))}
    files = [*scene.files, *([str(aoi)] if aoi else [])]
    sums |= {f"input {number}": checksum(path) for number, path in enumerate(files)}
    sums["remote"] = " ".join(path for path in scene.paths if is_remote(path))
    for key, raster in scene.rasters.items():
        scaling = [[(s.gain, s.add, s.quantity) for s in date] for date in raster.sources]
        masks = [mask and (mask.specification, mask.kinds) for mask in raster.clouds]
        sums[key] = repr((raster.bands, raster.nodata, raster.grid, scene.added.get(key), scaling, masks))
    if "dates" in spec.uses:
        sums["dates"] = repr(scene.dates)
    if scene.statistics:
        sums["statistics"] = json.dumps(scene.statistics)
    return sums


def _ledger(work: Path, job: Job, overwrite: bool) -> int | None:
    """The number of blocks that an interrupted call of the same job left, None where there is none."""
    record = work / "job.json"
    if not work.exists() or (work.is_dir() and not any(work.iterdir())):
        return None
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{work} is in the way: it is not the work folder of an interrupted prediction", fix="move it elsewhere"
        ) from error
    if before == job.fingerprint():
        return len(_finished(work))
    if not overwrite:
        raise OutputError(
            f"{work} holds an interrupted prediction with another model, image or settings",
            fix="repeat that call to finish it, or start again with --overwrite",
        )
    return None


def _open_work(work: Path, job: Job, *, fresh: bool) -> None:
    """Make the work folder, or clear away what a killed call was just writing."""
    if not fresh:
        for stray in work.glob(".*"):
            stray.unlink()
        return
    if work.exists():
        shutil.rmtree(work)
    with writing(work):
        work.mkdir(parents=True)
    write_text(work / "job.json", json.dumps({"fingerprint": job.fingerprint(), "sums": job.sums}, indent=2))


def _finished(work: Path) -> list[Path]:
    """Blocks that are there; a name with a dot first is one that was just being written."""
    return [path for path in work.glob("*.npz") if not path.name.startswith(".")]


def _block_path(work: Path, block: Window) -> Path:
    return work / f"{block.row}_{block.col}.npz"


def _predict_block(
    model: LandModel, scene: Scene, job: Job, area: Area | None, block: Window, out: Path, reader: Executor,
    stop: threading.Event,
) -> None:  # fmt: skip
    """Write codes and confidence (and all shares), or numbers, of one block to `out`, or nothing when told to stop."""
    legend = model.legend
    numbers = model.task.kind.takes == "numbers"
    found = np.full((len(legend) * numbers, block.height, block.width), np.nan, np.float32)
    codes = np.full((block.height, block.width), legend.map_nodata, legend.map_dtype)
    confidence = np.full(codes.shape, NO_CONFIDENCE, np.uint8)
    keep_all = job.settings.probabilities
    shares = np.full((len(legend), *codes.shape) if keep_all else (0, 0, 0), NO_CONFIDENCE, np.uint8)
    inside = area.read if area else None
    strips = infer_block(
        model, scene, job.windows, block, wanted=inside, batch_size=job.settings.batch_size, reader=reader
    )
    for strip in strips:
        if stop.is_set():
            return
        rows, cols = strip.window.within(block).slices
        if numbers:
            found[:, rows, cols] = np.where(strip.valid, strip.answers, np.float32(np.nan))
            continue
        best, top = highest(strip.answers)
        codes[rows, cols] = np.where(strip.valid, legend.decode(best), legend.map_nodata)
        confidence[rows, cols] = np.where(strip.valid, np.rint(np.clip(top, 0, 1) * 100), NO_CONFIDENCE)
        if keep_all:
            scaled = np.rint(np.clip(strip.answers, 0, 1) * 200)
            shares[:, rows, cols] = np.where(strip.valid, scaled, NO_CONFIDENCE)
    with replacing(out) as partial:
        np.savez(
            partial, **({"numbers": found} if numbers else {"codes": codes, "confidence": confidence, "shares": shares})
        )


def _assemble(
    work: Path, out: Path, blocks: Sequence[Window], scene: Scene, legend: Legend, job: Job, area: Area | None
) -> tuple[MapSummary, list[Path]]:
    """Blocks -> plain GeoTIFFs -> products; the blocks stay until everything is written."""
    place = area.window if area else scene.grid.window
    card = read_card(Path(job.model))
    tags = {"COVERMAP_MODEL": job.sums["model.safetensors"][:16]}
    tags |= {"COVERMAP_RUN": str(card.facts["run"])} if "run" in card.facts else {}
    if any(card.task.offsets):
        tags["COVERMAP_SHIFTED"] = "probabilities after decision.adjust or threshold"
    layers: dict[str, Path] = {}
    wanted: list[tuple[str, str, Sequence[str], float]] = []
    if job.settings.confidence:
        wanted.append(("confidence", "confidence", ["confidence in percent"], 1.0))
    if job.settings.probabilities:
        wanted.append(("probs", "shares", legend.names, 1 / 200))
    for name, key, bands, scale in wanted:
        plain = _join(work, key, blocks, scene.grid, place, bands, scale=scale)
        layers[name] = finish_cog(
            plain, layer_beside(out, name), nodata=NO_CONFIDENCE, description=bands, tags=tags, overwrite=True
        )
    plain = _join(
        work, "codes", blocks, scene.grid, place, ["land_cover"], dtype=legend.map_dtype, nodata=legend.map_nodata
    )
    summary = finish_map(
        plain, out, legend,
        date=next((d for d in scene.dates if d), None),
        derived_from=[*(Path(path).name for path in scene.paths), f"model {tags['COVERMAP_MODEL']}"],
        layers=layers, tags=tags, overwrite=True,
    )  # fmt: skip
    return summary, list(layers.values())


def _assemble_numbers(
    work: Path, out: Path, blocks: Sequence[Window], scene: Scene, legend: Legend, job: Job, area: Area | None
) -> Path:
    """Blocks of numbers -> a GeoTIFF of a band each; NaN where there is nothing."""
    place = area.window if area else scene.grid.window
    tags = {"COVERMAP_MODEL": job.sums["model.safetensors"][:16]}
    plain = _join(work, "numbers", blocks, scene.grid, place, legend.names, dtype="float32", nodata=np.nan)
    return finish_cog(plain, out, nodata=np.nan, description=legend.names, tags=tags, overwrite=True)


def _join(
    work: Path, key: str, blocks: Sequence[Window], grid: Grid, place: Window, names: Sequence[str], *,
    dtype: str = "uint8", nodata: float = NO_CONFIDENCE, scale: float = 1.0,
) -> Path:  # fmt: skip
    """One layer of all blocks as a plain GeoTIFF in the work folder."""
    plain = work / f"{key}.tif"
    with small_cache(), RasterWriter(
        plain, grid.window_grid(place), bands=names, dtype=dtype, nodata=nodata, overwrite=True, compress="none",
        scale=scale,
    ) as writer:  # fmt: skip
        for block in blocks:
            with np.load(_block_path(work, block)) as stored:
                writer.write(block.within(place), stored[key])
    return plain
