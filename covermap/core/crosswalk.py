"""Crosswalks: which class of one legend is which class of another, as data that is shipped or the user's own.

A class goes to one class of the other legend, or to none: what has no counterpart is stated, never guessed. Several
classes may go to one, so most crosswalks lead from the finer legend to the coarser. From them follow

- longer ones: corine -> esa_worldcover -> esri_io;
- the way back, where a class that stands for several has no counterpart;
- the way up to a third legend and down from there. As classes that meet above need not overlap (marsh and lake are both
  wetlands), only to a class that is all of the one above (`whole`), or where no other of either legend goes there;
- the legend in which two maps can be compared without loss of either (`meet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import LabelError, suggest
from covermap.core.legend import IGNORE, Legend, load_legend
from covermap.core.parsing import parse_yaml, read_yaml

_KEYS = {"from", "to", "source", "classes", "notes", "whole"}
_SHORTEST = "from: my_legend.yaml, to: ipcc, classes: {Pine: Forest land, Lake: Wetlands, Shadow: null}"


@dataclass(frozen=True)
class Crosswalk:
    """`codes[i]` is the code of `target` that class i of `source` becomes; None where it has no counterpart.

    basis: whose definitions it rests on. notes: by code of `source`. route: names of the legends that it passes. whole:
    codes of `source` that are all of the class which they become, as every forest there is; others may be a part of it.
    """

    source: Legend
    target: Legend
    codes: tuple[int | None, ...]
    basis: str = ""
    notes: Mapping[int, str] = field(default_factory=dict)
    route: tuple[str, ...] = ()
    whole: frozenset[int] = frozenset()

    @staticmethod
    def identity(legend: Legend) -> Crosswalk:
        """Each class to itself."""
        return Crosswalk(legend, legend, legend.codes, route=(legend.name,), whole=frozenset(legend.codes))

    @property
    def table(self) -> npt.NDArray[np.uint8]:
        """(256,): class index of `source` -> class index of `target`; IGNORE for none, and for IGNORE."""
        found = np.full(256, IGNORE, np.uint8)
        for index, code in enumerate(self.codes):
            if code is not None:
                found[index] = self.target.codes.index(code)
        return found

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """(K1, K): 1 where a class of `source` goes to a class of `target`."""
        table = self.table[: len(self.source)]
        return np.asarray(table[:, None] == np.arange(len(self.target)), np.float64)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each class of `source`: code, name, to_code, to_name (None where there is none), note."""
        names = dict(zip(self.target.codes, self.target.names, strict=True))
        return [
            {"code": c.code, "name": c.name, "to_code": code, "to_name": None if code is None else names[code],
             "note": self.notes.get(c.code, "")}
            for c, code in zip(self.source.classes, self.codes, strict=True)
        ]  # fmt: skip

    def then(self, other: Crosswalk) -> Crosswalk:
        """This one, then one that begins where it ends."""
        onward = dict(zip(other.source.codes, other.codes, strict=True))
        codes = tuple(None if code is None else onward.get(code) for code in self.codes)
        notes = dict(self.notes)
        for code, via in zip(self.source.codes, self.codes, strict=True):
            if via is not None and via in other.notes:
                notes[code] = f"{notes[code]}; {other.notes[via]}" if code in notes else other.notes[via]
        basis = " ".join(dict.fromkeys(filter(None, (self.basis, other.basis))))
        pairs = zip(self.source.codes, self.codes, strict=True)
        whole = frozenset(code for code, via in pairs if code in self.whole and via in other.whole)
        return Crosswalk(self.source, other.target, codes, basis, notes, (*self.route, *other.route[1:]), whole)

    def back(self) -> Crosswalk:
        """The way back: a class that several come from has no counterpart, and a note that names them."""
        codes: list[int | None] = []
        notes: dict[int, str] = {}
        for c in self.target.classes:
            come = [one for one, code in zip(self.source.classes, self.codes, strict=True) if code == c.code]
            codes.append(come[0].code if len(come) == 1 else None)
            if len(come) > 1:
                notes[c.code] = "any of: " + "; ".join(one.name for one in come)
            elif come and (note := self.notes.get(come[0].code)):
                notes[c.code] = f"{come[0].name}: {note}"
        hidden = "; ".join(c.name for c, code in zip(self.source.classes, self.codes, strict=True) if code is None)
        basis = f"{self.basis} Read backwards.".strip() + (f" It knows no place for: {hidden}." if hidden else "")
        return Crosswalk(self.target, self.source, tuple(codes), basis, notes, self.route[::-1])

    def down(self, other: Crosswalk) -> Crosswalk:
        """This one up to a third legend, then `other`, which leads there from the wanted one, backwards.

        A class has a counterpart where one class alone of the wanted legend goes to the same one above, and either is
        the whole of that or no other class of `source` goes there. Of all others a note names the candidates.
        """
        above = dict(zip(self.target.codes, self.target.names, strict=True))
        straight = self.then(other.back())
        codes: list[int | None] = []
        notes = dict(straight.notes)
        for c, via, code in zip(self.source.classes, self.codes, straight.codes, strict=True):
            beside = [one.name for one, up in zip(self.source.classes, self.codes, strict=True) if up == via]
            below = [one.name for one, up in zip(other.source.classes, other.codes, strict=True) if up == via]
            certain = code in other.whole or len(beside) == 1
            codes.append(code if certain else None)
            if via is not None and below and not certain:
                company = [name for name in beside if name != c.name]
                names = company[0] if len(company) == 1 else f"{len(company)} other classes"
                doubt = f"any of, or none of: {'; '.join(below)} ({above[via]} is also {names})"
                notes[c.code] = f"{self.notes[c.code]}; {doubt}" if c.code in self.notes else doubt
        return replace(straight, codes=tuple(codes), notes=notes)

    def of(self, legend: Legend) -> Crosswalk:
        """The same for a map's own legend, which may lack classes of `source`; raises LabelError where it differs."""
        known = {c.code: (c.name.lower(), to) for c, to in zip(self.source.classes, self.codes, strict=True)}
        odd = [c for c in legend.classes if known.get(c.code, ("", None))[0] != c.name.lower()]
        if odd:
            raise LabelError(
                f"legend {legend.name!r} is not the one that the crosswalk is for ({self.source.name}): its class "
                f"{odd[0].code} {odd[0].name!r} is " + repr(known.get(odd[0].code, ("not there",))[0]),
                fix="state the map's legend, or give a crosswalk of its own",
            )
        return replace(self, source=legend, codes=tuple(known[code][1] for code in legend.codes))


def shipped_crosswalks() -> list[Crosswalk]:
    """The crosswalks that come with covermap, by file name."""
    files = sorted(
        (p for p in resources.files("covermap.crosswalks").iterdir() if p.name.endswith(".yaml")), key=lambda p: p.name
    )
    return [_parse(parse_yaml(p.read_text(encoding="utf-8")), p.name, Path()) for p in files]


def read_crosswalk(path: str | Path) -> Crosswalk:
    """A crosswalk of a YAML file: from, to (legends), classes ({class: class or null}), source, notes, whole (a list).

    Legends are shipped names, files beside it or mappings; classes are named or given by code, and each class of `from`
    must stand there. Raises LabelError.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError(f"there is no crosswalk file {path}", fix="check the path")
    return _parse(read_yaml(path, fix=f"write {_SHORTEST}", error=LabelError), str(path), path.parent)


def _parse(raw: Any, where: str, folder: Path) -> Crosswalk:
    if not isinstance(raw, Mapping) or not {"from", "to", "classes"} <= set(raw) or set(raw) - _KEYS:
        raise LabelError(f"{where} holds no crosswalk (keys {', '.join(sorted(_KEYS))})", fix=f"write {_SHORTEST}")
    mappings = (raw["classes"], raw.get("notes", {}))
    if not all(isinstance(each, Mapping) for each in mappings) or not isinstance(raw.get("whole", []), list):
        raise LabelError(f"{where}: classes and notes are mappings, whole is a list", fix=f"write {_SHORTEST}")
    source, target = (_legend(raw[side], folder, where) for side in ("from", "to"))
    given = {_code(key, source, where): value for key, value in raw["classes"].items()}
    if len(given) < len(raw["classes"]):
        raise LabelError(f"{where}: a class stands twice, by code and by name", fix="name each class once")
    if lacking := [c.name for c in source.classes if c.code not in given]:
        raise LabelError(
            f"{where} does not say what becomes of {', '.join(map(repr, lacking))}",
            fix="name a class for each, or null where it has no counterpart",
        )
    codes = tuple(None if given[code] is None else _code(given[code], target, where) for code in source.codes)
    notes = {_code(key, source, where): str(text) for key, text in raw.get("notes", {}).items()}
    whole = frozenset(_code(key, source, where) for key in raw.get("whole", []))
    for code in whole:
        to = codes[source.codes.index(code)]
        if to is None or codes.count(to) > 1:
            raise LabelError(
                f"{where}: class {code} cannot be the whole of what "
                + ("it has no counterpart for" if to is None else "other classes go to as well"),
                fix="under whole, list only classes that are all of the class they become",
            )
    return Crosswalk(source, target, codes, str(raw.get("source", "")), notes, (source.name, target.name), whole)


def _legend(spec: Any, folder: Path, where: str) -> Legend:
    if isinstance(spec, str) and spec.endswith((".yaml", ".yml")):
        return load_legend(folder / spec)
    if not isinstance(spec, str | Mapping):
        raise LabelError(f"{where}: from and to are legends, not {spec!r}", fix=f"write {_SHORTEST}")
    return load_legend(spec)


def _code(key: Any, legend: Legend, where: str) -> int:
    """The code of a class that is given by code or by name."""
    if isinstance(key, int) and not isinstance(key, bool) and key in legend.codes:
        return key
    names = {c.name.lower(): c.code for c in legend.classes}
    if (found := names.get(str(key).strip().lower())) is None:
        raise LabelError(f"{where}: legend {legend.name} has no class {key!r}", fix=suggest(str(key), legend.names))
    return found


def find_crosswalk(source: Legend, target: Legend, own: Sequence[Crosswalk] = ()) -> Crosswalk:
    """The way from one legend to another: forward, else back, else up to a third legend and down from there.

    own: crosswalks that go before the shipped ones. Raises LabelError where nothing leads there.
    """
    if _within(source, target):
        return Crosswalk.identity(target).of(source)
    ways, others = _reach(source, own), _reach(target, own)
    if target.name in ways:
        return ways[target.name].of(source)
    if source.name in others:
        return others[source.name].back().of(source)
    third = [ways[name].down(others[name]) for name in ways if name in others]
    if not third:
        raise _no_way(source, target.name)
    return max(third, key=lambda way: sum(code is not None for code in way.codes)).of(source)


def meet(
    first: Legend, second: Legend, *, own: Sequence[Crosswalk] = (), target: str | None = None
) -> tuple[Crosswalk, Crosswalk]:
    """The ways, forward only, of two legends to one in which they can be compared, the same for both.

    That is one of the two where a way leads to it, else the one that both reach in the fewest steps, of such the one of
    most classes; or `target`, a name. Raises LabelError where there is none.
    """
    if target is None:
        for one, other in ((first, second), (second, first)):
            if _within(one, other):
                whole = Crosswalk.identity(other)
                return whole.of(first), whole.of(second)
    ways, others = _reach(first, own), _reach(second, own)
    if target is not None:
        if lacking := [legend for legend, way in ((first, ways), (second, others)) if target not in way]:
            raise _no_way(lacking[0], target)
        best = target
    else:
        common = [name for name in ways if name in others]
        if not common:
            raise _no_way(first, second.name, also=second)
        best = min(common, key=lambda name: _costs(name, ways, others))
    ends = sorted((ways[best].target, others[best].target), key=len)
    if not _within(*ends):
        raise LabelError(f"two legends are called {best!r}, of different classes", fix="give one another name")
    here, there = ways[best].of(first), others[best].of(second)
    return replace(here, target=ends[1]), replace(there, target=ends[1])


def _costs(name: str, ways: Mapping[str, Crosswalk], others: Mapping[str, Crosswalk]) -> tuple[bool, int, int]:
    """How little a legend is wanted as the one to compare in."""
    steps = len(ways[name].route), len(others[name].route)
    return min(steps) > 1, sum(steps), -len(ways[name].target)


def _within(first: Legend, second: Legend) -> bool:
    """Whether every class of the first, by code and name, is in the second."""
    one, two = ({*_classes(legend)} for legend in (first, second))
    return one == two or (first.name == second.name and one <= two)


def _reach(legend: Legend, own: Sequence[Crosswalk]) -> dict[str, Crosswalk]:
    """The shortest way forward to every legend that can be reached, the legend itself included.

    A crosswalk of the user's own is also for a legend of another name, if it has the classes.
    """
    found = {legend.name: Crosswalk.identity(legend)}
    mine = [step for step in own if {*_classes(legend)} <= {*_classes(step.source)}]
    for step in mine:
        found.setdefault(step.target.name, step)
    todo = list(found)
    for name in todo:
        for step in (*own, *shipped_crosswalks()):
            if step.source.name == name and step.target.name not in found:
                found[step.target.name] = step if name == legend.name else found[name].then(step)
                todo.append(step.target.name)
    return found


def _classes(legend: Legend) -> list[tuple[int, str]]:
    return [(c.code, c.name.lower()) for c in legend.classes]


def _no_way(source: Legend, target: str, *, also: Legend | None = None) -> LabelError:
    known = sorted({name for step in shipped_crosswalks() for name in step.route})
    asked = f"legend {source.name!r} has no crosswalk to {target!r}"
    both = f", and legend {also.name!r} none to a third that both reach" if also else ""
    return LabelError(
        asked + both + f"; those with a crosswalk are {', '.join(known)}",
        fix=f"write one and give it with --crosswalk FILE.yaml: {_SHORTEST}; or state the legend that the codes are of",
    )
