"""Embeddings of chips in regions: by scene, place, part, class, or any column of their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, suggest
from covermap.core.legend import PALETTE
from covermap.data.embeddings import VECTORS, Embeddings, parquet
from covermap.data.labelled_chips import targets_of

WAYS = ("auto", "scene", "place", "part", "class")
MOST = 200
"""Regions that are compared with each other, at most."""


@dataclass(frozen=True)
class ChipRegions:
    """N chips in R regions. chips: their `place` is the name of the region. region (N,): its index in `names`.

    by: scene, place, part, class or a column. sources: the files. notes: what was left out.
    """

    chips: Embeddings
    names: tuple[str, ...]
    region: npt.NDArray[np.intp]
    by: str
    sources: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """Chips of each region (R,)."""
        return np.bincount(self.region, minlength=len(self.names))

    @staticmethod
    def read(paths: Sequence[str | Path], *, by: str = "auto", least: int = 20) -> ChipRegions:
        """Chips of files by one encoder; regions with fewer than `least` chips are left out.

        Raises DataError for fewer than two regions, mixed encoders and unknown columns, ConfigError for too many.
        """
        double = [name for name, count in Counter(str(Path(p).resolve()) for p in paths).items() if count > 1]
        if double:
            raise ConfigError(f"{Path(double[0]).name} is given twice", fix="give each file once")
        if least < 3:
            raise ConfigError(f"--least {least}: so few chips tell nothing of a region", fix="give 3 or more")
        notes = list[str]()
        columns = [None if by in WAYS else _column(path, by) for path in paths]
        files, kept = _once([Embeddings.read(path) for path in paths], notes)
        files = _own_scenes(files, notes)
        chips = Embeddings.joined(files)
        if by == "auto":
            by = "place" if all(chips.place) and len(set(chips.place)) > 1 else "scene"
        told = _told(chips, by, [name for column, rows in zip(columns, kept, strict=True) if column is not None
                                 for name in (column[row] for row in rows)])  # fmt: skip
        if lost := sum(not name for name in told):
            notes.append(f"{lost:,} of {len(told):,} chips are left out: their {by} is not known")
        counts = Counter(name for name in told if name)
        names = tuple(sorted(name for name, count in counts.items() if count >= least))
        if small := sorted(counts.keys() - set(names)):
            notes.append(
                f"{len(small):,} regions with fewer than {least} chips are left out "
                f"({sum(counts[name] for name in small):,} chips): {_listed(small)}"
            )
        _require_some(chips, by, names, counts, least)
        at = {name: number for number, name in enumerate(names)}
        rows = np.array([row for row, name in enumerate(told) if name in at], np.intp)
        chosen = replace(chips.only(rows), place=[told[row] for row in rows])
        region = np.array([at[name] for name in chosen.place], np.intp)
        return ChipRegions(chosen, names, region, by, tuple(map(str, paths)), tuple(notes))


def chip_classes(chips: Embeddings) -> tuple[npt.NDArray[np.intp], tuple[str, ...], tuple[str, ...]]:
    """The class of each chip (N,), -1 none or no majority; names and colours of classes, none without classes."""
    kind = "label" if chips.labels is not None else "majority" if chips.class_pixels is not None else None
    if kind is None:
        return np.full(len(chips), -1, np.intp), (), ()
    index, names, _, _ = targets_of(chips, kind)  # type: ignore[arg-type]
    legend = chips.legend
    colours = [c.colour for c in legend.classes] if legend else [PALETTE[i % len(PALETTE)] for i in range(len(names))]
    return index.astype(np.intp), names, tuple(colours)


def _told(chips: Embeddings, by: str, column: list[str]) -> list[str]:
    """The region of each chip, empty where it is not known."""
    if by == "scene":
        return chips.scene
    if by == "place":
        return chips.place
    if by == "part":
        return ["" if part == "none" else part for part in chips.part]
    if by == "class":
        index, names, _ = chip_classes(chips)
        if not names:
            raise DataError(f"{chips.source} has no classes", fix="embed with a config that has labels, or --by scene")
        return ["" if i < 0 else names[i] for i in index]
    return column


def _column(path: str | Path, name: str) -> list[str]:
    """A column of a file as texts, empty where it is null; raises DataError for one that is not there or no name."""
    try:
        schema = parquet().read_schema(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", fix="make it: covermap embed CONFIG.yaml OUT.parquet") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})", fix="make or copy it again") from error
    there = [key for key in schema.names if key not in VECTORS]
    if name not in there:
        raise DataError(f"{path} has no column {name!r} (--by)", fix=suggest(name, [*WAYS, *there]))
    kind = str(schema.field(name).type)
    if not kind.startswith(("string", "large_string", "int", "uint", "bool", "date", "timestamp", "dictionary")):
        raise DataError(
            f"column {name} of {path} holds {kind}, no names", fix="--by a column of texts or whole numbers"
        )
    values = parquet().read_table(path, columns=[name]).column(name).to_pylist()
    return ["" if value is None else str(value) for value in values]


def _once(files: Sequence[Embeddings], notes: list[str]) -> tuple[list[Embeddings], list[npt.NDArray[np.intp]]]:
    """Chips that are numbers, each of ours once, and their rows in the files."""
    seen, kept = set[str](), list[npt.NDArray[np.intp]]()
    double = broken = 0
    for one in files:
        finite = np.isfinite(one.values.sum(1, dtype=np.float64)).tolist()
        rows = []
        for row, name in enumerate(one.ids):
            broken += not finite[row]
            again = bool(one.encoder) and name in seen  # ids of others need not be unique
            double += again
            seen.add(name)
            if finite[row] and not again:
                rows.append(row)
        kept.append(np.array(rows, np.intp))
    if double:
        notes.append(f"{double:,} chips stand in the files twice, and count once")
    if broken:
        notes.append(f"{broken:,} chips have embeddings that are no numbers and are left out")
    return [one.only(rows) for one, rows in zip(files, kept, strict=True)], kept


def _own_scenes(files: Sequence[Embeddings], notes: list[str]) -> list[Embeddings]:
    """Scenes of one name in several files are others: they get the name of their file before their own."""
    holders = Counter(name for one in files for name in set(one.scene) if name)
    if not (shared := {name for name, count in holders.items() if count > 1}):
        return list(files)
    notes.append(f"{len(shared):,} names of scenes stand in several files: they are told apart by file")
    return [
        replace(one, scene=[f"{_stem(one, files)}/{name}" if name in shared else name for name in one.scene])
        for one in files
    ]


def _stem(one: Embeddings, files: Sequence[Embeddings]) -> str:
    stems = [Path(other.source).stem for other in files]
    return Path(one.source).stem if len(set(stems)) == len(stems) else str(Path(one.source).with_suffix(""))


def _require_some(chips: Embeddings, by: str, names: Sequence[str], counts: Counter[str], least: int) -> None:
    if len(names) > MOST:
        raise ConfigError(
            f"by {by} there are {len(names):,} regions: more than {MOST} are not compared",
            fix="--by place, or a column with fewer names; or a larger --least",
        )
    if len(names) < 2:
        there = f"only {names[0]}" if names else f"none of {len(counts):,}" if counts else "none"
        raise DataError(
            f"{chips.source}: two regions with at least {least} chips are needed, by {by} there is {there}",
            fix="give embeddings of more regions, another --by (part, class, a column such as grid_cell), or --least",
        )


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
