"""`models`: the parts that a config can name, and what trained folders hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from covermap.core.errors import ConfigError, suggest
from covermap.core.registry import find, names
from covermap.core.types import InputSpec, SensorInput
from covermap.models import read_card


def list_models() -> list[dict[str, Any]]:
    """Rows {kind, name, about} of everything that a config can name."""
    rows = [
        {"kind": kind, "name": name, "about": _first_sentence(find(kind, name))}
        for kind in ("backbone", "decoder", "loss")
        for name in names(kind)
    ]
    about = "Random forest on single pixels, trained beside every network (extra ml)."
    return [*rows, {"kind": "baseline", "name": "random_forest", "about": about}]


def _first_sentence(thing: Any) -> str:
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split())


def show_model(name: str) -> dict[str, Any]:
    """Facts about a listed part or a trained model folder; raises ConfigError with a suggestion."""
    if (Path(name) / "config.json").is_file():
        card = read_card(name)
        bands = {entry.sensor: list(entry.bands) for entry in card.spec.sensors}
        return {
            "folder": name, "kind": card.kind, "bands": bands, "gsd_m": card.spec.gsd_m, "dates": card.spec.num_dates,
            "classes": list(card.legend.names), **card.build, **card.facts,
        }  # fmt: skip
    rows = {row["name"]: row for row in list_models()}
    if name not in rows:
        raise ConfigError(f"there is no model called {name!r}, and no such folder", fix=suggest(name, rows))
    row = rows[name]
    if row["kind"] == "backbone":
        six = SensorInput("landsat7", tuple("abcdef"), (0.0,) * 6, (1.0,) * 6)
        backbone = find("backbone", name)(InputSpec((six,)))
        row |= {
            "parameters with six bands": sum(p.numel() for p in backbone.parameters()),
            "channels": list(backbone.channels),
            "strides": list(backbone.strides),
            "bands": "any number",
            "licence": "Apache-2.0, no published weights",
        }
    return row
