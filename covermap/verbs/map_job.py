"""One scene on its way to a map: blocks that any process can compute, a ledger of finished ones, the map from them.

    OUT.work/job.json       what is being made: model, inputs, settings (a changed one is refused)
    OUT.work/R_C.npz        a finished block; it appears whole or not at all, so these files are the ledger
    OUT, OUT.aux.xml, ...   written from the blocks at the end

A worker reads a block with its halo, blends the windows inside and keeps only its core; class = argmax of the blended
probabilities, taken before any rounding. Nodata in, nodata out.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap import __version__
from covermap.core.config import ImageConfig, parse_date
from covermap.core.errors import ConfigError, ModelError, OutputError
from covermap.core.output import LOCK, claim, discard, replacing, require_no_input, writing
from covermap.core.parsing import parse_json
from covermap.core.run import checksum
from covermap.core.train_config import PredictConfig
from covermap.core.types import OwnStatistics
from covermap.data.footprint import covered
from covermap.geo.area import Area, read_area
from covermap.geo.grid import Window
from covermap.geo.products import MapSummary, finish_cog, finish_map, layer_beside, names_beside, small_cache
from covermap.geo.raster import is_remote
from covermap.geo.writer import RasterWriter
from covermap.infer import Lattice, Strip, in_sets, infer_block, open_for
from covermap.ml.applicability import USUAL, Applicability
from covermap.ml.gated import gated
from covermap.ml.likeliest import highest
from covermap.models import LandModel, applicability_path, load_model, read_card

NO_CONFIDENCE = 255
_FINISHED = "finished"
"""Stands in the work folder of a map that is finished, as long as its call is not."""
Arrays = dict[str, npt.NDArray[Any]]


def work_beside(out: Path) -> Path:
    """The folder of blocks of a map at work."""
    return out.with_name(out.name + ".work")


class Layer(NamedTuple):
    """A raster beside the map: its key in a finished block, its bands, and what a step of its numbers means."""

    key: str
    bands: Sequence[str]
    scale: float = 1.0
    dtype: str = "uint8"
    nodata: int = NO_CONFIDENCE
    overviews: str = "average"


@dataclass(frozen=True)
class MapRequest:
    """All that a worker needs to compute blocks, in any process that sees the same files.

    model_sums: names and checksums of the model's files that are read, so that a worker that stays does not go on with
    those that were there before.
    aoi: polygons; only what lies in them is mapped. statistics: see infer.open_for. first: scenes that have been
    mapped where they overlap this one and hold data.
    """

    model: str
    model_sums: tuple[tuple[str, str], ...]
    images: tuple[ImageConfig, ...]
    out: str
    settings: PredictConfig
    aoi: str | None = None
    any_gsd: bool = False
    statistics: OwnStatistics | None = None
    first: tuple[tuple[ImageConfig, ...], ...] = ()

    def __hash__(self) -> int:
        return hash(repr(self))  # configs hold lists, which have no hash


class MapJob:
    """A request with its files open; raises what opening them raises."""

    def __init__(self, request: MapRequest) -> None:
        self.request, self.settings, self.out = request, request.settings, Path(request.out)
        self.card = read_card(Path(request.model))
        self.numbers = self.card.task.kind.takes == "numbers"
        self.pair = self.card.task.kind.takes == "transitions"
        self._require_sets()
        path = applicability_path(request.model)
        self.known = Applicability.load(path) if self.settings.applicability else None
        self.scene = self._open(request.images, request.statistics)
        self._require_order()
        self.first = [self._open(images, None) for images in request.first]
        self.area: Area | None = read_area(request.aoi, self.scene.grid) if request.aoi else None
        self.windows = Lattice.of(self.scene, self.card, self.settings)
        self.work = work_beside(self.out)
        self.finished = False

    def _open(self, images: Sequence[ImageConfig], statistics: OwnStatistics | None) -> Any:
        return open_for(self.card.spec, images, any_gsd=self.request.any_gsd, statistics=statistics)

    def _require_order(self) -> None:
        """Raise ConfigError where classes before and after are asked of dates that are known to fall."""
        if not self.pair or None in self.scene.dates[:2]:
            return
        first, later = map(str, self.scene.dates[:2])
        if parse_date(first)[0] > parse_date(later)[1]:  # periods that overlap may be either way round
            raise ConfigError(
                f"the first image is of {first}, after the second one of {later}: {self.request.model} tells what "
                "became of the first",
                fix="give the images in the order of their dates, or state the right ones: FILE@2019-07-27",
            )

    def _require_sets(self) -> None:
        odd = [key for key in ("entropy", "sets", "probabilities") if self.pair and getattr(self.settings, key)]
        if odd:
            raise ModelError(
                f"{self.request.model} answers for two dates: there is no one layer of {odd[0]}",
                fix=f"leave --{odd[0]} out; its probability of change is always written",
            )
        if not self.settings.sets:
            return
        if not self.card.task.coverage:
            raise ModelError(
                f"{self.request.model} has no sets: none were fitted on a val part",
                fix="train with decision: {conformal: 0.9}, or leave --sets out",
            )
        if len(self.card.legend) > 32:
            raise ModelError(
                f"sets are written for up to 32 classes, not {len(self.card.legend)}", fix="leave --sets out"
            )

    @property
    def place(self) -> Window:
        """What is mapped of the scene."""
        return self.area.window if self.area else self.scene.grid.window

    @cached_property
    def blocks(self) -> list[Window]:
        """In the order in which they are worked off."""
        return self.windows.blocks(self.settings.block_px, self.area.window if self.area else None)

    @property
    def layers(self) -> dict[str, Layer]:
        """Rasters beside the map, by name."""
        unlike = Layer("distance", [f"distance from the training data in percent of the usual ({USUAL:.0%} of val)"])
        if self.numbers:
            return {"applicability": unlike} if self.known else {}
        known = {
            "confidence": Layer("confidence", ["confidence in percent"]),
            "change": Layer("changed", ["probability of change in percent"]),
            "entropy": Layer("entropy", ["entropy in percent of the most that is possible"]),
            "set_size": Layer("set_size", [f"classes in sets of {self.card.task.coverage:.0%}"], overviews="nearest"),
            "sets": Layer("sets", ["bit k: class k of the legend is in the set"], 1.0, "uint32", 0, "nearest"),
            "applicability": unlike,
            "probs": Layer("shares", self.card.legend.names, 1 / 200),
        }
        wanted = {"confidence": self.settings.confidence, "change": self.pair, "entropy": self.settings.entropy,
                  "set_size": self.settings.sets, "sets": self.settings.sets,
                  "applicability": self.known is not None, "probs": self.settings.probabilities}  # fmt: skip
        return {name: layer for name, layer in known.items() if wanted[name]}

    @property
    def outputs(self) -> list[Path]:
        """Every file that is written."""
        layers = [layer_beside(self.out, name) for name in self.layers]
        if self.numbers:
            return [self.out, *layers]
        maps = [self.out, *([layer_beside(self.out, "before")] if self.pair else [])]
        return [*(file for out in maps for file in (out, *names_beside(out).values())), *layers]

    @cached_property
    def sums(self) -> dict[str, str]:
        """Checksums of everything that is read. Remote images are known by their address only."""
        scenes = [self.scene, *self.first]
        sums = dict(self.request.model_sums)
        files = [*(file for scene in scenes for file in scene.files), *filter(None, [self.request.aoi])]
        sums |= {f"input {number} ({Path(path).name})": checksum(path) for number, path in enumerate(files)}
        sums["remote"] = " ".join(path for scene in scenes for path in scene.paths if is_remote(path))
        for key, raster in self.scene.rasters.items():
            scaling = [[(s.gain, s.add, s.quantity) for s in date] for date in raster.sources]
            masks = [mask and (mask.specification, mask.kinds) for mask in raster.clouds]
            sums[key] = repr((raster.bands, raster.nodata, raster.grid, self.scene.added.get(key), scaling, masks))
        if "dates" in self.card.spec.uses:
            sums["dates"] = repr(self.scene.dates)
        if self.scene.statistics:
            sums["statistics"] = json.dumps(self.scene.statistics)
        return sums

    @cached_property
    def fingerprint(self) -> str:
        """Everything that the blocks depend on: not who works them off, the date only for models that use it."""
        lattice = [self.windows.area, self.windows.size_px, self.windows.overlap_px]
        settings = self.settings.model_dump(exclude={"workers", "engine"})
        parts = [lattice, settings, sorted(self.sums.items()), __version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def claim(self, *, overwrite: bool, dry_run: bool) -> int:
        """Check before any work that all may be written; the number of blocks that an interrupted call left."""
        require_no_input(self.outputs, [*self.scene.files, *filter(None, [self.request.aoi])])
        resumed = self._ledger(overwrite)
        # Side files of an interrupted call are its own, and with all blocks the map that it was just writing.
        own = self.outputs if resumed is None else () if resumed == len(self.blocks) else (self.out,)
        for path in own:
            claim(path, overwrite=overwrite, dry_run=dry_run)
        return resumed or 0

    def _ledger(self, overwrite: bool) -> int | None:
        """Finished blocks of an interrupted call of the same job, None where there is none."""
        record = self.work / "job.json"
        if not self.work.exists():
            return None
        # Between the making of the folder and of its record another part of the work may look into it.
        if self.work.is_dir() and all(_is_being_made(path) for path in self.work.iterdir()):
            return None
        try:
            before = parse_json(record.read_text(encoding="utf-8"))
            same, sums = before["fingerprint"] == self.fingerprint, dict(before["sums"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self.work} is in the way: it is not the work folder of an interrupted prediction",
                fix="move it elsewhere",
            ) from error
        self.finished = same and (self.work / _FINISHED).exists() and self.out.exists()
        if same:
            return len(self.blocks) if self.finished else self.num_finished
        if not overwrite:
            other = sorted(key for key in sums.keys() | self.sums.keys() if sums.get(key) != self.sums.get(key))
            raise OutputError(
                f"{self.work} holds an interrupted prediction with other {', '.join(other) or 'settings'}",
                fix="repeat that call to finish it, or start again with --overwrite",
            )
        return None

    def open_work(self, *, alone: bool) -> None:
        """Make the work folder, or go on in it; alone: nobody else is at work, so what is half written is cleared."""
        if (self.work / "job.json").exists() and self._ledger(overwrite=True) is not None:
            for stray in self.work.glob(".*") if alone else ():
                if stray.name != LOCK:
                    stray.unlink()
            return
        for stray in self.work.iterdir() if alone and self.work.is_dir() else ():
            if stray.name != LOCK:
                stray.unlink()
        text = json.dumps({"fingerprint": self.fingerprint, "sums": self.sums}, indent=2)  # may find a model damaged
        with writing(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
            # Several parts of the work may start at once, each with the same text: what counts is that it is whole.
            partial = self.work / f".job.{uuid.uuid4().hex}.json"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.work / "job.json")

    def give_up(self) -> None:
        """Clear the work folder away if nothing in it is worth going on with."""
        if self.work.exists() and not self.num_finished and not (self.work / _FINISHED).exists():
            discard(self.work)

    def finish(self) -> None:
        """Say that the map is there, and drop its blocks."""
        (self.work / _FINISHED).touch()
        self.finished = True
        for path in (*self.work.glob("*.npz"), *self.work.glob("*.tif")):
            path.unlink()

    def close(self) -> None:
        """Clear the work folder of a finished map away."""
        discard(self.work)

    @property
    def num_finished(self) -> int:
        """Blocks that are there; a name with a dot first is one that was just being written."""
        return sum(not path.name.startswith(".") for path in self.work.glob("*.npz"))

    def path_of(self, block: Window) -> Path:
        """Where a finished block lies."""
        return self.work / f"{block.row}_{block.col}.npz"

    def is_done(self, block: Window) -> bool:
        """Whether the ledger, or a finished map, has a block."""
        return self.finished or self.path_of(block).exists()

    @property
    def _wanted(self) -> Callable[[Window], npt.NDArray[np.bool_]] | None:
        """(H, W) of a window: inside of the polygons, and not mapped from another scene."""
        if not self.first:
            return self.area.read if self.area else None

        def wanted(window: Window) -> npt.NDArray[np.bool_]:
            inside = self.area.read(window) if self.area else np.ones((window.height, window.width), bool)
            return inside & ~covered(self.scene.grid, window, self.first)

        return wanted

    def compute(self, model: LandModel, block: Window, reader: Executor, stop: threading.Event) -> None:
        """Work off one block and put it in the ledger, or nothing when told to stop."""
        found = self._empty(block)
        strips = infer_block(
            model, self.scene, self.windows, block, wanted=self._wanted, batch_size=self.settings.batch_size,
            tta=self.settings.tta, known=self.known, reader=reader,
        )  # fmt: skip
        for strip in strips:
            if stop.is_set():
                return
            self._into(found, strip, block)
        with replacing(self.path_of(block), shared=True) as partial:  # the same part may have been called twice
            np.savez(partial, **found)  # type: ignore[arg-type]  # names of arrays are free

    def _empty(self, block: Window) -> Arrays:
        shape, legend = (block.height, block.width), self.card.legend
        found: Arrays = {"codes": np.full(shape, legend.map_nodata, legend.map_dtype)}
        if self.numbers:
            found = {"numbers": np.full((len(legend), *shape), np.nan, np.float32)}
        if self.pair:
            found["before"] = found["codes"].copy()
        for layer in self.layers.values():
            size = (len(layer.bands), *shape) if layer.key == "shares" else shape
            found[layer.key] = np.full(size, layer.nodata, layer.dtype)
        return found

    def _into(self, found: Arrays, strip: Strip, block: Window) -> None:
        """Put a strip in its place of a block."""
        rows, cols = strip.window.within(block).slices

        def put(key: str, values: npt.NDArray[np.floating[Any]]) -> None:
            if key in found:
                found[key][..., rows, cols] = np.where(strip.valid, np.rint(values), NO_CONFIDENCE)

        if strip.distance is not None:
            put("distance", np.clip(strip.distance * 100, 0, NO_CONFIDENCE - 1))
        if self.numbers:
            found["numbers"][:, rows, cols] = np.where(strip.valid, strip.answers, np.float32(np.nan))
            return
        legend = self.card.legend
        if self.pair:
            said = gated(strip.answers)
            best, later = said.after, strip.answers[len(legend) : 2 * len(legend)]
            top = np.take_along_axis(later, best[None].astype(np.intp), axis=0)[0]
            found["before"][rows, cols] = np.where(strip.valid, legend.decode(said.before), legend.map_nodata)
            put("changed", np.clip(said.probability, 0, 1) * 100)
        else:
            best, top = highest(strip.answers)
        found["codes"][rows, cols] = np.where(strip.valid, legend.decode(best), legend.map_nodata)
        put("confidence", np.clip(top, 0, 1) * 100)
        if "entropy" in found:
            put("entropy", _entropy(strip.answers) * 100)
        if "shares" in found:
            put("shares", np.clip(strip.answers, 0, 1) * 200)
        if "sets" in found:
            inside = in_sets(strip.answers, self.card.task.set_from)
            put("set_size", inside.sum(0).astype(np.float32))
            bits = (np.uint32(1) << np.arange(len(inside), dtype=np.uint32))[:, None, None]
            found["sets"][rows, cols] = np.where(strip.valid, (inside * bits).sum(0, dtype=np.uint32), 0)

    def share_unlike(self) -> float | None:
        """Share of the mapped pixels that lie farther from the training data than is usual; None if not asked for."""
        if self.known is None:
            return None
        far = mapped = 0
        for block in self.blocks:
            with np.load(self.path_of(block)) as stored:
                count = np.bincount(stored["distance"].ravel(), minlength=256)
            far, mapped = far + int(count[101:NO_CONFIDENCE].sum()), mapped + int(count[:NO_CONFIDENCE].sum())
        return far / max(1, mapped)

    def assemble(self) -> tuple[MapSummary | None, list[Path]]:
        """Blocks -> plain GeoTIFFs -> products, and the work folder is gone; the map itself has a summary."""
        tags = {"COVERMAP_MODEL": self.sums["model.safetensors"][:16]}
        tags |= {"COVERMAP_RUN": str(self.card.facts["run"])} if "run" in self.card.facts else {}
        legend = self.card.legend
        if any(self.card.task.offsets):
            tags["COVERMAP_SHIFTED"] = "probabilities after decision.adjust or threshold"
        if self.card.task.temperature != 1:
            tags["COVERMAP_TEMPERATURE"] = f"{self.card.task.temperature:.4g}"
        made: dict[str, Path] = {}
        for name, layer in self.layers.items():
            plain = self._join(layer.key, layer.bands, dtype=layer.dtype, nodata=layer.nodata, scale=layer.scale)
            made[name] = finish_cog(
                plain, layer_beside(self.out, name), nodata=layer.nodata, description=layer.bands, tags=tags,
                resampling=layer.overviews, overwrite=True,
            )  # fmt: skip
        if self.numbers:
            plain = self._join("numbers", legend.names, dtype="float32", nodata=np.nan)
            finish_cog(plain, self.out, nodata=np.nan, description=legend.names, tags=tags, overwrite=True)
            return None, [self.out, *made.values()]
        dates = self.scene.dates
        if self.pair:
            earlier = self._finish("before", layer_beside(self.out, "before"), dates[0], tags, {})
            return self._finish("codes", self.out, dates[1], tags, made), [*earlier.files, *made.values()]
        both = f"{dates[0]}/{dates[1]}" if self.card.task.name == "change" and all(dates) else None
        when = both or next((d for d in dates if d), None)
        return self._finish("codes", self.out, when, tags, made), list(made.values())

    def _finish(
        self, key: str, out: Path, date: str | None, tags: Mapping[str, str], layers: Mapping[str, Path]
    ) -> MapSummary:
        """Class codes of all blocks as a finished map."""
        legend = self.card.legend
        plain = self._join(key, ["land_cover"], dtype=legend.map_dtype, nodata=legend.map_nodata)
        origin = [*(Path(path).name for path in self.scene.paths), f"model {tags['COVERMAP_MODEL']}"]
        return finish_map(plain, out, legend, date=date, derived_from=origin, layers=layers, tags=tags, overwrite=True)

    def _join(
        self, key: str, names: Sequence[str], *, dtype: str = "uint8", nodata: float = NO_CONFIDENCE, scale: float = 1.0
    ) -> Path:
        """One layer of all blocks as a plain GeoTIFF in the work folder."""
        plain = self.work / f"{key}.tif"
        with small_cache(), RasterWriter(
            plain, self.scene.grid.window_grid(self.place), bands=names, dtype=dtype, nodata=nodata, overwrite=True,
            compress="none", scale=scale,
        ) as writer:  # fmt: skip
            for block in self.blocks:
                with np.load(self.path_of(block)) as stored:
                    writer.write(block.within(self.place), stored[key])
        return plain


def _entropy(answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(K, H, W) -> (H, W): Shannon's entropy of the probabilities, 1 where all K are equal."""
    p = np.clip(answers, 1e-7, 1)
    return np.asarray(np.clip(-(p * np.log(p)).sum(0) / np.log(max(2, len(p))), 0, 1), np.float32)


def _is_being_made(path: Path) -> bool:
    """Whether a file of a work folder says nothing of what was begun there."""
    return path.name == LOCK or path.match(".job.*.json")


def compute_block(task: tuple[MapRequest, str, Window]) -> None:
    """Work off one block in a process of its own, which keeps job and model for the next one."""
    import torch

    request, fingerprint, block = task
    # One thread of torch for each worker: the same sums in the same order for any number of workers.
    torch.set_num_threads(1)
    job = _opened(request, fingerprint)
    if job.is_done(block):
        return
    model = _loaded(request.model, request.model_sums, request.settings.device, request.settings.precision)
    with ThreadPoolExecutor(1) as reader:
        job.compute(model, block, reader, threading.Event())


@lru_cache(maxsize=4)
def _opened(request: MapRequest, fingerprint: str) -> MapJob:
    """A job as it is now: files of the same names may have been others in an earlier call."""
    return MapJob(request)


@lru_cache(maxsize=1)
def _loaded(model: str, sums: tuple[tuple[str, str], ...], device: str, precision: Any) -> LandModel:
    return load_model(model, device=device, precision=precision)
