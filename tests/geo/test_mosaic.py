import threading

import numpy as np
import pytest
import rasterio

from covermap.core.errors import BandError, DataError, GridError
from covermap.geo.grid import Window
from covermap.geo.mosaic import mosaic
from covermap.geo.raster import files_behind, open_raster

WHOLE = np.arange(2 * 30 * 40, dtype="uint16").reshape(2, 30, 40)


@pytest.fixture
def tiles(write_tif):
    """Four parts of unequal size; given in an order that is not that of their places."""
    return [
        write_tif(
            f"x-{row:010d}-{col:010d}.tif",
            WHOLE[:, row : row + 20, col : col + 25],
            bands=["B4", "B8"],
            origin=(500_000 + 10 * col, 5_000_000 - 10 * row),
        )
        for row, col in ((20, 25), (0, 0), (20, 0), (0, 25))
    ]


def test_files_side_by_side_are_one_raster(tiles):
    raster = open_raster(tiles, tiles=True)
    assert raster.bands == ("b4", "b8")
    assert (raster.grid.height, raster.grid.width) == (30, 40)
    assert raster.grid.transform.c == 500_000
    assert raster.grid.transform.f == 5_000_000
    values, valid = raster.read()
    assert valid.all()
    assert np.array_equal(values[0], WHOLE)
    seam, _ = raster.read(Window(15, 20, 10, 10))
    assert np.array_equal(seam[0], WHOLE[:, 15:25, 20:30])
    assert set(files_behind(raster.paths[0])) == set(tiles)
    assert raster.name == "x-0000000000-0000000000.tif"
    found = []
    thread = threading.Thread(target=lambda: found.append(raster.read()[0]))
    thread.start()
    thread.join()
    assert np.array_equal(found[0][0], WHOLE)


def test_files_that_do_not_fit_are_named(tiles, write_tif):
    part = WHOLE[:, :20, :25]
    for change, kind, message in (
        ({"crs": "EPSG:32632"}, GridError, r"odd\.tif is EPSG:32632"),
        ({"bands": ["B4", "B3"]}, BandError, r"odd\.tif has the bands B4, B3, .* has B4, B8"),
        ({"nodata": 0}, DataError, r"odd\.tif holds uint16 with nodata 0\.0"),
        ({"gsd": 20.0}, GridError, r"the pixels of .*odd\.tif .* do not continue"),
        ({"origin": (500_004, 5_000_000)}, GridError, r"the pixels of .*odd\.tif"),
        ({"origin": (500_100, 5_000_000)}, GridError, r"odd\.tif lie on each other|and .* lie on each other"),
    ):
        odd = write_tif("odd.tif", part, **{"bands": ["B4", "B8"], "origin": (500_000, 5_000_000), **change})
        with pytest.raises(kind, match=message):
            open_raster([*tiles[:1], *tiles[2:], odd], tiles=True)


def test_gaps_need_a_nodata_value(tiles, write_tif):
    with pytest.raises(GridError, match=r"3 files such as .* cover only 75\.0% of their rectangle"):
        open_raster(tiles[:3], tiles=True)
    parts = [
        write_tif(f"n{row}.tif", WHOLE[:, row : row + 10, row : row + 10] + 1, bands=["B4", "B8"], nodata=0,
                  origin=(500_000 + 10 * row, 5_000_000 - 10 * row))
        for row in (0, 10)
    ]  # fmt: skip
    values, valid = open_raster(parts, tiles=True).read()
    assert valid[0].sum() == 200
    assert not valid[0, 0, 15]
    assert values[0, 0, 15, 15] == WHOLE[0, 15, 15] + 1


def test_a_part_of_a_file_is_cut_to_whole_pixels(write_tif):
    path = write_tif("whole.tif", WHOLE, bands=["B4", "B8"], nodata=5)
    raster = open_raster(path, bounds=(500_052, 4_999_798, 500_151, 4_999_899))
    assert (raster.grid.height, raster.grid.width, raster.bands) == (10, 10, ("b4", "b8"))
    values, _ = raster.read()
    assert np.array_equal(values[0], WHOLE[:, 10:20, 5:15])
    assert files_behind(raster.paths[0]) == [path]
    with pytest.raises(GridError, match=r"does not lie inside of .*whole\.tif"):
        open_raster(path, bounds=(499_990, 4_999_800, 500_100, 4_999_900))


def test_of_files_that_overlap_the_first_that_holds_something_counts(write_tif):
    first, second = np.full((1, 8, 8), 3, np.uint8), np.full((1, 8, 8), 5, np.uint8)
    first[:, 2:4, 4:6], second[:, 6:, :] = 0, 0
    paths = [write_tif("a.tif", first, nodata=0), write_tif("b.tif", second, nodata=0, origin=(500_040, 5_000_000))]
    with rasterio.open(mosaic(paths, overlap=True)) as dataset:
        found = dataset.read(1)
        assert dataset.nodata == 0
    want = np.zeros((8, 12), np.uint8)
    want[:, 4:] = second
    want[:, :8] = np.where(first > 0, first, want[:, :8])
    assert np.array_equal(found, want)
    unknown = [write_tif("c.tif", first), write_tif("d.tif", second, origin=(500_040, 5_000_000))]
    with pytest.raises(GridError, match="lie on each other"):
        mosaic(unknown, overlap=True)
