"""Slope and aspect against planes and cones whose slope is known, and against gdaldem where it is installed."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from covermap.core.errors import BandError, ConfigError, GridError
from covermap.geo.grid import Grid, Window
from covermap.geo.terrain import require_terrain, terrain
from covermap.verbs import prepare as verb
from covermap.verbs.prepare import prepare

UTM = Grid(CRS.from_epsg(32631), Affine(20, 0, 5e5, 0, -10, 4.6e6), 40, 50)


def centres(grid):
    """Coordinates of the pixels with a margin of one."""
    rows, cols = np.mgrid[-1 : grid.height + 1, -1 : grid.width + 1] + 0.5
    a, _, c, _, e, f = grid.transform[:6]
    return c + a * cols, f + e * rows


@pytest.mark.parametrize(
    ("east", "north", "slope", "aspect"),
    [(0.1, 0, 5.71059, 270), (-1, 0, 45, 90), (0, 0.5, 26.56505, 180), (0, -0.5, 26.56505, 0), (-0.3, -0.3, 22.99, 45)],
)
@pytest.mark.parametrize("up", [1, -1])
def test_planes(east, north, slope, aspect, up):
    grid = Grid(UTM.crs, Affine(20, 0, 5e5, 0, 10 * up, 4.6e6), 40, 50)
    x, y = centres(grid)
    found = terrain(east * (x - 5e5) + north * (y - 4.6e6), np.ones(x.shape, bool), grid, grid.window)
    np.testing.assert_allclose(found["slope"], slope, atol=1e-3)
    np.testing.assert_allclose((found["aspect"] - aspect + 180) % 360, 180, atol=1e-3)


def test_a_cone_faces_away_from_its_top():
    x, y = centres(UTM)
    east, north = x - 5e5 - 500.0, y - 4.6e6 + 200.0
    found = terrain(-0.2 * np.hypot(east, north), np.ones(x.shape, bool), UTM, UTM.window)
    away = np.degrees(np.arctan2(east, north))[1:-1, 1:-1] % 360
    far = np.hypot(east, north)[1:-1, 1:-1] > 150
    np.testing.assert_allclose(found["slope"][far], np.degrees(np.arctan(0.2)), atol=0.1)
    assert np.abs((found["aspect"] - away + 180) % 360 - 180)[far].max() < 0.6


def test_flat_ground_and_what_is_not_known_have_no_aspect():
    z, valid = np.full((7, 7), 3.0), np.ones((7, 7), bool)
    valid[3, 3] = False
    found = terrain(z, valid, UTM, Window(0, 0, 5, 5))
    assert np.isnan(found["aspect"]).all()
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = np.nan
    np.testing.assert_array_equal(found["slope"], expected)


@pytest.mark.parametrize(("epsg", "x", "y", "step"), [(4326, 10, 60, 1e-4), (3857, 1_113_194.9, 8_399_737.9, 20)])
def test_degrees_and_mercator_are_measured_on_the_ground(epsg, x, y, step):
    """At 60 degrees north a degree of longitude has 55,800 m, and Mercator shows everything twice as large."""
    grid = Grid(CRS.from_epsg(epsg), Affine(step, 0, x, 0, -step, y), 10, 10)
    width, height = grid.row_sizes_m(0, 1)
    expected = (5.58, 11.141) if epsg == 4326 else (10.03, 9.99)
    np.testing.assert_allclose((width[0], height[0]), expected, rtol=2e-3)
    assert width[0] * height[0] == pytest.approx(grid.row_areas_ha(0, 1)[0] * 1e4, rel=1e-3)
    z = np.tile(np.arange(12) * width[0], (12, 1))
    found = terrain(z, np.ones(z.shape, bool), grid, grid.window)
    np.testing.assert_allclose(found["slope"], 45, atol=0.01)


@pytest.mark.skipif(shutil.which("gdaldem") is None, reason="needs gdaldem")
def test_blocks_equal_gdaldem(write_tif, tmp_path, monkeypatch):
    monkeypatch.setattr(verb.Layer, "block_px", 64)
    z = np.random.default_rng(0).normal(0, 3, (150, 170)).cumsum(0).cumsum(1).astype("float32") / 20
    z[40:43, 50] = -99
    z[100:120, 100:120] = 7
    path = write_tif("dem.tif", z, nodata=-99, bands=["elevation"])
    prepare(path, tmp_path / "out.tif", terrain=["slope", "aspect"])
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.descriptions == ("slope", "aspect")
        found = file.read()
    for mine, name in zip(found, ("slope", "aspect"), strict=True):
        subprocess.run(["gdaldem", name, path, tmp_path / "theirs.tif", "-q"], check=True)
        with rasterio.open(tmp_path / "theirs.tif") as file:
            theirs = np.where(file.read(1) == -9999, np.nan, file.read(1))
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        # Directions of ground that is nearly flat are a matter of rounding.
        assert np.nanmax(np.abs((mine - theirs + 180) % 360 - 180)) < 0.02


def test_wrong_use_is_explained(write_tif, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'slope'"):
        require_terrain(["slopes"], UTM)
    with pytest.raises(GridError, match="west to east"):
        require_terrain(["slope"], Grid(UTM.crs, UTM.transform * Affine.rotation(5), 5, 5))
    path = write_tif("image.tif", np.ones((2, 8, 8), "float32"), bands=["red", "nir"])
    with pytest.raises(BandError, match="2 bands"):
        prepare(path, tmp_path / "out.tif", terrain=["slope"])
    with pytest.raises(ConfigError, match="elevation has one"):
        prepare(path, tmp_path / "out.tif", terrain=["slope"], bands=["a", "b"])
    with pytest.raises(ConfigError, match="not with labels"):
        prepare(path, tmp_path / "out.tif", terrain=["slope"], report_loss=True)
