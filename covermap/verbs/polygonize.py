"""`polygonize`: the patches of a class map as polygons with code, name and area.

OUT.gpkg          (or OUT.parquet) a polygon for each patch, whole and with borders that neighbours share
OUT.qml           its colours; QGIS loads them unasked
OUT.changed.csv   what --min-area and --simplify did to the area of each class
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import Legend
from covermap.core.output import claim, only_with, require_no_input, write_text
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import HISTORY, ClassMap, open_class_map
from covermap.geo.changed_area import ChangedArea, changes_beside, changes_text
from covermap.geo.grid import Window
from covermap.geo.legend_files import polygon_qml_text
from covermap.geo.patches import Index, MappingUnit, strips
from covermap.geo.polygon_file import require_writer, write_polygons
from covermap.geo.polygons import Shapes, areas_ha, moved_ha, require_tolerance, simplify, to_crs_units, trace
from covermap.verbs.changed_map import files_of, history, work_folder, write_codes
from covermap.verbs.sieve import find_sieved, sentences, sieved_strips

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True)
class Polygonized:
    """What was written: polygons and hectares of each class, and what each step did to the areas."""

    path: Path
    files: tuple[Path, ...]
    rows: list[dict[str, Any]]
    changes: tuple[ChangedArea, ...]
    notes: tuple[str, ...]


def polygonize(
    source: str | Path, out: str | Path, *, min_area: str | None = None, simplify_m: float | None = None,
    classes: Sequence[str] | None = None, overwrite: bool = False, on_progress: Tick = unseen,
) -> Polygonized:  # fmt: skip
    """Write the patches of a map (pixels of a class that share an edge) as polygons in the map's CRS.

    `area_ha` is the true area of a patch's pixels (Grid.row_areas_ha), also where its outline is simplified.
    min_area: patches below it go to their largest neighbour first, as by `sieve`. simplify_m: see polygons.simplify.
    classes: only theirs are written; min_area and simplify_m act on the whole map, so that several files fit together.
    on_progress gets (strips, all strips) until the map is traced. Memory: all polygons of the map, about 1 kB for each
    patch and 200 bytes for each of its corners, 300 with simplify_m. Raises ConfigError, LabelError, DataError,
    OutputError, MissingExtra (Parquet).
    """
    out = Path(out)
    unit = MappingUnit.parse(min_area) if min_area is not None else None
    require_writer(out)
    files = (out, out.with_suffix(".qml"), changes_beside(out))
    before = open_class_map(source, infer=True)
    require_no_input(files, files_of(before))
    for path in files:
        claim(path, overwrite=overwrite)
    if simplify_m is not None:
        require_tolerance(simplify_m, before.grid)
    wanted = [before.legend.index_of(name) for name in classes] if classes else list(range(len(before.legend)))
    changes, steps, notes = [], [], []
    with work_folder(out) as folder:
        if unit:
            sieved = find_sieved(before, unit, 4, on_progress)
            changes.append(
                write_codes(folder / "codes.tif", before, "sieve", sieved_strips(before, sieved, on_progress))
            )
            steps.append({"step": "sieve", "min_area": str(unit), "connectivity": 4})
            notes += sentences(sieved, unit)
        else:
            write_codes(folder / "codes.tif", before, "copy", _unchanged(before, on_progress))
        shapes, codes = trace(folder / "codes.tif")
    index, area_ha = before.legend.encode(codes), areas_ha(shapes, before.grid)
    if simplify_m is not None:
        traced, shapes = shapes, simplify(shapes, before.grid, simplify_m)
        changes.append(_simplified(before.legend, index, area_ha, *moved_ha(traced, shapes, before.grid)))
        steps.append({"step": "simplify", "tolerance_m": simplify_m})
    kept = np.isin(index, wanted)
    shapes, index, area_ha = shapes[kept], index[kept], area_ha[kept]
    steps = [{**step, "changed_ha": round(each.changed_ha, 4)} for step, each in zip(steps, changes, strict=True)]
    story = history(before, {"step": "polygonize", "from": Path(source).name, "steps": steps})
    # The polygons appear last: where they stand, what lies beside them is complete.
    with only_with(*files[1:]):
        write_text(files[1], polygon_qml_text(before.legend, "code"))
        files[2].unlink(missing_ok=True)
        if changes:
            write_text(files[2], changes_text(changes))
        write_polygons(_table(before, shapes, index, area_ha), out, {HISTORY: story})
    rows = _rows(before.legend, wanted, index, area_ha)
    notes += [f"no pixel is {row['class']}" for row in rows if not row["polygons"]]
    return Polygonized(out, files if changes else files[:2], rows, tuple(changes), tuple(notes))


def _unchanged(source: ClassMap, on_progress: Tick) -> Iterator[tuple[Window, Index, Index]]:
    """The map strip by strip, for GDAL to trace what the legend knows and nothing else."""
    windows = strips(source.grid)
    for number, window in enumerate(windows, 1):
        index = source.read(window)
        yield window, index, index
        on_progress(number, len(windows))


def _simplified(
    legend: Legend, index: Index, area_ha: npt.NDArray[np.float64], gained: npt.NDArray[np.float64],
    lost: npt.NDArray[np.float64],
) -> ChangedArea:  # fmt: skip
    """What simplifying did, summed over the patches of each class."""
    sums = (np.bincount(index, weights=each, minlength=len(legend)).tolist() for each in (area_ha, gained, lost))
    return ChangedArea("simplify", legend, *map(tuple, sums))


def _table(source: ClassMap, shapes: Shapes, index: Index, area_ha: npt.NDArray[np.float64]) -> gpd.GeoDataFrame:
    """The polygons in the CRS of the map; areas to a hundredth of a square metre."""
    import geopandas as gpd

    legend = source.legend
    fields = {
        "code": np.asarray(legend.codes, np.int32)[index],
        "name": np.asarray(legend.names, object)[index],
        "area_ha": np.round(area_ha, 6),
    }
    crs = source.grid.crs.to_wkt() if source.grid.crs else None
    return gpd.GeoDataFrame(fields, geometry=to_crs_units(shapes, source.grid), crs=crs)


def _rows(
    legend: Legend, wanted: Sequence[int], index: Index, area_ha: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Polygons and hectares of each class that was asked for."""
    number = np.bincount(index, minlength=len(legend)).tolist()
    hectares = np.bincount(index, weights=area_ha, minlength=len(legend)).tolist()
    return [
        {"class": legend.names[i], "code": legend.codes[i], "polygons": number[i], "area_ha": round(hectares[i], 4)}
        for i in sorted(set(wanted))
    ]
