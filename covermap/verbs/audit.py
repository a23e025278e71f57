"""`check --audit`: faults of the data, doubtful labels and labels beside their image, before anything trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from covermap.core.config import RunConfig
from covermap.core.errors import CovermapError
from covermap.core.output import claim, write_text
from covermap.core.progress import Tick
from covermap.core.run import plain
from covermap.data.audit import audit_data
from covermap.data.noise import Noise, find_noise
from covermap.data.pixels import plain_spec
from covermap.data.shift import Shift, find_shifts
from covermap.geo.legend_files import csv_text
from covermap.geo.writer import RasterWriter
from covermap.report.audit import write_page
from covermap.verbs.leaks import measure_leaks

SHIFTED_PX = 0.75
"""From so many pixels on, and three times the error, labels beside their image are a fault."""
SHOWN_TILES, MAP_SCENES = 200, 20


def audit(
    config: RunConfig,
    *,
    progress: Callable[[str], AbstractContextManager[Tick]],
    out: str | Path | None = None,
    leaks: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Everything that `check --audit` says, as plain values; with `out` also a page, tables and maps of the suspects.

    Raises OutputError for a folder that holds an audit. What cannot be measured on faulty data is a note.
    """
    page = claim(Path(out) / "audit.html", overwrite=overwrite) if out else None
    with progress("reading files") as tick:
        found = audit_data(config, on_progress=tick)
    noise, shifts, measured = None, dict[str, Shift](), None
    if scenes := [scene for scene in found.scenes if scene.labels is not None]:
        spec = plain_spec(scenes[0])
        try:
            shifts = find_shifts(scenes)
            if leaks:
                size = max(config.train.sizes_px)
                with progress("measuring leaks") as tick:
                    measured = measure_leaks(config.split, scenes, spec, size_px=size, on_progress=tick)
            with progress("judging labels") as tick:
                noise = find_noise(scenes, spec, on_progress=tick)
        except CovermapError as error:
            found.notes.append(f"not all could be measured: {error.message}")
    for name, shift in shifts.items():
        if np.hypot(shift.rows or 0, shift.cols or 0) >= max(SHIFTED_PX, 3 * shift.error):
            files = [s.labels_path or s.name for s in scenes if name in ("", s.name)]
            found.add("labels shifted", f"{name or 'all scenes together'}: {shift.told}", files, len(files))
    names = scenes[0].legend.names if scenes and scenes[0].legend else ()
    result = {
        "faults": [asdict(fault) for fault in found.faults],
        "classes": [
            {"class": name, **{part: int(counts[i]) for part, counts in found.parts.items()},
             "scenes": sum(len(counts) > i and bool(counts[i]) for counts in found.classes.values())}
            for i, name in enumerate(names)
        ],
        "scenes": {scene: dict(zip(names, counts.tolist(), strict=False)) for scene, counts in found.classes.items()},
        "noise": _noise(noise, names) if noise else None,
        "shift": {
            "told": shifts[""].told if shifts else "too few class edges to tell whether labels lie on the image",
            "scenes": {key: shift._asdict() for key, shift in shifts.items()},
        },
        "leaks": measured,
        "notes": list(dict.fromkeys([*found.notes, *(["no scene has labels of classes"] if not names else [])])),
    }  # fmt: skip
    if page:
        _write(page.parent, result, config.data.left_out, noise)
        write_page(page, config.name, result, noise, shifts)
    return result


def _noise(noise: Noise, names: Sequence[str]) -> dict[str, Any]:
    """Suspects by pairs of classes, the most first, and the worst tiles."""
    counts, wrong = noise.pairs.sum(1), noise.pairs - np.diag(noise.pairs.diagonal())
    order = sorted(np.argwhere(wrong).tolist(), key=lambda pair: -int(wrong[tuple(pair)]))
    sample = f" (a sample of {noise.share:.0%} of the tiles)" if noise.share < 1 else ""
    share = float(wrong.sum() / max(counts.sum(), 1))
    return {
        "told": f"{share:.1%} of {counts.sum():,} labels look like another class to a model of other ground{sample}",
        "share": share,
        "pairs": [
            {"labelled": names[i], "looks_like": names[j], "pixels": int(wrong[i, j]), "share": wrong[i, j] / counts[i]}
            for i, j in order
        ],
        "tiles": [
            {"scene": tile.scene.name, **tile.window._asdict(), "labelled": tile.labelled, "suspects": tile.suspects,
             "margin": tile.margin}
            for tile in [tile for tile in noise.tiles if tile.suspects][:SHOWN_TILES]
        ],
    }  # fmt: skip


def _write(folder: Path, result: dict[str, Any], left_out: Sequence[str], noise: Noise | None) -> None:
    """audit.json, leave_out.txt, suspects.csv, and the margins of the labels of the worst scenes as GeoTIFFs."""
    write_text(folder / "audit.json", json.dumps(plain(result), indent=1))
    names = dict.fromkeys([*left_out, *(name for fault in result["faults"] for name in fault["leave_out"])])
    write_text(folder / "leave_out.txt", "".join(f"{name}\n" for name in names))
    if noise is None or not noise.tiles:
        return
    rows = result["noise"]["tiles"]
    table = csv_text(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""
    write_text(folder / "suspects.csv", table)
    for name in list(dict.fromkeys(tile.scene.name for tile in noise.tiles))[:MAP_SCENES]:
        tiles = [tile for tile in noise.tiles if tile.scene.name == name]
        path, grid = folder / "suspects" / f"{name}.tif", tiles[0].scene.grid
        with RasterWriter(path, grid, bands=["margin"], dtype="float32", nodata=np.nan, overwrite=True) as file:
            for tile in tiles:
                file.write(tile.window, noise.judge(tile.scene, tile.window).margin)
