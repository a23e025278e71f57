"""The store: scenes, or tiles of them, aligned once and written as plain GeoTIFFs that are read by memory map.

    OUT/store.json                      the classes, and each scene's files, part, place and class
    OUT/SCENE/sentinel2_1.tif           one file for each sensor and date, all on one grid, bands by name
    OUT/SCENE/class.tif                 class codes; change masks and the like beside it under their own names
    OUT/tiles.csv                       every tile, whether it was kept, and why not
    OUT/ledger.jsonl                    finished blocks with their checksums

Numbers stay as they are in the source, apart from Sentinel-2's +1000, which is taken off. A writer that was stopped
goes on at the first block that the ledger lacks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.engine import cores, map_unordered
from covermap.core.errors import ConfigError, DataError, OutputError
from covermap.core.legend import IGNORE
from covermap.core.output import LOCK, at_work, write_text, writing
from covermap.core.parsing import as_written, parse_json, read_text
from covermap.core.progress import Tick, unseen
from covermap.data.coarser import coarser
from covermap.data.label_file import LabelFile
from covermap.data.labels import is_vector
from covermap.data.scene import Scene, open_found
from covermap.data.source import SceneFiles, find_scenes
from covermap.data.tiles import Tile, Tiling, cut
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.legend_files import csv_text
from covermap.geo.plain import PlainFile
from covermap.geo.raster import Raster, grid_of, open_dataset

VERSION = 1
MANIFEST = "store.json"
LEDGER = "ledger.jsonl"
BLOCK_PX = 1024
Part = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Layer:
    """A file to write, and how its pixels are read by a window of the scene."""

    file: PlainFile
    read: Callable[[Window], Part]


@dataclass(frozen=True)
class Piece:
    """A scene, or a tile of one, under its name in the store."""

    name: str
    files: SceneFiles
    scene: Scene
    window: Window


class Ledger:
    """Finished blocks of all files: {file: {block: CRC-32}}; lines are added as blocks are on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, dict[Window, int]] = {}
        fix = "prepare the data again with --overwrite"
        lines = read_text(path, fix=fix).splitlines() if path.is_file() else []
        for line in lines:
            try:
                row = parse_json(line)
            except ValueError:
                continue  # of a writer that was killed
            with as_written(path, fix=fix):
                if "plan" in row:
                    continue
                self.done.setdefault(row["file"], {})[Window(*map(int, row["block"]))] = int(row["crc32"])

    def go_on(self) -> None:
        """End a line that a writer that was killed has not ended."""
        if not self.path.read_bytes().endswith(b"\n"):
            with writing(self.path), open(self.path, "ab") as lines:
                lines.write(b"\n")

    def forget(self, file: str) -> None:
        """What is known of a file that has to be written anew."""
        self.done.pop(file, None)

    def add(self, file: str, sums: Sequence[tuple[Window, int]]) -> None:
        """Note blocks that are on disk."""
        self.done.setdefault(file, {}).update(sums)
        with writing(self.path), open(self.path, "a", encoding="utf-8") as lines:
            for block, crc in sums:
                lines.write(json.dumps({"file": file, "block": list(block), "crc32": crc}) + "\n")


def write_store(
    config: DataConfig,
    out: str | Path,
    *,
    tiling: Tiling | None = None,
    gsd_m: float | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    beside: Callable[[dict[str, Any]], object] = dict,
    on_progress: Tick = unseen,
) -> list[str]:
    """Write the scenes of a config, or their tiles, into a folder; returns sentences about the result.

    beside: gets the manifest, and writes what else belongs into the folder before that counts as finished. gsd_m:
    simulate coarser pixels, neighbours joined (see `coarser`). A dry run opens, cuts and counts, and writes nothing.
    The same call goes on where an earlier one was stopped.
    Memory: two blocks of BLOCK_PX for each core.
    Raises OutputError (the folder holds something else, the disk is full) and whatever opening the scenes raises.
    """
    out = Path(out)
    if config.label != "class":
        raise ConfigError(
            f"data.label: {config.label}: labels of two dates are not prepared",
            fix="train on the files as they are; or prepare the images alone, with data.label: class",
        )
    found = find_scenes(config)
    path = config.target and config.target.path
    if any(files.targets for files in found.scenes) and (not path or (tiling and "*" in path)):
        raise ConfigError(
            "targets of a layout's own, and with tiles those of one file for each scene, are not prepared",
            fix="leave them out here, or give one file for all: data.target.path without *",
        )
    scenes = open_found(found, config)
    files, plan = found.scenes, _plan(config, tiling, gsd_m, scenes)
    if gsd_m is not None:
        scenes, files = coarser(scenes, files, gsd_m)
    tiles = [tile for scene in scenes for tile in cut(scene, tiling)] if tiling else None
    if not dry_run:
        _require_own(out)
    with contextlib.nullcontext() if dry_run else at_work(out, alone=True):
        ledger = None if dry_run else _begin(out, plan, overwrite=overwrite)
        if tiles is not None and not dry_run:
            _write_tiles(out / "tiles.csv", tiles)
        work = [(piece, *_layers(piece, out)) for piece in _pieces(files, scenes, tiles)]
        total = sum(layer.file.num_bytes for _, _, layers in work for layer in layers)
        notes = list(dict.fromkeys([*found.notes, *(note for scene in scenes for note in scene.notes)]))
        if ledger is not None:
            _write_layers([(piece, layers) for piece, _, layers in work], out, ledger, total, on_progress)
            vector = any(is_vector(scene.labels_path) for scene in scenes if scene.labels_path)
            legend = None if vector else scenes[0].legend
            manifest = {
                "version": VERSION, "legend": legend.to_dict() if legend else None, "notes": notes,
                "scenes": [row for _, row, _ in work],
            }  # fmt: skip
            beside(manifest)
            write_text(out / MANIFEST, json.dumps(manifest, indent=1))
    return [f"{out}: {len(work)} scenes, at most {total / 1e9:.3g} GB", *_tell(notes, tiles)]


def _write_layers(
    work: Sequence[tuple[Piece, Sequence[Layer]]], out: Path, ledger: Ledger, total: int, on_progress: Tick
) -> None:
    done = 0
    for piece, layers in work:
        for layer in layers:
            for written in _write_layer(layer, piece.window, out, ledger):
                done += written
                on_progress(done, total)


def _tell(notes: Sequence[str], tiles: Sequence[Tile] | None) -> list[str]:
    lost = Counter(re.sub(r"[\d.]+%", "too much", tile.dropped) for tile in tiles or () if tile.dropped)
    left_out = [f"{count:,} of {len(tiles or ()):,} tiles left out: {reason}" for reason, count in lost.items()]
    return [*(f"note: {note}" for note in notes), *left_out]


def _plan(config: DataConfig, tiling: Tiling | None, gsd_m: float | None, scenes: Sequence[Scene]) -> str:
    """A checksum of everything that decides what is written: settings and the files as they are now."""
    files = [(file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for s in scenes for file in s.files]
    what = [VERSION, BLOCK_PX, config.model_dump(mode="json"), asdict(tiling) if tiling else None, gsd_m, files]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _require_own(out: Path) -> None:
    """Raise OutputError for what is there and is no folder of prepared data, nor an empty one."""
    if not out.exists() or (out.is_dir() and (out / LEDGER).is_file()):
        return
    # A file that only begins with a dot is of a call that was killed before it did anything.
    if not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir()):
        raise OutputError(f"{out} exists and is no folder of prepared data", fix="choose another name")


def _begin(out: Path, plan: str, *, overwrite: bool) -> Ledger:
    """An empty ledger, or that of the same plan; raises OutputError where the folder holds anything else."""
    _require_own(out)
    path = out / LEDGER
    start = json.dumps({"plan": plan})
    if overwrite and path.is_file():
        _clear(out)
    if path.is_file():
        if path.read_text(encoding="utf-8").partition("\n")[0] != start:
            raise OutputError(
                f"{out} holds data that was prepared from other files or settings",
                fix="choose another folder, or start again with --overwrite",
            )
        if (out / MANIFEST).is_file():
            raise OutputError(f"{out} is finished already", fix="add --overwrite to prepare it again")
        ledger = Ledger(path)
        ledger.go_on()
        return ledger
    write_text(path, start + "\n")
    return Ledger(path)


def _clear(out: Path) -> None:
    """Empty a folder so that, wherever that stops, it does not look finished, and still looks like one of ours."""
    with writing(out):
        (out / MANIFEST).unlink(missing_ok=True)
        for path in out.iterdir():
            if path.name not in (LEDGER, LOCK):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (out / LEDGER).unlink()


def _pieces(found: Sequence[SceneFiles], scenes: Sequence[Scene], tiles: Sequence[Tile] | None) -> list[Piece]:
    files = {each.name: each for each in found}
    if tiles is None:
        return [Piece(scene.name, files[scene.name], scene, scene.grid.window) for scene in scenes]
    kept = [tile for tile in tiles if not tile.dropped]
    if not kept:
        raise DataError(f"none of {len(tiles)} tiles is worth keeping", fix="tiles.csv in the folder says why")
    by_name = {scene.name: scene for scene in scenes}
    return [Piece(tile.name, files[tile.scene], by_name[tile.scene], tile.window) for tile in kept]


def _layers(piece: Piece, out: Path) -> tuple[dict[str, Any], list[Layer]]:
    """The row of the manifest, and the files to write."""
    scene, grid = piece.scene, piece.scene.grid.window_grid(piece.window)
    folder = out / piece.name
    layers, images = [], []
    for sensor, raster in scene.rasters.items():
        entries = [image for image in scene.images if (image.sensor or "image") == sensor]
        added = scene.added.get(sensor) or (0.0,) * len(entries)
        for number, (image, add) in enumerate(zip(entries, added, strict=True)):
            one = _numbers_of(raster.of_date(number), image)
            path = folder / f"{sensor}_{number + 1}.tif"
            layers.append(_image_layer(path, grid, one, add))
            offset = 0.0 if image.offset == "auto" and image.sensor == "sentinel2" else image.offset
            images.append({
                "path": str(path.relative_to(out)), "sensor": image.sensor, "date": image.date, "scale": image.scale,
                "offset": offset, "quantity": image.quantity,
            })  # fmt: skip
    labels = {}
    for name, file in piece.files.labels.items():
        if is_vector(file.path):
            labels[name] = str(Path(file.path).resolve())  # objects would be lost among pixels
        elif (layer := _label_layer(name, folder / f"{name}.tif", grid, scene, file)) is not None:
            layers.append(layer)
            labels[name] = str(layer.file.path.relative_to(out))
    row = {
        "name": piece.name, "scene": scene.name, "images": images, "labels": labels,
        **{key: getattr(piece.files, key) for key in ("part", "place", "chip_class", "chip_classes")},
    }  # fmt: skip
    return row, layers


def _numbers_of(raster: Raster, image: ImageConfig) -> Raster:
    """The raster with radar as it is in the files: a model has to know of the dB to take them of other scenes."""
    if image.quantity is None:
        return raster
    if any(raster.differences):
        raise ConfigError(
            f"{raster.name}: differences of dB cannot be prepared",
            fix="prepare the bands by themselves: leave the difference out of use",
        )
    return raster.in_decibel(None)


def _image_layer(path: Path, grid: Grid, raster: Raster, add: float) -> Layer:
    dtype = _dtype(raster, add)
    nodata: float | None = raster.nodata if raster.nodata is not None else open_dataset(raster.paths[0]).nodata
    if np.dtype(dtype).kind == "f":
        nodata = float("nan")
    elif np.dtype(dtype).kind == "i":
        nodata = float(np.iinfo(dtype).min)

    def read(window: Window) -> Part:
        values, valid = raster.read(window)
        return (values[0].astype(np.float32) + np.float32(add) if add else values[0]), valid[0]

    return Layer(PlainFile(path, grid, raster.bands, dtype, nodata), read)


def _dtype(raster: Raster, add: float) -> str:
    """Whole numbers stay whole if no more than an offset is added; resampled elevation keeps its fractions."""
    files = raster.by_file()
    own = np.result_type(*(np.dtype(file.dtype) for file in files))
    parts = [part for source in raster.sources[0] for part in source.parts]
    shifts = {add + part.add for part in parts}
    whole = all(part.gain == 1 and part.minus is None for part in parts) and all(s.is_integer() for s in shifts)
    same = all(file.grid.is_same(raster.grid) for file in files)
    if own.kind not in "iu" or not whole or (not same and own.kind == "i"):
        return raster.dtype
    return own.name if shifts == {0.0} else "int16" if own.itemsize <= 2 else "int32"


def _label_layer(name: str, path: Path, grid: Grid, scene: Scene, file: LabelFile) -> Layer | None:
    legend = scene.legend
    if name == "class" and legend is not None:
        return Layer(
            PlainFile(path, grid, ("class",), legend.map_dtype, legend.map_nodata),
            lambda window: (legend.decode(index := scene.read_labels(window))[None], index != IGNORE),
        )
    dataset = open_dataset(file.path)
    if not grid_of(dataset).is_same(scene.grid):
        scene.notes.append(f"{file.path} lies on another grid than the image and is not prepared")
        return None

    def read(window: Window) -> Part:
        codes, valid = file.read(open_dataset(file.path), window, open_dataset(file.path).nodata)
        return codes[None], valid

    return Layer(PlainFile(path, grid, (name,), "int32", float(np.iinfo(np.int32).min)), read)


def _write_layer(layer: Layer, window: Window, out: Path, ledger: Ledger) -> Iterator[int]:
    """Write what the ledger lacks of a file; yields the bytes of each row of blocks."""
    file, key = layer.file, str(layer.file.path.relative_to(out))
    if not file.holds(ledger.done.get(key, {}), window.within(window)):
        file.remove()
        ledger.forget(key)
    for row in partition(window, BLOCK_PX, window.width):
        blocks = list(partition(row, BLOCK_PX, BLOCK_PX))
        done = ledger.done.get(key, {})
        todo = [block for block in blocks if block.within(window) not in done]
        if todo:
            parts = map_unordered(lambda block: (block.within(window), *layer.read(block)), todo, workers=cores())
            ledger.add(key, file.write(parts))
        yield file.num_bytes * row.height // window.height
    if not file.path.is_file():
        file.finish()


def _write_tiles(path: Path, tiles: Sequence[Tile]) -> None:
    header = ["tile", "scene", "row", "col", "height", "width", "valid", "labelled", "classes", "dropped"]
    rows = [
        [t.name, t.scene, *t.window, f"{t.valid:.4f}", f"{t.labelled:.4f}", "; ".join(t.classes), t.dropped]
        for t in tiles
    ]
    write_text(path, csv_text(header, rows))


def read_manifest(root: Path) -> dict[str, Any]:
    """What store.json says; raises DataError for a folder without one, or one that was not finished."""
    path = root / MANIFEST
    if not path.is_file():
        unfinished = (root / LEDGER).is_file()
        raise DataError(
            f"{root} holds no finished prepared data ({MANIFEST} is missing)",
            fix="run the same covermap prepare again: it goes on" if unfinished else "covermap prepare CONFIG FOLDER",
        )
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION or not isinstance(found["scenes"], list):
            raise DataError(f"{path} is of another version", fix="prepare the data again")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error})", fix="prepare the data again") from error
    return dict(found)


def verify(root: Path) -> list[str]:
    """Names of files that are missing or differ from the checksums of the ledger; reads everything once."""
    bad = []
    for name, blocks in Ledger(root / LEDGER).done.items():
        grid = Grid(None, Affine.identity(), 0, 0)
        file = PlainFile(root / name, grid, (), "uint8", None)
        try:
            whole = file.path.is_file() and all(file.read_sum(block) == crc for block, crc in blocks.items())
        except (OSError, ValueError):  # a name or block that cannot be: the ledger is damaged
            whole = False
        if not whole:
            bad.append(name)
    return bad
