"""HTML for notebooks: a picture beside a list of facts. All texts are escaped, colours are those of the notebook."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from covermap.core.run import Run
    from covermap.core.table import Table

_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:0;background:none"
_RASTERS = "covermap.geo.notebook"
"""Who draws a raster; by name, as plug-ins are: this room knows no rasters."""
_MOST_FILES = 16
_ROW = "background:none;border:0"


def card(
    title: str, facts: Sequence[tuple[str, str]], *, picture: str = "", below: str = "", chips: Sequence[Chip] = ()
) -> str:
    """A title, facts (name, text) and at their side a picture (HTML); below: HTML that follows; chips: colours, names.

    Facts without a text are left out.
    """
    rows = "".join(
        f'<tr style="{_ROW}"><td style="{_CELL};opacity:.65">{escape(name)}</td>'
        f'<td style="{_CELL};overflow-wrap:anywhere">{escape(text)}</td></tr>'
        for name, text in facts
        if text
    )
    side = f'<div style="flex:none">{picture}</div>' if picture else ""
    return (
        f'<div style="font-size:13px"><div style="font-weight:600;margin:2px 0 6px">{escape(title)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">{side}'
        '<div style="flex:1 1 32ch;max-width:70ch">'
        f'<table style="border:0;margin:0;background:none"><tbody>{rows}</tbody></table>{_legend(chips)}</div></div>'
        f"{below}</div>"
    )


Chip = tuple[str, str]
"""A colour (#rrggbb) and what has it."""


def _legend(chips: Sequence[Chip]) -> str:
    each = "".join(
        '<span style="white-space:nowrap"><span style="display:inline-block;width:10px;height:10px;margin-right:5px;'
        f'border:1px solid rgba(128,128,128,.6);background:{escape(colour)}"></span>{escape(name)}</span>'
        for colour, name in chips
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:2px 12px;margin-top:8px">{each}</div>' if each else ""


def image(uri: str, *, width: int, height: int, title: str) -> str:
    """A picture by its data URI, at most as wide as the notebook; title: what it shows."""
    return (
        f'<img src="{escape(uri)}" width="{width}" height="{height}" alt="{escape(title)}" title="{escape(title)}" '
        'style="max-width:100%;height:auto;image-rendering:pixelated;border:1px solid rgba(128,128,128,.4)">'
    )


def reason(text: str) -> str:
    """Why there is no picture, or nothing at all."""
    return f'<div style="max-width:40ch;opacity:.8">{escape(text)}</div>'


def told(tables: Sequence[Table], sentences: Sequence[str], notes: Sequence[str] = ()) -> str:
    """A result as the terminal has it: tables, sentences, notes."""
    lines = [*sentences, *(f"note: {note}" for note in dict.fromkeys(notes))]
    return "".join(table._repr_html_() for table in tables) + "".join(f"<p>{escape(line)}</p>" for line in lines)


def attempt(make: Callable[[], str], what: str) -> str:
    """What `make` gives, or why it does not: a notebook's display never fails."""
    try:
        return make()
    except Exception as error:
        told = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        return reason(f"no {what}: {told}")


def run_html(run: Run) -> str:
    """Name, task, result, scores with intervals, areas and files of a run, and a picture of its map."""
    return attempt(lambda: _run_html(run), "display of this run")


def _run_html(run: Run) -> str:
    def scores() -> str:
        part = next((p for p in ("test", "val") if run.path(_metrics(p)).is_file()), None)
        if part is None:
            return reason("not scored yet: covermap evaluate RUN")
        found = run.scores(part)
        note = reason(f"note: {found['note']}") if found["note"] else ""
        return f"<p>{escape(found.sentence)}</p>{note}{found.table._repr_html_()}"

    def areas() -> str:
        return run.areas()._repr_html_() if run.path("areas.csv").is_file() else ""

    files = sorted(path.relative_to(run.folder).as_posix() for path in run.folder.glob("[!.]*") if path.is_file())
    files.sort(key=lambda name: not name.endswith((".tif", ".html")))  # what one opens comes first
    more = f", ... ({len(files)} in all)" if len(files) > _MOST_FILES else ""
    maps = [path for path in run.map_files if path.name == "map.tif" or path.parent.name == "maps"]
    picture = importlib.import_module(_RASTERS).thumbnail(maps[0]) if maps else ""
    config = run.config
    facts = [
        ("task", config.task_section.name),
        ("model", " with ".join(dict.fromkeys((config.model.backbone, config.model.decoder)))),
        ("maps", f"{len(maps)}" if len(maps) > 1 else ""),
        ("folder", str(run.folder)),
        ("files", ", ".join(files[:_MOST_FILES]) + more),
    ]
    below = attempt(scores, "scores") + attempt(areas, "areas")
    return card(config.name, facts, picture=picture, below=below)


def _metrics(part: str) -> str:
    return "metrics.json" if part == "test" else f"metrics_{part}.json"
