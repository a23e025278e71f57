"""The change map of two maps: codes and counts window by window, and what is set aside from it.

`_look` brings a window's classes before and after to codes and counts. A pair of classes alone decides its code: so
merging, questions and impossible transitions are one look-up. Change that a shift explains is found in windows that are
read with a halo; then change of little probability; then small patches in the codes, so that with a question only
patches of what is asked for are set aside. What goes for one reason is not counted for a later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.engine import cores, map_ordered
from covermap.core.errors import GridError, LabelError
from covermap.core.from_to import NODATA, UNCHANGED, FromTo
from covermap.core.legend import IGNORE
from covermap.core.output import only_with, require_tif, scratch
from covermap.core.progress import Tick, unseen
from covermap.geo.change_product import BINARY, finish_change
from covermap.geo.grid import Window, partition
from covermap.geo.pairs import PairKeys
from covermap.geo.patches import MappingUnit, drop_small
from covermap.geo.products import finish_cog, layer_beside, names_beside, small_cache
from covermap.geo.raster import open_dataset
from covermap.geo.registration import halo, misregistered
from covermap.geo.writer import HashingWriter, RasterWriter
from covermap.metrics.temporal import ExpectedErrors, expected_errors
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.transitions import Amount, Change, Pair, tables_beside, write_json, write_tables

WINDOW_PX = (512, 4096)
_ROW_PX = 1 << 21
"""Pixels of a window where files hold whole rows, which would be read again for each window of a row."""
_IMPOSSIBLE = "impossible transitions"
_UNKNOWN = 255
_Table = npt.NDArray[np.uint16]
_Mask = npt.NDArray[np.bool_]
_Looked = tuple[Window, npt.NDArray[np.uint16], dict[str, Amount]]
"""Codes of a window and, by reason, what is set aside; "" stands for all that was counted."""


@small_cache()
def compare_pair(
    pair: Pair, out: Path, rules: ChangeRules, *, accuracy: tuple[float, float] | None = None,
    decision: Mapping[str, Any] | None = None, alone: Change | None = None,
    on_progress: Tick = unseen,
) -> Change:  # fmt: skip
    """Write the change map of two maps, with all its files. Raises GridError, LabelError, ConfigError, OutputError."""
    unit = MappingUnit.parse(rules.min_area) if rules.min_area else None
    tables = tables_beside(out)
    asked, forbidden = rules.asked(pair.legend), rules.forbidden(pair.legend)
    shown = ~forbidden if asked is None else asked & ~forbidden
    with scratch(out) as folder:
        made = _Made(pair, rules, shown, ~forbidden & ~np.eye(len(forbidden), dtype=bool), folder)
        counts, content = _count(made, hashed=unit is None, on_progress=part_of(on_progress, 1, 3 if unit else 1))
        counted = counts.pop("")
        found = Change(pair, rules, counted, accuracy=accuracy, decision=decision, alone=alone, path=out)
        _require_something(found)
        if rules.impossible:
            found = replace(found, set_aside={_IMPOSSIBLE: found.plain.where(forbidden)})
        aside = {reason: pair.together(amount) for reason, amount in counts.items()}
        found = replace(found, set_aside={**found.set_aside, **aside})
        if unit:
            below, patches, content = _without_small(made, unit, part_of(on_progress, 2, 3))
            found = replace(found, set_aside={**found.set_aside, f"patches below {unit}": below}, num_patches=patches)
        errors, layers = _with_probability(made, out)
        found = replace(found, errors=errors)
        write_tables(found, tables)
        csvs = {key: path for key, path in tables.items() if key != "change"}
        with only_with(*csvs.values(), *layers.values()):
            num_nodata = int(counted.pixels.sum() - found.matrix.pixels.sum())
            files = finish_change(
                made.last, out, found.mapped.pixels, found.mapped.hectares, FromTo(pair.legend), content,
                compared=found.matrix.total, num_nodata=num_nodata, binary=rules.binary,
                date=pair.span, derived_from=[Path(file).name for m in (pair.first, pair.other) for file in m.files],
                tables=csvs, rules=rules.to_dict(), layers=layers, answers=rules.answers(pair.legend),
            )  # fmt: skip
            found = replace(found, files=(*files, *layers.values(), tables["change"]))
            write_json(found, tables["change"])
    return found


@small_cache()
def before_decision(pair: Pair) -> Change | None:
    """What the classes of both maps are, before they are decided together; None where each has a counterpart."""
    if None not in (*pair.one.codes, *pair.two.codes):
        return None
    keys = PairKeys((len(pair.first.legend), len(pair.other.legend)))

    def look(window: Window) -> Amount:
        both = pair.read(window)
        return Amount(*keys.count(keys.of(*both), pair.grid.row_areas_ha(window.row, window.height)))

    first, *others = map_ordered(look, _windows(pair), workers=cores())
    return Change(pair, ChangeRules(), sum(others, first))


def claimed(out: Path) -> list[Path]:
    """Every file that a change map may write."""
    require_tif(out)
    files = [out, *(path for key, path in names_beside(out).items() if key != "areas"), *tables_beside(out).values()]
    return [*files, layer_beside(out, "probability")]


@dataclass(frozen=True)
class _Made:
    """A change map at work. shown (K, K): transitions that it may show; others count as unchanged. possible: of all."""

    pair: Pair
    rules: ChangeRules
    shown: _Mask
    possible: _Mask
    folder: Path

    @property
    def codes(self) -> Path:
        return self.folder / "codes.tif"

    @property
    def last(self) -> Path:
        """What the map is made of."""
        return self.folder / "last.tif" if self.rules.min_area else self.codes

    @property
    def pad(self) -> int:
        """Pixels around a window that what is set aside in it depends on."""
        return halo(self.rules.tolerance) if self.rules.tolerance else 0

    @cached_property
    def keys(self) -> PairKeys:
        return PairKeys((len(self.pair.first.legend), len(self.pair.other.legend)))

    @cached_property
    def _indices(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """(K1 + 1,), (K2 + 1,): the maps' own classes in the legend of the comparison, the last for none."""
        one, two = (way.table[[*range(len(way.source)), IGNORE]] for way in (self.pair.one, self.pair.two))
        return one, two

    def _of_pairs(self, transitions: _Mask) -> _Mask:
        """(K, K) -> (K1 + 1, K2 + 1), False where one is not known."""
        k, (one, two) = len(self.pair.legend), self._indices
        known = (one[:, None] < k) & (two[None] < k)
        return np.asarray(known & transitions[np.where(one < k, one, 0)[:, None], np.where(two < k, two, 0)[None]])

    def code_table(self, *, binary: bool) -> _Table:
        """Number of a pair of the maps' own classes (geo/pairs.py) -> code of the change map."""
        codes = FromTo(self.pair.legend).of_pairs(*self._indices)
        codes[self._of_pairs(~self.shown)] = UNCHANGED
        return (_as_binary(codes) if binary else codes).reshape(-1)

    @cached_property
    def possible_keys(self) -> _Mask:
        """Whether the number of a pair stands for a change that can be."""
        return self._of_pairs(self.possible).reshape(-1)

    def doubts(
        self, window: Window, both: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
    ) -> Iterator[tuple[str, _Mask]]:
        """Masks (H, W) of what is no change, by reason, of classes that were read with `pad`."""
        if self.rules.tolerance:
            before, after = (way.table[index] for way, index in zip((self.pair.one, self.pair.two), both, strict=True))
            yield (
                f"explained by a shift of {self.rules.tolerance} px",
                misregistered(before, after, self.rules.tolerance),
            )
        if self.rules.confidence is not None and self.pair.probability is not None:
            unsure = self.pair.probability.read(window) < self.rules.confidence
            yield f"probability of change below {self.rules.confidence:g}", unsure

    def writer(self, path: Path, *, binary: bool) -> HashingWriter:
        """Of a plain raster that is needed on the way."""
        kind = {"dtype": "uint8", "nodata": BINARY.map_nodata} if binary else {"dtype": "uint16", "nodata": NODATA}
        return HashingWriter(path, self.pair.grid, bands=["change"], compress="none", lasting=False, **kind)  # type: ignore[arg-type]


def _as_binary(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    unchanged, changed = BINARY.codes
    binary = np.where(codes == UNCHANGED, unchanged, changed)
    return np.where(codes == NODATA, BINARY.map_nodata, binary).astype(np.uint16)


def _count(made: _Made, *, hashed: bool, on_progress: Tick) -> tuple[dict[str, Amount], str]:
    """Write the codes, and count pairs of classes in the order of windows, so that sums are the same each time.

    hashed: nothing follows; the codes are the map's.
    """
    binary, total = made.rules.binary and hashed, dict[str, Amount]()
    table, windows = made.code_table(binary=binary), _windows(made.pair)
    unchanged = BINARY.codes[0] if binary else UNCHANGED
    with made.writer(made.codes, binary=binary) as writer:
        looked = map_ordered(lambda window: _look(made, window, table, unchanged), windows, workers=cores())
        for number, (window, codes, amounts) in enumerate(looked, 1):
            total = {reason: total[reason] + each if total else each for reason, each in amounts.items()}
            writer.write(window, codes)
            on_progress(number, len(windows))
    return total, writer.content


def _look(made: _Made, window: Window, table: _Table, unchanged: int) -> _Looked:
    """A window of the grid: classes before and after -> codes (H, W), and what there is of each pair of classes."""
    both = made.pair.read(window, made.pad)
    inner = (slice(made.pad, made.pad + window.height), slice(made.pad, made.pad + window.width))
    keys, rows = made.keys.of(both[0][inner], both[1][inner]), made.pair.grid.row_areas_ha(window.row, window.height)
    codes, amounts = table.take(keys), {"": Amount(*made.keys.count(keys, rows))}
    possible: _Mask | None = None
    for reason, mask in made.doubts(window, both):
        possible = made.possible_keys.take(keys) if possible is None else possible
        mask &= possible
        possible &= ~mask
        amounts[reason] = Amount(*made.keys.count(keys, rows, mask))
        codes[mask] = unchanged
    return window, codes, amounts


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


def _with_probability(made: _Made, out: Path) -> tuple[ExpectedErrors | None, dict[str, Path]]:
    """The errors that are to be expected of the map, in hectares, and the layer of its probability of change."""
    pair = made.pair
    layer = layer_beside(out, "probability")
    if pair.probability is None:
        layer.unlink(missing_ok=True)  # of an earlier map of this name
        return None, {}
    plain, errors = made.folder / "percent.tif", ExpectedErrors(0, 0, 0)
    none = (BINARY.map_nodata, BINARY.codes[0]) if made.rules.binary else (NODATA, UNCHANGED)
    band = ["probability of change in percent"]
    with (
        rasterio.open(made.last) as dataset,
        RasterWriter(
            plain, pair.grid, bands=band, dtype="uint8", nodata=_UNKNOWN, compress="none", lasting=False
        ) as writer,
    ):
        for window in _windows(pair):
            codes, probability = dataset.read(1, window=window.rasterio), pair.probability.read(window)
            probability[codes == none[0]] = np.nan
            rows = np.asarray(pair.grid.row_areas_ha(window.row, window.height))
            errors = errors.plus(expected_errors(~np.isin(codes, none), probability, rows))
            known = ~np.isnan(probability)
            percent = np.rint(np.where(known, probability, 0) * 100)
            writer.write(window, np.where(known, percent, _UNKNOWN).astype(np.uint8))
    finish_cog(plain, layer, nodata=_UNKNOWN, description=band, overwrite=True)
    return errors, {"probability": layer}


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
