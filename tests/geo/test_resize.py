"""Area-weighted resizing against references in float64 that count the overlap of every pair of pixels."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from covermap.core.errors import GridError
from covermap.geo.grid import Grid, Window
from covermap.geo.resize import read_resized, resize

RNG = np.random.default_rng(0)
UTM = CRS.from_epsg(32631)


def overlap(edges, length):
    """(n, length): how much of each old pixel lies in each new one."""
    low, high = np.asarray(edges)[:-1, None], np.asarray(edges)[1:, None]
    old = np.arange(length)
    return np.clip(np.minimum(high, old + 1) - np.maximum(low, old), 0, None)


def reader(values, valid):
    """Values (C, H, W) by window, nothing known outside."""

    def read(window):
        out, known = (np.zeros((len(values), window.height, window.width), kind) for kind in (float, bool))
        inside = window.intersect(Window(0, 0, *values.shape[1:]))
        at = inside.within(window).slices
        out[:, *at], known[:, *at] = values[:, *inside.slices], valid[:, *inside.slices]
        return out, known

    return read


@pytest.mark.parametrize("shape", [(33, 33), (7, 50), (100, 80), (230, 161), (1, 1)])
def test_each_new_pixel_is_the_weighted_mean_or_sum_and_totals_are_kept(shape):
    values, valid = RNG.normal(100, 50, (2, 100, 80)), RNG.random((2, 100, 80)) > 0.3
    rows, cols = np.linspace(0, 100, shape[0] + 1), np.linspace(0, 80, shape[1] + 1)
    down, across = overlap(rows, 100), overlap(cols, 80).T
    known = down @ valid @ across
    total = down @ np.where(valid, values, 0) @ across
    mean, amount = (resize(values, valid, rows, cols, method) for method in ("mean", "sum"))
    assert np.array_equal(np.isnan(mean), np.isnan(amount))
    assert np.array_equal(np.isnan(mean), known < 1e-9)
    seen = known >= 1e-9
    assert np.allclose(mean[seen], total[seen] / known[seen], rtol=1e-6)
    assert np.allclose(amount[seen], total[seen], rtol=1e-6, atol=1e-9)
    assert np.isclose(np.nansum(amount), values[valid].sum(), rtol=1e-12)
    assert np.isclose(np.nansum(mean * known), values[valid].sum(), rtol=1e-12)


def test_literals():
    values, valid = np.array([[[1.0, 2.0, 6.0]]]), np.array([[[True, True, True]]])
    one = np.array([0.0, 1.0])
    assert resize(values, valid, one, np.array([0, 1.5, 3]), "mean").tolist() == [[[4 / 3, 14 / 3]]]
    assert resize(values, valid, one, np.array([0, 1.5, 3]), "sum").tolist() == [[[2.0, 7.0]]]
    assert resize(values, valid, one, np.array([0, 0.25, 1.0]), "sum").tolist() == [[[0.25, 0.75]]]
    assert resize(values, valid & (values < 6), one, np.array([1.5, 3]), "mean").tolist() == [[[2.0]]]


@pytest.mark.parametrize("gsd", [3.0, 10.0, 7.3, 25.0])
@pytest.mark.parametrize("method", ["mean", "sum"])
def test_windows_read_one_by_one_equal_the_whole(gsd, method):
    """A source that begins 13.7 m to the left of the grid and ends inside of it."""
    values, valid = RNG.normal(5, 1, (1, 90, 90)), RNG.random((1, 90, 90)) > 0.1
    source = Grid(UTM, Affine(gsd, 0, 500_000 - 13.7, 0, -gsd, 5_000_004.1), 90, 90)
    grid = Grid(UTM, Affine(10, 0, 500_000, 0, -10, 5_000_000), 60, 60)
    whole = read_resized(reader(values, valid), source, grid, method, name="x")
    for row, col in ((0, 0), (11, 37), (30, 5)):
        part = Window(row, col, 20, 23)
        mine = read_resized(reader(values, valid), source, grid.window_grid(part), method, name="x")
        assert np.array_equal(mine, whole[:, *part.slices], equal_nan=True)


def test_numbers_lie_where_their_file_says():
    values = np.arange(12.0).reshape(1, 3, 4)
    source = Grid(UTM, Affine(20, 0, 1000, 0, -20, 2000), 3, 4)
    grid = Grid(UTM, Affine(10, 0, 1020, 0, -10, 1980), 2, 8)
    got = read_resized(reader(values, np.ones((1, 3, 4), bool)), source, grid, "mean", name="x")
    expected = np.array([5, 5, 6, 6, 7, 7, np.nan, np.nan])
    assert np.array_equal(got[0], np.stack([expected, expected]), equal_nan=True)


def test_another_crs_keeps_a_plane_and_the_total_nearly():
    """People on a grid in degrees, onto 100 m pixels of UTM that hold all of it."""
    rows, cols = np.mgrid[:80, :80]
    values = (1000 + 5 * rows + 3 * cols)[None].astype(float)
    source = Grid(CRS.from_epsg(4326), Affine(0.001, 0, 3.0, 0, -0.001, 45.08), 80, 80)
    x, y = warp_points("EPSG:4326", UTM, [3.04], [45.04])
    grid = Grid(UTM, Affine(100, 0, x[0] - 5000, 0, -100, y[0] + 6000), 120, 100)
    read = reader(values, np.ones(values.shape, bool))
    total = np.nansum(read_resized(read, source, grid, "sum", name="x"))
    assert np.isclose(total, values.sum(), rtol=2e-3)
    mean = read_resized(read, source, grid, "mean", name="x")[0]
    middles = grid.transform * (np.arange(40, 60) + 0.5, np.arange(50, 70) + 0.5)
    lon, lat = warp_points(UTM, "EPSG:4326", *middles)
    col, row = ~source.transform * (np.array(lon), np.array(lat))
    plane = 1000 + 5 * (row - 0.5) + 3 * (col - 0.5)
    assert np.allclose(mean[np.arange(50, 70), np.arange(40, 60)], plane, atol=1.5)
    with pytest.raises(GridError, match="x has a CRS, the grid has no CRS"):
        read_resized(read, source, Grid(None, grid.transform, 4, 4), "sum", name="x")
