from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from covermap.core.errors import GridError
from covermap.geo.grid import Grid, Window, lattice, partition, windows

UTM = CRS.from_epsg(32631)


def grid(height=100, width=200, gsd=10.0, crs=UTM, origin=(500_000, 5_000_000)):
    return Grid(crs, Affine(gsd, 0, origin[0], 0, -gsd, origin[1]), height, width)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40))
def test_blocks_cover_every_pixel_exactly_once(height, width, block_height, block_width):
    seen = np.zeros((height, width), int)
    for block in partition(Window(0, 0, height, width), block_height, block_width):
        seen[block.slices] += 1
    assert (seen == 1).all()


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_windows_cover_a_line_and_share_at_least_the_overlap(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    starts = lattice(length, size, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    assert all(b <= a + size - overlap and b > a for a, b in pairwise(starts))


def test_mosaic_of_windows_is_the_image():
    image = np.arange(57 * 83).reshape(57, 83)
    out = np.full_like(image, -1)
    for window in windows(Window(0, 0, 57, 83), 20, 6):
        out[window.slices] = image[window.slices]
    assert np.array_equal(out, image)


def test_overlap_as_large_as_the_window_is_refused():
    with pytest.raises(GridError, match="overlap 8"):
        lattice(100, 8, 8)


def test_pixel_sizes_in_metres_and_degrees():
    assert grid().gsd_m == 10
    degrees = grid(gsd=0.0001, crs=CRS.from_epsg(4326), origin=(10.0, 60.005))
    # 0.0001 degrees: 11.1 m north-south, half of that east-west at 60 degrees
    assert degrees.gsd_m == pytest.approx((11.06 + 5.57) / 2, abs=0.05)
    feet = grid(gsd=10, crs=CRS.from_epsg(2263))
    assert feet.gsd_m == pytest.approx(3.048, abs=1e-3)


def test_pixel_areas_in_degrees_are_geodesic():
    # One degree cell at the equator: 110.574 km x 111.320 km
    world = Grid(CRS.from_epsg(4326), Affine(1, 0, 0, 0, -1, 1), 2, 1)
    assert world.row_areas_ha()[0] == pytest.approx(1_230_877, rel=1e-3)
    assert grid().row_areas_ha(0, 3) == [0.01, 0.01, 0.01]


def test_same_grid_tolerates_rounding_but_not_half_a_pixel():
    one = grid()
    shifted = Grid(UTM, Affine(10, 0, 500_000.05, 0, -10, 5_000_000), 100, 200)
    half = Grid(UTM, Affine(10, 0, 500_005, 0, -10, 5_000_000), 100, 200)
    stretched = Grid(UTM, Affine(10.01, 0, 500_000, 0, -10, 5_000_000), 100, 200)
    assert one.is_same(shifted)
    assert not one.is_same(half)
    assert not one.is_same(stretched)
    assert not one.is_same(grid(crs=CRS.from_epsg(32632)))


def test_overlap_of_extents():
    assert grid().overlap(grid()) == 1
    assert grid().overlap(grid(origin=(501_000, 5_000_000))) == pytest.approx(0.5)
    assert grid().overlap(grid(origin=(600_000, 5_000_000))) == 0


def test_centre_in_latitude_and_longitude():
    lat, lon = grid(origin=(500_000 - 1000, 5_000_000 + 500)).lat_lon()
    assert (lat, lon) == (pytest.approx(45.15, abs=0.02), pytest.approx(3.0, abs=1e-4))
    assert Grid(None, Affine.identity(), 2, 2).lat_lon() is None


def test_areas_in_web_mercator_are_those_on_the_ground():
    # At 60 degrees north Mercator stretches lengths by 2, areas by 4.
    y = 8_399_737.89  # 60 degrees in EPSG:3857
    mercator = Grid(CRS.from_epsg(3857), Affine(100, 0, 0, 0, -100, y), 1, 1)
    assert mercator.row_areas_ha()[0] == pytest.approx(0.25, rel=0.01)
