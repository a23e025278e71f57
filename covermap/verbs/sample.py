"""`sample`: pixels of a map, drawn so that a person's interpretation of them tells how large its classes really are.

map -> pixels by stratum -> how many of each -> which, at random -> S.gpkg or S.csv, and S.design.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from covermap.core.design import Cluster, Design, Method, Stratum, design_beside
from covermap.core.errors import ConfigError, DataError, suggest
from covermap.core.output import claim, require_no_input, write_text
from covermap.core.progress import Tick, unseen
from covermap.core.run import checksum
from covermap.data.frame import Drawn, Frame
from covermap.geo.legend_files import csv_text
from covermap.geo.polygon_file import write_points
from covermap.metrics.design_based import Z95, allocate, sample_size

ALLOCATIONS = ("mixed", "proportional", "equal", "neyman")


@dataclass(frozen=True)
class Plan:
    """How a sample is drawn. num: units; without it as many as overall accuracy needs for the standard error target_se.

    expected: user's accuracies by class that are guessed, or one for all. floor: least units of a stratum with
    allocation mixed. cluster_px, per_cluster: side of the squares that method cluster draws, and units in each.
    """

    method: str = "stratified"
    num: int | None = None
    target_se: float = 0.01
    expected: float | Mapping[str, float] = 0.9
    allocation: str = "mixed"
    floor: int = 50
    cluster_px: int = 100
    per_cluster: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"the seed is {self.seed}", fix="give a whole number from 0")
        if self.num is not None and self.num < 2:
            raise ConfigError(f"a sample of {self.num}", fix="draw 2 or more; some hundreds are usual")
        if not 0 < self.target_se < 0.5:
            raise ConfigError(f"target_se is {self.target_se:g}", fix="give a share below 0.5, for example 0.01")
        if self.allocation not in ALLOCATIONS:
            raise ConfigError(f"there is no allocation {self.allocation!r}", fix=suggest(self.allocation, ALLOCATIONS))
        if self.method not in get_args(Method):
            raise ConfigError(f"there is no method {self.method!r}", fix=suggest(self.method, get_args(Method)))
        if min(self.floor, self.cluster_px, self.per_cluster) < 1:
            raise ConfigError("floor, cluster_px and per_cluster count from 1", fix="give larger numbers")

    def users(self, names: Sequence[str]) -> list[float]:
        """Expected user's accuracy of each stratum; raises ConfigError."""
        given = self.expected if isinstance(self.expected, Mapping) else dict.fromkeys(names, self.expected)
        for name, value in given.items():
            if name not in names:
                raise ConfigError(f"expected names {name!r}, which is no stratum", fix=suggest(name, names))
            if not 0 < value < 1:
                raise ConfigError(f"expected accuracy of {name} is {value:g}", fix="give a share between 0 and 1")
        return [given.get(name, 0.9) for name in names]


@dataclass(frozen=True)
class Sampled:
    """What was drawn; expected_ci95: half widths of the intervals of user's accuracies that are to be expected."""

    files: tuple[Path, ...]
    design: Design
    expected_ci95: tuple[float, ...] = ()


def sample(
    source: str | Path, out: str | Path, plan: Plan, *, strata: str | Path | None = None, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Sampled:  # fmt: skip
    """Draw pixels of a map; writes OUT (.gpkg or .csv) with an empty `reference`, and OUT's design beside it.

    strata: another raster of codes on the same grid, where strata are not to be the map's own classes; it holds all of
    the map. Pixels of the map without a class cannot be drawn. Reads the map twice, block by block; memory: a block and
    the sample. Raises ConfigError, DataError, LabelError, GridError, OutputError.
    """
    out = Path(out)
    if out.suffix.lower() not in (".gpkg", ".csv"):
        raise ConfigError(f"{out} ends neither in .gpkg nor in .csv", fix="name it sample.gpkg")
    if strata and plan.method != "stratified":
        raise ConfigError(f"method {plan.method} has no strata", fix="leave --strata out, or use --method stratified")
    files = out, design_beside(out)
    require_no_input(files, [str(source), *([str(strata)] if strata else [])])
    for path in files:
        claim(path, overwrite=overwrite)
    frame = Frame.open(source, strata, stratified=plan.method == "stratified", on_progress=on_progress)
    num, drawn, clusters = _draw(frame, plan)
    found = np.bincount(drawn.stratum, minlength=len(frame.codes)).tolist()
    each = zip(frame.codes, frame.num_pixels.tolist(), found, frame.area_ha.tolist(), frame.names, strict=True)
    parts = [
        Stratum(code=code, num_pixels=pixels, num_samples=samples, area_ha=area_ha, name=name)
        for code, pixels, samples, area_ha, name in each
        if pixels  # of a class that the map does not have nothing can be drawn
    ]
    crs = frame.map.grid.crs
    design = Design(
        method=cast(Method, plan.method), seed=plan.seed, crs=crs.to_string() if crs else None, strata=tuple(parts),
        clusters=tuple(clusters), map=Path(source).name, map_checksum=" ".join(map(checksum, frame.map.files)),
        strata_of=("raster" if strata else "map") if plan.method == "stratified" else None,
    )  # fmt: skip
    _write_points(out, frame, drawn, design)
    design.write(files[1])
    return Sampled(files, design, _expected(frame, plan, num))


def _draw(frame: Frame, plan: Plan) -> tuple[list[int], Drawn, list[Cluster]]:
    """Units wanted of each stratum, and those that were drawn."""
    users = plan.users(frame.names)
    wanted = plan.num or sample_size(frame.num_pixels / frame.num_pixels.sum(), users, plan.target_se)
    if wanted > frame.num_pixels.sum():
        raise DataError(
            f"{wanted:,} units are wanted, the map has {frame.num_pixels.sum():,} pixels", fix="draw fewer: --num"
        )
    if plan.method == "systematic":
        return [wanted], frame.every(wanted, plan.seed), []
    if plan.method == "cluster":
        squares = max(2, -(-wanted // plan.per_cluster))  # one alone does not tell how much they differ
        drawn, clusters = frame.squares(plan.cluster_px, squares, plan.per_cluster, plan.seed)
        return [wanted], drawn, clusters
    if plan.method == "random":
        num = [wanted]
    else:
        num = allocate(wanted, frame.num_pixels.tolist(), method=plan.allocation, users=users, floor=plan.floor)
    return num, frame.pick(num, plan.seed), []


def _expected(frame: Frame, plan: Plan, num: Sequence[int]) -> tuple[float, ...]:
    """Half widths of 95 % intervals of user's accuracies by stratum, if these are as expected."""
    if plan.method != "stratified":
        return ()
    each = zip(plan.users(frame.names), num, frame.num_pixels, strict=True)
    return tuple(Z95 * (u * (1 - u) / max(1, k - 1)) ** 0.5 for u, k, pixels in each if pixels)


def _write_points(out: Path, frame: Frame, drawn: Drawn, design: Design) -> None:
    """Points in the middle of their pixels, in an order that says nothing about their strata."""
    order = np.random.default_rng(design.seed).permutation(len(drawn))
    to = frame.map.grid.transform
    cols, rows = drawn.cols[order] + 0.5, drawn.rows[order] + 0.5
    x, y = to.a * cols + to.b * rows + to.c, to.d * cols + to.e * rows + to.f
    table: dict[str, Any] = {
        "id": np.arange(1, len(drawn) + 1), "x": x, "y": y,
        "stratum": np.asarray(frame.codes)[drawn.stratum[order]], "reference": [""] * len(drawn),
    }  # fmt: skip
    if design.clusters:
        table["cluster"] = drawn.cluster[order]
    if out.suffix.lower() == ".csv":
        lines = zip(*(v if isinstance(v, list) else v.tolist() for v in table.values()), strict=True)
        write_text(out, csv_text(list(table), list(lines)))
        return
    import geopandas as gpd
    import shapely

    points = gpd.GeoDataFrame(table, geometry=shapely.points(x, y), crs=frame.map.grid.crs)
    write_points(points, out)
