"""HTML for notebooks: a picture beside a list of facts. All texts are escaped, colours are those of the notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:0;background:none"
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
        f'<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">{side}<div style="max-width:60ch">'
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


def attempt(make: Callable[[], str], what: str) -> str:
    """What `make` gives, or why it does not: a notebook's display never fails."""
    try:
        return make()
    except Exception as error:
        told = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        return reason(f"no {what}: {told}")
