"""The page of an audit: faults, classes, the worst tiles as pictures, where labels fit their image best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from covermap.core.legend import PALETTE
from covermap.core.output import write_text
from covermap.data.noise import Noise
from covermap.data.shift import Shift
from covermap.geo import pictures
from covermap.report import figures, scene_pictures
from covermap.report.pieces import OVERVIEW_PX
from covermap.report.render import render

SHOWN_TILES = 8


def write_page(
    path: Path, name: str, result: Mapping[str, Any], noise: Noise | None, shifts: Mapping[str, Shift]
) -> Path:
    """Write `audit.html`, self-contained; `result` is what `check --audit --json` prints. Raises OutputError."""
    legend = noise.tiles[0].scene.legend if noise and noise.tiles else None
    colours = {c.name: "#{:02x}{:02x}{:02x}".format(*c.rgb) for c in legend.classes} if legend else {}
    page = render(
        "audit.html", name=name, result=result, tiles=_tiles(noise) if noise else [],
        colours=[colours.get(row["class"], PALETTE[i % len(PALETTE)]) for i, row in enumerate(result["classes"])],
        surface=figures.shift_surface(shifts[""].surface) if shifts else None,
    )  # fmt: skip
    return write_text(path, page)


def _tiles(noise: Noise) -> list[dict[str, Any]]:
    """Image, label and the model's guess of the worst tiles, and how many labels are suspects."""
    shown = []
    for tile in [tile for tile in noise.tiles if tile.suspects][:SHOWN_TILES]:
        legend = tile.scene.legend
        assert legend is not None
        found = noise.judge(tile.scene, tile.window)
        label = tile.scene.read_labels(tile.window)
        shown.append({
            "scene": tile.scene.name, "window": tile.window, "suspects": tile.suspects, "labelled": tile.labelled,
            "pictures": {
                "Image": pictures.photo_uri(scene_pictures.composite(tile.scene, OVERVIEW_PX).read(tile.window)),
                "Label": pictures.png_uri(pictures.class_picture(label, legend)),
                "The model thinks": pictures.png_uri(pictures.class_picture(found.guess, legend)),
            },
        })  # fmt: skip
    return shown
