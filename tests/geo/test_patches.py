"""The sieve against a brute-force reading of its rule, against GDAL's, and what must hold for any map."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import sieve as gdal_sieve
from scipy import ndimage

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.geo.grid import Grid
from covermap.geo.patches import MappingUnit, PixelAreas, connected, sieve_classes

EIGHT = np.ones((3, 3))


def metres(height: int, width: int) -> Grid:
    return Grid(CRS.from_epsg(32631), Affine(10, 0, 5e5, 0, -10, 5e6), height, width)


def degrees(height: int, width: int) -> Grid:
    """Pixels of 5 x 1 degree, from 70 degrees north on: each row is much larger than the one above."""
    return Grid(CRS.from_epsg(4326), Affine(1, 0, 0, 0, -5, 70), height, width)


def patches_of(index: np.ndarray, eight: bool) -> tuple[np.ndarray, int]:
    """Number of each pixel's patch from 1, 0 for nodata; and how many there are."""
    label, count = np.zeros(index.shape, int), 0
    for each in np.unique(index[index != IGNORE]):
        mine, found = ndimage.label(index == each, structure=EIGHT if eight else None)
        label[mine > 0] = mine[mine > 0] + count
        count += found
    return label, count


def by_the_rule(index: np.ndarray, units: np.ndarray, least: float, eight: bool) -> np.ndarray:
    """The sieve as its rule says it, pixel by pixel and patch by patch, labelled anew in each round."""
    index = index.astype(int)
    steps = ((0, 1), (1, 0), *(((1, 1), (1, -1)) if eight else ()))
    while True:
        label, count = patches_of(index, eight)
        size, code = np.zeros(count + 1, int), np.zeros(count + 1, int)
        beside: list[set[int]] = [set() for _ in range(count + 1)]
        for (row, col), mine in np.ndenumerate(label):
            size[mine] += units[row] * (mine > 0)
            code[mine] = index[row, col]
            for down, right in steps:
                y, x = row + down, col + right
                if y < label.shape[0] and 0 <= x < label.shape[1] and mine and label[y, x] not in (0, mine):
                    beside[mine].add(label[y, x])
                    beside[label[y, x]].add(mine)
        order = [(size[patch], -code[patch]) for patch in range(count + 1)]
        small = [patch for patch in range(1, count + 1) if size[patch] < least and beside[patch]]
        if not small:
            return index
        first = [p for p in small if all(order[p] < order[q] for q in beside[p] if size[q] < least)]
        new = {patch: code[max(beside[patch], key=lambda q: order[q])] for patch in first}
        for patch, taken in new.items():
            index[label == patch] = taken


def sieved(index: np.ndarray, grid: Grid, unit: MappingUnit, connectivity: int = 4, strip_px: int = 1 << 20):
    found = sieve_classes(lambda window: index[window.slices], grid, unit, connectivity=connectivity, strip_px=strip_px)
    whole = [found.apply(number, index[window.slices]) for number, window in enumerate(found.windows)]
    return found, np.concatenate(whole)


@st.composite
def maps(draw: st.DrawFn) -> np.ndarray:
    """Up to 14 x 14 px of up to 5 classes, as single pixels or in squares, with some nodata."""
    height, width = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    block = draw(st.integers(1, 3))
    index = rng.integers(0, draw(st.integers(2, 5)), (height, width)).astype(np.uint8)
    index = np.kron(index, np.ones((block, block), np.uint8))[:height, :width]
    index[rng.random(index.shape) < draw(st.sampled_from([0, 0.1, 0.4]))] = IGNORE
    return index


@settings(max_examples=150)
@given(maps(), st.integers(2, 9), st.sampled_from([4, 8]), st.sampled_from(["px", "ha"]), st.booleans())
def test_every_map_is_sieved_by_the_rule_whatever_the_strips(index, num, connectivity, kind, in_degrees) -> None:
    grid = (degrees if in_degrees else metres)(*index.shape)
    size = num if kind == "px" else num * grid.row_areas_ha()[0]
    if num >= index.size:
        return
    unit = MappingUnit(size, kind)
    units, least = unit.on(grid)
    want = by_the_rule(index, units, least, connectivity == 8)
    for rows in (1, 3, 100):
        found, got = sieved(index, grid, unit, connectivity, rows * index.shape[1])
        np.testing.assert_array_equal(got, want)
        label, count = patches_of(index, connectivity == 8)
        sizes = np.bincount(label.ravel(), np.repeat(units, index.shape[1]), count + 1)[1:]
        assert (found.num_patches, found.num_below) == (count, (sizes < least).sum())


@settings(max_examples=60)
@given(maps(), st.integers(2, 9), st.sampled_from([4, 8]))
def test_what_must_hold_for_any_map(index, num, connectivity) -> None:
    if num >= index.size:
        return
    grid, unit = metres(*index.shape), MappingUnit(num, "px")
    found, got = sieved(index, grid, unit, connectivity)
    assert ((got == IGNORE) == (index == IGNORE)).all()
    label, count = patches_of(index, connectivity == 8)
    large = np.flatnonzero(np.bincount(label.ravel(), minlength=count + 1) >= num)
    kept = np.isin(label, large[large > 0])
    np.testing.assert_array_equal(got[kept], index[kept])
    # What is left below the unit has no neighbour: all around it is nodata or the edge.
    label, count = patches_of(got, connectivity == 8)
    small = [patch for patch in range(1, count + 1) if (label == patch).sum() < num]
    structure = EIGHT if connectivity == 8 else None
    for patch in small:
        around = ndimage.binary_dilation(label == patch, structure=structure) & (label != patch)
        assert (got[around] == IGNORE).all()
    assert found.num_left == len(small)
    # Once more changes nothing; and a map that is turned or mirrored is sieved to the same, turned or mirrored.
    np.testing.assert_array_equal(sieved(got, grid, unit, connectivity)[1], got)
    for turn in (np.flipud, np.fliplr, np.transpose):
        other = np.ascontiguousarray(turn(index))
        np.testing.assert_array_equal(sieved(other, metres(*other.shape), unit, connectivity)[1], turn(got))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_specks_in_large_patches_go_as_by_gdal(connectivity) -> None:
    rng = np.random.default_rng(4)
    index = np.kron(rng.permutation(12).reshape(3, 4), np.ones((40, 40))).astype(np.uint8)
    for row, col in np.argwhere(np.ones((12, 16), bool)):
        if rng.random() < 0.6:  # a speck of 1 to 5 px, far from the next
            index[row * 10 + 3, col * 10 + 3 : col * 10 + 3 + rng.integers(1, 6)] = 20 + rng.integers(0, 4)
    want = gdal_sieve(index, 6, connectivity=connectivity)
    assert (want != index).any()
    np.testing.assert_array_equal(sieved(index, metres(120, 160), MappingUnit(6, "px"), connectivity)[1], want)


def test_small_patches_among_small_ones_go_too() -> None:
    """GDAL's sieve leaves nearly all of them, for their largest neighbours are small as well."""
    index = np.random.default_rng(0).integers(0, 6, (60, 60)).astype(np.uint8)
    label, count = patches_of(sieved(index, metres(60, 60), MappingUnit(9, "px"))[1], False)
    assert np.bincount(label.ravel(), minlength=count + 1)[1:].min() >= 9
    label, count = patches_of(gdal_sieve(index, 9), False)
    assert (np.bincount(label.ravel(), minlength=count + 1)[1:] < 9).sum() > 100


def test_a_patch_of_exactly_the_unit_stays_and_one_pixel_less_goes() -> None:
    for gsd in (10, 30, 3, 1.5):  # of the last two the division is rounded up
        grid = Grid(CRS.from_epsg(32631), Affine(gsd, 0, 5e5, 0, -gsd, 5e6), 40, 40)
        index = np.zeros((40, 40), np.uint8)
        index[2:12, 2:12] = 1
        index[20:30, 20:30] = 1
        index[20, 20] = 0
        got = sieved(index, grid, MappingUnit(100 * gsd**2, "m2"))[1]
        assert (got[2:12, 2:12] == 1).all()
        assert (got[20:30, 20:30] == 0).all()


def test_areas_in_degrees_are_true_ones() -> None:
    """Two patches of 9 pixels: the one near the pole is half as large on the ground."""
    grid = Grid(CRS.from_epsg(4326), Affine(0.01, 0, 10, 0, -0.1, 65), 650, 30)
    index = np.zeros((650, 30), np.uint8)
    index[5:8, 3:6] = 1  # at 64 degrees
    index[630:633, 3:6] = 1  # at 2 degrees
    areas = grid.row_areas_ha()
    between = MappingUnit(9 * (areas[5] + areas[630]) / 2, "ha")
    assert areas[630] > 2 * areas[5]
    got = sieved(index, grid, between, strip_px=700)[1]
    assert (got[5:8, 3:6] == 0).all()
    assert (got[630:633, 3:6] == 1).all()
    np.testing.assert_array_equal(sieved(index, grid, MappingUnit(9, "px"))[1], index)


def test_pixel_areas_are_those_of_the_grid() -> None:
    for grid in (metres(50, 3), degrees(30, 2), Grid(CRS.from_epsg(3857), Affine(100, 0, 0, 0, -100, 8e6), 40, 5)):
        areas = PixelAreas.of(grid)
        np.testing.assert_allclose(areas.units * areas.unit_ha, grid.row_areas_ha(), rtol=1e-8)


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_connected_gives_the_least_member_of_each_component(seed) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    pairs = rng.integers(0, count, (2, int(rng.integers(0, 80)))).astype(np.int32)
    want = np.arange(count)
    for _ in range(count):
        for one, other in pairs.T:
            want[[one, other]] = min(want[one], want[other])
    np.testing.assert_array_equal(connected(count, pairs), want)


def test_a_spiral_over_many_strips_is_one_patch() -> None:
    index = np.zeros((41, 41), np.uint8)
    row, col, step = 0, 0, (0, 1)
    index[0, 0] = 1
    while True:
        ahead = (row + 2 * step[0], col + 2 * step[1])
        if not (0 <= ahead[0] < 41 and 0 <= ahead[1] < 41) or index[ahead]:
            step = (step[1], -step[0])
            ahead = (row + 2 * step[0], col + 2 * step[1])
            if not (0 <= ahead[0] < 41 and 0 <= ahead[1] < 41) or index[ahead]:
                break
        index[row + step[0], col + step[1]] = 1
        row, col = row + step[0], col + step[1]
    found, _ = sieved(index, metres(41, 41), MappingUnit(2, "px"), strip_px=1)
    assert found.num_patches == patches_of(index, False)[1] == 2


@pytest.mark.parametrize(
    ("text", "want"),
    [("1ha", (1, "ha")), (" 0.5 HA ", (0.5, "ha")), ("500m2", (500, "m2")), ("500 m²", (500, "m2")), ("9px", (9, "px")), (".5ha", (0.5, "ha"))],
)  # fmt: skip
def test_areas_are_understood(text, want) -> None:
    assert MappingUnit.parse(text) == want


@pytest.mark.parametrize("text", ["", "ha", "1", "1 acre", "-1ha", "0ha", "1,5ha", "nanha", "1e3m2", "1km2"])
def test_what_is_no_area_is_refused(text) -> None:
    with pytest.raises(ConfigError, match="is no area"):
        MappingUnit.parse(text)


def test_areas_that_make_no_sense_for_the_map_are_refused() -> None:
    grid = metres(20, 20)
    for text in ("1px", "0.01ha", "99m2"):
        with pytest.raises(ConfigError, match="not larger than a pixel"):
            MappingUnit.parse(text).on(grid)
    for text in ("401px", "4.1ha"):
        with pytest.raises(ConfigError, match="larger than the map"):
            MappingUnit.parse(text).on(grid)
    MappingUnit.parse("4ha").on(grid)
    with pytest.raises(ConfigError, match="connectivity of 6"):
        sieved(np.zeros((20, 20), np.uint8), grid, MappingUnit(2, "px"), 6)
