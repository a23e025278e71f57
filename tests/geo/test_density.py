"""Density of points: its sum is the number of points, windows agree, bad input is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from covermap.core.errors import ConfigError, CovermapError, GridError, LabelError
from covermap.geo.density import PointDensity
from covermap.geo.grid import Grid, Window
from covermap.verbs.prepare import prepare

UTM = Grid(CRS.from_epsg(32619), Affine(10, 0, 7e5, 0, -10, 2_020_000), 300, 400)
DEGREES = Grid(CRS.from_epsg(4326), Affine(1e-3, 0, 10, 0, -1e-3, 65), 300, 400)


def write_points(path: Path, xy, header: str = "x,y") -> Path:
    path.write_text(header + "\n" + "\n".join(f"{x:.6f},{y:.6f}" for x, y in xy) + "\n")
    return path


def inner(grid: Grid, num: int, margin: int = 100, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    cols, rows = (random.uniform(margin, size - margin, num) for size in (grid.width, grid.height))
    return np.stack(grid.transform * (cols, rows), 1)


@pytest.mark.parametrize(("grid", "bandwidth"), [(UTM, 200.0), (DEGREES, 1000.0)])
def test_the_density_times_the_area_is_the_number_of_points(tmp_path: Path, grid: Grid, bandwidth: float) -> None:
    epsg = grid.crs.to_epsg()
    path = write_points(tmp_path / "heads.csv", inner(grid, 40))
    density = PointDensity.open(path, grid=grid, bandwidth_m=bandwidth, epsg=epsg).read(grid.window)
    km2 = np.asarray(grid.row_areas_ha())[:, None] / 100
    assert np.sum(density.astype(np.float64) * km2) == pytest.approx(40, rel=2e-3)


def test_the_kernel_is_a_gaussian_in_metres(tmp_path: Path) -> None:
    centre = UTM.transform * (200.5, 150.5)
    path = write_points(tmp_path / "one.csv", [centre])
    density = PointDensity.open(path, grid=UTM, bandwidth_m=150, epsg=32619).read(UTM.window)
    rows, cols = np.mgrid[:300, :400]
    away_m = 10 * np.hypot(rows - 150, cols - 200)
    want = 1e6 * np.exp(-0.5 * (away_m / 150) ** 2) / (2 * np.pi * 150**2)
    np.testing.assert_allclose(density[away_m < 590], want[away_m < 590], rtol=1e-4)
    assert density[away_m > 900].max() == 0


@pytest.mark.parametrize("grid", [UTM, DEGREES])
def test_windows_hold_the_same_as_the_whole_and_points_outside_reach_in(tmp_path: Path, grid: Grid) -> None:
    edge = grid.transform * (-3.0, 120.0)
    path = write_points(tmp_path / "heads.csv", [*inner(grid, 300, margin=-5), edge])
    points = PointDensity.open(path, grid=grid, bandwidth_m=300, epsg=grid.crs.to_epsg())
    whole, part = points.read(grid.window), Window(97, 133, 51, 64)
    np.testing.assert_allclose(points.read(part), whole[part.slices], rtol=1e-5, atol=1e-6)
    alone = PointDensity.open(
        write_points(tmp_path / "edge.csv", [edge]), grid=grid, bandwidth_m=300, epsg=grid.crs.to_epsg()
    )
    assert alone.read(grid.window)[120, 0] > 0


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = write_points(tmp_path / "heads.csv", [*inner(UTM, 5), (1e6, 1e6)])
    path.write_text(path.read_text() + ",\n")
    points = PointDensity.open(path, grid=UTM, bandwidth_m=200, epsg=32619)
    assert len(points.rows) == 5
    assert points.notes == (
        "1 points have no place and were left out",
        "1 points lie out of reach of the grid and were left out",
    )


def test_bad_input_is_refused(tmp_path: Path) -> None:
    import geopandas as gpd
    from shapely import Point

    path = write_points(tmp_path / "heads.csv", inner(UTM, 5))
    with pytest.raises(GridError, match="no CRS"):
        PointDensity.open(path, grid=UTM, bandwidth_m=200)
    for bandwidth in (0.0, -5.0, float("nan")):
        with pytest.raises(ConfigError, match="no bandwidth"):
            PointDensity.open(path, grid=UTM, bandwidth_m=bandwidth, epsg=32619)
    with pytest.raises(ConfigError, match="below half a pixel"):
        PointDensity.open(path, grid=UTM, bandwidth_m=3, epsg=32619)
    with pytest.raises(GridError, match="no point"):
        PointDensity.open(path, grid=UTM, bandwidth_m=200, epsg=32645)
    gpd.GeoSeries([Point(7.01e5, 2_019_000).buffer(50)], crs=32619).to_file(tmp_path / "slides.gpkg")
    with pytest.raises(LabelError, match="1 lines or polygons"):
        PointDensity.open(tmp_path / "slides.gpkg", grid=UTM, bandwidth_m=200)


def test_prepare_writes_it(tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    with rasterio.open(image, "w", driver="GTiff", height=300, width=400, count=1, dtype="uint8", crs=UTM.crs,
                       transform=UTM.transform) as file:  # fmt: skip
        file.write(np.ones((1, 300, 400), np.uint8))
    heads = write_points(tmp_path / "heads.csv", inner(UTM, 40))
    done = prepare(str(heads), tmp_path / "density.tif", like=str(image), density_m=300, epsg=32619)
    assert "40 points" in done.told[-1]
    with rasterio.open(tmp_path / "density.tif") as file:
        assert file.descriptions == ("per_km2",)
        assert file.read(1).mean() * 12 == pytest.approx(40, rel=2e-2)
    for wrong in ({"field": "class"}, {"terrain": ["slope"]}, {"like": None}, {"resampling": "cubic"}):
        with pytest.raises(CovermapError):
            prepare(str(heads), tmp_path / "x.tif", **{"like": str(image), "density_m": 300, "epsg": 32619, **wrong})
    with pytest.raises(ConfigError, match="points alone"):
        prepare(str(image), tmp_path / "x.tif", like=str(image), density_m=300)
