"""`covermap similar`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from covermap.cli import show

Source = Annotated[str, typer.Argument(help="Embeddings: chips (.parquet) or pixels (.tif).", metavar="EMBEDDINGS")]
Out = Annotated[
    str, typer.Argument(help="List of chips (.gpkg, .geojson, .csv), or map of pixels (.tif).", metavar="OUT")
]
Like = Annotated[list[str], typer.Option(help="Example: id or its beginning; LON,LAT; or a file of points. Repeat it.")]
Unlike = Annotated[list[str] | None, typer.Option(help="Counter-example, written alike.")]
Top = Annotated[int, typer.Option(help="How many chips are listed.")]


def similar(
    source: Source,
    out: Out,
    like: Like,
    unlike: Unlike = None,
    top: Top = 50,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Find what looks like an example: chips, or a map of the similarity of pixels (cosine of their embeddings).

    Examples: covermap similar chips.parquet lakes.gpkg --like 1.75,45.10 --top 20 ·
    covermap similar chips.parquet found.csv --like 3fa9 --unlike roads.gpkg ·
    covermap similar pixels.tif likeness.tif --like ponds.gpkg
    """
    from covermap.verbs.similar import similar as work

    with show.progress("searching") as tick:
        done = work(source, out, like, unlike=unlike or (), top=top, overwrite=overwrite, on_progress=tick)
    rows = done.rows
    if as_json:
        show.as_json({"file": str(done.path), "rows": rows, "notes": list(done.notes)})
        return
    if rows:
        shown = [key for key in ("rank", "similarity", "unique_id", "scene", "lon", "lat") if key in rows[0]]
        table = [[_short(key, row[key]) for key in shown] for row in rows[:10]]
        show.table(table, shown, title=f"the likest {len(table)} of {len(rows)}")
    show.notes(done.notes)
    show.wrote([done.path])


def _short(key: str, value: Any) -> Any:
    if value is None:
        return "-"
    return value[:12] if key == "unique_id" else f"{value:.5f}" if key in ("lon", "lat") else value
