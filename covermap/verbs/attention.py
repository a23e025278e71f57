"""`attention`: what the heads of a transformer look at, as a raster on the grid of the image.

config or model and image -> its encoder -> windows as `embed` lays them -> share of attention of each place, relative
to uniform -> blended -> each cell as wide as its patch -> COG with a band for each block and head
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from covermap.core.config import ImageConfig, RunConfig
from covermap.core.engine import cores
from covermap.core.errors import DataError, OutputError
from covermap.core.output import claim
from covermap.core.progress import Tick, unseen
from covermap.core.types import Batch
from covermap.geo.grid import Window
from covermap.geo.products import finish_cog, small_cache
from covermap.geo.writer import RasterWriter
from covermap.models import device_of
from covermap.nn.attention import Query, attention_maps, chosen
from covermap.nn.backbones.vit import require_tokens
from covermap.nn.model import pad_to_multiple
from covermap.verbs.embed import PIXEL_SUFFIXES
from covermap.verbs.embed_pixels import PixelJob, compute_blocks, job_of, part_key
from covermap.verbs.encoder import Encoder, shown_by
from covermap.verbs.ledger import Ledger


@dataclass(frozen=True)
class AttentionSettings:
    """Which maps are made: blocks and heads by number, whose attention (class or mean); size_px: side of a window."""

    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    query: str | None = None
    size_px: int | None = None
    workers: int | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Attended:
    """What was written: the file, its bands in order, cells with data, and what is to be said."""

    file: Path
    bands: tuple[str, ...]
    query: str
    cells: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AttentionEncoder(Encoder):
    """An encoder whose cells hold what its heads look at."""

    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    query: Query = "mean"

    @property
    def dimensions(self) -> int:
        return len(self.layers) * len(self.heads)

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names in the order of the cells' numbers."""
        return tuple(f"block{layer}_head{head}" for layer in self.layers for head in self.heads)

    def cells(self, batch: Batch) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """A normalised batch -> attention (B, L H, h, w), 1: uniform, and the valid share of each cell (B, h, w)."""
        with torch.inference_mode():
            padded = pad_to_multiple(batch.to(self.device), self.side)
            maps = attention_maps(
                require_tokens(self.backbone, "attention"), padded, self.layers, self.heads, self.query
            )
            there = padded.valid.any(1).float()[:, None]
            share = functional.adaptive_avg_pool2d(there, (maps.shape[-2], maps.shape[-1]))[:, 0]
            share = share * maps[:, 0].isfinite()
            return maps.nan_to_num().float().cpu().numpy(), share.cpu().numpy()


@dataclass(frozen=True)
class AttentionJob(PixelJob):
    """One scene; a cell without a valid pixel is nodata."""

    @property
    def made_of(self) -> dict[str, object]:
        encoder = self.encoder
        assert isinstance(encoder, AttentionEncoder)
        return {**super().made_of, "attention": (encoder.bands, encoder.query)}

    def compute(self, block: Window) -> npt.NDArray[Any]:
        held, known = self.blended(block)
        return np.where(known > 0, held, np.float32(np.nan)).astype(np.float32)


def attention(
    source: RunConfig | str | Path,
    out: str | Path,
    *,
    images: Sequence[ImageConfig] = (),
    settings: AttentionSettings | None = None,
    any_gsd: bool = False,
    overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Attended:
    """Write the attention of an encoder over one scene on the scene's own grid; the same call goes on.

    source: a config, or a model folder with `images`. Values: share of attention relative to uniform within a window
    (1: uniform). Raises ConfigError, DataError, ModelError, OutputError.
    """
    started, out, settings = time.perf_counter(), Path(out), settings or AttentionSettings()
    if out.suffix.lower() not in PIXEL_SUFFIXES:
        raise OutputError(f"{out}: attention is written as a raster", fix="name OUT.tif")
    claim(out, overwrite=overwrite)
    device = device_of(settings.device)
    shown = shown_by(source, images, out, any_gsd=any_gsd, device=device)
    if len(shown.scenes) != 1:
        raise OutputError(f"there are {len(shown.scenes)} scenes, and one file {out}", fix="name one image at a time")
    plain = shown.encoder
    backbone = require_tokens(plain.backbone, "attention")
    layers, heads, query = chosen(backbone, settings.layers, settings.heads, settings.query)
    encoder = AttentionEncoder(backbone, plain.spec, plain.facts, device, layers, heads, query)
    job = job_of(AttentionJob, encoder, shown.scenes[0], settings.size_px, 1.0, "float32")
    workers = settings.workers or (cores() if device == "cpu" else 1)
    cells = _write(job, encoder, out, workers, overwrite, on_progress)
    notes = [
        *shown.notes, f"a cell is {encoder.stride} px, a window {job.size_px} px: attention reaches no further",
        f"values: share of attention ({query}) relative to uniform in a window, 1 where all places get the same",
    ]  # fmt: skip
    seconds = time.perf_counter() - started
    return Attended(out, encoder.bands, query, cells, seconds, tuple(dict.fromkeys(notes)))


def _write(
    job: PixelJob, encoder: AttentionEncoder, out: Path, workers: int, overwrite: bool, on_progress: Tick
) -> int:  # fmt: skip
    """Compute the blocks, write them on the scene's grid, finish the file; gives the number of cells with data."""
    ledger, stride, grid, known = Ledger(out, "npy", job.made_of), encoder.stride, job.scene.grid, 0
    with ledger.at_work(overwrite=overwrite):
        compute_blocks(job, ledger, step="attention", workers=workers, on_progress=on_progress)
        plain, nan = ledger.folder / "plain.tif", float("nan")
        with small_cache(), RasterWriter(
            plain, grid, bands=encoder.bands, dtype="float32", nodata=nan, overwrite=True, lasting=False
        ) as writer:  # fmt: skip
            for block in job.blocks:
                cells = np.load(ledger.path(part_key(block)))
                known += int(np.isfinite(cells[0]).sum())
                window = Window(*(stride * n for n in block)).intersect(grid.window)
                wide = cells.repeat(stride, 1).repeat(stride, 2)
                writer.write(window, wide[:, : window.height, : window.width])
        if not known:
            ledger.drop()
            raise DataError(f"scene {job.scene.name} has no valid cell", fix="check nodata: covermap info IMAGE")
        facts = encoder.facts
        tags = {
            "COVERMAP_BACKBONE": str(facts["backbone"]), "COVERMAP_WEIGHTS": str(facts["weights"]),
            "COVERMAP_PARAMETERS": str(facts["parameters_sha256"]), "COVERMAP_QUERY": encoder.query,
            "COVERMAP_VALUES": f"attention relative to uniform in windows of {job.size_px} px",
        }  # fmt: skip
        finish_cog(plain, out, nodata=nan, description=encoder.bands, tags=tags, overwrite=True)
    return known
