"""The maps that `change` compares: opened, told apart from images, and in the order of their dates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from covermap.core.config import parse_date, split_date
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.data.class_map import ClassMap, open_class_map
from covermap.geo.change_product import FROM_TO
from covermap.geo.raster import open_dataset


def require_dates(given: Sequence[str], what: str = "maps") -> list[tuple[str, str | None]]:
    """Paths and stated dates of PATH@DATE; raises ConfigError where they are too few, the same or in disorder."""
    if len(given) < 2:
        raise ConfigError(
            f"change is between two {what} or more, {len(given)} is given",
            fix="covermap change BEFORE.tif AFTER.tif OUT.tif",
        )
    stated = [split_date(str(each)) for each in given]
    places = [Path(path).resolve() for path, _ in stated]
    if double := next((path for (path, _), place in zip(stated, places, strict=True) if places.count(place) > 1), None):
        raise ConfigError(f"{double} is given twice", fix=f"name the {what.removesuffix('s')} of another date")
    require_order([path for path, _ in stated], [date for _, date in stated], what)
    return stated


def open_maps(maps: Sequence[str | Path], legends: Sequence[str]) -> tuple[list[ClassMap], list[str | None]]:
    """The maps with their dates; raises where they are too few, the same, images, or in the wrong order."""
    stated = require_dates([str(each) for each in maps])
    paths = [path for path, _ in stated]
    if len(legends) not in (0, 1, len(maps)):
        raise ConfigError(f"{len(legends)} legends for {len(maps)} maps", fix="give one for all, or one for each")
    named: list[str | None] = [*legends] * (len(maps) if len(legends) == 1 else 1) or [None] * len(maps)
    opened = [_open_one(path, legend) for path, legend in zip(paths, named, strict=True)]
    unknown = [each for each, legend in zip(opened, named, strict=True) if not legend and not says(each)]
    if 0 < len(unknown) < len(opened):
        raise LabelError(
            f"{unknown[0].name} does not say what its codes mean, other maps do",
            fix="state the legend: --legend NAME (or a file), once for all maps or once for each",
        )
    dates = [date or each.date for (_, date), each in zip(stated, opened, strict=True)]
    require_order(paths, dates)
    return opened, dates


def says(one: ClassMap) -> bool:
    """Whether a map tells its legend itself."""
    return "COVERMAP_LEGEND" in one.tags


def _open_one(path: str, legend: str | None) -> ClassMap:
    """A map, by its numbers where nothing says what they mean; raises DataError for an image or a change map."""
    model = "map images by a model: covermap change BEFORE AFTER OUT.tif --model MODEL; or without labels: "
    model += "covermap event BEFORE AFTER OUT.tif --kind change"
    if Path(path).is_file():
        dataset = open_dataset(path)
        if dataset.count > 2:
            raise DataError(f"{path} has {dataset.count} bands: it is an image, not a map of classes", fix=model)
        if FROM_TO in dataset.tags():
            raise DataError(f"{path} is a change map already", fix="give the maps that it was made of")
    try:
        return open_class_map(path, legend=legend, infer=True)
    except LabelError as error:
        if "different values" in error.message or "no class codes" in error.message:
            raise DataError(f"{error.message}: if it is an image, it is not a map of classes", fix=model) from error
        raise


def require_order(paths: Sequence[str], dates: Sequence[str | None], what: str = "maps") -> None:
    """Raise ConfigError where the dates that are known do not rise."""
    known = [(path, date, parse_date(date)) for path, date in zip(paths, dates, strict=True) if date]
    for (path, date, span), (other, later, then) in pairwise(known):
        if span == then:
            raise ConfigError(
                f"{path} and {other} are both of {date}",
                fix=f"give {what} of two dates, or state the right ones: A.tif@2018 B.tif@2022"
                + ("; two maps of one date are compared by: covermap compare" if what == "maps" else ""),
            )
        if span > then:
            raise ConfigError(
                f"{path} is of {date}, after {other} of {later}", fix=f"give the {what} in the order of their dates"
            )
