"""What is asked of a change map, in words of its legend: classes merged, transitions asked for, and impossible ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.crosswalk import Crosswalk
from covermap.core.errors import ConfigError, LabelError
from covermap.core.legend import Legend
from covermap.core.parsing import parse_csv, parse_yaml
from covermap.geo.change_product import UNASKED
from covermap.geo.patches import MappingUnit, require_connectivity
from covermap.geo.registration import halo

Chosen = npt.NDArray[np.bool_]
"""Transitions (K, K): rows before, columns after."""
_ANY = "*"
_NAMED = 4
"""Classes that the name of an answer lists."""


@dataclass(frozen=True)
class ChangeRules:
    """merge: `built=low building,high building`, before the maps are compared. Classes are named, or given by code.

    origins, goals: only transitions from and to these classes are in the map; empty: all. impossible: `water>built`
    (`*` for any class), or files (CSV with from and to, YAML with a list). min_area: least area of a patch of one
    transition. binary: the map has the codes 1 unchanged and 2 changed, or with
    origins or goals 1 "not to built" and 2 "to built". tolerance: change that a shift by so many px
    explains is none. confidence: change of a lower probability is none. Raises ConfigError.
    """

    merge: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    min_area: str | None = None
    connectivity: int = 4
    binary: bool = False
    tolerance: int | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        halo(1 if self.tolerance is None else self.tolerance)
        MappingUnit.parse(self.min_area or "1px")
        require_connectivity(self.connectivity)
        if self.confidence is not None and not 0 < self.confidence <= 1:
            raise ConfigError(
                f"a confidence of {self.confidence:g} is no probability",
                fix="give one above 0 and up to 1, such as 0.8",
            )

    def merged(self, legend: Legend) -> Crosswalk:
        """The way from a legend to that of the classes after merging; raises ConfigError, LabelError."""
        if not self.merge:
            return Crosswalk.identity(legend)
        merges: dict[str, list[str]] = {}
        for text in self.merge:
            new, equals, olds = text.partition("=")
            if not (equals and new.strip() and olds.strip()):
                raise ConfigError(
                    f"--merge {text!r} is not of the form NEW=CLASS,CLASS", fix="write built=low building,high building"
                )
            merges.setdefault(new.strip(), []).extend(legend.names[i] for i in find_classes(legend, [olds]))
        taken = [name for olds in merges.values() for name in olds]
        if double := sorted({name for name in taken if taken.count(name) > 1}):
            raise ConfigError(f"--merge takes {double[0]!r} twice", fix="name each class once")
        coarse = legend.merge(merges)
        codes = tuple(coarse.merged.get(code, code) for code in legend.codes)
        return Crosswalk(legend, coarse, codes, route=(legend.name, coarse.name))

    def asked(self, legend: Legend) -> Chosen | None:
        """The transitions that are asked for; None: all."""
        if not self.origins and not self.goals:
            return None
        sides = [find_classes(legend, given) if given else range(len(legend)) for given in (self.origins, self.goals)]
        found = np.zeros((len(legend), len(legend)), bool)
        found[np.ix_(*(list(side) for side in sides))] = True
        return found & ~np.eye(len(legend), dtype=bool)

    def answers(self, legend: Legend) -> tuple[str, str]:
        """What the map calls the ground that is not what is asked for, and in a binary map that which is."""
        sides = (("from", self.origins), ("to", self.goals))
        words = [f"{side} {_few([legend.names[i] for i in find_classes(legend, of)])}" for side, of in sides if of]
        asked = " ".join(words)
        return (f"not {asked}", asked) if asked else UNASKED

    def forbidden(self, legend: Legend) -> Chosen:
        """The transitions that cannot be; raises ConfigError, LabelError."""
        found = np.zeros((len(legend), len(legend)), bool)
        for text in _listed(self.impossible):
            before, arrow, after = text.partition(">")
            if not (arrow and before.strip() and after.strip()):
                raise ConfigError(f"--impossible {text!r} is not of the form BEFORE>AFTER", fix="write 'water>built'")
            sides = [
                range(len(legend)) if side.strip() == _ANY else find_classes(legend, [side]) for side in (before, after)
            ]
            found[np.ix_(*(list(side) for side in sides))] = True
        return found & ~np.eye(len(legend), dtype=bool)

    def to_dict(self) -> dict[str, Any]:
        """Those that are set."""
        left_alone = asdict(ChangeRules())
        return {key: value for key, value in asdict(self).items() if value != left_alone[key]}


def find_classes(legend: Legend, given: Sequence[str]) -> list[int]:
    """Indices of classes by name or code, several with commas; raises LabelError with a suggestion.

    A name that holds a comma is known as a whole.
    """
    found: list[int] = []
    for text in given:
        parts = [text.strip()] if _index(legend, text) is not None else [part.strip() for part in text.split(",")]
        for part in filter(None, parts):
            index = _index(legend, part)
            found.append(legend.index_of(part) if index is None else index)
    if not found:
        raise LabelError(f"{', '.join(given)!r} names no class", fix=f"classes: {', '.join(legend.names)}")
    return list(dict.fromkeys(found))


def _few(names: Sequence[str]) -> str:
    """Names as one; of many the first, and how many others."""
    shown = names if len(names) <= _NAMED else names[: _NAMED - 1]
    more = f" and {len(names) - len(shown)} others" if len(shown) < len(names) else ""
    return ", ".join(shown) + more


def _index(legend: Legend, text: str) -> int | None:
    text = text.strip()
    codes = [str(code) for code in legend.codes]
    if (code := text.lstrip("0") or "0") in codes:
        return codes.index(code)
    return legend.index_by_name.get(text.lower())


def _listed(given: Sequence[str]) -> list[str]:
    """Transitions as texts, those of files among them."""
    found: list[str] = []
    for text in given:
        suffix = Path(text).suffix.lower()
        if ">" in text or suffix not in (".csv", ".yaml", ".yml"):
            found.append(text)
            continue
        try:
            lines = Path(text).read_text(encoding="utf-8-sig")
            if suffix == ".csv":
                found += [f"{row['from']}>{row['to']}" for row in parse_csv(lines, ("from", "to"))]
            else:
                found += [str(each) for each in parse_yaml(lines)]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{text} holds no list of impossible transitions: {error}",
                fix="write a CSV with columns from and to, or YAML: ['water>built', 'built>*']",
            ) from error
    return found
