"""Pairs of classes against a loop; rows of windows are written whole, with the checksum of all pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from covermap.core.legend import IGNORE
from covermap.geo.grid import Grid, partition
from covermap.geo.pairs import PairKeys
from covermap.geo.writer import HashingWriter


@pytest.mark.parametrize("sizes", [(3, 5), (15, 15), (15, 16), (44, 44), (254, 254)])
@pytest.mark.parametrize("alike", [True, False])
def test_counts_of_pairs(sizes: tuple[int, int], alike: bool) -> None:
    random = np.random.default_rng(0)
    first, other = (random.integers(0, k, (70, 90)).astype(np.uint8) for k in sizes)
    first[random.random(first.shape) < 0.1] = IGNORE
    other[random.random(first.shape) < 0.1] = IGNORE
    row_ha = [0.01] * 70 if alike else (0.01 + 0.001 * np.arange(70)).tolist()
    pairs = PairKeys(sizes)
    keys = pairs.of(first, other)
    assert keys.dtype == (np.uint8 if (sizes[0] + 1) * (sizes[1] + 1) <= 256 else np.uint16)
    pixels, hectares = pairs.count(keys, row_ha)
    expected, areas = np.zeros(pairs.shape, int), np.zeros(pairs.shape)
    for row in range(70):
        for a, b in zip(first[row].tolist(), other[row].tolist(), strict=True):
            at = min(a, sizes[0]), min(b, sizes[1])
            expected[at] += 1
            areas[at] += row_ha[row]
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_allclose(hectares, areas)


def test_the_checksum_is_that_of_the_whole_whatever_the_windows(tmp_path: Path) -> None:
    grid = Grid(CRS.from_epsg(32631), Affine(10, 0, 5e5, 0, -10, 5e6), 75, 130)
    codes = np.random.default_rng(0).integers(0, 60_000, (75, 130)).astype(np.uint16)
    for number, size in enumerate(((75, 130), (16, 32), (1, 130), (40, 7))):
        path = tmp_path / f"{number}.tif"
        with HashingWriter(path, grid, bands=["x"], dtype="uint16", nodata=65535) as writer:
            for window in partition(grid.window, *size):
                writer.write(window, codes[window.slices])
        assert writer.content == hashlib.sha256(codes.astype("<u2").tobytes()).hexdigest()
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(1), codes)
