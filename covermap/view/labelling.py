"""References of sample points: read from their file and written back one by one, everything else in it as it was.

GeoPackage: one SQLite transaction on the file itself. CSV: the file is replaced whole.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from covermap.core.errors import DataError, OutputError
from covermap.core.output import replacing
from covermap.core.parsing import parse_rows
from covermap.data.sample_points import reference_text
from covermap.view.raster_layer import version_of

_WAIT_S = 2.0
_ST_FUNCTIONS = ("ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY")
_EMPTY_FLAG = 0x10

Row = tuple[Any, str]
"""Where a point lies, as the file says it, and its reference as text."""
Agrees = Callable[[str], bool]
"""Whether a reference that stands in the file is the one that was seen before it is replaced."""


class ReferenceChanged(OutputError):
    """Another has written the reference meanwhile; `text` is what the file says, `code` its class, None for none."""

    def __init__(self, text: str, code: int | None = None) -> None:
        says = f"says {text} by now" if text else "has no reference there by now"
        super().__init__(f"the file {says}")
        self.text, self.code = text, code


@dataclass
class References(ABC):
    """The references of a file by the id of their point."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @abstractmethod
    def read(self) -> dict[str, Row]:
        """All rows by id; raises DataError for a file that cannot be read, or in which an id stands twice."""

    @abstractmethod
    def _write(self, point: str, text: str, place: Any, agrees: Agrees) -> str:
        """Set one, if the point is still at its place and says what was seen; the text before."""

    def write(self, point: str, text: str, place: Any, agrees: Agrees = lambda _: True) -> str:
        """Write one reference ('' for none) to the file; returns what stood there.

        place: that of the point when it was read. agrees: looks at what stands there, within the transaction. Raises
        ReferenceChanged where it does not agree, DataError where the file holds another sample by now, and OutputError
        where it cannot be written or another program holds it.
        """
        with self._lock:
            return self._write(point, text, place, agrees)

    @property
    def problem(self) -> str:
        """Why nothing can be written; '' where it can."""
        folder = self.path.parent  # SQLite's journal and a new CSV appear beside the file
        if not os.access(self.path, os.W_OK) or not os.access(folder, os.W_OK):
            return f"{self.path.name} or its folder is read-only"
        return ""


def references_of(path: Path) -> References:
    """The references of a .gpkg or .csv."""
    return _Csv(path) if path.suffix.lower() == ".csv" else _GeoPackage(path)


def _changed(path: Path, point: str) -> DataError:
    return DataError(
        f"{path.name} has changed: point {point} is gone or lies elsewhere",
        fix="load the page again: nothing was written",
    )


def _require(agrees: Agrees, found: Any) -> None:
    if not agrees(text := reference_text(found)):
        raise ReferenceChanged(text)


def _by_id(path: Path, rows: list[tuple[Any, Any, Any]]) -> dict[str, Row]:
    found = {reference_text(number): (place, reference_text(text)) for number, place, text in rows}
    if len(found) < len(rows):
        raise DataError(f"{path.name} has points without an id of their own", fix="restore the file")
    return found


@dataclass
class _GeoPackage(References):
    def read(self) -> dict[str, Row]:
        with self._open("ro") as file:
            table, geometry = _table(file, self.path)
            rows = file.execute(f"SELECT id, {geometry}, reference FROM {table}").fetchall()
        return _by_id(self.path, rows)

    def _write(self, point: str, text: str, place: Any, agrees: Agrees) -> str:
        with self._open("rw") as file:
            file.execute("BEGIN IMMEDIATE")
            try:
                table, geometry = _table(file, self.path)
                there = file.execute(
                    f"SELECT rowid, reference, {geometry} FROM {table} WHERE CAST(id AS TEXT) IN (?, ?)",
                    (point, f"{point}.0"),
                ).fetchall()
                if len(there) != 1 or there[0][2] != place:
                    raise _changed(self.path, point)
                _require(agrees, there[0][1])
                file.execute(
                    f"UPDATE {table} SET reference = ? WHERE rowid = ?", (text or _nothing(file, table), there[0][0])
                )
                file.execute(
                    "UPDATE gpkg_contents SET last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') "
                    "WHERE '\"' || replace(table_name, '\"', '\"\"') || '\"' = ?",
                    (table,),
                )
                file.execute("COMMIT")
            except BaseException:
                if file.in_transaction:
                    file.execute("ROLLBACK")
                raise
        return reference_text(there[0][1])

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """A connection without transactions of its own; SQLite's errors become sentences."""
        address = f"file:{quote(str(self.path.absolute()))}?mode={mode}"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_S, isolation_level=None)) as file:
                # Triggers of the spatial index name them. They are only called where a geometry changes: none does.
                file.create_function("ST_IsEmpty", 1, lambda blob: bool(blob and blob[3] & _EMPTY_FLAG))
                for name in _ST_FUNCTIONS:
                    file.create_function(name, 1, _no_geometry)
                yield file
        except sqlite3.OperationalError as error:
            if not self.path.exists():
                raise DataError(f"{self.path.name} is gone", fix="put it back, then try again") from error
            if "locked" in str(error) or "busy" in str(error):
                raise OutputError(
                    f"{self.path.name} is held by another program", fix="save and close it there (QGIS), then try again"
                ) from error
            if "readonly" in str(error):
                raise OutputError(f"{self.path.name} is read-only", fix="view a copy that may be written") from error
            raise DataError(f"{self.path.name} cannot be used: {error}", fix="is it a sample of covermap?") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self.path.name} cannot be used: {error}", fix="restore the file") from error


def _no_geometry(_: Any) -> None:
    raise ValueError("a geometry would change")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(file: sqlite3.Connection, path: Path) -> tuple[str, str]:
    """The one table of points and its column of geometries, quoted; raises DataError."""
    tables = file.execute("SELECT table_name, column_name FROM gpkg_geometry_columns").fetchall()
    if len(tables) != 1:
        raise DataError(f"{path.name} has {len(tables)} layers", fix="give a sample as covermap sample writes it")
    name, geometry = map(str, tables[0])
    columns = [row[1] for row in file.execute(f"PRAGMA table_info({_quoted(name)})")]
    if lacking := [column for column in ("id", "reference") if column not in columns]:
        raise DataError(f"{path.name} has no column {lacking[0]}", fix="give a sample as covermap sample writes it")
    return _quoted(name), _quoted(geometry)


def _nothing(file: sqlite3.Connection, table: str) -> str | None:
    """What an empty reference is: no text, or NULL in a column of numbers."""
    kinds = {row[1]: str(row[2]).upper() for row in file.execute(f"PRAGMA table_info({table})")}
    return "" if kinds["reference"].startswith(("TEXT", "VARCHAR", "CHAR")) else None


@dataclass
class _Csv(References):
    def read(self) -> dict[str, Row]:
        _, head, rows, _ = self._parsed()
        at = {name: head.index(name) for name in ("id", "x", "y", "reference")}
        return _by_id(self.path, [(r[at["id"]], (r[at["x"]], r[at["y"]]), r[at["reference"]]) for r in rows])

    def _write(self, point: str, text: str, place: Any, agrees: Agrees) -> str:
        version = version_of(self.path)
        form, head, rows, original = self._parsed()
        at = {name: head.index(name) for name in ("id", "x", "y", "reference")}
        there = [row for row in rows if reference_text(row[at["id"]]) == point]
        if len(there) != 1 or (there[0][at["x"]], there[0][at["y"]]) != place:
            raise _changed(self.path, point)
        _require(agrees, there[0][at["reference"]])
        before, there[0][at["reference"]] = there[0][at["reference"]], text
        out = io.StringIO()
        end = "\r\n" if "\r\n" in original else "\n"
        table = csv.writer(out, delimiter=form, lineterminator=end)
        table.writerow(head)
        table.writerows(rows)
        with replacing(self.path) as partial:
            mark = "\ufeff" if original.startswith("\ufeff") else ""
            partial.write_text(mark + out.getvalue(), encoding="utf-8", newline="")
            shutil.copymode(self.path, partial)
            if version_of(self.path) != version:
                raise _changed(self.path, point)
        return reference_text(before)

    def _parsed(self) -> tuple[str, list[str], list[list[str]], str]:
        """Separator, header, rows and the text itself; raises DataError."""
        try:
            text = self.path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path.name} cannot be read: {error}", fix="save it as UTF-8") from error
        plain = text.removeprefix("\ufeff")
        separator = max(",;\t", key=plain.partition("\n")[0].count)
        try:
            rows = parse_rows(plain, separator)
        except ValueError as error:
            raise DataError(f"{self.path.name} is no table: {error}", fix="restore the file") from error
        head = rows[0] if rows else []
        if lacking := [name for name in ("id", "x", "y", "reference") if name not in head]:
            raise DataError(f"{self.path.name} has no column {lacking[0]}", fix="give what covermap sample wrote")
        if any(len(row) != len(head) for row in rows):
            raise DataError(f"{self.path.name} has rows of different lengths", fix="restore the file")
        return separator, head, rows[1:], text
