"""The change map of two maps: codes and counts window by window, and what is set aside from it.

`_look` brings a window's classes before and after to codes and counts. A pair of classes alone decides its code: so
merging, questions and impossible transitions are one look-up; small patches are found in the codes, so that with a
question only patches of what is asked for are set aside.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.engine import cores, map_ordered
from covermap.core.errors import GridError, LabelError
from covermap.core.from_to import NODATA, UNCHANGED, FromTo
from covermap.core.legend import IGNORE
from covermap.core.output import claim, only_with, require_no_input, require_tif
from covermap.core.progress import Tick, unseen
from covermap.geo.change_product import BINARY, finish_change
from covermap.geo.grid import Window, partition
from covermap.geo.pairs import PairKeys
from covermap.geo.patches import MappingUnit, drop_small
from covermap.geo.products import names_beside, small_cache
from covermap.geo.raster import open_dataset
from covermap.geo.writer import HashingWriter
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.transitions import Amount, Change, Pair, tables_beside, write_json, write_tables

WINDOW_PX = (512, 4096)
_ROW_PX = 1 << 21
"""Pixels of a window where files hold whole rows, which would be read again for each window of a row."""
_IMPOSSIBLE = "impossible transitions"
_Table = npt.NDArray[np.uint16]
_Looked = tuple[Window, npt.NDArray[np.uint16], Amount]


@small_cache()
def compare_pair(
    pair: Pair, out: Path, rules: ChangeRules, *, accuracy: tuple[float, float] | None = None, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Change:  # fmt: skip
    """Write the change map of two maps, with all its files. Raises GridError, LabelError, ConfigError, OutputError."""
    unit = MappingUnit.parse(rules.min_area) if rules.min_area else None
    tables = tables_beside(out)
    for path in claimed(out, pair):
        claim(path, overwrite=overwrite)
    asked, forbidden = rules.asked(pair.legend), rules.forbidden(pair.legend)
    shown = ~forbidden if asked is None else asked & ~forbidden
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}.") as folder:
        made = _Made(pair, rules, shown, Path(folder))
        counted, content = _count(made, hashed=unit is None, on_progress=part_of(on_progress, 1, 3 if unit else 1))
        found = Change(pair, rules, counted, accuracy=accuracy, path=out)
        _require_something(found)
        if rules.impossible:
            found = replace(found, set_aside={_IMPOSSIBLE: found.plain.where(forbidden)})
        if unit:
            below, patches, content = _without_small(made, unit, part_of(on_progress, 2, 3))
            found = replace(found, set_aside={**found.set_aside, f"patches below {unit}": below}, num_patches=patches)
        write_tables(found, tables)
        csvs = {key: path for key, path in tables.items() if key != "change"}
        with only_with(*csvs.values()):
            num_nodata = int(counted.pixels.sum() - found.matrix.pixels.sum())
            files = finish_change(
                made.last, out, found.mapped.pixels, found.mapped.hectares, FromTo(pair.legend), content,
                compared=found.matrix.total, num_nodata=num_nodata, binary=rules.binary,
                date=pair.span, derived_from=[Path(file).name for m in (pair.first, pair.other) for file in m.files],
                tables=csvs, rules=rules.to_dict(),
            )  # fmt: skip
            found = replace(found, files=(*files, tables["change"]))
            write_json(found, tables["change"])
    return found


def claimed(out: Path, pair: Pair) -> list[Path]:
    """Every file that a change map may write; raises OutputError where one of them is an input."""
    require_tif(out)
    files = [out, *(path for key, path in names_beside(out).items() if key != "areas"), *tables_beside(out).values()]
    require_no_input(files, [*pair.first.files, *pair.other.files])
    return files


@dataclass(frozen=True)
class _Made:
    """A change map at work. shown (K, K): transitions that it may show; others count as unchanged."""

    pair: Pair
    rules: ChangeRules
    shown: npt.NDArray[np.bool_]
    folder: Path

    @property
    def codes(self) -> Path:
        return self.folder / "codes.tif"

    @property
    def last(self) -> Path:
        """What the map is made of."""
        return self.folder / "last.tif" if self.rules.min_area else self.codes

    def code_table(self, *, binary: bool) -> _Table:
        """Number of a pair of the maps' own classes (geo/pairs.py) -> code of the change map."""
        k = len(self.pair.legend)
        one, two = (way.table[[*range(len(way.source)), IGNORE]] for way in (self.pair.one, self.pair.two))
        codes = FromTo(self.pair.legend).of_pairs(one, two)
        known = (one[:, None] < k) & (two[None] < k)
        codes[known & ~self.shown[np.where(one < k, one, 0)[:, None], np.where(two < k, two, 0)[None]]] = UNCHANGED
        return (_as_binary(codes) if binary else codes).reshape(-1)

    def writer(self, path: Path, *, binary: bool) -> HashingWriter:
        """Of a plain raster that is needed on the way."""
        kind = {"dtype": "uint8", "nodata": BINARY.map_nodata} if binary else {"dtype": "uint16", "nodata": NODATA}
        return HashingWriter(path, self.pair.grid, bands=["change"], compress="none", lasting=False, **kind)  # type: ignore[arg-type]


def _as_binary(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    unchanged, changed = BINARY.codes
    binary = np.where(codes == UNCHANGED, unchanged, changed)
    return np.where(codes == NODATA, BINARY.map_nodata, binary).astype(np.uint16)


def _count(made: _Made, *, hashed: bool, on_progress: Tick) -> tuple[Amount, str]:
    """Write the codes, and count pairs of classes in the order of windows, so that sums are the same each time.

    hashed: nothing follows; the codes are the map's.
    """
    pair, binary = made.pair, made.rules.binary and hashed
    pairs = PairKeys((len(pair.first.legend), len(pair.other.legend)))
    pixels, hectares = np.zeros(pairs.shape, np.int64), np.zeros(pairs.shape)
    table, windows = made.code_table(binary=binary), _windows(pair)
    with made.writer(made.codes, binary=binary) as writer:
        looked = map_ordered(lambda window: _look(pair, pairs, window, table), windows, workers=cores())
        for number, (window, codes, amount) in enumerate(looked, 1):
            pixels += amount.pixels
            hectares += amount.hectares
            writer.write(window, codes)
            on_progress(number, len(windows))
    return Amount(pixels, hectares), writer.content


def _look(pair: Pair, pairs: PairKeys, window: Window, table: _Table) -> _Looked:
    """A window of the grid: classes before and after -> codes (H, W), and what there is of each pair of classes."""
    keys = pairs.of(*pair.read(window))
    pixels, hectares = pairs.count(keys, pair.grid.row_areas_ha(window.row, window.height))
    return window, table.take(keys), Amount(pixels, hectares)


def _windows(pair: Pair) -> list[Window]:
    """Whole blocks of files in tiles; whole rows of files in rows."""
    height, width = WINDOW_PX
    if any(open_dataset(each.path).block_shapes[0][1] >= each.grid.width > width for each in (pair.first, pair.other)):
        height, width = max(1, _ROW_PX // pair.grid.width), pair.grid.width
    return list(partition(pair.grid.window, height, width))


def _without_small(made: _Made, unit: MappingUnit, on_progress: Tick) -> tuple[Amount, tuple[int, int], str]:
    """Patches of one transition below the unit become unchanged; what that is, patches (all, below), SHA-256."""
    pair, codes_of = made.pair, FromTo(made.pair.legend)
    pixels, hectares = np.zeros(codes_of.num_codes, np.int64), np.zeros(codes_of.num_codes)
    with rasterio.open(made.codes) as dataset:

        def read(window: Window) -> npt.NDArray[np.uint16]:
            codes = dataset.read(1, window=window.rasterio)
            codes[codes == UNCHANGED] = NODATA  # no patch of change
            return np.asarray(codes)

        sieved = drop_small(
            read, pair.grid, unit, connectivity=made.rules.connectivity, on_progress=part_of(on_progress, 1, 2)
        )
        with made.writer(made.last, binary=made.rules.binary) as writer:
            for number, window in enumerate(sieved.windows):
                codes = dataset.read(1, window=window.rasterio)
                before = np.where(codes == UNCHANGED, np.uint16(NODATA), codes)
                gone = sieved.apply(number, before) != before
                rows = np.asarray(pair.grid.row_areas_ha(window.row, window.height))
                lost = codes[gone]
                pixels += np.bincount(lost, minlength=codes_of.num_codes)
                hectares += np.bincount(lost, np.repeat(rows, gone.sum(1)), codes_of.num_codes)
                codes[gone] = UNCHANGED
                writer.write(window, _as_binary(codes) if made.rules.binary else codes)
                part_of(on_progress, 2, 2)(number + 1, len(sieved.windows))
    return _by_pair(codes_of, pixels, hectares), (sieved.num_patches, sieved.num_below), writer.content


def _by_pair(codes_of: FromTo, pixels: npt.NDArray[np.int64], hectares: npt.NDArray[np.float64]) -> Amount:
    """Counts by code -> (K, K)."""
    k = len(codes_of.legend)
    index = np.arange(k, dtype=np.uint8)
    codes = codes_of.encode(*np.broadcast_arrays(index[:, None], index[None]))
    away = ~np.eye(k, dtype=bool)
    return Amount(pixels[codes], hectares[codes]).where(away)


def part_of(on_progress: Tick, number: int, parts: int) -> Tick:
    """The progress of one of several parts alike."""
    return lambda done, total: on_progress((number - 1) * total + done, parts * total)


def _require_something(found: Change) -> None:
    """Raise where there is nothing to compare, and say why."""
    first, other = found.pair.first, found.pair.other
    if not found.counted.pixels[:-1, :-1].any():
        raise GridError(
            f"{first.name} and {other.name} have no place where both hold a class",
            fix="check their extent and nodata: covermap info FILE",
        )
    if not found.plain.pixels.any():
        raise LabelError(
            f"none of the classes that {first.name} and {other.name} hold in the same place has a counterpart in "
            f"{found.legend.name}",
            fix="compare in a coarser legend (--as ipcc), or give a crosswalk of your own: --crosswalk FILE.yaml",
        )
