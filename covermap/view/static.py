"""A view as a folder of files that needs no server: the page, its data as scripts, tiles of every layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from covermap.core.errors import OutputError
from covermap.core.progress import Say, Tick
from covermap.view.layers import View


@dataclass(frozen=True)
class Written:
    """What was written."""

    folder: Path
    num_files: int
    num_bytes: int


def write_static(view: View, out: Path, *, overwrite: bool, say: Say, on_progress: Tick) -> Written:
    """Write all of a view into a folder."""
    raise OutputError("not yet", fix="leave --static out")
