"""Coarser pixels, simulated over neighbours: 16 chips of 1 m make one of 4 m, images averaged, labels by mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from covermap.core.errors import ConfigError, DataError, GridError
from covermap.core.legend import IGNORE, Legend
from covermap.data.labels import RasterLabels
from covermap.data.scene import Scene
from covermap.data.source import SceneFiles
from covermap.geo.band_source import BandSource
from covermap.geo.classes import reduce_classes
from covermap.geo.grid import Grid, Window
from covermap.geo.mosaic import mosaic
from covermap.geo.raster import Raster

Member = tuple[Scene, SceneFiles, Window]
"""A scene, its files, and where it lies among those that it is joined with, in fine pixels."""


@dataclass(frozen=True)
class CoarseLabels:
    """Labels of scenes side by side, by mode of factor x factor pixels."""

    members: Sequence[tuple[Window, RasterLabels]]
    legend: Legend
    factor: int

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class indices (H, W) of a window of the coarse grid; IGNORE where no scene lies."""
        fine = Window(*(n * self.factor for n in window))
        index = np.full((fine.height, fine.width), IGNORE, np.uint8)
        for place, labels in self.members:
            part = fine.intersect(place)
            if not part.is_empty:
                index[part.within(fine).slices] = labels.read(part.within(place))
        return reduce_classes(index, self.factor, len(self.legend))


def coarser(scenes: Sequence[Scene], files: Sequence[SceneFiles], gsd_m: float) -> tuple[list[Scene], list[SceneFiles]]:
    """Scenes with pixels of `gsd_m` metres, a whole multiple of theirs, and their files, of which the names count.

    Joined are scenes of one part, place and dates that touch each other. Raises DataError (no place on the ground),
    ConfigError (no whole multiple; labels that are no rasters), GridError (scenes that overlap).
    """
    if placeless := [scene.name for scene in scenes if scene.grid.transform.is_identity]:
        raise DataError(
            f"{len(placeless)} scenes such as {placeless[0]} have no place on the ground: neighbours cannot be found",
            fix="give the files their georeference, or prepare them without --gsd",
        )
    if odd := [scene.name for scene in scenes if not isinstance(scene.labels, RasterLabels | None)]:
        raise ConfigError(f"--gsd: the labels of {odd[0]} are no raster of classes", fix="rasterise them first")
    found = []
    for group in _neighbours(list(zip(scenes, files, strict=True))):
        fine = group[0][0].grid.gsd_m
        factor = round(gsd_m / fine)
        if factor < 1 or abs(gsd_m / fine - factor) > 0.02 * factor:
            raise ConfigError(
                f"{gsd_m:g} m is no whole multiple of {fine:.4g} m", fix=f"for example --gsd {4 * fine:.4g}"
            )
        found.append(_join(group, factor))
    found[0][0].notes[:0] = [f"{len(scenes)} scenes, joined with their neighbours, are {len(found)} at {gsd_m:g} m"]
    return [scene for scene, _ in found], [one for _, one in found]


def _neighbours(scenes: Sequence[tuple[Scene, SceneFiles]]) -> list[list[Member]]:
    """Scenes that touch each other, each group in the order of its rows and columns, counted from its upper left."""
    alike: dict[object, list[tuple[Scene, SceneFiles]]] = {}
    for scene, files in scenes:
        a, b, c, d, e, f = scene.grid.transform[:6]
        pixel = tuple(f"{value:.6g}" for value in (a, b, d, e)), round(c / a % 1, 2) % 1, round(f / e % 1, 2) % 1
        stored = [
            (
                key,
                r.bands,
                r.dates,
                len(r.paths),
                tuple(replace(s, path="", minus=None) for date in r.sources for s in date),
            )
            for key, r in scene.rasters.items()
        ]
        kind = str(scene.grid.crs), pixel, tuple(stored), tuple(scene.added.values()), files.part, files.place
        alike.setdefault(kind, []).append((scene, files))
    groups: list[list[Member]] = []
    for same in alike.values():
        origin = ~same[0][0].grid.transform
        members = [
            (scene, files, Window(round(row), round(col), scene.grid.height, scene.grid.width))
            for scene, files in same
            for col, row in [origin * (scene.grid.transform.c, scene.grid.transform.f)]
        ]
        boxes = shapely.box(*np.array([(w.col, w.row, w.col + w.width, w.row + w.height) for *_, w in members]).T)
        first = np.arange(len(members))
        for i, j in shapely.STRtree(boxes).query(boxes, predicate="intersects").T.tolist():
            if i < j and not members[i][2].intersect(members[j][2]).is_empty:
                names = f"{members[i][0].name} and {members[j][0].name}"
                raise GridError(f"{names} overlap: they cannot be joined", fix="keep scenes that lie side by side")
            first[first == first[j]] = first[i]
        for k in np.unique(first):
            group = sorted((members[i] for i in np.flatnonzero(first == k)), key=lambda member: member[2][:2])
            top, left = (min(place[axis] for *_, place in group) for axis in (0, 1))
            groups.append([(s, f, Window(w.row - top, w.col - left, w.height, w.width)) for s, f, w in group])
    return groups


def _join(group: Sequence[Member], factor: int) -> tuple[Scene, SceneFiles]:
    scene, files, place = group[0]
    height, width = (max(w[axis] + w[axis + 2] for *_, w in group) for axis in (0, 1))
    fine = scene.grid.window_grid(Window(-place.row, -place.col, height, width))
    grid = fine.coarsen(factor)
    rasters = {
        key: _side_by_side([one.rasters[key] for one, *_ in group], fine).on(grid, resampling="average")
        for key in scene.rasters
    }
    members = [(w, one.labels) for one, _, w in group if isinstance(one.labels, RasterLabels)]
    labels = CoarseLabels(members, members[0][1].legend, factor) if members else None
    name = scene.name if len(group) == 1 else f"{scene.name}_and_{len(group) - 1}"
    classes = tuple(sorted({k for _, one, _ in group for k in one.chip_classes}))
    whole = replace(scene, name=name, grid=grid, rasters=rasters, labels=labels)  # type: ignore[arg-type]
    return whole, replace(files, name=name, chip_classes=classes)


def _side_by_side(rasters: Sequence[Raster], grid: Grid) -> Raster:
    """Rasters of the same bands and dates as one; files that all share are taken once."""
    first = rasters[0]
    columns = zip(*(raster.paths for raster in rasters), strict=True)
    paths = {paths[0]: paths[0] if len(set(paths)) == 1 else mosaic(paths, gaps=True) for paths in columns}

    def moved(source: BandSource) -> BandSource:
        return replace(source, path=paths[source.path], minus=source.minus and moved(source.minus))

    clouds = tuple(mask and replace(mask, path=paths[mask.path]) for mask in first.clouds)
    sources = tuple(tuple(map(moved, date)) for date in first.sources)
    return replace(first, grid=grid, sources=sources, clouds=clouds)
