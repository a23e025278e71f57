"""`assess`: accuracy of a map and areas of its classes with 95 % intervals, from points of a probability sample.

map + points with reference + design -> units and their weights -> error matrix, accuracies, areas -> tables

assessment.json beside the map, if it is that of a run: the newest one, which `report` shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.design import SAME_GROUND, Design, assessment_beside, design_beside
from covermap.core.errors import DataError, OutputError
from covermap.core.output import claim, require_no_input, write_text
from covermap.core.progress import Tick, unseen
from covermap.core.results import Assessed
from covermap.core.run import Run, checksum, plain
from covermap.data.class_map import ClassMap, open_class_map
from covermap.data.sample_points import SamplePoints
from covermap.data.zones import Zones
from covermap.geo.legend_files import csv_text
from covermap.geo.products import count_rows, names_beside
from covermap.metrics.design_based import Accuracy, Estimate, Units, accuracy, poststrata, share_of, weights_of

FEWEST_IN_ZONE = 30
"""Points that a zone needs for an interval of its own."""
FEWEST_CLUSTERS = 10
"""Clusters that it needs in a cluster sample: by fewer their spread is hardly known."""
RARE = 0.02
"""Share of the map below which a single point in a large stratum decides (benchmarks/area.py)."""
_TABLES = ("areas", "users", "producers", "matrix", "zones")


@dataclass(frozen=True)
class _Counted:
    """Pixels and hectares of each class (K,), hectares of zones and classes (Z, K)."""

    num_pixels: npt.NDArray[np.int64]
    area_ha: npt.NDArray[np.float64]
    zones_ha: npt.NDArray[np.float64]


def assess(
    source: str | Path, points: str | Path, *, design: str | Path | None = None, zones: str | Path | None = None,
    zone_field: str | None = None, skip_empty: bool = False, out: str | Path | None = None, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Assessed:  # fmt: skip
    """Areas, overall, user's and producer's accuracies of a map, each with its interval; with `out` also as CSV files.

    design: default S.design.json beside the points. zones: polygons whose mapped areas are told, with intervals where
    at least 30 points (of 10 clusters) lie inside. Another map than the one that was sampled can be assessed by the
    same points. Reads the map once, block by block. Of a run's map the result is kept for its report. Raises DataError
    (no design, points that were changed), LabelError, GridError, OutputError.
    """
    of, plan = open_class_map(source, infer=True), Design.load(design or design_beside(points))
    found = SamplePoints.load(points, plan, of, skip_empty=skip_empty)
    areas = Zones.open(zones, of.grid, zone_field) if zones else None
    if out is not None:
        files = [Path(out) / f"{name}.csv" for name in _TABLES]
        require_no_input(files, [str(source), str(points)])
        if names_beside(Path(source))["areas"].resolve() in {path.resolve() for path in files}:
            raise OutputError(f"{out} holds areas.csv of the map itself", fix=f"give a folder of its own: {out}/tables")
        for path in files:
            claim(path, overwrite=overwrite)
    counted = _count(of, areas, on_progress)
    pixel_ha = np.array([of.grid.row_areas_ha(row, 1)[0] for row in found.rows.tolist()])
    units, estimator, notes = _units(of, plan, found, counted, pixel_ha)
    total_ha = float(units.weight.sum())
    result = _result(of, accuracy(units, len(of.legend)), counted, total_ha)
    result |= {"method": plan.method, "estimator": estimator, "num_points": len(found.rows)}
    result |= {"points": Path(points).name, "num_clusters": len(plan.clusters)}
    result["strata"] = [{"code": one.code, "name": one.name, "num_samples": one.num_samples} for one in plan.strata]
    result["notes"] = [*found.notes, *notes, *(areas.notes if areas else ())]
    if areas:
        result["zones"] = _in_zones(of, areas, units, found, counted)
    written = _write(Path(out), of, result) if out is not None else []
    if Run.keeps(source):
        try:
            written.append(keep(source, result))
        except OutputError as error:
            result["notes"].append(f"not kept for the run's report: {error.message}")
    return Assessed(result | ({"files": written} if written else {}))


def keep(source: str | Path, result: Mapping[str, Any]) -> Path:
    """Write what is known of a run's map beside it, with a checksum that tells whether it is still that map."""
    kept = {"map_checksum": checksum(source)} | dict(result)
    return write_text(assessment_beside(source), json.dumps(plain(kept), indent=2) + "\n")


def _count(of: ClassMap, zones: Zones | None, on_progress: Tick) -> _Counted:
    num_pixels, area_ha = np.zeros(256, np.int64), np.zeros(256)
    zones_ha = np.zeros((len(zones.names) if zones else 0, 256))
    blocks = list(of.blocks())
    for done, block in enumerate(blocks, 1):
        index, row_ha = of.read(block), np.asarray(of.grid.row_areas_ha(block.row, block.height))
        in_row = count_rows(index)
        num_pixels += in_row.sum(0)
        area_ha += row_ha @ in_row
        if zones:
            number, ha = zones.read(block), np.broadcast_to(row_ha[:, None], index.shape)
            inside = number >= 0
            key = number[inside] * 256 + index[inside]
            zones_ha += np.bincount(key, ha[inside], zones_ha.size).reshape(zones_ha.shape)
        on_progress(done, len(blocks))
    size = len(of.legend)
    return _Counted(num_pixels[:size], area_ha[:size], zones_ha[:, :size])


def _units(
    of: ClassMap, plan: Design, found: SamplePoints, counted: _Counted, pixel_ha: npt.NDArray[np.float64]
) -> tuple[Units, str, list[str]]:
    """The sample with the hectares that each point stands for, which estimator that makes, and notes."""
    areas_ha, notes = _strata_ha(of, plan, found, counted, pixel_ha)

    def units(stratum: npt.NDArray[np.intp], weight: npt.NDArray[np.float64], *, pure: bool = False) -> Units:
        return Units(found.mapped, found.reference, stratum, found.cluster, weight, pure)

    if plan.method == "cluster":
        # Squares were drawn alike, pixels in them by their number: what stands for more pixels weighs more.
        # Points that are left stand for those without a reference in their own square.
        num_pixels = {cluster.id: cluster.num_pixels for cluster in plan.clusters}
        left, which, num_left = np.unique(found.cluster, return_inverse=True, return_counts=True)
        own = np.array([num_pixels[number] for number in left.tolist()])[which] / num_left[which]
        if lost := len(plan.clusters) - len(left):
            notes.append(f"{lost:,} of {len(plan.clusters):,} clusters hold no point with a reference: left out whole")
        return units(found.stratum, weights_of(found.stratum, areas_ha, own * pixel_ha)), "clusters (ratio)", notes
    if plan.method in ("random", "systematic"):
        group = poststrata(np.bincount(found.mapped, minlength=len(of.legend)).tolist())
        grouped = np.bincount(group, counted.area_ha, len(of.legend)).tolist()
        stratum = group[found.mapped]
        if plan.method == "systematic":
            notes.append(
                "a systematic sample is taken as a random one: its intervals are rather too wide than too narrow"
            )
        pure = bool((group == np.arange(len(group))).all())
        return units(stratum, weights_of(stratum, grouped, pixel_ha), pure=pure), "post-stratified by map class", notes
    codes = np.array([stratum.code for stratum in plan.strata])
    same_pixels = {stratum.code: stratum.num_pixels for stratum in plan.strata if stratum.num_pixels}
    on_map = {code: n for code, n in zip(of.legend.codes, counted.num_pixels.tolist(), strict=True) if n}
    mapped_codes = np.asarray(of.legend.codes)[found.mapped]
    if same_pixels == on_map and (codes[found.stratum] == mapped_codes).all():
        weight = weights_of(found.mapped, counted.area_ha.tolist(), pixel_ha)
        return units(found.mapped, weight, pure=True), "stratified by map class (Olofsson et al. 2014)", notes
    if same_pixels == on_map and plan.strata_of != "raster":
        elsewhere = codes[found.stratum] != mapped_codes
        _require_unmoved(of, plan, found, elsewhere)
        notes.append(
            f"{of.name} has as many pixels of each class as the map that was sampled, yet {found.named(elsewhere)} lie "
            "in another class than they were drawn from: if it is the same map, they were moved, and nothing here holds"
        )
    notes.append("strata are not the classes of this map")
    return units(found.stratum, weights_of(found.stratum, areas_ha, pixel_ha)), "strata differ (Stehman 2014)", notes


def _require_unmoved(of: ClassMap, plan: Design, found: SamplePoints, elsewhere: npt.NDArray[np.bool_]) -> None:
    """Raise DataError for points (N,) that lie in another class than they were drawn from, on the very map."""
    if plan.map_checksum and plan.map_checksum == " ".join(map(checksum, of.files)):
        raise DataError(
            f"{found.named(elsewhere)} lie in another class of {of.name} than the stratum that they were drawn from: "
            "they were moved",
            fix="put them back: the file that covermap sample wrote has their places (so has the same command with "
            "the same seed); interpret the pixel that was drawn, not one beside it",
        )


def _strata_ha(
    of: ClassMap, plan: Design, found: SamplePoints, counted: _Counted, pixel_ha: npt.NDArray[np.float64]
) -> tuple[list[float], list[str]]:
    """Hectares of the design's strata; raises DataError where they are not those of the map that is assessed."""
    own = [pixel_ha[found.stratum == number] for number in range(len(plan.strata))]
    areas = [
        part.num_pixels * float(own[number].mean() if len(own[number]) else 0) if part.area_ha is None else part.area_ha
        for number, part in enumerate(plan.strata)
    ]
    drawn, mapped = sum(areas), float(counted.area_ha.sum())
    if abs(drawn - mapped) > SAME_GROUND * mapped:
        raise DataError(
            f"the sample was drawn from {drawn:,.0f} ha, {of.name} maps {mapped:,.0f} ha",
            fix="a sample says nothing about other ground: assess the map that it was drawn from, or another one of "
            "the same area",
        )
    if abs(drawn - mapped) > 1e-6 * mapped:
        return areas, [f"drawn from {drawn:,.1f} ha, mapped are {mapped:,.1f} ha"]
    return areas, []


def _result(of: ClassMap, found: Accuracy, counted: _Counted, total_ha: float) -> dict[str, Any]:
    """What is printed and written; what is not known is None."""
    right, num = int(np.trace(found.counts)), int(found.counts.sum())
    areas = []
    for k, one in enumerate(of.legend.classes):
        row = {"code": one.code, "name": one.name, "mapped_ha": float(counted.area_ha[k]),
               **_estimated(found.areas[k], "area_ha", "ci95_ha", total_ha)}  # fmt: skip
        if found.areas[k].value < RARE and "note" not in row:
            row["note"] = f"areas below {RARE:.0%} of the map: their intervals hold less often than 95 %"
        areas.append(row)
    accuracies = {
        key: [
            {"code": one.code, "name": one.name, **_estimated(estimate, "value", "ci95"), "num_points": estimate.count}
            for one, estimate in zip(of.legend.classes, each, strict=True)
        ]
        for key, each in (("users", found.users), ("producers", found.producers))
    }
    overall = _estimated(found.overall, "value", "ci95") | {"unweighted": right / num}
    codes = list(of.legend.codes)
    return {
        "map": of.name, "total_ha": total_ha, "areas": areas, "overall": overall, **accuracies,
        "matrix": {"codes": codes, "names": list(of.legend.names), "rows": "map", "columns": "reference",
                   "counts": found.counts.tolist(), "shares": found.shares.tolist()},
        "kappa": _known(found.kappa),
    }  # fmt: skip


def _estimated(estimate: Estimate, name: str, half: str, unit: float = 1.0) -> dict[str, Any]:
    """An estimate in a unit of which it is a share: value, half width of its interval, its ends, se, note."""
    low, high = ("low_ha", "high_ha") if half.endswith("_ha") else ("low", "high")
    values = {name: estimate.value, half: estimate.ci95, low: estimate.low, high: estimate.high, "se": estimate.se}
    return {key: _known(value * unit) for key, value in values.items()} | (
        {"note": estimate.note} if estimate.note else {}
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _in_zones(of: ClassMap, zones: Zones, units: Units, found: SamplePoints, counted: _Counted) -> list[dict[str, Any]]:
    """Mapped hectares of each zone and class, and estimated ones where enough points lie inside."""
    where, rows = zones.at(found.rows, found.cols), []
    for number, name in enumerate(zones.names):
        inside, total_ha = where == number, float(counted.zones_ha[number].sum())
        enough = inside.sum() >= FEWEST_IN_ZONE and len(np.unique(found.cluster[inside])) >= FEWEST_CLUSTERS
        for k, one in enumerate(of.legend.classes):
            row: dict[str, Any] = {
                "zone": name, "code": one.code, "name": one.name,
                "mapped_ha": float(counted.zones_ha[number, k]), "num_points": int(inside.sum()),
            }  # fmt: skip
            if enough:
                estimate = share_of(units, units.reference == k, inside)
                row |= _estimated(estimate, "area_ha", "ci95_ha", total_ha)
            else:
                row |= {"area_ha": None, "ci95_ha": None,
                        "note": f"zones with fewer than {FEWEST_IN_ZONE} points, of a cluster sample in fewer than "
                                f"{FEWEST_CLUSTERS} clusters: mapped area only"}  # fmt: skip
            rows.append(row)
    return rows


def _write(folder: Path, of: ClassMap, result: dict[str, Any]) -> list[Path]:
    """A CSV for each table."""
    matrix, files = result["matrix"], []
    names = matrix["names"]
    grid = [[name, *counts] for name, counts in zip(names, matrix["counts"], strict=True)]
    tables: dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = {"matrix": (["map \\ reference", *names], grid)}
    for key in ("areas", "users", "producers", "zones"):
        rows = result.get(key, [])
        head = list(dict.fromkeys(key for row in rows for key in row))
        tables[key] = head, [["" if row.get(name) is None else row[name] for name in head] for row in rows]
    for name in _TABLES:
        if tables[name][1]:
            files.append(write_text(folder / f"{name}.csv", csv_text(*tables[name])))
    return files
