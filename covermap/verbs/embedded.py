"""What `embed` gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Embedded:
    """What was written: `count` chips or cells, of `dimensions` numbers each."""

    files: tuple[Path, ...]
    count: int
    skipped: int
    dimensions: int
    parts: dict[str, int]
    seconds: float
    notes: tuple[str, ...]
