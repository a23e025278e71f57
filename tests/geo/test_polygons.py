"""Polygons of a map: whole, measured, without gaps or overlaps, also when they are simplified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy import ndimage

from covermap.core.errors import ConfigError
from covermap.geo.grid import Grid
from covermap.geo.polygons import areas_ha, moved_ha, require_tolerance, simplify, to_crs_units, trace, with_junctions
from covermap.geo.writer import RasterWriter

METRES = Affine(10, 0, 4e5, 0, -10, 5e6)
DEGREES = Affine(0.001, 0, 10, 0, -0.0005, 60)
TURNED = Affine(8, 6, 4e5, 6, -8, 5e6)


def landscape(height: int, width: int, seed: int, smooth: float = 2.0) -> np.ndarray:
    """Codes 1 to 4 in patches of all sizes, and a hole of nodata (0) with a patch in it."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(4, height, width))
    codes = 1 + (ndimage.gaussian_filter(noise, (0, smooth, smooth)) if smooth else noise).argmax(0).astype(np.uint8)
    codes[5:20, 8:25] = 0
    codes[10:14, 12:17] = 3
    codes[-3:, :6] = 0
    return codes


def write(path: Path, codes: np.ndarray, crs: int | None = 32633, transform: Affine = METRES) -> Grid:
    grid = Grid(CRS.from_epsg(crs) if crs else None, transform, *codes.shape)
    with RasterWriter(path, grid, bands=["codes"], dtype="uint8", nodata=0, block_px=16, overwrite=True) as writer:
        writer.write(grid.window, codes)
    return grid


@pytest.mark.parametrize("smooth", [0, 2])
@pytest.mark.parametrize(("crs", "transform"), [(32633, METRES), (4326, DEGREES), (32633, TURNED), (None, METRES)])
def test_patches_are_traced_whole_and_give_the_same_pixels(tmp_path, smooth, crs, transform) -> None:
    codes = landscape(70, 90, 1, smooth)
    grid = write(tmp_path / "map.tif", codes, crs, transform)
    shapes, found = trace(tmp_path / "map.tif")
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert (shapely.get_type_id(shapes) == 3).all()
    # One polygon for each patch, though the file's blocks have 16 px.
    for code in range(1, 5):
        assert (found == code).sum() == ndimage.label(codes == code)[1]
    again = rasterize(zip(to_crs_units(shapes, grid), found, strict=True), codes.shape, transform=transform)
    np.testing.assert_array_equal(again, codes)
    area = areas_ha(shapes, grid)
    for code in range(1, 5):
        assert area[found == code].sum() == pytest.approx(((codes == code).sum(1) * grid.row_areas_ha()).sum())


def test_neighbours_have_the_same_corners_where_three_meet() -> None:
    """A long edge beside two short ones has a corner where they meet, and so have edges in all four directions."""
    middle = shapely.box(2, 2, 6, 6)
    halves = [
        (0, 0, 2, 3),
        (0, 3, 2, 8),
        (2, 0, 5, 2),
        (5, 0, 8, 2),
        (6, 2, 8, 4),
        (6, 4, 8, 8),
        (2, 6, 3, 8),
        (3, 6, 6, 8),
    ]
    shapes = np.array([middle, *(shapely.box(*each) for each in halves)])
    assert not shapely.coverage_is_valid(shapes)
    for each in (shapes, np.array([shapely.reverse(shape) for shape in shapes])):
        whole = with_junctions(each)
        assert shapely.coverage_is_valid(whole)
        assert shapely.equals(whole, shapes).all()
        assert shapely.get_num_coordinates(whole[0]) == 5 + 4
    assert len(with_junctions(np.empty(0, object))) == 0


def test_the_area_of_a_polygon_with_holes_in_degrees_is_the_geodesic_one(tmp_path) -> None:
    codes = np.ones((60, 40), np.uint8)
    codes[10:20, 5:30] = 2
    codes[30:50, 10:12] = 0
    grid = write(tmp_path / "map.tif", codes, 4326, Affine(0.05, 0, 10, 0, -0.05, 70))
    shapes, _ = trace(tmp_path / "map.tif")
    geod = Geod(ellps="WGS84")
    for shape, area in zip(to_crs_units(shapes, grid), areas_ha(shapes, grid), strict=True):
        # An edge along a parallel is no geodesic: with a corner at each pixel it is nearly one.
        dense = shapely.segmentize(shapely.orient_polygons(shape), 0.05)
        assert area == pytest.approx(geod.geometry_area_perimeter(dense)[0] / 1e4, rel=1e-6)


@pytest.mark.parametrize("tolerance_m", [8, 15, 40])
@pytest.mark.parametrize("seed", range(3))
def test_simplified_polygons_have_neither_gaps_nor_overlaps(tmp_path, tolerance_m, seed) -> None:
    codes = landscape(80, 100, seed, 2 if seed else 0.7)
    grid = write(tmp_path / "map.tif", codes)
    shapes, _ = trace(tmp_path / "map.tif")
    fewer = simplify(shapes, grid, tolerance_m)
    assert shapely.is_valid(fewer).all()
    assert shapely.coverage_is_valid(fewer)
    assert shapely.get_num_coordinates(fewer).sum() < shapely.get_num_coordinates(shapes).sum()
    # Ground without a class stays so, and none is lost.
    assert shapely.union_all(fewer).symmetric_difference(shapely.union_all(shapes)).area == 0
    assert areas_ha(fewer, grid).sum() == pytest.approx((codes > 0).sum() / 100)


@pytest.mark.parametrize(
    ("crs", "transform", "tolerance_m"),
    [(4326, Affine(1 / 12000, 0, 10, 0, -1 / 12000, 48), 15), (3857, Affine(10, 0, 1e6, 0, -10, 6e6), 15),
     (32633, Affine(0.3, 0, 4e5, 0, -0.3, 5e6), 0.6)],
)  # fmt: skip
def test_pixels_of_sizes_that_are_no_round_numbers(tmp_path, crs, transform, tolerance_m) -> None:
    """Products of coordinates and such sizes are rounded, and what touches would not touch any more."""
    for seed in range(3):
        grid = write(tmp_path / "map.tif", landscape(150, 150, seed, 1.2), crs, transform)
        shapes, _ = trace(tmp_path / "map.tif")
        fewer = simplify(shapes, grid, tolerance_m)
        assert shapely.is_valid(fewer).all()
        assert shapely.coverage_is_valid(fewer)
        gained, lost = moved_ha(shapes, fewer, grid)
        assert gained.sum() > 0
        assert gained.sum() == pytest.approx(lost.sum())


def test_a_larger_tolerance_leaves_fewer_corners_and_makes_stairs_straight(tmp_path) -> None:
    rows, cols = np.mgrid[:60, :60]
    grid = write(tmp_path / "map.tif", np.where(rows > cols, 1, 2).astype(np.uint8))
    shapes, _ = trace(tmp_path / "map.tif")
    assert (
        shapely.get_num_coordinates(simplify(shapes, grid, 15)).max() < 10 < shapely.get_num_coordinates(shapes).min()
    )


def test_tolerances_are_metres_in_degrees_too(tmp_path) -> None:
    """Pixels of 55.8 x 55.7 m at 60 degrees, as pixels of 55.75 m in metres."""
    codes = landscape(60, 80, 4)
    counts = []
    for crs, transform in ((4326, DEGREES), (32633, Affine(55.75, 0, 4e5, 0, -55.75, 5e6))):
        grid = write(tmp_path / "map.tif", codes, crs, transform)
        shapes, _ = trace(tmp_path / "map.tif")
        counts.append([shapely.get_num_coordinates(simplify(shapes, grid, each)).sum() for each in (30, 60, 200)])
    assert counts[0] == pytest.approx(counts[1], rel=0.005)
    assert counts[0][0] > counts[0][1] > counts[0][2]


@pytest.mark.parametrize(("crs", "transform"), [(32633, METRES), (4326, DEGREES)])
def test_what_simplifying_moves_is_what_an_overlay_of_classes_finds(tmp_path, crs, transform) -> None:
    codes = landscape(60, 80, 2)
    grid = write(tmp_path / "map.tif", codes, crs, transform)
    shapes, found = trace(tmp_path / "map.tif")
    fewer = simplify(shapes, grid, 1.5 * grid.gsd_m)
    gained, lost = moved_ha(shapes, fewer, grid)
    assert gained.sum() == pytest.approx(lost.sum())
    for code in range(1, 5):
        mine = found == code
        before, after = shapely.union_all(shapes[mine]), shapely.union_all(fewer[mine])
        for moved, ground in ((gained, after.difference(before)), (lost, before.difference(after))):
            want = areas_ha(np.array([ground]), grid)[0]
            assert want > 0
            # Patches of one class that touch at a corner may give each other a little.
            assert moved[mine].sum() == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize(("crs", "transform"), [(32633, METRES), (4326, DEGREES), (32633, TURNED)])
def test_a_tolerance_without_effect_is_refused(tmp_path, crs, transform) -> None:
    grid = write(tmp_path / "map.tif", landscape(40, 50, 3), crs, transform)
    shapes, _ = trace(tmp_path / "map.tif")
    least = grid.gsd_m / 2**0.5
    for tolerance_m in (0.99 * least, 0, -5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="simplifies no outline"):
            require_tolerance(tolerance_m, grid)
    assert (
        shapely.get_num_coordinates(simplify(shapes, grid, 0.99 * least)) == shapely.get_num_coordinates(shapes)
    ).all()
    require_tolerance(1.02 * least, grid)
    assert (
        shapely.get_num_coordinates(simplify(shapes, grid, 1.02 * least)) < shapely.get_num_coordinates(shapes)
    ).any()


def test_a_map_without_any_class_has_no_polygons(tmp_path) -> None:
    grid = write(tmp_path / "map.tif", np.zeros((20, 20), np.uint8))
    shapes, found = trace(tmp_path / "map.tif")
    assert len(shapes) == len(found) == len(areas_ha(shapes, grid)) == len(simplify(shapes, grid, 5)) == 0


def test_a_ring_that_touches_itself_is_traced_as_valid_polygons(tmp_path) -> None:
    codes = np.ones((8, 8), np.uint8)
    codes[2, 2] = codes[3, 3] = codes[0, 5] = codes[1, 6] = 2
    write(tmp_path / "map.tif", codes)
    shapes, found = trace(tmp_path / "map.tif")
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert (found == 2).sum() == 4
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert shapely.area(shapes).sum() == dataset.width * dataset.height
