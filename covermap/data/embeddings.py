"""Embeddings of chips as they are used afterwards, read from GeoParquet: ours, Major TOM's and Clay's.

unique_id embedding timestamp product_id grid_cell grid_row_u grid_col_r geometry centre_lat centre_lon
utm_footprint utm_crs pixel_bbox                       Major TOM's columns
scene place part raw_statistics                        further ones of ours, always
class_pixels | label | values                          what the config's labels tell of a chip
key `covermap` of the file                             {encoder, input, size_px, gsd_m, pool, dimensions, task,
                                                        legend, names, positional_share}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError, MissingExtra, UnreadableError
from covermap.core.legend import Legend
from covermap.core.parsing import as_written, parse_json
from covermap.data.embedding_pixels import read_pixels
from covermap.geo.grid import similar_gsd

__all__ = ["Embeddings", "read_pixels"]
VECTORS = ("embedding", "embeddings", "vector")
"""Columns that hold an embedding: Major TOM's and ours, Clay's, others'."""
_BESIDE = ("input", "size_px", "gsd_m", "pool", "valid", "dimensions", "task")


def parquet() -> Any:
    """pyarrow.parquet; raises MissingExtra."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "GeoParquet") from error
    return pyarrow.parquet


@dataclass(frozen=True)
class Embeddings:
    """N chips with embeddings of d numbers, and what is known of each.

    raw: mean, then standard deviation, of each band in its unit. class_pixels: labelled pixels of each class.
    labels: class indices of chip tasks, -1 none. numbers: of `names`, NaN where not known. scene, place: empty where
    not known. part: train, val, test or none. pixel_bbox: left, upper, right, lower in the scene's pixels, -1 not
    known. centre: latitude, longitude. legend: of class_pixels and labels. encoder: what made them: backbone, weights,
    options, normalise, parameters_sha256, input, size_px, gsd_m, pool, valid, dimensions, task; {} in files of others.
    source: the file.
    """

    values: npt.NDArray[np.float32]
    raw: npt.NDArray[np.float32] | None
    class_pixels: npt.NDArray[np.int64] | None
    labels: npt.NDArray[np.int64] | None
    numbers: npt.NDArray[np.float64] | None
    scene: list[str]
    place: list[str]
    part: list[str]
    pixel_bbox: npt.NDArray[np.int64]
    centre: npt.NDArray[np.float64] | None
    ids: list[str]
    legend: Legend | None
    names: tuple[str, ...]
    encoder: Mapping[str, Any]
    source: str

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def read(path: str | Path) -> Embeddings:
        """All chips of a file; raises DataError for a file without embeddings, UnreadableError for a damaged one."""
        path, found = Path(path), parquet()
        try:
            file = found.ParquetFile(path)
            table, facts = file.read(), facts_of(file)
        except FileNotFoundError as error:
            raise DataError(
                f"there is no file {path}", fix="make it: covermap embed CONFIG.yaml OUT.parquet"
            ) from error
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise UnreadableError(f"{path} cannot be read as Parquet ({error})", fix="make or copy it again") from error
        if not table.num_rows:
            raise DataError(f"{path} holds no chip", fix="make it again: covermap embed CONFIG.yaml OUT.parquet")
        if double := [name for name in table.column_names if table.column_names.count(name) > 1]:
            raise DataError(f"{path} has the column {double[0]} twice", fix="make it again")
        with as_written(path, fix="make it again: covermap embed"):
            return from_table(table, facts, str(path))

    @staticmethod
    def read_all(paths: Sequence[str | Path]) -> Embeddings:
        """The chips of several files, one after the other; raises what `joined` raises."""
        return Embeddings.joined([Embeddings.read(path) for path in paths])

    @staticmethod
    def joined(found: Sequence[Embeddings]) -> Embeddings:
        """Chips that were read from several files as one.

        Raises DataError where these are of different encoders, or have chips in common: a copy of a test chip would be
        learnt from.
        """
        for number, other in enumerate(found[1:], 1):
            _require_alike(found[0], other)
            for one in found[:number]:
                if both := set(one.ids) & set(other.ids):
                    raise DataError(
                        f"{len(both):,} chips of {one.source} stand in {other.source} too: {min(both)}",
                        fix="give each chip once; of files without unique_id each needs a name of its own",
                    )
        if len(found) < 2:
            return found[0]
        joined = {field.name: _joined([getattr(each, field.name) for each in found], field.name, found)
                  for field in fields(Embeddings)}  # fmt: skip
        return Embeddings(**joined)

    def only(self, rows: npt.NDArray[np.intp]) -> Embeddings:
        """Some of the chips, by number."""

        def chosen(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[rows]
            return [value[row] for row in rows] if isinstance(value, list) else value

        return Embeddings(**{field.name: chosen(getattr(self, field.name)) for field in fields(Embeddings)})


def facts_of(file: Any) -> dict[str, Any]:
    """What a Parquet file of ours says of its encoder, {} of others."""
    text = (file.schema_arrow.metadata or {}).get(b"covermap")
    found = parse_json(text) if text else {}
    if not isinstance(found, dict):
        raise ValueError("its key covermap holds no facts")
    return found


def vectors_of(table: Any, where: str) -> npt.NDArray[np.float32]:
    """(N, d) of a table; raises DataError for one without embeddings, or with some of another length."""
    name = next((name for name in VECTORS if name in table.column_names), None)
    if name is None:
        raise DataError(
            f"{where} has no embeddings; its columns are {', '.join(table.column_names)}",
            fix=f"name the column with the numbers {VECTORS[0]}",
        )
    found = _lists(table, name, where)
    assert found is not None
    return found.astype(np.float32, copy=False)


def from_table(table: Any, facts: Mapping[str, Any], where: str) -> Embeddings:
    """Rows of a Parquet file as they are used."""
    values = vectors_of(table, where)
    num = len(values)

    def texts(*names: str, default: str = "") -> list[str]:
        name = next((name for name in names if name in table.column_names), None)
        return [default] * num if name is None else [str(v) if v is not None else default for v in _column(table, name)]

    def lists(name: str) -> npt.NDArray[Any] | None:
        return _lists(table, name, where, required=bool(facts))  # of others' files a name may mean other things

    labels = _column(table, "label") if facts else []
    numbers, pixels = (lists(name) if facts else None for name in ("values", "class_pixels"))
    raw, box = lists("raw_statistics"), lists("pixel_bbox")
    box = None if box is None or box.shape[1] != 4 else box
    legend = Legend.from_dict(facts["legend"], where=where) if facts.get("legend") else None
    ids = texts("unique_id") if "unique_id" in table.column_names else [f"{Path(where).stem}:{i}" for i in range(num)]
    return Embeddings(
        values,
        None if raw is None else raw.astype(np.float32, copy=False),
        None if pixels is None else pixels.astype(np.int64),
        np.array([-1 if v is None else v for v in labels], np.int64) if labels else None,
        None if numbers is None else numbers.astype(np.float64),
        texts("scene", "product_id", "source_url"),
        texts("place"),
        texts("part", default="none"),
        np.full((num, 4), -1, np.int64) if box is None else box.astype(np.int64),
        centres_of(table),
        ids,
        legend,
        tuple(facts.get("names", ())),
        {**facts.get("encoder", {}), **{key: facts[key] for key in _BESIDE if key in facts}},
        where,
    )


def centres_of(table: Any) -> npt.NDArray[np.float64] | None:
    """(N, 2) latitude, longitude; NaN where not known, None where of no row."""
    if {"centre_lat", "centre_lon"} <= set(table.column_names):
        pair = [[np.nan if v is None else v for v in _column(table, name)] for name in ("centre_lat", "centre_lon")]
        found = np.array(pair, np.float64).T
    elif "geometry" in table.column_names:
        import shapely

        try:
            point = shapely.centroid(shapely.from_wkb(np.array(_column(table, "geometry"), object)))
            found = np.stack([shapely.get_y(point), shapely.get_x(point)], 1)
        except shapely.errors.ShapelyError as error:
            raise ValueError(f"its geometry is no WKB: {error}") from error
    else:
        return None
    return None if np.isnan(found).all() else found


def _column(table: Any, name: str) -> list[Any]:
    return list(table.column(name).to_pylist()) if name in table.column_names else []


def _lists(table: Any, name: str, where: str, *, required: bool = True) -> npt.NDArray[Any] | None:
    """A column of lists of one length as (N, length), null in a list NaN; None where there is no such column.

    required: raise DataError for a column of another kind, or with rows of other lengths; else it counts as none.
    """
    if name not in table.column_names:
        return None
    column = table.column(name).combine_chunks()
    listed = hasattr(column, "offsets") or hasattr(column.type, "list_size")
    lengths = np.diff(column.offsets.to_numpy()) if hasattr(column, "offsets") else ()
    if listed and not column.null_count and len(np.unique(lengths)) < 2:
        numbers = np.asarray(column.flatten().to_numpy(zero_copy_only=False))
        if numbers.dtype.kind in "iuf":
            return numbers.reshape(len(column), -1 if len(column) else 0)
    if not required:
        return None
    raise DataError(f"{where}: not all rows of {name} hold the same count of numbers", fix="make the file again")


def _require_alike(one: Embeddings, other: Embeddings) -> None:
    """Raise DataError where two files are of different encoders, or label with different classes."""
    ours, theirs = (_compared(each) for each in (one, other))
    odd = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
    sizes = one.encoder.get("gsd_m"), other.encoder.get("gsd_m")
    odd += ["gsd_m"] if sizes[0] and sizes[1] and not similar_gsd(sizes[0], sizes[1]) else []
    if odd:
        first = sorted(odd)[0]
        raise DataError(
            f"{one.source} and {other.source} come from different encoders: {', '.join(sorted(odd))} "
            f"({first}: {_short(ours.get(first, sizes[0]))} and {_short(theirs.get(first, sizes[1]))})",
            fix="embed all of them with one config; if only input differs, use train.normalise: pretrained",
        )
    for key in ("raw", "class_pixels", "labels", "numbers"):
        if (getattr(one, key) is None) != (getattr(other, key) is None):
            raise DataError(f"only one of {one.source} and {other.source} has {key}", fix="embed both alike")


def _compared(one: Embeddings) -> dict[str, Any]:
    """All that has to be the same."""
    facts = {key: value for key, value in one.encoder.items() if key not in ("gsd_m", "input", "task", "valid")}
    inputs = one.encoder.get("input", {}).get("sensors")
    legend = one.legend.to_dict() if one.legend else None
    return {
        **facts, "input": inputs, "dimensions": one.values.shape[1], "legend": legend, "names": one.names,
    }  # fmt: skip


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _joined(parts: Sequence[Any], key: str, found: Sequence[Embeddings]) -> Any:
    if key == "source":
        return ", ".join(parts)
    if key == "centre" and any(part is not None for part in parts):
        return np.concatenate([np.full((len(e), 2), np.nan) if p is None else p
                               for p, e in zip(parts, found, strict=True)])  # fmt: skip
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [value for part in parts for value in part] if isinstance(parts[0], list) else parts[0]
