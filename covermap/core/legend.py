"""Legend: the classes of a map. A pixel of a file holds a code, a network's output a class index.

The two are never mixed: `encode` goes from codes to indices, `decode` back. A code that the legend does not know
is an error that lists codes and counts, or becomes IGNORE when the caller says so; it never becomes class 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import LabelError, suggest
from covermap.core.parsing import parse_yaml

IGNORE = 255
"""Index of a pixel without a usable label, in every label array of the project."""
_STRANGE = 254
"""Stands for an unknown code while codes are looked up; a legend has at most 254 classes, 0 to 253."""

# Distinct for the common kinds of colour blindness (Okabe and Ito 2008, then tints of it).
PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999",
    "#8c5a00", "#a6d9f5", "#66c2a5", "#fff7a0", "#6aaed6", "#ffb07c", "#e8c4d8", "#444444",
)  # fmt: skip


@dataclass(frozen=True)
class LandClass:
    """One class: its code in files, its name and its colour (#rrggbb)."""

    code: int
    name: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        return tuple(int(self.colour[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]


@dataclass(frozen=True)
class Legend:
    """Classes in index order; `nodata` is the code of "nothing here", `ignore` are codes that are never trained."""

    name: str
    classes: tuple[LandClass, ...]
    nodata: int | None = None
    ignore: tuple[int, ...] = ()
    title: str = ""
    source: str = ""
    merged: Mapping[int, int] = field(default_factory=dict, hash=False)  # old code -> code of the class it went to
    old_names: Mapping[str, int] = field(default_factory=dict, hash=False)  # old name -> code of the class it went to

    def __post_init__(self) -> None:
        codes = [c.code for c in self.classes]
        names = [c.name.lower() for c in self.classes]
        for what, values in (("code", [str(c) for c in codes]), ("name", names)):
            double = sorted({v for v in values if values.count(v) > 1})
            if double:
                raise LabelError(
                    f"legend {self.name}: {what} {', '.join(double)} stands twice", fix="give each class its own"
                )
        if not self.classes or len(self.classes) > 254:
            raise LabelError(f"legend {self.name} has {len(self.classes)} classes", fix="give 1 to 254 classes")
        if min(codes) < 0 or max(codes) > 65534:
            raise LabelError(f"legend {self.name}: codes must lie between 0 and 65534", fix="renumber the classes")
        if self.nodata is not None and self.nodata in codes:
            both = next(c for c in self.classes if c.code == self.nodata)
            raise LabelError(
                f"legend {self.name}: code {self.nodata} is both nodata and the class {both.name!r}",
                fix="if it is a class, set nodata: null; if it means nothing here, take it out of the classes",
            )
        taken = [code for code in self.ignore if code in codes]
        if taken:
            raise LabelError(
                f"legend {self.name}: codes {taken} are both class and ignored", fix="remove them from one side"
            )
        if odd := [old for old in self.merged if not 0 <= old <= 65535]:
            raise LabelError(f"legend {self.name}: merged codes {odd} lie outside of 0 to 65535", fix="correct them")
        if lost := sorted({new for new in (*self.merged.values(), *self.old_names.values()) if new not in codes}):
            raise LabelError(
                f"legend {self.name}: merged and old_names lead to {lost}, which are no classes of it",
                fix="give codes of its classes",
            )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def codes(self) -> tuple[int, ...]:
        return tuple(c.code for c in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @cached_property
    def map_nodata(self) -> int:
        """The nodata code of maps written with this legend: 0 where it is free, otherwise 255, otherwise 65535."""
        return next(c for c in (self.nodata, 0, 255, 65535) if c is not None and 0 <= c < 65536 and c not in self.codes)

    @property
    def map_dtype(self) -> str:
        """uint8 where all codes fit, otherwise uint16 (CORINE)."""
        return "uint8" if max(*self.codes, self.map_nodata) < 256 else "uint16"

    @property
    def _unlabelled(self) -> tuple[int, ...]:
        return (*self.ignore, *(() if self.nodata is None else (self.nodata,)))

    @cached_property
    def _table(self) -> npt.NDArray[np.int16]:
        """Look-up from code to index; -1 unknown."""
        table = np.full(65536, -1, np.int16)
        table[[code for code in self._unlabelled if 0 <= code < 65535]] = IGNORE
        table[list(self.codes)] = np.arange(len(self.classes))
        for old, new in self.merged.items():
            table[old] = self.codes.index(new)
        return table

    def encode(
        self, codes: npt.NDArray[Any], *, unknown: str = "error", where: str = "the labels"
    ) -> npt.NDArray[np.uint8]:
        """Codes (any shape, integer or whole float) -> class indices uint8, IGNORE for nodata, ignored codes and NaN.

        unknown: "error" raises LabelError that lists the codes with their pixel counts; "ignore" makes them IGNORE.
        Codes that are indices already come back as they are, not as a copy.
        """
        given = np.asarray(codes)
        if given.dtype == np.uint8:
            if self._run is not None:
                run = given - self._run if self._run else given
                if run.max(initial=0) < len(self.classes):
                    return run
            # A look-up of bytes is six times as fast as one of arrays.
            looked_up = bytearray(np.ascontiguousarray(given)).translate(self.byte_table)
            quick = np.frombuffer(looked_up, np.uint8).reshape(given.shape)
            if not (quick == _STRANGE).any():
                return quick
        codes = given.astype(np.uint8) if given.dtype.kind == "b" else given
        # Codes that the table cannot hold, such as -1.
        odd = [code for code in self._unlabelled if not 0 <= code < 65535]
        lost = np.isin(codes, odd) if odd else np.zeros(codes.shape, bool)
        if codes.dtype.kind == "f":
            lost |= ~np.isfinite(codes)
            whole = np.where(lost, 0, codes)
            broken = whole != np.rint(whole)
            codes = np.where(broken, -1, whole).astype(np.int64)
        outside = (codes < 0) | (codes > 65535) if codes.dtype.kind == "i" or codes.dtype.itemsize > 2 else None
        index = self._table[np.where(outside, 65535, codes) if outside is not None else codes]
        strange = (index < 0) & ~lost
        if strange.any():
            if unknown == "error":
                raise self._unknown(given[strange], where)
            index = np.where(strange, IGNORE, index)
        if lost.any():
            index = np.where(lost, IGNORE, index)
        return index.astype(np.uint8)

    @cached_property
    def _run(self) -> np.uint8 | None:
        """The first code, where codes are 8-bit and follow each other in the classes' order."""
        first = self.codes[0]
        run = self.codes == tuple(range(first, first + len(self.classes)))
        return np.uint8(first) if run and self.codes[-1] < 256 else None

    @cached_property
    def byte_table(self) -> bytes:
        """Look-up from 8-bit code to index; _STRANGE unknown."""
        return np.where(self._table[:256] < 0, _STRANGE, self._table[:256]).astype(np.uint8).tobytes()

    def _unknown(self, codes: npt.NDArray[Any], where: str) -> LabelError:
        values, counts = np.unique(codes, return_counts=True)
        listed = ", ".join(f"{v} ({n:,} px)" for v, n in list(zip(values, counts, strict=True))[:10])
        more = f" and {len(values) - 10} more" if len(values) > 10 else ""
        return LabelError(
            f"{where} hold codes that legend {self.name!r} does not know: {listed}{more}; it knows {list(self.codes)}",
            fix="add them to the legend, list them under legend ignore, or set data.unknown_codes: ignore",
        )

    def decode(self, index: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Class indices -> codes in `map_dtype`; IGNORE becomes `map_nodata`."""
        table = np.full(256, self.map_nodata, self.map_dtype)
        table[: len(self.classes)] = self.codes
        return np.asarray(table[np.asarray(index, np.uint8)])

    def index_of(self, name: str) -> int:
        """Class index of a class name (case does not matter); raises LabelError with a suggestion."""
        if (found := self.index_by_name.get(name.strip().lower())) is None:
            raise LabelError(f"legend {self.name} has no class {name!r}", fix=suggest(name, self.names))
        return found

    @cached_property
    def index_by_name(self) -> dict[str, int]:
        """Class index by name in lower case, also by the names of classes that were merged away."""
        old = {name.lower(): self.codes.index(code) for name, code in self.old_names.items()}
        return old | {name.lower(): index for index, name in enumerate(self.names)}

    def merge(self, merges: Mapping[str, Sequence[str]], *, name: str = "") -> Legend:
        """A coarser legend: each new class takes the listed old ones, keeps the first one's code and colour."""
        gone = {old.lower(): new for new, olds in merges.items() for old in olds}
        for olds in merges.values():
            for old in olds:
                self.index_of(old)
        classes: list[LandClass] = []
        merged, old_names = dict(self.merged), dict(self.old_names)
        first: dict[str, int] = {}
        for c in self.classes:
            new = gone.get(c.name.lower())
            if new is None:
                classes.append(c)
                continue
            if new not in first:
                first[new] = c.code
                classes.append(replace(c, name=new))
            else:
                merged[c.code] = first[new]
            old_names[c.name] = first[new]
        merged = {old: merged.get(new, new) for old, new in merged.items()}
        old_names = {old: merged.get(new, new) for old, new in old_names.items()}
        return replace(
            self, name=name or f"{self.name}_merged", classes=tuple(classes), merged=merged, old_names=old_names
        )

    @staticmethod
    def union(legends: Sequence[Legend], *, name: str = "") -> Legend:
        """One legend with the classes of all, by code; raises LabelError where a code has two names."""
        classes: dict[int, LandClass] = {}
        for legend in legends:
            for c in legend.classes:
                known = classes.setdefault(c.code, c)
                if known.name != c.name:
                    raise LabelError(
                        f"code {c.code} is {known.name!r} in one label file, {c.name!r} in {legend.name}",
                        fix="say what the codes mean: data.legend: {1: water, 2: forest}",
                    )
        nodata = {legend.nodata for legend in legends}
        free = nodata.pop() if len(nodata) == 1 else None
        in_order = tuple(classes[code] for code in sorted(classes))
        return Legend(name or legends[0].name, in_order, nodata=None if free in classes else free)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in YAML and in a model's config.json."""
        out: dict[str, Any] = {"name": self.name, "title": self.title, "source": self.source, "nodata": self.nodata}
        out["ignore"] = list(self.ignore)
        out["classes"] = [{"code": c.code, "name": c.name, "colour": c.colour} for c in self.classes]
        out["merged"], out["old_names"] = dict(self.merged), dict(self.old_names)
        return {key: value for key, value in out.items() if value or key in ("name", "nodata")}

    @staticmethod
    def from_dict(raw: Mapping[str, Any], *, where: str = "legend") -> Legend:
        """Read `to_dict`'s form, or the short form {code: name}; colours that are missing come from the palette."""
        unknown = {str(k) for k in raw} - {f.name for f in fields(Legend)}
        if "classes" not in raw and all(str(key).lstrip("-").isdigit() for key in raw):
            raw, unknown = {"classes": [{"code": int(code), "name": name} for code, name in raw.items()]}, set()
        if unknown or "classes" not in raw:
            raise LabelError(
                f"{where}: {'unknown keys ' + ', '.join(sorted(unknown)) if unknown else 'no classes'}",
                fix="write {1: water, 2: forest} or keys name, nodata, ignore, classes: [{code, name, colour}]",
            )
        try:
            classes = tuple(
                LandClass(int(c["code"]), str(c["name"]), str(c.get("colour") or PALETTE[i % len(PALETTE)]).lower())
                for i, c in enumerate(raw["classes"])
            )
            wrong = [c.colour for c in classes if not re.fullmatch("#[0-9a-f]{6}", c.colour)]
            if wrong:
                raise ValueError(f"{wrong[0]!r} is no colour")
            return Legend(
                name=str(raw.get("name", "custom")),
                classes=classes,
                nodata=None if raw.get("nodata") is None else int(raw["nodata"]),
                ignore=tuple(int(c) for c in raw.get("ignore", ())),
                title=str(raw.get("title", "")),
                source=str(raw.get("source", "")),
                merged={int(k): int(v) for k, v in raw.get("merged", {}).items()},
                old_names={str(k): int(v) for k, v in raw.get("old_names", {}).items()},
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise LabelError(
                f"{where}: a class needs code and name ({error})", fix="classes: [{code: 1, name: water}]"
            ) from error
        except ValueError as error:
            if isinstance(error, LabelError):
                raise
            raise LabelError(f"{where}: {error}", fix="codes are whole numbers, colours are #rrggbb") from error


def shipped() -> list[str]:
    """Names of the legends that come with covermap."""
    return sorted(
        p.name.removesuffix(".yaml") for p in resources.files("covermap.legends").iterdir() if p.name.endswith(".yaml")
    )


def load_legend(spec: str | Path | Mapping[Any, Any]) -> Legend:
    """A legend by shipped name (`esa_worldcover`), YAML file or mapping; raises LabelError."""
    if isinstance(spec, Mapping):
        return Legend.from_dict(spec)
    path = Path(spec)
    if path.suffix.lower() in (".yaml", ".yml"):
        if not path.is_file():
            raise LabelError(f"there is no legend file {path}", fix=f"shipped legends: {', '.join(shipped())}")
        file: Path | Traversable = path
    elif str(spec) in shipped():
        file = resources.files("covermap.legends") / f"{spec}.yaml"
    else:
        raise LabelError(f"there is no legend called {str(spec)!r}", fix=suggest(str(spec), shipped()))
    where = str(spec)
    try:
        raw = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabelError(f"{where} is not valid YAML: {error}", fix="covermap legend list shows examples") from error
    if not isinstance(raw, Mapping):
        raise LabelError(f"{where} holds no legend", fix="write classes: [{code: 1, name: water, colour: '#0064c8'}]")
    return Legend.from_dict(raw, where=where)


def histogram(index: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Pixels of each index (256,); pairs of pixels are counted, which takes a third of the time."""
    flat = index.ravel()
    if flat.size < 1 << 14:  # less than it costs to go through the table of pairs
        return np.bincount(flat, minlength=256)
    pairs = np.zeros(1 << 16, np.int64)
    for start in range(0, flat.size // 2, 1 << 19):
        part = flat[2 * start : min(2 * start + (1 << 20), flat.size // 2 * 2)]
        pairs += np.bincount(part.view(np.uint16), minlength=1 << 16)
    table = pairs.reshape(256, 256)
    return np.asarray(table.sum(0) + table.sum(1) + np.bincount(flat[flat.size // 2 * 2 :], minlength=256))
