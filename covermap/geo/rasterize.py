"""Polygons and points become label pixels: read a vector file once, burn any window of it on the image's grid.

All shapes are held in pixels of the whole grid, with coordinates that are multiples of 2^-16 px. Counting a window's
pixels from its own corner is then exact, so a window reads the same pixels as the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import rasterize

from covermap.core.errors import GridError, LabelError, suggest
from covermap.core.legend import IGNORE, Legend
from covermap.geo.grid import Grid, Window
from covermap.geo.vector import onto_crs, read_table, require_field, without_place

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

_STEP_PX = 2**-16


@dataclass(frozen=True)
class VectorLabels:
    """Labelled shapes on a grid: `shapes` are polygons in pixels (points are squares), `classes` their class indices.

    `rows` are their rows in the file's table; `notes` say in sentences what was repaired, left out or ambiguous.
    """

    grid: Grid
    legend: Legend
    shapes: npt.NDArray[np.object_]
    classes: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int32]
    notes: list[str]

    @staticmethod
    def open(
        path: str | Path,
        *,
        field: str | None,
        grid: Grid,
        legend: Legend | None = None,
        point_px: int = 1,
        epsg: int | None = None,
        layer: str | None = None,
    ) -> VectorLabels:
        """Read a GPKG, GeoJSON, Shapefile or CSV (lon, lat or x, y) and bring it onto `grid`.

        field: column with class names or codes; without `legend` they make one (names sorted, codes 1 to K).
        point_px: side of the square that a point covers. epsg: CRS of a file that has none.
        Raises DataError (unreadable), LabelError (field, classes, lines), GridError (no CRS, no overlap).
        """
        notes: list[str] = []
        table = read_table(path, notes, layer=layer, epsg=epsg)
        field = require_field(path, field, table)
        table = onto_crs(table, grid, epsg, str(path))
        keep = _with_class_and_shape(table, field, notes)
        if not keep.any() and len(table) and table[field].notna().any():
            raise GridError(
                f"no shape of {path} has a place in the image's CRS ({grid.describe()})",
                fix="the file states a CRS that its coordinates do not belong to: set the true one in QGIS or ogr2ogr",
            )
        if not keep.any():
            raise LabelError(f"{path}: no geometry has a class in {field!r}", fix="fill the field or name another one")
        legend, classes = _classes(table[field][keep], legend, str(path), field)
        shapes = _in_pixels(table.geometry.to_numpy()[keep], grid, point_px, str(path), notes)
        used = (classes != IGNORE) & ~shapely.is_empty(shapes)
        _say(notes, (classes == IGNORE).sum(), "belong to classes that the legend ignores and were left out")
        labels = VectorLabels(grid, legend, shapes[used], classes[used], np.flatnonzero(keep)[used].astype("i4"), notes)
        labels._check_extent(str(path))
        labels._note_overlaps()
        return labels

    def read(self, window: Window | None = None) -> npt.NDArray[np.uint8]:
        """Class indices (H, W); IGNORE where no shape lies, or shapes of different classes.

        A polygon covers the pixels whose centre it holds. The window may reach beyond the grid.
        """
        window = window or self.grid.window
        order = self._touching(window)
        order = order[np.argsort(self.classes[order], kind="stable")]
        # The last shape wins: in rising and in falling order of class both agree only where one class is alone.
        highest = self._burn(order, self.classes, window, IGNORE, np.uint8)
        lowest = self._burn(order[::-1], self.classes, window, IGNORE, np.uint8)
        return np.where(highest == lowest, highest, IGNORE).astype(np.uint8)

    def read_objects(self, window: Window | None = None) -> npt.NDArray[np.int32]:
        """Object number (H, W): row of the table + 1, 0 where no shape lies; of several the last row."""
        window = window or self.grid.window
        return self._burn(self._touching(window), self.rows + 1, window, 0, np.int32)

    def object_windows(self) -> list[tuple[int, int, Window]]:
        """Object number, class index and bounding window, cut to the grid, of every shape that lies on it."""
        low, high = np.floor(self._bounds[:, :2]).astype(int), np.ceil(self._bounds[:, 2:]).astype(int)
        boxes = [
            Window(row, col, bottom - row, right - col).intersect(self.grid.window)
            for (col, row), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True)
        ]
        numbers = zip((self.rows + 1).tolist(), self.classes.tolist(), boxes, strict=True)
        return [(number, k, box) for number, k, box in numbers if not box.is_empty]

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.shapes)

    @cached_property
    def _bounds(self) -> npt.NDArray[np.float64]:
        return np.asarray(shapely.bounds(self.shapes))

    def _touching(self, window: Window) -> npt.NDArray[np.int64]:
        """Places of the shapes that touch a window, in the table's order."""
        box = shapely.box(window.col, window.row, window.col + window.width, window.row + window.height)
        return np.sort(self._tree.query(box))

    def _burn(
        self, order: npt.NDArray[np.int64], values: npt.NDArray[Any], window: Window, fill: int, dtype: type
    ) -> npt.NDArray[Any]:
        if not len(order):
            return np.full((window.height, window.width), fill, dtype)
        return np.asarray(
            rasterize(
                [(self.shapes[i], int(values[i])) for i in order],
                out_shape=(window.height, window.width),
                transform=Affine.translation(window.col, window.row),
                fill=fill,
                dtype=dtype,
            )
        )

    def _check_extent(self, path: str) -> None:
        if not len(self.shapes):
            raise GridError(f"no shape of {path} is left in the image's pixels", fix="check its CRS and coordinates")
        here = shapely.box(0, 0, self.grid.width, self.grid.height)
        away = len(self.shapes) - len(self._tree.query(here, predicate="intersects"))
        if away == len(self.shapes):
            box = shapely.transform(shapely.box(*shapely.total_bounds(self.shapes)), _mapping(self.grid.transform))
            unit = self.grid.crs.to_string() if self.grid.crs else "pixels"
            raise GridError(
                f"no shape of {path} lies on the image: shapes {_extent(box.bounds)}, "
                f"image {_extent(self.grid.bounds)} (left, bottom, right, top in {unit})",
                fix="check that both show the same place and that the file states its true CRS",
            )
        _say(self.notes, away, "lie outside of the image and were left out")

    def _note_overlaps(self) -> None:
        # What lies there several times is looked at once: thousands of equal shapes have millions of pairs.
        outlines, which = np.unique(shapely.to_wkb(self.shapes), return_inverse=True)
        kinds, times = np.unique(which * 256 + self.classes, return_counts=True)
        which, classes = kinds // 256, kinds % 256
        shapes = shapely.from_wkb(outlines)[which]
        first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        clash = (first < second) & (classes[first] != classes[second])
        first, second = first[clash], second[clash]
        equal, areas_px = which[first] == which[second], shapely.area(shapes[first])
        areas_px[~equal] = shapely.area(shapely.intersection(shapes[first[~equal]], shapes[second[~equal]]))
        pairs, real = times[first] * times[second], areas_px > 1e-3  # neighbours share an edge, not an area
        if real.any():
            pixel_ha = self.grid.row_areas_ha(self.grid.height // 2, 1)[0]
            self.notes.append(
                f"{int(pairs[real].sum()):,} pairs of shapes of different classes overlap on "
                f"{areas_px @ pairs * pixel_ha:.4g} ha; pixels that two classes claim are not used"
            )


def _say(notes: list[str], count: int, what: str) -> None:
    if count:
        notes.append(f"{int(count):,} shapes {what}")


def _extent(bounds: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.6g}" if abs(v) < 1000 else f"{v:.0f}" for v in bounds) + ")"


def _mapping(transform: Affine) -> Any:
    """A function for shapely.transform: (N, 2) coordinates through an affine transform."""
    a, b, c, d, e, f = transform[:6]
    return lambda xy: xy @ np.array([[a, d], [b, e]]) + np.array([c, f])


def _with_class_and_shape(table: gpd.GeoDataFrame, field: str, notes: list[str]) -> npt.NDArray[np.bool_]:
    """Rows that can be used; counts the others."""
    values, shapes = table[field], table.geometry.to_numpy()
    nameless = values.isna().to_numpy() | (values.astype(str).str.strip() == "").to_numpy()
    empty = without_place(shapes)
    _say(notes, nameless.sum(), f"have no class in {field!r} and were left out")
    _say(notes, (empty & ~nameless).sum(), "have no place in the image's CRS and were left out")
    return np.asarray(~(nameless | empty))


def infer_vector_legend(
    paths: Sequence[str | Path], field: str | None, *, layer: str | None = None, epsg: int | None = None
) -> Legend:
    """One legend of the class names or codes in `field` of one or more files; raises LabelError."""
    import pandas as pd

    found = []
    for path in paths:
        table = read_table(path, layer=layer, epsg=epsg)
        name = require_field(path, field, table)
        found.append(table[name][_with_class_and_shape(table, name, [])])
    values = pd.concat(found)
    if not len(values):
        raise LabelError(f"{paths[0]}: no geometry has a class in {field!r}", fix="fill the field or name another one")
    return _classes(values, None, str(paths[0]), str(field))[0]


def _classes(values: pd.Series, legend: Legend | None, path: str, field: str) -> tuple[Legend, npt.NDArray[np.uint8]]:
    """The legend (made from the values where none is given) and the class index of each value."""
    import pandas as pd

    codes = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    if np.isnan(codes).any():
        return _classes_by_name(values.astype(str).str.strip(), legend, path, field)
    if legend is None:
        broken = codes[~np.isfinite(codes) | (codes != np.rint(codes))]
        if len(broken):
            raise LabelError(f"{path}: {field!r} holds {broken[0]:g}, no class code", fix="use whole numbers or names")
        classes = [{"code": int(code), "name": f"class {int(code)}"} for code in np.unique(codes)]
        legend = Legend.from_dict({"name": Path(path).stem, "classes": classes}, where=f"{path}: {field}")
    known = [*legend.codes, *legend.ignore, *legend.merged, *([] if legend.nodata is None else [legend.nodata])]
    strange = values[~np.isin(codes, known)]
    if len(strange):
        raise _unknown(strange, legend, path, field, fix=f"the legend knows the codes {list(legend.codes)}")
    return legend, legend.encode(codes)


def _classes_by_name(
    names: pd.Series, legend: Legend | None, path: str, field: str
) -> tuple[Legend, npt.NDArray[np.uint8]]:
    if legend is None:
        classes = [{"code": code, "name": name} for code, name in enumerate(sorted(set(names)), 1)]
        legend = Legend.from_dict({"name": Path(path).stem, "nodata": 0, "classes": classes}, where=f"{path}: {field}")
    index = legend.index_by_name
    strange = names[~names.str.lower().isin(index)]
    if len(strange):
        raise _unknown(strange, legend, path, field, fix=suggest(str(strange.iloc[0]), legend.names))
    return legend, np.array([index[name.lower()] for name in names], np.uint8)


def _unknown(strange: pd.Series, legend: Legend, path: str, field: str, *, fix: str) -> LabelError:
    counts = strange.value_counts()
    listed = ", ".join(f"{value} ({count:,})" for value, count in counts.head(10).items())
    more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
    return LabelError(
        f"{path}: {field!r} holds classes that legend {legend.name!r} does not know: {listed}{more}", fix=fix
    )


def _in_pixels(
    shapes: npt.NDArray[np.object_], grid: Grid, point_px: int, path: str, notes: list[str]
) -> npt.NDArray[np.object_]:
    """Polygons in pixels of the grid; points become squares, broken polygons are repaired, lines refused."""
    dimension = shapely.get_dimensions(shapes)
    if (dimension == 1).any():
        raise LabelError(f"{path} holds {(dimension == 1).sum():,} lines", fix="buffer them: a line has no area")
    shapes = shapely.transform(shapely.force_2d(shapes), _mapping(~grid.transform))
    broken = ~shapely.is_valid(shapes)
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    for i in np.flatnonzero(broken | mixed):
        shapes[i] = _polygons_of(shapely.make_valid(shapes[i]))
    for i in np.flatnonzero(dimension == 0):
        shapes[i] = _squares(shapely.get_coordinates(shapes[i]), point_px)
    shapes = shapely.set_precision(shapes, _STEP_PX)
    _say(notes, broken.sum(), "were not valid polygons and were repaired")
    _say(notes, shapely.is_empty(shapes).sum(), "have no area and were left out")
    return np.asarray(shapes)


def _polygons_of(shape: Any) -> Any:
    """The polygons of what make_valid returns, without its loose lines and points."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _squares(points: npt.NDArray[np.float64], side: int) -> Any:
    """Squares of side x side whole pixels around points."""
    low = np.floor(points - (side - 1) / 2)
    return shapely.union_all(shapely.box(low[:, 0], low[:, 1], low[:, 0] + side, low[:, 1] + side))
