"""What a layer is of: the date of a raster, and the maps or images that it was made from, by what lies beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from covermap.core.parsing import parse_json

_TAGS = ("COVERMAP_DATE", "ACQUISITION_DATE", "DATE_ACQUIRED", "PRODUCT_START_TIME", "datetime", "start_datetime")
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")
_MOST_BYTES = 8 << 20


class Layer(Protocol):
    """A raster that is shown, as far as it matters here."""

    path: Path
    kind: Any
    id: str
    of: str | list[str] | None
    date: str | None


def date_of(path: Path, tags: Mapping[str, str]) -> str | None:
    """By its tags, the STAC item beside it, or a day in its name; None where nothing says it."""
    said = [tags[key] for key in _TAGS if tags.get(key)]
    facts = _item(path).get("properties")
    if isinstance(facts, dict):
        said += [each for key in ("datetime", "start_datetime") if isinstance(each := facts.get(key), str)]
    for text in said:
        if "/" in text or len(text) < 10:  # a period, or a year or month
            return text
        if found := _DAY.search(text[:10]):
            return "-".join(found.groups())
    named = {"-".join(found) for found in _DAY.findall(path.stem)}
    return named.pop() if len(named) == 1 else None


def link(rasters: Sequence[Layer]) -> None:
    """Give changes the maps before and after, images the map that was made of them, and layers of a map its date."""
    maps = [one for one in rasters if one.kind == "classes"]
    for one in rasters:
        if one.kind == "change":
            sides = [_shown(Path(name), one.path, maps) for name in _sides(one.path)]
            one.of = [each.id for each in sides if each] if len(sides) == 2 and all(sides) else None
    for one in maps:
        for name in _made_of(one.path):
            image = _shown(Path(name), one.path, [each for each in rasters if each.kind == "image"])
            if image and image.of is None:
                image.of, image.date = one.id, image.date or one.date
    by_id = {one.id: one for one in rasters}
    for one in rasters:
        if one.kind in ("number", "probabilities") and isinstance(one.of, str):
            one.date = one.date or by_id[one.of].date


def _shown(named: Path, by: Path, layers: Sequence[Layer]) -> Layer | None:
    """The layer of a file that another names: at its place, else beside it, else the only one of that name."""
    for place in (named, by.parent / named, by.parent / named.name):
        if found := next((one for one in layers if one.path.absolute() == place.absolute()), None):
            return found
    same = [one for one in layers if one.path.name == named.name]
    return same[0] if len(same) == 1 else None


def _sides(path: Path) -> list[str]:
    """The maps before and after, of a change map."""
    for name in (f"{path.stem}.change.json", "change.json"):
        told = _read(path.with_name(name))
        if Path(str(told.get("map"))).name != path.name:
            continue
        sides = [told.get(key) for key in ("before", "after")]
        return [str(one["path"]) for one in sides if isinstance(one, dict) and "path" in one]
    return []


def _made_of(path: Path) -> list[str]:
    links = _item(path).get("links")
    each = [one for one in links if isinstance(one, dict)] if isinstance(links, list) else []
    return [str(one.get("href")) for one in each if one.get("rel") == "derived_from"]


def _item(path: Path) -> dict[str, Any]:
    """The STAC item beside a raster."""
    for suffix in (".stac.json", ".json"):
        told = _read(path.with_suffix(suffix))
        if "stac_version" in told:
            return told
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        told = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
