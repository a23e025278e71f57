"""Points of a sample as a person has interpreted them, on the pixels of a map, checked against their design.

S.gpkg or S.csv + S.design.json + map -> rows, columns, class on the map, class in reality, stratum, cluster
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from covermap.core.design import Design
from covermap.core.errors import DataError, GridError, LabelError
from covermap.core.legend import IGNORE, LandClass, Legend
from covermap.data.class_map import ClassMap
from covermap.geo.vector import onto_crs, read_table, require_crs

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from pyproj import CRS

Ints = npt.NDArray[np.intp]
AWAY_PX = 0.1
"""How far a point may lie from its columns x and y: digits that programs round away."""
_NEEDED = ("stratum", "reference")


@dataclass(frozen=True)
class SamplePoints:
    """N points: pixel, class on the map and in reality and stratum of the design as index, cluster by its id; notes."""

    rows: Ints
    cols: Ints
    mapped: Ints
    reference: Ints
    stratum: Ints
    cluster: Ints
    notes: tuple[str, ...]
    ids: npt.NDArray[Any]

    @staticmethod
    def load(path: str | Path, design: Design, of: ClassMap, *, skip_empty: bool = False) -> SamplePoints:
        """Read and check; raises DataError, LabelError, GridError for whatever an estimate would be wrong with.

        skip_empty: leave out points without a reference, as if they were missing at random.
        """
        table = _read(path, design, of)
        _require_all(table, design, str(path))
        notes = []
        names = _texts(table["reference"])
        empty = names == ""
        if empty.any():
            if not skip_empty or empty.all():
                raise DataError(
                    f"{empty.sum():,} of {len(table):,} points of {path} have no reference",
                    fix="interpret them: fill the column with codes or names of classes; those that cannot be seen "
                    "are left out with --skip-empty",
                )
            notes.append(f"{empty.sum():,} points without a reference are left out, as if missing at random")
            table, names = table[~empty], names[~empty]
        reference = _classes(names, of.legend, str(path))
        _require_unmoved(table, design, of, str(path))
        rows, cols = _pixels(table, of, str(path))
        mapped = of.at(rows, cols).astype(np.intp)
        if (mapped == IGNORE).any():
            raise DataError(
                f"{_which(_ids(table), mapped == IGNORE)} of {path} lie where {of.name} holds no class",
                fix="assess the map that the sample was drawn from, or draw a new one",
            )
        cluster = _whole(table["cluster"], "cluster", str(path)) if "cluster" in table else np.arange(len(table))
        index = {stratum.code: number for number, stratum in enumerate(design.strata)}
        strata = np.array([index[code] for code in _whole(table["stratum"], "stratum", str(path)).tolist()], np.intp)
        return SamplePoints(rows, cols, mapped, reference, strata, cluster.astype(np.intp), tuple(notes), _ids(table))

    def named(self, chosen: npt.NDArray[np.bool_]) -> str:
        """`3 points (7, 12, 40)` of those chosen (N,)."""
        return _which(self.ids, chosen)


def _read(path: str | Path, design: Design, of: ClassMap) -> gpd.GeoDataFrame:
    """The table in the map's CRS."""
    import geopandas as gpd

    plain = Path(path).suffix.lower() == ".csv"
    table = read_table(path, epsg=4326 if plain else None)  # the design says what a CSV is in
    lacking = [name for name in _NEEDED if name not in table.columns]
    if lacking:
        raise DataError(
            f"{path} has no column {' and no column '.join(lacking)}: it has {', '.join(map(str, table.columns))}",
            fix="give the points that covermap sample wrote: id, x, y, stratum, reference",
        )
    if table.geometry.isna().any() or table.geometry.is_empty.any():
        raise DataError(f"{path} holds points without a place", fix="restore the file: every drawn point counts")
    table = _single(table, str(path))
    if plain:
        if design.crs is None and of.grid.crs is not None:
            raise GridError(
                f"the design of {path} tells no CRS, {of.name} is in {of.grid.crs.to_string()}",
                fix=f'if x and y are in it, write "crs": "{of.grid.crs.to_string()}" into the design',
            )
        # Anew, for geopandas takes no CRS away from a table.
        table = gpd.GeoDataFrame(table.drop(columns="geometry"), geometry=table.geometry.to_numpy(), crs=_crs(design))
    require_crs(table, of.grid, str(path))
    return onto_crs(table, of.grid, None, str(path))


def _single(table: gpd.GeoDataFrame, path: str) -> gpd.GeoDataFrame:
    """Multipoints of one part, as some programs save them, as points; raises DataError for all but points."""
    import shapely

    shapes = table.geometry.to_numpy()
    several = (shapely.get_type_id(shapes) == shapely.GeometryType.MULTIPOINT) & (
        shapely.get_num_geometries(shapes) == 1
    )
    table = table.set_geometry(np.where(several, shapely.get_geometry(shapes, 0), shapes), crs=table.crs)
    if (other := table.geometry.geom_type.to_numpy() != "Point").any():
        kinds = ", ".join(sorted(set(table.geometry.geom_type[other])))
        raise DataError(
            f"{_which(_ids(table), other)} of {path} are no points but {kinds}",
            fix="give the points as they were drawn, not areas around them or several of them in one",
        )
    return table


def _require_all(table: gpd.GeoDataFrame, design: Design, path: str) -> None:
    """Raise DataError where points were deleted, added, or moved to another stratum."""
    codes = _whole(table["stratum"], "stratum", path)
    known = {stratum.code: stratum.num_samples for stratum in design.strata}
    strange = sorted(set(codes.tolist()) - set(known))
    if strange:
        raise DataError(
            f"{path} has strata {strange[:5]} that the design does not know", fix="give points and design of one draw"
        )
    for code, wanted in known.items():
        found = int((codes == code).sum())
        if found != wanted:
            raise DataError(
                f"stratum {code} has {found:,} points in {path}, {wanted:,} were drawn",
                fix="a sample from which points were taken, or to which some were added, is none: restore it",
            )
    if "id" in table and (double := table["id"].duplicated()).any():
        raise DataError(
            f"{_which(_ids(table), double.to_numpy())} of {path} have the id of another one",
            fix="a point that counts twice stands for ground that was not drawn: restore the file",
        )
    if not design.clusters:
        return
    if "cluster" not in table:
        raise DataError(f"{path} has no column cluster, the design has clusters", fix="restore the column")
    ids, found_in = np.unique(_whole(table["cluster"], "cluster", path), return_counts=True)
    if dict(zip(ids.tolist(), found_in.tolist(), strict=True)) != {one.id: one.num_samples for one in design.clusters}:
        raise DataError(f"the clusters of {path} are not those of the design", fix="give points and design of one draw")


def _require_unmoved(table: gpd.GeoDataFrame, design: Design, of: ClassMap, path: str) -> None:
    """Raise DataError where a point is not where its columns x and y say that it was drawn."""
    import geopandas as gpd
    import pandas as pd
    import shapely

    if not {"x", "y"} <= set(table.columns) or bool(design.crs) != bool(of.grid.crs):
        return
    x, y = (pd.to_numeric(table[axis], errors="coerce").to_numpy(np.float64) for axis in "xy")
    drawn = gpd.GeoSeries(shapely.points(x, y), crs=_crs(design))
    if of.grid.crs:
        drawn = drawn.to_crs(of.grid.crs.to_wkt())
    to = ~of.grid.transform
    dx, dy = table.geometry.x.to_numpy() - drawn.x.to_numpy(), table.geometry.y.to_numpy() - drawn.y.to_numpy()
    away_px = np.hypot(to.a * dx + to.b * dy, to.d * dx + to.e * dy)
    moved = ~(away_px <= AWAY_PX)
    if moved.any():
        raise DataError(
            f"{_which(_ids(table), moved)} of {path} are not where their x and y say that they were drawn",
            fix="put them back there; a point that was moved says nothing about the pixel that was drawn",
        )


def _crs(design: Design) -> CRS | None:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(design.crs) if design.crs else None
    except CRSError as error:
        raise GridError(
            f"the design's crs {design.crs!r} is not known", fix='write for example "EPSG:32632"'
        ) from error


def _pixels(table: gpd.GeoDataFrame, of: ClassMap, path: str) -> tuple[Ints, Ints]:
    """Rows and columns; raises GridError for points outside of the map."""
    to = ~of.grid.transform
    x, y = table.geometry.x.to_numpy(), table.geometry.y.to_numpy()
    cols, rows = np.floor(to.a * x + to.b * y + to.c), np.floor(to.d * x + to.e * y + to.f)
    outside = ~((rows >= 0) & (rows < of.grid.height) & (cols >= 0) & (cols < of.grid.width))
    if outside.any():
        raise GridError(
            f"{_which(_ids(table), outside)} of {path} lie outside of {of.name}",
            fix="assess the map that the sample was drawn from; check the CRS of the points",
        )
    return rows.astype(np.intp), cols.astype(np.intp)


def _classes(names: npt.NDArray[np.str_], legend: Legend, path: str) -> Ints:
    """Class indices of codes or names; raises LabelError that lists what is neither."""
    known = classes_by_text(legend.classes)
    found = [known.get(name.lower()) for name in names.tolist()]
    strange = sorted({name for name, number in zip(names.tolist(), found, strict=True) if number is None})
    if strange:
        classes = ", ".join(f"{one.code} {one.name}" for one in legend.classes)
        raise LabelError(
            f"{path} holds references that are no class of the map: {', '.join(strange[:8])}",
            fix=f"use one of: {classes}",
        )
    return np.array(found, np.intp)


def classes_by_text(classes: Sequence[LandClass]) -> dict[str, int]:
    """What a reference may say, in lower case, -> index of the class; a code goes before a name."""
    names = {one.name.lower(): number for number, one in enumerate(classes)}
    return names | {str(one.code): number for number, one in enumerate(classes)}


def _texts(values: pd.Series) -> npt.NDArray[np.str_]:
    """References as text: 3.0 is 3, nothing is ''."""
    return np.array([reference_text(value) for value in values.tolist()], np.str_)


def reference_text(value: Any) -> str:
    """A reference as it is read: 3.0 is 3, nothing is ''."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text


def _whole(values: pd.Series, name: str, path: str) -> npt.NDArray[np.int64]:
    try:
        found = values.to_numpy(np.float64)
        if np.array_equal(found, np.round(found)):
            return np.asarray(found, np.int64)
    except (ValueError, TypeError):
        pass
    raise DataError(f"the column {name} of {path} holds values that are no codes", fix="restore it: covermap sample")


def _ids(table: gpd.GeoDataFrame) -> npt.NDArray[Any]:
    return np.asarray((table["id"] if "id" in table else table.index.to_series()).to_numpy())


def _which(ids: npt.NDArray[Any], chosen: npt.NDArray[np.bool_]) -> str:
    """`3 points (7, 12, 40)`."""
    shown = ", ".join(map(str, ids[chosen][:5])) + (", ..." if chosen.sum() > 5 else "")
    return f"{chosen.sum():,} points ({shown})"
