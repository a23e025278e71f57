"""The page of a study, or of several runs side by side: sections of a table and a figure, self-contained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from covermap.core.output import write_text
from covermap.report.render import render


class Section(NamedTuple):
    """A table and a figure, either of which may be missing. words: how many first columns are texts.

    alt: what a figure shows, for who cannot see it; without it, that the values stand in the table.
    """

    title: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: int = 1
    figure: str = ""
    caption: str = ""
    alt: str = ""


def write_study_page(
    path: Path, title: str, *, kind: str, sentence: str, sections: Sequence[Section], notes: Sequence[str] = (),
    doubts: Sequence[str] = (), facts: Sequence[tuple[str, str]] = (), settings: str = "",
    settings_title: str = "Plan",
) -> Path:  # fmt: skip
    """Write the page; doubts: what speaks against believing it. Raises OutputError."""
    values: dict[str, Any] = {"title": title, "kind": kind, "sentence": sentence, "sections": sections}
    page = render("study.html", **values, notes=notes, doubts=doubts, facts=facts, settings=settings,
                  settings_title=settings_title)  # fmt: skip
    return write_text(path, page)
