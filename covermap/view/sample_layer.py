"""A sample as a layer: its points on the frame, the classes that they may have, what the map says there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from covermap.core.design import Design, design_beside
from covermap.core.errors import CovermapError, DataError, GridError, LabelError
from covermap.core.legend import PALETTE, LandClass
from covermap.data.sample_points import classes_by_text, reference_text
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.products import legend_of_map
from covermap.geo.vector import read_table
from covermap.view.classes import codes_of
from covermap.view.frame import Frame
from covermap.view.labelling import ReferenceChanged, References, references_of
from covermap.view.local_files import files_of, require_sample
from covermap.view.raster_layer import RasterLayer, version_of

_MOST = 50_000
_BLOCK = 512
_ANY: Any = object()


@dataclass
class SampleLayer:
    """Points of a sample. of: the map that it was drawn from, where it is known; problem: why it cannot be edited."""

    path: Path
    frame: Frame
    rasters: Sequence[RasterLayer]
    references: References
    id: str = ""
    kind: str = "points"
    of: RasterLayer | None = None
    map_path: Path | None = None
    legend: tuple[LandClass, ...] = ()
    problem: str = ""
    version: str = ""
    points: list[dict[str, Any]] = field(default_factory=list)
    places: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    strange: int = 0
    outside: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def name(self) -> str:
        return self.path.name

    def load(self) -> None:
        """Read the file; raises CovermapError where it holds no sample."""
        with self._lock:
            version = _version(self.path)
            design, self.problem = _design(self.path)
            self.of, self.map_path = _map_of(self.path, design, self.rasters)
            self.legend = _legend(self.of, self.map_path, design)
            self.problem = (
                self.problem or ("" if self.legend else "no map of its classes is shown") or self.references.problem
            )
            ids, texts, x, y = _table(self.path, design, self.frame)
            try:
                rows = self.references.read()
            except CovermapError as error:
                self.problem, rows = error.message, {}
            if self.path.suffix.lower() == ".csv" and len(rows) == len(ids):
                ids = list(rows)  # as they stand in the file: 001 is no 1
            at = (
                [self.frame.of_grid(self.of.grid, *xy) for xy in zip(x.tolist(), y.tolist(), strict=True)]
                if self.of
                else []
            )
            mapped = _mapped(self.of, at)
            self.outside = sum(1 for col, row in at if self.of and not _holds(self.of, col, row))
            if self.of and self.outside == len(ids) > 0:
                self.problem = (
                    self.problem or f"all of its points lie outside of {self.of.name}: is it of another place?"
                )
            known = classes_by_text(self.legend)
            codes = [self.legend[known[text.lower()]].code if text.lower() in known else None for text in texts]
            self.strange = sum(1 for text, code in zip(texts, codes, strict=True) if text and code is None)
            self.points = [
                {"id": _number(one), "x": round(px, 4), "y": round(py, 4), "reference": code}
                | ({} if mapped is None else {"mapped": mapped[number]})
                for number, (one, px, py, code) in enumerate(zip(ids, x.tolist(), y.tolist(), codes, strict=True))
            ]
            self.places = {one: place for one, (place, _) in rows.items()}
            self.texts = {one: text for one, (_, text) in rows.items()}
            self.version = version

    def refresh(self) -> None:
        """Read it again where another program has written it."""
        with self._lock:
            if _version(self.path) != self.version:
                self.load()

    def set(self, point: Any, code: Any, before: Any = _ANY) -> dict[str, Any]:
        """Write a point's reference (a code of the legend, None for none) to the file.

        before: what the page showed; with it nothing is written over what another has written meanwhile. Raises
        LabelError (unknown class), ReferenceChanged, DataError (no such point, the file has changed), OutputError.
        """
        with self._lock:
            if self.problem:
                raise DataError(
                    f"{self.name} cannot be labelled: {self.problem}", fix="mend that and load the page again"
                )
            for each in (code,) if before is _ANY else (code, before):
                self._require_class(each)
            number = next(
                (i for i, one in enumerate(self.points) if one["id"] == point and type(one["id"]) is type(point)), None
            )
            if number is None:
                raise DataError(f"{self.name} has no point {point!r}", fix="load the page again")
            key, text = str(point), "" if code is None else str(code)
            try:
                found = self.references.write(
                    key, text, self.places.get(key), lambda now: before is _ANY or self._agrees(key, now, before, code)
                )
            except ReferenceChanged as error:
                now = self._code(error.text)
                self.points[number]["reference"], self.texts[key] = now, error.text
                raise ReferenceChanged(self._named(error.text), now) from error
            self.points[number]["reference"], self.texts[key] = code, text
            # No refresh for what was written here; what others wrote meanwhile is read with the next look at the file.
            return {
                "point": point, "reference": code, "before": self._code(found), "num_labelled": self.num_labelled,
            }  # fmt: skip

    def _require_class(self, code: Any) -> None:
        if code is not None and (type(code) is not int or code not in [one.code for one in self.legend]):
            known = ", ".join(f"{one.code} {one.name}" for one in self.legend)
            raise LabelError(f"{code!r} is no class of this sample", fix=f"use one of: {known}")

    def _code(self, text: str) -> int | None:
        """What a reference means."""
        number = classes_by_text(self.legend).get(text.lower())
        return None if number is None else self.legend[number].code

    def _named(self, text: str) -> str:
        number = classes_by_text(self.legend).get(text.lower())
        return text if number is None else self.legend[number].name

    def _agrees(self, key: str, now: str, before: int | None, code: int | None) -> bool:
        """Whether the file says by now what the page showed, or what is to be written; words that are no class, which
        a page shows as nothing, must be those that were read.
        """  # fmt: skip
        meant = self._code(now)
        if meant is None:
            return before is None and (not now or now == self.texts.get(key))
        return meant in (before, code)

    @property
    def num_labelled(self) -> int:
        return sum(one["reference"] is not None for one in self.points)

    def to_dict(self) -> dict[str, Any]:
        """As the page needs it."""
        legend = [{"code": one.code, "name": one.name, "colour": one.colour} for one in self.legend]
        return {
            "id": self.id, "kind": "points", "name": self.name, "version": self.version,
            "of": self.of.id if self.of else None, "editable": not self.problem, "legend": legend,
            "points": self.points, "num_labelled": self.num_labelled,
        } | ({"problem": self.problem} if self.problem else {})  # fmt: skip


def read_sample(path: Path, frame: Frame, rasters: Sequence[RasterLayer]) -> SampleLayer:
    """Open a sample; raises CovermapError with the reason where the file holds none."""
    layer = SampleLayer(path, frame, rasters, references_of(path))
    layer.load()
    return layer


def _version(path: Path) -> str:
    """With SQLite's journal, where a program that has the file open writes first."""
    journal = path.with_name(f"{path.name}-wal")
    return version_of(path) + (f"-{version_of(journal)}" if journal.exists() else "")


def _design(path: Path) -> tuple[Design | None, str]:
    try:
        return Design.load(design_beside(path)), ""
    except CovermapError as error:
        missing = not design_beside(path).exists()
        return None, "" if missing else error.message


def _map_of(
    path: Path, design: Design | None, rasters: Sequence[RasterLayer]
) -> tuple[RasterLayer | None, Path | None]:
    """The layer and the file of the map that a sample was drawn from; without a design the only map that is shown."""
    maps = [one for one in rasters if one.kind in ("classes", "change")]
    if design is None:
        return (maps[0], maps[0].path) if len(maps) == 1 else (None, None)
    name = Path(design.map).name
    same = sorted((one for one in maps if one.name == name), key=lambda one: one.path.parent != path.parent)
    if same:
        return same[0], same[0].path
    beside = path.with_name(name) if name else None
    return None, beside if beside and beside.is_file() else None


def _legend(of: RasterLayer | None, beside: Path | None, design: Design | None) -> tuple[LandClass, ...]:
    """All classes of the map, those without a pixel too; without a map those of the strata."""
    own = None
    with contextlib.suppress(CovermapError, *GDAL_ERRORS, ValueError):
        if beside and (of is None or beside != of.path):
            files_of(beside, beside.parent)
        own = legend_of_map(beside) if beside else None
    if own:
        return own.classes
    if of:
        return tuple(LandClass(one.code, one.name, one.colour) for one in of.classes)
    if design and design.strata_of != "raster":
        named = [one for one in design.strata if one.name]
        return tuple(LandClass(one.code, one.name, PALETTE[i % len(PALETTE)]) for i, one in enumerate(named))
    return ()


def _table(
    path: Path, design: Design | None, frame: Frame
) -> tuple[list[str], list[str], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """ids and references as text (N), columns and rows on the frame (N,); raises DataError, GridError."""
    plain = path.suffix.lower() == ".csv"
    require_sample(path)
    table = read_table(path, epsg=4326 if plain else None)
    if "reference" not in table.columns:
        raise DataError(f"{path.name} is no sample: it has no column reference")
    if len(table) > _MOST:
        raise DataError(f"{path.name} holds {len(table):,} points, at most {_MOST:,} are shown")
    kinds = set(table.geometry.geom_type.unique())
    if kinds != {"Point"}:
        raise DataError(f"{path.name} holds {', '.join(map(str, kinds)) or 'nothing'}, only points are shown")
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    x, y = (np.asarray(getattr(table.geometry, axis), np.float64) for axis in "xy")
    crs = (CRS.from_user_input(design.crs) if design and design.crs else None) if plain else table.crs
    if frame.pixels is not None:
        own = frame.pixels.crs
        if (crs is None) != (own is None):
            raise GridError(f"either {path.name} or the rasters have a CRS, the others have none")
        if crs is not None and own is not None and crs != CRS.from_wkt(own.to_wkt()):
            raise GridError(f"{path.name} is in another CRS than the rasters, which are turned against north")
        col, row = (np.asarray(v) for v in ~frame.pixels.transform * (x, y))
    else:
        assert frame.crs is not None
        if crs is None:
            beside = design_beside(path).name
            advice = f": put {beside}, which covermap sample wrote, beside it, or give a GeoPackage" if plain else ""
            raise GridError(f"{path.name} does not say its CRS, the rasters have one{advice}")
        try:
            to = Transformer.from_crs(crs, frame.crs.to_wkt(), always_xy=True)
            there = to.transform(x, y)
        except ProjError as error:
            raise GridError(f"{path.name} cannot be laid over the rasters: {error}") from error
        col, row = (np.asarray(v) for v in ~frame.transform * tuple(np.asarray(v) for v in there))
    if not (np.isfinite(col).all() and np.isfinite(row).all()):
        raise GridError(f"{path.name} has points without a place here")
    ids = table["id"] if "id" in table else table.index.to_series() + 1
    return [reference_text(v) for v in ids], [reference_text(v) for v in table["reference"]], col, row


def _holds(of: RasterLayer, col: float, row: float) -> bool:
    return 0 <= col < of.grid.width and 0 <= row < of.grid.height


def _mapped(of: RasterLayer | None, places: Sequence[tuple[float, float]]) -> list[int | None] | None:
    """The map's code at each point (column and row on its grid), None where it has no class; None without a map."""
    if of is None:
        return None
    found: list[int | None] = [None] * len(places)
    try:
        with rasterio.open(of.path) as dataset:
            # Neighbours after each other, so that a block is unpacked once.
            order = sorted(range(len(places)), key=lambda i: (places[i][1] // _BLOCK, places[i][0] // _BLOCK))
            for i in order:
                col, row = places[i]
                if _holds(of, col, row):
                    code = int(codes_of(dataset.read(1, window=Window(int(col), int(row), 1, 1)))[0, 0])
                    found[i] = code if of.table[code] < len(of.classes) else None
    except GDAL_ERRORS:
        return None
    return found


def _number(text: str) -> int | str:
    """An id as the page has it: a number where the text is just that, and one that JavaScript holds exactly."""
    plain = text.isascii() and text.isdigit() and len(text) < 16
    return int(text) if plain and str(int(text)) == text else text
