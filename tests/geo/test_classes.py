"""Class codes onto a coarser grid, against plain loops and counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from covermap.core.errors import ConfigError, GridError, LabelError
from covermap.core.legend import IGNORE, Legend
from covermap.geo.classes import (
    class_shares,
    count_classes,
    rare_class_weights,
    read_classes,
    reduce_classes,
)
from covermap.geo.grid import Grid, Window, partition

UTM31, UTM32 = CRS.from_epsg(32631), CRS.from_epsg(32632)
LEGEND = Legend.from_dict({"nodata": 0, "classes": [{"code": c, "name": f"c{c}"} for c in (1, 2, 3, 4)]})


def write(path: Path, codes: np.ndarray, transform: Affine, crs: CRS | None = UTM31, nodata: float | None = 0) -> Path:
    height, width = codes.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=codes.dtype, crs=crs,
        transform=transform, nodata=nodata, tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(codes, 1)
    return path


def brute_mode(index: np.ndarray, n: int, num_classes: int) -> np.ndarray:
    out = np.full((index.shape[0] // n, index.shape[1] // n), IGNORE, np.uint8)
    for r, c in np.ndindex(*out.shape):
        block = index[r * n : r * n + n, c * n : c * n + n]
        values, counts = np.unique(block[block < num_classes], return_counts=True)
        if len(values):
            out[r, c] = values[counts.argmax()]
    return out


@given(seed=st.integers(0, 999), n=st.sampled_from([1, 2, 3, 10]), size=st.tuples(st.integers(1, 6), st.integers(1, 6)))
@settings(max_examples=40, deadline=None)
def test_mode_equals_numpy(seed: int, n: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, 6, (size[0] * n, size[1] * n)).astype(np.uint8)
    index[index >= 4] = IGNORE
    index[:n, :n] = IGNORE
    np.testing.assert_array_equal(reduce_classes(index, n, 4), brute_mode(index, n, 4))


def test_a_tie_goes_to_the_lowest_index_and_an_empty_block_to_nothing() -> None:
    index = np.array([[3, 1, 255, 255], [1, 3, 255, 255]], np.uint8)
    assert reduce_classes(index, 2, 4).tolist() == [[1, IGNORE]]


def test_shares_are_counts() -> None:
    rng = np.random.default_rng(1)
    index = rng.choice(np.array([0, 1, 2, 255], np.uint8), (30, 40))
    index[:10, :10] = IGNORE
    shares = class_shares(index, 10, 3)
    assert shares.dtype == np.float32
    assert shares[:, 0, 0].tolist() == [0, 0, 0]
    for r, c in np.ndindex(3, 4):
        block = index[r * 10 : r * 10 + 10, c * 10 : c * 10 + 10]
        known = max(1, (block != IGNORE).sum())
        expected = [(block == k).sum() / known for k in range(3)]
        np.testing.assert_allclose(shares[:, r, c], expected, rtol=1e-6)


def test_a_rare_class_survives_weighted_mode_only(tmp_path: Path) -> None:
    # A road one pixel wide through a tenth of the blocks: 1 % of the scene, 10 % of its blocks.
    codes = np.full((300, 300), 1, np.uint8)
    codes[::100, :] = 2
    path = write(tmp_path / "roads.tif", codes, Affine(1, 0, 5e5, 0, -1, 4.6e6))
    grid = Grid(UTM31, Affine(10, 0, 5e5, 0, -10, 4.6e6), 30, 30)
    counts = count_classes(path, grid, LEGEND)
    assert counts.tolist() == [89_100, 900, 0, 0]
    weights = rare_class_weights(counts)
    np.testing.assert_allclose(weights[:2], [0.99**-0.5, 10.0])
    assert (read_classes(path, grid, LEGEND) == 1).sum() == 0
    kept = read_classes(path, grid, LEGEND, method="weighted_mode", weights=weights)
    assert (kept == 1).sum() == 90
    assert np.unique(np.nonzero(kept == 1)[0]).tolist() == [0, 10, 20]


def test_nearest_takes_the_pixel_under_the_centre(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(1, 5, (40, 60)).astype(np.uint8)
    path = write(tmp_path / "a.tif", codes, Affine(1, 0, 5e5, 0, -1, 4.6e6))
    grid = Grid(UTM31, Affine(10, 0, 5e5, 0, -10, 4.6e6), 4, 6)
    assert (read_classes(path, grid, LEGEND, method="nearest") == codes[5::10, 5::10] - 1).all()
    assert (reduce_classes(codes - 1, 10, 4, method="nearest") == codes[5::10, 5::10] - 1).all()
    odd = Grid(UTM31, Affine(5, 0, 5e5, 0, -5, 4.6e6), 8, 12)
    assert (read_classes(path, odd, LEGEND, method="nearest") == codes[2::5, 2::5] - 1).all()


def test_labels_that_lie_beside_the_grid_and_reach_beyond_it(tmp_path: Path) -> None:
    codes = np.full((50, 50), 2, np.uint8)
    codes[:20, :20] = 0
    path = write(tmp_path / "a.tif", codes, Affine(1, 0, 5e5, 0, -1, 4.6e6))
    grid = Grid(UTM31, Affine(10, 0, 5e5 - 20, 0, -10, 4.6e6), 6, 5)
    expected = np.full((6, 5), IGNORE)
    expected[:5, 2:] = 1
    expected[:2, 2:4] = IGNORE
    assert read_classes(path, grid, LEGEND).tolist() == expected.tolist()
    far = Grid(UTM31, Affine(10, 0, 7e5, 0, -10, 4.6e6), 3, 3)
    assert (read_classes(path, far, LEGEND) == IGNORE).all()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM31, Affine(10, 0, 5e5 + 30, 0, -10, 4.6e6 - 20)),  # on the source's pixels
        (UTM31, Affine(7.3, 0, 5e5 + 31.7, 0, -7.1, 4.6e6 - 22.2)),  # between them
        (UTM31, Affine(7, 1.5, 5e5 + 40, 1.2, -7, 4.6e6 - 40)),  # turned
        (UTM32, Affine(10, 0, -450, 0, -10, 4_617_350)),  # another CRS
        (CRS.from_epsg(4326), Affine(1e-4, 0, 3.0005, 0, -8e-5, 41.5512)),
    ],
)
def test_blocks_equal_the_whole(tmp_path: Path, crs: CRS, transform: Affine, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 5, (500, 600)).astype(np.uint8)
    path = write(tmp_path / "a.tif", codes, Affine(2, 0, 5e5, 0, -2, 4.6e6))
    grid = Grid(crs, transform, 90, 100)
    whole = read_classes(path, grid, LEGEND)
    assert 0.2 < (whole != IGNORE).mean() <= 1
    pieces = np.zeros_like(whole)
    for window in partition(grid.window, 23, 41):
        pieces[window.slices] = read_classes(path, grid, LEGEND, window=window)
    np.testing.assert_array_equal(pieces, whole)
    monkeypatch.setattr("covermap.geo.classes.TILE_PX", 77)
    np.testing.assert_array_equal(read_classes(path, grid, LEGEND), whole)


def test_another_crs_keeps_classes_in_their_places(tmp_path: Path) -> None:
    # Fields of 50 m; every pixel of the target, at its centre, must hold what the source holds there.
    codes = np.kron(np.random.default_rng(4).integers(1, 5, (20, 20)), np.ones((25, 25))).astype(np.uint8)
    source = Affine(2, 0, 5e5, 0, -2, 4.6e6)
    path = write(tmp_path / "a.tif", codes, source)
    grid = Grid(UTM32, Affine(2, 0, -300, 0, -2, 4_617_200), 200, 200)
    got = read_classes(path, grid, LEGEND)
    rows, cols = np.mgrid[:200, :200]
    xs, ys = warp_points(UTM32, UTM31, -300 + 2 * (cols.ravel() + 0.5), 4_617_200 - 2 * (rows.ravel() + 0.5))
    at_col, at_row = (np.array(xs) - 5e5) / 2, (4.6e6 - np.array(ys)) / 2
    assert at_col.min() > 0
    assert at_row.max() < 500
    np.testing.assert_array_equal(got.ravel(), codes[at_row.astype(int), at_col.astype(int)] - 1)


def test_float_codes_nan_and_unknown(tmp_path: Path) -> None:
    codes = np.array([[1, 2], [np.nan, 9]], np.float32)
    path = write(tmp_path / "a.tif", codes, Affine(10, 0, 0, 0, -10, 20), nodata=None)
    grid = Grid(UTM31, Affine(10, 0, 0, 0, -10, 20), 2, 2)
    with pytest.raises(LabelError, match=r"9\.0|9 \(1 px\)"):
        read_classes(path, grid, LEGEND)
    assert read_classes(path, grid, LEGEND, unknown="ignore").tolist() == [[0, 1], [IGNORE, IGNORE]]
    assert read_classes(path, grid, LEGEND, nodata=9).tolist() == [[0, 1], [IGNORE, IGNORE]]


def test_nodata_that_is_also_a_class_is_asked_about(tmp_path: Path) -> None:
    legend = Legend.from_dict({0: "water", 1: "land"})
    path = write(tmp_path / "a.tif", np.array([[0, 1]], np.uint8), Affine(10, 0, 0, 0, -10, 10), nodata=0)
    grid = Grid(UTM31, Affine(10, 0, 0, 0, -10, 10), 1, 2)
    with pytest.raises(LabelError, match="'water'"):
        read_classes(path, grid, legend)
    assert read_classes(path, grid, legend, nodata=-1).tolist() == [[0, 1]]


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((4, 4), np.uint8), Affine(1, 0, 0, 0, -1, 4), crs=None)
    with pytest.raises(GridError, match="no CRS"):
        read_classes(path, Grid(UTM31, Affine(1, 0, 0, 0, -1, 4), 4, 4), LEGEND)
    with pytest.raises(GridError, match="3 x 4 px"):
        reduce_classes(np.zeros((3, 4), np.uint8), 2, 4)
    with pytest.raises(ConfigError, match="did you mean 'mode'"):
        reduce_classes(np.zeros((4, 4), np.uint8), 2, 4, method="moode")
    for method, weights in (("weighted_mode", None), ("mode", [1, 1, 1, 1]), ("weighted_mode", [1])):
        with pytest.raises(ConfigError, match="weights"):
            reduce_classes(np.zeros((4, 4), np.uint8), 2, 4, method=method, weights=weights)


def test_no_crs_on_both_sides_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((4, 4), 3, np.uint8), Affine(1, 0, 0, 0, -1, 4), crs=None)
    grid = Grid(None, Affine(2, 0, 0, 0, -2, 4), 2, 2)
    assert read_classes(path, grid, LEGEND, window=Window(1, 0, 1, 2)).tolist() == [[2, 2]]
