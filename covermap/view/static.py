"""A view as a folder of files that needs no server: the page, its data as scripts, tiles of every layer.

index.html  view.js  ...     what the page is made of, and what view.json says
tiles/ID/Z/X/Y.js            indices of classes and numbers, as scripts: these are read from a disk too
tiles/ID/CLASS/Z/X/Y.js      of probabilities
tiles/ID/PRESET/Z/X/Y.jpg    imagery; PNG where some pixels hold nothing, which browsers see by themselves
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import rasterio

from covermap.core.engine import cores, map_unordered
from covermap.core.errors import OutputError
from covermap.core.output import replacing
from covermap.core.progress import Say, Tick
from covermap.view.frame import TILE_PX
from covermap.view.layers import View
from covermap.view.local_files import OFFLINE
from covermap.view.raster_layer import RasterLayer
from covermap.view.tiles import CACHE_BYTES, Handles, data_tile, image_tile

TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png",
}  # fmt: skip
_STRETCH = 2
_SAMPLES = 9
_NO_LABELS = "a folder without a server cannot be written to: covermap view PATH"
Tiles = dict[str, list[list[int]]]
"""By zoom: first and last column and row of rectangles of tiles."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    folder: Path
    num_files: int
    num_bytes: int


class _Job(NamedTuple):
    """A tile; variant: number of the class or preset, None for layers of one picture."""

    layer: RasterLayer
    variant: int | None
    z: int
    x: int
    y: int

    @property
    def name(self) -> str:
        of = [self.layer.id] if self.variant is None else [self.layer.id, str(self.variant)]
        return "/".join([*of, str(self.z), str(self.x), str(self.y)])


def page_files() -> dict[str, Path]:
    """The files of the page by their relative address."""
    with resources.as_file(resources.files("covermap.view") / "page") as folder:
        return {
            each.relative_to(folder).as_posix(): each
            for each in sorted(folder.rglob("*"))
            if each.is_file() and (each.suffix in TYPES or each.name.startswith("LICENSE"))
        }


def write_static(view: View, out: Path, *, overwrite: bool, say: Say, on_progress: Tick) -> Written:
    """Write a view into the folder `out`, whole or not at all; raises OutputError where it is filled already.

    overwrite: replace an earlier view; a folder with anything else in it is never replaced.
    """
    _require_free(out, overwrite=overwrite)
    handles = Handles(view.frame)
    shown = [_of_three_bands(layer) for layer in view.rasters]
    jobs = [job for layer in shown for job in _jobs(view, layer)]
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **OFFLINE), replacing(out, lasting=False) as partial:
        say(f"{len(jobs):,} {'tile' if len(jobs) == 1 else 'tiles'}, about {_estimated(handles, jobs) / 1e6:,.0f} MB")
        partial.mkdir(parents=True)
        num_files, num_bytes, tiles = 0, 0, {layer.id: set[tuple[int, int, int]]() for layer in shown}
        for done, (job, size) in enumerate(map_unordered(_writer(handles, partial), jobs, workers=cores()), 1):
            on_progress(done, len(jobs))
            if size:
                num_files, num_bytes = num_files + 1, num_bytes + size
                tiles[job.layer.id].add((job.z, job.x, job.y))
        files = {name: path.read_bytes() for name, path in page_files().items()}
        files["view.js"] = _view_js(view, {layer.id: layer for layer in shown}, tiles).encode()
        for name, data in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(data)
    return Written(out, num_files + len(files), num_bytes + sum(map(len, files.values())))


def _require_free(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file", fix="name a folder")
    inside = {each.name for each in out.iterdir()}
    if not inside:
        return
    if not overwrite:
        raise OutputError(f"{out} is not empty", fix="name another folder, or add --overwrite")
    own = {name.partition("/")[0] for name in page_files()} | {"view.js", "tiles"}
    if "view.js" not in inside or inside - own:
        other = sorted(inside - own) or ["no view"]
        raise OutputError(
            f"{out} holds {', '.join(other[:3])}: only a folder that covermap view wrote is replaced",
            fix="name another folder",
        )


def _of_three_bands(layer: RasterLayer) -> RasterLayer:
    """Imagery with its composites alone, for each picture of it takes room."""
    colour = tuple(preset for preset in layer.presets if len(preset[1]) == 3)
    return replace(layer, presets=colour or layer.presets[:1]) if layer.kind == "image" else layer


def _jobs(view: View, layer: RasterLayer) -> Iterator[_Job]:
    """All tiles that a layer may have something on."""
    frame = view.frame
    left, top, right, bottom = frame.box(layer.grid)
    variants: Iterable[int | None] = [None]
    if layer.kind in ("image", "probabilities"):
        variants = range(len(layer.presets if layer.kind == "image" else layer.bands))
    for variant in variants:
        for z in range(frame.native + 1):
            side = TILE_PX * 2 ** (frame.native - z)
            last_x, last_y = (-(-size // side) for size in (min(right, frame.width), min(bottom, frame.height)))
            for y in range(max(0, int(top // side)), int(last_y)):
                for x in range(max(0, int(left // side)), int(last_x)):
                    yield _Job(layer, variant, z, x, y)


def _made(handles: Handles, job: _Job) -> tuple[str, bytes] | None:
    """Ending and content of a tile's file; None where it holds nothing."""
    box, layer = handles.frame.tile(job.z, job.x, job.y), job.layer
    if layer.kind == "image":
        found = image_tile(handles, layer, box, layer.presets[job.variant or 0][1], _STRETCH)
        return (".jpg", found[0]) if found else None
    data, holds = data_tile(handles, layer, box, job.variant or 0)
    if not holds:
        return None
    text = base64.b64encode(data).decode()
    return ".js", f'covermap.tile("{job.name}","data:image/png;base64,{text}");\n'.encode()


def _writer(handles: Handles, folder: Path) -> Any:
    def write(job: _Job) -> tuple[_Job, int]:
        if (made := _made(handles, job)) is None:
            return job, 0
        path = folder / "tiles" / f"{job.name}{made[0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[1])
        return job, len(made[1])

    return write


def _estimated(handles: Handles, jobs: list[_Job]) -> float:
    """Bytes of all tiles, by some of each layer's."""
    total = 0.0
    for layer in dict.fromkeys(job.layer.id for job in jobs):
        mine = [job for job in jobs if job.layer.id == layer]
        some = mine[:: max(1, len(mine) // _SAMPLES)]
        sizes = [len(made[1]) if (made := _made(handles, job)) else 0 for job in some]
        total += len(mine) * sum(sizes) / len(sizes)
    return total


def _view_js(view: View, shown: Mapping[str, RasterLayer], tiles: Mapping[str, set[tuple[int, int, int]]]) -> str:
    """What view.json says, for a page that cannot write, with the tiles that there are."""
    told = view.to_dict() | {"static": True}
    for layer in told["layers"]:
        if layer["kind"] == "points":
            layer |= {"editable": False, "problem": _NO_LABELS}
            continue
        layer["tiles"] = rectangles(tiles[layer["id"]])
        if layer["kind"] == "image":
            presets = shown[layer["id"]].presets
            layer |= {
                "stretches": [_STRETCH],
                "presets": [{"name": name, "bands": [*bands]} for name, bands in presets],
            }
    text = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"var covermap = window.covermap || {{}};\ncovermap.view = {text};\n"


def rectangles(tiles: Iterable[tuple[int, int, int]]) -> Tiles:
    """Tiles (z, x, y) as few rectangles [x0, x1, y0, y1], ends inclusive: runs along rows, alike rows joined."""
    found: Tiles = {}
    rows: dict[tuple[int, int], list[list[int]]] = {}
    for z, x, y in sorted(tiles, key=lambda tile: (tile[0], tile[2], tile[1])):
        runs = rows.setdefault((z, y), [])
        if runs and runs[-1][1] == x - 1:
            runs[-1][1] = x
        else:
            runs.append([x, x])
    for (z, y), runs in rows.items():
        here = found.setdefault(str(z), [])
        for run in runs:
            above = next((one for one in here if one[:2] == run and one[3] == y - 1), None)
            if above:
                above[3] = y
            else:
                here.append([*run, y, y])
    return found
