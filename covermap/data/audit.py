"""Faults of a data set, all of them at once: what training would stop at, and what it would swallow.

Files are paired and opened as for training, but what is wrong is collected instead of raised. Every image file is read
once, in windows; labels as codes, and again as classes through the split.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rasterio.warp import reproject

from covermap.core.config import RunConfig
from covermap.core.engine import cores, map_unordered
from covermap.core.errors import CovermapError, LabelError, UnreadableError
from covermap.core.progress import Tick, unseen
from covermap.core.task import KINDS
from covermap.data.blocks import cut
from covermap.data.labels import RasterLabels, find_legend
from covermap.data.make_split import make_split
from covermap.data.overlap import neighbours
from covermap.data.reference import side_of_windows
from covermap.data.scene import Scene, open_found
from covermap.data.source import find_scenes
from covermap.data.split import Split, part_counts
from covermap.data.store import verify
from covermap.data.transitions import Changed, chosen_labels
from covermap.geo.grid import Window, partition
from covermap.geo.raster import Raster, grid_of, open_dataset, own_file

BLOCK_PX, JOB_WINDOWS, MIN_PX = 1024, 4, 64
"""Side of a window; windows of a file that are read in turn; valid pixels from which on a channel should vary."""
ODD_ONES = 0.1
"""Of at least 5 files of a folder, so small a share that differs from the others in size or type is a fault."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with some files, and how often (files, pixels, windows or bands, as `told` says).

    leave_out: names by which data.leave_out takes the files away, where nothing else mends it.
    """

    kind: str
    told: str
    files: tuple[str, ...] = ()
    count: int = 1
    leave_out: tuple[str, ...] = ()


@dataclass
class Audit:
    """Faults, notes, the scenes that can be used, their split, labelled pixels of each class by scene and by part."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    split: Split | None = None
    classes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    parts: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def add(self, kind: str, told: str, files: Sequence[str], count: int = 1, names: Sequence[str] = ()) -> None:
        """Keep a fault, once, with its files in words."""
        if files and not any(file in told for file in files):
            told += f": {', '.join(files[:5])}" + (" ..." if len(files) > 5 else "")
        fault = Fault(kind, told, tuple(files), int(count), tuple(names))
        self.faults += [fault] if fault not in self.faults else []

    def refuse(self, kind: str, error: CovermapError, files: Sequence[str], names: Sequence[str]) -> None:
        """Keep what finding and opening scenes would raise."""
        self.add(kind, error.message, files, max(1, len(files)) if kind == "no partner" else 1, names)


class _Seen(NamedTuple):
    """What a window of a file holds: checksum, NaN and inf, least and largest valid number by band, valid pixels."""

    window: Window
    checksum: bytes = b""
    nan: Any = 0
    inf: Any = 0
    low: Any = np.inf
    high: Any = -np.inf
    valid: int = 0
    damage: str = ""


def audit_data(config: RunConfig, *, on_progress: Tick = unseen) -> Audit:
    """Look for faults in all data of a config.

    Memory: a window of BLOCK_PX of all bands of a file for each core, and some numbers for each window.
    """
    audit = Audit()
    data = config.data.model_copy(update={"unknown_codes": "ignore"})
    try:
        found = find_scenes(data, refuse=audit.refuse)
        chosen = chosen_labels(found, data).scenes
        own = ("class", "before", "after")
        paths = [files.labels[key].path for files in chosen for key in own if key in files.labels]
        paths = list(dict.fromkeys(paths))
        masks = data.label != "class" and any("change" in files.labels for files in chosen)
        labels = bool(paths) or masks or any(files.chip_class is not None for files in chosen)
        try:
            if labels and not (masks and not paths):
                find_legend(data, paths, own=found.legend)
        except CovermapError as error:
            audit.add("label values", error.message, paths if len(paths) == 1 else ())
            labels = False
        audit.scenes = open_found(found, data, labels=labels, refuse=audit.refuse)
    except CovermapError as error:
        if error.message not in [fault.told for fault in audit.faults]:
            audit.add("cannot be opened", error.message, ())
        return audit
    audit.notes += dict.fromkeys(note for scene in audit.scenes for note in scene.notes)
    _scan(audit, on_progress)
    if data.source == "prepared" and (wrong := verify(Path(str(data.root)))):
        audit.add("checksum", f"{len(wrong)} files differ from what prepare wrote", wrong, len(wrong))
    if labels:
        _judge_labels(audit, config)
    return audit


def _scan(audit: Audit, on_progress: Tick) -> None:
    """Read all image files and judge them; scenes that cannot be used are taken out of the audit."""
    scenes = audit.scenes
    files: dict[int, list[Raster]] = {}
    seen: dict[tuple[int, int], list[_Seen]] = defaultdict(list)
    shares = {i: -(-len(_windows(scene.grid.window)) // JOB_WINDOWS) for i, scene in enumerate(scenes)}
    jobs = [(i, k) for i, n in shares.items() for k in range(n)]

    def read(job: tuple[int, int]) -> tuple[int, list[Raster], list[list[_Seen]]]:
        i, k = job
        mine = [file for raster in scenes[i].rasters.values() for file in raster.by_file()]
        return i, mine, [[_look(file, w) for w in _windows(file.grid.window)[k :: shares[i]]] for file in mine]

    for done, (i, mine, found) in enumerate(map_unordered(read, jobs, workers=cores()), 1):
        on_progress(done, len(jobs))
        files[i] = mine
        for number, rows in enumerate(found):
            seen[i, number] += rows
    bad, same = set(), defaultdict(list)
    for i, scene in enumerate(scenes):
        by_file = [sorted(seen[i, number]) for number in range(len(files[i]))]
        unusable = [_judge_file(audit, scene.name, *pair) for pair in zip(files[i], by_file, strict=True)]
        bad |= {scene.name} if any(unusable) else set()
        if any(np.any(row.low < row.high) for rows in by_file for row in rows):
            same[tuple(row.checksum for rows in by_file for row in rows)].append(scene)
    for first, *others in same.values():
        if others:
            told = f"{', '.join(s.name for s in (first, *others))} hold the same pixels"
            paths = [own_file(s.paths[0]) for s in (first, *others)]
            audit.add("duplicate", told, paths, len(others), [s.name for s in others])
    _judge_folders(audit, [file for i in sorted(files) for file in files[i]])
    _judge_offsets(audit, scenes)
    audit.scenes = [scene for scene in scenes if scene.name not in bad]


def _windows(area: Window) -> list[Window]:
    return list(partition(area, BLOCK_PX, BLOCK_PX))


def _look(file: Raster, window: Window) -> _Seen:
    try:
        values, valid = (part[0] for part in file.read(window))
    except UnreadableError as error:
        return _Seen(window, damage=error.message)
    checksum = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).digest()
    nodata = file.nodata if file.nodata is not None else open_dataset(file.paths[0]).nodata
    empty = nodata is not None and np.isnan(nodata)
    nan = np.zeros(len(values), int) if empty else np.isnan(values).sum((1, 2))
    known = values[:, valid].astype(float)
    low, high = (known.min(1), known.max(1)) if valid.any() else (np.inf, -np.inf)
    return _Seen(window, checksum, nan, np.isinf(values).sum((1, 2)), low, high, int(valid.sum()))


def _judge_file(audit: Audit, name: str, file: Raster, rows: Sequence[_Seen]) -> bool:
    """Whether the scene cannot be used because of this file."""
    path = own_file(file.paths[0])
    if damage := [row.damage for row in rows if row.damage]:
        audit.add("unreadable", damage[0], [path], len(damage), [name])
        return True
    for kind, counts in (("NaN", sum(row.nan for row in rows)), ("Inf", sum(row.inf for row in rows))):
        if np.any(counts):
            listed = ", ".join(f"{band} {n:,} px" for band, n in zip(file.bands, counts, strict=True) if n)
            audit.add(kind, f"{path} holds {kind} that is not its nodata value: {listed}", [path], np.sum(counts))
    valid = sum(row.valid for row in rows)
    if not valid:
        audit.add("no data", f"{path} holds no valid pixel", [path], 1, [name])
        return True
    ends: dict[str, set[float]] = {}  # of a band of several dates in one file: weather may be alike on each
    for row in (row for row in rows if row.valid):
        for band, low, high in zip(file.bands, row.low, row.high, strict=True):
            ends.setdefault(band, set()).update((low, high))
    flat = [band for band, values in ends.items() if len(values) == 1]
    if flat and valid >= MIN_PX:
        audit.add("constant channel", f"{path}: {', '.join(flat)} has one value everywhere", [path], len(flat))
    return False


def _judge_folders(audit: Audit, files: Sequence[Raster]) -> None:
    """The odd ones among the files of a folder with the same bands, by size, type and whether they have a CRS."""
    folders: dict[Any, dict[str, Raster]] = defaultdict(dict)
    for file in files:
        path = own_file(file.paths[0])
        folders[Path(path).parent, file.bands][path] = file
    looks: dict[str, Callable[[Raster], str]] = {
        "size": lambda file: f"{file.grid.height} x {file.grid.width} px", "type": lambda file: file.dtype,
        "CRS": lambda file: "a CRS" if file.grid.crs else "no CRS",
    }  # fmt: skip
    for (folder, _), group in folders.items():
        for what, look in looks.items():
            found: dict[str, list[str]] = defaultdict(list)
            for path, file in group.items():
                found[look(file)].append(path)
            (most, _), *rest = Counter({each: len(paths) for each, paths in found.items()}).most_common()
            for odd, num in rest:
                told = f"{folder}: {num} of {len(group)} files have {odd}, most have {most}"
                if what == "CRS" or (len(group) >= 5 and num <= max(1, ODD_ONES * len(group))):
                    audit.add(f"odd {what}", told, found[odd], num)
                else:
                    audit.notes.append(told)


def _judge_offsets(audit: Audit, scenes: Sequence[Scene]) -> None:
    for sensor in scenes[0].added:
        images = [(s.rasters[sensor].of_date(t).paths[0], add) for s in scenes for t, add in enumerate(s.added[sensor])]
        shifted = [own_file(path) for path, add in images if add]
        if 0 < len(shifted) < len(images):
            told = (
                f"{sensor}: {len(shifted)} of {len(images)} images carry the +1000 of baseline 04.00 (taken off here)"
            )
            audit.add("offset mixed", told, shifted, len(shifted))


def _judge_labels(audit: Audit, config: RunConfig) -> None:
    """Codes of the files, pixels of each class by scene and part, scenes without labels, ground in two parts."""
    _judge_codes(audit, error=config.data.unknown_codes == "error")
    labelled = [scene for scene in audit.scenes if scene.labels is not None]
    for scene in labelled:
        audit.classes[scene.name] = np.sum([block.counts for block in cut([scene], BLOCK_PX, {})], 0)
    bare = [scene for scene in audit.scenes if scene.labels is None]
    empty = [scene for scene in labelled if not audit.classes[scene.name].any()]
    for kind, what, found in (("no partner", "labels", bare), ("nothing labelled", "labelled pixel", empty)):
        if found:
            files = [s.labels_path or own_file(s.paths[0]) for s in found]
            told = f"{len(found)} of {len(audit.scenes)} scenes have no {what}"
            audit.add(kind, told, files, len(found), [scene.name for scene in found])
    try:
        audit.split = _split(labelled, config) if labelled else None
    except CovermapError as error:
        audit.add("split", error.message, ())
    if audit.split is not None:
        audit.notes += audit.split.notes
        audit.parts = part_counts(audit.split, labelled)
        _judge_overlaps(audit, audit.split, labelled)


def _split(scenes: Sequence[Scene], config: RunConfig) -> Split:
    chips = KINDS[config.task_section.name].chips
    return make_split(scenes, config.split, size_px=side_of_windows(scenes, config), chips=chips)


def _rasters(scene: Scene) -> list[RasterLabels]:
    """The label rasters of a scene: its own, or those of two dates and their mask."""
    pair = scene.labels.target if isinstance(scene.labels, Changed) else None
    found = (pair.before, pair.after, pair.mask) if pair else (scene.labels,)
    return [one for one in found if isinstance(one, RasterLabels)]


def _judge_codes(audit: Audit, *, error: bool) -> None:
    """Codes of label rasters that the legend does not know, and files of which a part is damaged."""
    labels, names = dict[str, RasterLabels](), dict[str, list[str]]()
    for scene in audit.scenes:
        for one in _rasters(scene):
            labels[one.source] = one
            names.setdefault(one.source, []).append(scene.name)

    def count(key: str) -> tuple[str, Counter[float], CovermapError | None]:
        counts = Counter[float]()
        try:
            for window in _windows(grid_of(open_dataset(key)).window):
                codes, valid = labels[key].file.read(open_dataset(key), window, labels[key].nodata)
                values, numbers = np.unique(codes[valid], return_counts=True)
                counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
        except (UnreadableError, LabelError) as trouble:
            return key, counts, trouble
        return key, counts, None

    for key, counts, trouble in map_unordered(count, list(labels), workers=cores()):
        path = labels[key].path
        if trouble is not None:
            kind = "unreadable" if isinstance(trouble, UnreadableError) else "label values"
            audit.add(kind, trouble.message, [path], 1, names[key])
            audit.scenes = [scene for scene in audit.scenes if scene.name not in names[key]]
        for code, num in sorted(counts.items()):
            try:
                labels[key].legend.encode(np.array([code]))
            except LabelError:
                told = f"{path} holds code {code:g}, which the legend does not know: {num:,} px"
                if error:
                    audit.add("label values", told, [path], num)
                else:
                    audit.notes.append(told)


def _judge_overlaps(audit: Audit, split: Split, scenes: Sequence[Scene]) -> None:
    """Ground that two scenes show, of which a pixel stands in one part here and in another there."""
    pairs = neighbours(scenes, {scene.name for scene in scenes}, 0)
    for one, two in (pair for pair in pairs if pair[0].name < pair[1].name):
        shared = sum(_in_two_parts(split, one, two, window) for window in _windows(one.grid.window))
        if shared:
            told = f"{one.name} and {two.name} show the same ground in different parts of the split: {shared:,} px"
            audit.add("overlap", told, [own_file(one.paths[0]), own_file(two.paths[0])], shared)


def _in_two_parts(split: Split, one: Scene, two: Scene, window: Window) -> int:
    there = two.grid.window_of(one.grid, window).intersect(two.grid.window)
    mine = split.part_mask(one.name, window)
    other = split.part_mask(two.name, there) if not there.is_empty else mine
    if len({*np.unique(mine).tolist(), *np.unique(other).tolist()} - {0}) < 2 or other is mine:
        return 0
    here, place = one.grid.window_grid(window), two.grid.window_grid(there)
    known = {"src_transform": place.transform, "src_crs": place.crs}
    theirs, _ = reproject(other, np.zeros_like(mine), dst_transform=here.transform, dst_crs=here.crs, **known)
    return int(((mine > 0) & (theirs > 0) & (mine != theirs)).sum())
