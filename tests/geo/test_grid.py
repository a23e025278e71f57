from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.warp import transform as warp_points
from rasterio.warp import transform_bounds

from covermap.core.errors import GridError
from covermap.geo.align import read_onto
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


@st.composite
def grids(draw):
    """Turned, flipped and oblong ones too."""
    turn, wide, tall = draw(st.floats(0, 6.28)), draw(st.floats(0.1, 500)), draw(st.floats(0.1, 500))
    origin = draw(st.tuples(st.floats(100_000, 900_000), st.floats(0, 9_000_000)))
    turned = Affine.translation(*origin) * Affine.rotation(np.degrees(turn)) * Affine.scale(wide, -tall)
    straight = Affine(wide, 0, origin[0], 0, -tall, origin[1])
    transform = draw(st.sampled_from([straight, turned]))
    return Grid(UTM, transform, draw(st.integers(1, 500)), draw(st.integers(1, 500)))


@st.composite
def places(draw):
    return Window(*(draw(st.integers(-600, 600)) for _ in "rc"), *(draw(st.integers(1, 700)) for _ in "hw"))


@given(grids(), places())
def test_a_window_of_a_grid_is_found_again_by_its_bounds(one, window):
    part = one.window_grid(window)
    assert part.window == (0, 0, window.height, window.width)
    corner = part.transform * (window.width, window.height)
    assert np.allclose(corner, one.transform * (window.col + window.width, window.row + window.height), rtol=1e-9)
    found = one.window_of(one, window)
    straight = one.transform.b == one.transform.d == 0
    assert found == window if straight else found.intersect(window) == window  # the box around a turned one is larger
    assert one.is_same(one)
    assert part.is_same(one) == (window == one.window)


@given(grids(), st.floats(1, 20))
def test_a_coarser_grid_begins_there_and_covers_it(one, factor):
    few = one.coarsen(factor)
    assert few.transform * (0, 0) == one.transform * (0, 0)
    assert few.gsd_m == pytest.approx(one.gsd_m * factor)
    assert few.height * factor >= one.height - 1e-6 > (few.height - 1) * factor - 1e-6
    if one.transform.b == 0:
        assert few.overlap(one) > 0
        assert one.overlap(few) == pytest.approx(1)


@given(places(), places(), st.integers(0, 50))
def test_the_common_part_lies_in_both_and_counts_from_either(one, other, px):
    common = one.intersect(other)
    assert common == other.intersect(one)
    assert common.is_empty or (common.intersect(one) == common and common.intersect(other) == common)
    assert one.pad(px).intersect(one) == one
    assert one.pad(px).pad(-px) == one
    back = one.within(other)
    assert (back.row + other.row, back.col + other.col, *back[2:]) == one


@given(places(), st.integers(1, 80), st.data())
def test_windows_cover_an_area_and_nothing_beside_it(area, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    step = size - overlap
    if (area.height // step + 1) * (area.width // step + 1) > 3000:
        return
    seen = np.zeros((area.height, area.width), int)
    for window in windows(area, size, overlap):
        assert window.intersect(area) == window
        seen[window.within(area).slices] += 1
    assert seen.min() >= 1
    if overlap == 0 and area.height % size == area.width % size == 0:
        assert seen.max() == 1


@given(st.integers(1, 59), st.floats(-70, 70), st.floats(-2.5, 2.5), st.integers(5, 300), st.integers(5, 300))
def test_the_window_in_another_crs_holds_the_ground(zone, lat, east, height, width):
    middle = Grid(CRS.from_epsg(4326), Affine(1e-4, 0, zone * 6 - 183 + east, 0, -1e-4, lat), height, width)
    north = CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
    box = BoundingBox(*transform_bounds(middle.crs, north, *middle.bounds))
    utm = Grid(north, Affine(10, 0, box.left - 500, 0, -10, box.top + 500), 200, 200)
    there = utm.window_of(middle, middle.window)
    outer = utm.window_grid(there)
    x, y = warp_points(
        middle.crs, north, *zip(*(middle.transform * xy for xy in ((0, 0), (width, height))), strict=True)
    )
    for point in zip(x, y, strict=True):
        col, row = ~outer.transform * point
        assert -1e-3 <= col <= outer.width + 1e-3
        assert -1e-3 <= row <= outer.height + 1e-3
    lat_lon = middle.lat_lon()
    assert lat_lon == pytest.approx((lat - height * 5e-5, zone * 6 - 183 + east + width * 5e-5))


def held(values):
    """Values (H, W) on `grid` as an open file, nodata 0."""
    height, width = values.shape
    memory = MemoryFile()
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": height,
        "width": width,
        "dtype": "uint8",
        "crs": UTM,
        "nodata": 0,
    }
    with memory.open(**profile, transform=grid(height, width).transform) as file:
        file.write(values, 1)
    return memory


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=20)
def test_on_its_own_grid_a_file_is_what_it_is(seed, height, width):
    values = np.random.default_rng(seed).integers(0, 200, (height, width)).astype("uint8")
    with held(values) as memory, memory.open() as file:
        again, good = read_onto(file, [1], grid(height, width), nodata=0, resampling="nearest")
    assert np.array_equal(good, values > 0)
    assert np.array_equal(again[0], values)


@given(st.sampled_from(["nearest", "bilinear"]), st.floats(0.3, 4), st.floats(0, 6))
@settings(max_examples=20)
def test_a_constant_stays_one_on_any_grid(resampling, factor, shift):
    move = 10 * shift
    other = Grid(UTM, Affine(10 * factor, 0, 500_000 - move, 0, -10 * factor, 5_000_000 + move), 25, 25)
    with held(np.full((30, 40), 77, "uint8")) as memory, memory.open() as file:
        found, good = read_onto(file, [1], other, nodata=0, resampling=resampling)
    assert (found[0][good] == 77).all()
    assert (found[0][~good] == 0).all()
    rows, cols = np.mgrid[:25, :25]
    inside = (rows >= shift / factor + 1) & (cols >= shift / factor + 1)
    inside &= ((rows + 2) * factor < 30 + shift) & ((cols + 2) * factor < 40 + shift)
    assert good[inside].all()
