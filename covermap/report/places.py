"""Places of a run as pictures: windows of the scored part with label and prediction, and overviews of whole maps.

Tasks of change have two images of each place; semantic change also two labels and two maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE, Legend
from covermap.core.parsing import as_written, read_csv
from covermap.data.scene import Scene
from covermap.data.split import Split
from covermap.geo import pictures
from covermap.geo.grid import Window
from covermap.geo.products import layer_beside
from covermap.report import scene_pictures
from covermap.report.pieces import MAX_SCENES, Pieces

_Index = npt.NDArray[np.uint8]


def examples_of(pieces: Pieces) -> list[dict[str, Any]]:
    """Images, label and prediction of a few windows of the scored part, where there are maps."""
    legend, split = pieces.legend, pieces.split
    mapped = [scene for scene in pieces.scenes if pieces.map_path(scene)] if pieces.maps_classes else []
    if not mapped or legend is None or split is None:
        return []
    return [
        {
            "scene": scene.name,
            "window": window,
            "title": pieces.composite(scene).title if len(pieces.dates) == 1 else pieces.composite(scene).kind,
            "pictures": [
                *((_when(pieces, scene, date, "Image"), pictures.photo_uri(pieces.composite(scene, date).read(window)))
                  for date in dates),
                ("Label", pictures.png_uri(pictures.class_picture(label, legend))),
                ("Prediction", pictures.png_uri(pictures.class_picture(predicted, legend))),
            ],
            **_agreement(label, predicted),
        }
        for scene, window in scene_pictures.example_windows(mapped, split, pieces.shown_part)
        for dates, label, predicted in _answers(pieces, scene, split, window, legend)
    ]  # fmt: skip


def _answers(
    pieces: Pieces, scene: Scene, split: Split, window: Window, legend: Legend
) -> Iterator[tuple[Sequence[int], _Index, _Index]]:
    """Of a window: dates whose images are shown, label and prediction; of what became what once for each date."""
    path = pieces.map_path(scene)
    assert path is not None
    if not pieces.is_pair_of_maps:
        label = split.labels(scene, window, pieces.shown_part)
        yield pieces.dates, label, scene_pictures.read_map(path, scene, legend, window)
        return
    known = split.target(scene, window, pieces.shown_part)
    for date, file in enumerate((layer_beside(path, "before"), path)):
        label = np.where(np.isnan(known[date]), np.float32(IGNORE), known[date]).astype(np.uint8)
        if file.is_file():
            yield (date,), label, scene_pictures.read_map(file, scene, legend, window)


def _agreement(label: _Index, predicted: _Index) -> dict[str, Any]:
    known = (label != IGNORE) & (predicted != IGNORE)
    agree = float((label == predicted)[known].mean()) if known.any() else None
    return {"pixels": int(known.sum()), "agree": agree}


def _when(pieces: Pieces, scene: Scene, date: int, what: str) -> str:
    """What a picture shows, with its date where there are two."""
    if len(pieces.dates) < 2:
        return what
    return f"{what} {'before' if date == 0 else 'after'}" + (f", {when}" if (when := scene.dates[date]) else "")


def maps_of(pieces: Pieces) -> dict[str, Any] | None:
    """Overviews of the class maps beside the images, and mapped areas of all of them together."""
    legend = pieces.legend
    mapped = [(scene, path) for scene in pieces.scenes if (path := pieces.map_path(scene))]
    if not mapped or legend is None or not pieces.maps_classes:
        return None
    shown = []
    for scene, path in mapped[:MAX_SCENES]:
        files = [path]
        if pieces.is_pair_of_maps and (before := layer_beside(path, "before")).is_file():
            files.insert(0, before)
        indices = [(file, scene_pictures.map_overview(file, scene.grid, legend, pieces.overview_px)) for file in files]
        shown.append(
            {
                "scene": scene.name,
                "size": f"{scene.grid.height:,} × {scene.grid.width:,} px of {scene.grid.gsd_m:.4g} m",
                "images": [(one.title, pictures.photo_uri(one.overview))
                           for date in pieces.dates if (one := pieces.composite(scene, date))],
                "maps": [(file.relative_to(pieces.run.folder).as_posix(),
                          pictures.png_uri(pictures.class_picture(index, legend))) for file, index in indices],
            }
        )  # fmt: skip
    areas = _mapped_ha([path for _, path in mapped], legend)
    total = sum(areas.values())
    rows = [
        {"name": n, "colour": pieces.colours[n], "area_ha": a, "share": a / total if total else 0.0}
        for n, a in areas.items()
    ]
    return {
        "pictures": shown, "rows": rows, "total": total, "number": len(mapped), "largest": _largest(rows),
        "later": pieces.is_pair_of_maps,
    }  # fmt: skip


def _largest(rows: Sequence[Mapping[str, Any]]) -> float:
    return max((row["share"] for row in rows), default=0.0) or 1.0


def _mapped_ha(maps: Sequence[Path], legend: Legend) -> dict[str, float]:
    """Hectares of each class over all maps, from the tables beside them; empty when one has none."""
    totals = dict.fromkeys(legend.names, 0.0)
    for path in maps:
        table = next((t for t in _area_tables(path) if t.is_file()), None)
        if table is None:
            return {}
        fix = "make it again: covermap predict"
        with as_written(table, fix=fix):
            for row in read_csv(table, ("class", "area_ha"), fix=fix):
                if row["class"] in totals:
                    totals[row["class"]] += float(row["area_ha"])
    return totals


def _area_tables(path: Path) -> list[Path]:
    return [path.with_name(name) for name in (f"{path.stem}_areas.csv", f"{path.stem}.areas.csv", "areas.csv")]
