"""`embed` of chips: scenes -> units of chips, each a part of the ledger -> one GeoParquet file.

A unit is about 512 x 512 px: part of a large scene, or many small ones. What a chip holds does not depend on the
units beside it, so they are worked off in any order by any number of workers, and the file has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, within_memory
from covermap.core.output import replacing
from covermap.core.progress import Tick
from covermap.core.types import Batch, InputSpec, Sample
from covermap.data.chips import image_batch
from covermap.data.embedding_rows import Chip, Rows, file_metadata, schema_of
from covermap.data.embeddings import parquet
from covermap.data.labels import ChipLabels
from covermap.data.scene import Scene
from covermap.geo.grid import Window, partition
from covermap.infer import crop
from covermap.metrics.positional import PositionalSums
from covermap.models import chip_features
from covermap.verbs.encoder import Shown, pooled
from covermap.verbs.ledger import Ledger, state_of, work_off

_PIECE_PX, _UNIT_PX, _BATCH_PX = 512, 1 << 18, 1 << 16
_GROUP = 1 << 20
"""Numbers of embeddings in a row group."""


class Piece(NamedTuple):
    """Part of a scene that is read at once: its number, and the window of whole chips (it may reach outside)."""

    scene: int
    window: Window


@dataclass(frozen=True)
class Chips:
    """How chips are cut and made one embedding each."""

    size_px: int
    pool: str = "mean"
    valid: float = 0.5


@dataclass(frozen=True)
class Counted:
    """Chips in a file, those that were left out because too little of them is valid, and what position tells."""

    chips: int
    skipped: int
    parts: dict[str, int]
    bounds: tuple[float, float, float, float] | None
    positional: dict[str, Any]


Item = Callable[[Counted, dict[str, Any], Path], object]


def embed_chips(
    shown: Shown, out: Path, chips: Chips, *, item: Item, workers: int, overwrite: bool, on_progress: Tick
) -> tuple[Counted, dict[str, Any]]:  # fmt: skip
    """Write OUT.parquet; what it holds, and the facts in it. Raises DataError where no chip is valid.

    item: gets both and the file, which has its name only after that, so that where it stands nothing is missing.
    """
    side = shown.encoder.side
    if chips.size_px < side:
        raise ConfigError(
            f"chips of {chips.size_px} px are smaller than the {side} px that {shown.encoder.facts['backbone']} needs",
            fix=f"--size {side} or more",
        )
    job = ChipJob(shown, chips)
    ledger = Ledger(out, "parquet", job.made_of)
    units = list(enumerate(job.units()))
    with ledger.at_work(overwrite=overwrite):
        todo = [unit for unit in units if not ledger.is_done(unit[0])]

        def compute(unit: tuple[int, list[Piece]]) -> None:
            with replacing(ledger.path(unit[0]), lasting=False) as partial:
                parquet().write_table(job.table(unit[1]), partial)

        with within_memory("embedding", fix="use fewer --workers"):
            work_off(compute, todo, total=len(units), workers=workers, on_progress=on_progress)
        try:
            return job.assemble([ledger.path(number) for number, _ in units], out, item)
        except DataError:
            ledger.drop()  # the same call would end alike
            raise


class ChipJob:
    """The chips of all scenes."""

    def __init__(self, shown: Shown, chips: Chips) -> None:
        self.shown, self.chips, self.schema = shown, chips, schema_of(shown.told)
        self.spec: InputSpec = shown.encoder.spec

    @property
    def facts(self) -> dict[str, Any]:
        """What the file says of itself."""
        told = self.shown.told
        return {
            "encoder": dict(self.shown.encoder.facts), "input": self.spec.to_dict(), "size_px": self.chips.size_px,
            "gsd_m": round(self.shown.scenes[0].grid.gsd_m, 6), "pool": self.chips.pool, "valid": self.chips.valid,
            "dimensions": self.shown.encoder.dimensions, "task": self.shown.task,
            "legend": told.legend.to_dict() if told.legend else None, "names": list(told.names),
        }  # fmt: skip

    @property
    def made_of(self) -> dict[str, object]:
        """All that the chips depend on."""
        files = [file for scene in self.shown.scenes for file in scene.files]
        split = self.shown.told.split
        return {
            "facts": self.facts, "inputs": state_of(files), "split": (split.tiles, split.buffer_px) if split else None,
            "scenes": [(s.name, s.dates, s.place) for s in self.shown.scenes],
        }  # fmt: skip

    def units(self) -> Iterator[list[Piece]]:
        """Pieces that are worked off together."""
        unit: list[Piece] = []
        held = 0
        for number, scene in enumerate(self.shown.scenes):
            for window in self._pieces(scene):
                unit.append(Piece(number, window))
                held += window.height * window.width
                if held >= _UNIT_PX:
                    yield unit
                    unit, held = [], 0
        if unit:
            yield unit

    def _pieces(self, scene: Scene) -> Iterator[Window]:
        whole = self._whole(scene)
        side = self.chips.size_px
        yield from (
            [scene.grid.window]
            if whole
            else partition(
                Window(0, 0, *(-(-n // side) * side for n in scene.grid.window[2:])),
                *(max(1, _PIECE_PX // side) * side,) * 2,
            )
        )

    def _whole(self, scene: Scene) -> bool:
        """Whether a scene is a chip as it is."""
        small = max(scene.grid.height, scene.grid.width) <= self.chips.size_px
        return small or isinstance(scene.labels, ChipLabels) or scene.chip_classes is not None

    def _windows(self, piece: Piece) -> list[Window]:
        """The chips of a piece; of chip tasks those that are trained on, which end inside of the scene."""
        scene = self.shown.scenes[piece.scene]
        if self._whole(scene):
            return [piece.window]
        found = list(partition(piece.window, self.chips.size_px, self.chips.size_px))
        return found if not self.shown.chips else [w for w in found if w.intersect(scene.grid.window) == w]

    def table(self, pieces: Sequence[Piece]) -> Any:
        """The chips of a unit; its metadata hold the count of those left out, and sums over positions within chips."""
        rows, sums = Rows(self.shown.told), PositionalSums()
        for part in _batches(self._read(pieces, rows), max(1, self.spec.num_dates)):
            chips, samples = [chip for chip, _ in part], [sample for _, sample in part]
            batch = image_batch(samples, self.spec)
            cells, share = self.shown.encoder.cells(batch)
            vectors = pooled(cells, share, self.chips.pool)
            if not np.isfinite(vectors).all():
                raise DataError(
                    f"scene {chips[0].scene.name}: embeddings are no numbers",
                    fix="check the weights, and nodata of the image",
                )
            rows.add(chips, vectors, raw_statistics(batch, samples, self.spec))
            sums.add(cells, share)
        kept = {"skipped": str(rows.skipped), "positional": sums.to_text()}
        return rows.table(self.schema).replace_schema_metadata(kept)

    def _read(self, pieces: Sequence[Piece], rows: Rows) -> Iterator[tuple[Chip, Sample]]:
        """Chips with enough in them; the others are counted in `rows`."""
        for piece in pieces:
            scene = self.shown.scenes[piece.scene]
            sample, around = scene.read(piece.window), rows.told.around(scene, piece.window)
            there = np.asarray(sample.valid.any(0))
            for window in self._windows(piece):
                box = window.within(piece.window)
                if there[box.slices].mean() >= self.chips.valid:
                    yield Chip(scene, window, around), crop(sample, box, piece.window, scene)
                else:
                    rows.skipped += 1

    def assemble(self, units: Sequence[Path], out: Path, item: Item) -> tuple[Counted, dict[str, Any]]:
        """Units -> the file, row group by row group."""
        counted = _count(units)
        if not counted.chips:
            raise DataError(
                f"no chip of {self.chips.size_px} px has {self.chips.valid:.0%} of its pixels valid "
                f"({counted.skipped:,} were looked at)",
                fix="lower --valid or --size, or check nodata: covermap info IMAGE",
            )
        facts = self.facts | {"positional_share": counted.positional}
        schema = self.schema.with_metadata(file_metadata(facts, counted.bounds))
        size = max(256, _GROUP // self.shown.encoder.dimensions)
        with replacing(out) as partial:
            with parquet().ParquetWriter(partial, schema) as writer:
                for table in _grouped(units, size):
                    writer.write_table(table.cast(schema), row_group_size=size)
            item(counted, facts, partial)
        return counted, facts


def raw_statistics(batch: Batch, samples: Sequence[Sample], spec: InputSpec) -> npt.NDArray[np.float32]:
    """Mean, then standard deviation, of each band and date in its unit (B, 2 C); NaN where a sensor is missing.

    In the normalised numbers of models that take mean and std of each scene.
    """
    valid = batch.valid.any(1).numpy()
    means, spreads = [], []
    for entry in spec.sensors:
        gain, add = np.tile([entry.std, entry.mean], (1, entry.num_dates)).astype(np.float32)
        if entry.per_scene:
            gain, add = np.ones_like(gain), np.zeros_like(add)
        if entry.sensor not in batch.image:
            means.append(np.full((len(samples), len(gain)), np.nan, np.float32))
            spreads.append(means[-1])
            continue
        mean, spread = np.split(chip_features(batch.image[entry.sensor].flatten(1, 2).numpy(), valid), 2, axis=1)
        means.append(mean * gain + add)
        spreads.append(spread * gain)
    return np.concatenate([*means, *spreads], 1).astype(np.float32)


def _batches(chips: Iterable[tuple[Chip, Sample]], num_dates: int) -> Iterator[list[tuple[Chip, Sample]]]:
    """Chips of one size and the same bands that go through the network at once."""

    def kind(each: tuple[Chip, Sample]) -> object:
        return each[0].window[2:], each[1].valid.shape[0], each[1].bands

    held: list[tuple[Chip, Sample]] = []
    for each in chips:
        height, width = each[0].window[2:]
        if held and (kind(each) != kind(held[0]) or len(held) >= _BATCH_PX // (height * width * num_dates)):
            yield held
            held = []
        held.append(each)
    if held:
        yield held


def _count(units: Sequence[Path]) -> Counted:
    chips = skipped = 0
    parts: dict[str, int] = {}
    boxes, sums = [], PositionalSums()
    for path in units:
        file = parquet().ParquetFile(path)
        kept = file.schema_arrow.metadata
        skipped += int(kept[b"skipped"])
        sums.merge(PositionalSums.from_text(kept.get(b"positional")))
        table = file.read(columns=["part", "geometry"])
        chips += table.num_rows
        for part in table.column("part").to_pylist():
            parts[part] = parts.get(part, 0) + 1
        boxes += _bounds(table.column("geometry").drop_null().to_pylist())
    ends = np.array(boxes)
    bounds = (*ends[:, :2].min(0).tolist(), *ends[:, 2:].max(0).tolist()) if boxes else None
    return Counted(chips, skipped, parts, bounds, sums.facts())


def _bounds(geometries: list[bytes]) -> list[list[float]]:
    import shapely

    return [shapely.total_bounds(shapely.from_wkb(np.array(geometries, object))).tolist()] if geometries else []


def _grouped(units: Sequence[Path], size: int) -> Iterator[Any]:
    """The rows of all units in tables of `size` rows, the last one smaller."""
    import pyarrow as pa

    held: Any = None
    for path in units:
        table = parquet().read_table(path).replace_schema_metadata(None)
        held = table if held is None else pa.concat_tables([held, table])
        while held.num_rows >= size:
            yield held.slice(0, size).combine_chunks()
            held = held.slice(size)
    if held is not None and held.num_rows:
        yield held.combine_chunks()
