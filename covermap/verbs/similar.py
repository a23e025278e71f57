"""`similar`: search by example: what has embeddings like those of some chips or places, by cosine similarity.

examples -> mean of their unit vectors, less that of counter-examples -> cosine with every row, group by group, or pixel
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from covermap.core.errors import ConfigError, DataError, OutputError, UnreadableError
from covermap.core.output import claim, require_no_input, require_tif
from covermap.core.progress import Tick, unseen
from covermap.data.embedding_pixels import read_pixels, require_vectors
from covermap.data.embeddings import centres_of, parquet, vectors_of
from covermap.geo.embedding_codes import decode, unit
from covermap.geo.grid import partition
from covermap.geo.polygon_file import TABLE_SUFFIXES, write_table
from covermap.geo.products import finish_cog, small_cache
from covermap.geo.raster import grid_of
from covermap.geo.vector import read_table
from covermap.geo.writer import RasterWriter
from covermap.verbs.embed import PIXEL_SUFFIXES

_KEPT = ("unique_id", "scene", "place", "part", "timestamp", "product_id", "source_url", "date", "grid_cell")
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Similar:
    """What was found, the likest first (chips), or the map of it (pixels)."""

    path: Path
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def similar(
    source: str | Path,
    out: str | Path,
    like: Sequence[str],
    *,
    unlike: Sequence[str] = (),
    top: int = 50,
    overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Similar:
    """Write the chips of a GeoParquet file that are likest, or a map of the similarity of a raster of embeddings.

    like, unlike: an id, or its beginning; LON,LAT; or a file of points. Several are averaged as unit vectors, and the
    mean of `unlike` is taken off. Examples themselves are not listed. Raises DataError, ConfigError, OutputError.
    """
    source, out = Path(source), Path(out)
    if not like:
        raise ConfigError("nothing says what is looked for", fix="--like ID, LON,LAT or a file of points")
    require_no_input([out], [source, *(each for each in (*like, *unlike) if Path(each).is_file())])
    wanted, against = ([_example(text) for text in texts] for texts in (like, unlike))
    if source.suffix.lower() in PIXEL_SUFFIXES:
        require_tif(out)
        return _map(source, claim(out, overwrite=overwrite), wanted, against, on_progress)
    if out.suffix.lower() not in TABLE_SUFFIXES:
        raise OutputError(f"{out} does not end in {', '.join(TABLE_SUFFIXES)}", fix="name it similar.gpkg")
    if top < 1:
        raise ConfigError(f"--top {top} lists nothing", fix="--top 1 or more")
    return _list(source, claim(out, overwrite=overwrite), wanted, against, top, on_progress)


Example = str | npt.NDArray[np.float64]
"""An id, or places (N, 2) as longitude and latitude."""


def _example(text: str) -> Example:
    if Path(text).is_file():
        table = read_table(text)
        if table.crs is None:
            raise DataError(f"{text} has no CRS", fix="give points with one, or a CSV with lon and lat")
        points = shapely.centroid(table.geometry.to_crs(4326).to_numpy())
        if not len(points):
            raise DataError(f"{text} holds no point", fix="give one with points")
        return np.asarray(shapely.get_coordinates(points))
    parts = text.split(",")
    try:
        place = np.array([[float(part) for part in parts]])
    except ValueError:
        return text
    if place.shape != (1, 2):
        return text
    if abs(place[0, 0]) > 180 or abs(place[0, 1]) > 90:
        raise ConfigError(f"{text} is no longitude and latitude", fix="write LON,LAT in degrees: 1.75,45.1")
    return place


def query(wanted: Vector, against: Vector | None) -> Vector:
    """Examples (N, d) and counter-examples -> one unit vector (d,)."""
    found = unit(wanted, 1).mean(0)
    if against is not None and len(against):
        found = found - unit(against, 1).mean(0)
    if not np.isfinite(found).all():
        raise DataError("an example has an embedding that is no number", fix="--like other")
    if not np.linalg.norm(found) > 1e-6:
        raise DataError(
            "the examples and counter-examples are the same: nothing is left to look for", fix="--like other"
        )
    return unit(found)


class _Chips:
    """A Parquet file of embeddings, read group by group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = parquet().ParquetFile(path)
        except FileNotFoundError as error:
            raise DataError(f"there is no file {path}", fix="covermap embed CONFIG.yaml OUT.parquet") from error
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{path} cannot be read as Parquet ({error})", fix="make it again") from error

    def groups(self) -> Iterator[tuple[int, Any]]:
        first = 0
        for number in range(self.file.num_row_groups):
            table = self.file.read_row_group(number)
            yield first, table
            first += table.num_rows

    def find(self, examples: Sequence[Example]) -> tuple[Vector, set[int]]:
        """Vectors (N, d) and numbers of the rows of examples; raises DataError where one is not there."""
        texts = [each for each in examples if isinstance(each, str)]
        places = [place for each in examples if not isinstance(each, str) for place in each]
        rows: dict[int, Vector] = {}
        hit: dict[object, set[str]] = {text: set() for text in texts} | {i: set() for i in range(len(places))}
        for first, table in self.groups():
            chosen: dict[int, list[object]] = {}
            ids = table.column("unique_id").to_pylist() if "unique_id" in table.column_names else []
            for text in texts:
                for i in (i for i, name in enumerate(ids) if name.startswith(text)):
                    chosen.setdefault(i, []).append(text)
                    hit[text].add(ids[i])
            for i, number in _holding(table, places):
                chosen.setdefault(i, []).append(number)
                hit[number].add(str(first + i))
            if chosen:
                vectors = vectors_of(table, str(self.path))
                rows |= {first + i: vectors[i] for i in chosen}
        for key, found in hit.items():
            told = key if isinstance(key, str) else "{:.6g},{:.6g}".format(*places[int(str(key))])
            if not found:
                raise DataError(f"{self.path} has no chip {told}", fix="give an id of it, or a place inside of a chip")
            if isinstance(key, str) and len(found) > 1:
                raise DataError(f"{len(found)} chips have an id that begins with {told}", fix="give more of it")
        return np.array(list(rows.values()), np.float32), set(rows)


def _holding(table: Any, places: Sequence[npt.NDArray[np.float64]]) -> Iterator[tuple[int, int]]:
    """Rows whose footprint holds a place, with the number of the place."""
    if not places or "geometry" not in table.column_names:
        return
    known = shapely.from_wkb(np.array(table.column("geometry").to_pylist(), object))
    row, number = shapely.STRtree(shapely.points(np.array(places))).query(known, predicate="intersects")
    yield from zip(row.tolist(), number.tolist(), strict=True)


def _list(
    source: Path, out: Path, wanted: Sequence[Example], against: Sequence[Example], top: int, on_progress: Tick
) -> Similar:  # fmt: skip
    """The likest chips as a table or polygons."""
    chips = _Chips(source)
    liked, own = chips.find(wanted)
    others, counter = chips.find(against) if against else (None, set())
    sought = query(liked, others)
    best: list[tuple[float, int, dict[str, Any]]] = []
    groups, broken = chips.file.num_row_groups, 0
    for number, (first, table) in enumerate(chips.groups()):
        score = unit(vectors_of(table, str(source)), 1) @ sought
        known = np.isfinite(score)
        broken += int((~known).sum())
        for i in np.argsort(-score, kind="stable")[: min(top + len(own) + len(counter), known.sum())].tolist():
            entry = (float(score[i]), -(first + i))
            if first + i in own or first + i in counter or (len(best) == top and entry <= best[0][:2]):
                continue
            item = (*entry, _row(table, i))
            heapq.heappush(best, item) if len(best) < top else heapq.heapreplace(best, item)
        on_progress(number + 1, groups)
    ranked = sorted(best, key=lambda entry: entry[:2], reverse=True)
    rows = [{"rank": rank, "similarity": round(score, 6), **row} for rank, (score, _, row) in enumerate(ranked, 1)]
    shapes = [row.pop("geometry") for row in rows]
    write_table(rows, [None if shape is None else shapely.from_wkb(shape) for shape in shapes], out)
    told = f"examples: {len(own)}" + (f", counter-examples: {len(counter)}" if counter else "")
    lost = [f"{broken:,} chips have embeddings that are no numbers: they are not listed"] if broken else []
    return Similar(out, tuple(rows), (f"{told}; they are not listed", *lost))


def _row(table: Any, i: int) -> dict[str, Any]:
    found: dict[str, Any] = {name: table.column(name)[i].as_py() for name in _KEPT if name in table.column_names}
    centre = centres_of(table.slice(i, 1))
    found["lon"], found["lat"] = (None, None) if centre is None else (float(centre[0, 1]), float(centre[0, 0]))
    found["geometry"] = table.column("geometry")[i].as_py() if "geometry" in table.column_names else None
    return found


def _map(
    source: Path, out: Path, wanted: Sequence[Example], against: Sequence[Example], on_progress: Tick
) -> Similar:  # fmt: skip
    """The similarity of every pixel, -1 to 1, as a COG."""
    liked, others = (_vectors_at(source, each) for each in (wanted, against))
    if liked is None:
        raise ConfigError("nothing says what is looked for", fix="--like LON,LAT")
    sought = query(liked, others)
    plain = out.with_name(f".{out.stem}.plain.tif")
    try:
        with small_cache(), rasterio.open(source) as dataset:
            require_vectors(dataset)
            grid = grid_of(dataset)
            side = max(64, int(((1 << 24) / dataset.count) ** 0.5))
            blocks = list(partition(grid.window, side, side))
            with RasterWriter(
                plain, grid, bands=["similarity"], dtype="float32", nodata=np.nan, overwrite=True, lasting=False
            ) as writer:
                for number, block in enumerate(blocks, 1):
                    values = decode(dataset.read(window=block.rasterio), dataset.nodata)
                    writer.write(block, np.tensordot(sought, unit(values), 1).astype(np.float32))
                    on_progress(number, len(blocks))
        finish_cog(plain, out, nodata=np.nan, description="similarity", overwrite=True)
    finally:
        plain.unlink(missing_ok=True)
    told = f"examples: {len(liked)}" + (f", counter-examples: {len(others)}" if others is not None else "")
    return Similar(out, (), (told,))


def _vectors_at(source: Path, examples: Sequence[Example]) -> Vector | None:
    ids = [each for each in examples if isinstance(each, str)]
    if ids:
        raise ConfigError(f"{source} is a raster: {ids[0]} is no place in it", fix="give LON,LAT or a file of points")
    if not examples:
        return None
    places = np.concatenate([each for each in examples if not isinstance(each, str)])
    found = read_pixels(source, lonlat=places)
    empty = np.isnan(found).any(1)
    if empty.any():
        lon, lat = places[np.flatnonzero(empty)[0]]
        raise DataError(f"{source} holds nothing at {lon:.6g},{lat:.6g}", fix="give a place inside of it")
    return found
