"""STAC: items of an API or of a static catalogue, and the files of their bands.

    search -> items -> StacImage (files by band, date, place, cloud classification)

Needs the extra `stac` for an API; a static catalogue on disk is read with pystac alone. STAC 1.0 and 1.1 with the
extensions eo, raster, grid and proj.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from covermap.core.config import parse_date
from covermap.core.errors import BandError, DataError, MissingExtra
from covermap.core.sensors import Sensor, common_name, find_sensor

REMOTE = ("http://", "https://", "s3://")
_SENSORS = {"sentinel-2": "sentinel2", "landsat-4": "landsat5", "landsat-5": "landsat5", "landsat-7": "landsat7",
            "landsat-8": "landsat8", "landsat-9": "landsat8"}  # fmt: skip
_CLOUDS = {"scl": "scl", "qa_pixel": "qa_pixel", "fmask": "fmask"}


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
    """One item: files of its bands by common name. clouds: file and specification. scale, offset: to reflectance."""

    name: str
    date: str
    tile: str
    sensor: str
    files: Mapping[str, str]
    clouds: tuple[str, str] | None
    scale: float | None
    offset: float | None


def search(catalogue: str, query: Query) -> tuple[list[Any], list[str]]:
    """Items that match, by date and id, and notes on those left out; catalogue: URL of an API, or catalog.json.

    Raises MissingExtra, DataError (nothing there, nothing found, or more than the limit).
    """
    try:
        found = list(_matching(_items(catalogue, query), query))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError | MissingExtra):
            raise
        raise DataError(f"{catalogue} is no STAC catalogue that can be read: {error}", fix="check the URL") from error
    if not found:
        raise DataError(f"{catalogue} has no item for {_describe(query)}", fix="widen the place, period or clouds")
    if len(found) > query.limit:
        raise DataError(
            f"{catalogue} has more than {query.limit} items for {_describe(query)}",
            fix="narrow the search, or raise data.options.limit",
        )
    found.sort(key=lambda item: (str(item.datetime), item.id))
    if query.max_cloud is None:
        return found, []
    known = [item for item in found if item.properties.get("eo:cloud_cover") is not None]
    clear = [item for item in known if item.properties["eo:cloud_cover"] <= query.max_cloud]
    notes = [
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


def _items(catalogue: str, query: Query) -> Iterator[Any]:
    """Items of an API, asked; or all of a static catalogue."""
    try:
        import pystac
    except ImportError as error:
        raise MissingExtra("pystac", "stac", "a STAC catalogue") from error
    try:
        found = _asked(catalogue, query) if catalogue.startswith(REMOTE) else pystac.Catalog.from_file(catalogue)
        yield from found if isinstance(found, Iterator) else found.get_items(recursive=True)
    except (pystac.STACError, pystac.STACTypeError, AttributeError) as error:
        raise DataError(f"{catalogue} is no STAC catalogue that can be read: {error}", fix="check it") from error


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
    """An item's bands by name; root: the folder that files of a catalogue on disk must lie in.

    Raises BandError where no asset is a band of the sensor, DataError for files elsewhere.
    """
    known = find_sensor(sensor) if sensor else _sensor_of(item)
    files: dict[str, tuple[str, Any]] = {}
    # `blue` comes before `blue-jp2`, which is the same in another format.
    for key, asset in sorted(item.assets.items(), key=lambda entry: (len(entry[0]), entry[0])):
        name = _band_of(key, asset, known)
        if name and name not in files:
            files[name] = (_place(item, asset, root), asset)
    if not files:
        raise BandError(
            f"the item {item.id} has no band of {known.name} among its assets {', '.join(item.assets)}",
            fix="name the sensor: data.options.sensor",
        )
    masks = [(key, _CLOUDS[key.lower()]) for key in item.assets if key.lower() in _CLOUDS]
    clouds = (_place(item, item.assets[masks[0][0]], root), masks[0][1]) if masks else None
    ordered = {band: files[band][0] for band in known.band_names if band in files}
    scale, offset = _scaling(item.id, known, [asset for _, asset in files.values()])
    return StacImage(item.id, _moment(item).date().isoformat(), _tile(item), known.name, ordered, clouds, scale, offset)


def _sensor_of(item: Any) -> Sensor:
    stated = [str(item.properties.get(key, "")).lower() for key in ("constellation", "platform")]
    for text in stated:
        for start, name in _SENSORS.items():
            if text.startswith(start):
                return find_sensor(name)
    raise BandError(f"the item {item.id} is of {stated[1] or 'no platform'}", fix="name data.options.sensor")


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
        if name in sensor.band_names:
            return name
    return None


def _place(item: Any, asset: Any, root: Path | None) -> str:
    """Where an asset lies; raises DataError for what is neither remote nor in the catalogue's folder."""
    href = asset.get_absolute_href() or asset.href
    if href.startswith(REMOTE):
        return str(href)
    path = Path(href.removeprefix("file://"))
    if root is None or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"the item {item.id} names {href}, which lies outside of the catalogue", fix="leave it out")
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
