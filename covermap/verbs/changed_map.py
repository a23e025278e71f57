"""A class map that a verb reads, changes strip by strip and writes anew, with what the change did to the areas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from covermap.core.output import claim_with, only_with, require_no_input, require_tif, scratch, write_text
from covermap.data.class_map import HISTORY, ClassMap
from covermap.geo.changed_area import ChangeCounter, ChangedArea, changes_beside, changes_text
from covermap.geo.grid import Window
from covermap.geo.patches import Index
from covermap.geo.products import MapSummary, finish_map, names_beside
from covermap.geo.writer import RasterWriter

_OF_THE_PRODUCT = {"COVERMAP_LEGEND", "COVERMAP_DATE", "COVERMAP_CONTENT", HISTORY}
_CACHE_BYTES = 256 << 20
"""Two rows of blocks of the widest maps; less would unpack blocks twice."""


def history(source: ClassMap, step: Mapping[str, Any]) -> str:
    """The steps that made a map, and one more, as JSON."""
    return json.dumps([*json.loads(source.tags.get(HISTORY, "[]")), step])


@dataclass(frozen=True)
class ChangedMap:
    """A map that was made of another: what was written, and how the areas changed."""

    summary: MapSummary
    changed: ChangedArea
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def claim_map(out: str | Path, source: ClassMap, *, overwrite: bool) -> Path:
    """Check before any work that a map and all that lies beside it may be written; raises OutputError."""
    out = Path(out)
    require_tif(out)
    files = [out, *names_beside(out).values(), changes_beside(out)]
    require_no_input(files, files_of(source))
    claim_with(out, files[1:], overwrite=overwrite)
    return out


def files_of(source: ClassMap) -> list[Path]:
    """The files of a map and all that may lie beside them."""
    files = [Path(file) for file in source.files]
    return [path for file in files for path in (file, *names_beside(file).values(), changes_beside(file))]


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """A folder beside an output for what is needed on the way to it; with a cache for two rows of blocks."""
    with scratch(out) as folder, rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield folder


def write_codes(path: Path, source: ClassMap, step: str, strips: Iterable[tuple[Window, Index, Index]]) -> ChangedArea:
    """Write strips (whole rows, class indices before and after) as a plain raster of codes; what changed comes back."""
    counter, legend = ChangeCounter(source.grid, source.legend), source.legend
    with RasterWriter(
        path, source.grid, bands=["land_cover"], dtype=legend.map_dtype, nodata=legend.map_nodata, compress="none"
    ) as writer:
        for window, before, after in strips:
            counter.add(window, before, after)
            writer.write(window, legend.decode(after))
    return counter.result(step)


def write_map(
    out: Path, source: ClassMap, step: Mapping[str, Any], strips: Iterable[tuple[Window, Index, Index]],
    notes: Sequence[str] = (),
) -> ChangedMap:  # fmt: skip
    """Strips of a changed map -> the finished map `out` with legend, date and origin of `source`, and changed.csv.

    step: what was done, for the tag HISTORY; its name under "step". Raises OutputError, LabelError.
    """
    date = source.tags.get("COVERMAP_DATE")
    unknown = () if date else (f"no STAC item was written: {source.name} does not say of which date it is",)
    origin = [Path(file).name for file in source.files]
    with work_folder(out) as folder:
        changed = write_codes(folder / "codes.tif", source, str(step["step"]), strips)
        done = {**step, "from": Path(source.name).name, "changed_ha": round(changed.changed_ha, 4)}
        kept = {k: v for k, v in source.tags.items() if k.startswith("COVERMAP_") and k not in _OF_THE_PRODUCT}
        table = write_text(changes_beside(out), changes_text([changed]))
        with only_with(table):
            summary = finish_map(
                folder / "codes.tif", out, source.legend, date=date, derived_from=origin,
                tags={**kept, HISTORY: history(source, done)}, overwrite=True,
            )  # fmt: skip
    return ChangedMap(summary, changed, (*summary.files, table), (*notes, *unknown))
