"""What a prediction wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covermap.core.notebook import told
from covermap.core.table import Table
from covermap.geo.products import MapSummary


@dataclass(frozen=True)
class Prediction:
    """What was written, and how long it took."""

    path: Path
    files: tuple[Path, ...]
    summary: MapSummary | None
    seconds: float
    km2_per_s: float
    num_blocks: int
    num_resumed: int
    notes: tuple[str, ...] = ()

    @property
    def areas(self) -> list[dict[str, Any]]:
        """A row for each class: code, name, pixels, hectares by pixel counting (not an error-adjusted estimate)."""
        if self.summary is None:
            return []
        rows = zip(self.summary.legend.classes, self.summary.num_pixels, self.summary.areas_ha, strict=True)
        return [{"code": c.code, "class": c.name, "pixels": n, "mapped_ha": round(ha, 4)} for c, n, ha in rows]

    @property
    def table(self) -> Table:
        """The same as a table."""
        return Table.of(self.areas, title="mapped area (pixel counts)")

    def _repr_html_(self) -> str:
        return told([self.table] if self.areas else [], [f"wrote {self.path}"], self.notes)
