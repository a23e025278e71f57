"""`check --audit`: faults of the data, doubtful labels and labels beside their image, before anything trains."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
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
from covermap.data.audit import Audit, audit_data
from covermap.data.noise import Noise, find_noise
from covermap.data.pixels import plain_spec
from covermap.data.shift import Shift, find_shifts
from covermap.geo.writer import RasterWriter
from covermap.report.audit import write_page
from covermap.verbs.leaks import measure_leaks

SHIFTED_PX = 0.75
"""From so many pixels on, and three times the error, labels beside their image are a fault."""
SHOWN_TILES, MAP_SCENES = 200, 20
Progress = Callable[[str], AbstractContextManager[Tick]]


def audit(
    config: RunConfig,
    *,
    progress: Progress,
    out: str | Path | None = None,
    leaks: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Everything that `check --audit` says, as plain values; with `out` also as tables, suspects' maps and a page.

    Raises OutputError for a folder that holds an audit. What cannot be measured on faulty data is a note.
    """
    folder = Path(out) if out else None
    if folder:
        claim(folder / "audit.html", overwrite=overwrite)
    with progress("reading files") as tick:
        found = audit_data(config, on_progress=tick)
    scenes = [scene for scene in found.scenes if scene.labels is not None]
    noise, shifts, measured = None, dict[str, Shift](), None
    if scenes:
        spec = plain_spec(scenes[0])
        try:
            shifts = find_shifts(scenes)
            _judge_shifts(found, shifts)
            if leaks:
                measured = measure_leaks(config.split, scenes, spec, size_px=max(config.train.sizes_px))
            with progress("judging labels") as tick:
                noise = find_noise(scenes, spec, on_progress=tick)
        except CovermapError as error:
            found.notes.append(f"not all could be measured: {error.message}")
    result = _result(found, noise, shifts, measured)
    if folder:
        _write(folder, result, found, noise)
        write_page(folder / "audit.html", config.name, result, noise, shifts)
    return result


def _judge_shifts(found: Audit, shifts: dict[str, Shift]) -> None:
    files = {scene.name: [scene.labels_path or ""] for scene in found.scenes}
    for name, shift in shifts.items():
        size = np.hypot(shift.rows or 0, shift.cols or 0)
        if size >= max(SHIFTED_PX, 3 * shift.error):
            told = f"{name or 'all scenes together'}: {tell_shift(shift)}"
            found.add("labels shifted", told, files.get(name, ()))


def tell_shift(shift: Shift) -> str:
    """A shift in a sentence."""
    if shift.rows is None or shift.cols is None:
        return f"it cannot be told whether labels lie on their image (edges agree by {shift.correlation:.2f})"
    return (
        f"class edges fit the image best when labels are moved by {shift.rows:+.1f} px down and {shift.cols:+.1f} px "
        f"right (+-{shift.error:.1f}; edges agree by {shift.correlation:.2f})"
    )


def _result(
    found: Audit, noise: Noise | None, shifts: dict[str, Shift], measured: dict[str, Any] | None
) -> dict[str, Any]:
    legend = next((scene.legend for scene in found.scenes if scene.legend), None)
    names = legend.names if legend else ()
    if shifts:
        said = tell_shift(shifts[""])
    else:
        said = "no class edges to hold beside the image's: it cannot be told whether labels lie on their image"
    return {
        "faults": [asdict(fault) for fault in found.faults],
        "classes": [
            {"class": name, **{part: int(counts[i]) for part, counts in found.parts.items()},
             "scenes": sum(len(counts) > i and bool(counts[i]) for counts in found.classes.values())}
            for i, name in enumerate(names)
        ],
        "scenes": {scene: dict(zip(names, counts.tolist(), strict=False)) for scene, counts in found.classes.items()},
        "noise": _noise(noise, names) if noise else None,
        "shift": {"told": said, "scenes": {key: shift._asdict() for key, shift in shifts.items()}},
        "leaks": measured,
        "notes": list(dict.fromkeys(found.notes)),
    }  # fmt: skip


def _noise(noise: Noise, names: Any) -> dict[str, Any]:
    """Suspects by pairs of classes, the most first, and the worst tiles."""
    counts, wrong = noise.pairs.sum(1), noise.pairs - np.diag(noise.pairs.diagonal())
    pairs = [
        {"labelled": names[i], "looks_like": names[j], "pixels": int(wrong[i, j]), "share": wrong[i, j] / counts[i]}
        for i, j in sorted(np.argwhere(wrong).tolist(), key=lambda pair: -int(wrong[tuple(pair)]))
    ]
    tiles = [
        {"scene": tile.scene.name, **dict(zip(("row", "col", "height", "width"), tile.window, strict=True)),
         "labelled": tile.labelled, "suspects": tile.suspects, "margin": tile.margin}
        for tile in noise.tiles[:SHOWN_TILES]
    ]  # fmt: skip
    share = float(wrong.sum() / max(counts.sum(), 1))
    told = f"{share:.1%} of {counts.sum():,} labels look like another class to a model that saw only other ground"
    if noise.share < 1:
        told += f" (a sample of {noise.share:.0%} of the tiles)"
    return {"told": told, "share": share, "pairs": pairs, "tiles": tiles}


def _write(folder: Path, result: dict[str, Any], found: Audit, noise: Noise | None) -> None:
    """audit.json, faults.csv, leave_out.txt, suspects.csv, and margins of labels as GeoTIFFs of the worst scenes."""
    write_text(folder / "audit.json", json.dumps(plain(result), indent=1))
    names = dict.fromkeys(name for fault in found.faults for name in fault.leave_out)
    write_text(folder / "leave_out.txt", "".join(f"{name}\n" for name in names))
    faults = [
        {**row, "files": "; ".join(row["files"]), "leave_out": "; ".join(row["leave_out"])} for row in result["faults"]
    ]
    tables = {"faults.csv": faults, "suspects.csv": noise and result["noise"]["tiles"]}
    for name, rows in tables.items():
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_text(folder / name, text.getvalue())
    worst = list({tile.scene.name: tile.scene for tile in noise.tiles}.values())[:MAP_SCENES] if noise else []
    for scene in worst:
        assert noise is not None
        path = folder / "suspects" / f"{scene.name}.tif"
        with RasterWriter(
            path, scene.grid, bands=["margin"], dtype="float32", nodata=float("nan"), overwrite=True
        ) as file:
            for tile in noise.tiles:
                if tile.scene.name == scene.name:
                    file.write(tile.window, noise.expert.judge(scene, tile.window).margin)
