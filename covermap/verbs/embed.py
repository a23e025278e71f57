"""`embed`: what an encoder makes of images: of chips as GeoParquet, of pixels as a COG or TESSERA's folders.

config: scenes and encoder without training | model and images: its encoder -> chips or cells -> files, STAC item
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from covermap.core.config import ImageConfig, RunConfig
from covermap.core.engine import cores
from covermap.core.errors import ConfigError, OutputError
from covermap.core.output import claim
from covermap.core.progress import Tick, unseen
from covermap.data.embeddings import parquet
from covermap.geo.embedding_codes import DTYPES
from covermap.metrics.positional import positional_sentence
from covermap.models import device_of
from covermap.verbs.embed_chips import Chips, Counted, embed_chips
from covermap.verbs.embed_item import chip_item
from covermap.verbs.embed_pixels import embed_pixels
from covermap.verbs.embedded import Embedded
from covermap.verbs.encoder import Shown, shown_by
from covermap.verbs.ledger import clear_finished

CHIP_SUFFIXES, PIXEL_SUFFIXES = (".parquet", ".geoparquet", ".gpq"), (".tif", ".tiff")


@dataclass(frozen=True)
class EmbedSettings:
    """How embeddings are made; what goes with chips or pixels only is refused with the other.

    size_px: side of a chip; of pixels of a window. pool: of a chip's cells. valid: least share of valid pixels of a
    chip or cell. dtype: of pixels.
    """

    size_px: int | None = None
    pool: Literal["mean", "max"] | None = None
    valid: float = 0.5
    dtype: str | None = None
    tessera: bool = False
    workers: int | None = None
    device: str = "auto"


def embed(
    source: RunConfig | str | Path,
    out: str | Path,
    *,
    images: Sequence[ImageConfig] = (),
    settings: EmbedSettings | None = None,
    any_gsd: bool = False,
    overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Embedded:
    """Write embeddings of a config's scenes, or of images by a trained model's encoder; the same call goes on.

    source: a config, or a model folder with `images`. out: .parquet for chips; .tif for the pixels of one scene, a
    folder for those of many. Raises ConfigError, DataError, ModelError, OutputError, MissingExtra.
    """
    started, out, settings = time.perf_counter(), Path(out), settings or EmbedSettings()
    level = _level(out, settings)
    if out.suffix:
        clear_finished(out)
        claim(out, overwrite=overwrite)
    device = device_of(settings.device)
    shown = shown_by(source, images, out, any_gsd=any_gsd, device=device)
    workers = settings.workers or (cores() if device == "cpu" else 1)
    if level == "chips":
        return _chips(shown, out, settings, workers, started, overwrite, on_progress)
    return embed_pixels(
        shown, out, size_px=settings.size_px, valid=settings.valid, dtype=settings.dtype or "int8",
        tessera=settings.tessera, workers=workers, started=started, overwrite=overwrite, on_progress=on_progress,
    )  # fmt: skip


def _level(out: Path, settings: EmbedSettings) -> str:
    """chips or pixels, by the ending of OUT; refuses options without effect, and Parquet without its package."""
    suffix = out.suffix.lower()
    if not 0 < settings.valid <= 1:
        raise ConfigError(f"--valid {settings.valid:g} is no share", fix="give a number above 0, up to 1")
    if settings.dtype is not None and settings.dtype not in DTYPES:
        raise ConfigError(f"--dtype {settings.dtype} is not known", fix=f"one of {', '.join(DTYPES)}")
    if suffix in CHIP_SUFFIXES:
        odd = "--dtype" if settings.dtype else "--format tessera" if settings.tessera else ""
        if odd:
            raise ConfigError(f"{odd} has no effect on chips", fix="leave it out, or name OUT.tif")
        parquet()
        return "chips"
    if suffix not in (*PIXEL_SUFFIXES, ""):
        raise OutputError(
            f"{out}: embeddings are not written as {suffix}",
            fix="OUT.parquet for chips, OUT.tif for pixels, a folder for pixels of many scenes or --format tessera",
        )
    if settings.pool is not None:
        raise ConfigError("--pool has no effect on pixels", fix="leave it out, or name OUT.parquet")
    if settings.tessera and (suffix or settings.dtype):
        raise ConfigError("--format tessera writes folders of 8-bit arrays", fix="name a folder, and leave --dtype out")
    return "pixels"


def _chips(
    shown: Shown, out: Path, settings: EmbedSettings, workers: int, started: float, overwrite: bool, on_progress: Tick
) -> Embedded:  # fmt: skip
    chips = Chips(settings.size_px or shown.size_px, settings.pool or "mean", settings.valid)
    if chips.size_px < 1:
        raise ConfigError(f"chips of {chips.size_px} px hold nothing", fix="--size 1 or more")
    items: list[tuple[Path | None, list[str]]] = []

    def item_of(found: Counted, facts: dict[str, Any], written: Path) -> None:
        items.append(chip_item(shown, out, found, facts, written))

    found, facts = embed_chips(
        shown, out, chips, item=item_of, workers=workers, overwrite=overwrite, on_progress=on_progress
    )
    notes = [*shown.notes]
    if found.skipped:
        notes.append(f"{found.skipped:,} chips have less than {chips.valid:.0%} valid pixels: they are left out")
    placeless = sum(scene.grid.crs is None for scene in shown.scenes)
    if placeless:
        notes.append(f"{placeless:,} of {len(shown.scenes):,} scenes have no CRS: the places of their chips are null")
    undated = sum(not any(scene.dates) for scene in shown.scenes)
    if undated:
        notes.append(f"{undated:,} of {len(shown.scenes):,} scenes have no date: the timestamp of their chips is null")
    if shown.told.split is not None and (lost := found.parts.get("none", 0)):
        notes.append(f"{lost:,} chips touch two parts of the split, or its buffer: they belong to none")
    if told := positional_sentence(found.positional):
        notes.append(told)
    ((item, said),) = items
    files = (out, *([item] if item else ()))
    return Embedded(
        files, found.chips, found.skipped, facts["dimensions"], found.parts, time.perf_counter() - started,
        tuple(dict.fromkeys([*notes, *said])),
    )  # fmt: skip
