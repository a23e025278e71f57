"""`covermap doctor`."""

from __future__ import annotations

import typer

from covermap.cli import show


def doctor(as_json: show.AsJson = False, quiet: show.Quiet = False) -> None:
    """Check this installation: versions, processor, memory, GPU, GDAL and PROJ settings, extras.

    Example: covermap doctor
    """
    from covermap.verbs.doctor import doctor as examine

    found = examine()
    if as_json:
        show.as_json(found)
    else:
        marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
        for row in found:
            typer.echo(f"{marks[row['state']]}  {row['what']}: {row['text']}")
    if any(row["state"] == "bad" for row in found):
        raise typer.Exit(1)
