"""`covermap sieve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from covermap.cli import show

if TYPE_CHECKING:
    from covermap.geo.changed_area import ChangedArea
    from covermap.verbs.changed_map import ChangedMap

Source = Annotated[str, typer.Argument(help="Map of classes.", metavar="MAP.tif")]
Out = Annotated[str, typer.Argument(help="Map to write.", metavar="OUT.tif")]
MinArea = Annotated[str, typer.Option(help="Least area of a patch: 1ha, 500m2 or 9px.")]
Connectivity = Annotated[int, typer.Option(help="What touches: 4 (edges) or 8 (and corners).")]


def sieve(
    source: Source,
    out: Out,
    min_area: MinArea,
    connectivity: Connectivity = 4,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Give patches below the minimum mapping unit the class of their largest neighbour.

    The smallest go first, until none is left. Areas are true ones, also in degrees; nodata stays as it is.

    Examples: covermap sieve map.tif clean.tif --min-area 1ha · covermap sieve map.tif clean.tif --min-area 9px
    """
    from covermap.verbs.sieve import sieve as work

    with show.progress("sieving") as tick:
        done = work(source, out, min_area=min_area, connectivity=connectivity, overwrite=overwrite, on_progress=tick)
    tell(done, as_json=as_json)


def tell(done: ChangedMap, *, as_json: bool) -> None:
    """Print what a step did to a map."""
    if as_json:
        show.as_json(
            {"map": done.summary.path, "files": list(done.files), "changed": done.changed.to_dict(),
             "notes": list(done.notes)}
        )  # fmt: skip
        return
    tell_changed(done.changed)
    show.notes(done.notes)
    show.wrote(done.files)


def tell_changed(changed: ChangedArea) -> None:
    """Print the area that changed, in all and of each class."""
    rows = [list(row.values()) for row in changed.rows]
    show.table(rows, list(changed.rows[0]), title=f"{changed.step}: what it did to the area of each class")
    typer.echo(f"{changed.step} changed {changed.changed_ha:,.2f} ha, {changed.share:.2%} of the map")
