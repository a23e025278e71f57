"""`sieve`: patches below the minimum mapping unit take the class of their largest neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from covermap.core.progress import Tick, unseen
from covermap.data.class_map import ClassMap, open_class_map
from covermap.geo.grid import Window
from covermap.geo.patches import Index, MappingUnit, Sieved, sieve_classes
from covermap.verbs.changed_map import ChangedMap, claim_map, write_map


def sieve(
    source: str | Path, out: str | Path, *, min_area: str, connectivity: int = 4, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> ChangedMap:  # fmt: skip
    """Write the map without patches below `min_area` (`1ha`, `500m2`, `9px`), with all that belongs to a map.

    The rule stands at patches.sieve_classes; areas are true ones, also in degrees and Mercator. Nodata stays nodata and
    gives its class to nobody. on_progress gets (strips, all strips), of both passes. Memory: strips of 4 million pixels
    and about 160 bytes for each patch of the map. Raises ConfigError, DataError, LabelError, OutputError.
    """
    unit = MappingUnit.parse(min_area)
    before = open_class_map(source, infer=True)
    out = claim_map(out, before, overwrite=overwrite)
    sieved = find_sieved(before, unit, connectivity, on_progress)
    step = {"step": "sieve", "min_area": str(unit), "connectivity": connectivity}
    return write_map(out, before, step, sieved_strips(before, sieved, on_progress), notes=sentences(sieved, unit))


def find_sieved(source: ClassMap, unit: MappingUnit, connectivity: int, on_progress: Tick) -> Sieved:
    """The first pass: patches, and what becomes of them."""
    return sieve_classes(
        source.read, source.grid, unit, connectivity=connectivity,
        on_progress=lambda done, total: on_progress(done, 2 * total),
    )  # fmt: skip


def sieved_strips(source: ClassMap, sieved: Sieved, on_progress: Tick) -> Iterator[tuple[Window, Index, Index]]:
    """The second pass: strips before and after."""
    total = len(sieved.windows)
    for number, window in enumerate(sieved.windows):
        index = source.read(window)
        yield window, index, sieved.apply(number, index)
        on_progress(total + number + 1, 2 * total)


def sentences(sieved: Sieved, unit: MappingUnit) -> list[str]:
    """What was found, and what could not be absorbed."""
    found = [f"{sieved.num_below:,} of {sieved.num_patches:,} patches were smaller than {unit}"]
    if sieved.num_left:
        found.append(
            f"{sieved.num_left:,} are so even with all that they touch: only nodata or the map's edge is around"
        )
    return found
