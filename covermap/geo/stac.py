"""STAC: items of an API, of a static catalogue or of files of items, and the files of their bands.

    search -> items -> StacImage (files by band, date, place, cloud classification)

Needs the extra `stac` for an API; what lies on disk is read with pystac alone. STAC 1.0 and 1.1 with the extensions
eo, raster, grid and proj.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from covermap.core.config import expand, parse_date
from covermap.core.errors import BandError, CovermapError, DataError, MissingExtra
from covermap.core.parsing import as_written, parse_json
from covermap.core.sensors import Sensor, common_name, find_sensor
from covermap.geo.clouds import specification_in

REMOTE = ("http://", "https://", "s3://")
CATALOGUES = ("catalog.json", "collection.json")
LISTS = (".json", ".geojson")
"""How files of STAC items end."""
_SENSORS = {"sentinel-2": "sentinel2", "landsat-4": "landsat5", "landsat-5": "landsat5", "landsat-7": "landsat7",
            "landsat-8": "landsat8", "landsat-9": "landsat8"}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """What is searched for: collections by id, where (WGS 84), when (first/last), cloud cover in percent at most."""

    collections: tuple[str, ...] = ()
    place: BaseGeometry | None = None
    period: str | None = None
    max_cloud: float | None = None
    limit: int = 200


@dataclass(frozen=True)
class StacImage:
    """One item: files of its bands by common name. clouds: file and specification. scale, offset: to reflectance.

    assets: the names of all that it holds.
    """

    name: str
    date: str
    tile: str
    sensor: str
    files: Mapping[str, str]
    clouds: tuple[str, str] | None
    scale: float | None
    offset: float | None
    assets: tuple[str, ...] = ()


def item_files(path: str) -> list[Path]:
    """The files of a list of items on disk: a catalogue, a file of items, or all of a folder or pattern, sorted.

    Raises ConfigError, DataError where there is none.
    """
    place = Path(path)
    if "*" not in path and not place.exists():
        raise DataError(f"there is no file {path}", fix="check the path")
    if not place.is_dir():
        return [Path(file) for file in expand(path)]
    if top := [place / name for name in CATALOGUES if (place / name).is_file()]:
        return top[:1]
    found = sorted(file for file in place.iterdir() if file.suffix.lower() in LISTS and file.name[0] != ".")
    if not found:
        raise DataError(f"{path} has no {CATALOGUES[0]} and no STAC items", fix="give the folder they are in")
    return found


def home_of(path: str) -> Path:
    """The folder that files of a list of items on disk must lie in: that of the list, of a pattern its fixed part."""
    place = Path(path)
    while "*" in str(place) or not place.is_dir():
        place = place.parent
    return place


def search(catalogue: str, query: Query) -> tuple[list[Any], list[str]]:
    """Items that match, by date and id, and notes on those left out; catalogue: URL of an API, or see `item_files`.

    Raises MissingExtra, DataError (nothing there, nothing found, or more than the limit).
    """
    notes: list[str] = []
    try:
        found = list(_matching(_items(catalogue, query, notes), query))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CovermapError):
            raise
        raise DataError(f"{catalogue} is no STAC catalogue that can be read: {error}", fix="check the URL") from error
    if not found and (query.collections or query.period or query.place is not None):
        raise DataError(f"{catalogue} has no item for {_describe(query)}", fix="widen the place, period or clouds")
    if not found:
        raise DataError(f"{catalogue} holds no item", fix="search again, and save what is found")
    if len(found) > query.limit:
        raise DataError(
            f"{catalogue} has more than {query.limit} items for {_describe(query)}",
            fix="narrow the search, or raise data.options.limit",
        )
    found.sort(key=lambda item: (str(item.datetime), item.id))
    if query.max_cloud is None:
        return found, notes
    known = [item for item in found if item.properties.get("eo:cloud_cover") is not None]
    clear = [item for item in known if item.properties["eo:cloud_cover"] <= query.max_cloud]
    notes += [
        f"{count} of {len(found)} items {what}: left out"
        for count, what in (
            (len(found) - len(known), "do not say their cloud cover"),
            (len(known) - len(clear), f"have more than {query.max_cloud:g} % clouds"),
        )
        if count
    ]
    if not clear:
        raise DataError(f"{catalogue}: {'; '.join(notes)}; none is left", fix="raise data.options.max_cloud")
    return clear, notes


def _describe(query: Query) -> str:
    where = query.place.wkt[:60] if query.place is not None else "any place"
    return f"{', '.join(query.collections) or 'any collection'}, {query.period or 'any date'}, {where}"


def _items(catalogue: str, query: Query, notes: list[str]) -> Iterator[Any]:
    """Items of an API, asked; or all that are listed on disk."""
    try:
        import pystac
    except ImportError as error:
        raise MissingExtra("pystac", "stac", "a STAC catalogue") from error
    wrong = (pystac.STACError, pystac.STACTypeError, AttributeError)
    try:
        if catalogue.startswith(REMOTE):
            yield from _asked(catalogue, query)
            return
    except wrong as error:
        raise DataError(f"{catalogue} is no STAC catalogue that can be read: {error}", fix="check it") from error
    for file in item_files(catalogue):
        try:
            yield from _read_items(file, notes)
        except (*wrong, OSError, ValueError, KeyError, TypeError) as error:
            what = "is no STAC catalogue that can be read, no item and no collection of items"
            raise DataError(f"{file} {what}: {error}", fix="check it, or leave it out") from error


def _read_items(file: Path, notes: list[str]) -> list[Any]:
    """The items of a file: one, a collection of them as a search saves it, or all of a catalogue."""
    import pystac

    content = parse_json(file.read_text(encoding="utf-8"))
    if content.get("type") != "FeatureCollection":
        found: Any = pystac.read_file(str(file))
        return [found] if isinstance(found, pystac.Item) else list(found.get_items(recursive=True))
    items = pystac.ItemCollection.from_dict(content).items
    for item in items:
        if item.get_self_href() is None:  # what is relative counts from the list
            item.set_self_href(str(file.absolute()))
    if any(link.get("rel") == "next" for link in content.get("links", ())):
        notes.append(f"{file.name} is one page of a search: further items are not in it")
    return list(items)


def _asked(catalogue: str, query: Query) -> Iterator[Any]:
    """What an API answers, or every item of a catalogue on the web that cannot be searched."""
    try:
        from pystac_client import Client
        from pystac_client.exceptions import APIError
    except ImportError as error:
        raise MissingExtra("pystac-client", "stac", "a STAC API") from error
    try:
        client = Client.open(catalogue)
        if client.get_search_link() is None:
            yield from client.get_items(recursive=True)
            return
        yield from client.search(
            collections=list(query.collections) or None,
            intersects=query.place.__geo_interface__ if query.place is not None else None,
            datetime=list(parse_date(query.period)) if query.period else None,
            max_items=query.limit + 1,
        ).items()
    except APIError as error:
        raise DataError(f"{catalogue} cannot be searched: {error}", fix="check the URL and the collections") from error


def _matching(items: Iterable[Any], query: Query) -> Iterator[Any]:
    """Those that match but for clouds: a static catalogue is not asked, an API's answer is not trusted."""
    period = parse_date(query.period) if query.period else None
    for item in items:
        if query.collections and item.collection_id not in query.collections:
            continue
        if period and not period[0] <= _moment(item) <= period[1]:
            continue
        if query.place is not None and not _outline(item).intersects(query.place):
            continue
        yield item


def _moment(item: Any) -> datetime:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise DataError(f"the item {item.id} has no date", fix="leave its collection out")
    return parse_date(moment.isoformat())[0]


def _outline(item: Any) -> BaseGeometry:
    return shape(item.geometry) if item.geometry else box(*item.bbox)


def describe_item(item: Any, *, sensor: str | None, root: Path | None) -> StacImage:
    """What `_describe_item` gives; raises DataError also for an item that is not as the standard says."""
    with as_written(f"the item {item.id}", fix="get it again, or leave it out"):
        return _describe_item(item, sensor=sensor, root=root)


def _describe_item(item: Any, *, sensor: str | None, root: Path | None) -> StacImage:
    """An item's bands by name; root: the folder that files of a catalogue on disk must lie in.

    Raises BandError where no asset is a band of the sensor, DataError for files elsewhere.
    """
    known = find_sensor(sensor) if sensor else _sensor_of(item)
    files: dict[str, tuple[str, Any]] = {}
    # `blue` comes before `blue-jp2`, which is the same in another format.
    ordered = sorted(item.assets.items(), key=lambda entry: (len(entry[0]), entry[0]))
    for key, asset in ordered:
        name = _band_of(key, asset, known)
        if name and name not in files:
            files[name] = (_place(item, asset, root), asset)
    if not files:
        raise BandError(
            f"the item {item.id} has no band of {known.name} among its assets {', '.join(item.assets)}",
            fix="name the sensor: data.options.sensor (option --sensor)",
        )
    masks = [(key, kind) for key, _ in ordered if (kind := specification_in(key))]
    clouds = (_place(item, item.assets[masks[0][0]], root), masks[0][1]) if masks else None
    scale, offset = _scaling(item.id, known, [asset for _, asset in files.values()])
    return StacImage(
        item.id, _moment(item).date().isoformat(), _tile(item), known.name,
        {band: files[band][0] for band in known.band_names if band in files}, clouds, scale, offset, tuple(item.assets),
    )  # fmt: skip


def _sensor_of(item: Any) -> Sensor:
    stated = [str(item.properties.get(key, "")).lower() for key in ("constellation", "platform")]
    for text in stated:
        for start, name in _SENSORS.items():
            if text.startswith(start):
                return find_sensor(name)
    raise BandError(
        f"the item {item.id} is of {stated[1] or 'no platform'}",
        fix="name the sensor: data.options.sensor (option --sensor)",
    )


def _band_of(key: str, asset: Any, sensor: Sensor) -> str | None:
    """The common name of the one band that an asset holds, by its key or by its band's entry; None for others."""
    roles = asset.roles or []
    if roles and not {"data", "reflectance"} & set(roles):
        return None
    entries = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    if len(entries) > 1:
        return None
    stated = [entry.get(k) for entry in entries for k in ("name", "eo:common_name", "common_name")]
    for text in (key, *stated):
        name = common_name(str(text), sensor) if text else None
        if name == "nir_narrow" and name not in sensor.band_names:
            name = "nir"  # STAC's nir08 is also the only near infrared of Landsat
        if name in sensor.band_names:
            return name
    return None


def _place(item: Any, asset: Any, root: Path | None) -> str:
    """Where an asset lies; raises DataError for what is neither remote nor in the catalogue's folder."""
    href = asset.get_absolute_href() or asset.href
    if href.startswith(REMOTE):
        return str(href)
    path = Path(href.removeprefix("file://"))
    if root is None or "\0" in href or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"the item {item.id} names {href}, which lies outside of the catalogue" + (f" ({root})" if root else ""),
            fix="give the folder or a pattern that holds both, or leave it out",
        )
    return str(path)


def _tile(item: Any) -> str:
    """The place that items of several dates share."""
    found = item.properties
    code = found.get("grid:code") or found.get("s2:mgrs_tile")
    if not code and found.get("landsat:wrs_path"):
        code = f"{found['landsat:wrs_path']}{found.get('landsat:wrs_row', '')}"
    return str(code or item.id).removeprefix("MGRS-").removeprefix("WRS2-")


def _scaling(name: str, sensor: Sensor, assets: Sequence[Any]) -> tuple[float | None, float | None]:
    """What the item says for all its bands; of Sentinel-2 the numbers decide.

    Catalogues of Sentinel-2 state an offset of -0.1 also for files that it has been taken off of already.
    """
    if sensor.name == "sentinel2":
        return None, None
    said = set()
    for asset in assets:
        entry = (asset.extra_fields.get("raster:bands") or asset.extra_fields.get("bands") or [{}])[0]
        scale = entry.get("scale", entry.get("raster:scale", asset.extra_fields.get("raster:scale")))
        offset = entry.get("offset", entry.get("raster:offset", asset.extra_fields.get("raster:offset")))
        said.add((scale, offset))
    if len(said) > 1:
        raise DataError(
            f"the bands of the item {name} have different scalings", fix="download it and use its own files"
        )
    return next(iter(said))
