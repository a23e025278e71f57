"""Paths -> layers: what a GeoTIFF, a sample, a run or a folder holds, laid on one frame, the uppermost first.

What cannot be shown is listed with its reason. Only files that are found here are ever opened.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rasterio

from covermap.core.errors import CovermapError, DataError
from covermap.core.legend import Legend, load_legend
from covermap.core.progress import Say, silent
from covermap.core.run import Run
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.delivered import find_granule
from covermap.geo.products import LAYERS, layer_beside
from covermap.view.dates import link
from covermap.view.frame import Frame, frame_of
from covermap.view.local_files import OFFLINE
from covermap.view.raster_layer import RasterLayer, problem_of, read_layer
from covermap.view.sample_layer import SampleLayer, read_sample

MOST_LAYERS = 40
_SHIFT_PX = 0.02
_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_SAMPLES = (".gpkg", ".csv")
_ORDER = ("change", "classes", "number", "probabilities", "image")


@dataclass(frozen=True)
class _Given:
    """A raster to show, and what is known of it already. inside: the folder in which it was found."""

    path: Path
    legends: tuple[Legend, ...] = ()
    sensor: str | None = None
    bands: tuple[str, ...] | None = None
    as_codes: bool = False
    inside: Path | None = None
    date: str | None = None


@dataclass
class View:
    """All that is shown. rasters: from the uppermost down."""

    title: str
    frame: Frame
    rasters: list[RasterLayer]
    samples: list[SampleLayer]
    skipped: list[str]
    notes: list[str]
    given: dict[str, _Given] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def raster(self, name: str) -> RasterLayer | None:
        """A raster by its id, as its file is now; raises CovermapError where that can no longer be shown."""
        number = next((i for i, one in enumerate(self.rasters) if one.id == name), None)
        if number is None:
            return None
        if self.rasters[number].on_disk != self.rasters[number].version:
            with self._lock:
                self._refresh(number)
        return self.rasters[number]

    def _refresh(self, number: int) -> None:
        old = self.rasters[number]
        if old.on_disk == old.version:
            return
        new = _read(self.given[old.id])
        self.frame.box(new.grid)  # raises GridError
        if self.frame.crs is None and not new.grid.is_same(old.grid):
            raise DataError(f"{old.name} has another grid than before", fix="start covermap view again")
        new.id, new.of, new.date = old.id, old.of, new.date or old.date
        self.rasters[number] = new

    def sample(self, name: str) -> SampleLayer | None:
        """A sample by its id."""
        return next((one for one in self.samples if one.id == name), None)

    def to_dict(self) -> dict[str, Any]:
        """view.json without what depends on who asks; files that changed are read again."""
        layers: list[dict[str, Any]] = []
        skipped = list(self.skipped)
        for sample in self.samples:
            try:
                sample.refresh()
                layers.append(sample.to_dict() | {"pixel": self._pixel(sample.of)})
            except CovermapError as error:
                skipped.append(f"{sample.name}: {error.message}")
        for one in [each.id for each in self.rasters]:
            try:
                raster = self.raster(one)
                assert raster is not None
                layers.append(self._placed(raster))
            except (CovermapError, *GDAL_ERRORS) as error:
                skipped.append(f"{one}: {problem_of(error)}")
        return {
            "title": self.title, "static": False, "frame": self.frame.to_dict(), "layers": layers, "skipped": skipped,
            "notes": self.notes,
        }  # fmt: skip

    def _placed(self, raster: RasterLayer) -> dict[str, Any]:
        one = raster.to_dict() | {"bounds": [round(v, 4) for v in self.frame.box(raster.grid)]}
        one |= {
            "pixel": self._pixel(raster),
            "exact": self.frame.is_exact(raster.grid),
        }
        if raster.kind == "probabilities" and raster.of:
            of = next((each for each in self.rasters if each.id == raster.of), None)
            colours = {each.name: each.colour for each in of.classes} if of else {}
            for each in one["classes"]:
                each["colour"] = colours.get(each["name"].lower(), colours.get(each["name"], "#888888"))
        return one

    def _pixel(self, raster: RasterLayer | None) -> float:
        """Side of a raster's own pixel, in pixels of the frame."""
        if raster is None:
            return 1.0
        left, _, right, _ = self.frame.box(raster.grid)
        return round((right - left) / raster.grid.width, 4)


def open_view(paths: Sequence[str | Path], say: Say = silent) -> View:
    """Find and open all that some paths hold; raises DataError where nothing of it can be shown."""
    if not paths:
        raise DataError("nothing to show", fix="covermap view FILE_OR_FOLDER...")
    skipped: list[str] = []
    notes: list[str] = []
    with rasterio.Env(**OFFLINE):
        given, samples = _collect([Path(path) for path in paths], skipped, notes)
        view = _opened(readable(_title(paths)), given, samples, skipped, notes, say)
    notes[:], skipped[:] = map(readable, notes), map(readable, skipped)
    return view


def _opened(
    title: str, given: list[_Given], samples: list[Path], skipped: list[str], notes: list[str], say: Say
) -> View:  # fmt: skip
    if len(given) > MOST_LAYERS:
        notes.append(
            f"{len(given):,} rasters were found, {MOST_LAYERS} of them are shown: give those that you want by name"
        )
        given = given[:MOST_LAYERS]
    rasters, by_path = [], {}
    for one in given:
        say(f"reading {one.path.name}")
        try:
            rasters.append(_read(one))
            by_path[one.path] = one
        except (CovermapError, *GDAL_ERRORS) as error:
            skipped.append(f"{one.path.name}: {problem_of(error)}")
    if not rasters:
        raise DataError(
            "nothing of it can be shown" + "".join(f"\n  {readable(line)}" for line in skipped[:20]),
            fix="give a GeoTIFF, a run's folder, or a folder that holds rasters; a sample needs its map beside it",
        )
    rasters = _in_order(rasters)
    frame, refused = frame_of([one.grid for one in rasters], _first(rasters).grid)
    skipped += [f"{rasters[number].name}: {why}" for number, why in refused.items()]
    rasters = [one for number, one in enumerate(rasters) if number not in refused]
    _name(rasters)
    link(rasters)
    rasters = _in_order(rasters)  # by dates that are known now
    notes += [
        f"{layer.name}: its overviews hold classes that it does not have (means of codes?) and are not used, "
        "it is slow when zoomed out (gdaladdo -clean FILE, then gdaladdo -r mode FILE 2 4 8 16 32)"
        for layer in rasters
        if layer.made_up
    ]
    for layer in rasters:
        off = frame.shift(layer.grid) if frame.is_straight(layer.grid) else 0.0
        if off >= _SHIFT_PX:
            notes.append(f"{layer.name} lies {off:.2f} px off the grid of the others: drawn to the nearest pixel")
    slow = [one.name for one in rasters if not one.overviews and not one.made_up]
    if slow:
        notes.append(
            f"{', '.join(slow[:5])}{' ...' if len(slow) > 5 else ''}: without overviews, slow when zoomed out "
            "(gdaladdo FILE 2 4 8 16 32, or -r mode for classes)"
        )
    view = View(title, frame, rasters, [], skipped, notes, {one.id: by_path[one.path] for one in rasters})
    taken = {one.id for one in rasters}
    for path in samples:
        try:
            sample = read_sample(path, frame, rasters)
        except (CovermapError, OSError) as error:
            skipped.append(f"{path.name}: {problem_of(error)}")
            continue
        sample.id = _slug(path.stem, taken)
        if sample.strange:
            notes.append(f"{sample.strange:,} references of {path.name} are no class of its map")
        if sample.outside:
            notes.append(f"{sample.outside:,} of {len(sample.points):,} points of {path.name} lie outside of its map")
        view.samples.append(sample)
    return view


def _first(rasters: Sequence[RasterLayer]) -> RasterLayer:
    """Whose lattice the frame takes: of those on which others can be laid, north up before others, the first map."""

    def fits(one: RasterLayer) -> tuple[bool, bool, bool]:
        to, crs = one.grid.transform, one.grid.crs
        turned = crs is None or bool(to.b or to.d)
        return turned, to.a <= 0 or to.e >= 0, one.kind not in ("classes", "change")

    return min(rasters, key=fits)


def _read(one: _Given) -> RasterLayer:
    found = read_layer(
        one.path, legends=one.legends, layer=_layer_of(one.path), sensor=one.sensor, bands=one.bands,
        as_codes=one.as_codes, inside=one.inside,
    )  # fmt: skip
    found.date = one.date or found.date
    return found


def _layer_of(path: Path) -> str | None:
    """Which layer of a map a raster is, by its name and the map beside it."""
    return next((key for key, _ in _maps_beside(path)), None)


def _maps_beside(path: Path) -> Iterable[tuple[str, Path]]:
    for key in LAYERS:
        stem = "map" if path.stem == key else path.stem.removesuffix(f"_{key}")
        source = path.with_name(f"{stem}.tif")
        if source != path and layer_beside(source, key) == path and source.is_file():
            yield key, source


def _in_order(rasters: Sequence[RasterLayer]) -> list[RasterLayer]:
    """By kind; of a kind the latest first, then those without a date, whose names often end in one."""
    found: list[RasterLayer] = []
    for kind in _ORDER:
        mine = [(one.date or "", one) for one in rasters if one.kind == kind]
        found += [one for _, one in sorted((each for each in mine if each[0]), key=lambda each: each[0], reverse=True)]
        found += sorted((one for date, one in mine if not date), key=lambda one: one.name, reverse=True)
    return found


def _name(rasters: Sequence[RasterLayer]) -> None:
    """Give ids, and to layers of a map that of the map."""
    taken: set[str] = set()
    for one in rasters:
        one.id = _slug(one.path.stem, taken)
    by_path = {one.path: one.id for one in rasters}
    for one in rasters:
        if one.kind in ("number", "probabilities"):
            one.of = next((by_path[source] for _, source in _maps_beside(one.path) if source in by_path), None)


def _slug(name: str, taken: set[str]) -> str:
    """An id that can stand in an address; of names in other letters a number."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")[:60] or "layer"
    found, number = base, 1
    while found in taken:
        number += 1
        found = f"{base}-{number}"
    taken.add(found)
    return found


def readable(text: str) -> str:
    """A text that can be printed and sent: what is not UTF-8 in a file's name becomes ?."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _title(paths: Sequence[str | Path]) -> str:
    first = Path(paths[0]).resolve()
    return first.name if len(paths) == 1 else f"{first.name} and {len(paths) - 1} more"


def _collect(paths: Sequence[Path], skipped: list[str], notes: list[str]) -> tuple[list[_Given], list[Path]]:
    """Rasters and samples of all paths, each once, in order."""
    rasters: dict[Path, _Given] = {}
    samples: dict[Path, None] = {}
    for path in paths:
        try:
            found = _of_path(path, notes)
        except CovermapError as error:
            skipped.append(f"{path.name}: {error.message}")
            continue
        for one in found:
            place = str((one.path if isinstance(one, _Given) else one).absolute())
            if readable(place) != place:  # which neither GDAL nor a page can be told
                skipped.append(f"{Path(place).name}: its name or that of its folder is not in UTF-8: rename it")
            elif isinstance(one, _Given):
                rasters.setdefault(one.path.absolute(), one)
            else:
                samples.setdefault(one.absolute())
    return list(rasters.values()), list(samples)


def _of_path(path: Path, notes: list[str]) -> list[_Given | Path]:
    if not path.exists():
        raise DataError("there is no such file or folder")
    if find_granule(path) is not None:
        raise DataError("a product as it is delivered: make a GeoTIFF of it first (covermap prepare)")
    if path.is_file():
        if path.suffix.lower() in _SAMPLES:
            return [path]
        return [_Given(path, _legends_in(path.parent))]
    if _is_run(path):
        return _of_run(path, path, notes)
    inner = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    inner = [one for one in inner if _stays(one, path, notes)]
    runs = [one for one in inner if _is_run(one)]
    found: list[_Given | Path] = []
    if len(runs) == 1:
        found += _of_run(runs[0], path, notes)
    elif runs:
        notes.append(f"{path.name} holds {len(runs)} runs, which are not shown: give one ({runs[0].name}, ...)")
    for folder in [path, *(one for one in inner if one not in runs)]:
        found += _in_folder(folder, path, _legends_in(path), notes)
    return found


def _is_run(path: Path) -> bool:
    return all((path / name).is_file() for name in ("config.yaml", "versions.json"))


def _in_folder(folder: Path, viewed: Path, legends: tuple[Legend, ...], notes: list[str]) -> list[_Given | Path]:
    """Rasters and samples of a folder but hidden ones; links that lead out of the viewed one are told instead."""
    found: list[_Given | Path] = []
    for one in sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")):
        is_raster = one.suffix.lower() in _RASTERS
        if (is_raster or _may_be_sample(one)) and _stays(one, viewed, notes):
            found.append(_Given(one, legends, inside=viewed) if is_raster else one)
        elif _looks_like_sample(one):
            notes.append(
                f"{one.name} may be a sample, but {one.stem}.design.json, which covermap sample writes, is gone"
            )
    return found


def _stays(one: Path, viewed: Path, notes: list[str]) -> bool:
    """Whether a file or folder lies in the viewed folder itself, and not behind a link."""
    inside = one.resolve().is_relative_to(viewed.resolve())
    if not inside:
        notes.append(f"{one.name} is a link that leads out of {viewed.resolve().name}: give it by name to see it")
    return inside


def _may_be_sample(path: Path) -> bool:
    """A design beside it; tables that verbs write have none."""
    return path.suffix.lower() in _SAMPLES and path.with_suffix(".design.json").is_file()


def _looks_like_sample(path: Path) -> bool:
    """A CSV with the columns of one."""
    if path.suffix.lower() != ".csv":
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        head = {word.strip().strip('"') for word in re.split("[,;\t]", file.readline(1000))}
    return {"id", "x", "y", "reference"} <= head


def _of_run(folder: Path, viewed: Path, notes: list[str]) -> list[_Given | Path]:
    """Maps and their layers, samples, and the images and labels that the config names."""
    legends = _legends_in(folder)
    found: list[_Given | Path] = []
    stated: list[_Given] = []
    try:
        data = Run.open(folder).config.data
        if data.legend is not None:
            legends = (load_legend(data.legend), *legends)
        images = data.image if isinstance(data.image, list) else []
        each = [(path, one.sensor, one.bands, one.date) for one in images for path in _listed(one.path)]
        each += [(path, data.sensor, data.bands, None) for path in _listed(data.image if not images else None)]
        stated += [
            _Given(Path(path), legends, sensor, tuple(bands or ()) or None, date=date)
            for path, sensor, bands, date in each
        ]
        stated += [_Given(Path(path), legends, as_codes=True) for path in _listed(data.labels)]
    except CovermapError as error:
        notes.append(f"the config of {folder.name} cannot be read: {error.message}")
    found += _in_folder(folder, viewed, legends, notes)
    if (folder / "maps").is_dir() and _stays(folder / "maps", viewed, notes):
        found += _in_folder(folder / "maps", viewed, legends, notes)
    for one in stated:
        found += _stated(one, folder, notes)
    return found


def _listed(given: str | Sequence[Any] | None) -> list[str]:
    """One path or several; nothing else."""
    if isinstance(given, str):
        return [given]
    return [one for one in given or () if isinstance(one, str)]


def _stated(one: _Given, folder: Path, notes: list[str]) -> list[_Given]:
    """A raster that a config names, or those of a folder; a run that was moved with its data has it beside itself."""
    for path in (folder.parent / one.path.name, one.path):
        if path.is_dir():
            every = sorted(each for each in path.iterdir() if each.suffix.lower() in _RASTERS)
            return [replace(one, path=each, inside=path) for each in every if _stays(each, path, notes)]
        if path.is_file():
            known = path.suffix.lower() in _RASTERS
            return [replace(one, path=path)] if known else []
    notes.append(f"{one.path.name}, which the config of {folder.name} names, is not there")
    return []


def _legends_in(folder: Path) -> tuple[Legend, ...]:
    """legend.yaml of a folder, for codes that nobody explains."""
    try:
        return (load_legend(folder / "legend.yaml"),) if (folder / "legend.yaml").is_file() else ()
    except CovermapError:
        return ()
