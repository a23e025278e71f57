"""`legend apply`: a map in another legend, by a crosswalk; a finished map with all its side files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.crosswalk import Crosswalk, find_crosswalk, read_crosswalk
from covermap.core.errors import ConfigError, LabelError
from covermap.core.legend import IGNORE, histogram
from covermap.core.output import claim_with, require_no_input, scratch
from covermap.core.progress import Tick, unseen
from covermap.data.class_map import ClassMap, find_target, open_class_map
from covermap.geo.grid import partition
from covermap.geo.products import MapSummary, finish_map, names_beside, small_cache
from covermap.geo.writer import RasterWriter

_BLOCK_PX = 1024


@dataclass(frozen=True)
class Reclassified:
    """The map that was written, the crosswalk, and the pixels of each class that has no counterpart and is nodata.

    notes: of the map that was read.
    """

    summary: MapSummary
    crosswalk: Crosswalk
    lost: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


@small_cache()
def reclassify(
    source: str | Path, out: str | Path, *, target: str | None = None, legend: str | None = None,
    crosswalks: Sequence[str | Path] = (), date: str | None = None, overwrite: bool = False, on_progress: Tick = unseen,
) -> Reclassified:  # fmt: skip
    """Write a map in another legend; pixels of a class without a counterpart become nodata and are counted.

    source: a map or a folder of its tiles. target: a shipped name, a file, or the end of one of `crosswalks` (files),
    which is also the default where one is given. legend, date: of the source, where the map does not say it. Memory: a
    block of the map. Raises LabelError (no legend, no crosswalk, unknown codes, nothing left), OutputError, DataError.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{out} does not end in .tif", fix="maps are GeoTIFFs: give a name such as map.tif")
    given = open_class_map(source, legend=legend)
    own = [read_crosswalk(path) for path in crosswalks]
    if target is None and len(own) != 1:
        raise ConfigError("it is not said which legend is wanted", fix="give it: --to ipcc, or one --crosswalk FILE")
    wanted = own[0].target if target is None else find_target(target, tuple(one.target for one in own))
    way = find_crosswalk(given.legend, wanted, own)
    outputs = [out, *names_beside(out).values()]
    require_no_input(outputs, given.files)
    claim_with(out, outputs[1:], overwrite=overwrite)
    with scratch(out) as folder:
        plain = folder / "codes.tif"
        counts = _write(given, way, plain, on_progress)
        lost: list[dict[str, Any]] = [
            {"code": c.code, "name": c.name, "pixels": int(n)}
            for c, n, code in zip(given.legend.classes, counts, way.codes, strict=False)
            if code is None and n
        ]
        num_mapped = int(counts[: len(given.legend)].sum())
        if num_mapped == sum(each["pixels"] for each in lost):
            reason = "no class of it has a counterpart there" if num_mapped else "it holds no class"
            raise LabelError(f"nothing of {source} is left in legend {wanted.name}: {reason}", fix="choose another")
        tags = {"COVERMAP_CROSSWALK": " > ".join(way.route)}
        origin = [Path(file).name for file in given.files]
        summary = finish_map(
            plain, out, wanted, date=date or given.date, derived_from=origin, tags=tags, overwrite=True
        )
    return Reclassified(summary, way, lost, tuple(given.notes))


def _write(given: ClassMap, way: Crosswalk, plain: Path, on_progress: Tick) -> npt.NDArray[np.int64]:
    """The new codes as a plain GeoTIFF; gives the pixels of each class of the old legend (256,)."""
    wanted, table = way.target, way.table
    counts = np.zeros(256, np.int64)
    blocks = list(partition(given.grid.window, _BLOCK_PX, 2 * _BLOCK_PX))
    with RasterWriter(
        plain, given.grid, bands=["land_cover"], dtype=wanted.map_dtype, nodata=wanted.map_nodata, compress="none"
    ) as writer:
        for number, block in enumerate(blocks, 1):
            index = given.read(block)
            counts += histogram(index)
            writer.write(block, wanted.decode(table[index]))
            on_progress(number, len(blocks))
    counts[IGNORE] = 0
    return counts
