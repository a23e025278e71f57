"""`predict`: maps of one or many scenes from a model folder, block by block, restartable, the same bytes by any engine.

scenes -> MapJob each (verbs/map_job.py) -> blocks of all of them, in threads, processes or a Ray cluster -> maps
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from covermap.card import ModelCard
from covermap.core.config import ImageConfig
from covermap.core.engine import cores, map_unordered, over_processes, over_ray, shard
from covermap.core.errors import OutputError
from covermap.core.output import at_work, require_no_input, require_tif
from covermap.core.progress import Say, Tick, silent, unseen
from covermap.core.run import checksum
from covermap.core.train_config import PredictConfig
from covermap.core.types import OwnStatistics
from covermap.data.footprint import overlapping
from covermap.geo.area import Outside
from covermap.geo.grid import Grid, Window
from covermap.geo.products import layer_beside, summary_beside
from covermap.hub import model_folder
from covermap.infer import open_all_for
from covermap.ml.applicability import USUAL
from covermap.models import LandModel, applicability_path, device_of, load_model, precision_of, read_card, weights_path
from covermap.verbs.forecast import forecast
from covermap.verbs.map_job import MapJob, MapRequest, compute_block
from covermap.verbs.predict_chips import predict_chips, with_statistics
from covermap.verbs.prediction import Prediction

Block = tuple[MapJob, Window]


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
    part: str | None = None,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> Prediction:
    """Write a map and its companions beside `out`; an interrupted call is continued by the same call.

    With a model of chips a table (predict_chips). image: a path of one scene, or one ImageConfig for each of the
    model's sensors. aoi: polygons; the map covers their extent. statistics: see infer.open_for. part: i/n, only every
    n-th block is computed and nothing is put together: the same call without it does that, when all parts are done.
    on_progress gets (finished blocks, all blocks). Raises ModelError, BandError, GridError, OutputError.
    """
    out, settings = Path(out), ready_settings(settings or PredictConfig())
    folder = model_folder(model)
    images, card = _with_bands(image, bands), read_card(folder)
    if not card.task.kind.chips:
        require_tif(out)
        request = _request(
            folder, card, images, out, settings, sums=_model_sums(folder, settings), aoi=aoi, any_gsd=any_gsd,
            statistics=statistics,
        )  # fmt: skip
        (done,) = _work_off(
            [request], part=part, overwrite=overwrite, dry_run=dry_run, say=say, on_progress=on_progress
        )
        return done
    odd = [name for name in ("entropy", "sets", "applicability") if getattr(settings, name)]
    odd += [name for name, given in (("aoi", aoi), ("shard", part)) if given]
    if odd:
        flags = ", ".join(f"--{name}" for name in odd)
        raise OutputError(f"the model answers for chips: {flags} has no effect", fix="leave it out")
    return predict_chips(
        folder, [images], out, settings=settings, any_gsd=any_gsd, overwrite=overwrite, dry_run=dry_run,
        statistics=[statistics] if statistics else (), on_progress=on_progress,
    )  # fmt: skip


def predict_scenes(
    model: str | Path,
    image: str | Sequence[ImageConfig],
    folder: str | Path,
    *,
    settings: PredictConfig | None = None,
    bands: Sequence[str] | None = None,
    aoi: str | Path | None = None,
    any_gsd: bool = False,
    part: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    say: Say = silent,
    on_progress: Tick = unseen,
) -> list[Prediction]:
    """Write FOLDER/SCENE.tif of every scene that a path names; each place is mapped once.

    image: a path of one scene, a pattern, a folder of scenes, or a list of STAC items (data.given says which folder is
    what), whose maps are called as they. Maps that an interrupted call has finished stay. Where scenes overlap,
    the first one by name that holds data at a pixel's centre is mapped there; scenes may differ in CRS, and each map
    has its scene's. part: as of `predict`. Raises as `predict`, and for every scene before any work.
    """
    settings = ready_settings(settings or PredictConfig())
    where = model_folder(model)
    card = read_card(where)
    if card.task.kind.chips:
        raise OutputError("the model answers for chips", fix="name a table, which takes all scenes: chips.csv")
    scenes = with_statistics(open_all_for(card.spec, _with_bands(image, bands), any_gsd=any_gsd), card)
    names = [scene.name for scene in scenes]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise OutputError(f"several scenes are called {double[0]}", fix="rename them: each map is called as its scene")
    requests, sums = [], _model_sums(where, settings)
    for number, scene in enumerate(scenes):
        first = tuple(tuple(one.images) for one in overlapping(scene.grid, scenes[:number]))
        target = Path(folder) / f"{scene.name}.tif"
        requests.append(
            _request(where, card, scene.images, target, settings, sums=sums, aoi=aoi, any_gsd=any_gsd,
                     statistics=scene.statistics, first=first)
        )  # fmt: skip
    found = list(_work_off(
        requests, part=part, overwrite=overwrite, dry_run=dry_run, say=say, on_progress=on_progress
    ))  # fmt: skip
    found.sort(key=lambda done: names.index(done.path.stem))  # they come as they are finished
    told = {note for done in found for note in done.notes}
    of_all = tuple(note for note in scenes[0].notes if note not in told)  # what was left out of a list or a pattern
    return [replace(found[0], notes=(*of_all, *found[0].notes)), *found[1:]]


def predict_dates(
    model: str | Path, images: Sequence[Sequence[ImageConfig]], outs: Sequence[Path], *, settings: PredictConfig,
    overwrite: bool = False, keep: bool = False, on_progress: Tick = unseen,
) -> list[Prediction]:  # fmt: skip
    """Write a map of each of several scenes of one place, whatever they overlap; those that an interrupted call has
    finished stay. model: of maps. keep: the work folders stay, too, by which the same call finds the finished maps
    again. Raises as `predict`, and for every scene before any work.
    """
    settings = ready_settings(settings)
    where = model_folder(model)
    card, sums = read_card(where), _model_sums(where, settings)
    requests = [
        _request(where, card, each, out, settings, sums=sums, aoi=None, any_gsd=False)
        for each, out in zip(images, outs, strict=True)
    ]
    found = list(_work_off(requests, overwrite=overwrite, dry_run=False, keep=keep, on_progress=on_progress))
    return sorted(found, key=lambda done: list(outs).index(done.path))  # they come as they are finished


def ready_settings(settings: PredictConfig) -> PredictConfig:
    """Settings with the device and precision that they mean here; raises ConfigError for a GPU that is not there."""
    device = device_of(settings.device)
    return settings.model_copy(update={"device": device, "precision": precision_of(settings.precision, device)})


def _request(
    folder: Path, card: ModelCard, images: Sequence[ImageConfig], out: Path, settings: PredictConfig, *,
    sums: tuple[tuple[str, str], ...], aoi: str | Path | None, any_gsd: bool, statistics: OwnStatistics | None = None,
    first: tuple[tuple[ImageConfig, ...], ...] = (),
) -> MapRequest:  # fmt: skip
    if card.task.kind.takes == "numbers":
        none = dict.fromkeys(("confidence", "probabilities", "entropy", "sets"), False)
        settings = settings.model_copy(update=none)
    return MapRequest(
        str(folder), sums, tuple(images), str(out), settings, str(aoi) if aoi else None, any_gsd, statistics, first
    )  # fmt: skip


def _model_sums(folder: Path, settings: PredictConfig) -> tuple[tuple[str, str], ...]:
    """Names and checksums of the files of a model that a map depends on."""
    files = [folder / "config.json", weights_path(folder), *([applicability_path(folder)] * settings.applicability)]
    return tuple((path.name, checksum(path)) for path in files if path.is_file())


def _work_off(
    requests: Sequence[MapRequest],
    *,
    part: str | None = None,
    overwrite: bool,
    dry_run: bool,
    keep: bool = False,
    on_progress: Tick,
    say: Say = silent,
) -> Iterator[Prediction]:
    """Every scene's map, as soon as its blocks are there; all that can be refused is refused first."""
    started = time.perf_counter()
    jobs = _opened(requests)
    require_no_input((out for job in jobs for out in job.outputs), (file for job in jobs for file in job.scene.files))
    resumed = [job.claim(overwrite=overwrite, dry_run=dry_run) for job in jobs]
    settings = requests[0].settings
    # Loaded when it is first asked for: worker processes load their own.
    model = cache(partial(load_model, requests[0].model, device=settings.device, precision=settings.precision))
    mine = [(job, block) for job in jobs for block in job.blocks]
    mine = shard(mine, part) if part else mine  # before it is looked at what is done, which changes all the time
    if say is not silent:
        say(forecast(jobs, model()).text)
    if dry_run:
        for job, number in zip(jobs, resumed, strict=True):
            yield Prediction(job.out, (), None, 0.0, 0.0, len(job.blocks), number, tuple(job.scene.notes))
        return
    before = dict(zip((job.out for job in jobs), resumed, strict=True))
    _ = [job.fingerprint for job in jobs]  # what cannot be read is found before a folder is made
    # The first folder stands for all: other calls on the same scenes begin with it, too.
    with at_work(jobs[0].work, alone=part is None):
        for job in jobs:
            job.open_work(alone=part is None)
        if part:
            yield from _part(jobs, mine, model, started, on_progress)
        else:
            yield from _whole(jobs, mine, model, before, started, on_progress)
            for job in jobs if not keep else ():
                job.close()


def _opened(requests: Sequence[MapRequest]) -> list[MapJob]:
    """Of many scenes those that hold something of the area of interest; raises Outside where none does."""
    jobs: list[MapJob] = []
    outside: list[tuple[str, Outside]] = []
    for request in requests:
        try:
            jobs.append(MapJob(request))
        except Outside as error:
            outside.append((Path(request.out).stem, error))
    if not jobs:
        raise outside[0][1]
    if outside:
        names = ", ".join(name for name, _ in outside[:5]) + (", ..." if len(outside) > 5 else "")
        jobs[0].scene.notes.append(f"{len(outside)} scenes lie outside of {requests[0].aoi}: {names}")
    return jobs


def _whole(
    jobs: Sequence[MapJob], mine: Sequence[Block], model: Callable[[], LandModel], before: Mapping[Path, int],
    started: float, on_progress: Tick,
) -> Iterator[Prediction]:  # fmt: skip
    """Every map as soon as its blocks are there. before: blocks of each that were there when the call began."""
    todo = [(job, block) for job, block in mine if not job.is_done(block)]
    left = Counter(job.out for job, _ in todo)
    total, done = len(mine), len(mine) - len(todo)
    on_progress(done, total)
    try:
        for job in [job for job in jobs if not left[job.out]]:
            yield _finished(job, before[job.out], started)
        for job, _ in _computed(todo, model):
            done += 1
            on_progress(done, total)
            left[job.out] -= 1
            if not left[job.out]:
                yield _finished(job, before[job.out], started)
    except BaseException:
        for job in jobs:
            job.give_up()
        raise


def _part(
    jobs: Sequence[MapJob], mine: Sequence[Block], model: Callable[[], LandModel], started: float, on_progress: Tick
) -> Iterator[Prediction]:
    """Compute blocks, put nothing together."""
    todo = [(job, block) for job, block in mine if not job.is_done(block)]
    there = {job.out: job.num_finished for job in jobs}
    on_progress(len(mine) - len(todo), len(mine))
    for done, _ in enumerate(_computed(todo, model), len(mine) - len(todo) + 1):
        on_progress(done, len(mine))
    for job in jobs:
        num = len(job.blocks) if job.finished else job.num_finished
        told = f"{num} of {len(job.blocks)} blocks are there: when all are, call it without --shard"
        seconds = time.perf_counter() - started
        yield Prediction(job.out, (), None, seconds, 0.0, len(job.blocks), there[job.out], (*job.scene.notes, told))


def _computed(todo: Sequence[Block], model: Callable[[], LandModel]) -> Iterator[Block]:
    """Work blocks off by the engine of their settings, and yield them as they are finished."""
    if not todo:
        return
    settings = todo[0][0].settings
    if settings.engine in ("threads", "serial"):
        yield from _in_threads(todo, settings, model())
        return
    jobs = {job.out: job for job, _ in todo}
    tasks = [(job.request, job.fingerprint, block) for job, block in todo]
    if settings.engine == "ray":
        found = over_ray(compute_block, tasks, workers=settings.workers)
    else:
        found = over_processes(compute_block, tasks, workers=settings.workers or cores())
    for (request, _, block), _ in found:
        yield jobs[Path(request.out)], block


def _in_threads(todo: Sequence[Block], settings: PredictConfig, model: LandModel) -> Iterator[Block]:
    import torch

    workers = settings.workers or (cores() if settings.device == "cpu" else 1)
    workers = 1 if settings.engine == "serial" else workers
    stop = threading.Event()

    def work_off(task: Block) -> Block:
        job, block = task
        job.compute(model, block, reader, stop)
        return task

    threads = torch.get_num_threads()
    # One thread of torch for each worker: the same sums in the same order for any number of workers.
    torch.set_num_threads(1)
    try:
        # The same threads read all blocks: each new one would keep memory of its own.
        with ThreadPoolExecutor(workers) as reader:
            yield from map_unordered(work_off, todo, workers=workers, stop=stop.set)
    finally:
        torch.set_num_threads(threads)


def _finished(job: MapJob, resumed: int, started: float) -> Prediction:
    """Put a map together, if it is not; its time is that since the whole began."""
    if job.finished:
        summary = None if job.numbers else summary_beside(job.out, job.card.legend)
        files = (job.out,) if summary is None else summary.files
        there = tuple(dict.fromkeys([*files, *(path for path in job.outputs if path.exists())]))
        return Prediction(job.out, there, summary, time.perf_counter() - started, 0.0, len(job.blocks), resumed)
    unlike = job.share_unlike()
    summary, layers = job.assemble()
    job.finish()
    seconds = time.perf_counter() - started
    files, notes = (summary.files, summary.notes) if summary else ((), ())
    if unlike is not None:
        told = f"{unlike:.1%} of the map is unlike the training data (of the val part it would be {1 - USUAL:.0%})"
        notes = (*notes, f"{told}: above 100 in {layer_beside(job.out, 'applicability').name}")
    if job.first and summary and not any(summary.num_pixels):
        notes = (
            *notes,
            f"{job.out.name} is empty: scenes before it by name show all of its ground; give each date its own call",
        )
    mapped = sum(summary.areas_ha) if summary else _area_ha(job.scene.grid, job.place)
    return Prediction(
        job.out, (*files, *layers), summary, seconds, mapped / 100 / seconds, len(job.blocks), resumed,
        (*job.scene.notes, *notes),
    )  # fmt: skip


def _area_ha(grid: Grid, place: Window) -> float:
    return sum(grid.row_areas_ha(place.row, place.height)) * place.width


def _with_bands(image: str | Sequence[ImageConfig], bands: Sequence[str] | None) -> list[ImageConfig]:
    images = [ImageConfig(path=image)] if isinstance(image, str) else list(image)
    return [images[0].model_copy(update={"bands": list(bands)}), *images[1:]] if bands else images
